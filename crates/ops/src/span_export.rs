//! [`SpanExport`]: carries finished spans to a collector, in batches, on a thread of its own.
//!
//! Invariants: handing over a span never waits; what does not fit in the queue is dropped and
//! counted. A collector that is gone costs spans, nothing else: one warning when it goes, one line
//! when it comes back. No span of the export itself is recorded: each batch would cause the next one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::correlation::{Ids, begin};
use crate::finished_span::FinishedSpan;
use crate::lock::lock;

/// Spans that wait: two seconds of 200 searches a second, at five spans each.
const QUEUE_MAX: usize = 2048;
/// Spans in one call to the collector.
const BATCH_MAX: usize = 512;
/// How long a span waits for others at most.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// Where spans are sent.
pub trait SpanSink: Send {
    /// Sends spans; answers how many the collector rejected. May block; bounds its own time.
    ///
    /// # Errors
    /// Why none was taken.
    fn export(&mut self, spans: Vec<FinishedSpan>) -> Result<u64, String>;
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
    spans: Vec<FinishedSpan>,
    /// Who waits until all that came before is sent.
    flushes: Vec<SyncSender<()>>,
    closed: bool,
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

    pub(crate) fn push(&self, span: FinishedSpan) {
        let Waiting { state, changed } = &*self.0.0;
        let mut state = lock(state);
        if state.spans.len() >= QUEUE_MAX {
            drop(state);
            return dropped("queue_full", 1);
        }
        state.spans.push(span);
        let waiting = state.spans.len();
        drop(state);
        // The first one begins a batch, and one more fills it.
        if waiting == 1 || waiting == BATCH_MAX {
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
        while let Some((mut spans, flushes)) = self.gather() {
            while !spans.is_empty() {
                let rest = spans.split_off(spans.len().min(BATCH_MAX));
                self.send(std::mem::replace(&mut spans, rest));
            }
            for done in flushes {
                // Whoever asked may have lost patience.
                let _ = done.try_send(());
            }
        }
    }

    /// What waits once it is a batch, or as old as its first span may get, or asked for by a flush.
    fn gather(&self) -> Option<(Vec<FinishedSpan>, Vec<SyncSender<()>>)> {
        let Waiting { state, changed } = &*self.waiting;
        let mut state = lock(state);
        let mut until = None;
        loop {
            let old = until.is_some_and(|until| Instant::now() >= until);
            if state.spans.len() >= BATCH_MAX || old || !state.flushes.is_empty() || state.closed {
                if state.closed && state.spans.is_empty() && state.flushes.is_empty() {
                    return None;
                }
                // With room for a batch, so that no request copies those before its own.
                let next = Vec::with_capacity(BATCH_MAX);
                let spans = std::mem::replace(&mut state.spans, next);
                return Some((spans, std::mem::take(&mut state.flushes)));
            }
            if state.spans.is_empty() {
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
    fn hand_over(&mut self, batch: Vec<FinishedSpan>) -> Result<u64, String> {
        let unrecorded = begin(Ids::unrecorded(), || tracing::info_span!("telemetry.export"));
        let export = AssertUnwindSafe(|| unrecorded.in_scope(|| self.sink.export(batch)));
        catch_unwind(export).unwrap_or_else(|_| Err("the export panicked".to_string()))
    }

    fn send(&mut self, batch: Vec<FinishedSpan>) {
        let count = batch.len() as u64;
        match self.hand_over(batch) {
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
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::spans::{SampleRatio, SpanLayer};

    /// Calls a dependency as a pipeline does, or panics with an empty batch.
    struct Calling;

    fn call() {
        tracing::info_span!(target: "mainstay_resilience", "dependency.attempt").in_scope(|| ());
    }

    impl SpanSink for Calling {
        fn export(&mut self, spans: Vec<FinishedSpan>) -> Result<u64, String> {
            assert!(!spans.is_empty(), "nothing to send");
            call();
            Ok(0)
        }
    }

    /// V5: otherwise each batch would cause the next one, without end.
    #[test]
    fn spans_of_the_export_itself_are_not_recorded() {
        let (queue, waiting) = SpanQueue::new();
        let layer = SpanLayer::new(Some(queue.clone()), SampleRatio::new(1.0));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            call();
            let spans = std::mem::take(&mut lock(&waiting.state).spans);
            assert_eq!(spans.len(), 1, "all are recorded");
            let mut export = Export { waiting, sink: Box::new(Calling), failing: false };
            assert_eq!(export.hand_over(spans), Ok(0));
            assert!(lock(&export.waiting.state).spans.is_empty());
            assert!(export.hand_over(Vec::new()).unwrap_err().contains("panicked"));
        });
    }
}
