//! No call through an unhurt pipeline allocates, nor does a refusal.

use crate::{ms, secs};
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Algorithm, Bulkhead, BulkheadConfig, CircuitBreaker, Clock,
    Context, Deadline, ErrorKind, KeyedConfig, KeyedLeasedLimiter, KeyedRateLimiter, LeasedLimiter,
    Pipeline, RateConfig, RateLimiter, Retry, RetryBudget, Throttle, ThrottleConfig, Timeout,
    TokioSleeper, Window, WithoutSource,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts allocations by thread.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches only a
// thread-local cell without a destructor, which never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of a thousand runs.
fn allocations(mut run: impl FnMut()) -> u64 {
    let before = COUNT.get();
    (0..1_000).for_each(|_| run());
    COUNT.get() - before
}

#[test]
fn counting_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1_000);
}

#[test]
fn b6_no_policy_allocates_on_its_way_through() {
    let breaker = CircuitBreaker::search_method("b");
    let by_count = CircuitBreaker::builder("c").window(Window::count(100)).build().unwrap();
    let limiter =
        RateLimiter::new("l", RateConfig::per_second(Algorithm::TokenBucket, 1_000_000)).unwrap();
    let keyed_rate = RateConfig::per_second(Algorithm::TokenBucket, 1_000_000);
    let keyed = KeyedRateLimiter::new("k", KeyedConfig::new(keyed_rate)).unwrap();
    keyed.try_acquire("key", 1).unwrap();
    let bulkhead = Bulkhead::new("s", BulkheadConfig::new(10)).unwrap();
    let adaptive = AdaptiveLimit::new("a", AdaptiveConfig::default()).unwrap();
    let budget = RetryBudget::new(Default::default()).unwrap();
    assert_eq!(allocations(|| breaker.try_acquire().unwrap().success()), 0);
    assert_eq!(allocations(|| by_count.try_acquire().unwrap().success()), 0);
    assert_eq!(allocations(|| limiter.try_acquire().unwrap()), 0);
    assert_eq!(allocations(|| keyed.try_acquire("key", 1).unwrap()), 0);
    assert_eq!(allocations(|| drop(bulkhead.try_acquire().unwrap())), 0);
    assert_eq!(allocations(|| adaptive.try_acquire(Context::default()).unwrap().success()), 0);
    assert_eq!(allocations(|| budget.deposit()), 0);
    breaker.isolate();
    assert_eq!(allocations(|| drop(breaker.try_acquire().unwrap_err())), 0, "a refusal");
}

#[test]
fn b6_no_refusal_allocates_whatever_the_length_of_its_policys_name() {
    for name in ["short", "a name of more than sixteen bytes"] {
        let once = RateConfig::new(Algorithm::TokenBucket, 1, secs(86_400));
        let bucket = RateLimiter::new(name, once).unwrap();
        let window = RateConfig::new(Algorithm::SlidingWindow, 1, secs(86_400));
        let window = RateLimiter::new(name, window).unwrap();
        let mut by_key = KeyedConfig::new(once);
        by_key.idle_after = once.period;
        let keyed = KeyedRateLimiter::new(name, by_key).unwrap();
        let refuse = WithoutSource::Refuse;
        let leased = LeasedLimiter::new(name, 10, refuse, Clock::system()).unwrap();
        let bulkhead = Bulkhead::new(name, BulkheadConfig::new(1)).unwrap();
        let mut one = AdaptiveConfig::default();
        (one.min, one.initial, one.max) = (1, 1, 1);
        let adaptive = AdaptiveLimit::new(name, one).unwrap();
        let _held = (bulkhead.try_acquire().unwrap(), adaptive.try_acquire(Context::default()));
        bucket.try_acquire().unwrap();
        window.try_acquire().unwrap();
        keyed.try_acquire("key", 1).unwrap();
        let throttle = refusing_throttle(name);
        let [isolated, open] = [(); 2].map(|()| CircuitBreaker::search_method(name));
        isolated.isolate();
        open.force_open();
        let none = |refuse: &dyn Fn() -> bool, policy: &str| {
            assert!(refuse(), "the {policy} refuses");
            assert_eq!(allocations(|| assert!(refuse())), 0, "{policy} {name}");
        };
        none(&|| bucket.try_acquire().is_err(), "bucket");
        none(&|| bucket.try_acquire_cost(2).is_err(), "bucket by its burst");
        none(&|| window.try_acquire().is_err(), "window");
        none(&|| keyed.try_acquire("key", 1).is_err(), "keyed limit");
        none(&|| leased.try_acquire(1).is_err(), "leased limit");
        none(&|| bulkhead.try_acquire().is_err(), "bulkhead");
        none(&|| adaptive.try_acquire(Context::default()).is_err(), "adaptive limit");
        none(&|| (0..100).any(|_| throttle.try_acquire().is_err()), "throttle");
        none(&|| isolated.try_acquire().is_err(), "isolated breaker");
        none(&|| open.try_acquire().is_err(), "open breaker");
        let pipeline = Pipeline::builder().then(isolated).build().unwrap();
        let late = Context::within(Deadline::at(Clock::system().now()));
        let run = |context| pipeline.run_within(context, |_| Ok::<_, ErrorKind>(())).is_err();
        none(&|| run(Context::default()), "chain");
        none(&|| run(late), "chain to whom a call comes too late");
    }
}

