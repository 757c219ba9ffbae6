//! A fixed window: at most the limit in each period since the clock's origin.
//!
//! Invariant: `used` is what was taken in the window that ends at `end`. With another period, what
//! was taken in the window under way counts in the new window that holds the present.

use super::{Refusal, Rule};
use crate::clock::Tick;

/// The state of one window. Starts in a window that is over.
#[derive(Debug, Default)]
pub(super) struct FixedWindow {
    used: u64,
    /// Nanoseconds since the clock's origin.
    end: u64,
    /// The period that `end` was computed with.
    period: u64,
}

impl FixedWindow {
    pub(super) fn take(&mut self, rule: &Rule, cost: u64, now: Tick) -> Result<(), Refusal> {
        if cost > rule.limit {
            return Err(Refusal::Never(rule.limit));
        }
        self.enter(rule, now);
        if self.used + cost > rule.limit {
            return Err(Refusal::Later(self.end - now.as_nanos()));
        }
        self.used += cost;
        Ok(())
    }

    pub(super) fn available(&mut self, rule: &Rule, now: Tick) -> u64 {
        self.enter(rule, now);
        rule.limit.saturating_sub(self.used)
    }

    /// Moves on to the window of `now`. A clock that steps back stays in the newest window.
    fn enter(&mut self, rule: &Rule, now: Tick) {
        let now = now.as_nanos();
        let end = (now / rule.period + 1).saturating_mul(rule.period);
        if now >= self.end {
            *self = FixedWindow { used: 0, end, period: rule.period };
        } else if self.period != rule.period {
            *self = FixedWindow { used: self.used, end, period: rule.period };
        }
    }
}
