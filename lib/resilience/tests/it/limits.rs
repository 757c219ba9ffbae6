//! Rate limits through their public surface.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    Algorithm, KeyedConfig, KeyedRateLimiter, Lease, LeasedLimiter, ManualClock, QuotaSource,
    RateConfig, RateLimiter, Reason, Tick, WhenFull, WithoutSource,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ALL: [Algorithm; 4] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
];

fn limiter(clock: &ManualClock, config: RateConfig) -> RateLimiter {
    RateLimiter::with_clock("api", config, clock.clock()).unwrap()
}

/// How many of `calls` are admitted at once.
fn admitted(limiter: &RateLimiter, calls: u32) -> usize {
    (0..calls).filter(|_| limiter.try_acquire().is_ok()).count()
}

#[test]
fn o4_each_algorithm_admits_its_rate_over_time() {
    for algorithm in ALL {
        let clock = ManualClock::new();
        let limiter = limiter(&clock, RateConfig::per_second(algorithm, 100));
        let mut total = 0;
        for _ in 0..10_000 {
            clock.advance(ms(1));
            total += admitted(&limiter, 2);
        }
        assert!((950..=1_100).contains(&total), "{algorithm:?}: {total} in ten seconds");
    }
}

#[test]
fn o4_a_token_bucket_saves_up_to_its_burst() {
    let clock = ManualClock::new();
    let config = RateConfig::per_second(Algorithm::TokenBucket, 10).with_burst(50);
    let limiter = limiter(&clock, config);
    assert_eq!(admitted(&limiter, 100), 50);
    clock.advance(ms(500));
    assert_eq!(admitted(&limiter, 100), 5);
    clock.advance(secs(60));
    assert_eq!(limiter.available(), 50);
}

#[test]
fn o4_a_leaky_bucket_spaces_calls_and_says_how_long_to_wait() {
    let clock = ManualClock::new();
    let limiter = limiter(&clock, RateConfig::per_second(Algorithm::LeakyBucket, 10));
    let waits: Vec<_> = (0..4).map(|_| limiter.reserve(1, secs(1)).unwrap()).collect();
    assert_eq!(waits, [ms(0), ms(100), ms(200), ms(300)]);
    assert!(limiter.reserve(1, ms(399)).is_err(), "its turn would come in 400 ms");
    assert_eq!(limiter.reserve(1, ms(400)).unwrap(), ms(400));
}

#[test]
fn o4_a_request_costs_what_it_says() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let limiter = limiter(&ManualClock::new(), RateConfig::per_second(algorithm, 10));
        assert!(limiter.try_acquire_cost(7).is_ok());
        assert!(limiter.try_acquire_cost(4).is_err(), "{algorithm:?}");
        assert!(limiter.try_acquire_cost(3).is_ok());
        assert!(limiter.try_acquire_cost(0).is_ok(), "nothing is free");
        let never = limiter.try_acquire_cost(11).unwrap_err();
        assert_eq!(never.reason(), Reason::CostAboveLimit { cost: 11, limit: 10 });
        assert_eq!(never.retry_after(), None);
    }
}

#[test]
fn o4_whoever_waits_as_long_as_retry_after_says_is_admitted() {
    for algorithm in ALL {
        let clock = ManualClock::new();
        clock.advance(ms(123));
        let limiter = limiter(&clock, RateConfig::per_second(algorithm, 7));
        for _ in 0..200 {
            while limiter.try_acquire().is_ok() {}
            let wait = limiter.try_acquire().unwrap_err().retry_after().unwrap();
            clock.advance(wait);
            assert!(limiter.try_acquire().is_ok(), "{algorithm:?} after {wait:?}");
        }
    }
}

#[test]
fn o4_a_limit_changes_while_running_and_what_is_used_stays_used() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let clock = ManualClock::new();
        let limiter = limiter(&clock, RateConfig::per_second(algorithm, 100));
        assert_eq!(admitted(&limiter, 60), 60);
        limiter.reconfigure(RateConfig::per_second(algorithm, 200)).unwrap();
        let more = admitted(&limiter, 1_000);
        assert!((80..=140).contains(&more), "{algorithm:?}: {more}");
        limiter.reconfigure(RateConfig::per_second(algorithm, 10)).unwrap();
        assert_eq!(admitted(&limiter, 10), 0, "{algorithm:?}: the old use still counts");
    }
}

#[test]
fn o4_waiting_for_a_turn_takes_virtual_time_only() {
    let time = VirtualTime::new();
    let config = RateConfig::per_second(Algorithm::TokenBucket, 10).with_burst(1);
    let limiter = RateLimiter::with_clock("api", config, time.clock()).unwrap();
    let began = time.clock().now();
    let (sleeper, limiter) = (&time.sleeper(), &limiter);
    let taken = AtomicU32::new(0);
    time.run_all((0..20).map(|_| async {
        limiter.acquire(sleeper, 1, secs(60)).await.unwrap();
        taken.fetch_add(1, Ordering::Relaxed);
    }));
    assert_eq!(taken.into_inner(), 20);
    assert_eq!(time.clock().now().since(began), ms(1_900));
}

/// The most that were admitted in any stretch of `period`, which ends with an admission.
fn most_within(period: Duration, admitted: &[Tick]) -> usize {
    let until = |end: Tick| {
        admitted.iter().filter(move |at| **at <= end && end.since(**at) < period).count()
    };
    admitted.iter().map(|end| until(*end)).max().unwrap_or(0)
}

