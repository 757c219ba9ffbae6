//! The laws by which a limit follows what it sees, one sample window at a time.
//!
//! Sources: AIMD, Chiu and Jain (1989); Vegas, Brakmo and Peterson (1995), in the form of Netflix
//! concurrency-limits; Gradient2, the same. Three things differ, each against a known failure:
//! the baseline is bounded by `healthy_rtt_max` (a long incident does not become normal), Vegas
//! takes its baseline from the last ten minutes instead of resetting it at random, and nothing
//! ever forces the limit down to measure (no synchronised collapse of replicas).

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

/// Slots in which the shortest round trips of the last ten minutes are kept.
const MINIMA: usize = 10;
/// How long one of them is filled.
const MINIMUM_SECONDS: f64 = 60.0;

/// What a law remembers.
#[derive(Debug)]
pub(super) struct Memory {
    long_rtt: f64,
    minima: [f64; MINIMA],
    minimum_age: f64,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { long_rtt: 0.0, minima: [f64::INFINITY; MINIMA], minimum_age: 0.0 }
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
        let next = match config.law {
            Law::Aimd if too_slow => limit * config.backoff,
            Law::Aimd => limit + 1.0,
            Law::Vegas => self.vegas(limit, sample, window, healthy),
            Law::Gradient2 => self.gradient2(config, limit, sample, healthy),
        };
        // Growth is earned only by a limit that was used.
        let used = sample.in_flight_max as f64 * 2.0 >= limit;
        if next > limit && !used { limit } else { next }
    }

    fn vegas(&mut self, limit: f64, sample: &Sample, window: Duration, healthy: f64) -> f64 {
        self.minimum_age += window.as_secs_f64();
        if self.minimum_age >= MINIMUM_SECONDS {
            self.minimum_age = 0.0;
            self.minima.rotate_right(1);
            self.minima[0] = f64::INFINITY;
        }
        self.minima[0] = self.minima[0].min(sample.rtt_min);
        let unloaded = bounded(self.minima.iter().copied().fold(f64::INFINITY, f64::min), healthy);
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
        healthy: f64,
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
        self.long_rtt = bounded(self.long_rtt, healthy);
        let gradient = (config.tolerance * self.long_rtt / short.max(1e-9)).clamp(0.5, 1.0);
        let target = limit * gradient + limit.sqrt();
        limit + 0.2 * (target - limit)
    }
}

/// A baseline no longer than what is known to be healthy; 0 is unknown.
fn bounded(baseline: f64, healthy: f64) -> f64 {
    if healthy > 0.0 { baseline.min(healthy) } else { baseline }
}
