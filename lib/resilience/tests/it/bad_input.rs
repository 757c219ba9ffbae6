//! What cannot work is refused before anything is built, and says field, value and range; and
//! nothing that a user's closure does takes a policy down.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    Adaptive, AdaptiveConfig, AdaptiveLimit, Algorithm, Backoff, BreakerConfig, BudgetConfig,
    Bulkhead, BulkheadConfig, CircuitBreaker, Clock, ConfigError, Context, Enough, ErrorKind,
    Hedge, HedgeDelay, Jitter, KeyedConfig, KeyedRateLimiter, LeasedLimiter, OpenFor, Partial,
    Pipeline, Pipelines, PipelinesConfig, Probes, QueueConfig, Ramp, RateConfig, RateLimiter,
    Retry, RetryBudget, SlowCalls, State, Throttle, ThrottleConfig, Timeout, Window, WithoutSource,
    WorkQueue,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn breaker(change: impl Fn(&mut BreakerConfig)) -> ConfigError {
    let mut config = BreakerConfig::default();
    change(&mut config);
    CircuitBreaker::builder("b").config(config).build().unwrap_err()
}

fn adaptive(change: impl Fn(&mut Adaptive)) -> ConfigError {
    let mut adaptive = Adaptive::default();
    change(&mut adaptive);
    breaker(|config| config.adaptive = Some(adaptive))
}

#[test]
fn b8_a_threshold_that_would_never_learn_is_refused() {
    let refused = breaker(|config| {
        config.window = Window::count(100);
        config.adaptive = Some(Adaptive::default());
    });
    assert_eq!(
        refused.to_string(),
        "window: count is not allowed, use a time window, because adaptive learns from the slices \
         of one"
    );
    let breaker = CircuitBreaker::builder("b").adaptive(Adaptive::default()).build().unwrap();
    let mut config = breaker.config();
    config.window = Window::count(100);
    assert_eq!(breaker.reconfigure(config).unwrap_err().field(), "window");
    assert!(matches!(breaker.config().window, Window::Time { .. }), "nothing has changed");
}

#[test]
fn b1_every_field_of_a_breaker_is_checked_and_the_message_names_field_value_and_range() {
    let refused = [
        (breaker(|c| c.window = Window::time(ms(0))), "window.length", "0s"),
        (breaker(|c| c.window = Window::count(0)), "window.calls", "0"),
        (breaker(|c| c.window = Window::Time { length: secs(1), slices: 1 }), "window.slices", "1"),
        (breaker(|c| c.failure_rate = Some(1.5)), "failure_rate", "1.5"),
        (breaker(|c| c.failure_rate = Some(0.0)), "failure_rate", "0"),
        (breaker(|c| c.failure_rate = Some(f64::NAN)), "failure_rate", "NaN"),
        (
            breaker(|c| c.slow_calls = Some(SlowCalls { rate: 2.0, longer_than: ms(1) })),
            "slow_calls.rate",
            "2",
        ),
        (breaker(|c| c.min_calls = 0), "min_calls", "0"),
        (breaker(|c| c.probes = Probes::new(0)), "probes.count", "0"),
        (breaker(|c| c.probes = Probes::new(2).concurrent(3)), "probes.concurrent", "3"),
        (breaker(|c| c.probes = Probes::new(2).close_at(1.1)), "probes.close_at", "1.1"),
        (breaker(|c| c.probes = Probes::new(2).give_up_after(ms(0))), "probes.give_up_after", "0s"),
        (breaker(|c| c.open_for = OpenFor::fixed(ms(0))), "open_for.first", "0s"),
        (breaker(|c| c.open_for = OpenFor::growing(secs(9), secs(3))), "open_for.max", "3s"),
        (
            breaker(|c| c.open_for = OpenFor::fixed(secs(1)).with_jitter(-0.1)),
            "open_for.jitter",
            "-0.1",
        ),
        (breaker(|c| c.ramp = Some(Ramp { from: 0.0, over: secs(1) })), "ramp.from", "0"),
        (breaker(|c| c.window = Window::None), "window", "none"),
        (
            breaker(|c| {
                (c.window, c.failure_rate) = (Window::None, None);
                c.slow_calls = Some(SlowCalls { rate: 0.5, longer_than: secs(1) });
            }),
            "window",
            "none",
        ),
        (
            breaker(|c| {
                (c.window, c.failure_rate) = (Window::None, None);
                c.adaptive = Some(Adaptive::default());
            }),
            "window",
            "none",
        ),
        (adaptive(|a| a.deviations = 0.9), "adaptive.deviations", "0.9"),
        (adaptive(|a| a.deviations = 10.1), "adaptive.deviations", "10.1"),
        (adaptive(|a| a.floor = 0.0), "adaptive.floor", "0"),
        (adaptive(|a| a.floor = 1.1), "adaptive.floor", "1.1"),
        (adaptive(|a| (a.floor, a.ceiling) = (0.5, 0.4)), "adaptive.ceiling", "0.4"),
        (adaptive(|a| a.ceiling = 1.1), "adaptive.ceiling", "1.1"),
        (adaptive(|a| a.memory_slices = 1), "adaptive.memory_slices", "1"),
        (adaptive(|a| a.memory_slices = 10_001), "adaptive.memory_slices", "10001"),
    ];
    for (error, field, value) in refused {
        assert_eq!((error.field(), error.value()), (field, value));
        assert!(!error.allowed().is_empty());
        let shown = format!("{field}: {value} is not allowed, use {}", error.allowed());
        assert_eq!(error.to_string(), shown);
    }
}

