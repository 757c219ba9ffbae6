//! A window that slides in slices and never admits more than the limit in any period.
//!
//! Invariant: the counters cover the current slice and the 20 before it, which together are never
//! shorter than one period, so their sum is never less than what was taken in the last period.

use super::{Refusal, Rule};
use crate::clock::Tick;

/// Slices per period: up to a twentieth of the limit is withheld for up to a slice.
pub(super) const SLICES: u32 = 20;
const COUNTERS: usize = SLICES as usize + 1;

/// The state of one window.
#[derive(Debug, Default)]
pub(super) struct SlidingWindow {
    counters: [u32; COUNTERS],
    sum: u64,
    /// The number of the newest slice, and the length of slices, in nanoseconds.
    newest: u64,
    slice: u64,
}

impl SlidingWindow {
    pub(super) fn take(&mut self, rule: &Rule, cost: u64, now: Tick) -> Result<(), Refusal> {
        if cost > rule.limit {
            return Err(Refusal::Never(rule.limit));
        }
        self.slide(rule, now);
        if self.sum + cost > rule.limit {
            return Err(Refusal::Later(self.wait(rule, cost, now)));
        }
        // The limit is below 2^30, and a counter never exceeds it.
        self.counters[self.newest as usize % COUNTERS] += cost as u32;
        self.sum += cost;
        Ok(())
    }

    pub(super) fn available(&mut self, rule: &Rule, now: Tick) -> u64 {
        self.slide(rule, now);
        rule.limit.saturating_sub(self.sum)
    }

    /// Moves on to the slice of `now`. A clock that steps back changes nothing.
    fn slide(&mut self, rule: &Rule, now: Tick) {
        let slice = rule.period.div_ceil(u64::from(SLICES)).max(1);
        if slice == self.slice {
            return self.advance(now.as_nanos() / slice);
        }
        if let Some(number) = now.as_nanos().checked_div(self.slice) {
            self.advance(number);
        }
        // Another period: all that still counts is taken as used just now.
        let (used, number) = (self.sum, now.as_nanos() / slice);
        *self = SlidingWindow { newest: number, slice, sum: used, ..SlidingWindow::default() };
        self.counters[number as usize % COUNTERS] = u32::try_from(used).unwrap_or(u32::MAX);
    }

    fn advance(&mut self, number: u64) {
        let steps = number.saturating_sub(self.newest).min(COUNTERS as u64);
        for step in 1..=steps {
            let counter = &mut self.counters[(self.newest + step) as usize % COUNTERS];
            self.sum -= u64::from(std::mem::take(counter));
        }
        if steps == COUNTERS as u64 {
            // More slices passed than there are counters; all of them are empty now.
            self.counters = [0; COUNTERS];
            self.sum = 0;
        }
        self.newest = self.newest.max(number);
    }

    /// Nanoseconds until the oldest slices that free enough are over.
    fn wait(&self, rule: &Rule, cost: u64, now: Tick) -> u64 {
        let mut left = self.sum + cost;
        for back in (0..COUNTERS as u64).rev() {
            let number = self.newest.saturating_sub(back);
            left -= u64::from(self.counters[number as usize % COUNTERS]).min(left);
            if left <= rule.limit {
                let free_at = (number + COUNTERS as u64).saturating_mul(self.slice);
                return free_at.saturating_sub(now.as_nanos());
            }
        }
        rule.period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o4_no_period_ever_holds_more_than_the_limit() {
        let rule = Rule::new(50, 1_000_000_000, 50);
        let mut window = SlidingWindow::default();
        let mut taken: Vec<u64> = Vec::new();
        let mut now = 5_000_000_000;
        for step in 0..20_000u64 {
            now += (step * 7_919) % 9_000_000;
            match window.take(&rule, 1, Tick::from_nanos(now)) {
                Ok(()) => taken.push(now),
                Err(Refusal::Later(wait)) => {
                    assert!(wait > 0 && wait <= rule.period + rule.period / 20, "{wait}");
                }
                Err(Refusal::Never(_)) => unreachable!("a cost of one fits"),
            }
            let recent = taken.iter().rev().take_while(|t| now - **t < rule.period).count();
            assert!(recent <= 50, "{recent} within one period");
        }
        let rate = taken.len() as f64 / ((now - 5_000_000_000) as f64 / 1e9);
        assert!(rate > 45.0, "at most a twentieth is withheld: {rate} per second");
    }
}
