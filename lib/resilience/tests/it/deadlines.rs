//! The deadline that a call comes with holds in every chain, with a timeout and without.

use crate::{ms, secs};
use mainstay_resilience::testing::{VirtualSleeper, VirtualTime};
use mainstay_resilience::{
    Algorithm, Backoff, Bare, CircuitBreaker, Context, Deadline, Error, ErrorKind, Fallback,
    FallbackCall, Hedge, HedgeDelay, Pipeline, PipelineBuilder, RateConfig, RateLimiter, Reason,
    Retry, Sleeper, Timeout, Verdict,
};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn chain(time: &VirtualTime) -> PipelineBuilder<Bare, VirtualSleeper> {
    Pipeline::builder().clock(time.clock()).sleeper(time.sleeper())
}

fn within(time: &VirtualTime, left: Duration) -> Context {
    Context::within(Deadline::after(&time.clock(), left))
}

fn is_late<T>(result: Result<T, Error<ErrorKind>>) -> bool {
    let Err(error) = result else { return false };
    error.rejection().is_some_and(|refused| refused.reason() == Reason::DeadlinePassed)
}

#[test]
fn r3_a_late_call_is_refused_before_anything_runs_blocking_and_awaited() {
    let time = VirtualTime::new();
    let bucket = RateConfig::per_second(Algorithm::TokenBucket, 5);
    let limiter = RateLimiter::with_clock("l", bucket, time.clock()).unwrap();
    let breaker = CircuitBreaker::builder("b").clock(time.clock()).build().unwrap();
    let bare = chain(&time).build().unwrap();
    let pipeline = chain(&time)
        .then(Retry::builder("r").build().unwrap())
        .then(breaker.clone())
        .then(limiter.clone())
        .build()
        .unwrap();
    let (late, runs) = (within(&time, ms(0)), AtomicU32::new(0));
    let run = |_| {
        runs.fetch_add(1, Ordering::Relaxed);
        Ok::<_, ErrorKind>(())
    };
    assert!(is_late(bare.run_within(late, run)));
    assert!(is_late(pipeline.run_within(late, run)));
    assert!(is_late(pipeline.run_judged(late, |_| Verdict::success(), run)));
    assert!(is_late(time.block_on(bare.call_within(late, |a| async move { run(a) }))));
    assert!(is_late(time.block_on(pipeline.call_within(late, |a| async move { run(a) }))));
    let judged = pipeline.call_judged(late, |_| Verdict::success(), |a| async move { run(a) });
    let refused = time.block_on(judged).unwrap_err();
    assert_eq!(refused.to_string(), "timeout deadline refused the call: the deadline has passed");
    assert_eq!((runs.into_inner(), limiter.available(), breaker.snapshot().calls), (0, 5, 0));
}

#[test]
fn r3_awaited_work_is_dropped_at_the_deadline_and_counts_as_a_timeout() {
    let time = VirtualTime::new();
    let breaker = CircuitBreaker::builder("b").clock(time.clock()).build().unwrap();
    let pipeline = chain(&time).then(breaker.clone()).build().unwrap();
    let held = Arc::new(());
    let began = time.clock().now();
    let call = pipeline.call_within(within(&time, ms(50)), |attempt| {
        let held = Arc::clone(&held);
        async move {
            assert!(attempt.deadline().is_set());
            pending::<()>().await;
            drop(held);
            Ok::<_, ErrorKind>(())
        }
    });
    let stopped = time.block_on(call).unwrap_err();
    assert_eq!(stopped.to_string(), "timeout deadline stopped the call after 50ms");
    assert!(stopped.is_timeout());
    assert_eq!(time.clock().now().since(began), ms(50));
    assert_eq!((Arc::strong_count(&held), breaker.snapshot().consecutive_failures), (1, 1));
}

#[test]
fn r3_hedged_work_is_dropped_at_the_deadline_too() {
    let time = VirtualTime::new();
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(10))).build().unwrap();
    let pipeline = chain(&time).then(hedge).build().unwrap();
    let began = time.clock().now();
    let call = pipeline.call_within(within(&time, ms(50)), |_| pending::<Result<(), ErrorKind>>());
    assert!(time.block_on(call).unwrap_err().is_timeout());
    assert_eq!(time.clock().now().since(began), ms(50));
}

