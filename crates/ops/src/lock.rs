//! Locks that outlive a panic of somebody who held them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, ignoring poison: no foreign code runs inside a lock of this crate, so what it
/// guards is consistent even after a panic elsewhere on that thread.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