#[test]
fn r1_a_cap_below_the_first_delay_and_every_other_field_of_a_retry_are_refused() {
    let build = |backoff: Backoff| Retry::builder("r").backoff(backoff).build().unwrap_err();
    let cap = build(Backoff::exponential(secs(2), secs(1)));
    assert_eq!(cap.to_string(), "backoff.max: 1s is not allowed, use 2s to 1h");
    let jitter = build(Backoff::default().with_jitter(Jitter::Proportional(1.5)));
    assert_eq!(jitter.to_string(), "backoff.jitter: 1.5 is not allowed, use 0 to 1");
    let fixed = build(Backoff::fixed(secs(1)).with_jitter(Jitter::Decorrelated));
    assert_eq!((fixed.field(), fixed.value()), ("backoff.jitter", "decorrelated"));
    let attempts = Retry::builder("r").attempts(0).build().unwrap_err();
    assert_eq!(attempts.to_string(), "attempts: 0 is not allowed, use 1 to 100");
    let mut budget = BudgetConfig::default();
    budget.ratio = 1.5;
    let refused = RetryBudget::new(budget).unwrap_err();
    assert_eq!(refused.to_string(), "budget.ratio: 1.5 is not allowed, use 0 to 1");
    let hedge = Hedge::builder("h").delay(HedgeDelay::Quantile(1.5)).build().unwrap_err();
    assert_eq!(hedge.to_string(), "delay.quantile: 1.5 is not allowed, use 0.5 to 0.999");
    assert_eq!(Timeout::total("t", ms(0)).unwrap_err().field(), "timeout");
    assert_eq!(Partial::new(Enough::Ratio(1.5)).unwrap_err().field(), "enough.ratio");
    assert_eq!(Partial::new(Enough::Count(0)).unwrap_err().field(), "enough.count");
}

#[test]
fn o4_o5_every_field_of_limits_and_queues_is_refused_out_of_its_range() {
    let bucket = |limit, period| RateConfig::new(Algorithm::TokenBucket, limit, period);
    assert_eq!(RateLimiter::new("l", bucket(1, ms(0))).unwrap_err().field(), "period");
    assert_eq!(RateLimiter::new("l", bucket(0, secs(1))).unwrap_err().field(), "limit");
    let mut keyed = KeyedConfig::new(bucket(1, secs(1)));
    keyed.keys_max = 0;
    assert_eq!(KeyedRateLimiter::new("k", keyed).unwrap_err().field(), "keys_max");
    keyed.rate = bucket(1, ms(0));
    assert_eq!(KeyedRateLimiter::new("k", keyed).unwrap_err().field(), "rate.period");
    let leased = LeasedLimiter::new("l", 0, WithoutSource::Refuse, Clock::system());
    assert_eq!(leased.unwrap_err().field(), "portion");
    assert_eq!(Bulkhead::new("s", BulkheadConfig::new(0)).unwrap_err().field(), "limit");
    let mut adaptive = AdaptiveConfig::default();
    adaptive.min = 50;
    assert_eq!(AdaptiveLimit::new("a", adaptive).unwrap_err().field(), "initial");
    adaptive = AdaptiveConfig::default();
    adaptive.backoff = 1.0;
    assert_eq!(AdaptiveLimit::new("a", adaptive).unwrap_err().field(), "backoff");
    adaptive = AdaptiveConfig::default();
    adaptive.on_drop = mainstay_resilience::DropRule::TimeoutAfter(ms(0));
    assert_eq!(AdaptiveLimit::new("a", adaptive).unwrap_err().field(), "on_drop.timeout_after");
    let mut throttle = ThrottleConfig::default();
    throttle.k = 1.0;
    assert_eq!(Throttle::new("t", throttle).unwrap_err().field(), "k");
    let mut queue = QueueConfig::default();
    queue.capacity = 0;
    let refused = WorkQueue::start("q", queue, Clock::system(), |job: u32| job).map(drop);
    assert_eq!(refused.unwrap_err().field(), "capacity");
}

