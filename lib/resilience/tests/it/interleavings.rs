//! The atomic state machines under every interleaving that the model checker can find. Run with
//! `RUSTFLAGS="--cfg resilience_loom" cargo test -p mainstay-resilience --release --test it
//! --target-dir target/loom`.

use loom::thread;
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Algorithm, BreakerConfig, BudgetConfig, Bulkhead,
    BulkheadConfig, CircuitBreaker, Context, DropRule, FaultPoint, InjectedFault, KeyedConfig,
    KeyedRateLimiter, Lease, LeasedLimiter, ManualClock, OpenFor, Priority, Probes, QueueOrder,
    QuotaSource, RateConfig, RateLimiter, RetryBudget, State, Throttle, ThrottleConfig, Window,
    WithoutSource,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Three switches find what practice finds; without a bound the state space never ends.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn breaker(clock: &ManualClock, change: impl Fn(&mut BreakerConfig)) -> CircuitBreaker {
    let mut config = BreakerConfig::default();
    config.window = Window::Time { length: SECOND, slices: 2 };
    config.open_for = OpenFor::fixed(SECOND);
    change(&mut config);
    CircuitBreaker::builder("b").config(config).clock(clock.clock()).seed(1).build().unwrap()
}

#[test]
fn b5_two_failures_side_by_side_open_a_breaker_that_allows_one_of_them() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| config.consecutive_failures = 2);
        let other = breaker.clone();
        let thread = thread::spawn(move || other.try_acquire().map(|p| p.failure()).is_ok());
        breaker.try_acquire().unwrap().failure();
        thread.join().unwrap();
        assert_eq!(breaker.state(), State::Open);
    });
}

#[test]
fn b5_no_count_is_lost_while_a_slice_is_frozen() {
    check(|| {
        let clock = ManualClock::new();
        let breaker = breaker(&clock, |config| config.consecutive_failures = 0);
        breaker.try_acquire().unwrap().success();
        clock.advance(SECOND / 2);
        let other = breaker.clone();
        let thread = thread::spawn(move || other.try_acquire().unwrap().success());
        breaker.try_acquire().unwrap().failure();
        thread.join().unwrap();
        let seen = breaker.snapshot();
        assert_eq!((seen.calls, seen.error_rate), (3, 1.0 / 3.0));
    });
}

#[test]
fn b5_a_late_result_never_counts_in_the_next_generation() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| config.consecutive_failures = 1);
        let late = breaker.try_acquire_owned().unwrap();
        let other = breaker.clone();
        let thread = thread::spawn(move || other.reset());
        late.failure();
        thread.join().unwrap();
        // Before the reset it opened and the reset closed it; after the reset it is stale.
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(breaker.snapshot().consecutive_failures, 0);
        assert_eq!(breaker.snapshot().calls, 0);
    });
}

#[test]
fn b5_a_result_of_the_new_generation_is_not_lost_during_the_transition() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| config.consecutive_failures = 0);
        let other = breaker.clone();
        let thread = thread::spawn(move || other.reset());
        let permit = breaker.try_acquire().unwrap();
        permit.success();
        thread.join().unwrap();
        // Admitted before the reset it is stale, admitted after it counts; never half.
        assert!(breaker.snapshot().calls <= 1);
        breaker.try_acquire().unwrap().success();
        assert!(breaker.snapshot().calls >= 1);
    });
}

#[test]
fn b3_half_open_admits_one_of_two_probes() {
    check(|| {
        let clock = ManualClock::new();
        let breaker = breaker(&clock, |config| config.probes = Probes::new(1));
        breaker.force_open();
        clock.advance(SECOND);
        let other = breaker.clone();
        let thread = thread::spawn(move || other.try_acquire_owned().ok());
        let mine = breaker.try_acquire_owned().ok();
        let theirs = thread.join().unwrap();
        assert_eq!(u32::from(mine.is_some()) + u32::from(theirs.is_some()), 1);
    });
}

