//! The rate limiters: a bucket as a level that rises with time, windows as lists of what was taken.

use super::runs;
use crate::ms;
use mainstay_resilience::{Algorithm, ManualClock, RateConfig, RateLimiter, Reason, Tick};
use proptest::prelude::*;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    Take(u32),
    Reserve(u32, u64),
    /// Waits exactly as long as the last refusal said and takes the same again.
    ComeBack,
    Advance(u64),
    Reconfigure(u32, u64, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4u32).prop_map(Step::Take),
        1 => (4..40u32).prop_map(Step::Take),
        2 => (1..4u32, 0..2_000u64).prop_map(|(cost, wait)| Step::Reserve(cost, wait)),
        2 => Just(Step::ComeBack),
        4 => (0..400u64).prop_map(Step::Advance),
        1 => (400..3_000u64).prop_map(Step::Advance),
        1 => figures().prop_map(|(limit, period, burst)| Step::Reconfigure(limit, period, burst)),
    ]
}

/// Limits that divide their period, so that the model needs no rounding.
fn figures() -> impl Strategy<Value = (u32, u64, u32)> {
    let limit = prop_oneof![Just(1u32), Just(2), Just(5), Just(10), Just(20)];
    let period = prop_oneof![Just(100u64), Just(1_000), Just(2_000)];
    (limit, period, prop_oneof![Just(0u32), 1..25u32])
}

fn config(algorithm: Algorithm, (limit, period, burst): (u32, u64, u32)) -> RateConfig {
    RateConfig::new(algorithm, limit, ms(period)).with_burst(burst)
}

/// What a take led to.
#[derive(Debug, PartialEq)]
enum Answer {
    Wait(Duration),
    Later,
    Never,
}

struct Model {
    config: RateConfig,
    now: Tick,
    /// Buckets: nanoseconds of dripping that are missing until it is full.
    missing: u64,
    /// Windows: slice or window, and cost.
    taken: Vec<(u64, u64)>,
}

impl Model {
    fn is_bucket(&self) -> bool {
        matches!(self.config.algorithm, Algorithm::TokenBucket | Algorithm::LeakyBucket)
    }

    fn period(&self) -> u64 {
        self.config.period.as_nanos() as u64
    }

    /// Nanoseconds in which one token drips in.
    fn drip(&self) -> u64 {
        self.period() / u64::from(self.config.limit)
    }

    fn most(&self) -> u64 {
        match self.config.algorithm {
            Algorithm::LeakyBucket => 1,
            Algorithm::TokenBucket if self.config.burst > 0 => u64::from(self.config.burst),
            _ => u64::from(self.config.limit),
        }
    }

    /// The window, or the slice of the sliding window, that holds the present.
    fn slot(&self) -> u64 {
        match self.config.algorithm {
            Algorithm::FixedWindow => self.now.as_nanos() / self.period(),
            _ => self.now.as_nanos() / (self.period() / 20),
        }
    }

    /// What counts now in a window.
    fn used(&self) -> u64 {
        let newest = self.slot();
        let slots = if self.config.algorithm == Algorithm::FixedWindow { 1 } else { 21 };
        let counts = |(slot, _): &&(u64, u64)| slot + slots > newest;
        self.taken.iter().filter(counts).map(|(_, cost)| cost).sum()
    }

    fn take(&mut self, cost: u64, wait_max: u64) -> Answer {
        if cost > self.most() {
            return Answer::Never;
        }
        if !self.is_bucket() {
            if self.used() + cost > u64::from(self.config.limit) {
                return Answer::Later;
            }
            self.taken.push((self.slot(), cost));
            return Answer::Wait(Duration::ZERO);
        }
        let missing = self.missing + cost * self.drip();
        let wait = missing.saturating_sub(self.most() * self.drip());
        if wait > wait_max {
            return Answer::Later;
        }
        self.missing = missing;
        Answer::Wait(Duration::from_nanos(wait))
    }

    fn available(&self) -> u64 {
        match self.is_bucket() {
            true => (self.most() * self.drip()).saturating_sub(self.missing) / self.drip(),
            false => u64::from(self.config.limit).saturating_sub(self.used()),
        }
    }

    fn advance(&mut self, now: Tick) {
        let passed = now.since(self.now).as_nanos() as u64;
        self.missing = self.missing.saturating_sub(passed);
        self.now = now;
    }

