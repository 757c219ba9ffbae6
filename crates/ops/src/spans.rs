//! [`Spans`]: gives each span its place in a trace, tells threads whose work they do, and hands over the
//! spans of recorded traces when they end.
//!
//! It is the subscriber below the layer of [`crate::receivers`], in place of `tracing-subscriber`'s
//! registry: there, entering a span and leaving it look it up several times, on every thread that works for
//! a request.
//!
//! Invariants: a span takes the ids of the nearest span around it that has some; a span without one
//! takes those lent by [`crate::trace_ids::begin`], else new ones. Nothing is gathered for a trace
//! that is not recorded. What one span gathers is bounded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

use crate::entered;
use crate::finished_span::{FinishedSpan, SpanAttributes, SpanEvent, SpanKind, SpanValue};
use crate::redact::{REDACTED, is_secret_name, redacted};
use crate::slab::{Slab, SlabId, is_marked};
use crate::span_export::SpanQueue;
use crate::trace_ids::{self, Ids};

/// What our crates' targets begin with; spans of other crates are not ours to export.
const OURS: &str = "mainstay";
/// Attributes of one span; those of the program are fewer than ten.
const ATTRIBUTES_MAX: usize = 32;
/// Warnings and errors kept with one span.
const EVENTS_MAX: usize = 16;
/// The longest text of an attribute, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Room for the texts of one span; those of the program are seldom longer together.
const TEXT_BYTES: usize = 128;

/// Every span of the process that is open. One for all subscribers, so that a thread that is in a span
/// needs to know its id alone.
static OPEN: Slab<Node> = Slab::new();

/// What a span keeps while it is open.
struct Node {
    metadata: &'static Metadata<'static>,
    /// Where it stands in its trace; if it is not ours, where the nearest one around it does that is.
    place: Option<(Arc<Ids>, u64)>,
    /// That span, if it is not ours: warnings belong to it.
    ours: Option<SlabId>,
    /// Only for spans of ours in recorded traces.
    open: Option<Box<Open>>,
}

/// Where an open span stands in its trace: the ids, and its own or that of the span around it.
pub(crate) fn place_of(span: SlabId) -> Option<(Arc<Ids>, u64)> {
    OPEN.with(span, |node| node.place.clone()).flatten()
}

struct Open {
    parent_span_id: u64,
    begun: SystemTime,
    begun_at: Instant,
    gathered: Gathered,
    events: Vec<SpanEvent>,
    failed: bool,
}

/// Gives spans their ids and hands them over when they end.
pub struct Spans {
    queue: Option<SpanQueue>,
    sample_ratio: SampleRatio,
}

/// The share of traces that are recorded where no caller has decided; changed while running.
#[derive(Clone, Debug)]
pub struct SampleRatio(Arc<AtomicU64>);

impl SampleRatio {
    /// A share from 0 to 1.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        Self(Arc::new(AtomicU64::new(ratio.clamp(0.0, 1.0).to_bits())))
    }

    /// The share now.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Changes it.
    pub fn set(&self, ratio: f64) {
        self.0.store(ratio.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
    }
}

impl Spans {
    /// Hands recorded spans to `queue`; without one it only gives ids.
    #[must_use]
    pub fn new(queue: Option<SpanQueue>, sample_ratio: SampleRatio) -> Self {
        Self { queue, sample_ratio }
    }

    /// What it wants to see: our spans from INFO on, and our warnings and errors.
    #[must_use]
    pub fn wants(metadata: &Metadata<'_>) -> bool {
        let level = if metadata.is_span() { Level::INFO } else { Level::WARN };
        *metadata.level() <= level && metadata.target().starts_with(OURS)
    }
}

/// A span, or the nearest one around it, that is ours.
fn nearest_of_ours(span: SlabId) -> Option<SlabId> {
    OPEN.with(span, |node| node.ours.or(node.place.is_some().then_some(span))).flatten()
}

/// The span around what has this parent: nothing for what begins a trace.
fn around(parent: Option<&Id>, is_contextual: bool) -> Option<SlabId> {
    if is_contextual { entered::current_span() } else { parent.map(Id::into_u64) }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        let outer = around(attributes.parent(), attributes.is_contextual());
        let parent = outer.and_then(place_of);
        if !Self::wants(metadata) {
            let marked = parent.as_ref().is_some_and(|(ids, _)| ids.is_sampled());
            let ours = outer.and_then(nearest_of_ours);
            return id(OPEN.insert(Node { metadata, place: parent, ours, open: None }, marked));
        }
        let (ids, parent_span_id) = parent.unwrap_or_else(|| {
            let mut ids = trace_ids::lent().unwrap_or_else(Ids::background);
            ids.decide(self.sample_ratio.get());
            let parent_span_id = ids.parent_span_id;
            (Arc::new(ids), parent_span_id)
        });
        let recorded = ids.is_sampled();
        let open = (recorded && self.queue.is_some()).then(|| begin(attributes, parent_span_id));
        let place = Some((ids, trace_ids::random_id()));
        id(OPEN.insert(Node { metadata, place, ours: None, open }, recorded))
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let id = id.into_u64();
        if !is_marked(id) {
            return;
        }
        // Not while the span is locked: what is recorded is written by code that may log.
        let mut gathered = Gathered::default();
        values.record(&mut gathered);
        OPEN.with(id, |node| {
            if let Some(open) = &mut node.open {
                open.gathered.take_over(gathered);
            }
        });
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let outer = around(event.parent(), event.is_contextual()).filter(|span| is_marked(*span));
        let Some(outer) = outer.filter(|_| Self::wants(event.metadata())) else { return };
        let Some(ours) = nearest_of_ours(outer) else { return };
        let mut gathered = Gathered::default();
        event.record(&mut gathered);
        OPEN.with(ours, |node| {
            let Some(open) = &mut node.open else { return };
            open.failed |= *event.metadata().level() == Level::ERROR;
            if open.events.len() < EVENTS_MAX {
                let at_ns = nanoseconds(open.begun, open.begun_at.elapsed());
                let Gathered { message, attributes, .. } = gathered;
                open.events.push(SpanEvent { at_ns, message, attributes });
            }
        });
    }

    fn enter(&self, id: &Id) {
        enter(id);
    }

    fn exit(&self, id: &Id) {
        exit(id);
    }

    fn clone_span(&self, id: &Id) -> Id {
        hold(id)
    }

    fn try_close(&self, id: Id) -> bool {
        release(&id, self.queue.as_ref())
    }

    fn current_span(&self) -> Current {
        current()
    }
}

