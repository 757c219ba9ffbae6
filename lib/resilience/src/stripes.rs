//! Counters that many threads raise at once, each on a cache line of its own.
//!
//! Invariants:
//! - A stripe below [`OWNERS`] belongs to at most one living thread, which alone writes to it; what
//!   it wrote is seen by the thread that owns the stripe next.
//! - Which stripe a thread has decides the speed of a count and never its value, since whoever reads
//!   adds up all stripes.
//!
//! Source: Herlihy, Shavit, *The Art of Multiprocessor Programming*, chapter 12, on shared counting;
//! the form is that of Java's `LongAdder`, with stripes that are owned as far as they go.

use crate::sync::{AtomicU64, Ordering, OwnLine};
use std::cell::Cell;

/// Copies of each counter that threads share. 8: enough that two of the threads that call one
/// dependency at the same moment seldom meet, and no more than 1 KiB for each counter.
#[cfg(not(resilience_loom))]
pub(crate) const STRIPES: usize = 8;
/// Two threads on two stripes show every interleaving that more would.
#[cfg(resilience_loom)]
pub(crate) const STRIPES: usize = 2;

/// Copies of a number of events that have an owner, who counts without an atomic addition.
#[cfg(not(resilience_loom))]
const OWNERS: usize = 8;
/// One, so that two threads show both an owner and one without a stripe of its own.
#[cfg(resilience_loom)]
const OWNERS: usize = 1;

/// Copies of a number of events for the threads that own none.
const OTHERS: usize = if OWNERS < 4 { OWNERS } else { 4 };

/// The place of a thread that has not asked yet.
const UNKNOWN: usize = usize::MAX;

#[cfg(not(resilience_loom))]
mod turn {
    use super::{AtomicU64, Cell, Held, UNKNOWN};

    /// A bit for each stripe that has an owner.
    static OWNED: AtomicU64 = AtomicU64::new(0);
    /// How many threads came when all stripes had one.
    pub(super) static OTHERS_CAME: AtomicU64 = AtomicU64::new(0);

    pub(super) type Owned = &'static AtomicU64;

    pub(super) fn owned() -> Owned {
        &OWNED
    }

    std::thread_local! {
        /// Without a destructor, so that it is there as long as the thread runs anything.
        pub(super) static PLACE: Cell<usize> = const { Cell::new(UNKNOWN) };
        pub(super) static HELD: Held = const { Held(Cell::new(None)) };
    }
}

#[cfg(resilience_loom)]
mod turn {
    use super::{AtomicU64, Cell, Held, UNKNOWN};
    use loom::sync::Arc;

    loom::lazy_static! {
        static ref OWNED: Arc<AtomicU64> = Arc::new(AtomicU64::new(0));
        pub(super) static ref OTHERS_CAME: AtomicU64 = AtomicU64::new(0);
    }

    /// Shared, because the checker's statics go before the locals of its first thread.
    pub(super) type Owned = Arc<AtomicU64>;

    pub(super) fn owned() -> Owned {
        Arc::clone(&OWNED)
    }

    loom::thread_local! {
        pub(super) static PLACE: Cell<usize> = Cell::new(UNKNOWN);
        pub(super) static HELD: Held = Held(Cell::new(None));
    }
}

/// The stripe that a thread owns; it is free again when the thread ends.
struct Held(Cell<Option<(usize, turn::Owned)>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((stripe, owned)) = self.0.take() {
            // What the thread still counts while it is torn down goes to the stripes of all.
            let _ = turn::PLACE.try_with(|place| place.set(OWNERS));
            // Releases its counts to the next owner.
            owned.fetch_and(!(1 << stripe), Ordering::Release);
        }
    }
}

/// Makes the calling thread the owner of a stripe, if there is one left.
fn claim(owned: &turn::Owned) -> Option<usize> {
    let mut seen = owned.load(Ordering::Relaxed);
    loop {
        let free = seen.trailing_ones() as usize;
        if free >= OWNERS {
            return None;
        }
        // Acquires what the owner before counted.
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        match owned.compare_exchange_weak(seen, seen | 1 << free, acquire, relaxed) {
            Ok(_) => return Some(free),
            Err(now) => seen = now,
        }
    }
}

