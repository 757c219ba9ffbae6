//! Events as metrics and as tracing events, heard by a recorder and a subscriber of our own.

use crate::{ms, secs};
use mainstay_resilience::{
    Algorithm, CircuitBreaker, Clock, ErrorKind, ManualClock, MetricsObserver, Observer,
    RateConfig, RateLimiter, Retry, TracingObserver,
};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Every metric by its name and labels.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<BTreeMap<String, f64>>>);

/// One metric.
struct Cell(String, Heard);

impl Cell {
    fn change(&self, change: impl Fn(&mut f64)) {
        change(self.1.0.lock().unwrap().entry(self.0.clone()).or_default());
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.change(|held| *held += value as f64);
    }

    fn absolute(&self, value: u64) {
        self.change(|held| *held = value as f64);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.change(|held| *held += value);
    }

    fn decrement(&self, value: f64) {
        self.change(|held| *held -= value);
    }

    fn set(&self, value: f64) {
        self.change(|held| *held = value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.change(|held| *held += value);
    }
}

impl Heard {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
        let labels: Vec<String> = labels.collect();
        Arc::new(Cell(format!("{} {}", key.name(), labels.join(" ")), self.clone()))
    }

    fn of(&self, name: &str) -> Option<f64> {
        self.0.lock().unwrap().get(name).copied()
    }
}

impl Recorder for Heard {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

fn observer() -> Arc<dyn Observer> {
    Arc::new(MetricsObserver)
}

#[test]
fn b7_r7_state_error_rate_transitions_rejections_and_retries_become_metrics() {
    let heard = Heard::default();
    let clock = ManualClock::new();
    metrics::with_local_recorder(&heard, || {
        let breaker = CircuitBreaker::builder("dep")
            .clock(clock.clock())
            .observer(observer())
            .build()
            .unwrap();
        (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
        assert_eq!(heard.of("resilience_breaker_state name=dep"), Some(1.0), "open");
        assert_eq!(heard.of("resilience_breaker_error_rate name=dep"), Some(1.0));
        let _ = breaker.try_acquire();
        clock.advance(secs(30));
        let probe = breaker.try_acquire().unwrap();
        assert_eq!(heard.of("resilience_breaker_state name=dep"), Some(2.0), "half-open");
        probe.success();
        assert_eq!(heard.of("resilience_breaker_state name=dep"), Some(0.0), "closed");
        let retry = Retry::builder("r").observer(observer()).build().unwrap();
        let tried = retry.run_on(&clock.clock(), |attempt| match attempt.number() {
            1 => Err(ErrorKind::Connection),
            _ => Ok(()),
        });
        assert_eq!(tried, Ok(()));
        let rate = RateConfig::per_second(Algorithm::TokenBucket, 1);
        let limiter = RateLimiter::observed("l", rate, clock.clock(), observer()).unwrap();
        let _ = (limiter.try_acquire(), limiter.try_acquire());
    });
    let expected = [
        "resilience_breaker_transitions_total name=dep to=open cause=consecutive_failures",
        "resilience_breaker_transitions_total name=dep to=half_open cause=open_period_over",
        "resilience_breaker_transitions_total name=dep to=closed cause=probes_succeeded",
        "resilience_rejected_total name=dep policy=circuit_breaker reason=open",
        "resilience_rejected_total name=l policy=rate_limiter reason=rate_exceeded",
        "resilience_retries_total name=r kind=connection",
        "resilience_retry_success_total name=r",
    ];
    for name in expected {
        assert_eq!(heard.of(name), Some(1.0), "{name}");
    }
    assert_eq!(heard.of("resilience_retry_attempts name=r"), Some(2.0), "attempts of that call");
}

/// Keeps the level and fields of each event.
#[derive(Clone, Default)]
struct Subscriber(Arc<Mutex<Vec<String>>>);

struct Fields(String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "mainstay_resilience"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(event.metadata().level().to_string());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn b7_transitions_are_warnings_and_refusals_are_debug_events() {
    let subscriber = Subscriber::default();
    tracing::subscriber::with_default(subscriber.clone(), || {
        let breaker = CircuitBreaker::builder("dep")
            .consecutive_failures(1)
            .clock(Clock::system())
            .observer(Arc::new(TracingObserver))
            .build()
            .unwrap();
        breaker.try_acquire().unwrap().failure();
        let _ = breaker.try_acquire();
        let retry = Retry::builder("r").observer(Arc::new(TracingObserver)).build().unwrap();
        let clock = ManualClock::new();
        let _ = retry.run_on(&clock.clock(), |_| Err::<(), _>(ErrorKind::Timeout));
        clock.advance(ms(1));
    });
    let heard = subscriber.0.lock().unwrap();
    let has = |level: &str, part: &str| {
        heard.iter().any(|event| event.starts_with(level) && event.contains(part))
    };
    assert!(has("WARN", "dep") && has("DEBUG", "dep"), "{heard:#?}");
    assert!(heard.iter().any(|event| event.contains("name=\"r\"")), "{heard:#?}");
}
