//! [`Resting`]: threads that wait for work, of which the last to come is the first to go.
//!
//! A condition variable wakes whoever waits longest, and that is whose stack, thread-locals and heap the
//! caches have forgotten.

use std::sync::{Arc, Condvar};

/// The threads that wait for work; kept under the lock that the work is kept under.
#[derive(Debug, Default)]
pub struct Resting(Vec<Arc<Condvar>>);

impl Resting {
    /// Where a thread waits, for as long as it lives.
    #[must_use]
    pub fn seat() -> Arc<Condvar> {
        Arc::default()
    }

    /// A thread is about to wait; once more is no other place.
    pub fn enter(&mut self, seat: &Arc<Condvar>) {
        if !self.0.iter().any(|other| Arc::ptr_eq(other, seat)) {
            self.0.push(Arc::clone(seat));
        }
    }

    /// A thread waits no longer; answers whether it still did as far as others knew.
    pub fn leave(&mut self, seat: &Arc<Condvar>) -> bool {
        let at = self.0.iter().rposition(|other| Arc::ptr_eq(other, seat));
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Wakes the thread that came last; answers whether there was one.
    pub fn wake_last(&mut self) -> bool {
        self.0.pop().is_some_and(|seat| {
            seat.notify_one();
            true
        })
    }

    /// Wakes all of them.
    pub fn wake_all(&mut self) {
        while self.wake_last() {}
    }
}
