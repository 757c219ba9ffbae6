//! [`SpanExport`]: carries finished spans to a collector, in batches, on a thread of its own.
//!
//! Invariants: handing over a span never waits; what does not fit in the queue is dropped and
//! counted. A collector that is gone costs spans, nothing else: one warning when it goes, one line
//! when it comes back. No span of the export itself is recorded: each batch would cause the next one.
//!
//! Spans are written down, as the collector wants them, by the thread that hands them over: what they
//! gathered is given back there, and what waits is one piece of memory that is used again.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::finished_span::FinishedSpan;
use crate::lock::lock;
use crate::trace_ids::{Ids, begin};

/// Spans that wait: three seconds of 1,000 searches a second, at five spans each.
const QUEUE_MAX: u64 = 16_384;
/// Bytes that wait: ordinary spans have some 300, those with the longest attributes and events
/// half a million.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Spans in one call to the collector. A call costs as much as hundreds of spans, here and there.
const BATCH_MAX: u64 = 2_048;
/// Bytes in one call, less than a span may have: receivers of gRPC take 4 MiB.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// How long a span waits for others at most.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Bytes that are kept for the next batch, and for the next spans of a thread: what ordinary ones need.
/// Memory of this size given back in between would be zeroed by the kernel each time.
const BATCH_BYTES_KEPT: usize = 1 << 20;
const WRITTEN_BYTES_KEPT: usize = 4 << 10;
/// Bytes that are written before they are handed over: what the spans of a request have by far.
const WRITTEN_BYTES: usize = 64 << 10;

/// Writes a span behind what is there.
pub type SpanEncoder = fn(&FinishedSpan<'_>, &mut Vec<u8>);

/// Spans, written one after the other.
#[derive(Debug, Default)]
pub struct SpanBatch {
    /// What the sink's encoder wrote.
    pub bytes: Vec<u8>,
    /// How many spans these are.
    pub count: u64,
}

/// Where spans are sent.
pub trait SpanSink: Send {
    /// What writes spans for it; asked once.
    fn encoder(&self) -> SpanEncoder;

    /// Sends spans; answers how many the collector rejected. May block; bounds its own time.
    ///
    /// # Errors
    /// Why none was taken.
    fn export(&mut self, batch: &SpanBatch) -> Result<u64, String>;
}

/// What waits. Requests hand over their spans without waking anybody: the thread sleeps until its batch
/// is full or old.
#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The oldest first; all but the last are full.
    batches: VecDeque<SpanBatch>,
    /// Of all batches.
    count: u64,
    bytes: usize,
    /// Memory for the next batch.
    spare: Vec<u8>,
    /// Who waits until all that came before is sent.
    flushes: Vec<SyncSender<()>>,
    closed: bool,
}

impl State {
    /// Takes over so many spans unless there is no room for all.
    fn add(&mut self, spans: &[u8], count: u64) -> bool {
        if self.count + count > QUEUE_MAX || self.bytes + spans.len() > QUEUE_BYTES_MAX {
            return false;
        }
        let is_open = self.batches.back().is_some_and(|it| !it.is_full_with(spans.len(), count));
        if !is_open {
            let bytes = std::mem::take(&mut self.spare);
            self.batches.push_back(SpanBatch { bytes, count: 0 });
        }
        if let Some(last) = self.batches.back_mut() {
            last.bytes.extend_from_slice(spans);
            last.count += count;
        }
        self.count += count;
        self.bytes += spans.len();
        true
    }

    fn next(&mut self) -> Option<SpanBatch> {
        let batch = self.batches.pop_front()?;
        self.count -= batch.count;
        self.bytes -= batch.bytes.len();
        Some(batch)
    }

    /// Whether the oldest batch can grow no more.
    fn is_full(&self) -> bool {
        self.batches.len() > 1 || self.batches.front().is_some_and(|it| it.is_full_with(0, 1))
    }
}

