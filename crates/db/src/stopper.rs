//! [`Stopper`]: asks background threads to end, and wakes those that wait.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A flag that threads can sleep on.
#[derive(Default)]
pub(crate) struct Stopper {
    set: Mutex<bool>,
    wake: Condvar,
}

impl Stopper {
    /// Asks for the end.
    pub(crate) fn stop(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Whether the end was asked for.
    pub(crate) fn is_set(&self) -> bool {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps for `time` or until the end is asked for; answers whether it was.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, _) = self
            .wake
            .wait_timeout_while(set, time, |set| !*set)
            .unwrap_or_else(PoisonError::into_inner);
        *set
    }
}
