//! The atomic state machines under every interleaving that the model checker can find. Run with
//! `RUSTFLAGS="--cfg resilience_loom" cargo test -p mainstay-resilience --release --test it
//! --target-dir target/loom`.

use loom::thread;
use mainstay_resilience::{
    Algorithm, BreakerConfig, BudgetConfig, Bulkhead, BulkheadConfig, CircuitBreaker, DropRule,
    ManualClock, OpenFor, Probes, QueueOrder, RateConfig, RateLimiter, RetryBudget, State, Window,
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
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
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
