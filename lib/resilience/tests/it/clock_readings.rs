//! How often policies read the clock, and which waits are real.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Algorithm, Backoff, Bulkhead, BulkheadConfig, CircuitBreaker,
    Clock, Context, Deadline, ErrorKind, ManualClock, Pipeline, Priority, QueueOrder, RateConfig,
    RateLimiter, Reason, Retry, Throttle, ThrottleConfig, Tick, TimeSource, Timeout, Window,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A time that stands still and counts how often it is read, precisely or coarsely.
#[derive(Default)]
struct Counting(AtomicU32);

impl TimeSource for Counting {
    fn now(&self) -> Tick {
        self.0.fetch_add(1, Ordering::Relaxed);
        Tick::from_nanos(3_600_000_000_000)
    }
}

impl Counting {
    fn during<R>(&self, run: impl FnOnce() -> R) -> u32 {
        let before = self.0.load(Ordering::Relaxed);
        let _ = run();
        self.0.load(Ordering::Relaxed) - before
    }
}

fn counting() -> (Arc<Counting>, Clock) {
    let counting = Arc::new(Counting::default());
    let clock = Clock::from_source(Arc::clone(&counting) as Arc<dyn TimeSource>);
    (counting, clock)
}

#[test]
fn b6_a_policy_alone_reads_the_clock_at_most_twice_a_call() {
    let (count, clock) = counting();
    let breaker = |window: Window, slow: bool| {
        let mut builder = CircuitBreaker::builder("b").window(window).clock(clock.clone());
        if slow {
            builder = builder.slow_calls(0.5, ms(20));
        }
        builder.build().unwrap()
    };
    for (window, slow, success, failure) in [
        (Window::None, false, 0, 0),
        (Window::time(secs(60)), false, 1, 1),
        (Window::time(secs(60)), true, 2, 2),
        (Window::count(100), false, 0, 0),
    ] {
        let breaker = breaker(window, slow);
        let succeed = || breaker.try_acquire().unwrap().success();
        assert_eq!(count.during(succeed), success, "{window:?}, slow calls: {slow}");
        let fail = || breaker.try_acquire().unwrap().failure();
        assert_eq!(count.during(fail), failure, "{window:?}, slow calls: {slow}");
        breaker.force_open();
        assert_eq!(count.during(|| breaker.try_acquire().is_err()), 1, "a refusal");
    }
    for algorithm in [
        Algorithm::TokenBucket,
        Algorithm::LeakyBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
    ] {
        let rate = RateConfig::per_second(algorithm, 1);
        let limiter = RateLimiter::with_clock("l", rate, clock.clone()).unwrap();
        assert_eq!(count.during(|| limiter.try_acquire().unwrap()), 1);
        assert_eq!(count.during(|| limiter.try_acquire().unwrap_err()), 1);
    }
    let limit = AdaptiveConfig::default();
    let limit = AdaptiveLimit::with_clock("a", limit, clock.clone()).unwrap();
    assert_eq!(count.during(|| limit.try_acquire(Context::default()).unwrap().success()), 2);
    let throttle = Throttle::seeded("t", ThrottleConfig::default(), clock, 1).unwrap();
    let throttled = || {
        throttle.try_acquire().unwrap();
        throttle.record(ErrorKind::Timeout);
    };
    assert!(count.during(throttled) <= 2);
}

#[test]
fn b6_a_chain_reads_the_clock_when_a_call_enters_and_after_each_attempt() {
    let (count, clock) = counting();
    let rate = RateConfig::per_second(Algorithm::TokenBucket, 1_000_000);
    let breaker = CircuitBreaker::builder("b").clock(clock.clone()).build().unwrap();
    let no_wait = Backoff::none();
    let retry = Retry::builder("r").backoff(no_wait).build().unwrap();
    let pipeline = Pipeline::builder()
        .clock(clock.clone())
        .sleeper(VirtualTime::new().sleeper())
        .then(Timeout::total("t", secs(1)).unwrap())
        .then(retry)
        .then(breaker.clone())
        .then(RateLimiter::with_clock("l", rate, clock.clone()).unwrap())
        .then(Bulkhead::new("s", BulkheadConfig::new(10)).unwrap())
        .then(Timeout::per_attempt("a", ms(500)).unwrap())
        .build()
        .unwrap();
    let succeed = || pipeline.run(|_| Ok::<_, ErrorKind>(()));
    assert_eq!(count.during(succeed), 2);
    let time = VirtualTime::new();
    let awaited = || time.block_on(pipeline.call(|_| async { Ok::<_, ErrorKind>(()) }));
    assert_eq!(count.during(awaited), 2);
    let within = Deadline::after(&clock, secs(1));
    assert_eq!(count.during(|| pipeline.run_within(within, |_| Ok::<_, ErrorKind>(()))), 2);
    let thrice = || pipeline.run(|_| Err::<(), _>(ErrorKind::Connection));
    assert_eq!(count.during(thrice), 4, "one as it enters, one after each of three attempts");
    breaker.isolate();
    assert_eq!(count.during(succeed), 1, "a refusal");
}

/// A time whose waits are written down instead of waited for.
#[derive(Default)]
struct Pauses(std::sync::Mutex<Vec<Duration>>);

impl TimeSource for Pauses {
    fn now(&self) -> Tick {
        Tick::from_nanos(3_600_000_000_000)
    }

    fn pause(&self, wait: Duration) {
        self.0.lock().unwrap().push(wait);
    }
}

#[test]
fn blocking_chains_wait_on_the_clock_they_were_given() {
    let pauses = Arc::new(Pauses::default());
    let clock = Clock::from_source(Arc::clone(&pauses) as Arc<dyn TimeSource>);
    let backoff = Backoff::fixed(secs(3_000));
    let rate = RateConfig::new(Algorithm::LeakyBucket, 1, secs(600)).with_wait_max(secs(3_600));
    let pipeline = Pipeline::builder()
        .clock(clock.clone())
        .then(Retry::builder("r").attempts(3).backoff(backoff).build().unwrap())
        .then(RateLimiter::with_clock("l", rate, clock).unwrap())
        .build()
        .unwrap();
    let failed = pipeline.run(|_| Err::<(), _>(ErrorKind::Connection));
    assert!(failed.is_err());
    let expected = [secs(3_000), secs(600), secs(3_000), secs(1_200)];
    assert_eq!(*pauses.0.lock().unwrap(), expected, "of the retry and of the limit in turns");
}

#[test]
fn a_blocked_call_waits_for_a_slot_in_real_time_whatever_the_clock() {
    let clock = ManualClock::new();
    let queue = BulkheadConfig::new(1).with_queue(1, ms(1), QueueOrder::Fifo);
    let bulkhead = Bulkhead::new("s", queue).unwrap();
    let pipeline = Pipeline::builder().clock(clock.clock()).then(bulkhead.clone()).build().unwrap();
    let held = bulkhead.try_acquire().unwrap();
    let began = clock.now();
    let refused = pipeline.run(|_| Ok::<_, ErrorKind>(())).unwrap_err();
    let reason = refused.rejection().unwrap().reason();
    assert_eq!(reason, Reason::WaitedTooLong { waited: ms(1) });
    let refused = bulkhead.acquire_blocking(Priority::Normal).unwrap_err();
    assert_eq!(refused.reason(), Reason::WaitedTooLong { waited: ms(1) });
    assert_eq!(clock.now(), began, "it ended although the chain's clock stands still");
    drop(held);
    assert_eq!(pipeline.run(|_| Ok::<_, ErrorKind>(())), Ok(()));
}