impl SpanBatch {
    /// Whether so many bytes of so many spans do not go in; a batch of nothing takes anything.
    fn is_full_with(&self, bytes: usize, count: u64) -> bool {
        let is_beyond = || self.bytes.len() + bytes > BATCH_BYTES_MAX;
        self.count > 0 && (self.count + count > BATCH_MAX || is_beyond())
    }
}

/// Where finished spans are handed over. The export ends with the last clone.
#[derive(Clone)]
pub struct SpanQueue {
    encoder: SpanEncoder,
    entrance: Arc<Entrance>,
}

struct Entrance(Arc<Waiting>);

impl Drop for Entrance {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.changed.notify_all();
    }
}

thread_local! {
    /// The spans that this thread writes down.
    static WRITTEN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl SpanQueue {
    fn new(encoder: SpanEncoder) -> (Self, Arc<Waiting>) {
        let waiting = Arc::<Waiting>::default();
        let entrance = Arc::new(Entrance(Arc::clone(&waiting)));
        (Self { encoder, entrance }, waiting)
    }

    /// Hands over spans. They are written before the lock is taken, which is held for a copy only.
    pub(crate) fn push<'a>(&self, spans: impl Iterator<Item = FinishedSpan<'a>>) {
        // Whoever ends spans while writing some, or while the thread is torn down, gets memory of its own.
        let mut written = WRITTEN.try_with(Cell::take).unwrap_or_default();
        let mut count = 0;
        for span in spans {
            (self.encoder)(&span, &mut written);
            count += 1;
            // Together as long as they are as small as spans are.
            if written.len() >= WRITTEN_BYTES {
                self.add(&written, std::mem::take(&mut count));
                written.clear();
            }
        }
        if count > 0 {
            self.add(&written, count);
        }
        written.clear();
        written.shrink_to(WRITTEN_BYTES_KEPT);
        let _ = WRITTEN.try_with(|kept| kept.set(written));
    }

    fn add(&self, spans: &[u8], count: u64) {
        let Waiting { state, changed } = &*self.entrance.0;
        let mut state = lock(state);
        let (was_empty, was_full) = (state.batches.is_empty(), state.is_full());
        if !state.add(spans, count) {
            drop(state);
            return dropped("queue_full", count);
        }
        let is_full = state.is_full();
        drop(state);
        // The first one begins a batch, and one more fills it.
        if was_empty || is_full && !was_full {
            changed.notify_one();
        }
    }
}

/// The export of spans; ends with the process.
pub struct SpanExport {
    queue: SpanQueue,
}

impl SpanExport {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(sink: Box<dyn SpanSink>) -> std::io::Result<Self> {
        let (queue, waiting) = SpanQueue::new(sink.encoder());
        let export = Export { waiting, sink, failing: false };
        thread::Builder::new().name("span-export".into()).spawn(move || export.run())?;
        Ok(Self { queue })
    }

    /// Where finished spans are handed over.
    #[must_use]
    pub fn queue(&self) -> SpanQueue {
        self.queue.clone()
    }

    /// Sends what waits, at most for `patience`; answers whether all was sent or given up.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, told) = sync_channel(1);
        let waiting = &self.queue.entrance.0;
        lock(&waiting.state).flushes.push(done);
        waiting.changed.notify_one();
        told.recv_timeout(patience).is_ok()
    }
}

struct Export {
    waiting: Arc<Waiting>,
    sink: Box<dyn SpanSink>,
    failing: bool,
}

impl Export {
    /// Until every queue is gone.
    fn run(mut self) {
        while let Some(flushes) = self.wait() {
            // A flush means what waits now, so that it ends.
            let waiting = lock(&self.waiting.state).batches.len();
            for _ in 0..if flushes.is_empty() { waiting.min(1) } else { waiting } {
                let next = lock(&self.waiting.state).next();
                if let Some(batch) = next {
                    self.send(batch);
                }
            }
            for done in flushes {
                // Whoever asked may have lost patience.
                let _ = done.try_send(());
            }
        }
    }