#[test]
fn b5_a_drop_and_a_success_of_two_probes_leave_no_slot_behind() {
    check(|| {
        let clock = ManualClock::new();
        let breaker = breaker(&clock, |config| {
            config.probes = Probes::new(2);
            config.on_drop = DropRule::Neutral;
        });
        breaker.force_open();
        clock.advance(SECOND);
        let (first, second) =
            (breaker.try_acquire_owned().unwrap(), breaker.try_acquire_owned().unwrap());
        let thread = thread::spawn(move || drop(first));
        second.success();
        thread.join().unwrap();
        breaker.try_acquire().unwrap().success();
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn b5_a_success_that_completes_the_minimum_and_a_failure_beside_it_open() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| {
            config.consecutive_failures = 0;
            config.min_calls = 2;
        });
        let other = breaker.clone();
        let thread = thread::spawn(move || other.try_acquire().unwrap().success());
        breaker.try_acquire().unwrap().failure();
        thread.join().unwrap();
        // Half of two calls failed, whoever came last must have seen it.
        assert_eq!(breaker.state(), State::Open);
    });
}

#[test]
fn b5_a_success_and_a_failure_side_by_side_open_by_the_counts_of_every_thread() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| {
            config.consecutive_failures = 0;
            config.failure_rate = Some(0.3);
            config.min_calls = 3;
        });
        breaker.try_acquire().unwrap().success();
        let other = breaker.clone();
        let thread = thread::spawn(move || other.try_acquire().unwrap().success());
        breaker.try_acquire().unwrap().failure();
        thread.join().unwrap();
        // One of three calls failed, on three counters; whoever came last must have seen all.
        assert_eq!(breaker.state(), State::Open);
    });
}

#[test]
fn b5_a_slice_is_frozen_with_the_successes_of_every_thread() {
    check(|| {
        let clock = ManualClock::new();
        let breaker = breaker(&clock, |config| config.consecutive_failures = 0);
        breaker.try_acquire().unwrap().success();
        let other = breaker.clone();
        let thread = thread::spawn(move || {
            other.try_acquire().unwrap().success();
            clock.advance(SECOND / 2);
            other.snapshot().calls
        });
        breaker.try_acquire().unwrap().success();
        assert!(thread.join().unwrap() >= 2);
        assert_eq!(breaker.snapshot().calls, 3);
    });
}

#[test]
fn b5_a_failure_is_judged_although_a_snapshot_freezes_its_slice_meanwhile() {
    check(|| {
        let clock = ManualClock::new();
        let breaker = breaker(&clock, |config| {
            config.consecutive_failures = 0;
            config.min_calls = 2;
        });
        breaker.try_acquire().unwrap().failure();
        let permit = breaker.try_acquire_owned().unwrap();
        let other = breaker.clone();
        let thread = thread::spawn(move || {
            clock.advance(SECOND / 2);
            other.snapshot()
        });
        permit.failure();
        thread.join().unwrap();
        assert_eq!(breaker.state(), State::Open);
    });
}

#[test]
fn b5_a_success_ends_a_row_or_comes_before_its_last_failure() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| {
            config.consecutive_failures = 3;
            config.failure_rate = None;
        });
        breaker.try_acquire().unwrap().failure();
        let other = breaker.clone();
        let thread = thread::spawn(move || other.try_acquire().unwrap().success());
        breaker.try_acquire().unwrap().failure();
        thread.join().unwrap();
        let row = breaker.snapshot().consecutive_failures;
        assert!(row <= 1, "{row}: one success came after the first failure");
    });
}

#[test]
fn b5_calls_of_a_count_window_are_counted_once_each() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| {
            config.window = Window::count(4);
            config.min_calls = 4;
            config.consecutive_failures = 0;
        });
        let other = breaker.clone();
        let thread = thread::spawn(move || other.try_acquire().unwrap().failure());
        breaker.try_acquire().unwrap().success();
        thread.join().unwrap();
        assert_eq!((breaker.snapshot().calls, breaker.snapshot().error_rate), (2, 0.5));
    });
}

#[test]
fn b5_a_reconfiguration_loses_no_count_and_no_judgement() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| config.consecutive_failures = 0);
        breaker.try_acquire().unwrap().success();
        let mut config = breaker.config();
        config.consecutive_failures = 1;
        let other = breaker.clone();
        let thread = thread::spawn(move || other.reconfigure(config).unwrap());
        breaker.try_acquire().unwrap().success();
        thread.join().unwrap();
        assert_eq!(breaker.snapshot().calls, 2);
        breaker.try_acquire().unwrap().failure();
        assert_eq!(breaker.state(), State::Open);
    });
}

