//! [`SpanLayer`]: gives each span its place in a trace, tells threads whose work they do, and hands
//! over the spans of recorded traces when they end.
//!
//! Invariants: a span takes the ids of the nearest span around it that has some; a span without one
//! takes those lent by [`crate::correlation::begin`], else new ones. Nothing is gathered for a trace
//! that is not recorded. What one span gathers is bounded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::correlation::{self, Ids};
use crate::finished_span::{FinishedSpan, SpanAttributes, SpanEvent, SpanKind, SpanValue};
use crate::redact::{REDACTED, is_secret_name, redacted};
use crate::span_export::SpanQueue;

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

/// What a span keeps while it is open.
struct Node {
    ids: Arc<Ids>,
    span_id: u64,
    /// Only for recorded traces.
    open: Option<Box<Open>>,
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
pub struct SpanLayer {
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

impl SpanLayer {
    /// A layer that hands recorded spans to `queue`; without one it only gives ids.
    #[must_use]
    pub fn new(queue: Option<SpanQueue>, sample_ratio: SampleRatio) -> Self {
        Self { queue, sample_ratio }
    }

    /// What the layer wants to see: our spans from INFO on, and our warnings and errors.
    #[must_use]
    pub fn wants(metadata: &Metadata<'_>) -> bool {
        let level = if metadata.is_span() { Level::INFO } else { Level::WARN };
        *metadata.level() <= level && metadata.target().starts_with(OURS)
    }
}

/// The ids of the innermost of these spans that has some.
fn nearest<'a, R: LookupSpan<'a> + 'a>(
    spans: impl IntoIterator<Item = SpanRef<'a, R>>,
) -> Option<(Arc<Ids>, u64)> {
    spans.into_iter().find_map(|span| {
        let extensions = span.extensions();
        extensions.get::<Node>().map(|node| (Arc::clone(&node.ids), node.span_id))
    })
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !Self::wants(attributes.metadata()) {
            return;
        }
        let Some(span) = context.span(id) else { return };
        let parent = nearest(span.scope().skip(1));
        let (ids, parent_span_id) = parent.unwrap_or_else(|| {
            let mut ids = correlation::lent().unwrap_or_else(Ids::background);
            ids.decide(self.sample_ratio.get());
            let parent_span_id = ids.parent_span_id;
            (Arc::new(ids), parent_span_id)
        });
        let open = (ids.is_sampled() && self.queue.is_some()).then(|| {
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
        });
        let node = Node { ids, span_id: correlation::random_id(), open };
        span.extensions_mut().insert(node);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(open) = extensions.get_mut::<Node>().and_then(|node| node.open.as_mut()) {
            values.record(&mut open.gathered);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !Self::wants(event.metadata()) {
            return;
        }
        let mut around = context.event_scope(event).into_iter().flatten();
        let Some(span) = around.find(|it| it.extensions().get::<Node>().is_some()) else { return };
        let mut extensions = span.extensions_mut();
        let open = extensions.get_mut::<Node>().and_then(|node| node.open.as_mut());
        let Some(open) = open else { return };
        open.failed |= *event.metadata().level() == Level::ERROR;
        if open.events.len() < EVENTS_MAX {
            let mut gathered = Gathered::default();
            event.record(&mut gathered);
            let at_ns = nanoseconds(open.begun, open.begun_at.elapsed());
            let Gathered { message, attributes, .. } = gathered;
            open.events.push(SpanEvent { at_ns, message, attributes });
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(node) = span.extensions().get::<Node>() {
            correlation::enter(&node.ids, node.span_id);
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(node) = span.extensions().get::<Node>() {
            correlation::exit(node.span_id);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let (Some(span), Some(queue)) = (context.span(&id), &self.queue) else { return };
        let Some(Node { ids, span_id, open: Some(open) }) = span.extensions_mut().remove() else {
            return;
        };
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
            name: name.as_deref().unwrap_or(span.name()),
            kind,
            begun_ns: nanoseconds(open.begun, Duration::ZERO),
            ended_ns: nanoseconds(open.begun, open.begun_at.elapsed()),
            attributes: &attributes,
            events: &open.events,
            failed: open.failed || failed,
        });
    }
}

fn nanoseconds(begun: SystemTime, later: Duration) -> u64 {
    let since = begun.duration_since(UNIX_EPOCH).unwrap_or_default() + later;
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The fields of a span or an event. `otel.name` renames a span, `otel.kind` is `server` or
/// `client`, and `failed = true` marks it as failed.
struct Gathered {
    message: String,
    name: Option<String>,
    kind: SpanKind,
    failed: bool,
    attributes: SpanAttributes,
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            message: String::new(),
            name: None,
            kind: SpanKind::Internal,
            failed: false,
            attributes: SpanAttributes::default(),
        }
    }
}

impl Gathered {
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
                self.kind = match text {
                    "server" => SpanKind::Server,
                    "client" => SpanKind::Client,
                    _ => SpanKind::Internal,
                }
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
