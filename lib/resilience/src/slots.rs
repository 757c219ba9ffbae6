//! Slots that calls hold while they run, and the queue of those that wait for one.
//!
//! Invariants:
//! - `word` holds the slots in use (low half) and the waiting calls (high half). The waiting half
//!   changes only under `queue`'s lock and always equals its length while nobody holds the lock.
//! - Nobody takes a slot past a waiting call. A slot that comes back while a call waits is handed
//!   over without becoming free in between.
//! - A waiting call is granted, cancelled or still in the queue: exactly one of the three.
//!
//! Cost under the lock: the logarithm of the calls that wait, to enter, to leave and to be granted, so
//! that a long queue does not hold up the calls that leave it.

use crate::context::Priority;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Which of several waiting calls of one priority goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum QueueOrder {
    /// The one that waits longest: fair.
    #[default]
    Fifo,
    /// The one that came last: under lasting overload some calls are served in time, where fifo
    /// serves all of them too late.
    Lifo,
}

const ONE_WAITING: u64 = 1 << 32;
const IN_USE_MASK: u64 = u32::MAX as u64;

/// The slots.
#[derive(Debug)]
pub(crate) struct Slots {
    word: AtomicU64,
    limit: AtomicU64,
    queue: Mutex<Queue>,
}

/// Where a call stands in the queue: the most important first, then as they came.
type Place = (Reverse<Priority>, u64);

/// The calls that wait.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Place, Arc<Waiter>>,
    /// Calls that ever waited.
    came: u64,
}

/// A call in the queue.
#[derive(Debug)]
pub(crate) struct Waiter {
    place: Place,
    state: Mutex<Waiting>,
    #[cfg(not(resilience_loom))]
    turn: std::sync::Condvar,
}

#[derive(Debug)]
enum Waiting {
    Queued(Option<Waker>),
    Granted,
}

/// What became of a call that asked for a slot and was ready to wait.
pub(crate) enum Entered {
    Taken,
    Queued(Arc<Waiter>),
    /// The queue is as long as it may be.
    Full,
}

