//! [`Maintenance`]: the one background thread that merges segments and compacts logs, within a
//! bound on the bytes it reads each second.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes of merging a second, averaged: half of what a cheap cloud disk delivers, so that searches
/// that miss the page cache keep the other half.
pub(crate) const BYTES_PER_SECOND: u64 = 64 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// Runs background work one piece at a time.
pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(u64, Job)>,
    /// Whether a piece of work runs, or its rest.
    busy: bool,
    closed: bool,
}

impl Maintenance {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        let thread = thread::Builder::new().name("maintenance".into()).spawn(move || mine.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues work that reads about `bytes`. Each view has at most one piece queued, so the queue
    /// is as bounded as the number of collections.
    pub(crate) fn submit(&self, bytes: u64, job: Job) {
        let mut queue = self.shared.lock();
        if !queue.closed {
            queue.jobs.push_back((bytes, job));
            self.shared.wake.notify_one();
        }
    }

    /// How many pieces of work are queued or under way.
    pub(crate) fn pending(&self) -> usize {
        let queue = self.shared.lock();
        queue.jobs.len() + usize::from(queue.busy)
    }

    /// Ends after the piece that runs; drops what is queued.
    pub(crate) fn close(&self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.wake.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A job's panic was caught inside the job; a thread that ended early has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        crate::priority::yield_to_searches();
        loop {
            let mut queue = self.lock();
            queue.busy = false;
            let (bytes, job) = loop {
                if queue.closed {
                    return;
                }
                if let Some(job) = queue.jobs.pop_front() {
                    queue.busy = true;
                    break job;
                }
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            self.rest(bytes);
        }
    }

    /// Sleeps as long as reading `bytes` may take at the bounded rate, or until closed.
    fn rest(&self, bytes: u64) {
        let time = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64);
        let queue = self.lock();
        drop(self.wake.wait_timeout_while(queue, time, |queue| !queue.closed));
    }
}
