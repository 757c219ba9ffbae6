//! What waits for the disk: appends in the order in which they were submitted.
//!
//! Invariants:
//! - Sequence numbers follow the order of `submit`.
//! - Bytes waiting stay within the bound, except that one append is always taken by an empty
//!   queue.
//! - Every ticket is answered, also when the log is closed or poisoned.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::LogError;
use super::record::{Appended, Class, Record};

/// A submitted append.
#[derive(Debug)]
pub struct Ticket {
    slot: Arc<Slot>,
}

impl Ticket {
    /// Blocks until the append is durable or has failed.
    pub fn wait(self) -> Result<Appended, LogError> {
        let mut answer = self.slot.lock();
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            answer = self.slot.answered.wait(answer).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    answer: Mutex<Option<Result<Appended, LogError>>>,
    answered: Condvar,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Result<Appended, LogError>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One append in the queue. Dropped without an answer it answers that the log is closed.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) records: Vec<Record>,
    pub(crate) class: Class,
    pub(crate) bytes: u64,
    slot: Arc<Slot>,
}

impl Submission {
    pub(crate) fn new(records: Vec<Record>, class: Class, bytes: u64) -> (Self, Ticket) {
        let slot = Arc::new(Slot::default());
        let ticket = Ticket { slot: Arc::clone(&slot) };
        (Self { records, class, bytes, slot }, ticket)
    }

    pub(crate) fn answer(self, answer: Result<Appended, LogError>) {
        *self.slot.lock() = Some(answer);
        self.slot.answered.notify_one();
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        self.slot.lock().get_or_insert(Err(LogError::Closed));
        self.slot.answered.notify_one();
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    bytes_max: u64,
    wait_max: Duration,
    inner: Mutex<Inner>,
    /// Something was submitted, or the queue was closed.
    filled: Condvar,
    /// Something was taken, or the queue was closed.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Submission>,
    bytes: u64,
    closed: bool,
}

/// What the writer finds.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Appends for one frame.
    Group(Vec<Submission>),
    /// Nothing came in the time given.
    Idle,
    /// Nothing is left and nothing will come.
    Closed,
}

impl Queue {
    pub(crate) fn new(bytes_max: u64, wait_ms_max: u64) -> Self {
        Self {
            bytes_max,
            wait_max: Duration::from_millis(wait_ms_max),
            inner: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
        }
    }

    /// Adds an append, waiting for room as long as the options say.
    pub(crate) fn push(&self, submission: Submission) -> Result<(), LogError> {
        let begun = Instant::now();
        let mut inner = self.lock();
        while !inner.closed && inner.bytes > 0 && inner.bytes + submission.bytes > self.bytes_max {
            let left = self.wait_max.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(LogError::QueueFull {
                    queued_bytes: inner.bytes,
                    queued_bytes_max: self.bytes_max,
                    waited_ms: begun.elapsed().as_millis() as u64,
                });
            }
            let waited = self.drained.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if inner.closed {
            return Err(LogError::Closed);
        }
        inner.bytes += submission.bytes;
        inner.waiting.push_back(submission);
        self.filled.notify_one();
        Ok(())
    }

    /// Bytes that wait, and that may wait.
    pub(crate) fn depth(&self) -> (u64, u64) {
        (self.lock().bytes, self.bytes_max)
    }

    /// Takes what waits, up to `bytes_max`, at least one append. Waits for something, no longer
    /// than `timeout` where one is given.
    pub(crate) fn take(&self, bytes_max: u64, timeout: Option<Duration>) -> Taken {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut inner = self.lock();
        while inner.waiting.is_empty() {
            if inner.closed {
                return Taken::Closed;
            }
            inner = match deadline {
                None => self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Taken::Idle;
                    }
                    let waited = self.filled.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let mut group: Vec<Submission> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = inner.waiting.front()
            && (group.is_empty() || bytes + next.bytes <= bytes_max)
            && let Some(submission) = inner.waiting.pop_front()
        {
            bytes += submission.bytes;
            group.push(submission);
        }
        inner.bytes -= bytes;
        self.drained.notify_all();
        Taken::Group(group)
    }

    /// Takes no more appends; those that wait are still handed out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