impl Slots {
    pub(crate) fn new(limit: u32) -> Self {
        Slots {
            word: AtomicU64::new(0),
            limit: AtomicU64::new(u64::from(limit)),
            queue: Mutex::new(Queue::default()),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    pub(crate) fn in_use(&self) -> u64 {
        self.word.load(Ordering::Acquire) & IN_USE_MASK
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.word.load(Ordering::Acquire) >> 32
    }

    /// Takes a slot if fewer than `ceiling` are in use and nobody waits; the slots in use after it.
    #[inline]
    pub(crate) fn try_take(&self, ceiling: u64) -> Option<u64> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            // A waiting call makes the word larger than any ceiling.
            if word >= ceiling.min(IN_USE_MASK) {
                return None;
            }
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(word + 1),
                Err(seen) => word = seen,
            }
        }
    }

    /// Gives a slot back, to the next waiting call if there is one.
    #[inline]
    pub(crate) fn give_back(&self, order: QueueOrder) {
        let mut word = self.word.load(Ordering::Relaxed);
        while word < ONE_WAITING {
            match self.word.compare_exchange_weak(
                word,
                word - 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
        self.hand_over(order);
    }

    #[cold]
    fn hand_over(&self, order: QueueOrder) {
        let granted = {
            let mut queue = lock(&self.queue);
            let over_limit = self.in_use() > self.limit();
            let granted = if over_limit { None } else { queue.take_next(order) };
            // The slot goes to the call that waits no longer, or back.
            let gone = if granted.is_some() { ONE_WAITING } else { 1 };
            self.word.fetch_sub(gone, Ordering::AcqRel);
            granted
        };
        granted.iter().for_each(|waiter| waiter.grant());
    }

    /// Takes a slot, or a place in the queue if fewer than `queue_max` wait.
    pub(crate) fn enter(&self, priority: Priority, queue_max: usize, order: QueueOrder) -> Entered {
        let mut queue = lock(&self.queue);
        if queue.waiting.is_empty() && self.try_take(self.limit()).is_some() {
            return Entered::Taken;
        }
        if queue.waiting.len() >= queue_max {
            return Entered::Full;
        }
        // From here on a slot that comes back goes through the lock, so it is not missed; one that
        // came back in between is granted here.
        self.word.fetch_add(ONE_WAITING, Ordering::AcqRel);
        let waiter = Arc::new(Waiter {
            place: (Reverse(priority), queue.came),
            state: Mutex::new(Waiting::Queued(None)),
            #[cfg(not(resilience_loom))]
            turn: std::sync::Condvar::new(),
        });
        queue.came += 1;
        queue.waiting.insert(waiter.place, Arc::clone(&waiter));
        let granted = self.take_for_waiting(&mut queue, order);
        drop(queue);
        granted.iter().for_each(|waiter| waiter.grant());
        Entered::Queued(waiter)
    }

    /// Grants free slots to waiting calls, the queue's lock held.
    fn take_for_waiting(&self, queue: &mut Queue, order: QueueOrder) -> Vec<Arc<Waiter>> {
        let mut granted = Vec::new();
        while self.in_use() < self.limit() {
            let Some(waiter) = queue.take_next(order) else {
                break;
            };
            // One call fewer waits, one slot more is in use. While calls wait, slots in use only
            // change under the lock, so the limit still holds.
            self.word.fetch_sub(ONE_WAITING - 1, Ordering::AcqRel);
            granted.push(waiter);
        }
        granted
    }

    /// Leaves the queue; gives the slot back if it was granted meanwhile.
    pub(crate) fn leave(&self, waiter: &Arc<Waiter>, order: QueueOrder) {
        {
            let mut queue = lock(&self.queue);
            if queue.waiting.remove(&waiter.place).is_some() {
                self.word.fetch_sub(ONE_WAITING, Ordering::AcqRel);
                return;
            }
        }
        self.give_back(order);
    }

    /// Changes the limit; calls that wait get the slots that are new.
    pub(crate) fn set_limit(&self, limit: u64, order: QueueOrder) {
        // Under the lock that a call takes to wait: it sees the new limit, or is seen waiting.
        let granted = {
            let mut queue = lock(&self.queue);
            self.limit.store(limit, Ordering::Release);
            self.take_for_waiting(&mut queue, order)
        };
        granted.iter().for_each(|waiter| waiter.grant());
    }
}

impl Queue {
    /// Takes out the next call to be served.
    fn take_next(&mut self, order: QueueOrder) -> Option<Arc<Waiter>> {
        let (&first, _) = self.waiting.first_key_value()?;
        let place = match order {
            QueueOrder::Fifo => first,
            QueueOrder::Lifo => {
                let (priority, _) = first;
                let (&newest, _) = self.waiting.range(..=(priority, u64::MAX)).next_back()?;
                newest
            }
        };
        self.waiting.remove(&place)
    }
}

impl Waiter {
    fn grant(&self) {
        let before = std::mem::replace(&mut *lock(&self.state), Waiting::Granted);
        #[cfg(not(resilience_loom))]
        self.turn.notify_one();
        if let Waiting::Queued(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Ready once granted.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *lock(&self.state) {
            Waiting::Granted => Poll::Ready(()),
            Waiting::Queued(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// Blocks until granted, for at most `limit` of real time; whether it was.
    #[cfg(not(resilience_loom))]
    pub(crate) fn wait(&self, limit: std::time::Duration) -> bool {
        let queued = |state: &mut Waiting| matches!(state, Waiting::Queued(_));
        let (state, _) = self
            .turn
            .wait_timeout_while(lock(&self.state), limit, queued)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        matches!(*state, Waiting::Granted)
    }

    #[cfg(resilience_loom)]
    pub(crate) fn wait(&self, _: std::time::Duration) -> bool {
        matches!(*lock(&self.state), Waiting::Granted)
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_came_free_while_a_call_entered_goes_to_whoever_the_order_says() {
        for (order, newest_first) in [(QueueOrder::Fifo, false), (QueueOrder::Lifo, true)] {
            let slots = Slots::new(1);
            assert_eq!(slots.try_take(1), Some(1));
            let enter = || match slots.enter(Priority::Normal, 9, order) {
                Entered::Queued(waiter) => waiter,
                _ => panic!("there is room to wait"),
            };
            let first = enter();
            // What `give_back` leaves behind between its look at the word and the lock.
            slots.word.fetch_sub(1, Ordering::AcqRel);
            let second = enter();
            let granted = |waiter: &Waiter| matches!(*lock(&waiter.state), Waiting::Granted);
            assert_eq!((granted(&first), granted(&second)), (!newest_first, newest_first));
        }
    }

    /// Notices a queue whose cost grows with its length: not by a clock, but by never ending.
    #[test]
    fn a_long_queue_is_left_and_served_without_a_look_at_every_call_in_it() {
        const WAITING: usize = 50_000;
        for order in [QueueOrder::Fifo, QueueOrder::Lifo] {
            let slots = Slots::new(1);
            assert_eq!(slots.try_take(1), Some(1));
            let enter = |at: usize| {
                let priority = Priority::ALL[at % Priority::ALL.len()];
                match slots.enter(priority, WAITING, order) {
                    Entered::Queued(waiter) => waiter,
                    _ => panic!("there is room to wait"),
                }
            };
            let waiters: Vec<_> = (0..WAITING).map(enter).collect();
            // Half of them leave, the newest first; the others are served.
            waiters.iter().rev().step_by(2).for_each(|waiter| slots.leave(waiter, order));
            assert_eq!(slots.waiting() as usize, WAITING / 2);
            (0..WAITING / 2).for_each(|_| slots.give_back(order));
            assert_eq!((slots.waiting(), slots.in_use()), (0, 1));
        }
    }
}