    fn reconfigure(&mut self, config: RateConfig) {
        let (used, same_period) = (self.used(), self.config.period == config.period);
        self.config = config;
        if !same_period {
            self.taken = vec![(self.slot(), used)];
        }
    }
}

fn check(algorithm: Algorithm, figures: (u32, u64, u32), offset: u64, steps: &[Step]) {
    let clock = ManualClock::new();
    clock.advance(ms(offset));
    let first = config(algorithm, figures);
    let limiter = RateLimiter::with_clock("model", first, clock.clock()).unwrap();
    let mut model = Model { config: first, now: clock.now(), missing: 0, taken: Vec::new() };
    let mut refused: Option<(u32, Duration)> = None;
    for step in steps {
        let (cost, wait_max) = match *step {
            Step::Take(cost) => (cost, 0),
            Step::Reserve(cost, wait_max) => (cost, wait_max),
            Step::ComeBack => {
                let Some((cost, wait)) = refused.take() else { continue };
                clock.advance(wait);
                model.advance(clock.now());
                (cost, 0)
            }
            Step::Advance(wait) => {
                clock.advance(ms(wait));
                model.advance(clock.now());
                continue;
            }
            Step::Reconfigure(limit, period, burst) => {
                let changed = config(algorithm, (limit, period, burst));
                limiter.reconfigure(changed).unwrap();
                model.reconfigure(changed);
                // What was promised was promised under the old limit.
                refused = None;
                continue;
            }
        };
        let said = model.take(u64::from(cost), ms(wait_max).as_nanos() as u64);
        let came_back = matches!(step, Step::ComeBack);
        let answer = match wait_max {
            0 => limiter.try_acquire_cost(cost).map(|()| Duration::ZERO),
            _ => limiter.reserve(cost, ms(wait_max)),
        };
        match answer {
            Ok(wait) => assert_eq!(said, Answer::Wait(wait), "{step:?}"),
            Err(rejection) if rejection.retry_after().is_none() => {
                assert!(matches!(rejection.reason(), Reason::CostAboveLimit { .. }));
                assert_eq!(said, Answer::Never, "{step:?}");
            }
            Err(rejection) => {
                assert_eq!(said, Answer::Later, "{step:?}");
                assert!(!came_back, "it waited as long as it was told");
                refused = Some((cost, rejection.retry_after().unwrap()));
            }
        }
        // Somebody else's turn ends the promise.
        if refused.is_some_and(|_| said != Answer::Later) {
            refused = None;
        }
        assert_eq!(limiter.available(), model.available(), "after {step:?}");
    }
}

proptest! {
    #![proptest_config(runs())]

    #[test]
    fn o4_every_rate_limiter_does_what_its_model_does(
        algorithm in prop_oneof![
            Just(Algorithm::TokenBucket),
            Just(Algorithm::LeakyBucket),
            Just(Algorithm::FixedWindow),
            Just(Algorithm::SlidingWindow),
        ],
        figures in figures(),
        offset in 0..5_000u64,
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        check(algorithm, figures, offset, &steps);
    }

    /// Whatever the clock does, also backwards, nobody gets more than the time that really passed
    /// forward allows.
    #[test]
    fn o4_a_clock_that_steps_back_gives_nothing_away(
        algorithm in prop_oneof![
            Just(Algorithm::TokenBucket),
            Just(Algorithm::LeakyBucket),
            Just(Algorithm::FixedWindow),
            Just(Algorithm::SlidingWindow),
        ],
        moves in proptest::collection::vec((-500..800i64, 1..6u32), 1..80),
    ) {
        let clock = ManualClock::new();
        let limiter =
            RateLimiter::with_clock("l", RateConfig::per_second(algorithm, 10), clock.clock());
        let limiter = limiter.unwrap();
        let began = clock.now().as_nanos();
        let (mut newest, mut admitted) = (began, 0u64);
        for (millis, asks) in moves {
            let now = clock.now().as_nanos().saturating_add_signed(millis * 1_000_000);
            clock.set(Tick::from_nanos(now));
            newest = newest.max(now);
            admitted += (0..asks).filter(|_| limiter.try_acquire().is_ok()).count() as u64;
            let seconds = (newest - began) as f64 / 1e9;
            // A fixed window may give its limit on both sides of a boundary.
            prop_assert!(admitted as f64 <= 10.0 * seconds + 20.0, "{admitted} in {seconds} s");
        }
    }
}
