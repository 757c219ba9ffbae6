//! Token bucket and leaky bucket as one number: the time at which the bucket is full again.
//!
//! Source: generic cell rate algorithm, ITU-T I.371, annex A. Times are sixteenths of nanoseconds,
//! so that ten million per second are exact to 0.1 %; 64 bits of them last 36 years.

use super::{Refusal, Rule};
use crate::clock::Tick;
use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

const SIXTEENTHS: u64 = 16;

/// The state of one bucket.
#[derive(Debug, Default)]
pub(super) struct Gcra {
    full_at: AtomicU64,
}

/// Sixteenths of nanoseconds in which one token drips in.
pub(super) fn interval(limit: u64, period: u64) -> u64 {
    (period * SIXTEENTHS / limit).max(1)
}

impl Gcra {
    /// Takes `cost` now, or books it for up to `wait_max` nanoseconds later.
    #[inline]
    pub(super) fn take(
        &self,
        rule: &Rule,
        cost: u64,
        now: Tick,
        wait_max: u64,
    ) -> Result<Duration, Refusal> {
        if cost > rule.burst {
            return Err(Refusal::Never(rule.burst));
        }
        let now = now.as_nanos().saturating_mul(SIXTEENTHS);
        let increment = cost.saturating_mul(rule.interval);
        let depth = rule.burst.saturating_mul(rule.interval);
        let wait_max = wait_max.saturating_mul(SIXTEENTHS);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let after = full_at.max(now).saturating_add(increment);
            let wait = (after - now).saturating_sub(depth);
            if wait > wait_max {
                // Rounded up, so that whoever waits this long is admitted.
                return Err(Refusal::Later(Duration::from_nanos(wait.div_ceil(SIXTEENTHS))));
            }
            let swapped = self.full_at.compare_exchange_weak(
                full_at,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(Duration::from_nanos(wait.div_ceil(SIXTEENTHS))),
                Err(seen) => full_at = seen,
            }
        }
    }

    /// Takes `cost` if there is enough now; otherwise nothing has changed.
    #[inline]
    pub(super) fn take_at_once(&self, rule: &Rule, cost: u64, now: Tick) -> bool {
        let now = now.as_nanos().saturating_mul(SIXTEENTHS);
        let increment = cost.saturating_mul(rule.interval);
        let depth = rule.burst.saturating_mul(rule.interval);
        let full_at = self.full_at.load(Ordering::Relaxed);
        let after = full_at.max(now).saturating_add(increment);
        let relaxed = Ordering::Relaxed;
        // A cost above the burst is above the depth, unless both are beyond measure.
        cost <= rule.burst
            && after - now <= depth
            && self.full_at.compare_exchange(full_at, after, relaxed, relaxed).is_ok()
    }

    pub(super) fn available(&self, rule: &Rule, now: Tick) -> u64 {
        let now = now.as_nanos().saturating_mul(SIXTEENTHS);
        let debt = self.full_at.load(Ordering::Relaxed).saturating_sub(now);
        rule.burst.saturating_mul(rule.interval).saturating_sub(debt) / rule.interval
    }
}
