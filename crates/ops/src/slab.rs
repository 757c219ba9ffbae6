//! [`Slab`]: values by ids, each there as long as somebody holds it.
//!
//! It is what spans are kept in. A request enters its span on every thread that works for it, and by then
//! a search has pushed everything else out of the processor's caches: finding a value touches its slot and
//! the pointer to the slot's chunk, and nothing else.
//!
//! Invariants: an id is given out once in 2^31 times that its slot is used, and an id whose value is gone
//! finds nothing. Slots are used again, the last one first; their number is that of the values that were
//! there at a time.

use crate::lock::lock;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// Slots of the first chunk; each further one has twice as many as the one before.
const FIRST: usize = 64;
/// Chunks until indices would need more than 31 bits.
const CHUNKS: usize = 26;
/// Lists of free slots: threads that begin and end values seldom meet.
const LISTS: usize = 8;
/// What an id says beside its slot: whatever its owner likes.
const MARK: u64 = 1 << 63;
/// The id of what has no slot: nobody finds it.
const NOWHERE: SlabId = u32::MAX as SlabId;
const GENERATIONS: u32 = (1 << 31) - 1;

/// An id, never 0.
pub(crate) type SlabId = u64;

/// Values by ids.
pub(crate) struct Slab<T> {
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    used: AtomicU32,
    free: [Mutex<Vec<u32>>; LISTS],
}

struct Slot<T> {
    /// The generation, 31 bits, and how many hold the value, 32 bits.
    state: AtomicU64,
    value: Mutex<Option<T>>,
}

/// Whether an id was marked by who inserted its value.
pub(crate) fn is_marked(id: SlabId) -> bool {
    id & MARK != 0
}

fn index_of(id: SlabId) -> u32 {
    (id as u32).wrapping_sub(1)
}

fn generation_of(id: SlabId) -> u32 {
    ((id & !MARK) >> 32) as u32
}

/// The chunk of a slot, and its place there.
fn place(index: u32) -> (usize, usize) {
    let nth = index as usize + FIRST;
    let chunk = nth.ilog2() - FIRST.ilog2();
    (chunk as usize, nth - (FIRST << chunk))
}

/// The list that this thread puts slots into.
fn own_list() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % LISTS);
    }
    // A thread that ends has none any more.
    OWN.try_with(Cell::get).unwrap_or(0)
}

