//! The keyed limiter: each key as a limiter of its own, and a bound that nothing exceeds.

use super::runs;
use crate::{ms, secs};
use mainstay_resilience::{
    Algorithm, KeyedConfig, KeyedRateLimiter, ManualClock, RateConfig, RateLimiter, Reason,
    WhenFull,
};
use proptest::prelude::*;
use std::collections::HashMap;

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::TokenBucket),
        Just(Algorithm::FixedWindow),
        Just(Algorithm::SlidingWindow),
    ]
}

/// A cost that takes as much of a bucket's burst as the plain one takes of the limit.
fn scaled(algorithm: Algorithm, cost: u32, burst: u32) -> u32 {
    if algorithm == Algorithm::TokenBucket { cost * (1 + burst / 3) } else { cost }
}

/// A key, a cost, and how long the clock moves first.
fn asks() -> impl Strategy<Value = Vec<(u32, u32, u64)>> {
    let pause = prop_oneof![6 => 0..200u64, 1 => 2_000..40_000u64];
    proptest::collection::vec((0..40u32, 1..3u32, pause), 1..150)
}

proptest! {
    #![proptest_config(runs())]

    #[test]
    fn o4_with_room_for_all_each_key_has_a_limiter_of_its_own(
        algorithm in algorithm(),
        asks in asks(),
        change_at in 0..150usize,
        burst in 0..60u32,
    ) {
        let clock = ManualClock::new();
        let rate = RateConfig::per_second(algorithm, 3).with_burst(burst);
        let mut config = KeyedConfig::new(rate);
        // As soon as it may be: whoever is forgotten must have had the whole limit again.
        config.idle_after = secs(1);
        let keyed = KeyedRateLimiter::with_clock("k", config, clock.clock()).unwrap();
        let mut own: HashMap<u32, RateLimiter> = HashMap::new();
        let mut rate = rate;
        for (index, (key, cost, pause)) in asks.into_iter().enumerate() {
            clock.advance(ms(pause));
            if index == change_at {
                rate = RateConfig::per_second(algorithm, 5).with_burst(burst);
                keyed.set_rate(rate).unwrap();
                own.values().for_each(|limiter| limiter.reconfigure(rate).unwrap());
            }
            let cost = scaled(algorithm, cost, burst);
            let limiter = own
                .entry(key)
                .or_insert_with(|| RateLimiter::with_clock("own", rate, clock.clock()).unwrap());
            let (mine, theirs) = (limiter.try_acquire_cost(cost), keyed.try_acquire(&key.to_string(), cost));
            prop_assert_eq!(mine.is_ok(), theirs.is_ok());
            let waits = (mine.err().map(|r| r.retry_after()), theirs.err().map(|r| r.retry_after()));
            prop_assert_eq!(waits.0, waits.1);
            prop_assert_eq!(limiter.available(), keyed.available(&key.to_string()));
            prop_assert!(keyed.keys() <= own.len());
        }
    }

    #[test]
    fn o4_nothing_exceeds_the_bound_on_keys(
        algorithm in algorithm(),
        asks in asks(),
        refuses in any::<bool>(),
        lower_at in 0..150usize,
    ) {
        let clock = ManualClock::new();
        let mut config = KeyedConfig::new(RateConfig::per_second(algorithm, 3));
        config.keys_max = 32;
        config.when_full = if refuses { WhenFull::Refuse } else { WhenFull::Forget };
        let keyed = KeyedRateLimiter::with_clock("k", config, clock.clock()).unwrap();
        for (index, (key, cost, pause)) in asks.into_iter().enumerate() {
            clock.advance(ms(pause));
            if index == lower_at {
                config.keys_max = 16;
                keyed.reconfigure(config).unwrap();
            }
            let _ = keyed.try_acquire(&key.to_string(), cost);
            prop_assert!(keyed.keys() <= config.keys_max as usize);
        }
    }

    #[test]
    fn o4_a_refusing_limiter_forgets_nobody_who_is_in_use(
        algorithm in algorithm(),
        asks in asks(),
        burst in 0..60u32,
    ) {
        let clock = ManualClock::new();
        let rate = RateConfig::per_second(algorithm, 3).with_burst(burst);
        let mut config = KeyedConfig::new(rate);
        config.keys_max = 32;
        config.idle_after = secs(5);
        config.when_full = WhenFull::Refuse;
        let keyed = KeyedRateLimiter::with_clock("k", config, clock.clock()).unwrap();
        // By key: the time of its last use and a limiter of its own.
        let mut own: HashMap<u32, (u64, RateLimiter)> = HashMap::new();
        let mut now = 0;
        for (key, cost, pause) in asks {
            clock.advance(ms(pause));
            now += pause;
            let whole = |limiter: &RateLimiter| match algorithm {
                Algorithm::TokenBucket if burst > 0 => limiter.available() == u64::from(burst),
                _ => limiter.available() == 3,
            };
            own.retain(|_, (used, limiter)| now - *used < 5_000 || !whole(limiter));
            let cost = scaled(algorithm, cost, burst);
            let answer = keyed.try_acquire(&key.to_string(), cost);
            if matches!(&answer, Err(r) if matches!(r.reason(), Reason::TooManyKeys { .. })) {
                prop_assert!(!own.contains_key(&key), "key {} is in use", key);
                continue;
            }
            // Who is idle has a limit that is whole again, whether the key was forgotten or not.
            let fresh = || RateLimiter::with_clock("own", config.rate, clock.clock()).unwrap();
            let (used, limiter) = own.entry(key).or_insert_with(|| (now, fresh()));
            *used = now;
            prop_assert_eq!(limiter.try_acquire_cost(cost).is_ok(), answer.is_ok());
        }
    }
}
