//! [`Workers`]: the threads on which admitted requests do what blocks.
//!
//! Who was at work last is woken first. A pool that wakes whoever rests longest sends each request to
//! another of its threads, and so to another stack, other thread-locals and another heap of the
//! allocator, none of which any cache still holds; requests that come one after the other stay on one
//! thread here, and the others end. Where no thread can be started requests wait for one that there is,
//! or are refused; the runtime's own pool panics.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mainstay_db::{DbError, Resting, Seat, panic_message};
use tokio::sync::oneshot;

use crate::problem::Problem;

/// How many requests are at work at a time, whatever admission lets in; others wait for a thread.
const THREADS_MAX: usize = 512;
/// How long a thread rests before it ends.
const REST_MAX: Duration = Duration::from_secs(10);
/// How soon there may be a thread again.
const RETRY_AFTER_MS: u64 = 1_000;

/// The threads of a server. Those that rest end when it is dropped, the others after their work.
pub(crate) struct Workers(Arc<Shared>);

struct Shared {
    threads_max: usize,
    rest_max: Duration,
    start: Start,
    state: Mutex<State>,
}

/// Starts a thread.
type Start = fn(Box<dyn FnOnce() + Send>) -> std::io::Result<()>;

#[derive(Default)]
struct State {
    threads: usize,
    resting: Resting<Job>,
    /// Empty while a thread rests.
    queue: VecDeque<Job>,
    closed: bool,
}

/// Calls what it is given when only its answer is left to be handed over. Who hears the answer asks for
/// the next work at once, and would wake another thread if this one did not rest already.
type Job = Box<dyn FnOnce(&dyn Fn()) + Send>;

/// Why work has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// Nothing was begun.
    NoThread,
    /// What the panic said.
    Panicked(String),
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoThread => f.write_str(
                "the system starts no thread for the request, and nothing was begun; raise its bound \
                 on threads (ulimit -u, TasksMax) or lower server.searches_max and \
                 server.writes_max",
            ),
            Self::Panicked(message) => write!(f, "the request's work panicked: {message}"),
        }
    }
}

impl From<Unfinished> for Problem {
    fn from(unfinished: Unfinished) -> Self {
        match unfinished {
            Unfinished::NoThread => Problem::busy(unfinished.to_string(), RETRY_AFTER_MS),
            Unfinished::Panicked(_) => DbError::Internal(unfinished.to_string()).into(),
        }
    }
}

impl Workers {
    pub(crate) fn new() -> Self {
        Self::with(THREADS_MAX, REST_MAX, |work| {
            thread::Builder::new().name("request".into()).spawn(work).map(drop)
        })
    }

    fn with(threads_max: usize, rest_max: Duration, start: Start) -> Self {
        Self(Arc::new(Shared { threads_max, rest_max, start, state: Mutex::default() }))
    }