#[test]
fn r3_no_attempt_begins_at_the_deadline_after_a_wait_that_ends_with_it() {
    for awaited in [false, true] {
        let time = VirtualTime::new();
        let bucket = RateConfig::per_second(Algorithm::TokenBucket, 1).with_wait_max(secs(60));
        let limiter = RateLimiter::with_clock("l", bucket, time.clock()).unwrap();
        let pipeline = chain(&time).then(limiter.clone()).build().unwrap();
        limiter.try_acquire().unwrap();
        let context = within(&time, secs(1));
        let run = |_| -> Result<(), ErrorKind> { panic!("nothing is left for it") };
        let result = match awaited {
            true => time.block_on(pipeline.call_within(context, |a| async move { run(a) })),
            false => pipeline.run_within(context, run),
        };
        assert!(is_late(result), "awaited: {awaited}");
    }
}

#[test]
fn r3_a_retry_without_a_timeout_ends_at_the_deadline() {
    let time = VirtualTime::new();
    let retry = Retry::builder("r").attempts(100).backoff(Backoff::fixed(ms(10))).build().unwrap();
    let pipeline = chain(&time).then(retry).build().unwrap();
    let (sleeper, began) = (&time.sleeper(), time.clock().now());
    let call = pipeline.call_within(within(&time, ms(95)), |_| async {
        sleeper.sleep(ms(20)).await;
        Err::<(), _>(ErrorKind::Connection)
    });
    assert!(time.block_on(call).is_err());
    assert!(time.clock().now().since(began) <= ms(95));
}

#[test]
fn r3_a_fallback_answers_late_calls_and_calls_nobody_for_them() {
    let time = VirtualTime::new();
    let at_hand = Fallback::to("f", |_: &Error<ErrorKind>| Some("at hand"));
    let pipeline = chain(&time).then(at_hand).build().unwrap();
    assert_eq!(pipeline.run_within(within(&time, ms(0)), |_| Ok("too late")), Ok("at hand"));

    let called = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&called);
    let elsewhere = FallbackCall::new("c", move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        pending::<Result<&str, ErrorKind>>()
    });
    let pipeline = chain(&time).then(elsewhere).build().unwrap();
    let call = |left| {
        let failing = |_| async { Err(ErrorKind::Connection) };
        time.block_on(pipeline.call_within(within(&time, left), failing))
    };
    assert!(is_late(call(ms(0))));
    assert_eq!(called.load(Ordering::Relaxed), 0);
    assert!(call(ms(30)).unwrap_err().is_timeout(), "the second operation is dropped as well");
    assert_eq!(called.load(Ordering::Relaxed), 1);
}

/// Counts the timers that are made.
#[derive(Clone)]
struct Timers(VirtualSleeper, Arc<AtomicU32>);

impl Sleeper for Timers {
    type Sleep = <VirtualSleeper as Sleeper>::Sleep;

    fn sleep(&self, wait: Duration) -> Self::Sleep {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.sleep(wait)
    }
}

#[test]
fn r3_a_deadline_costs_one_timer_and_none_for_work_that_is_ready() {
    let time = VirtualTime::new();
    let made = |with_timeout: bool, hangs: bool| {
        let timeout = with_timeout.then(|| Timeout::total("t", secs(1)).unwrap());
        let sleeper = Timers(time.sleeper(), Arc::default());
        let pipeline = Pipeline::builder().clock(time.clock()).sleeper(sleeper.clone());
        let pipeline = pipeline.then_if(timeout).build().unwrap();
        let call = pipeline.call_within(within(&time, ms(20)), |_| async move {
            if hangs {
                pending::<()>().await;
            }
            Ok::<_, ErrorKind>(())
        });
        assert_eq!(time.block_on(call).is_err(), hangs);
        sleeper.1.load(Ordering::Relaxed)
    };
    assert_eq!((made(false, false), made(true, false)), (0, 0));
    assert_eq!((made(false, true), made(true, true)), (1, 1));
}
