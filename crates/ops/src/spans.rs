//! [`Spans`]: gives each span its place in a trace, tells threads whose work they do, and hands over the
//! spans of recorded traces when they end.
//!
//! It is the subscriber below the layer of [`crate::receivers`], in place of `tracing-subscriber`'s
//! registry: there, entering a span and leaving it look it up several times, on every thread that works for
//! a request.
//!
//! Invariants: a span takes the ids of the nearest span around it that has some; a span without one
//! takes those lent by [`crate::trace_ids::begin`], else new ones. Nothing is written down for a
//! trace that is not recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

use crate::entered;
use crate::said::{Said, register};
use crate::slab::{Slab, SlabId, is_marked};
use crate::span_export::SpanQueue;
use crate::trace::{RecordId, Trace};
use crate::trace_ids::{self, Ids};

/// What our crates' targets begin with; spans of other crates are not ours to export.
const OURS: &str = "mainstay";

/// Every span of the process that is open. One for all subscribers, so that a thread that is in a span
/// needs to know its id alone.
static OPEN: Slab<Node> = Slab::new();

/// What a span keeps while it is open.
struct Node {
    metadata: &'static Metadata<'static>,
    /// Where it stands in its trace; if it is not ours, where the nearest one around it does that is.
    place: Option<(Arc<Trace>, u64)>,
    /// That span, if it is not ours: warnings belong to it.
    ours: Option<SlabId>,
    /// Only for spans of ours in recorded traces.
    recorded: Option<RecordId>,
}

/// Where an open span stands in its trace: the ids, and its own or that of the span around it.
pub(crate) fn place_of(span: SlabId) -> Option<(Arc<Trace>, u64)> {
    OPEN.with(span, |node| node.place.clone()).flatten()
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
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        register(metadata.fields());
        Interest::always()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        let outer = around(attributes.parent(), attributes.is_contextual());
        let parent = outer.and_then(place_of);
        if !Self::wants(metadata) {
            let marked = parent.as_ref().is_some_and(|(trace, _)| trace.ids.is_sampled());
            let ours = outer.and_then(nearest_of_ours);
            return id(OPEN.insert(Node { metadata, place: parent, ours, recorded: None }, marked));
        }
        let is_first = parent.is_none();
        let (trace, parent_span_id) = parent.unwrap_or_else(|| {
            let mut ids = trace_ids::lent().unwrap_or_else(Ids::background);
            ids.decide(self.sample_ratio.get());
            let parent_span_id = ids.parent_span_id;
            (Arc::new(Trace::new(ids, self.queue.is_some())), parent_span_id)
        });
        let (span_id, marked) = (trace_ids::random_id(), trace.ids.is_sampled());
        let recorded = trace.begin(attributes, span_id, parent_span_id, is_first);
        let place = Some((trace, span_id));
        id(OPEN.insert(Node { metadata, place, ours: None, recorded }, marked))
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let id = id.into_u64();
        if !is_marked(id) {
            return;
        }
        // Not while the span is locked: what is recorded is written by code that may log.
        let said = Said::later(values);
        OPEN.with(id, |node| {
            if let (Some((trace, _)), Some(recorded)) = (&node.place, node.recorded) {
                trace.say(recorded, &said);
            }
        });
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let outer = around(event.parent(), event.is_contextual()).filter(|span| is_marked(*span));
        let Some(outer) = outer.filter(|_| Self::wants(event.metadata())) else { return };
        let Some(ours) = nearest_of_ours(outer) else { return };
        let (said, is_error) = (Said::in_event(event), *event.metadata().level() == Level::ERROR);
        OPEN.with(ours, |node| {
            if let (Some((trace, _)), Some(recorded)) = (&node.place, node.recorded) {
                trace.event(recorded, is_error, said);
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
    if let (Some((trace, _)), Some(recorded), Some(queue)) = (node.place, node.recorded, queue) {
        trace.end(recorded, queue);
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
