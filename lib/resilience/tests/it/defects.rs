//! One test for each defect found in other libraries, showing that it is not here.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    Algorithm, BreakerConfig, BudgetConfig, CircuitBreaker, DropRule, ErrorKind, Event,
    KeyedConfig, KeyedRateLimiter, ManualClock, Observer, OpenFor, Pipeline, Probes, RateConfig,
    RateLimiter, RetryBudget, State, Timeout, Window, parse_retry_after,
};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

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
    let held = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..4 {
                    held.lock().unwrap().extend(breaker.try_acquire().ok());
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
