//! The laws by which a limit follows what it sees, one sample window at a time.
//!
//! Sources: AIMD, Chiu and Jain (1989); Vegas, Brakmo and Peterson (1995), in the form of Netflix
//! concurrency-limits; Gradient2, the same. Three things differ, each against a known failure:
//! the baseline is bounded, by `healthy_rtt_max` or else by `drift_max` times the best of a day (a long
//! incident does not become normal), Vegas takes its baseline from the last ten minutes instead of
//! resetting it at random, and nothing ever forces the limit down to measure (no synchronised
//! collapse of replicas). The least of a stretch of time as what a path takes without load: Cardwell
//! et al., "BBR: Congestion-Based Congestion Control" (ACM Queue 14:5, 2016).

use super::{AdaptiveConfig, Law};
use std::time::Duration;

/// What one window showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Mean round trip of successes, seconds.
    pub(super) rtt_mean: f64,
    /// Shortest round trip of successes, seconds.
    pub(super) rtt_min: f64,
    /// Successes in the window.
    pub(super) successes: u64,
    /// Calls that timed out or were refused for load.
    pub(super) overloads: u64,
    /// The most calls under way at a time.
    pub(super) in_flight_max: u64,
}

/// What a law remembers.
#[derive(Debug)]
pub(super) struct Memory {
    long_rtt: f64,
    /// The shortest round trips of the last ten minutes.
    shortest: Minima<10>,
    /// The best means of the last day. Means, since one lucky round trip says little.
    best: Minima<24>,
}

/// The least of a stretch of time, which is forgotten a slot at a time.
#[derive(Debug)]
struct Minima<const SLOTS: usize> {
    slots: [f64; SLOTS],
    slot_seconds: f64,
    age_seconds: f64,
}

impl<const SLOTS: usize> Minima<SLOTS> {
    fn new(slot_seconds: f64) -> Self {
        Minima { slots: [f64::INFINITY; SLOTS], slot_seconds, age_seconds: 0.0 }
    }

    fn pass(&mut self, time: Duration) {
        self.age_seconds += time.as_secs_f64();
        let passed = (self.age_seconds / self.slot_seconds).floor();
        self.age_seconds -= passed * self.slot_seconds;
        for _ in 0..(passed as usize).min(SLOTS) {
            self.slots.rotate_right(1);
            self.slots[0] = f64::INFINITY;
        }
    }

    fn take_in(&mut self, value: f64) {
        self.slots[0] = self.slots[0].min(value);
    }

    /// Infinite when nothing was taken in.
    fn least(&self) -> f64 {
        self.slots.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory { long_rtt: 0.0, shortest: Minima::new(60.0), best: Minima::new(3_600.0) }
    }
}

impl Memory {
    /// The limit after `sample`, which covers `window`, unbounded.
    pub(super) fn follow(
        &mut self,
        config: &AdaptiveConfig,
        limit: f64,
        sample: &Sample,
        window: Duration,
    ) -> f64 {
        self.shortest.pass(window);
        self.best.pass(window);
        // A tenth of calls overloaded is no accident.
        let overloaded = sample.overloads * 10 > sample.successes;
        if overloaded {
            return limit * config.backoff;
        }
        if sample.successes == 0 {
            return limit;
        }
        let healthy = config.healthy_rtt_max.as_secs_f64();
        let too_slow = healthy > 0.0 && sample.rtt_mean > healthy;
        self.best.take_in(sample.rtt_mean);
        // Who says what is healthy knows more than the best of a day.
        let most = if healthy > 0.0 { healthy } else { config.drift_max * self.best.least() };
        let next = match config.law {
            Law::Aimd if too_slow => limit * config.backoff,
            Law::Aimd => limit + 1.0,
            Law::Vegas => self.vegas(limit, sample, most),
            Law::Gradient2 => self.gradient2(config, limit, sample, most),
        };
        // Growth is earned only by a limit that was used.
        let used = sample.in_flight_max as f64 * 2.0 >= limit;
        if next > limit && !used { limit } else { next }
    }

    /// `most` is the longest baseline.
    fn vegas(&mut self, limit: f64, sample: &Sample, most: f64) -> f64 {
        self.shortest.take_in(sample.rtt_min);
        let unloaded = self.shortest.least().min(most);
        let queued = limit * (1.0 - unloaded / sample.rtt_mean.max(unloaded));
        let step = limit.log10().max(1.0);
        match queued {
            queued if queued <= step => limit + 6.0 * step,
            queued if queued < 3.0 * step => limit + step,
            queued if queued > 6.0 * step => limit - step,
            _ => limit,
        }
    }

    fn gradient2(
        &mut self,
        config: &AdaptiveConfig,
        limit: f64,
        sample: &Sample,
        most: f64,
    ) -> f64 {
        const WEIGHT: f64 = 2.0 / (600.0 + 1.0);
        let short = sample.rtt_mean;
        if self.long_rtt == 0.0 {
            self.long_rtt = short;
        }
        self.long_rtt += WEIGHT * (short - self.long_rtt);
        // After a slow phase the long mean comes down faster than its weight allows.
        if self.long_rtt > 2.0 * short {
            self.long_rtt *= 0.95;
        }
        self.long_rtt = self.long_rtt.min(most);
        let gradient = (config.tolerance * self.long_rtt / short.max(1e-9)).clamp(0.5, 1.0);
        let target = limit * gradient + limit.sqrt();
        limit + 0.2 * (target - limit)
    }
}
