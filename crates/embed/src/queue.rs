//! The bounded queue between callers and workers.
//!
//! Invariants: `passages` and `passage_bytes` are exactly those of the texts that no worker has
//! taken yet; a job leaves the queue when its last text is taken, when it fails or when its caller
//! goes; after `close` nothing is in it and nothing comes in.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::counters::PoolCounters;
use crate::error::EmbedError;
use crate::job::{Job, QueryTask};

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    limits: QueueLimits,
}

#[derive(Debug)]
pub(crate) struct QueueLimits {
    pub(crate) queries_max: usize,
    pub(crate) passages_max: usize,
    pub(crate) passage_bytes_max: usize,
}

/// What a worker may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Queries, and passages when none waits.
    All,
    /// Queries only.
    QueriesOnly,
}

/// What a worker got.
pub(crate) enum Task {
    Query(Arc<QueryTask>),
    /// Some texts of a job, by their positions.
    Slice(Arc<Job>, Vec<usize>),
    /// The pool is closing.
    Close,
}

#[derive(Debug, Default)]
struct State {
    queries: VecDeque<Arc<QueryTask>>,
    jobs: VecDeque<QueuedJob>,
    passages: usize,
    passage_bytes: usize,
    closed: bool,
    /// Workers that have not gone home.
    workers: usize,
}

