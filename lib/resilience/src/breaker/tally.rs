//! The counters that every call touches, without a lock.
//!
//! Invariants:
//! - Each word holds a tag (the generation's low 32 bits) above a 32-bit count. A count changes
//!   only by compare-and-swap against a word with the caller's own tag, so a result of an older
//!   generation can never be added to a newer one.
//! - One outcome changes exactly one counter, so their sum is exact at any time. Successes have one
//!   counter per stripe: threads that all succeed write to no common cache line. Everything else
//!   has one counter per class.
//! - Moving a count to the frozen slices (under the machine's lock) swaps the word for the same tag
//!   with count zero: an addition lands before or after the swap, never in neither.

use crate::stripes::{self, STRIPES};
use crate::sync::{AtomicU64, Ordering, OwnLine, load_in_order};

/// What an outcome counts as: failed or not, slow or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Ok = 0,
    Failed = 1,
    SlowOk = 2,
    SlowFailed = 3,
}

impl Class {
    pub(crate) fn new(failed: bool, slow: bool) -> Self {
        match (failed, slow) {
            (false, false) => Class::Ok,
            (true, false) => Class::Failed,
            (false, true) => Class::SlowOk,
            (true, true) => Class::SlowFailed,
        }
    }
}

/// Counts by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) [u64; 4]);

impl Counts {
    pub(crate) fn add(&mut self, other: Counts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    pub(crate) fn subtract(&mut self, other: Counts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine -= theirs;
        }
    }

    /// Whether nothing failed and nothing was slow.
    pub(crate) fn is_clean(&self) -> bool {
        self.0[1..] == [0, 0, 0]
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.0[1] + self.0[3]
    }

    pub(crate) fn slow(&self) -> u64 {
        self.0[2] + self.0[3]
    }

    /// The share of failures, 0 to 1; 0 without calls.
    pub(crate) fn failure_rate(&self) -> f64 {
        share(self.failed(), self.total())
    }

    /// The share of slow calls, 0 to 1; 0 without calls.
    pub(crate) fn slow_rate(&self) -> f64 {
        share(self.slow(), self.total())
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What became of an attempt to count in one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Counted; the count after it.
    Done(u64),
    /// The generation is over; nothing changed.
    Stale,
    /// The transition into the caller's generation is not complete; wait for it and try again.
    Early,
}

/// The counters of the current slice and of consecutive failures.
#[derive(Debug)]
pub(crate) struct Tally {
    successes: [OwnLine<AtomicU64>; STRIPES],
    /// By class, from [`Class::Failed`] on.
    others: [AtomicU64; 3],
    streak: AtomicU64,
}

const COUNT_MASK: u64 = u32::MAX as u64;

#[inline]
fn word(tag: u32, count: u64) -> u64 {
    u64::from(tag) << 32 | count
}

/// `Err` when `seen` carries another tag than `tag`.
#[inline]
fn check(tag: u32, seen: u64) -> Result<u64, Counted> {
    // Tags wrap; the sign of the difference tells older from newer.
    match tag.wrapping_sub((seen >> 32) as u32) as i32 {
        0 => Ok(seen & COUNT_MASK),
        ahead if ahead > 0 => Err(Counted::Early),
        _ => Err(Counted::Stale),
    }
}

impl Tally {
    pub(crate) fn new(tag: u32) -> Self {
        Tally {
            successes: std::array::from_fn(|_| OwnLine(AtomicU64::new(word(tag, 0)))),
            others: std::array::from_fn(|_| AtomicU64::new(word(tag, 0))),
            streak: AtomicU64::new(word(tag, 0)),
        }
    }

    /// Whether the generation has no failures in a row.
    #[inline]
    pub(crate) fn has_no_streak(&self, tag: u32) -> bool {
        self.streak.load(Ordering::Acquire) == word(tag, 0)
    }

    /// Counts one outcome.
    #[inline]
    pub(crate) fn add(&self, tag: u32, class: Class) -> Counted {
        // Sequentially consistent, so that of two threads counting in different counters at least
        // one sees the other's count when it judges afterwards.
        let cell = match class {
            Class::Ok => &*self.successes[stripes::mine()],
            other => &self.others[other as usize - 1],
        };
        Self::change(cell, tag, |count| (count + 1).min(COUNT_MASK))
    }