    /// Until there is a batch, or its first span is as old as it may get, or somebody asked for a flush.
    fn wait(&self) -> Option<Vec<SyncSender<()>>> {
        let Waiting { state, changed } = &*self.waiting;
        let mut state = lock(state);
        let mut until = None;
        loop {
            let old = until.is_some_and(|until| Instant::now() >= until);
            if state.is_full() || old || !state.flushes.is_empty() || state.closed {
                if state.closed && state.batches.is_empty() && state.flushes.is_empty() {
                    return None;
                }
                return Some(std::mem::take(&mut state.flushes));
            }
            if state.batches.is_empty() {
                state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let until = *until.get_or_insert_with(|| Instant::now() + BATCH_WAIT);
            let left = until.saturating_duration_since(Instant::now());
            let waited = changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Hands a batch to the sink, outside of every recorded trace. A sink that panics has failed.
    fn hand_over(&mut self, batch: &SpanBatch) -> Result<u64, String> {
        let (unrecorded, _) = begin(Ids::unrecorded(), || tracing::info_span!("telemetry.export"));
        let export = AssertUnwindSafe(|| unrecorded.in_scope(|| self.sink.export(batch)));
        catch_unwind(export).unwrap_or_else(|_| Err("the export panicked".to_string()))
    }

    fn send(&mut self, mut batch: SpanBatch) {
        let (count, sent) = (batch.count, self.hand_over(&batch));
        batch.bytes.clear();
        batch.bytes.shrink_to(BATCH_BYTES_KEPT);
        lock(&self.waiting.state).spare = batch.bytes;
        match sent {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                metrics::counter!("mainstay_spans_exported_total").increment(count - rejected);
                if rejected > 0 {
                    dropped("rejected", rejected);
                }
                if self.failing {
                    self.failing = false;
                    tracing::info!("the collector of spans takes them again");
                }
            }
            Err(reason) => {
                dropped("export_failed", count);
                if !self.failing {
                    self.failing = true;
                    let reason = crate::redact::redact(&reason);
                    tracing::warn!(
                        reason,
                        "the collector takes no spans; they are dropped and counted"
                    );
                }
            }
        }
    }
}

fn dropped(reason: &'static str, count: u64) {
    metrics::counter!("mainstay_spans_dropped_total", "reason" => reason).increment(count);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::finished_span::{SpanAttributes, SpanKind};
    use crate::spans::{SampleRatio, Spans};

    /// Calls a dependency as a pipeline does, or panics with an empty batch.
    struct Calling;

    fn call() {
        tracing::info_span!(target: "mainstay_resilience", "dependency.attempt").in_scope(|| ());
    }

    impl SpanSink for Calling {
        fn encoder(&self) -> SpanEncoder {
            |span, written| written.extend(span.name.as_bytes())
        }

        fn export(&mut self, batch: &SpanBatch) -> Result<u64, String> {
            assert!(batch.count > 0, "nothing to send");
            call();
            Ok(0)
        }
    }

    /// V5: otherwise each batch would cause the next one, without end.
    #[test]
    fn spans_of_the_export_itself_are_not_recorded() {
        let (queue, waiting) = SpanQueue::new(Calling.encoder());
        let spans = Spans::new(Some(queue.clone()), SampleRatio::new(1.0));
        tracing::subscriber::with_default(spans, || {
            call();
            let batch = lock(&waiting.state).next().unwrap();
            assert_eq!((batch.count, &batch.bytes[..]), (1, &b"dependency.attempt"[..]));
            let mut export = Export { waiting, sink: Box::new(Calling), failing: false };
            assert_eq!(export.hand_over(&batch), Ok(0));
            assert!(lock(&export.waiting.state).batches.is_empty());
            assert!(export.hand_over(&SpanBatch::default()).unwrap_err().contains("panicked"));
        });
    }

    /// V5: what waits is bounded, and so is what one call carries.
    #[test]
    fn batches_and_what_waits_are_bounded_by_spans_and_by_bytes() {
        let taken = |bytes: usize| {
            let (span, mut state) = (vec![1; bytes], State::default());
            let mut count = 0;
            while state.add(&span, 1) {
                count += 1;
            }
            assert_eq!((state.count, state.bytes), (count, bytes * count as usize));
            let mut batches = Vec::new();
            while let Some(batch) = state.next() {
                assert_eq!(batch.bytes.len(), bytes * batch.count as usize);
                batches.push(batch.count);
            }
            assert_eq!((state.count, state.bytes), (0, 0));
            batches
        };
        assert_eq!(taken(300), [BATCH_MAX; 8]);
        assert_eq!(taken(500 << 10), [4, 4, 4, 4]);
        assert_eq!(taken(3 << 20), [1, 1], "one goes alone where it is above the bound");
        assert_eq!(taken(9 << 20), [0; 0]);
    }

    /// V5: what is written before it is handed over is bounded, however many spans end together.
    #[test]
    fn spans_that_end_together_are_handed_over_in_pieces() {
        let name = "n".repeat(10_000);
        let attributes = SpanAttributes::default();
        let span = |span_id| FinishedSpan {
            trace_id: 1,
            span_id,
            parent_span_id: 0,
            state: "",
            correlation_id: "",
            name: &name,
            kind: SpanKind::Internal,
            begun_ns: 0,
            ended_ns: 0,
            attributes: &attributes,
            events: &[],
            failed: false,
        };
        let (queue, waiting) = SpanQueue::new(|span, written| {
            assert!(written.len() < WRITTEN_BYTES, "{} are waiting", written.len());
            written.extend(span.name.as_bytes());
            written.push(span.span_id as u8);
        });
        queue.push((0..250).map(span));
        let mut state = lock(&waiting.state);
        assert_eq!((state.count, state.bytes), (250, 250 * 10_001));
        let batches = std::iter::from_fn(|| state.next());
        let bytes: Vec<u8> = batches.flat_map(|batch| batch.bytes).collect();
        assert!(bytes.chunks(10_001).zip(0..).all(|(span, id)| span[10_000] == id));
        assert_eq!((state.count, state.bytes), (0, 0));
    }

    /// V5: what is handed over in one piece is sent in one call, or not at all.
    #[test]
    fn spans_that_end_together_go_into_one_batch() {
        let mut state = State::default();
        assert!(state.add(&[0; 300], BATCH_MAX - 2));
        assert!(state.add(&[0; 300], 3));
        assert_eq!(state.next().map(|batch| batch.count), Some(BATCH_MAX - 2));
        assert!(!state.add(&[0; 300], QUEUE_MAX - 2));
        assert!(state.add(&[0; 300], QUEUE_MAX - 3));
    }

    #[test]
    fn a_batch_is_due_once_another_span_does_not_go_in() {
        let mut state = State::default();
        for _ in 1..BATCH_MAX {
            state.add(b"span", 1);
        }
        assert!(!state.is_full());
        state.add(b"span", 1);
        assert!(state.is_full());
        let mut state = State::default();
        state.add(&vec![1; BATCH_BYTES_MAX], 1);
        assert!(!state.is_full());
        state.add(b"span", 1);
        assert!(state.is_full());
    }

    /// A sink that gets what a sink got before may see nothing of it.
    #[test]
    fn memory_is_used_again_and_given_back_where_it_is_large() {
        struct Kept;
        impl SpanSink for Kept {
            fn encoder(&self) -> SpanEncoder {
                |span, written| written.extend(span.name.as_bytes())
            }
            fn export(&mut self, batch: &SpanBatch) -> Result<u64, String> {
                Err(format!("{} of {} bytes", batch.count, batch.bytes.len()))
            }
        }
        let (_queue, waiting) = SpanQueue::new(Kept.encoder());
        let mut export = Export { waiting, sink: Box::new(Kept), failing: false };
        for bytes in [100, 2 << 20, 200] {
            let batch = {
                let mut state = lock(&export.waiting.state);
                assert!(state.add(&vec![1; bytes], 1));
                state.next().unwrap()
            };
            assert_eq!((batch.bytes.len(), batch.count), (bytes, 1));
            export.send(batch);
            let kept = lock(&export.waiting.state).spare.capacity();
            assert!((1..=BATCH_BYTES_KEPT).contains(&kept), "{kept}");
        }
    }
}