/// A throttle whose dependency has refused everything for a while.
fn refusing_throttle(name: &str) -> Throttle {
    let throttle = Throttle::new(name, ThrottleConfig::default()).unwrap();
    for _ in 0..1_000 {
        if throttle.try_acquire().is_ok() {
            throttle.record(ErrorKind::RateLimit);
        }
    }
    throttle
}

#[test]
fn b6_a_pipeline_of_five_policies_allocates_nothing_blocking_or_awaited() {
    let budget = RetryBudget::new(Default::default()).unwrap();
    let rate = RateConfig::per_second(Algorithm::TokenBucket, 1_000_000);
    let pipeline = Pipeline::builder()
        .sleeper(TokioSleeper)
        .then(Timeout::total("t", secs(1)).unwrap())
        .then(Retry::builder("r").budget(&budget).build().unwrap())
        .then(CircuitBreaker::search_method("b"))
        .then(RateLimiter::new("l", rate).unwrap())
        .then(Bulkhead::new("s", BulkheadConfig::new(10)).unwrap())
        .then(Timeout::per_attempt("a", ms(500)).unwrap())
        .build()
        .unwrap();
    assert_eq!(allocations(|| pipeline.run(|_| Ok::<_, ErrorKind>(())).unwrap()), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let before = COUNT.get();
        for _ in 0..1_000 {
            pipeline.call(|_| async { Ok::<_, ErrorKind>(()) }).await.unwrap();
        }
        assert_eq!(COUNT.get() - before, 0);
    });
}

#[test]
fn b6_limits_by_caller_and_by_lease_allocate_nothing_in_a_chain() {
    let rate = RateConfig::per_second(Algorithm::TokenBucket, 10_000_000);
    let alone = WithoutSource::LimitLocally(rate);
    let clock = Clock::system();
    let pipeline = Pipeline::builder()
        .then(KeyedRateLimiter::new("k", KeyedConfig::new(rate)).unwrap())
        .then(LeasedLimiter::new("l", 10, alone, clock.clone()).unwrap())
        .then(KeyedLeasedLimiter::new("b", 10, 100, alone, clock).unwrap())
        .build()
        .unwrap();
    let context = Context::default().caller("tenant-7").cost(2);
    let call = || pipeline.run_within(context, |_| Ok::<_, ErrorKind>(())).unwrap();
    // The first call of a caller makes its place.
    call();
    assert_eq!(allocations(call), 0);
}

#[test]
fn b6_a_time_window_keeps_no_record_per_call_and_a_transition_follows_its_call_at_once() {
    // tower-resilience stores each call of a time window and scans them all on each call.
    let breaker = CircuitBreaker::builder("b").window(Window::time(secs(3_600))).build().unwrap();
    for _ in 0..100 {
        assert_eq!(allocations(|| breaker.try_acquire().unwrap().success()), 0);
    }
    assert_eq!(breaker.snapshot().calls, 100_000);
    (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
    // No timer, no sweep: the deciding call itself has made the transition.
    assert_eq!(breaker.state(), mainstay_resilience::State::Open);
}