    /// Does work on a thread, whether or not anybody awaits its end.
    ///
    /// # Errors
    /// A panic, or that there is no thread.
    pub(crate) fn run<T, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, Unfinished>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        self.0.submit(Box::new(move |rest| {
            let result = catch_unwind(AssertUnwindSafe(work));
            rest();
            // Who has gone away wants no answer.
            let _ = tell.send(result);
        }));
        async {
            match told.await {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(panic)) => Err(Unfinished::Panicked(panic_message(&*panic))),
                Err(_) => Err(Unfinished::NoThread),
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // No thread is joined: this may be one of them, and one that hangs would hang the end.
        let mut state = self.0.lock();
        state.closed = true;
        state.resting.wake_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        let Some(job) = state.resting.give(job) else { return };
        state.queue.push_back(job);
        if state.threads >= self.threads_max {
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(self);
        let started = (self.start)(Box::new(move || {
            mainstay_db::yield_to_requests();
            shared.work();
        }));
        if let Err(error) = started {
            let mut state = self.lock();
            state.threads -= 1;
            // Those that there are look at the queue when they are done.
            let refused =
                if state.threads == 0 { state.queue.drain(..).collect() } else { Vec::new() };
            drop(state);
            tracing::error!(%error, refused = refused.len(), "cannot start a thread for a request");
        }
    }

    /// Until it has rested for long, or the server has ended.
    fn work(&self) {
        let me = Arc::new(Seat::default());
        let mut state = self.lock();
        loop {
            if let Some(job) = me.take().or_else(|| state.queue.pop_front()) {
                drop(state);
                job(&|| self.rest(&me));
                state = self.lock();
            } else if state.closed {
                break;
            } else {
                state.resting.enter(&me);
                let over;
                (state, over) = me.wait(state, self.rest_max);
                if over && state.resting.leave(&me) {
                    break;
                }
            }
        }
        state.threads -= 1;
    }

    /// A thread has nothing left to do, unless somebody waits for one.
    fn rest(&self, seat: &Arc<Seat<Job>>) {
        let mut state = self.lock();
        if state.queue.is_empty() {
            state.resting.enter(seat);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::SETTINGS;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread::ThreadId;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    fn with(threads_max: usize, rest_max: Duration) -> Workers {
        Workers::with(threads_max, rest_max, |work| thread::Builder::new().spawn(work).map(drop))
    }

    /// Work that goes on until its sender is dropped, once it has begun.
    fn held(
        workers: &Workers,
    ) -> (mpsc::Sender<()>, impl Future<Output = Result<ThreadId, Unfinished>> + use<>) {
        let (release, until) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let work = workers.run(move || {
            begun.send(()).unwrap();
            let _ = until.recv();
            thread::current().id()
        });
        begins.recv().unwrap();
        (release, work)
    }

    #[test]
    fn work_that_comes_one_after_the_other_stays_on_the_thread_that_worked_last() {
        let workers = Workers::new();
        runtime().block_on(async {
            let (first, one) = held(&workers);
            let (second, two) = held(&workers);
            drop(first);
            let first = one.await.unwrap();
            drop(second);
            let last = two.await.unwrap();
            assert_ne!(first, last);
            for _ in 0..100 {
                assert_eq!(workers.run(|| thread::current().id()).await, Ok(last));
            }
            assert_eq!(workers.0.lock().threads, 2);
        });
    }

    #[test]
    fn a_panic_is_told_and_ends_no_thread() {
        let workers = Workers::new();
        runtime().block_on(async {
            let before = workers.run(|| thread::current().id()).await.unwrap();
            let panicked = workers.run(|| -> () { panic!("at the table") }).await;
            assert_eq!(panicked, Err(Unfinished::Panicked("at the table".into())));
            assert_eq!(workers.run(|| thread::current().id()).await, Ok(before));
        });
    }

    #[test]
    fn beyond_the_bound_work_waits_for_a_thread_in_its_turn() {
        let workers = with(1, REST_MAX);
        runtime().block_on(async {
            let (release, one) = held(&workers);
            let (tell, told) = mpsc::channel();
            let waiting: Vec<_> = (0..20)
                .map(|number| {
                    let tell = tell.clone();
                    workers.run(move || tell.send(number).unwrap())
                })
                .collect();
            drop(release);
            one.await.unwrap();
            for work in waiting {
                work.await.unwrap();
            }
            drop(tell);
            assert_eq!(told.iter().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
            assert_eq!(workers.0.lock().threads, 1);
            // Neither does what comes while a thread is busy overtake what waits for it.
            let (release, one) = held(&workers);
            let (tell, told) = mpsc::channel();
            let (begun, begins) = mpsc::channel();
            let (finish, until) = mpsc::channel::<()>();
            let two = workers.run(move || {
                begun.send(()).unwrap();
                let _ = until.recv();
            });
            let late = |number| {
                let tell = tell.clone();
                workers.run(move || tell.send(number).unwrap())
            };
            let three = late(3);
            drop(release);
            begins.recv().unwrap();
            let four = late(4);
            drop(finish);
            one.await.unwrap();
            for work in [three, four] {
                work.await.unwrap();
            }
            two.await.unwrap();
            drop(tell);
            assert_eq!(told.iter().collect::<Vec<_>>(), [3, 4]);
        });
    }

    /// Many at once, with threads that end as soon as they rest: nothing is left lying.
    #[test]
    fn all_work_is_done_while_threads_come_and_go() {
        let workers = with(3, Duration::from_micros(20));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let workers = Arc::new(workers);
        runtime.block_on(async {
            // One by one the thread is about to end when the next work comes.
            for pause in (0..4_000).map(|round| round % 200) {
                assert_eq!(workers.run(move || pause).await, Ok(pause));
                (0..pause * 20).for_each(|_| std::hint::spin_loop());
            }
            for _ in 0..50 {
                let mut all = tokio::task::JoinSet::new();
                for number in 0..40 {
                    let workers = Arc::clone(&workers);
                    all.spawn(async move { workers.run(move || number).await });
                }
                let mut done: Vec<i32> =
                    all.join_all().await.into_iter().map(Result::unwrap).collect();
                done.sort_unstable();
                assert_eq!(done, (0..40).collect::<Vec<_>>());
            }
        });
    }

    #[test]
    fn threads_that_rest_for_long_end_and_so_do_those_of_a_server_that_is_gone() {
        let workers = with(8, Duration::from_millis(1));
        let shared = Arc::clone(&workers.0);
        runtime().block_on(async {
            let (release, one) = held(&workers);
            drop(release);
            one.await.unwrap();
        });
        ends(&shared);
        drop(workers);
        let workers = Workers::new();
        let shared = Arc::clone(&workers.0);
        runtime().block_on(async {
            let (release, one) = held(&workers);
            let (_, two) = held(&workers);
            two.await.unwrap();
            drop(workers);
            drop(release);
            one.await.unwrap();
        });
        ends(&shared);
    }

    /// Waits until all threads have ended.
    fn ends(shared: &Arc<Shared>) {
        while Arc::strong_count(shared) > 2 || shared.lock().threads > 0 {
            thread::yield_now();
        }
        assert!(shared.lock().queue.is_empty());
    }

    /// As the system does it, once.
    fn one_thread(work: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        if STARTED.swap(true, Ordering::Relaxed) {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        thread::Builder::new().spawn(work).map(drop)
    }

    #[test]
    fn where_no_more_threads_can_be_started_work_waits_for_one() {
        let workers = Workers::with(8, REST_MAX, one_thread);
        runtime().block_on(async {
            let (release, one) = held(&workers);
            let two = workers.run(|| thread::current().id());
            drop(release);
            assert_eq!(two.await, one.await);
            assert_eq!(workers.0.lock().threads, 1);
        });
    }

    #[test]
    fn without_any_thread_a_request_is_refused_with_what_to_do() {
        let none = |_| Err(std::io::ErrorKind::WouldBlock.into());
        let workers = Workers::with(8, REST_MAX, none);
        let refused = runtime().block_on(workers.run(|| ())).unwrap_err();
        assert_eq!(refused, Unfinished::NoThread);
        assert!(workers.0.lock().queue.is_empty());
        let problem = Problem::from(refused);
        assert_eq!((problem.status, problem.retry_after_ms), (503, Some(RETRY_AFTER_MS)));
        let named = problem.detail.split([' ', ',', ';']).filter(|word| word.contains('.'));
        for name in named {
            assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name} is no setting");
        }
        assert!(problem.detail.contains("ulimit -u"), "{}", problem.detail);
    }
}
