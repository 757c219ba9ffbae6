//! A bounded queue with workers: priorities, a timeout for waiting, shedding by age, and a pressure
//! that producers can see.
//!
//! Invariants: the jobs that wait never exceed the capacity; a job is handled, refused or shed,
//! exactly one of the three, and its handle hears which, before any observer does; workers end when
//! the last handle on the queue closes it, or the drop of [`Workers`], which joins them; jobs are
//! handled and dropped outside every lock, and a panic in either ends no worker.

use crate::clock::{Clock, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::context::{Context as CallContext, Priority};
use crate::deadline::Deadline;
use crate::event::{Event, Listeners, Observer};
use crate::human_duration::check_duration;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::waiting_jobs::WaitingJobs;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

/// Everything a queue can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct QueueConfig {
    /// Jobs that may wait, 1 to 1 000 000. Default 1 000.
    pub capacity: u32,
    /// Threads that work, 1 to 1 024. Default 4.
    pub workers: u32,
    /// A job that waited longer than this is refused instead of handled, 1 ms to 1 h. Default 30 s:
    /// whoever sent it has likely given up.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub wait_max: Duration,
    /// When the oldest job is older than this, new jobs below [`Priority::High`] are refused,
    /// 1 ms to 1 h. Default 5 s: a standing queue delays everybody and helps nobody.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
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

/// From this share of the capacity, in percent, callers are held to equal shares of it.
const PRESSURE_PERCENT: u64 = 75;

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
///
/// # For, and not for
/// For work that comes faster than it is done, for a while. Not for lasting overload: a queue that is
/// always full only adds waiting.
///
/// # Parameters
/// Those of [`QueueConfig`], with their ranges and defaults.
///
/// # Cost
/// A lock and an allocation per job; a logarithm of the jobs that wait, for their ages.
///
/// # Cancel safety
/// Dropping a [`JobHandle`] lets the job run unheard; dropping the last queue handle lets what waits be
/// done first. Dropping [`Workers`] before it ends the jobs under way and refuses those that wait.
///
/// # Source
/// Turns between callers: fair queueing, Nagle (RFC 970). Shedding by age: CoDel's observation that a
/// standing queue helps nobody.
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
    clock: Clock,
    state: Mutex<State<J, R>>,
    work: Condvar,
    listeners: Listeners,
}

struct State<J, R> {
    config: QueueConfig,
    jobs: WaitingJobs<Queued<J, R>>,
    handles: usize,
    closed: bool,
    shed: u64,
}

struct Queued<J, R> {
    job: J,
    deadline: Deadline,
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

/// The threads of a queue. [`join`](Workers::join) waits until the last handle on the queue is dropped
/// and what is queued is done. Dropping them while there are handles closes the queue: jobs under way
/// are waited for, jobs that wait are refused with [`Reason::Closed`], and so is every job after.
#[must_use = "dropping the workers closes their queue and waits for them"]
pub struct Workers {
    queue: Arc<dyn Close>,
    threads: Vec<JoinHandle<()>>,
}

/// A queue, whatever its jobs are.
trait Close: Send + Sync {
    /// Refuses what waits and what is still to come, unless the last handle has closed it before.
    fn close(&self);
}

impl<J: Send, R: Send> Close for Shared<J, R> {
    fn close(&self) {
        let mut waiting = {
            let mut state = lock(&self.state);
            if state.closed {
                return;
            }
            state.closed = true;
            self.work.notify_all();
            std::mem::take(&mut state.jobs)
        };
        while let Some((Queued { job, answer, .. }, _)) = waiting.pop() {
            self.refuse_queued(Reason::Closed, &answer, job);
        }
    }
}

impl Workers {
    /// Waits until the queue is closed, which happens when its last handle is dropped, and every
    /// job in it is done. A handle that this thread keeps makes it wait for ever.
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
        self.queue.close();
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
        WorkQueue::start_with(name.into(), config, clock, handler, Listeners::default())
    }