#[derive(Debug)]
struct QueuedJob {
    job: Arc<Job>,
    /// Positions of the texts not taken yet, longest first: taken from the end, so that texts of
    /// like length are embedded together.
    left: Vec<usize>,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), limits }
    }

    pub(crate) fn push_query(&self, task: Arc<QueryTask>) -> Result<(), EmbedError> {
        let mut state = self.lock();
        if state.closed {
            return Err(EmbedError::Closed);
        }
        full("queries", state.queries.len(), 1, self.limits.queries_max)?;
        state.queries.push_back(task);
        drop(state);
        // All, because a worker that may not take it could swallow a single call.
        self.changed.notify_all();
        Ok(())
    }

    pub(crate) fn push_job(&self, job: Arc<Job>) -> Result<(), EmbedError> {
        let mut left: Vec<usize> = (0..job.texts.len()).collect();
        left.sort_by_key(|at| std::cmp::Reverse(job.texts[*at].len()));
        let bytes: usize = job.texts.iter().map(String::len).sum();
        let mut state = self.lock();
        if state.closed {
            return Err(EmbedError::Closed);
        }
        full("passages", state.passages, left.len(), self.limits.passages_max)?;
        full("passage bytes", state.passage_bytes, bytes, self.limits.passage_bytes_max)?;
        if left.is_empty() {
            return Ok(());
        }
        state.passages += left.len();
        state.passage_bytes += bytes;
        state.jobs.push_back(QueuedJob { job, left });
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for something that `lane` may take. `rest_until` is asked anew at each wake-up for
    /// the time before which no passages may be taken.
    pub(crate) fn take(&self, lane: Lane, rest_until: impl Fn() -> Option<Instant>) -> Task {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Task::Close;
            }
            if let Some(query) = state.queries.pop_front() {
                return Task::Query(query);
            }
            let now = Instant::now();
            let rest = rest_until().map(|end| end.saturating_duration_since(now));
            let rest = rest.filter(|rest| !rest.is_zero());
            if lane == Lane::All && rest.is_none() && !state.jobs.is_empty() {
                return state.take_slice();
            }
            state = match rest.filter(|_| lane == Lane::All && !state.jobs.is_empty()) {
                Some(rest) => match self.changed.wait_timeout(state, rest) {
                    Ok((state, _)) => state,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Takes `task` out if no worker has it yet.
    pub(crate) fn forget_query(&self, task: &Arc<QueryTask>) {
        self.lock().queries.retain(|queued| !Arc::ptr_eq(queued, task));
    }

    /// Takes what is left of `job` out.
    pub(crate) fn forget_job(&self, job: &Arc<Job>) {
        let mut state = self.lock();
        let Some(at) = state.jobs.iter().position(|queued| Arc::ptr_eq(&queued.job, job)) else {
            return;
        };
        if let Some(queued) = state.jobs.remove(at) {
            state.passages -= queued.left.len();
            state.passage_bytes -= queued.bytes();
        }
    }

    pub(crate) fn wake_all(&self) {
        // Taken and released so that a worker between its check and its wait is not missed.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Empties the queue, failing everybody who waits, and sends the workers home.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        let closed = State { closed: true, workers: state.workers, ..State::default() };
        let waiting = std::mem::replace(&mut *state, closed);
        drop(state);
        waiting.queries.iter().for_each(|query| query.finish(Err(EmbedError::Closed)));
        waiting.jobs.iter().for_each(|queued| queued.job.fail(EmbedError::Closed));
        self.changed.notify_all();
    }

    pub(crate) fn worker_comes(&self) {
        self.lock().workers += 1;
    }

    pub(crate) fn worker_goes(&self) {
        self.lock().workers -= 1;
        self.changed.notify_all();
    }

    /// Waits until all workers have gone home, at most `patience`. Says whether they have.
    pub(crate) fn wait_for_workers(&self, patience: Duration) -> bool {
        let busy = |state: &mut State| state.workers > 0;
        match self.changed.wait_timeout_while(self.lock(), patience, busy) {
            Ok((_, result)) => !result.timed_out(),
            Err(_) => false,
        }
    }

    pub(crate) fn count(&self, counters: &mut PoolCounters) {
        let state = self.lock();
        counters.queries_queued = state.queries.len();
        counters.passages_queued = state.passages;
        counters.passage_bytes_queued = state.passage_bytes;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that runs under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next texts of the first job; there is one.
    fn take_slice(&mut self) -> Task {
        let queued = self.jobs.front_mut().expect("the caller saw a job under the same lock");
        let job = Arc::clone(&queued.job);
        let begin = queued.left.len().saturating_sub(job.model.batch_texts().max(1));
        let slice = queued.left.split_off(begin);
        if queued.left.is_empty() {
            self.jobs.pop_front();
        }
        self.passages -= slice.len();
        self.passage_bytes -= bytes_of(&job, &slice);
        Task::Slice(job, slice)
    }
}

impl QueuedJob {
    fn bytes(&self) -> usize {
        bytes_of(&self.job, &self.left)
    }
}

fn bytes_of(job: &Job, positions: &[usize]) -> usize {
    positions.iter().map(|at| job.texts[*at].len()).sum()
}

fn full(what: &'static str, queued: usize, more: usize, max: usize) -> Result<(), EmbedError> {
    match queued.checked_add(more).is_some_and(|sum| sum <= max) {
        true => Ok(()),
        false => Err(EmbedError::QueueFull { what, queued, queued_max: max }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hash_model::HashModel;
    use std::sync::atomic::{AtomicBool, Ordering};

    const HOUR: Duration = Duration::from_secs(3600);

    fn queue_with_a_passage() -> Queue {
        let limits = QueueLimits { queries_max: 1, passages_max: 1, passage_bytes_max: 1 };
        let queue = Queue::new(limits);
        let model = Arc::new(HashModel::new(4, 1));
        queue.push_job(Arc::new(Job::new(model, vec!["a".into()]))).unwrap();
        queue
    }

    fn an_hour_of_rest() -> Option<Instant> {
        Some(Instant::now() + HOUR)
    }

    #[test]
    fn a_resting_worker_takes_queries_and_no_passages() {
        let queue = queue_with_a_passage();
        let model = Arc::new(HashModel::new(4, 1));
        let query = QueryTask::new(model, "q", Instant::now() + HOUR);
        queue.push_query(Arc::new(query)).unwrap();
        assert!(matches!(queue.take(Lane::All, an_hour_of_rest), Task::Query(_)));
        assert!(matches!(queue.take(Lane::All, || None), Task::Slice(..)));
    }

    #[test]
    fn a_rest_that_is_shortened_ends_at_once() {
        let queue = queue_with_a_passage();
        let rested = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let rest = || (!rested.load(Ordering::SeqCst)).then(|| Instant::now() + HOUR);
                matches!(queue.take(Lane::All, rest), Task::Slice(..))
            });
            rested.store(true, Ordering::SeqCst);
            queue.wake_all();
            assert!(worker.join().unwrap());
        });
    }

    #[test]
    fn the_query_lane_leaves_passages_alone() {
        let queue = queue_with_a_passage();
        std::thread::scope(|scope| {
            let lane = scope.spawn(|| queue.take(Lane::QueriesOnly, || None));
            let model = Arc::new(HashModel::new(4, 1));
            let query = QueryTask::new(model, "q", Instant::now() + HOUR);
            queue.push_query(Arc::new(query)).unwrap();
            assert!(matches!(lane.join().unwrap(), Task::Query(_)));
        });
    }

    #[test]
    fn a_closed_queue_takes_nothing_in() {
        let queue = queue_with_a_passage();
        queue.close();
        let model: Arc<HashModel> = Arc::new(HashModel::new(4, 1));
        let job = Arc::new(Job::new(model, vec!["a".into()]));
        assert!(matches!(queue.push_job(job), Err(EmbedError::Closed)));
        assert!(matches!(queue.take(Lane::All, || None), Task::Close));
    }
}