/// The place of this thread: below [`OWNERS`] the stripe it owns, above a number to spread the
/// others by.
#[inline]
fn place() -> usize {
    turn::PLACE
        .try_with(|place| if place.get() == UNKNOWN { choose(place) } else { place.get() })
        .unwrap_or(OWNERS)
}

#[cold]
fn choose(place: &Cell<usize>) -> usize {
    let claimed = turn::HELD.try_with(|held| {
        let owned = turn::owned();
        let stripe = claim(&owned)?;
        held.0.set(Some((stripe, owned)));
        Some(stripe)
    });
    let others = || OWNERS + turn::OTHERS_CAME.fetch_add(1, Ordering::Relaxed) as usize % 1_024;
    place.set(claimed.ok().flatten().unwrap_or_else(others));
    place.get()
}

/// The stripe of this thread, below [`STRIPES`], among those that threads share.
#[inline]
pub(crate) fn mine() -> usize {
    place() % STRIPES
}

/// A number of events since it was made.
#[derive(Debug)]
pub(crate) struct Events {
    owned: [OwnLine<AtomicU64>; OWNERS],
    others: [OwnLine<AtomicU64>; OTHERS],
}

impl Events {
    pub(crate) fn none() -> Self {
        Events {
            owned: std::array::from_fn(|_| OwnLine(AtomicU64::new(0))),
            others: std::array::from_fn(|_| OwnLine(AtomicU64::new(0))),
        }
    }

    /// One more.
    #[inline]
    pub(crate) fn happened(&self) {
        let place = place();
        if let Some(stripe) = self.owned.get(place) {
            // Nobody else writes to it.
            stripe.store(stripe.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            self.others[place % OTHERS].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many; those that happen meanwhile may be missing.
    pub(crate) fn count(&self) -> u64 {
        let stripes = self.owned.iter().chain(&self.others);
        stripes.map(|stripe| stripe.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_thread_keeps_its_stripe() {
        for _ in 0..2 * STRIPES {
            let [first, second] = std::thread::spawn(|| [mine(), mine()]).join().unwrap();
            assert_eq!(first, second);
            assert!(first < STRIPES);
        }
    }

    #[test]
    fn a_stripe_has_one_owner_at_a_time_and_a_new_one_after_the_thread_has_ended() {
        // More threads than stripes, living at once, several times over.
        for _ in 0..4 {
            let all_came = std::sync::Barrier::new(4 * OWNERS);
            let places = std::thread::scope(|scope| {
                let come = || {
                    let place = place();
                    all_came.wait();
                    place
                };
                let threads: Vec<_> = (0..4 * OWNERS).map(|_| scope.spawn(come)).collect();
                threads.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
            });
            let mut owned: Vec<_> = places.into_iter().filter(|&it| it < OWNERS).collect();
            owned.sort_unstable();
            let before = owned.len();
            owned.dedup();
            assert_eq!(owned.len(), before, "two threads own one stripe: {owned:?}");
        }
        // Other tests own stripes too, but not for ever.
        let is_owner = || std::thread::spawn(place).join().unwrap() < OWNERS;
        assert!((0..10_000).any(|_| is_owner()), "no stripe was given back");
    }

    #[test]
    fn what_a_thread_counts_while_it_is_torn_down_is_counted() {
        static EVENTS: std::sync::LazyLock<Events> = std::sync::LazyLock::new(Events::none);
        struct Late;
        impl Drop for Late {
            fn drop(&mut self) {
                EVENTS.happened();
            }
        }
        std::thread_local! {
            static EARLIER: Late = const { Late };
            static LATER: Late = const { Late };
        }
        for _ in 0..4 * OWNERS {
            let count = || {
                // Destructors run in either order: one of these is dropped after the owner.
                EARLIER.with(|_| ());
                EVENTS.happened();
                LATER.with(|_| ());
            };
            std::thread::spawn(count).join().unwrap();
        }
        assert_eq!(EVENTS.count(), 3 * 4 * OWNERS as u64);
    }

    #[test]
    fn events_of_all_threads_are_counted() {
        let events = Events::none();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..10_000).for_each(|_| events.happened()));
            }
        });
        assert_eq!(events.count(), 2 * STRIPES as u64 * 10_000);
    }
}