impl<T> Slab<T> {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            used: AtomicU32::new(0),
            free: [const { Mutex::new(Vec::new()) }; LISTS],
        }
    }

    /// Keeps a value that one holds.
    pub(crate) fn insert(&self, value: T, marked: bool) -> SlabId {
        let index = self.free_slot();
        let Some(slot) = self.make(index) else { return NOWHERE };
        // Both under the lock: who comes with an old id finds the new generation or no value.
        let mut place = lock(&slot.value);
        *place = Some(value);
        let before = slot.state.load(Ordering::Relaxed);
        let generation = ((before >> 32) as u32 + 1) & GENERATIONS;
        slot.state.store(u64::from(generation) << 32 | 1, Ordering::Release);
        drop(place);
        let mark = if marked { MARK } else { 0 };
        mark | u64::from(generation) << 32 | u64::from(index + 1)
    }

    /// Hands a value to `visit`; nothing when it is gone. `visit` must not touch the same value.
    pub(crate) fn with<R>(&self, id: SlabId, visit: impl FnOnce(&mut T) -> R) -> Option<R> {
        let slot = self.slot(id)?;
        let mut value = lock(&slot.value);
        // Under the lock: whoever takes the value away holds it too.
        let there = slot.state.load(Ordering::Acquire) >> 32 == u64::from(generation_of(id));
        value.as_mut().filter(|_| there).map(visit)
    }

    /// One more holds it.
    pub(crate) fn hold(&self, id: SlabId) {
        if let Some(slot) = self.slot(id) {
            slot.state.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One less; answers the value when it was the last one. To be called once for each who holds it.
    pub(crate) fn release(&self, id: SlabId) -> Option<T> {
        let slot = self.slot(id)?;
        let before = slot.state.fetch_sub(1, Ordering::AcqRel);
        if before as u32 != 1 {
            return None;
        }
        let value = lock(&slot.value).take();
        lock(&self.free[own_list()]).push(index_of(id));
        value
    }

    /// The slot of an id whose value may be there.
    fn slot(&self, id: SlabId) -> Option<&Slot<T>> {
        let (chunk, at) = place(index_of(id));
        let slot = self.chunks.get(chunk)?.get()?.get(at)?;
        let state = slot.state.load(Ordering::Acquire);
        (state >> 32 == u64::from(generation_of(id)) && state as u32 > 0).then_some(slot)
    }

    /// The slot of this index, which may be the first of its chunk.
    fn make(&self, index: u32) -> Option<&Slot<T>> {
        let (chunk, at) = place(index);
        let empty = || Slot { state: AtomicU64::new(0), value: Mutex::new(None) };
        let make = || (0..FIRST << chunk).map(|_| empty()).collect();
        self.chunks.get(chunk)?.get_or_init(make).get(at)
    }

    /// A slot that nobody uses: one that was used on this thread, or on another one, or a new one.
    fn free_slot(&self) -> u32 {
        let own = own_list();
        let lists = self.free[own..].iter().chain(&self.free[..own]);
        let mut used = lists.filter_map(|list| lock(list).pop());
        used.next().unwrap_or_else(|| self.used.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_value_is_there_as_long_as_somebody_holds_it() {
        let slab = Slab::new();
        let id = slab.insert("one", false);
        slab.hold(id);
        assert_eq!(slab.with(id, |value| *value), Some("one"));
        assert_eq!(slab.release(id), None);
        assert_eq!(slab.with(id, |value| std::mem::replace(value, "two")), Some("one"));
        assert_eq!(slab.release(id), Some("two"));
        assert_eq!(slab.with(id, |value| *value), None);
        // Its slot is another one's now; the old id is nobody's.
        let other = slab.insert("three", true);
        assert!(is_marked(other) && !is_marked(id) && other != id);
        assert_eq!(index_of(other), index_of(id));
        assert_eq!((slab.release(id), slab.with(id, |value| *value)), (None, None));
        slab.hold(id);
        assert_eq!(slab.release(other), Some("three"));
        assert_eq!(slab.release(NOWHERE), None);
    }

    #[test]
    fn indices_fill_one_chunk_after_the_other() {
        assert_eq!((place(0), place(63)), ((0, 0), (0, 63)));
        assert_eq!((place(64), place(191), place(192)), ((1, 0), (1, 127), (2, 0)));
        let slab = Slab::new();
        let ids: Vec<SlabId> = (0..1_000).map(|n| slab.insert(n, n % 2 == 0)).collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(slab.with(*id, |value| *value), Some(n));
            assert_eq!(is_marked(*id), n % 2 == 0);
        }
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(slab.release(*id), Some(n));
        }
        assert_eq!(slab.used.load(Ordering::Relaxed), 1_000);
        for n in 0..1_000 {
            let _ = slab.insert(n, false);
        }
        assert_eq!(slab.used.load(Ordering::Relaxed), 1_000, "every slot is used again");
    }

    /// Values that begin on one thread and end on another neither meet nor pile up.
    #[test]
    fn threads_share_slots_without_mistaking_values() {
        let slab: Slab<u64> = Slab::new();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (send, receive) = std::sync::mpsc::sync_channel::<(SlabId, u64)>(16);
                let slab = &slab;
                scope.spawn(move || {
                    let mut seen = HashMap::new();
                    for (id, expected) in receive {
                        assert_eq!(slab.with(id, |value| *value), Some(expected));
                        assert_eq!(slab.release(id), None);
                        assert_eq!(slab.release(id), Some(expected));
                        assert!(seen.insert(id, expected).is_none(), "an id is given out once");
                    }
                });
                scope.spawn(move || {
                    for n in 0..5_000 {
                        let value = thread * 1_000_000 + n;
                        let id = slab.insert(value, false);
                        slab.hold(id);
                        send.send((id, value)).unwrap();
                    }
                });
            }
        });
        let slots = slab.used.load(Ordering::Relaxed);
        assert!(slots <= 4 * 20, "{slots} for 20 000 values of which some 80 were there at a time");
    }
}
