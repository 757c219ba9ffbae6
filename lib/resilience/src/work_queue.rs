//! A bounded queue with workers: priorities, a timeout for waiting, shedding by age, and a pressure
//! that producers can see.
//!
//! Invariants: `depth` never exceeds the capacity; a job is handled, refused or shed, exactly one
//! of the three, and its handle hears which; workers end when the last handle on the queue closes
//! it, and [`Workers`] joins them.

use crate::clock::{Clock, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::context::Priority;
use crate::human_duration::check_duration;
use crate::rejection::{PolicyKind, Reason, Rejection};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

/// Everything a queue can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueConfig {
    /// Jobs that may wait, 1 to 1 000 000. Default 1 000.
    pub capacity: u32,
    /// Threads that work, 1 to 1 024. Default 4.
    pub workers: u32,
    /// A job that waited longer than this is refused instead of handled, 1 ms to 1 h. Default 30 s:
    /// whoever sent it has likely given up.
    pub wait_max: Duration,
    /// When the oldest job is older than this, new jobs below [`Priority::High`] are refused,
    /// 1 ms to 1 h. Default 5 s: a standing queue delays everybody and helps nobody.
    pub shed_age: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        QueueConfig {
            capacity: 1_000,
            workers: 4,
            wait_max: Duration::from_secs(30),
            shed_age: Duration::from_secs(5),
        }
    }
}

impl QueueConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (ms, hour) = (Duration::from_millis(1), Duration::from_secs(3_600));
        check_range("capacity", self.capacity, 1, 1_000_000)?;
        check_range("workers", self.workers, 1, 1_024)?;
        check_duration("wait_max", self.wait_max, ms, hour)?;
        check_duration("shed_age", self.shed_age, ms, hour)
    }
}

/// How a queue stands, for producers to slow down by and for dashboards.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pressure {
    /// Jobs waiting.
    pub depth: usize,
    /// Jobs that may wait.
    pub capacity: usize,
    /// How long the oldest has waited.
    pub oldest_age: Duration,
    /// The fuller of depth over capacity and age over the shedding age, 0 to 1 and above. Slow
    /// down from 0.5, stop from 1.
    pub level: f64,
}

/// A bounded queue of jobs `J` with results `R`. Clones share it.
///
/// ```
/// use mainstay_resilience::{Clock, Priority, QueueConfig, WorkQueue};
///
/// let (queue, workers) =
///     WorkQueue::start("index", QueueConfig::default(), Clock::system(), |n: u64| n * 2)?;
/// let doubled = queue.submit(21, Priority::Normal).expect("there is room");
/// assert_eq!(doubled.wait(), Ok(42));
/// drop(queue);
/// workers.join();
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
pub struct WorkQueue<J, R>(Arc<Shared<J, R>>);

impl<J, R> Clone for WorkQueue<J, R> {
    fn clone(&self) -> Self {
        lock(&self.0.state).handles += 1;
        WorkQueue(Arc::clone(&self.0))
    }
}

impl<J, R> Drop for WorkQueue<J, R> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.handles -= 1;
        if state.handles == 0 {
            state.closed = true;
            self.0.work.notify_all();
        }
    }
}

struct Shared<J, R> {
    name: Arc<str>,
    config: QueueConfig,
    clock: Clock,
    state: Mutex<State<J, R>>,
    work: Condvar,
}

struct State<J, R> {
    levels: [VecDeque<Queued<J, R>>; 5],
    depth: usize,
    handles: usize,
    closed: bool,
    shed: u64,
}

struct Queued<J, R> {
    job: J,
    since: Tick,
    answer: Arc<Slot<R>>,
}

/// What a job came to.
type JobResult<R> = Result<R, Rejection>;

struct Slot<R> {
    state: Mutex<(Option<JobResult<R>>, Option<Waker>)>,
    ready: Condvar,
}

/// Poison is ignored: a handler runs outside every lock here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a job, to be waited for or awaited. Dropping it lets the job run unheard.
#[must_use = "a result that nobody waits for is lost"]
pub struct JobHandle<R>(Arc<Slot<R>>);