    /// Counts one failure in a row.
    pub(crate) fn lengthen_streak(&self, tag: u32) -> Counted {
        Self::change(&self.streak, tag, |count| (count + 1).min(COUNT_MASK))
    }

    /// Ends the row of failures; a plain load when there is none.
    pub(crate) fn end_streak(&self, tag: u32) -> Counted {
        Self::change(&self.streak, tag, |_| 0)
    }

    #[inline]
    fn change(cell: &AtomicU64, tag: u32, step: impl Fn(u64) -> u64) -> Counted {
        let mut seen = cell.load(Ordering::Acquire);
        loop {
            let count = match check(tag, seen) {
                Ok(count) => count,
                Err(other) => return other,
            };
            let after = step(count);
            if after == count {
                return Counted::Done(count);
            }
            let swapped = cell.compare_exchange_weak(
                seen,
                word(tag, after),
                Ordering::SeqCst,
                Ordering::Acquire,
            );
            match swapped {
                Ok(_) => return Counted::Done(after),
                Err(now) => seen = now,
            }
        }
    }

    /// The counts now, whatever their generation.
    pub(crate) fn counts(&self) -> Counts {
        self.collect(load_in_order)
    }

    fn collect(&self, read: impl Fn(&AtomicU64) -> u64) -> Counts {
        let count = |cell: &AtomicU64| read(cell) & COUNT_MASK;
        let successes = self.successes.iter().map(|stripe| count(stripe)).sum();
        let [failed, slow_ok, slow_failed] = &self.others;
        Counts([successes, count(failed), count(slow_ok), count(slow_failed)])
    }

    /// Failures in a row.
    pub(crate) fn streak(&self) -> u64 {
        load_in_order(&self.streak) & COUNT_MASK
    }

    /// Takes the counts out, leaving zero under the same tag. Only under the machine's lock.
    pub(crate) fn take(&self, tag: u32) -> Counts {
        self.collect(|cell| cell.swap(word(tag, 0), Ordering::SeqCst))
    }

    /// Starts a generation at zero. Only under the machine's lock.
    pub(crate) fn restart(&self, tag: u32) {
        // Swapped rather than stored, so that no addition can be ordered after it unseen.
        let successes = self.successes.iter().map(|stripe| &**stripe);
        for cell in successes.chain(&self.others).chain([&self.streak]) {
            cell.swap(word(tag, 0), Ordering::SeqCst);
        }
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_count_of_another_generation_changes_nothing() {
        let tally = Tally::new(7);
        assert_eq!(tally.add(7, Class::Ok), Counted::Done(1));
        assert_eq!(tally.add(6, Class::Ok), Counted::Stale);
        assert_eq!(tally.add(8, Class::Ok), Counted::Early);
        assert_eq!(tally.counts().total(), 1);
    }

    #[test]
    fn b5_counts_of_every_thread_are_seen_taken_and_dropped_together() {
        let tally = Tally::new(7);
        let count = |tag| {
            for _ in 0..2 * STRIPES {
                let add = || tally.add(tag, Class::Ok);
                std::thread::scope(|scope| scope.spawn(add).join()).unwrap();
            }
            tally.add(tag, Class::SlowFailed);
        };
        count(7);
        let expected = Counts([2 * STRIPES as u64, 0, 0, 1]);
        assert_eq!(tally.counts(), expected);
        assert_eq!(tally.take(7), expected);
        assert_eq!(tally.counts().total(), 0);
        count(7);
        tally.restart(8);
        assert_eq!(tally.counts().total(), 0);
        count(7);
        assert_eq!(tally.counts().total(), 0, "every thread's count is of the next generation");
    }

    #[test]
    fn generations_wrap_without_mistaking_old_for_new() {
        let tally = Tally::new(0);
        assert_eq!(tally.add(u32::MAX, Class::Ok), Counted::Stale);
        assert_eq!(tally.add(1, Class::Ok), Counted::Early);
    }
}