/// The largest and smallest figures that are allowed, all at once, must not overflow.
#[test]
fn o4_no_allowed_rate_overflows() {
    for algorithm in [
        Algorithm::TokenBucket,
        Algorithm::LeakyBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
    ] {
        for (limit, period, burst) in [
            (1, secs(86_400), 1_000_000_000),
            (1_000_000_000, secs(86_400), 1_000_000_000),
            (10_000, ms(1), 1),
            (1, ms(1), 0),
        ] {
            let config = RateConfig::new(algorithm, limit, period).with_burst(burst);
            let limiter = RateLimiter::new("l", config).unwrap();
            for cost in [0, 1, 1_000_000, u32::MAX] {
                let _ = limiter.reserve(cost, secs(u64::MAX));
                let _ = (limiter.try_acquire_cost(cost), limiter.available());
            }
        }
    }
}

#[test]
fn r6_an_unknown_key_and_a_malformed_variable_are_refused() {
    let unknown = serde_json::from_str::<PipelinesConfig>(r#"{"defaults": {"atempts": 3}}"#);
    assert!(unknown.unwrap_err().to_string().contains("unknown field `atempts`, expected one of"));
    let unknown = serde_json::from_str::<QueueConfig>(r#"{"capcity": 3}"#).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `capcity`"));
    let text = r#"{"rate": {"algorithm": "token_bucket", "limit": 5, "period": "1s"}, "keys": 3}"#;
    let unknown = serde_json::from_str::<KeyedConfig>(text).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `keys`"));
    let vars = [("CB_FAIL_THRESHOLD".to_owned(), "five".to_owned())];
    let refused = PipelinesConfig::default().with_environment(vars).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "CB_FAIL_THRESHOLD: \"five\" is not allowed, use a whole number from 1 to 1000000"
    );
}

#[test]
fn b5_a_panic_in_the_operation_counts_as_a_failure_and_unwinds_on() {
    let breaker = CircuitBreaker::search_method("b");
    let bulkhead = Bulkhead::new("s", BulkheadConfig::new(2)).unwrap();
    let adaptive = AdaptiveLimit::new("a", AdaptiveConfig::default()).unwrap();
    let pipeline = Pipeline::builder()
        .then(Retry::builder("r").backoff(Backoff::none()).build().unwrap())
        .then(breaker.clone())
        .then(bulkhead.clone())
        .then(adaptive.clone())
        .then(Timeout::per_attempt("t", secs(1)).unwrap())
        .build()
        .unwrap();
    for _ in 0..5 {
        let run = || pipeline.run(|_| -> Result<(), ErrorKind> { panic!("the operation broke") });
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the operation broke"));
    }
    assert_eq!(breaker.state(), State::Open);
    assert_eq!((bulkhead.in_use(), adaptive.in_use()), (0, 0));
}

#[test]
fn b5_a_panic_in_an_awaited_operation_counts_as_a_failure_and_unwinds_on() {
    let time = VirtualTime::new();
    let breaker = CircuitBreaker::builder("b").clock(time.clock()).build().unwrap();
    let pipeline = Pipeline::builder()
        .clock(time.clock())
        .sleeper(time.sleeper())
        .then(breaker.clone())
        .build()
        .unwrap();
    for _ in 0..5 {
        let broken = || -> Result<(), ErrorKind> { panic!("it broke") };
        let call = pipeline.call(|_| async move { broken() });
        assert!(catch_unwind(AssertUnwindSafe(|| time.block_on(call))).is_err());
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn r5_a_panicking_operation_leaves_the_registry_as_it_was() {
    let pipelines = Pipelines::new(PipelinesConfig::default()).unwrap();
    let run = || {
        let broken = |_| -> Result<(), ErrorKind> { panic!("it broke") };
        pipelines.run("s", "e", Context::default(), broken)
    };
    for _ in 0..5 {
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
    let refused = run().unwrap_err();
    assert!(refused.is_rejected(), "five panics opened it: {refused}");
}