#[test]
fn b3_a_given_up_probation_and_its_late_probe_do_not_close_it() {
    check(|| {
        let clock = ManualClock::new();
        let breaker = breaker(&clock, |config| {
            config.probes = Probes::new(1).give_up_after(SECOND);
        });
        breaker.force_open();
        clock.advance(SECOND);
        let probe = breaker.try_acquire_owned().unwrap();
        clock.advance(SECOND);
        let other = breaker.clone();
        let thread = thread::spawn(move || other.try_acquire().is_ok());
        probe.success();
        let admitted = thread.join().unwrap();
        // Either the probe closed it in time, or it was given up and its result is stale.
        let closed = breaker.state() == State::Closed;
        assert!(closed || breaker.state() == State::Open, "{}", breaker.state());
        assert!(closed || !admitted);
    });
}

#[test]
fn b3_a_late_results_retry_after_never_prolongs_the_next_generations_opening() {
    check(|| {
        let breaker = breaker(&ManualClock::new(), |config| {
            config.consecutive_failures = 1;
            config.open_for = OpenFor::fixed(SECOND).or_retry_after(SECOND * 60);
        });
        let late = breaker.try_acquire_owned().unwrap();
        let other = breaker.clone();
        let thread = thread::spawn(move || other.reset());
        late.failure_with_retry_after(SECOND * 60);
        thread.join().unwrap();
        // In time or late, the reset came last and nobody has asked for anything since.
        breaker.try_acquire().unwrap().failure();
        assert_eq!(breaker.snapshot().next_probe, Some(SECOND));
    });
}

#[test]
fn a_fault_that_is_set_while_another_is_cleared_strikes_if_it_is_there() {
    check(|| {
        let point = FaultPoint::on_clock(ManualClock::new().clock());
        point.set(InjectedFault::Error, None);
        let other = point.clone();
        let thread = thread::spawn(move || other.set(InjectedFault::Error, None));
        point.clear();
        thread.join().unwrap();
        assert_eq!(point.get().is_some(), point.strike().is_err());
    });
}

#[test]
fn a_fault_that_is_over_takes_no_newer_one_with_it() {
    check(|| {
        let clock = ManualClock::new();
        let point = FaultPoint::on_clock(clock.clock());
        point.set(InjectedFault::Error, Some(SECOND));
        clock.advance(SECOND);
        let other = point.clone();
        let thread = thread::spawn(move || other.get());
        point.set(InjectedFault::Panic, None);
        let _ = thread.join().unwrap();
        assert_eq!(point.get(), Some(InjectedFault::Panic));
    });
}

#[test]
fn an_adaptive_limit_gives_every_slot_and_every_share_back() {
    check(|| {
        let mut config = AdaptiveConfig::default();
        (config.min, config.initial, config.max) = (1, 1, 1);
        let clock = ManualClock::new().clock();
        let limit = AdaptiveLimit::with_clock("a", config, clock).unwrap();
        let other = limit.clone();
        let important =
            |caller: &str| Context::default().priority(Priority::Critical).caller(caller);
        let thread = thread::spawn(move || {
            let taken =
                other.try_acquire(Context::default().priority(Priority::Critical).caller("a"));
            taken.map(|permit| permit.success()).is_ok()
        });
        let mine = limit.try_acquire(important("b")).map(|permit| permit.success()).is_ok();
        assert!(thread.join().unwrap() || mine, "one of the two found the slot free");
        assert_eq!(limit.in_use(), 0);
        assert!(limit.try_acquire(important("c")).is_ok());
    });
}

