//! Receivers of logs, traces and metrics that can be switched off: then nobody receives anything, as in
//! a program that installs none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mainstay_ops::meter::Meter;
use mainstay_ops::metric_table::METRICS;
use mainstay_resilience::Pipelines;
use mainstay_server::settings::Settings;
use mainstay_server::telemetry::Telemetry;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Subscriber};
use tracing_core::span::Current;

static ON: AtomicBool = AtomicBool::new(true);

/// Switches all receivers.
pub(crate) fn set(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Installs them for the rest of the process; lines go nowhere.
pub(crate) fn install(settings: &Settings, pipelines: &Pipelines) -> Result<Telemetry, String> {
    let nowhere = Arc::new(Mutex::new(std::io::sink()));
    let built = Telemetry::build(settings, pipelines, nowhere);
    let (telemetry, subscriber) = built.map_err(|error| error.to_string())?;
    tracing::subscriber::set_global_default(Switched(subscriber)).map_err(|e| e.to_string())?;
    metrics::set_global_recorder(Switched(Meter::new(METRICS))).map_err(|e| e.to_string())?;
    Ok(telemetry)
}

struct Switched<T>(T);

impl<S: Subscriber> Subscriber for Switched<S> {
    fn register_callsite(&self, metadata: &'static tracing::Metadata<'static>) -> Interest {
        let interest = self.0.register_callsite(metadata);
        if interest.is_always() { Interest::sometimes() } else { interest }
    }

    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        is_on() && self.0.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.0.new_span(attributes)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.0.record(id, values);
    }

    fn record_follows_from(&self, id: &Id, other: &Id) {
        self.0.record_follows_from(id, other);
    }

    fn event(&self, event: &Event<'_>) {
        self.0.event(event);
    }

    fn enter(&self, id: &Id) {
        self.0.enter(id);
    }

    fn exit(&self, id: &Id) {
        self.0.exit(id);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.0.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.0.try_close(id)
    }

    fn current_span(&self) -> Current {
        self.0.current_span()
    }
}

impl Recorder for Switched<Meter> {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let counter = || self.0.register_counter(key, metadata);
        match (is_kept(key), is_on()) {
            (true, _) => Counter::from_arc(Arc::new(Switched(counter()))),
            (_, true) => counter(),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let gauge = || self.0.register_gauge(key, metadata);
        match (is_kept(key), is_on()) {
            (true, _) => Gauge::from_arc(Arc::new(Switched(gauge()))),
            (_, true) => gauge(),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let histogram = || self.0.register_histogram(key, metadata);
        match (is_kept(key), is_on()) {
            (true, _) => Histogram::from_arc(Arc::new(Switched(histogram()))),
            (_, true) => histogram(),
            _ => Histogram::noop(),
        }
    }
}

/// Whether somebody registers it once and keeps it, whatever is switched on at that time.
fn is_kept(key: &Key) -> bool {
    let kept = ["mainstay_http_request", "mainstay_search_", "mainstay_method_"];
    kept.iter().any(|begin| key.name().starts_with(begin))
}

impl CounterFn for Switched<Counter> {
    fn increment(&self, value: u64) {
        if is_on() {
            self.0.increment(value);
        }
    }

    fn absolute(&self, value: u64) {
        if is_on() {
            self.0.absolute(value);
        }
    }
}

impl GaugeFn for Switched<Gauge> {
    fn increment(&self, value: f64) {
        if is_on() {
            self.0.increment(value);
        }
    }

    fn decrement(&self, value: f64) {
        if is_on() {
            self.0.decrement(value);
        }
    }

    fn set(&self, value: f64) {
        if is_on() {
            self.0.set(value);
        }
    }
}

impl HistogramFn for Switched<Histogram> {
    fn record(&self, value: f64) {
        if is_on() {
            self.0.record(value);
        }
    }
}
