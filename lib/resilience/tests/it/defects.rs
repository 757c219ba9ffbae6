//! One test for each defect found in other libraries, showing that it is not here.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Algorithm, AnswerCache, Backoff, BreakerConfig, BudgetConfig,
    Bulkhead, BulkheadConfig, CircuitBreaker, Context, Deadline, DropRule, Error, ErrorKind, Event,
    Hedge, HedgeDelay, KeyedConfig, KeyedRateLimiter, Law, ManualClock, Observer, OpenFor,
    Pipeline, Priority, Probes, QueueOrder, RateConfig, RateLimiter, Retry, RetryBudget, Sleeper,
    State, Throttle, ThrottleConfig, Tick, Timeout, Window, parse_retry_after,
};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, UNIX_EPOCH};

#[test]
fn a_count_window_slides_instead_of_growing_for_ever() {
    // tower-resilience 0.13: after 10 000 successes it took 10 000 failures to open.
    let breaker = CircuitBreaker::builder("dep")
        .consecutive_failures(0)
        .window(Window::count(100))
        .failure_rate(0.5)
        .build()
        .unwrap();
    (0..10_000).for_each(|_| breaker.try_acquire().unwrap().success());
    let failures = (0..).take_while(|_| breaker.try_acquire().map(|p| p.failure()).is_ok()).count();
    assert_eq!(failures, 50);
}

#[test]
fn a_failure_admitted_while_closed_does_not_reopen_a_recovering_breaker() {
    // tower-resilience, Polly (218), resilience4j: results were not tied to a cycle.
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep")
        .clock(clock.clock())
        .half_open(Probes::new(2))
        .build()
        .unwrap();
    let late = breaker.try_acquire().unwrap();
    breaker.force_open();
    clock.advance(secs(30));
    breaker.try_acquire().unwrap().success();
    late.failure();
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_hang_under_an_outer_timeout_opens_the_breaker() {
    // tower-resilience, recloser, failsafe: 100 dropped futures were counted as no calls at all.
    let time = VirtualTime::new();
    let breaker = CircuitBreaker::builder("dep")
        .on_drop(DropRule::TimeoutAfter(ms(90)))
        .clock(time.clock())
        .build()
        .unwrap();
    let pipeline = Pipeline::builder()
        .clock(time.clock())
        .sleeper(time.sleeper())
        .then(Timeout::total("t", ms(100)).unwrap())
        .then(breaker.clone())
        .build()
        .unwrap();
    for _ in 0..5 {
        let hang = pipeline.call(|_| std::future::pending::<Result<(), ErrorKind>>());
        assert!(time.block_on(hang).is_err());
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn zero_probes_are_refused_instead_of_never_recovering() {
    // tower-resilience: `permitted_calls_in_half_open(0)` built, and could never close.
    assert!(CircuitBreaker::builder("dep").half_open(Probes::new(0)).build().is_err());
}

#[test]
fn half_open_admits_as_many_probes_as_it_says_under_contention() {
    // failsafe and recloser admitted 64 of 64; Polly 216, resilience4j 1432.
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep")
        .clock(clock.clock())
        .half_open(Probes::new(3))
        .build()
        .unwrap();
    breaker.force_open();
    clock.advance(secs(30));
    let (held, together) = (Mutex::new(Vec::new()), Barrier::new(16));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                together.wait();
                for _ in 0..4 {
                    // Asked for outside the lock, which would let one thread ask at a time.
                    let permit = breaker.try_acquire().ok();
                    held.lock().unwrap().extend(permit);
                }
            });
        }
    });
    assert_eq!(held.into_inner().unwrap().len(), 3);
}

#[test]
fn a_probe_that_ends_without_a_verdict_gives_its_slot_back() {
    // nora 585, resilience4j 544: an ignored error on the last probe wedged it.
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep").clock(clock.clock()).build().unwrap();
    breaker.force_open();
    clock.advance(secs(30));
    for _ in 0..10 {
        breaker.try_acquire().unwrap().ignore();
        drop(breaker.try_acquire().unwrap());
    }
    breaker.try_acquire().unwrap().record(ErrorKind::NotFound);
    assert_eq!(breaker.state(), State::Closed, "an answer of 404 shows a healthy dependency");
}

