//! [`SpanExport`]: carries finished spans to a collector, in batches, on a thread of its own.
//!
//! Invariants: handing over a span never waits; what does not fit in the queue is dropped and
//! counted. A collector that is gone costs spans, nothing else: one warning when it goes, one line
//! when it comes back. No span of the export itself is recorded: each batch would cause the next one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::thread;
use std::time::{Duration, Instant};

use crate::correlation::{Ids, begin};
use crate::finished_span::FinishedSpan;

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

enum Message {
    Span(Box<FinishedSpan>),
    /// Send all that came before, then tell.
    Flush(SyncSender<()>),
}

/// Where finished spans are handed over.
#[derive(Clone)]
pub struct SpanQueue(SyncSender<Message>);

impl SpanQueue {
    pub(crate) fn push(&self, span: FinishedSpan) {
        match self.0.try_send(Message::Span(Box::new(span))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => dropped("queue_full", 1),
            Err(TrySendError::Disconnected(_)) => dropped("shutdown", 1),
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
        let (send, receive) = sync_channel(QUEUE_MAX);
        let export = Export { receive, sink, failing: false };
        thread::Builder::new().name("span-export".into()).spawn(move || export.run())?;
        Ok(Self { queue: SpanQueue(send) })
    }

    /// Where finished spans are handed over.
    #[must_use]
    pub fn queue(&self) -> SpanQueue {
        self.queue.clone()
    }

    /// Sends what waits, at most for `patience`; answers whether all was sent or given up.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, told) = sync_channel(1);
        let begun = Instant::now();
        let mut message = Message::Flush(done);
        // The queue may be full: the thread is at work on it.
        while let Err(TrySendError::Full(again)) = self.queue.0.try_send(message) {
            if begun.elapsed() >= patience {
                return false;
            }
            message = again;
            thread::sleep(Duration::from_millis(5));
        }
        told.recv_timeout(patience.saturating_sub(begun.elapsed())).is_ok()
    }
}

struct Export {
    receive: Receiver<Message>,
    sink: Box<dyn SpanSink>,
    failing: bool,
}

impl Export {
    /// Until every queue is gone.
    fn run(mut self) {
        while let Some((batch, flush)) = self.gather() {
            if !batch.is_empty() {
                self.send(batch);
            }
            if let Some(done) = flush {
                // Whoever asked may have lost patience.
                let _ = done.try_send(());
            }
        }
    }

    /// The next batch: full, or as long as its first span waited, or cut by a flush.
    fn gather(&self) -> Option<(Vec<FinishedSpan>, Option<SyncSender<()>>)> {
        let mut batch = Vec::new();
        match self.receive.recv() {
            Ok(Message::Span(span)) => batch.push(*span),
            Ok(Message::Flush(done)) => return Some((batch, Some(done))),
            Err(_) => return None,
        }
        let until = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH_MAX {
            let left = until.saturating_duration_since(Instant::now());
            let next = match self.receive.try_recv() {
                Err(TryRecvError::Empty) => self.receive.recv_timeout(left),
                other => other.map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(Message::Span(span)) => batch.push(*span),
                Ok(Message::Flush(done)) => return Some((batch, Some(done))),
                Err(_) => break,
            }
        }
        Some((batch, None))
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
        let (send, receive) = sync_channel(QUEUE_MAX);
        let layer = SpanLayer::new(Some(SpanQueue(send)), SampleRatio::new(1.0));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            call();
            let Ok(Message::Span(span)) = receive.try_recv() else { panic!("all are recorded") };
            let mut export = Export { receive, sink: Box::new(Calling), failing: false };
            assert_eq!(export.hand_over(vec![*span]), Ok(0));
            assert!(export.receive.try_recv().is_err());
            assert!(export.hand_over(Vec::new()).unwrap_err().contains("panicked"));
        });
    }
}
