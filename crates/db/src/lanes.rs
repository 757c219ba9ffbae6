//! [`Lanes`]: the bounded CPU pool on which methods run side by side.
//!
//! Each method has threads and a bounded queue of its own, so a method that hangs uses up its own
//! lane and nobody else's. A thread that has been stuck for [`STUCK_AFTER`] is written off and
//! replaced, up to [`REPLACEMENTS_MAX`] of them; should it come back, it ends.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_search::method::Method;

use crate::resting::{Resting, Seat};

/// How many requests may wait for one method; at a millisecond each, later ones would miss any
/// sensible deadline.
const QUEUE_MAX: usize = 256;
/// A thread busy for this long is counted as lost: far beyond the longest deadline of a request.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Lost threads that are replaced in one lane, so that a method that always hangs cannot fill the
/// process with threads. The breaker lets only a few calls through to such a method anyway.
const REPLACEMENTS_MAX: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// The lanes of all methods.
pub(crate) struct Lanes {
    lanes: [Arc<Lane>; 4],
}

struct Lane {
    method: Method,
    threads: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    resting: Resting<Job>,
    /// When each busy thread took its job, by thread.
    busy: Vec<(u64, Instant)>,
    /// Threads that were written off and have not come back.
    lost: Vec<u64>,
    alive: usize,
    next_thread: u64,
    closed: bool,
}

/// A lane cannot take one more job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneFull {
    /// The bound on waiting jobs.
    pub(crate) queue_max: usize,
}

impl Lanes {
    /// Starts `threads` threads for each method.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let lanes = Method::ALL.map(|method| {
            Arc::new(Lane { method, threads: threads.max(1), state: Mutex::default() })
        });
        for lane in &lanes {
            for _ in 0..lane.threads {
                Lane::spawn(lane)?;
            }
        }
        Ok(Self { lanes })
    }

    /// Queues a job for a method's threads.
    pub(crate) fn submit(&self, method: Method, job: Job) -> Result<(), LaneFull> {
        let lane = &self.lanes[method as usize];
        let replace = {
            let mut state = lane.lock();
            if state.queue.len() >= QUEUE_MAX {
                return Err(LaneFull { queue_max: QUEUE_MAX });
            }
            if let Some(job) = state.resting.give(job) {
                state.queue.push_back(job);
            }
            state.write_off()
        };
        if replace && let Err(error) = Lane::spawn(lane) {
            tracing::error!(%method, %error, "cannot replace a stuck search thread");
        }
        Ok(())
    }
}

/// What one method's threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneFigures {
    /// The method.
    pub method: Method,
    /// Its threads.
    pub threads: usize,
    /// Threads that are at work.
    pub busy: usize,
    /// Searches that wait for a thread.
    pub queued: usize,
    /// Threads that were stuck, written off and have not come back.
    pub lost: usize,
}

impl Lanes {
    /// What each method's threads do.
    pub(crate) fn figures(&self) -> [LaneFigures; 4] {
        [0, 1, 2, 3].map(|at| {
            let lane = &self.lanes[at];
            let state = lane.lock();
            LaneFigures {
                method: lane.method,
                threads: state.alive,
                busy: state.busy.len(),
                queued: state.queue.len(),
                lost: state.lost.len(),
            }
        })
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // Threads are not joined: one that hangs would hang the shutdown too.
        for lane in &self.lanes {
            let mut state = lane.lock();
            state.closed = true;
            state.queue.clear();
            state.resting.wake_all();
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(lane: &Arc<Self>) -> io::Result<()> {
        let thread = {
            let mut state = lane.lock();
            state.alive += 1;
            state.next_thread += 1;
            state.next_thread
        };
        let mine = Arc::clone(lane);
        let name = format!("{}-{thread}", lane.method);
        thread::Builder::new().name(name).spawn(move || mine.run(thread)).map(drop).inspect_err(
            |_| {
                lane.lock().alive -= 1;
            },
        )
    }

    fn run(&self, thread: u64) {
        crate::priority::yield_to_requests();
        let me = Arc::new(Seat::default());
        loop {
            let job = {
                let mut state = self.lock();
                loop {
                    if state.closed {
                        return;
                    }
                    if let Some(job) = me.take().or_else(|| state.queue.pop_front()) {
                        state.busy.push((thread, Instant::now()));
                        break job;
                    }
                    state.resting.enter(&me);
                    (state, _) = me.wait(state, Duration::MAX);
                }
            };
            // The thread must outlive any job; what a panic means is decided by who made the job.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let mut state = self.lock();
            state.busy.retain(|(busy, _)| *busy != thread);
            if let Some(at) = state.lost.iter().position(|lost| *lost == thread) {
                state.lost.swap_remove(at);
                state.alive -= 1;
                return;
            }
        }
    }
}

impl State {
    /// Writes off one thread that is stuck; answers whether another should take its place.
    fn write_off(&mut self) -> bool {
        if self.lost.len() >= REPLACEMENTS_MAX {
            return false;
        }
        let Some(at) = self.busy.iter().position(|(_, since)| since.elapsed() > STUCK_AFTER) else {
            return false;
        };
        let (thread, _) = self.busy.swap_remove(at);
        self.lost.push(thread);
        true
    }
}

/// Processor cores, at least 1.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_method_that_hangs_leaves_the_others_their_lanes() {
        let lanes = Lanes::start(1).unwrap();
        let (release, held) = mpsc::channel::<()>();
        lanes.submit(Method::Native, Box::new(move || while held.recv().is_ok() {})).unwrap();
        let (done, answered) = mpsc::channel();
        lanes.submit(Method::Bm25, Box::new(move || done.send(()).unwrap())).unwrap();
        answered.recv().unwrap();
        drop(release);
    }

    #[test]
    fn a_panic_does_not_end_the_thread() {
        let lanes = Lanes::start(1).unwrap();
        lanes.submit(Method::Bm25, Box::new(|| panic!("on purpose"))).unwrap();
        let (done, answered) = mpsc::channel();
        lanes.submit(Method::Bm25, Box::new(move || done.send(()).unwrap())).unwrap();
        answered.recv().unwrap();
    }

    #[test]
    fn a_full_queue_is_an_error_with_its_bound() {
        let lanes = Lanes::start(1).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        lanes
            .submit(
                Method::Native,
                Box::new(move || {
                    started.send(()).unwrap();
                    while held.recv().is_ok() {}
                }),
            )
            .unwrap();
        running.recv().unwrap();
        for _ in 0..QUEUE_MAX {
            lanes.submit(Method::Native, Box::new(|| {})).unwrap();
        }
        let full = lanes.submit(Method::Native, Box::new(|| {}));
        assert_eq!(full, Err(LaneFull { queue_max: QUEUE_MAX }));
        drop(release);
    }
}
