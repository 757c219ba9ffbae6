//! Counters that many threads raise at once, each on a cache line of its own.
//!
//! Invariants: a thread keeps its stripe for life; which one it is decides the speed of a count and
//! never its value, since whoever reads adds up all stripes.
//!
//! Source: Herlihy, Shavit, *The Art of Multiprocessor Programming*, chapter 12, on shared counting;
//! the form is that of Java's `LongAdder`.

use crate::sync::{AtomicU64, Ordering, OwnLine};
use std::cell::Cell;

/// Copies of each counter. 8: enough that two of the threads that call one dependency at the same
/// moment seldom meet, and no more than 1 KiB for each counter.
#[cfg(not(resilience_loom))]
pub(crate) const STRIPES: usize = 8;
/// Two threads on two stripes show every interleaving that more would.
#[cfg(resilience_loom)]
pub(crate) const STRIPES: usize = 2;

#[cfg(not(resilience_loom))]
mod turn {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The stripe of the next thread that asks.
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    std::thread_local! {
        pub(super) static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(super) fn next() -> usize {
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(resilience_loom)]
mod turn {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    loom::lazy_static! {
        /// Not one of the checker's atomics: which thread asks first changes no result.
        static ref NEXT: AtomicUsize = AtomicUsize::new(0);
    }

    loom::thread_local! {
        pub(super) static MINE: Cell<usize> = Cell::new(usize::MAX);
    }

    pub(super) fn next() -> usize {
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}

/// The stripe of this thread, below [`STRIPES`].
#[inline]
pub(crate) fn mine() -> usize {
    // A thread that is being torn down has lost its own; any stripe is right.
    turn::MINE
        .try_with(|mine| if mine.get() < STRIPES { mine.get() } else { choose(mine) })
        .unwrap_or(0)
}

#[cold]
fn choose(mine: &Cell<usize>) -> usize {
    mine.set(turn::next() % STRIPES);
    mine.get()
}

/// A number of events since it was made.
#[derive(Debug)]
pub(crate) struct Events([OwnLine<AtomicU64>; STRIPES]);

impl Events {
    pub(crate) fn none() -> Self {
        Events(std::array::from_fn(|_| OwnLine(AtomicU64::new(0))))
    }

    /// One more.
    #[inline]
    pub(crate) fn happened(&self) {
        self.0[mine()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many; those that happen meanwhile may be missing.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_thread_keeps_its_stripe_and_the_next_gets_another() {
        let first = std::thread::spawn(|| (mine(), mine())).join().unwrap();
        assert_eq!(first.0, first.1);
        let others: Vec<usize> =
            (0..4 * STRIPES).map(|_| std::thread::spawn(mine).join().unwrap()).collect();
        assert!(others.iter().all(|&stripe| stripe < STRIPES));
        // Other tests start threads too, so only that not all share one is certain.
        assert!(others.iter().any(|&stripe| stripe != others[0]));
    }

    #[test]
    fn events_of_all_threads_are_counted() {
        let events = Events::none();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..100).for_each(|_| events.happened()));
            }
        });
        assert_eq!(events.count(), 2 * STRIPES as u64 * 100);
    }
}
