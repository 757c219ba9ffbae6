//! Token bucket and leaky bucket as one number: the time at which the bucket is full again.
//!
//! Source: generic cell rate algorithm, ITU-T I.371, annex A. Times are sixteenths of nanoseconds,
//! so that ten million per second are exact to 0.1 %; 64 bits of them last 36 years.

use super::{Refusal, Rule, RuleCell};
use crate::clock::Tick;
use crate::sync::{AtomicU64, Ordering};

const SIXTEENTHS: u64 = 16;

/// The state of one bucket.
#[derive(Debug, Default)]
pub(super) struct Gcra {
    full_at: AtomicU64,
}

/// What became of taking something at once.
pub(super) enum AtOnce {
    Taken,
    /// Enough will be there after so many nanoseconds.
    Later(u64),
    /// Somebody came in between, or it can never be.
    Unknown,
}

/// Sixteenths of nanoseconds in which one token drips in.
pub(super) fn interval(limit: u64, period: u64) -> u64 {
    (period * SIXTEENTHS / limit).max(1)
}

/// When the bucket is full again after taking `cost`, and how long to wait before using it.
#[inline]
fn after(
    rule: &Rule,
    full_at: u64,
    cost: u64,
    now: Tick,
    wait_max: u64,
) -> Result<(u64, u64), Refusal> {
    if cost > rule.burst {
        return Err(Refusal::Never(rule.burst));
    }
    let now = now.as_nanos().saturating_mul(SIXTEENTHS);
    let after = full_at.max(now).saturating_add(cost.saturating_mul(rule.interval));
    let wait = (after - now).saturating_sub(rule.depth);
    // Rounded up, so that whoever waits this long is admitted.
    let nanos = wait.div_ceil(SIXTEENTHS);
    if wait > wait_max.saturating_mul(SIXTEENTHS) {
        return Err(Refusal::Later(nanos));
    }
    Ok((after, nanos))
}

impl Gcra {
    /// Takes `cost` now, or books it for up to `wait_max` later; returns the wait. Nanoseconds.
    #[inline]
    pub(super) fn take(
        &self,
        rule: &Rule,
        cost: u64,
        now: Tick,
        wait_max: u64,
    ) -> Result<u64, Refusal> {
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let (after, wait) = after(rule, full_at, cost, now, wait_max)?;
            let swapped = self.full_at.compare_exchange_weak(
                full_at,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(wait),
                Err(seen) => full_at = seen,
            }
        }
    }

    /// Takes `cost` now, for a caller that nobody can get in the way of.
    #[inline]
    pub(super) fn take_alone(&mut self, rule: &Rule, cost: u64, now: Tick) -> Result<(), Refusal> {
        let (after, _) = after(rule, self.full_at.load(Ordering::Relaxed), cost, now, 0)?;
        self.full_at.store(after, Ordering::Relaxed);
        Ok(())
    }

    /// Takes `cost` if there is enough now; otherwise nothing has changed.
    #[inline]
    pub(super) fn take_at_once(&self, rule: &RuleCell, cost: u64, now: Tick) -> AtOnce {
        let relaxed = Ordering::Relaxed;
        let now = now.as_nanos().saturating_mul(SIXTEENTHS);
        let increment = cost.saturating_mul(rule.interval.load(relaxed));
        let full_at = self.full_at.load(relaxed);
        let after = full_at.max(now).saturating_add(increment);
        let depth = rule.depth.load(relaxed);
        // A burst is at least 1. A cost above it is above the depth, unless both are beyond measure.
        if cost > 1 && cost > rule.burst.load(relaxed) {
            return AtOnce::Unknown;
        }
        if after - now > depth {
            return AtOnce::Later((after - now - depth).div_ceil(SIXTEENTHS));
        }
        match self.full_at.compare_exchange(full_at, after, relaxed, relaxed) {
            Ok(_) => AtOnce::Taken,
            Err(_) => AtOnce::Unknown,
        }
    }

    pub(super) fn available(&self, rule: &Rule, now: Tick) -> u64 {
        let now = now.as_nanos().saturating_mul(SIXTEENTHS);
        let debt = self.full_at.load(Ordering::Relaxed).saturating_sub(now);
        rule.depth.saturating_sub(debt) / rule.interval
    }
}
