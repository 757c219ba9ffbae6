//! [`Resting`]: threads that wait for work, of which the last to come is the first to go.
//!
//! A condition variable wakes whoever waits longest, and that is whose stack, thread-locals and heap the
//! caches have forgotten. Work is handed to the thread that is woken: taken from a queue, another thread
//! could be there first, and the woken one would have been woken for nothing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The threads that wait for work; kept under the lock that the queue of work is kept under.
#[derive(Debug)]
pub struct Resting<J>(Vec<Arc<Seat<J>>>);

/// Where a thread waits, for as long as it lives.
#[derive(Debug)]
pub struct Seat<J> {
    given: Mutex<Option<J>>,
    wake: Condvar,
}

impl<J> Default for Resting<J> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<J> Default for Seat<J> {
    fn default() -> Self {
        Self { given: Mutex::new(None), wake: Condvar::new() }
    }
}

impl<J> Resting<J> {
    /// A thread is about to wait; once more is no other place.
    pub fn enter(&mut self, seat: &Arc<Seat<J>>) {
        if !self.0.iter().any(|other| Arc::ptr_eq(other, seat)) {
            self.0.push(Arc::clone(seat));
        }
    }

    /// A thread waits no longer; answers whether it still did as far as others knew.
    pub fn leave(&mut self, seat: &Arc<Seat<J>>) -> bool {
        let at = self.0.iter().rposition(|other| Arc::ptr_eq(other, seat));
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Hands a job to the thread that came last, and wakes it; answers the job when there is none.
    pub fn give(&mut self, job: J) -> Option<J> {
        let Some(seat) = self.0.pop() else { return Some(job) };
        *seat.lock() = Some(job);
        seat.wake.notify_one();
        None
    }

    /// Wakes all of them for nothing.
    pub fn wake_all(&mut self) {
        self.0.drain(..).for_each(|seat| seat.wake.notify_one());
    }
}

impl<J> Seat<J> {
    fn lock(&self) -> MutexGuard<'_, Option<J>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job that its thread was given.
    pub fn take(&self) -> Option<J> {
        self.lock().take()
    }

    /// Waits under the lock of the [`Resting`] that it is in; answers whether the time was over.
    pub fn wait<'a, S>(
        &self,
        state: MutexGuard<'a, S>,
        at_most: Duration,
    ) -> (MutexGuard<'a, S>, bool) {
        let waited = self.wake.wait_timeout(state, at_most);
        let (state, over) = waited.unwrap_or_else(PoisonError::into_inner);
        (state, over.timed_out())
    }
}
