//! [`Trace`]: the ids of a trace, and those of its spans that have ended.
//!
//! A span ends on the thread that worked for it, where a search has left nothing in the processor's caches of
//! what writes spans down. So spans that end are kept, and written one after the other by the thread that ends
//! the span with which the trace began here.
//!
//! Invariants: no more than [`KEPT_MAX`] spans are kept, and none once the first span has ended or
//! [`KEPT_FOR`] has passed since it began.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::Metadata;
use tracing::span::Attributes;

use crate::finished_span::{FinishedSpan, SpanEvent, SpanKind};
use crate::gathered::Gathered;
use crate::lock::lock;
use crate::span_export::SpanQueue;
use crate::trace_ids::Ids;

/// Spans of one trace that are kept at most, and room for those of a search, which has five.
const KEPT_MAX: usize = 64;
const KEPT_USUALLY: usize = 8;
/// Warnings and errors kept with one span.
const EVENTS_MAX: usize = 16;
/// How long after its begin spans of a trace are kept: whoever looks for the trace of something that
/// takes long, or hangs, finds what has ended.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// A trace, as far as this process works for it.
pub(crate) struct Trace {
    /// What ties its spans together.
    pub(crate) ids: Ids,
    /// When it began, by both clocks: all times of its spans are told by one, which nobody sets.
    begun: SystemTime,
    begun_at: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Ended>,
    /// The span with which it began has ended.
    is_over: bool,
}

/// What a recorded span gathers while it is open.
pub(crate) struct Open {
    parent_span_id: u64,
    /// Whether the trace began with it, here.
    is_first: bool,
    begun_at: Instant,
    pub(crate) gathered: Gathered,
    events: Vec<SpanEvent>,
}

struct Ended {
    span_id: u64,
    metadata: &'static Metadata<'static>,
    ended_at: Instant,
    open: Box<Open>,
}

impl Trace {
    /// One that begins now.
    pub(crate) fn new(ids: Ids) -> Self {
        let (begun, begun_at) = (SystemTime::now(), Instant::now());
        Self { ids, begun, begun_at, kept: Mutex::default() }
    }

    /// A time in nanoseconds since 1970.
    fn nanoseconds(&self, at: Instant) -> u64 {
        let since = self.begun.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = since + at.saturating_duration_since(self.begun_at);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A span of it ends.
    pub(crate) fn end(
        &self,
        span_id: u64,
        metadata: &'static Metadata<'static>,
        open: Box<Open>,
        queue: &SpanQueue,
    ) {
        let (ended_at, is_first) = (Instant::now(), open.is_first);
        let mut kept = lock(&self.kept);
        kept.is_over |= is_first;
        if kept.spans.is_empty() {
            kept.spans.reserve(KEPT_USUALLY);
        }
        kept.spans.push(Ended { span_id, metadata, ended_at, open });
        let is_due = kept.is_over
            || kept.spans.len() >= KEPT_MAX
            || ended_at.saturating_duration_since(self.begun_at) >= KEPT_FOR;
        if is_due {
            let spans = std::mem::take(&mut kept.spans);
            drop(kept);
            queue.push(spans.iter().map(|span| span.of(self)));
        }
    }
}

impl Open {
    /// A span begins.
    pub(crate) fn begin(attributes: &Attributes<'_>, parent_span_id: u64, is_first: bool) -> Self {
        Self {
            parent_span_id,
            is_first,
            begun_at: Instant::now(),
            gathered: Gathered::of(attributes),
            events: Vec::new(),
        }
    }

    /// A warning or an error is logged inside it.
    pub(crate) fn event(&mut self, trace: &Trace, is_error: bool, event: Gathered) {
        self.gathered.failed |= is_error;
        if self.events.len() < EVENTS_MAX {
            let at_ns = trace.nanoseconds(Instant::now());
            let Gathered { message, attributes, .. } = event;
            self.events.push(SpanEvent { at_ns, message, attributes });
        }
    }
}

impl Ended {
    fn of<'a>(&'a self, trace: &'a Trace) -> FinishedSpan<'a> {
        let Open { parent_span_id, begun_at, gathered, events, .. } = &*self.open;
        FinishedSpan {
            trace_id: trace.ids.trace_id,
            span_id: self.span_id,
            parent_span_id: *parent_span_id,
            state: &trace.ids.state,
            correlation_id: &trace.ids.correlation,
            name: gathered.name.as_deref().unwrap_or(self.metadata.name()),
            kind: gathered.kind.unwrap_or(SpanKind::Internal),
            begun_ns: trace.nanoseconds(*begun_at),
            ended_ns: trace.nanoseconds(self.ended_at),
            attributes: &gathered.attributes,
            events,
            failed: gathered.failed,
        }
    }
}
