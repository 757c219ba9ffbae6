//! What a retry policy has done so far.

use crate::clock::nanos;
use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// Calls are told apart by their attempts up to this number; more are counted with it.
const ATTEMPTS_TOLD_APART: usize = 10;

/// The figures of a [`Retry`](crate::Retry) since it was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryStats {
    /// Calls that ended after 1, 2, … attempts; the last entry counts those with 10 and more.
    pub calls_by_attempts: [u64; ATTEMPTS_TOLD_APART],
    /// Calls that succeeded after more than one attempt.
    pub succeeded_after_retry: u64,
    /// Calls whose last attempt failed.
    pub failed: u64,
    /// Retries that the budget refused.
    pub refused_by_budget: u64,
}

impl RetryStats {
    /// Calls in all.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls_by_attempts.iter().sum()
    }

    /// Attempts beyond the first of each call; calls with more than 10 attempts count as 10.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.calls_by_attempts.iter().zip(0u64..).map(|(calls, extra)| calls * extra).sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    calls_by_attempts: [AtomicU64; ATTEMPTS_TOLD_APART],
    succeeded_after_retry: AtomicU64,
    failed: AtomicU64,
    refused_by_budget: AtomicU64,
    typical_nanos: AtomicU64,
}

impl Stats {
    #[inline]
    pub(super) fn finished(&self, attempts: u32, succeeded: bool) {
        let slot = (attempts as usize).clamp(1, ATTEMPTS_TOLD_APART) - 1;
        self.calls_by_attempts[slot].fetch_add(1, Ordering::Relaxed);
        if !succeeded {
            self.failed.fetch_add(1, Ordering::Relaxed);
        } else if attempts > 1 {
            self.succeeded_after_retry.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cold]
    pub(super) fn refused_by_budget(&self) {
        self.refused_by_budget.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves the median estimate by a sixteenth towards a successful attempt's duration.
    ///
    /// Source: Ma, Muthukrishnan, Sandler, "Frugal streaming for estimating quantiles" (2013), with
    /// steps in proportion. Two threads may overwrite each other's step; the estimate stays one.
    #[inline]
    pub(super) fn took(&self, took: Duration) {
        let (sample, estimate) = (nanos(took), self.typical_nanos.load(Ordering::Relaxed));
        if sample == estimate {
            return;
        }
        let step = (estimate / 16).max(1);
        let moved = match sample > estimate {
            _ if estimate == 0 => sample,
            true => (estimate + step).min(sample),
            false => estimate.saturating_sub(step).max(sample),
        };
        self.typical_nanos.store(moved, Ordering::Relaxed);
    }

    /// The median duration of successful attempts; zero before the first.
    pub(super) fn typical(&self) -> Duration {
        Duration::from_nanos(self.typical_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn read(&self) -> RetryStats {
        let mut stats = RetryStats {
            succeeded_after_retry: self.succeeded_after_retry.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            refused_by_budget: self.refused_by_budget.load(Ordering::Relaxed),
            ..RetryStats::default()
        };
        for (read, cell) in stats.calls_by_attempts.iter_mut().zip(&self.calls_by_attempts) {
            *read = cell.load(Ordering::Relaxed);
        }
        stats
    }
}