pub(crate) fn enter(id: &Id) {
    entered::enter(id.into_u64());
}

pub(crate) fn exit(id: &Id) {
    entered::exit(id.into_u64());
}

pub(crate) fn hold(id: &Id) -> Id {
    OPEN.hold(id.into_u64());
    id.clone()
}

/// Answers whether it was the last who held the span: then it ends.
pub(crate) fn release(id: &Id, queue: Option<&SpanQueue>) -> bool {
    let Some(node) = OPEN.release(id.into_u64()) else { return false };
    if let (Some((ids, span_id)), Some(open), Some(queue)) = (node.place, node.open, queue) {
        end(&ids, span_id, node.metadata, *open, queue);
    }
    true
}

/// The span that this thread is in.
pub(crate) fn current() -> Current {
    let current = entered::current_span();
    let current = current.and_then(|id| OPEN.with(id, |node| (id, node.metadata)));
    current.map_or_else(Current::none, |(current, metadata)| Current::new(id(current), metadata))
}

fn id(id: SlabId) -> Id {
    Id::from_u64(id)
}

/// A span of a recorded trace begins.
fn begin(attributes: &Attributes<'_>, parent_span_id: u64) -> Box<Open> {
    let count = attributes.fields().len() + 1;
    let mut gathered = Gathered {
        attributes: SpanAttributes::with_capacity(count, TEXT_BYTES),
        ..Gathered::default()
    };
    attributes.record(&mut gathered);
    Box::new(Open {
        parent_span_id,
        begun: SystemTime::now(),
        begun_at: Instant::now(),
        gathered,
        events: Vec::new(),
        failed: false,
    })
}

/// It ends.
fn end(ids: &Ids, span_id: u64, metadata: &Metadata<'_>, open: Open, queue: &SpanQueue) {
    let Gathered { mut attributes, name, kind, failed, .. } = open.gathered;
    if !ids.correlation.is_empty() {
        let value = SpanValue::Text(&ids.correlation);
        attributes.set("correlation_id", value, usize::MAX);
    }
    queue.push(&FinishedSpan {
        trace_id: ids.trace_id,
        span_id,
        parent_span_id: open.parent_span_id,
        state: &ids.state,
        name: name.as_deref().unwrap_or(metadata.name()),
        kind: kind.unwrap_or(SpanKind::Internal),
        begun_ns: nanoseconds(open.begun, Duration::ZERO),
        ended_ns: nanoseconds(open.begun, open.begun_at.elapsed()),
        attributes: &attributes,
        events: &open.events,
        failed: open.failed || failed,
    });
}

fn nanoseconds(begun: SystemTime, later: Duration) -> u64 {
    let since = begun.duration_since(UNIX_EPOCH).unwrap_or_default() + later;
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The fields of a span or an event. `otel.name` renames a span, `otel.kind` is `server` or
/// `client`, and `failed = true` marks it as failed.
#[derive(Default)]
struct Gathered {
    message: String,
    name: Option<String>,
    kind: Option<SpanKind>,
    failed: bool,
    attributes: SpanAttributes,
}

impl Gathered {
    /// What was recorded later counts.
    fn take_over(&mut self, later: Gathered) {
        self.name = later.name.or(self.name.take());
        self.kind = later.kind.or(self.kind);
        self.failed |= later.failed;
        for (name, value) in later.attributes.iter() {
            self.attributes.set(name, value, ATTRIBUTES_MAX);
        }
    }

    fn add(&mut self, field: &Field, value: SpanValue<'_>) {
        let value = match value {
            SpanValue::Text(_) if is_secret_name(field.name()) => SpanValue::Text(REDACTED),
            other => other,
        };
        // What is recorded later replaces what the span began with.
        self.attributes.set(field.name(), value, ATTRIBUTES_MAX);
    }

    fn text(&mut self, field: &Field, text: &str) {
        let shown = || redacted(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
        match field.name() {
            "message" => self.message = shown().into_owned(),
            "otel.name" => self.name = Some(shown().into_owned()),
            "otel.kind" => {
                self.kind = Some(match text {
                    "server" => SpanKind::Server,
                    "client" => SpanKind::Client,
                    _ => SpanKind::Internal,
                });
            }
            _ => self.add(field, SpanValue::Text(&shown())),
        }
    }
}

impl Visit for Gathered {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, SpanValue::Number(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, SpanValue::Whole(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        // OTLP has no unsigned numbers; beyond 2^63 nothing is counted here.
        self.add(field, SpanValue::Whole(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "failed" {
            self.failed |= value;
        } else {
            self.add(field, SpanValue::Truth(value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}