#[test]
fn a_probe_that_never_ends_does_not_wedge_the_breaker() {
    // resilience4j 935, OmniRoute 13836: 49 607 refusals in six days.
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep").clock(clock.clock()).build().unwrap();
    breaker.force_open();
    clock.advance(secs(30));
    let hung = breaker.try_acquire().unwrap();
    for _ in 0..3 {
        clock.advance(secs(30));
        let _ = breaker.try_acquire();
    }
    breaker.try_acquire().expect("another probe is let through").success();
    assert_eq!(breaker.state(), State::Closed);
    hung.failure();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn an_observer_may_call_the_breaker_that_calls_it() {
    // gobreaker 37 and 119, Polly 2953: a callback under the lock was a deadlock.
    let slot = Arc::new(Mutex::new(None::<CircuitBreaker>));
    let inner = Arc::clone(&slot);
    let observer: Arc<dyn Observer> = Arc::new(move |event: &Event<'_>| {
        let breaker = inner.lock().unwrap().take();
        if let (Event::BreakerChanged { .. }, Some(breaker)) = (event, breaker) {
            breaker.reset();
            let _ = (breaker.snapshot(), breaker.try_acquire());
        }
    });
    let breaker = CircuitBreaker::builder("dep").observer(observer).build().unwrap();
    *slot.lock().unwrap() = Some(breaker.clone());
    breaker.isolate();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn the_gauge_of_a_state_is_one_figure() {
    // tower-resilience: the gauge of the old state stayed at 1.
    assert_eq!(
        [State::Closed, State::Open, State::HalfOpen].map(State::as_gauge),
        [0, 1, 2],
        "B7: 0 closed, 1 open, 2 half-open"
    );
}

#[test]
fn a_budget_of_sixty_percent_is_not_rounded_up_to_a_hundred() {
    // tower 863: 0.6 and 0.9 allowed as many retries as 1.0.
    let mut config = BudgetConfig::default();
    (config.ratio, config.capacity, config.floor_per_second) = (0.6, 2, 0);
    let budget = RetryBudget::new(config).unwrap();
    while budget.try_withdraw() {}
    let mut allowed = 0;
    for _ in 0..1_000 {
        budget.deposit();
        allowed += u32::from(budget.try_withdraw());
    }
    assert!((595..=600).contains(&allowed), "{allowed}");
}

#[test]
fn a_budget_refills_after_it_was_empty() {
    // aws-sdk-go-v2 3550: retries were dead until the process was restarted.
    let clock = ManualClock::new();
    let budget = RetryBudget::with_clock(BudgetConfig::default(), clock.clock()).unwrap();
    while budget.try_withdraw() {}
    clock.advance(secs(1));
    assert!(budget.try_withdraw(), "by time alone");
    (0..10).for_each(|_| budget.deposit());
    assert!(budget.try_withdraw(), "by calls");
}

#[test]
fn a_retry_after_date_is_read() {
    // failsafe-go reads seconds only.
    let date = "Thu, 01 Jan 1970 00:00:30 GMT";
    assert_eq!(parse_retry_after(date, UNIX_EPOCH), Some(secs(30)));
}

#[test]
fn a_limit_changes_without_losing_what_is_used() {
    // governor 39 and 273, resilience4j 975.
    let limiter =
        RateLimiter::new("api", RateConfig::new(Algorithm::FixedWindow, 10, secs(3_600))).unwrap();
    (0..10).for_each(|_| limiter.try_acquire().unwrap());
    limiter.reconfigure(RateConfig::new(Algorithm::FixedWindow, 12, secs(3_600))).unwrap();
    assert_eq!(limiter.available(), 2);
}

#[test]
fn keys_are_bounded_without_anybody_cleaning_up() {
    // governor 171: keyed state grew until somebody called `retain_recent`.
    let mut config = KeyedConfig::new(RateConfig::per_second(Algorithm::TokenBucket, 1));
    config.keys_max = 160;
    let keyed = KeyedRateLimiter::new("k", config).unwrap();
    (0..20_000).for_each(|i| drop(keyed.try_acquire(&i.to_string(), 1)));
    assert!(keyed.keys() <= 160);
}

#[test]
fn a_window_of_one_call_works() {
    // resilience4j 2334 and 2379: a null pointer with a window of one.
    let breaker = CircuitBreaker::builder("dep")
        .consecutive_failures(0)
        .window(Window::count(1))
        .min_calls(1)
        .build()
        .unwrap();
    breaker.try_acquire().unwrap().success();
    breaker.try_acquire().unwrap().failure();
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn reconfiguring_does_not_replace_the_breaker() {
    // resilience4j 975 and 1749, Polly's reload: the window was lost.
    let breaker = CircuitBreaker::builder("dep").build().unwrap();
    (0..4).for_each(|_| breaker.try_acquire().unwrap().failure());
    let mut config = BreakerConfig::default();
    config.open_for = OpenFor::fixed(secs(5));
    breaker.reconfigure(config).unwrap();
    breaker.try_acquire().unwrap().failure();
    assert_eq!(breaker.snapshot().next_probe.map(|wait| wait <= secs(5)), Some(true));
}

#[test]
fn a_rate_is_judged_as_soon_as_the_minimum_is_there() {
    // recloser waits for a full window, failsafe for its whole length, tower-resilience for both.
    let breaker = CircuitBreaker::builder("dep")
        .consecutive_failures(0)
        .window(Window::count(1_000))
        .min_calls(10)
        .build()
        .unwrap();
    (0..9).for_each(|_| breaker.try_acquire().unwrap().failure());
    assert_eq!(breaker.state(), State::Closed);
    breaker.try_acquire().unwrap().failure();
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn calls_at_the_origin_of_the_clock_count() {
    // failsafe: a timestamp of zero meant "unset", so early samples overwrote each other.
    let clock = ManualClock::new();
    clock.set(Tick::ZERO);
    let breaker = CircuitBreaker::builder("dep").clock(clock.clock()).build().unwrap();
    (0..3).for_each(|_| breaker.try_acquire().unwrap().success());
    assert_eq!(breaker.snapshot().calls, 3);
}

#[test]
fn one_good_probe_of_three_does_not_close() {
    // failsafe: the first success in half-open closed it.
    let clock = ManualClock::new();
    let probes = Probes::new(3);
    let builder = CircuitBreaker::builder("dep").clock(clock.clock()).half_open(probes);
    let breaker = builder.build().unwrap();
    breaker.force_open();
    clock.advance(secs(30));
    (0..2).for_each(|_| breaker.try_acquire().unwrap().success());
    assert_eq!(breaker.state(), State::HalfOpen);
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_cancelled_probe_does_not_close() {
    // Polly: a cancelled probe was "unhandled", and closed the circuit.
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep").clock(clock.clock()).build().unwrap();
    breaker.force_open();
    clock.advance(secs(30));
    drop(breaker.try_acquire().unwrap());
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn a_refusal_says_who_why_and_until_when_and_an_error_keeps_its_sources() {
    // tower-resilience: `OpenCircuit` carries nothing, and the inner error is no source; recloser's
    // error is neither displayed nor an error.
    let breaker = CircuitBreaker::search_method("dep");
    (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
    let refused = breaker.run(|| Err::<(), _>(std::io::Error::other("down"))).unwrap_err();
    assert!(refused.to_string().starts_with("circuit_breaker dep refused the call: it is open"));
    assert!(refused.retry_after().is_some_and(|wait| wait <= secs(30)));
    let failed = || Failed(std::io::Error::other("the root"));
    let error: &dyn std::error::Error = &Error::Operation(failed());
    assert_eq!(error.to_string(), "it failed");
    assert_eq!(error.source().unwrap().to_string(), "the root");
    let pipeline = Pipeline::builder();
    let pipeline = pipeline.then(Retry::builder("r").attempts(1).build().unwrap()).build().unwrap();
    let judge = |_: Result<&(), &Failed>| ErrorKind::Connection.into();
    let alone = pipeline.run_judged(Context::default(), judge, |_| Err(failed())).unwrap_err();
    let mut chain = vec![alone.to_string()];
    let mut next = std::error::Error::source(&alone);
    while let Some(source) = next {
        chain.push(source.to_string());
        next = source.source();
    }
    assert_eq!(chain.last().map(String::as_str), Some("the root"), "{chain:?}");
}

/// An error with a source.
#[derive(Debug)]
struct Failed(std::io::Error);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it failed")
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn the_shared_limit_is_shared_by_clones() {
    // tower: `RateLimit` counts per instance and is not `Clone`.
    let limiter =
        RateLimiter::new("api", RateConfig::per_second(Algorithm::FixedWindow, 2)).unwrap();
    let other = limiter.clone();
    assert!(limiter.try_acquire().is_ok() && other.try_acquire().is_ok());
    assert!(limiter.clone().try_acquire().is_err());
}

#[test]
fn a_moving_window_never_holds_more_than_its_quota() {
    // governor 219, tower 842: twice the quota around a boundary.
    let clock = ManualClock::new();
    let config = RateConfig::per_second(Algorithm::SlidingWindow, 10);
    let limiter = RateLimiter::with_clock("api", config, clock.clock()).unwrap();
    clock.advance(ms(950));
    let burst = || (0..20).filter(|_| limiter.try_acquire().is_ok()).count();
    let first = burst();
    clock.advance(ms(100));
    assert_eq!((first, burst()), (10, 0));
}

#[test]
fn nothing_forces_an_adaptive_limit_down_to_measure() {
    // Envoy 8337 and 9007: the window that measures the shortest round trip dropped it to one.
    let clock = ManualClock::new();
    let mut config = AdaptiveConfig::default();
    config.law = Law::Vegas;
    let limit = AdaptiveLimit::with_clock("dep", config, clock.clock()).unwrap();
    for _ in 0..50_000 {
        let permits: Vec<_> =
            (0..10).filter_map(|_| limit.try_acquire(Context::default()).ok()).collect();
        clock.advance(ms(20));
        permits.into_iter().for_each(|permit| permit.success());
        assert!(limit.limit() >= 20, "{}", limit.limit());
    }
}

#[test]
fn a_long_incident_does_not_become_normal() {
    // failsafe-go 127, concurrency-limits 165: the baseline drifted up with the incident.
    let clock = ManualClock::new();
    let mut config = AdaptiveConfig::default();
    config.healthy_rtt_max = ms(30);
    let limit = AdaptiveLimit::with_clock("dep", config, clock.clock()).unwrap();
    for _ in 0..20_000 {
        let permits: Vec<_> =
            (0..20).filter_map(|_| limit.try_acquire(Context::default()).ok()).collect();
        clock.advance(ms(300));
        permits.into_iter().for_each(|permit| permit.success());
    }
    assert!(limit.limit() <= 10, "ten times slower than healthy, and still {}", limit.limit());
}

/// What an adaptive limit does that was told nothing about round trips, call by call in virtual time.
struct Served {
    clock: ManualClock,
    limit: AdaptiveLimit,
}

impl Served {
    fn by(law: Law) -> Self {
        Served::with(law, Duration::ZERO)
    }

    fn with(law: Law, healthy_rtt_max: Duration) -> Self {
        let clock = ManualClock::new();
        let mut config = AdaptiveConfig::default();
        (config.law, config.max, config.healthy_rtt_max) = (law, 100, healthy_rtt_max);
        let limit = AdaptiveLimit::with_clock("dep", config, clock.clock()).unwrap();
        Served { clock, limit }
    }

    /// The limit after this long, in which the dependency takes `rtt` for whatever demand there is.
    fn limit_after(&self, lasting: Duration, rtt: Duration) -> u64 {
        let end = self.clock.clock().now().after(lasting);
        while self.clock.clock().now() < end {
            let permits: Vec<_> = std::iter::from_fn(|| {
                self.limit.try_acquire(Context::default().priority(Priority::Critical)).ok()
            })
            .collect();
            self.clock.advance(rtt);
            permits.into_iter().for_each(|permit| permit.success());
        }
        self.limit.limit()
    }
}

#[test]
fn by_default_an_incident_of_hours_does_not_become_normal_and_one_of_a_day_does() {
    for law in [Law::Vegas, Law::Gradient2] {
        let served = Served::by(law);
        served.limit_after(secs(60), ms(20));
        let hours = secs(20 * 3_600);
        let during = served.limit_after(hours, secs(20));
        assert!(during <= 10, "{law:?}: a thousand times slower, and still {during}");
        let after = served.limit_after(secs(300), ms(20));
        assert!(after > 50, "{law:?}: healthy again, and only {after}");
        served.limit_after(hours * 2, secs(20));
        let adopted = served.limit_after(hours, secs(20));
        assert!(adopted > 50, "{law:?}: slow for two days, and still only {adopted}");
    }
}

#[test]
fn who_says_what_is_healthy_is_not_held_to_the_best_of_a_day() {
    for law in [Law::Vegas, Law::Gradient2] {
        let served = Served::with(law, secs(1));
        served.limit_after(secs(60), ms(20));
        let slower = served.limit_after(secs(3_600), ms(500));
        assert!(slower > 50, "{law:?}: half a second is healthy, and yet {slower}");
    }
}

#[test]
fn by_default_aimd_hears_of_overload_by_timeouts_and_refusals_alone() {
    let served = Served::by(Law::Aimd);
    assert_eq!(served.limit_after(secs(200), secs(1)), 100, "slowness alone says nothing");
    for _ in 0..1_000 {
        let permit = served.limit.try_acquire(Context::default()).unwrap();
        served.clock.advance(ms(20));
        permit.record(ErrorKind::RateLimit);
    }
    assert_eq!(served.limit.limit(), 5);
}

#[test]
fn a_manual_clock_moves_a_breaker() {
    // tower-resilience and resilience4j (734): some parts read the real clock whatever was set.
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep")
        .slow_calls(0.5, secs(10))
        .min_calls(1)
        .clock(clock.clock())
        .build()
        .unwrap();
    let permit = breaker.try_acquire().unwrap();
    clock.advance(secs(10));
    permit.success();
    assert_eq!(breaker.state(), State::Open, "slow in virtual time");
    clock.advance(secs(30));
    breaker.try_acquire().expect("its open period is over").success();
}

/// What refuses by now, and stands on `clock`: asks it until it refuses.
fn refuses_until(clock: &ManualClock, wait: Duration, name: &str, admits: &dyn Fn() -> bool) {
    while admits() {}
    clock.advance(wait / 4);
    assert!(!admits(), "{name} refuses until its time has come");
    clock.advance(wait);
    assert!(admits(), "{name} admits when its time has come");
}

#[test]
fn a_manual_clock_moves_every_limit() {
    let clock = ManualClock::new();
    for algorithm in [
        Algorithm::TokenBucket,
        Algorithm::LeakyBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
    ] {
        let rate = RateConfig::new(algorithm, 1, secs(3_600));
        // One each: it begins at a full hour, where a fixed window begins too.
        let [own, keyed_own] = [ManualClock::new(), ManualClock::new()];
        let limiter = RateLimiter::with_clock("r", rate, own.clock()).unwrap();
        let name = format!("{algorithm:?}");
        refuses_until(&own, secs(4_000), &name, &|| limiter.try_acquire().is_ok());
        let mut config = KeyedConfig::new(rate);
        config.idle_after = secs(86_400);
        let keyed = KeyedRateLimiter::with_clock("k", config, keyed_own.clock()).unwrap();
        refuses_until(&keyed_own, secs(4_000), &name, &|| keyed.try_acquire("key", 1).is_ok());
    }
    let mut config = BudgetConfig::default();
    config.ratio = 0.0;
    let budget = RetryBudget::with_clock(config, clock.clock()).unwrap();
    refuses_until(&clock, secs(1), "budget", &|| budget.try_withdraw());

    let throttle = Throttle::seeded("t", ThrottleConfig::default(), clock.clock(), 1).unwrap();
    (0..100).for_each(|_| drop(throttle.try_acquire()));
    clock.advance(secs(100));
    assert!(throttle.refusal_probability() > 0.5, "two minutes are not over");
    clock.advance(secs(30));
    assert_eq!(throttle.refusal_probability(), 0.0);

    let limit = AdaptiveLimit::with_clock("a", AdaptiveConfig::default(), clock.clock()).unwrap();
    let overload = || limit.try_acquire(Context::default()).unwrap().overloaded();
    (0..100).for_each(|_| overload());
    assert_eq!(limit.limit(), 20, "no window is over");
    clock.advance(ms(100));
    overload();
    assert!(limit.limit() < 20);
}

#[test]
fn a_manual_clock_moves_what_is_kept_what_is_waited_for_and_what_is_due() {
    let clock = ManualClock::new();
    let cache = AnswerCache::new(9, secs(60), secs(60), clock.clock()).unwrap();
    cache.insert("key", 7);
    clock.advance(secs(59));
    assert_eq!(cache.fresh(&"key"), Some(7));
    clock.advance(secs(2));
    assert_eq!((cache.fresh(&"key"), cache.stale(&"key")), (None, Some(7)));

    let deadline = Deadline::after(&clock.clock(), secs(3_600));
    clock.advance(secs(3_000));
    assert_eq!(deadline.remaining(clock.now()), secs(600));

    // An hour of waits and of a limit in all, which no real clock could let pass here.
    let began = clock.now();
    let retry = Retry::builder("r").attempts(9).backoff(Backoff::fixed(secs(1_000)));
    let pipeline = Pipeline::builder()
        .clock(clock.clock())
        .then(Timeout::total("t", secs(3_600)).unwrap())
        .then(retry.build().unwrap())
        .build()
        .unwrap();
    assert!(pipeline.run(|_| Err::<(), _>(ErrorKind::Connection)).is_err());
    assert_eq!(clock.now().since(began), secs(3_000), "a fourth wait would be too long");

    let time = VirtualTime::new();
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(secs(1_000))).build().unwrap();
    let hedged = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper()).then(hedge);
    let (hedged, sleeper, began) = (hedged.build().unwrap(), &time.sleeper(), time.clock().now());
    let answer = time.block_on(hedged.call(|attempt| async move {
        sleeper.sleep(if attempt.hedge() == 0 { secs(3_600) } else { secs(1) }).await;
        Ok::<_, ErrorKind>(attempt.hedge())
    }));
    assert_eq!((answer, time.clock().now().since(began)), (Ok(1), secs(1_001)));

    let queue = BulkheadConfig::new(1).with_queue(1, secs(3_600), QueueOrder::Fifo);
    let bulkhead = Bulkhead::new("s", queue).unwrap();
    let (_held, began) = (bulkhead.try_acquire().unwrap(), time.clock().now());
    assert!(time.block_on(bulkhead.acquire(sleeper, Priority::Normal)).is_err());
    assert_eq!(time.clock().now().since(began), secs(3_600));
}

#[test]
fn deposits_of_many_threads_are_all_kept() {
    // smithy-rs: a fraction of a token is loaded and stored, so that two rewards may become one.
    const THREADS: u32 = 8;
    const DEPOSITS: u32 = 20_000;
    let mut config = BudgetConfig::default();
    (config.ratio, config.capacity, config.floor_per_second) = (0.5, 100_000, 0);
    let budget = RetryBudget::new(config).unwrap();
    while budget.try_withdraw() {}
    let together = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                together.wait();
                (0..DEPOSITS).for_each(|_| budget.deposit());
            });
        }
    });
    assert_eq!(budget.balance(), f64::from(THREADS * DEPOSITS) * 0.5);
}
