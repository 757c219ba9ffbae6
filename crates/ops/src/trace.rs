//! [`Trace`]: the ids of a trace, and its spans that are recorded.
//!
//! A span ends on the thread that worked for it, where a search has left nothing in the processor's caches of
//! what writes spans down. So spans that end are kept, and written one after the other by the thread that ends
//! the span with which the trace began here. All of them stand in one piece of memory.
//!
//! Invariants: no more than [`KEPT_MAX`] spans that have ended are kept, and none once the first span has ended
//! or [`KEPT_FOR_NS`] has passed since it began.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::Metadata;
use tracing::span::Attributes;

use crate::lock::lock;
use crate::otlp::FinishedSpan;
use crate::said::Said;
use crate::span_export::SpanQueue;
use crate::trace_ids::Ids;

/// Spans of one trace that are kept at most, and room for those of a search, which has five.
const KEPT_MAX: usize = 64;
const SPANS_USUALLY: usize = 8;
/// How long after its begin spans of a trace are kept: whoever looks for the trace of something that
/// takes long, or hangs, finds what has ended.
const KEPT_FOR_NS: u64 = 1_000_000_000;

/// A trace, as far as this process works for it.
pub(crate) struct Trace {
    /// What ties its spans together.
    pub(crate) ids: Ids,
    /// Only where somebody records it.
    recording: Option<Recording>,
}

struct Recording {
    /// When it began, in nanoseconds since 1970 and by the clock that nobody sets: all times of its spans are
    /// told by that.
    begun_ns: u64,
    begun_at: Instant,
    records: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    /// Those of spans that are open, and of those that have ended and wait.
    all: Vec<Option<Record>>,
    ended: usize,
    /// Places of all that are free.
    free: usize,
    /// The span with which it began has ended.
    is_over: bool,
}

/// Where the record of an open span stands in its trace.
#[derive(Clone, Copy)]
pub(crate) struct RecordId(u32);

/// A span that is recorded.
struct Record {
    metadata: &'static Metadata<'static>,
    span_id: u64,
    /// 0 for none.
    parent_span_id: u64,
    begun_ns: u64,
    /// 0 as long as it is open.
    ended_ns: u64,
    said: Said,
    /// Whether the trace began with it, here.
    is_first: bool,
}

impl Trace {
    /// One that begins now, and is recorded if its ids say so and somebody does.
    pub(crate) fn new(ids: Ids, is_anybody_there: bool) -> Self {
        let is_recorded = is_anybody_there && ids.is_sampled();
        let recording = is_recorded.then(|| Recording {
            begun_ns: nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            begun_at: Instant::now(),
            records: Mutex::default(),
        });
        Self { ids, recording }
    }

    /// A span of it begins; nothing where it is not recorded.
    pub(crate) fn begin(
        &self,
        attributes: &Attributes<'_>,
        span_id: u64,
        parent_span_id: u64,
        is_first: bool,
    ) -> Option<RecordId> {
        let recording = self.recording.as_ref()?;
        // Not while the records are locked: what is said is written by code that may log.
        let said = Said::at_first(attributes);
        let metadata = attributes.metadata();
        let begun_ns = recording.now_ns();
        let ended_ns = 0;
        let record =
            Record { metadata, span_id, parent_span_id, begun_ns, ended_ns, said, is_first };
        Some(lock(&recording.records).add(record))
    }

    /// What one of its spans says later counts.
    pub(crate) fn say(&self, span: RecordId, said: &Said) {
        let Some(recording) = &self.recording else { return };
        if let Some(record) = lock(&recording.records).of(span) {
            record.said.add_later(said);
        }
    }

    /// A warning or an error is logged inside one of its spans.
    pub(crate) fn event(&self, span: RecordId, is_error: bool, event: Said) {
        let Some(recording) = &self.recording else { return };
        let at_ns = recording.now_ns();
        if let Some(record) = lock(&recording.records).of(span) {
            record.said.add_event(at_ns, is_error, event);
        }
    }

    /// A span of it ends.
    pub(crate) fn end(&self, span: RecordId, queue: &SpanQueue) {
        let Some(recording) = &self.recording else { return };
        let ended_ns = recording.now_ns();
        let mut records = lock(&recording.records);
        let Some(record) = records.of(span) else { return };
        record.ended_ns =
            ended_ns.saturating_sub(record.said.ended_ns_ago()).max(record.begun_ns).max(1);
        let is_first = record.is_first;
        records.is_over |= is_first;
        records.ended += 1;
        let is_due = records.is_over
            || records.ended >= KEPT_MAX
            || ended_ns - recording.begun_ns >= KEPT_FOR_NS;
        let without_room = if is_due { records.hand_over(&self.ids, queue) } else { 0 };
        drop(records);
        // Not while the records are locked: what counts it may log.
        queue.count_dropped(without_room);
    }
}

