//! Events as metrics and as tracing events, heard by a recorder and a subscriber of our own.

use crate::{ms, secs};
use mainstay_resilience::{
    AdaptiveConfig, Algorithm, BulkheadConfig, CircuitBreaker, Clock, Context, Criticality,
    Deadline, Dependency, DependencyKind, ErrorKind, Event, KeyedLeasedLimiter, LeasedLimiter,
    ManualClock, MetricsObserver, NoSleeper, Observer, Pipeline, Pipelines, PipelinesConfig,
    QueueConfig, RateConfig, RateLimiter, Reason, Retry, State, Timeout, TracingObserver,
    WithoutSource, WorkQueue, export_breaker,
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
fn b7_b8_a_dry_run_tells_how_often_it_would_have_opened_and_refused() {
    let (heard, clock) = (Heard::default(), ManualClock::new());
    metrics::with_local_recorder(&heard, || {
        let builder = CircuitBreaker::builder("dep").clock(clock.clock()).observer(observer());
        let breaker = builder.build().unwrap();
        breaker.observe_only();
        let would_open = || {
            let cause = "cause=consecutive_failures";
            heard.of(&format!("resilience_breaker_would_open_total name=dep {cause}"))
        };
        assert_eq!(would_open(), None);
        (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
        assert_eq!(would_open(), Some(1.0));
        (0..3).for_each(|_| breaker.try_acquire().unwrap().success());
        (0..2).for_each(|_| export_breaker(&breaker.snapshot()));
        let would_reject = "resilience_breaker_would_reject_total name=dep";
        assert_eq!(heard.of(would_reject), Some(3.0));
        clock.advance(secs(30));
        breaker.try_acquire().unwrap().success();
        export_breaker(&breaker.snapshot());
        assert_eq!(heard.of(would_reject), Some(3.0), "the open period would be over");
    });
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

#[test]
fn b7_the_error_rate_of_a_closed_breaker_is_exported() {
    let heard = Heard::default();
    metrics::with_local_recorder(&heard, || {
        let mut config = PipelinesConfig::default();
        config.defaults.attempts = Some(1);
        config.defaults.bulkhead = Some(BulkheadConfig::new(3));
        config.defaults.adaptive_limit = Some(AdaptiveConfig::default());
        config.defaults.rate = Some(RateConfig::per_second(Algorithm::TokenBucket, 50));
        let clock = ManualClock::new();
        let observer: Arc<dyn Observer> = Arc::new(MetricsObserver);
        let pipelines = Pipelines::with(config, clock.clock(), NoSleeper, observer).unwrap();
        for call in 0..10 {
            let result = if call % 5 < 2 { Err(ErrorKind::ServerError) } else { Ok(()) };
            let _ = pipelines.run("s", "e", Context::default(), |_| result);
        }
        let declared = CircuitBreaker::search_method("bm25");
        let dependency = DependencyKind::Component;
        pipelines.declare(&Dependency::new(declared, dependency, Criticality::Critical));
        assert_eq!(pipelines.breaker("s/e").unwrap().state(), State::Closed);
        assert_eq!(heard.of("resilience_breaker_error_rate name=s/e"), None, "no event told it");
        pipelines.export_metrics();
    });
    for (name, value) in [
        ("resilience_breaker_error_rate name=s/e", 0.4),
        ("resilience_breaker_calls name=s/e", 10.0),
        ("resilience_breaker_slow_rate name=s/e", 0.0),
        ("resilience_breaker_state name=s/e", 0.0),
        ("resilience_breaker_state name=bm25", 0.0),
        ("resilience_retry_budget name=s/e", 20.0),
        ("resilience_limit name=s/e", 20.0),
        ("resilience_rate_available name=s/e", 40.0),
        ("resilience_bulkhead_in_use name=s/e", 0.0),
        ("resilience_bulkhead_waiting name=s/e", 0.0),
    ] {
        assert_eq!(heard.of(name), Some(value), "{name}");
    }
}

#[test]
fn r7_all_calls_are_exported_by_their_attempts_also_those_that_succeed_at_once() {
    let heard = Heard::default();
    metrics::with_local_recorder(&heard, || {
        let clock = ManualClock::new();
        let mut config = PipelinesConfig::default();
        config.defaults.attempts = Some(3);
        let pipelines = Pipelines::with(config, clock.clock(), NoSleeper, observer()).unwrap();
        // Attempts after which each call succeeds; the last never does.
        for needed in [1, 1, 1, 2, 3, 4] {
            let _ = pipelines.run("s", "e", Context::default(), |attempt| {
                if attempt.number() < needed { Err(ErrorKind::Connection) } else { Ok(()) }
            });
        }
        // Exported twice, counted once.
        (0..2).for_each(|_| pipelines.export_metrics());
    });
    for (attempts, calls) in [("1", 3.0), ("2", 1.0), ("3", 2.0), ("4", 0.0), ("10", 0.0)] {
        let name = format!("resilience_retry_calls_total name=s/e attempts={attempts}");
        assert_eq!(heard.of(&name), Some(calls), "{name}");
    }
    assert_eq!(heard.of("resilience_retry_success_total name=s/e"), Some(2.0));
}

#[test]
fn b7_queues_leases_and_timeouts_tell_what_they_refuse() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = || -> Arc<dyn Observer> {
        let seen = Arc::clone(&seen);
        Arc::new(move |event: &Event<'_>| {
            if let Event::Rejected(rejection) = event {
                seen.lock().unwrap().push((rejection.name().to_owned(), rejection.reason()));
            }
        })
    };
    let heard = || std::mem::take(&mut *seen.lock().unwrap());
    let clock = ManualClock::new();

    let config = QueueConfig::default();
    let queue = WorkQueue::observed("q", config, clock.clock(), |(): ()| (), observer());
    let (queue, workers) = queue.unwrap();
    let passed = Context::within(Deadline::at(clock.now()));
    assert!(queue.submit((), passed).is_err());
    drop((queue, workers));
    assert_eq!(heard(), [("q".to_owned(), Reason::DeadlinePassed)]);

    let refuse = WithoutSource::Refuse;
    let leased = LeasedLimiter::observed("l", 10, refuse, clock.clock(), observer()).unwrap();
    assert!(leased.try_acquire(1).is_err());
    assert_eq!(heard(), [("l".to_owned(), Reason::LeaseSpent { portion: 10 })]);
    let alone = RateConfig::new(Algorithm::FixedWindow, 1, secs(60));
    let without = WithoutSource::LimitLocally(alone);
    let keyed = KeyedLeasedLimiter::observed("k", 10, 9, without, clock.clock(), observer());
    let keyed = keyed.unwrap();
    assert!(keyed.try_acquire("a", 1).is_ok() && keyed.try_acquire("a", 1).is_err());
    let reason = Reason::RateExceeded { limit: 1, period: secs(60) };
    assert_eq!(heard(), [("k/a".to_owned(), reason)], "once, not twice");

    let timeout = Timeout::total("t", secs(1)).unwrap().with_observer(observer());
    let pipeline = Pipeline::builder().clock(clock.clock()).then(timeout).build().unwrap();
    assert!(pipeline.run_within(passed, |_| Ok::<_, ErrorKind>(())).is_err());
    assert_eq!(heard(), [("t".to_owned(), Reason::DeadlinePassed)]);
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