    /// As [`start`](Self::start), telling `observer` about each job that is refused, also after it
    /// has waited.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn observed(
        name: impl Into<Arc<str>>,
        config: QueueConfig,
        clock: Clock,
        handler: impl Fn(J) -> R + Send + Sync + 'static,
        observer: Arc<dyn Observer>,
    ) -> Result<(Self, Workers), ConfigError> {
        WorkQueue::start_with(name.into(), config, clock, handler, Listeners::one(observer))
    }

    fn start_with(
        name: Arc<str>,
        config: QueueConfig,
        clock: Clock,
        handler: impl Fn(J) -> R + Send + Sync + 'static,
        listeners: Listeners,
    ) -> Result<(Self, Workers), ConfigError> {
        config.validate()?;
        let queue = WorkQueue(Arc::new(Shared {
            name,
            clock,
            state: Mutex::new(State {
                config,
                jobs: WaitingJobs::default(),
                handles: 1,
                closed: false,
                shed: 0,
            }),
            work: Condvar::new(),
            listeners,
        }));
        let handler = Arc::new(handler);
        let closes: Arc<dyn Close> = Arc::<Shared<J, R>>::clone(&queue.0);
        let mut workers = Workers { queue: closes, threads: Vec::new() };
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

    /// Queues a job for a [`Priority`], or for a whole [`Context`](CallContext): the highest
    /// priority goes first; within it callers take turns, so that one with a thousand jobs delays
    /// another with one by one job only. A job whose deadline has passed is refused instead of
    /// handled.
    ///
    /// # Errors
    /// The refusal: the queue is full, or too old for this priority, or three quarters full while
    /// this caller holds its share of it already, or its workers are gone.
    pub fn submit(
        &self,
        job: J,
        context: impl Into<CallContext>,
    ) -> Result<JobHandle<R>, Rejection> {
        let (shared, context) = (&*self.0, context.into());
        let now = shared.clock.now();
        if context.deadline.has_passed(now) {
            return Err(shared.refuse(Reason::DeadlinePassed));
        }
        let answer = Arc::new(Slot { state: Mutex::new((None, None)), ready: Condvar::new() });
        let queued = Queued { job, deadline: context.deadline, answer: Arc::clone(&answer) };
        let pushed = lock(&shared.state).push(queued, context, now);
        if let Err((reason, queued)) = pushed {
            drop(queued);
            return Err(shared.refuse(reason));
        }
        shared.work.notify_one();
        Ok(JobHandle(answer))
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> QueueConfig {
        lock(&self.0.state).config
    }

    /// Changes capacity, wait and shedding age while running; jobs that wait stay. The number of
    /// workers is fixed.
    ///
    /// # Errors
    /// The field that is out of range, or another number of workers; then nothing changes.
    pub fn reconfigure(&self, config: QueueConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let mut state = lock(&self.0.state);
        if config.workers != state.config.workers {
            let allowed = format!("{}, which it was started with", state.config.workers);
            return Err(ConfigError::new("workers", config.workers, allowed));
        }
        state.config = config;
        Ok(())
    }

    /// How the queue stands.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let now = self.0.clock.now();
        let state = lock(&self.0.state);
        let (depth, capacity) = (state.jobs.len(), state.config.capacity as usize);
        let oldest_age = state.jobs.oldest_age(now);
        let by_age = oldest_age.as_secs_f64() / state.config.shed_age.as_secs_f64();
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
    /// Takes the job in, or gives it back, to be dropped outside the lock.
    fn push(
        &mut self,
        queued: Queued<J, R>,
        context: CallContext,
        now: Tick,
    ) -> Result<(), (Reason, Queued<J, R>)> {
        if self.closed {
            return Err((Reason::Closed, queued));
        }
        let (depth, capacity) = (self.jobs.len() as u64, u64::from(self.config.capacity));
        if depth >= capacity {
            let limit = u64::from(self.config.workers);
            return Err((Reason::Full { limit, waiting: depth }, queued));
        }
        let too_old = self.jobs.oldest_age(now) > self.config.shed_age;
        if context.priority < Priority::High && too_old {
            self.shed += 1;
            let admitted_from = Priority::High.level();
            return Err((Reason::PriorityTooLow { admitted_from }, queued));
        }
        let under_pressure = (depth + 1) * 100 > capacity * PRESSURE_PERCENT;
        let shared = under_pressure.then_some(capacity);
        let pushed = self.jobs.push(queued, context.priority, context.caller, now, shared);
        pushed.map_err(|(share, queued)| (Reason::ShareExceeded { share }, queued))
    }
}

impl<J, R> Shared<J, R> {
    fn rejection(&self, reason: Reason) -> Rejection {
        Rejection::new(Arc::clone(&self.name), PolicyKind::Queue, reason, None)
    }

    fn refuse(&self, reason: Reason) -> Rejection {
        let rejection = self.rejection(reason);
        self.listeners.emit(|| Event::Rejected(&rejection));
        rejection
    }

    /// Refuses a job that was queued, with what is left of it. Whoever waits for it hears of it
    /// whatever the drops and the observer do; no panic of theirs leaves.
    fn refuse_queued(&self, reason: Reason, answer: &Slot<R>, rest: impl Sized) {
        let rejection = self.rejection(reason);
        let refused = Err(rejection.clone());
        let _ = catch_unwind(AssertUnwindSafe(|| answer.answer(refused)));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(rest)));
        let tell = || self.listeners.emit(|| Event::Rejected(&rejection));
        let _ = catch_unwind(AssertUnwindSafe(tell));
    }

    fn work_off(&self, handler: &(impl Fn(J) -> R + ?Sized)) {
        loop {
            let (queued, since, wait_max) = {
                let mut state = lock(&self.state);
                loop {
                    if let Some((queued, since)) = state.jobs.pop() {
                        break (queued, since, state.config.wait_max);
                    }
                    if state.closed {
                        return;
                    }
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let settle = AssertUnwindSafe(|| self.settle(queued, since, wait_max, handler));
            // The job is gone either way; a panic where it or its result is dropped must not take
            // the worker with it.
            let _ = catch_unwind(settle);
        }
    }

    /// Handles a job, or refuses it because it comes too late.
    fn settle(
        &self,
        queued: Queued<J, R>,
        since: Tick,
        wait_max: Duration,
        handler: &(impl Fn(J) -> R + ?Sized),
    ) {
        let Queued { job, deadline, answer } = queued;
        let now = self.clock.now();
        let waited = now.since(since);
        let too_late = match () {
            () if waited > wait_max => Some(Reason::WaitedTooLong { waited }),
            () if deadline.has_passed(now) => Some(Reason::DeadlinePassed),
            () => None,
        };
        if let Some(reason) = too_late {
            return self.refuse_queued(reason, &answer, job);
        }
        match catch_unwind(AssertUnwindSafe(|| handler(job))) {
            Ok(result) => answer.answer(Ok(result)),
            Err(payload) => self.refuse_queued(Reason::Panicked, &answer, payload),
        }
    }
}

impl<J, R> fmt::Debug for WorkQueue<J, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkQueue({}, {} waiting)", self.0.name, lock(&self.0.state).jobs.len())
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
