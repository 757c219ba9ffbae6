//! [`Receivers`]: lines for what the filter lets through, above the spans of [`crate::spans`].
//!
//! As a layer with a filter of its own, which is how `tracing-subscriber` has it, a span would be looked up
//! whenever it is entered or left, which a request does several times; and a filter that can be changed
//! would take a lock each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;
use tracing_log::NormalizeEvent;
use tracing_subscriber::layer::{Context, Filter, Layered, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer};

use crate::correlation;
use crate::log_lines::LogLines;
use crate::span_export::SpanQueue;
use crate::spans::{self, Spans};

/// What is logged; changed while running.
pub(crate) struct LogFilter {
    directives: ArcSwap<EnvFilter>,
    /// Whether one of them asks which spans an event is in, such as `[http.request]=debug`.
    follow_spans: AtomicBool,
}

impl LogFilter {
    pub(crate) fn new(filter: EnvFilter) -> Arc<Self> {
        let follow_spans = AtomicBool::new(asks_for_spans(&filter));
        Arc::new(Self { directives: ArcSwap::from_pointee(filter), follow_spans })
    }

    /// Lets through what `filter` does, from now on.
    pub(crate) fn set(&self, filter: EnvFilter) {
        self.follow_spans.store(asks_for_spans(&filter), Ordering::Relaxed);
        self.directives.store(Arc::new(filter));
        // What each place in the code was told is no longer so.
        tracing::callsite::rebuild_interest_cache();
    }

    fn now(&self) -> Guard<Arc<EnvFilter>> {
        self.directives.load()
    }

    /// The same for whom it matters that a span begins, is entered, left or ends.
    fn of_spans(&self) -> Option<Guard<Arc<EnvFilter>>> {
        self.follow_spans.load(Ordering::Relaxed).then(|| self.now())
    }
}

fn asks_for_spans(filter: &EnvFilter) -> bool {
    filter.to_string().contains('[')
}

/// Whether it is a span of a step inside the process. In a trace that nobody records such a span is not
/// made: its work belongs to the span around it, and nobody would see the difference.
fn is_step(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.fields().field("otel.kind").is_none()
}

/// Receives lines, and says which spans there are.
pub(crate) struct Receivers {
    lines: LogLines,
    filter: Arc<LogFilter>,
}

impl Receivers {
    pub(crate) fn new(lines: LogLines, filter: Arc<LogFilter>) -> Self {
        Self { lines, filter }
    }
}

impl<S: Subscriber> Layer<S> for Receivers {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let logged = Filter::<S>::callsite_enabled(&**self.filter.now(), metadata);
        match Spans::wants(metadata) {
            true if is_step(metadata) => Interest::sometimes(),
            true => Interest::always(),
            false => logged,
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        if Spans::wants(metadata) {
            let are_steps_wanted =
                || correlation::is_followed() || self.filter.follow_spans.load(Ordering::Relaxed);
            return are_steps_wanted() || !is_step(metadata);
        }
        Filter::enabled(&**self.filter.now(), metadata, &context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let logged = Filter::<S>::max_level_hint(&**self.filter.now());
        logged.map(|logged| logged.max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(filter) = self.filter.of_spans() {
            Filter::on_new_span(&**filter, attributes, id, context.clone());
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(filter) = self.filter.of_spans() {
            Filter::on_record(&**filter, id, values, context.clone());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Records of the `log` façade bring their target along.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        if Filter::enabled(&**self.filter.now(), metadata, &context) {
            self.lines.write(event);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(filter) = self.filter.of_spans() {
            Filter::on_enter(&**filter, id, context.clone());
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if let Some(filter) = self.filter.of_spans() {
            Filter::on_exit(&**filter, id, context.clone());
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(filter) = self.filter.of_spans() {
            Filter::on_close(&**filter, id.clone(), context.clone());
        }
    }
}

/// Lines and spans as one subscriber. What a span needs on every thread that works for a request goes straight
/// to the spans, past the layer, unless the filter asks which spans a line is in.
pub(crate) struct Received {
    layered: Layered<Receivers, Spans>,
    filter: Arc<LogFilter>,
    queue: Option<SpanQueue>,
}

impl Received {
    /// `spans` below lines; both know the same `queue`.
    pub(crate) fn new(
        lines: LogLines,
        filter: Arc<LogFilter>,
        spans: Spans,
        queue: Option<SpanQueue>,
    ) -> Self {
        let layered = spans.with(Receivers::new(lines, Arc::clone(&filter)));
        Self { layered, filter, queue }
    }

    fn follows_spans(&self) -> bool {
        self.filter.follow_spans.load(Ordering::Relaxed)
    }
}

impl Subscriber for Received {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.layered.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.layered.enabled(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>) -> bool {
        self.layered.event_enabled(event)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.layered.max_level_hint()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.layered.new_span(attributes)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.layered.record(id, values);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.layered.event(event);
    }

    fn enter(&self, id: &Id) {
        match self.follows_spans() {
            true => self.layered.enter(id),
            false => spans::enter(id),
        }
    }

    fn exit(&self, id: &Id) {
        match self.follows_spans() {
            true => self.layered.exit(id),
            false => spans::exit(id),
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        spans::hold(id)
    }

    fn try_close(&self, id: Id) -> bool {
        match self.follows_spans() {
            true => self.layered.try_close(id),
            false => spans::release(&id, self.queue.as_ref()),
        }
    }

    fn current_span(&self) -> Current {
        spans::current()
    }
}