#[test]
fn a_raised_limit_reaches_a_call_that_begins_to_wait_at_that_moment() {
    check(|| {
        let config = BulkheadConfig::new(1).with_queue(1, SECOND, QueueOrder::Fifo);
        let bulkhead = Bulkhead::new("s", config).unwrap();
        let _held = bulkhead.try_acquire_owned().unwrap();
        let other = bulkhead.clone();
        let raised = BulkheadConfig::new(2).with_queue(1, SECOND, QueueOrder::Fifo);
        let thread = thread::spawn(move || other.reconfigure(raised).unwrap());
        let mut waiting = Box::pin(bulkhead.acquire(&Never, Default::default()));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let first = waiting.as_mut().poll(&mut cx);
        thread.join().unwrap();
        let granted = first.is_ready() || waiting.as_mut().poll(&mut cx).is_ready();
        assert!(granted, "two slots, one held, and it still waits");
    });
}

#[test]
fn a_bulkhead_of_one_never_holds_two_and_loses_no_slot() {
    check(|| {
        let bulkhead = Bulkhead::new("s", BulkheadConfig::new(1)).unwrap();
        let other = bulkhead.clone();
        let thread = thread::spawn(move || {
            if let Ok(permit) = other.try_acquire() {
                assert_eq!(other.in_use(), 1);
                drop(permit);
            }
        });
        if let Ok(permit) = bulkhead.try_acquire() {
            assert_eq!(bulkhead.in_use(), 1);
            drop(permit);
        }
        thread.join().unwrap();
        assert_eq!(bulkhead.in_use(), 0);
    });
}

/// A sleep that never ends: who waits is granted or cancelled.
struct Never;

impl mainstay_resilience::Sleeper for Never {
    type Sleep = std::future::Pending<()>;

    fn sleep(&self, _: Duration) -> Self::Sleep {
        std::future::pending()
    }
}

#[test]
fn a_slot_is_handed_over_or_free_whether_the_waiting_call_stays_or_leaves() {
    for stays in [true, false] {
        check(move || {
            let config = BulkheadConfig::new(1).with_queue(1, SECOND, QueueOrder::Fifo);
            let bulkhead = Bulkhead::new("s", config).unwrap();
            let held = bulkhead.try_acquire_owned().unwrap();
            let other = bulkhead.clone();
            let thread = thread::spawn(move || {
                let mut waiting = Box::pin(other.acquire(&Never, Default::default()));
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                let polls = if stays { 2 } else { 1 };
                for _ in 0..polls {
                    if waiting.as_mut().poll(&mut cx).is_ready() {
                        return;
                    }
                }
            });
            drop(held);
            thread.join().unwrap();
            assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
            assert!(bulkhead.try_acquire().is_ok());
        });
    }
}

#[test]
fn two_threads_never_take_more_than_a_bucket_holds() {
    for algorithm in [
        Algorithm::TokenBucket,
        Algorithm::LeakyBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
    ] {
        check(move || {
            let config = RateConfig::per_second(algorithm, 1);
            let limiter = RateLimiter::with_clock("l", config, ManualClock::new().clock()).unwrap();
            let other = limiter.clone();
            let thread = thread::spawn(move || other.try_acquire().is_ok());
            let mine = limiter.try_acquire().is_ok();
            assert!(mine ^ thread.join().unwrap(), "one of the two");
        });
    }
}

#[test]
fn a_refusal_is_counted_although_its_stripe_changes_hands() {
    check(|| {
        let config = RateConfig::per_second(Algorithm::TokenBucket, 1);
        let limiter = RateLimiter::with_clock("l", config, ManualClock::new().clock()).unwrap();
        assert!(limiter.try_acquire().is_ok());
        let refuse = |limiter: RateLimiter| {
            move || assert!(limiter.try_acquire().is_err(), "the one token is taken")
        };
        let threads = [(); 2].map(|()| thread::spawn(refuse(limiter.clone())));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(limiter.refused(), 2);
    });
}

#[test]
fn a_budget_gives_each_token_once() {
    check(|| {
        let mut config = BudgetConfig::default();
        (config.ratio, config.capacity, config.floor_per_second) = (1.0, 1, 0);
        let budget = RetryBudget::with_clock(config, ManualClock::new().clock()).unwrap();
        let other = budget.clone();
        let thread = thread::spawn(move || other.try_withdraw());
        let mine = budget.try_withdraw();
        assert!(mine ^ thread.join().unwrap());
        budget.deposit();
        assert!(budget.try_withdraw());
    });
}

