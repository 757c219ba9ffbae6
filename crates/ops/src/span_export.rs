//! [`SpanExport`]: carries finished spans to a collector, in batches, on a thread of its own.
//!
//! Invariants: handing over a span never waits; what does not fit in the queue is dropped and
//! counted. A collector that is gone costs spans, nothing else: one warning when it goes, one line
//! when it comes back. No span of the export itself is recorded: each batch would cause the next one.
//!
//! Spans are written down, as the collector wants them, by the thread that hands them over, and what waits is one
//! piece of memory that is used again.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::otlp::{FinishedSpan, write_span};
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
/// Bytes that are kept for each of the next two batches: what ordinary ones need. Memory of this size given
/// back in between would be zeroed by the kernel each time.
const BATCH_BYTES_KEPT: usize = 1 << 20;

/// Spans, written one after the other.
#[derive(Debug, Default)]
pub struct SpanBatch {
    /// Each as a field of the message `ScopeSpans` of OTLP 1.
    pub bytes: Vec<u8>,
    /// How many spans these are.
    pub count: u64,
}

/// Where spans are sent.
pub trait SpanSink: Send {
    /// Sends spans; answers how many the collector rejected. May block; bounds its own time. The memory that it
    /// leaves in the batch is used again.
    ///
    /// # Errors
    /// Why none was taken.
    fn export(&mut self, batch: &mut SpanBatch) -> Result<u64, String>;
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
    /// Memory for the next batches: one is filled while another one is sent.
    spare: [Vec<u8>; 2],
    /// Who waits until all that came before is sent.
    flushes: Vec<SyncSender<()>>,
    closed: bool,
}

impl State {
    /// Has a span of at most so many bytes written, unless there is no room for it.
    fn add(&mut self, bytes_max: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.count >= QUEUE_MAX || self.bytes + bytes_max > QUEUE_BYTES_MAX {
            return false;
        }
        let is_open = self.batches.back().is_some_and(|it| !it.is_full_with(bytes_max));
        if !is_open {
            let bytes = self.spare.iter_mut().max_by_key(|it| it.capacity());
            let bytes = bytes.map(std::mem::take).unwrap_or_default();
            self.batches.push_back(SpanBatch { bytes, count: 0 });
        }
        if let Some(last) = self.batches.back_mut() {
            let before = last.bytes.len();
            write(&mut last.bytes);
            last.count += 1;
            self.bytes += last.bytes.len() - before;
        }
        self.count += 1;
        true
    }

    /// Keeps memory in place of what is smaller.
    fn keep(&mut self, bytes: Vec<u8>) {
        if let Some(least) = self.spare.iter_mut().min_by_key(|it| it.capacity()) {
            *least = bytes;
        }
    }

    fn next(&mut self) -> Option<SpanBatch> {
        let batch = self.batches.pop_front()?;
        self.count -= batch.count;
        self.bytes -= batch.bytes.len();
        Some(batch)
    }

    /// Whether the oldest batch can grow no more.
    fn is_full(&self) -> bool {
        self.batches.len() > 1 || self.batches.front().is_some_and(|it| it.is_full_with(0))
    }
}

impl SpanBatch {
    /// Whether a span of so many bytes does not go in; a batch of nothing takes anything.
    fn is_full_with(&self, bytes: usize) -> bool {
        let is_beyond = || self.bytes.len() + bytes > BATCH_BYTES_MAX;
        self.count > 0 && (self.count >= BATCH_MAX || is_beyond())
    }
}

/// Where finished spans are handed over. The export ends with the last clone.
#[derive(Clone)]
pub struct SpanQueue(Arc<Entrance>);

struct Entrance(Arc<Waiting>);

impl Drop for Entrance {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.changed.notify_all();
    }
}

impl SpanQueue {
    fn new() -> (Self, Arc<Waiting>) {
        let waiting = Arc::<Waiting>::default();
        (Self(Arc::new(Entrance(Arc::clone(&waiting)))), waiting)
    }