impl Recording {
    /// The time in nanoseconds since 1970, no earlier than it began.
    fn now_ns(&self) -> u64 {
        self.begun_ns.saturating_add(nanoseconds(self.begun_at.elapsed()))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Records {
    fn add(&mut self, record: Record) -> RecordId {
        let free = (self.free > 0).then(|| self.all.iter().position(Option::is_none)).flatten();
        if let Some(at) = free {
            self.free -= 1;
            self.all[at] = Some(record);
            return RecordId(at as u32);
        }
        if self.all.is_empty() {
            self.all.reserve(SPANS_USUALLY);
        }
        self.all.push(Some(record));
        RecordId(self.all.len() as u32 - 1)
    }

    fn of(&mut self, span: RecordId) -> Option<&mut Record> {
        self.all.get_mut(span.0 as usize)?.as_mut()
    }

    /// Hands over what has ended; answers how many spans had no room.
    fn hand_over(&mut self, ids: &Ids, queue: &SpanQueue) -> u64 {
        let has_ended = |record: &&Record| record.ended_ns > 0;
        let ended = self.all.iter().flatten().filter(has_ended);
        let without_room = queue.push(ended.map(|record| record.finished(ids)));
        for place in &mut self.all {
            place.take_if(|record| has_ended(&&*record));
        }
        self.free += std::mem::take(&mut self.ended);
        without_room
    }
}

impl Record {
    fn finished<'a>(&'a self, ids: &'a Ids) -> FinishedSpan<'a> {
        FinishedSpan {
            ids,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            name: if self.said.is_named() { "" } else { self.metadata.name() },
            kind: self.said.kind(),
            begun_ns: self.begun_ns,
            ended_ns: self.ended_ns,
            failed: self.said.failed(),
            said: self.said.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
    use prost::Message;
    use tracing::field::Empty;

    use super::*;
    use crate::entered::current_span;
    use crate::span_export::{SpanBatch, SpanExport, SpanSink};
    use crate::spans::{SampleRatio, Spans, place_of};

    struct Reading(std::sync::mpsc::Sender<Vec<Span>>);

    impl SpanSink for Reading {
        fn export(&mut self, batch: &mut SpanBatch) -> Result<u64, String> {
            let spans = ScopeSpans::decode(&batch.bytes[..]).unwrap().spans;
            self.0.send(spans).map_err(|error| error.to_string())?;
            Ok(0)
        }
    }

    /// The spans that are sent while something is done.
    fn sent(work: impl FnOnce()) -> Vec<Span> {
        let (send, sent) = std::sync::mpsc::channel();
        let export = SpanExport::start(Box::new(Reading(send))).unwrap();
        let spans = Spans::new(Some(export.queue()), SampleRatio::new(1.0));
        tracing::subscriber::with_default(spans, work);
        assert!(export.flush(Duration::from_secs(30)));
        sent.try_iter().flatten().collect()
    }

    /// V5: whoever closes a span does so after the work was done in it.
    #[test]
    fn a_span_ends_when_its_work_was_done() {
        let before = Instant::now();
        let sent = sent(|| {
            for ago in [0, 5_000_000, u64::MAX] {
                let span = tracing::info_span!(target: "mainstay_test", "one", "otel.ended_ns_ago" = Empty);
                std::thread::sleep(Duration::from_millis(10));
                span.record("otel.ended_ns_ago", ago);
            }
        });
        let took: Vec<u64> =
            sent.iter().map(|span| span.end_time_unix_nano - span.start_time_unix_nano).collect();
        let all = nanoseconds(before.elapsed());
        assert!(took[0] >= 10_000_000, "{took:?}");
        assert!(took[1] >= 5_000_000 && took[1] <= all - took[0] - 15_000_000, "{took:?} of {all}");
        assert_eq!(took[2], 0, "none ends before it began");
        assert!(sent.iter().all(|span| span.attributes.is_empty()), "{sent:?}");
    }

    /// V5: a trace that goes on and on takes room for what is open, and for what it may keep.
    #[test]
    fn places_of_spans_that_were_handed_over_are_used_again() {
        let sent = sent(|| {
            let begin = || tracing::info_span!(target: "mainstay_test", "one");
            let first = begin();
            let inside = first.enter();
            let (trace, _) = current_span().and_then(place_of).unwrap();
            let places = || lock(&trace.recording.as_ref().unwrap().records).all.len();
            let mut open: Vec<_> = (0..3).map(|_| begin()).collect();
            for _ in 0..1_000 {
                open.push(begin());
                // Those that stay open the longest lie between those that have ended.
                open.remove(1);
            }
            assert!(places() <= KEPT_MAX + 5, "{}", places());
            drop(inside);
            drop(first);
            open.clear();
            let records = lock(&trace.recording.as_ref().unwrap().records);
            assert_eq!((records.free, records.ended), (records.all.len(), 0));
        });
        assert_eq!(sent.len(), 1_004);
    }
}
