//! Time that passes only when nothing else can happen.
//!
//! Invariant: the clock moves to the earliest timer when, and only when, every task waits.

use crate::clock::{Clock, ManualClock, Tick};
use crate::sleeper::Sleeper;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Timers {
    by_time: BTreeMap<(Tick, u64), Waker>,
    next_id: u64,
}

/// A clock, a sleeper and an executor on one virtual time.
///
/// ```
/// use mainstay_resilience::{Sleeper, testing::VirtualTime};
/// use std::time::Duration;
///
/// let time = VirtualTime::new();
/// let (clock, sleeper) = (time.clock(), time.sleeper());
/// let before = clock.now();
/// time.block_on(sleeper.sleep(Duration::from_secs(3_600)));
/// assert_eq!(clock.now().since(before), Duration::from_secs(3_600));
/// ```
#[derive(Clone, Default)]
pub struct VirtualTime {
    clock: ManualClock,
    timers: Arc<Mutex<Timers>>,
}

impl VirtualTime {
    /// A time of its own.
    #[must_use]
    pub fn new() -> Self {
        VirtualTime::default()
    }

    /// The clock to give to policies.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clock()
    }

    /// The sleeper to give to pipelines.
    #[must_use]
    pub fn sleeper(&self) -> VirtualSleeper {
        VirtualSleeper(self.clone())
    }

    /// Runs one future to its end.
    ///
    /// # Panics
    /// When it waits for something that is no timer and nobody else runs.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let result = Mutex::new(None);
        self.run_all([async { *lock(&result) = Some(future.await) }]);
        let result = lock(&result).take();
        result.expect("a task that ran to its end left its result")
    }

    /// Runs many futures side by side to their end, in an order that only depends on the timers.
    ///
    /// # Panics
    /// When all wait for something that is no timer.
    pub fn run_all<'a>(&self, tasks: impl IntoIterator<Item = impl Future<Output = ()> + 'a>) {
        type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
        let mut tasks: Vec<Option<Task<'a>>> =
            tasks.into_iter().map(|task| Some(Box::pin(task) as Task<'a>)).collect();
        let ready = Arc::new(Mutex::new((0..tasks.len()).collect::<VecDeque<usize>>()));
        let mut left = tasks.len();
        while left > 0 {
            let next = lock(&ready).pop_front();
            let Some(index) = next else {
                self.advance_to_next_timer();
                continue;
            };
            let Some(task) = &mut tasks[index] else {
                continue;
            };
            let waker = Waker::from(Arc::new(TaskWaker { index, ready: Arc::clone(&ready) }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                tasks[index] = None;
                left -= 1;
            }
        }
    }

    fn advance_to_next_timer(&self) {
        let (tick, waker) = {
            let mut timers = lock(&self.timers);
            let first = timers.by_time.pop_first();
            let ((tick, _), waker) =
                first.expect("every task waits and no timer is set: the test would hang");
            (tick, waker)
        };
        if tick > self.clock.now() {
            self.clock.set(tick);
        }
        waker.wake();
    }
}

impl fmt::Debug for VirtualTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtualTime({:?})", self.clock.now())
    }
}

struct TaskWaker {
    index: usize,
    ready: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).push_back(self.index);
    }
}

/// Sleeps in virtual time.
#[derive(Clone, Debug)]
pub struct VirtualSleeper(VirtualTime);

impl Sleeper for VirtualSleeper {
    type Sleep = VirtualSleep;

    fn sleep(&self, wait: Duration) -> VirtualSleep {
        let id = {
            let mut timers = lock(&self.0.timers);
            timers.next_id += 1;
            timers.next_id
        };
        VirtualSleep { key: (self.0.clock.now().after(wait), id), time: self.0.clone() }
    }
}

/// A wait in virtual time.
#[derive(Debug)]
pub struct VirtualSleep {
    key: (Tick, u64),
    time: VirtualTime,
}

impl Future for VirtualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.time.clock.now() >= self.key.0 {
            return Poll::Ready(());
        }
        lock(&self.time.timers).by_time.insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        lock(&self.time.timers).by_time.remove(&self.key);
    }
}
