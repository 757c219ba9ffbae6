//! An observer that panics ends the call whose event it heard, and nothing else: nothing stays taken,
//! and the next call works.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    Algorithm, Backoff, BudgetConfig, Bulkhead, BulkheadConfig, CircuitBreaker, Clock, ErrorKind,
    Event, Hedge, HedgeDelay, ManualClock, Observer, Pipeline, Priority, QueueOrder, RateConfig,
    RateLimiter, Retry, RetryBudget, State, Throttle, ThrottleConfig, Timeout, Verdict,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

fn broken() -> Arc<dyn Observer> {
    Arc::new(|_: &Event<'_>| panic!("the observer broke"))
}

/// What the panic of `work` says.
fn panic_of<T>(work: impl FnOnce() -> T) -> &'static str {
    let payload = catch_unwind(AssertUnwindSafe(|| drop(work()))).unwrap_err();
    payload.downcast_ref::<&'static str>().unwrap()
}

fn breaker(clock: &ManualClock) -> CircuitBreaker {
    CircuitBreaker::builder("b")
        .consecutive_failures(1)
        .clock(clock.clock())
        .observer(broken())
        .build()
        .unwrap()
}

#[test]
fn b7_a_probe_whose_transition_breaks_the_observer_gives_its_slot_back() {
    let clock = ManualClock::new();
    let breaker = breaker(&clock);
    let permit = breaker.try_acquire().unwrap();
    assert_eq!(panic_of(|| permit.failure()), "the observer broke");
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(panic_of(|| breaker.try_acquire().is_ok()), "the observer broke", "a refusal");
    clock.advance(secs(30));
    assert_eq!(panic_of(|| breaker.try_acquire().is_ok()), "the observer broke", "half-open");
    assert_eq!(breaker.state(), State::HalfOpen);
    let probe = breaker.try_acquire().expect("the only probe is free again");
    assert_eq!(panic_of(|| probe.success()), "the observer broke");
    assert_eq!(breaker.state(), State::Closed);
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn b5_an_operation_and_an_observer_that_both_panic_do_not_end_the_process() {
    let breaker = breaker(&ManualClock::new());
    let run = || breaker.run(|| -> Result<(), ErrorKind> { panic!("the operation broke") });
    assert_eq!(panic_of(run), "the operation broke");
    assert_eq!(breaker.state(), State::Open, "and that was to be told");
}

#[test]
fn b7_a_retry_that_breaks_the_observer_leaves_nothing_behind() {
    let clock = ManualClock::new();
    let budget = RetryBudget::with_clock(BudgetConfig::default(), clock.clock()).unwrap();
    let retry = Retry::builder("r").backoff(Backoff::none()).budget(&budget).observer(broken());
    let bulkhead = Bulkhead::new("s", BulkheadConfig::new(1)).unwrap();
    let pipeline = Pipeline::builder()
        .clock(clock.clock())
        .then(retry.build().unwrap())
        .then(bulkhead.clone())
        .build()
        .unwrap();
    for kind in [ErrorKind::Connection, ErrorKind::NotFound] {
        let fail = || pipeline.run(|_| Err::<(), _>(kind));
        assert_eq!(panic_of(fail), "the observer broke", "{kind}");
    }
    assert_eq!(bulkhead.in_use(), 0);
    assert_eq!(pipeline.run(|_| Ok::<_, ErrorKind>(1)), Ok(1));
}

#[test]
fn b7_a_refused_rate_that_breaks_the_observer_takes_nothing() {
    let clock = ManualClock::new();
    let rate = RateConfig::per_second(Algorithm::FixedWindow, 1);
    let limiter = RateLimiter::observed("l", rate, clock.clock(), broken()).unwrap();
    assert!(limiter.try_acquire().is_ok());
    assert_eq!(panic_of(|| limiter.try_acquire().is_ok()), "the observer broke");
    assert_eq!(limiter.refused(), 1);
    clock.advance(secs(1));
    assert!(limiter.try_acquire().is_ok());
}

#[test]
fn b7_a_full_bulkhead_that_breaks_the_observer_keeps_no_slot_and_no_place() {
    let config = BulkheadConfig::new(1).with_queue(1, ms(1), QueueOrder::Fifo);
    let bulkhead = Bulkhead::observed("s", config, broken()).unwrap();
    let held = bulkhead.try_acquire().unwrap();
    assert_eq!(panic_of(|| bulkhead.try_acquire().is_ok()), "the observer broke");
    let wait = || bulkhead.acquire_blocking(Priority::Normal).is_ok();
    assert_eq!(panic_of(wait), "the observer broke", "it waited too long");
    assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (1, 0));
    drop(held);
    assert_eq!(bulkhead.in_use(), 0);
    assert!(bulkhead.try_acquire().is_ok());
}

#[test]
fn b7_a_hedge_and_a_timeout_that_break_the_observer_drop_what_runs() {
    let time = VirtualTime::new();
    let bulkhead = Bulkhead::new("s", BulkheadConfig::new(2)).unwrap();
    let chain = || Pipeline::builder().clock(time.clock()).sleeper(time.sleeper());
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(10))).observer(broken());
    let hedged = chain().then(hedge.build().unwrap()).then(bulkhead.clone()).build().unwrap();
    let timeout = Timeout::total("t", ms(10)).unwrap().with_observer(broken());
    let limited = chain().then(timeout).then(bulkhead.clone()).build().unwrap();
    let hang = || std::future::pending::<Result<u32, ErrorKind>>();
    assert_eq!(panic_of(|| time.block_on(hedged.call(|_| hang()))), "the observer broke");
    assert_eq!(bulkhead.in_use(), 0, "the hedge");
    assert_eq!(panic_of(|| time.block_on(limited.call(|_| hang()))), "the observer broke");
    assert_eq!(bulkhead.in_use(), 0, "the timeout");
    let answer = || async { Ok::<_, ErrorKind>(1) };
    assert_eq!(time.block_on(hedged.call(|_| answer())), Ok(1));
    assert_eq!(time.block_on(limited.call(|_| answer())), Ok(1));
}

#[test]
fn b7_a_throttle_that_breaks_the_observer_goes_on_counting() {
    let throttle =
        Throttle::observed("t", ThrottleConfig::default(), Clock::system(), broken()).unwrap();
    let ask = || catch_unwind(AssertUnwindSafe(|| throttle.try_acquire().is_ok()));
    // Nothing is accepted: from the second request on it refuses more and more surely.
    let broke = (0..1_000).find(|_| ask().is_err());
    assert!(broke.is_some());
    assert_eq!(throttle.refused(), 1);
    (0..=1_000).for_each(|_| throttle.record(Verdict::success()));
    assert_eq!(ask().ok(), Some(true));
}