    /// Hands over spans; answers how many had no room, for [`count_dropped`](Self::count_dropped). They are
    /// written down where they wait for others, while the lock is held: any other place would be fetched from
    /// memory first, which takes longer than writing.
    #[must_use]
    pub(crate) fn push<'a>(&self, spans: impl Iterator<Item = FinishedSpan<'a>>) -> u64 {
        let Waiting { state, changed } = &*self.0.0;
        let (mut state, mut without_room) = (lock(state), 0);
        let (was_empty, was_full) = (state.batches.is_empty(), state.is_full());
        for span in spans {
            without_room +=
                u64::from(!state.add(span.bytes_max(), |bytes| write_span(&span, bytes)));
        }
        let (is_empty, is_full) = (state.batches.is_empty(), state.is_full());
        drop(state);
        // The first one begins a batch, and one more fills it.
        if was_empty && !is_empty || is_full && !was_full {
            changed.notify_one();
        }
        without_room
    }

    /// Counts spans that had no room.
    pub(crate) fn count_dropped(&self, spans: u64) {
        if spans > 0 {
            dropped("queue_full", spans);
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
        let (queue, waiting) = SpanQueue::new();
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
        let waiting = &self.queue.0.0;
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
    fn hand_over(&mut self, batch: &mut SpanBatch) -> Result<u64, String> {
        let (unrecorded, _) = begin(Ids::unrecorded(), || tracing::info_span!("telemetry.export"));
        let export = AssertUnwindSafe(|| unrecorded.in_scope(|| self.sink.export(batch)));
        catch_unwind(export).unwrap_or_else(|_| Err("the export panicked".to_string()))
    }

    fn send(&mut self, mut batch: SpanBatch) {
        let (count, sent) = (batch.count, self.hand_over(&mut batch));
        batch.bytes.clear();
        batch.bytes.shrink_to(BATCH_BYTES_KEPT);
        lock(&self.waiting.state).keep(batch.bytes);
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
    use crate::spans::{SampleRatio, Spans};
    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

    /// Calls a dependency as a pipeline does, or panics with an empty batch.
    struct Calling;

    fn call() {
        tracing::info_span!(target: "mainstay_resilience", "dependency.attempt").in_scope(|| ());
    }

    impl SpanSink for Calling {
        fn export(&mut self, batch: &mut SpanBatch) -> Result<u64, String> {
            assert!(batch.count > 0, "nothing to send");
            call();
            Ok(0)
        }
    }

    /// V5: otherwise each batch would cause the next one, without end.
    #[test]
    fn spans_of_the_export_itself_are_not_recorded() {
        let (queue, waiting) = SpanQueue::new();
        let spans = Spans::new(Some(queue.clone()), SampleRatio::new(1.0));
        tracing::subscriber::with_default(spans, || {
            call();
            let mut batch = lock(&waiting.state).next().unwrap();
            let name = b"dependency.attempt";
            let is_named = batch.bytes.windows(name.len()).any(|part| part == name);
            assert!(batch.count == 1 && is_named);
            let mut export = Export { waiting, sink: Box::new(Calling), failing: false };
            assert_eq!(export.hand_over(&mut batch), Ok(0));
            assert!(lock(&export.waiting.state).batches.is_empty());
            let refused = export.hand_over(&mut SpanBatch::default());
            assert!(refused.unwrap_err().contains("panicked"));
        });
    }

    /// Counts nothing, and logs that it was asked to.
    struct Loud;

    impl metrics::Recorder for Loud {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            tracing::warn!(target: "mainstay_test", name = key.name(), "counted");
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// V5: a full queue holds nobody up, also where what counts its losses logs inside the trace that lost.
    #[test]
    fn who_counts_dropped_spans_may_log_inside_their_trace() {
        let (done, told) = sync_channel(1);
        thread::spawn(move || {
            let (queue, waiting) = SpanQueue::new();
            lock(&waiting.state).count = QUEUE_MAX;
            let spans = Spans::new(Some(queue), SampleRatio::new(1.0));
            let work = || {
                tracing::info_span!(target: "mainstay_test", "first").in_scope(|| {
                    (0..100).for_each(|_| call());
                })
            };
            metrics::with_local_recorder(&Loud, || tracing::subscriber::with_default(spans, work));
            assert!(lock(&waiting.state).batches.is_empty());
            let _ = done.send(());
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(()));
    }

    fn add(state: &mut State, bytes: usize) -> bool {
        // What it takes is known better once it is written.
        state.add(bytes + 100, |written| written.extend(vec![1; bytes]))
    }

    /// V5: what waits is bounded, and so is what one call carries.
    #[test]
    fn batches_and_what_waits_are_bounded_by_spans_and_by_bytes() {
        let taken = |bytes: usize| {
            let mut state = State::default();
            let mut count = 0;
            while add(&mut state, bytes) {
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

    #[test]
    fn a_batch_is_due_once_another_span_does_not_go_in() {
        let mut state = State::default();
        for _ in 1..BATCH_MAX {
            add(&mut state, 4);
        }
        assert!(!state.is_full());
        add(&mut state, 4);
        assert!(state.is_full());
        let mut state = State::default();
        add(&mut state, BATCH_BYTES_MAX);
        assert!(!state.is_full());
        add(&mut state, 4);
        assert!(state.is_full());
    }

    /// Of two batches at a time, because one is filled while another one is sent.
    #[test]
    fn memory_is_used_again_and_given_back_where_it_is_large() {
        struct Kept;
        impl SpanSink for Kept {
            fn export(&mut self, batch: &mut SpanBatch) -> Result<u64, String> {
                Err(format!("{} of {} bytes", batch.count, batch.bytes.len()))
            }
        }
        let (_queue, waiting) = SpanQueue::new();
        let mut export = Export { waiting, sink: Box::new(Kept), failing: false };
        let next = |export: &mut Export, bytes| {
            let mut state = lock(&export.waiting.state);
            assert!(add(&mut state, bytes));
            let batch = state.next().unwrap();
            assert_eq!((batch.bytes.len(), batch.count), (bytes, 1));
            batch
        };
        for bytes in [100, 2 << 20, 200] {
            let (first, second) = (next(&mut export, bytes), next(&mut export, bytes));
            let memory = [first.bytes.as_ptr(), second.bytes.as_ptr()];
            export.send(first);
            export.send(second);
            let state = lock(&export.waiting.state);
            for spare in &state.spare {
                assert!(
                    (bytes.min(BATCH_BYTES_KEPT)..=BATCH_BYTES_KEPT).contains(&spare.capacity())
                );
                assert!(bytes > BATCH_BYTES_KEPT || memory.contains(&spare.as_ptr()));
            }
        }
    }
}
