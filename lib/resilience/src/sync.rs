//! The atomics and locks every policy is built from, so that a model checker can stand in for them.

#[cfg(resilience_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicU64};
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(resilience_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};

/// Locks `mutex`, ignoring poison.
///
/// Operations, handlers, observers, judges, and what users put into a cache or a queue run, are compared
/// and are dropped outside this crate's locks. What runs inside them beside the crate's own code is a
/// runtime's waker, copied where a call begins to wait, and a time source given with the clock; both
/// before anything is changed there. So a poisoned lock still guards consistent data.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Reads in the one order that all sequentially consistent operations have.
///
/// The model checker takes such a load for an acquiring one, which may miss what came before it in
/// that order. There it is an addition of zero, which misses nothing either.
#[inline]
pub(crate) fn load_in_order(cell: &AtomicU64) -> u64 {
    #[cfg(resilience_loom)]
    return cell.fetch_add(0, Ordering::SeqCst);
    #[cfg(not(resilience_loom))]
    cell.load(Ordering::SeqCst)
}

/// Keeps its content on cache lines of its own, so that writers beside it do not slow its readers.
///
/// 128 bytes: two lines of 64, because the adjacent-line prefetcher of x86 pairs them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct OwnLine<T>(pub(crate) T);

impl<T> std::ops::Deref for OwnLine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