impl<R> JobHandle<R> {
    /// Blocks until the job is handled or refused.
    ///
    /// # Errors
    /// The refusal: it waited too long, its handler panicked or the queue was closed.
    pub fn wait(self) -> Result<R, Rejection> {
        let mut state = lock(&self.0.state);
        loop {
            if let Some(result) = state.0.take() {
                return result;
            }
            state = self.0.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<R> Future for JobHandle<R> {
    type Output = Result<R, Rejection>;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0.state);
        match state.0.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<R> Slot<R> {
    fn answer(&self, result: Result<R, Rejection>) {
        let waker = {
            let mut state = lock(&self.state);
            state.0 = Some(result);
            state.1.take()
        };
        self.ready.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The threads of a queue. Joining waits for the jobs that are queued; dropping joins.
#[must_use = "dropping the workers waits for them"]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Waits until the queue is closed, which happens when its last handle is dropped, and every
    /// job in it is done.
    pub fn join(mut self) {
        self.join_all();
    }

    fn join_all(&mut self) {
        for thread in self.threads.drain(..) {
            // A worker catches its handler's panics, so there is nothing to learn here.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.join_all();
    }
}

impl<J: Send + 'static, R: Send + 'static> WorkQueue<J, R> {
    /// Starts the workers. A handler that panics refuses its job and goes on with the next.
    ///
    /// # Errors
    /// The first field that is out of its range, or that a thread cannot be started.
    pub fn start(
        name: impl Into<Arc<str>>,
        config: QueueConfig,
        clock: Clock,
        handler: impl Fn(J) -> R + Send + Sync + 'static,
    ) -> Result<(Self, Workers), ConfigError> {
        config.validate()?;
        let queue = WorkQueue(Arc::new(Shared {
            name: name.into(),
            config,
            clock,
            state: Mutex::new(State {
                levels: std::array::from_fn(|_| VecDeque::new()),
                depth: 0,
                handles: 1,
                closed: false,
                shed: 0,
            }),
            work: Condvar::new(),
        }));
        let handler = Arc::new(handler);
        let mut workers = Workers { threads: Vec::new() };
        for index in 0..config.workers {
            let (shared, handler) = (Arc::clone(&queue.0), Arc::clone(&handler));
            let builder = std::thread::Builder::new().name(format!("{}-{index}", shared.name));
            match builder.spawn(move || shared.work_off(&*handler)) {
                Ok(thread) => workers.threads.push(thread),
                Err(error) => {
                    drop(queue);
                    let allowed = format!("fewer threads: {error}");
                    return Err(ConfigError::new("workers", config.workers, allowed));
                }
            }
        }
        Ok((queue, workers))
    }

    /// Queues a job.
    ///
    /// # Errors
    /// The refusal: the queue is full, or too old for this priority.
    pub fn submit(&self, job: J, priority: Priority) -> Result<JobHandle<R>, Rejection> {
        let shared = &*self.0;
        let now = shared.clock.now();
        let mut state = lock(&shared.state);
        let capacity = shared.config.capacity as usize;
        if state.depth >= capacity {
            let (limit, waiting) = (u64::from(shared.config.workers), state.depth as u64);
            return Err(shared.refuse(Reason::Full { limit, waiting }));
        }
        if priority < Priority::High && state.oldest_age(now) > shared.config.shed_age {
            state.shed += 1;
            let admitted_from = Priority::High.level();
            return Err(shared.refuse(Reason::PriorityTooLow { admitted_from }));
        }
        let answer = Arc::new(Slot { state: Mutex::new((None, None)), ready: Condvar::new() });
        let queued = Queued { job, since: now, answer: Arc::clone(&answer) };
        state.levels[priority.level() as usize].push_back(queued);
        state.depth += 1;
        drop(state);
        shared.work.notify_one();
        Ok(JobHandle(answer))
    }

    /// How the queue stands.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let now = self.0.clock.now();
        let state = lock(&self.0.state);
        let (depth, capacity) = (state.depth, self.0.config.capacity as usize);
        let oldest_age = state.oldest_age(now);
        let by_age = oldest_age.as_secs_f64() / self.0.config.shed_age.as_secs_f64();
        let level = (depth as f64 / capacity as f64).max(by_age);
        Pressure { depth, capacity, oldest_age, level }
    }

    /// Jobs refused because the queue was too old.
    #[must_use]
    pub fn shed(&self) -> u64 {
        lock(&self.0.state).shed
    }
}

impl<J, R> State<J, R> {
    fn oldest_age(&self, now: Tick) -> Duration {
        let oldest = self.levels.iter().filter_map(|level| level.front()).map(|job| job.since);
        oldest.min().map_or(Duration::ZERO, |since| now.since(since))
    }

    fn next(&mut self) -> Option<Queued<J, R>> {
        let job = self.levels.iter_mut().rev().find_map(VecDeque::pop_front)?;
        self.depth -= 1;
        Some(job)
    }
}

impl<J, R> Shared<J, R> {
    fn refuse(&self, reason: Reason) -> Rejection {
        Rejection::new(Arc::clone(&self.name), PolicyKind::Queue, reason, None)
    }

    fn work_off(&self, handler: &(impl Fn(J) -> R + ?Sized)) {
        loop {
            let queued = {
                let mut state = lock(&self.state);
                loop {
                    if let Some(queued) = state.next() {
                        break queued;
                    }
                    if state.closed {
                        return;
                    }
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let waited = self.clock.now().since(queued.since);
            if waited > self.config.wait_max {
                queued.answer.answer(Err(self.refuse(Reason::WaitedTooLong { waited })));
                continue;
            }
            let job = queued.job;
            let handled = std::panic::AssertUnwindSafe(|| handler(job));
            // The job is gone either way; a panic must not take the worker with it.
            let result = std::panic::catch_unwind(handled);
            queued.answer.answer(result.map_err(|_| self.refuse(Reason::Closed)));
        }
    }
}

impl<J, R> fmt::Debug for WorkQueue<J, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkQueue({}, {} waiting)", self.0.name, lock(&self.0.state).depth)
    }
}

impl<R> fmt::Debug for JobHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobHandle")
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workers({})", self.threads.len())
    }
}
