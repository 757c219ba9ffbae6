//! A fixed window as one number: which window above how much of it is used.

use super::{Refusal, Rule};
use crate::clock::Tick;
use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// The state of one window. Starts in window 0 with nothing used.
#[derive(Debug, Default)]
pub(super) struct FixedWindow {
    /// The window's number modulo 2^32 above the cost used in it.
    word: AtomicU64,
}

const USED_MASK: u64 = u32::MAX as u64;

impl FixedWindow {
    pub(super) fn take(&self, rule: &Rule, cost: u64, now: Tick) -> Result<(), Refusal> {
        if cost > rule.limit {
            return Err(Refusal::Never(rule.limit));
        }
        let number = now.as_nanos() / rule.period;
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let used = used(word, number);
            if used + cost > rule.limit {
                let end = (number + 1).saturating_mul(rule.period);
                return Err(Refusal::Later(Duration::from_nanos(end - now.as_nanos())));
            }
            let after = (number & USED_MASK) << 32 | (used + cost);
            let swapped =
                self.word.compare_exchange_weak(word, after, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return Ok(()),
                Err(seen) => word = seen,
            }
        }
    }

    pub(super) fn available(&self, rule: &Rule, now: Tick) -> u64 {
        let used = used(self.word.load(Ordering::Relaxed), now.as_nanos() / rule.period);
        rule.limit.saturating_sub(used)
    }
}

fn used(word: u64, number: u64) -> u64 {
    if word >> 32 == number & USED_MASK { word & USED_MASK } else { 0 }
}