#[test]
fn a_budget_keeps_the_deposits_of_both_threads() {
    check(|| {
        let mut config = BudgetConfig::default();
        (config.ratio, config.capacity, config.floor_per_second) = (0.5, 1, 0);
        let budget = RetryBudget::with_clock(config, ManualClock::new().clock()).unwrap();
        assert!(budget.try_withdraw());
        let other = budget.clone();
        let thread = thread::spawn(move || other.deposit());
        budget.deposit();
        thread.join().unwrap();
        assert!(budget.try_withdraw(), "two halves");
    });
}

#[test]
fn the_floor_of_a_budget_is_given_once() {
    check(|| {
        let mut config = BudgetConfig::default();
        (config.ratio, config.capacity, config.floor_per_second) = (0.0, 0, 1);
        let budget = RetryBudget::with_clock(config, ManualClock::new().clock()).unwrap();
        let other = budget.clone();
        let thread = thread::spawn(move || other.try_withdraw());
        let mine = budget.try_withdraw();
        assert!(mine ^ thread.join().unwrap());
        assert_eq!((budget.withdrawn(), budget.refused()), (1, 1));
    });
}

#[test]
fn a_bucket_whose_limit_changes_meanwhile_gives_no_more_than_the_larger_one() {
    check(|| {
        let config = |limit| RateConfig::per_second(Algorithm::TokenBucket, limit);
        let limiter = RateLimiter::with_clock("l", config(1), ManualClock::new().clock()).unwrap();
        let other = limiter.clone();
        let thread = thread::spawn(move || other.reconfigure(config(2)).unwrap());
        let taken = (0..3).filter(|_| limiter.try_acquire().is_ok()).count();
        thread.join().unwrap();
        assert!((1..=2).contains(&taken), "{taken}");
    });
}

#[test]
fn a_key_is_remembered_once_by_two_threads() {
    check(|| {
        let config = KeyedConfig::new(RateConfig::per_second(Algorithm::TokenBucket, 1));
        let keyed = KeyedRateLimiter::with_clock("k", config, ManualClock::new().clock()).unwrap();
        let other = keyed.clone();
        let thread = thread::spawn(move || other.try_acquire("a", 1).is_ok());
        let mine = keyed.try_acquire("a", 1).is_ok();
        assert!(mine ^ thread.join().unwrap(), "one of the two");
        assert_eq!(keyed.keys(), 1);
    });
}

/// A store with one portion to give.
struct Once;

impl QuotaSource for Once {
    type Error = ();

    async fn lease(&self, _: &str, want: u32) -> Result<Lease, ()> {
        Ok(Lease { granted: want.min(1), valid_for: SECOND })
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits for nothing"),
    }
}

#[test]
fn a_lease_is_spent_once_while_it_is_refilled() {
    check(|| {
        let clock = ManualClock::new().clock();
        let leased = LeasedLimiter::new("l", 1, WithoutSource::Refuse, clock).unwrap();
        now(leased.refill(&Once)).unwrap();
        let other = leased.clone();
        let thread = thread::spawn(move || u32::from(other.try_acquire(1).is_ok()));
        now(leased.refill(&Once)).unwrap();
        let mine = u32::from(leased.try_acquire(1).is_ok());
        let spent = mine + thread.join().unwrap();
        let left = u32::try_from(leased.left()).unwrap();
        assert!((1..=2).contains(&(spent + left)), "{spent} spent, {left} left of at most two");
    });
}

#[test]
fn a_throttle_counts_every_request() {
    check(|| {
        let clock = ManualClock::new().clock();
        let mut config = ThrottleConfig::default();
        // As many as there are, so that a request that is lost shows.
        config.requests_min = 2;
        let throttle = Throttle::seeded("t", config, clock, 1).unwrap();
        let other = throttle.clone();
        let thread = thread::spawn(move || other.try_acquire().is_ok());
        assert!(throttle.try_acquire().is_ok());
        assert!(thread.join().unwrap());
        assert_eq!(throttle.refused(), 0);
        assert_eq!(throttle.refusal_probability(), 2.0 / 3.0, "two requests, none accepted");
    });
}