#[test]
fn o4_callers_that_wait_together_are_not_admitted_together() {
    // tower-resilience 363: whoever had waited was let through without asking again.
    for (algorithm, most) in [
        (Algorithm::TokenBucket, 10 + 10),
        (Algorithm::LeakyBucket, 10),
        (Algorithm::FixedWindow, 2 * 10),
        (Algorithm::SlidingWindow, 10),
    ] {
        let time = VirtualTime::new();
        let config = RateConfig::per_second(algorithm, 10).with_wait_max(secs(30));
        let limiter = RateLimiter::with_clock("api", config, time.clock()).unwrap();
        let pipeline = mainstay_resilience::Pipeline::builder()
            .clock(time.clock())
            .sleeper(time.sleeper())
            .then(limiter.clone())
            .build()
            .unwrap();
        let (sleeper, limiter, pipeline, clock) =
            (&time.sleeper(), &limiter, &pipeline, &time.clock());
        let admitted = Mutex::new(Vec::new());
        let admit = || admitted.lock().unwrap().push(clock.now());
        let (admit, began) = (&admit, clock.now());
        // Half of them wait by themselves, half of them in a chain.
        time.run_all((0..60).map(|caller| async move {
            if caller % 2 == 0 {
                limiter.acquire(sleeper, 1, secs(30)).await.unwrap();
                admit();
            } else {
                let admitted = |_| async {
                    admit();
                    Ok::<_, mainstay_resilience::ErrorKind>(())
                };
                pipeline.call(admitted).await.unwrap();
            }
        }));
        let admitted = admitted.into_inner().unwrap();
        assert_eq!(admitted.len(), 60, "{algorithm:?}: everybody had a turn");
        let seen = most_within(secs(1), &admitted);
        assert!(seen <= most, "{algorithm:?}: {seen} in one second");
        let took = clock.now().since(began);
        assert!(took >= ms(4_000) && took <= ms(6_500), "{algorithm:?}: sixty took {took:?}");
    }
}

#[test]
fn o4_keys_have_limits_of_their_own_and_a_hard_bound() {
    let clock = ManualClock::new();
    let mut config = KeyedConfig::new(RateConfig::per_second(Algorithm::TokenBucket, 1));
    config.keys_max = 64;
    let keyed = KeyedRateLimiter::with_clock("tenant", config, clock.clock()).unwrap();
    for key in 0..10_000 {
        assert!(keyed.try_acquire(&format!("key-{key}"), 1).is_ok());
    }
    assert!(keyed.keys() <= 64);
    config.when_full = WhenFull::Refuse;
    let keyed = KeyedRateLimiter::with_clock("tenant", config, clock.clock()).unwrap();
    let refused = (0..1_000).filter_map(|key| keyed.try_acquire(&format!("key-{key}"), 1).err());
    assert_eq!(refused.count(), 1_000 - 64);
    clock.advance(secs(601));
    let admitted = (0..32).filter(|key| keyed.try_acquire(&format!("new-{key}"), 1).is_ok());
    assert_eq!(admitted.count(), 32, "idle keys make room");
}

#[test]
fn o4_a_leased_quota_is_spent_locally_and_survives_the_store() {
    struct Store {
        left: AtomicU32,
        asked: AtomicU32,
    }
    impl QuotaSource for Store {
        type Error = &'static str;

        async fn lease(&self, _: &str, want: u32) -> Result<Lease, &'static str> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let left = self.left.load(Ordering::Relaxed);
            if left == u32::MAX {
                return Err("the store is away");
            }
            let granted = want.min(left);
            self.left.fetch_sub(granted, Ordering::Relaxed);
            Ok(Lease { granted, valid_for: secs(10) })
        }
    }
    let (time, clock) = (VirtualTime::new(), ManualClock::new());
    let store = Store { left: AtomicU32::new(150), asked: AtomicU32::new(0) };
    let local = RateConfig::per_second(Algorithm::FixedWindow, 5);
    let without = WithoutSource::LimitLocally(local);
    let leased = LeasedLimiter::new("api", 100, without, clock.clock()).unwrap();
    let spend = |n: u32| (0..n).filter(|_| leased.try_acquire(1).is_ok()).count();
    assert_eq!(spend(10), 5, "before the first lease it limits by itself");
    time.block_on(leased.refill(&store)).unwrap();
    assert_eq!(spend(1_000), 100);
    time.block_on(leased.refill(&store)).unwrap();
    assert_eq!(spend(1_000), 50, "the rest of the quota");
    assert_eq!(store.asked.load(Ordering::Relaxed), 2, "one question per lease, none per request");
    store.left.store(u32::MAX, Ordering::Relaxed);
    clock.advance(secs(11));
    assert!(time.block_on(leased.refill(&store)).is_err());
    assert_eq!(spend(10), 5, "the store is away");
}

#[test]
fn bad_rates_are_refused() {
    let refused = |config| RateLimiter::new("api", config).unwrap_err().to_string();
    let zero = RateConfig::new(Algorithm::FixedWindow, 10, ms(0));
    assert_eq!(refused(zero), "period: 0s is not allowed, use 1ms to 1d");
    let none = RateConfig::per_second(Algorithm::TokenBucket, 0);
    assert_eq!(refused(none), "limit: 0 is not allowed, use 1 to 1000000000");
    let fast = RateConfig::per_second(Algorithm::TokenBucket, 10_000_001);
    assert!(refused(fast).contains("at most 10000000 per second"));
}
