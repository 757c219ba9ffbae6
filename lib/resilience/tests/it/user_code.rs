//! What users put into a cache or a queue runs outside the locks of both.

use crate::secs;
use mainstay_resilience::{
    AnswerCache, Clock, Context, Deadline, ErrorKind, Event, ManualClock, Observer, Priority,
    QueueConfig, Reason, Timeout, WorkQueue,
};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};

/// Runs `work` on a thread; a deadlock is told instead of waited for.
fn ends(work: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        work();
        tell.send(())
    });
    // Far longer than it takes.
    told.recv_timeout(secs(20)).expect("user code met a lock of the policy");
    worker.join().unwrap().unwrap();
}

/// Asks the cache it lies in for another key.
type Again = Arc<Mutex<Option<Box<dyn Fn() + Send>>>>;

fn ask(again: &Again) {
    // Taken out meanwhile, so that the question does not ask itself.
    let question = again.lock().unwrap().take();
    if let Some(question) = question {
        question();
        *again.lock().unwrap() = Some(question);
    }
}

struct Key(u32, Again);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ask(&self.1);
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        ask(&self.1);
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        ask(&self.1);
        Key(self.0, Arc::clone(&self.1))
    }
}

/// Asks the cache when it is copied and when it is dropped.
struct Value(u32, Again);

impl Clone for Value {
    fn clone(&self) -> Self {
        ask(&self.1);
        Value(self.0, Arc::clone(&self.1))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        ask(&self.1);
    }
}

#[test]
fn d2_keys_and_answers_of_a_cache_may_ask_the_cache_while_it_looks_at_them() {
    ends(|| {
        let clock = ManualClock::new();
        let cache = AnswerCache::<Key, Value>::new(2, secs(10), secs(10), clock.clock()).unwrap();
        let (cache, again) = (Arc::new(cache), Again::default());
        let (asked, idle) = (Arc::clone(&cache), Again::default());
        *again.lock().unwrap() = Some(Box::new(move || {
            let _ = asked.fresh(&Key(99, Arc::clone(&idle)));
        }));
        let key = |number| Key(number, Arc::clone(&again));
        let value = |number| Value(number, Arc::clone(&again));
        cache.insert(key(1), value(1));
        cache.insert(key(1), value(10));
        assert_eq!(cache.fresh(&key(1)).map(|found| found.0), Some(10), "the old one was replaced");
        cache.insert(key(2), value(2));
        cache.insert(key(3), value(3));
        assert!(cache.fresh(&key(1)).is_none(), "of three the oldest was evicted");
        assert_eq!(cache.fresh(&key(2)).map(|found| found.0), Some(2));
        clock.advance(secs(30));
        assert!(cache.stale(&key(2)).is_none(), "too old for anything");
        let answer = cache.run(key(4), || Ok::<_, ErrorKind>(value(4))).unwrap();
        assert_eq!(answer.into_inner().0, 4);
        *again.lock().unwrap() = None;
    });
}

/// Does something when it is dropped.
struct Dropping(Box<dyn Fn() + Send>);

impl Drop for Dropping {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn quiet() -> Dropping {
    Dropping(Box::new(|| ()))
}

/// A queue of one worker and one place whose first job waits until the sender is dropped.
fn held(clock: Clock) -> (WorkQueue<Dropping, ()>, impl Drop, mpsc::Sender<()>) {
    let mut config = QueueConfig::default();
    (config.workers, config.capacity, config.wait_max) = (1, 1, secs(1));
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let work = move |_| {
        let _ = gate.lock().unwrap().recv();
    };
    let (queue, workers) = WorkQueue::start("q", config, clock, work).unwrap();
    drop(queue.submit(quiet(), Priority::Normal).unwrap());
    while queue.pressure().depth > 0 {
        std::thread::yield_now();
    }
    (queue, workers, open)
}

#[test]
fn o5_a_refused_job_may_ask_the_queue_when_it_is_dropped() {
    ends(|| {
        let (queue, workers, open) = held(Clock::system());
        let waiting = queue.submit(quiet(), Priority::Normal).unwrap();
        let asked = queue.clone();
        let job = Dropping(Box::new(move || assert_eq!(asked.pressure().depth, 1)));
        let refused = queue.submit(job, Priority::Normal).unwrap_err();
        assert!(matches!(refused.reason(), Reason::Full { .. }));
        drop((open, queue));
        assert_eq!(waiting.wait(), Ok(()));
        drop(workers);
    });
}

#[test]
fn o5_a_late_job_that_panics_when_it_is_dropped_takes_no_worker_with_it() {
    ends(|| {
        let clock = ManualClock::new();
        let (queue, workers, open) = held(clock.clock());
        let late = queue.submit(Dropping(Box::new(|| panic!("in a drop"))), Priority::Normal);
        clock.advance(secs(2));
        drop(open);
        let refused = late.unwrap().wait().unwrap_err();
        assert!(matches!(refused.reason(), Reason::WaitedTooLong { .. }), "{refused}");
        let next = queue.submit(quiet(), Priority::Normal).expect("there is room");
        assert_eq!(next.wait(), Ok(()), "the only worker goes on");
        drop((queue, workers));
    });
}

#[test]
fn o5_workers_that_go_before_their_queue_close_it_instead_of_waiting_for_ever() {
    ends(|| {
        let (tell, told) = mpsc::channel();
        let (queue, workers, open) = held(Clock::system());
        let waiting = queue.submit(quiet(), Priority::Normal).unwrap();
        let late = queue.clone();
        let leaver = std::thread::spawn(move || {
            // As an early return does: what was made last is dropped first.
            let _queue = queue;
            let _workers = workers;
            tell.send(()).unwrap();
        });
        told.recv().unwrap();
        assert_eq!(waiting.wait().unwrap_err().reason(), Reason::Closed);
        let refused = late.submit(quiet(), Priority::Critical).unwrap_err();
        assert_eq!(refused.reason(), Reason::Closed);
        assert_eq!(late.pressure().depth, 0);
        drop(open);
        leaver.join().unwrap();
    });
}

#[test]
fn o5_an_early_return_beside_a_queue_ends() {
    fn leave() -> Result<(), mainstay_resilience::ConfigError> {
        let config = QueueConfig::default();
        let (_queue, _workers) = WorkQueue::start("q", config, Clock::system(), |(): ()| ())?;
        Timeout::total("t", secs(0))?;
        Ok(())
    }
    ends(|| assert_eq!(leave().unwrap_err().field(), "timeout"));
}

#[test]
fn o5_jobs_are_answered_before_an_observer_that_panics_hears_of_them() {
    ends(|| {
        let clock = ManualClock::new();
        let mut config = QueueConfig::default();
        (config.workers, config.wait_max) = (1, secs(1));
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let observer: Arc<dyn Observer> = Arc::new(|_: &Event<'_>| panic!("the observer broke"));
        let work = move |job: u32| match job {
            0 => drop(gate.lock().unwrap().recv()),
            1 => panic!("the handler broke"),
            _ => (),
        };
        let started = WorkQueue::observed("q", config, clock.clock(), work, observer);
        let (queue, workers) = started.unwrap();
        let submit = |job| queue.submit(job, Priority::Normal).unwrap();
        assert_eq!(submit(1).wait().unwrap_err().reason(), Reason::Panicked);
        let first = submit(0);
        while queue.pressure().depth > 0 {
            std::thread::yield_now();
        }
        let late = submit(2);
        clock.advance(secs(2));
        drop(open);
        assert_eq!(first.wait(), Ok(()));
        assert_eq!(late.wait().unwrap_err().reason(), Reason::WaitedTooLong { waited: secs(2) });
        let passed = Context::within(Deadline::at(clock.now()));
        let refuse = AssertUnwindSafe(|| queue.submit(3, passed).is_ok());
        assert!(catch_unwind(refuse).is_err(), "the submitter hears the observer's panic");
        assert_eq!(submit(3).wait(), Ok(()), "the only worker goes on");
        drop((queue, workers));
    });
}

/// A waker that breaks.
struct Breaking;

impl std::task::Wake for Breaking {
    fn wake(self: Arc<Self>) {
        panic!("in a waker");
    }
}

#[test]
fn o5_a_queue_that_closes_answers_every_job_whatever_wakers_drops_and_observers_do() {
    ends(|| {
        let mut config = QueueConfig::default();
        (config.workers, config.capacity) = (1, 4);
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let work = move |_: Dropping| {
            let _ = gate.lock().unwrap().recv();
        };
        let heard = Arc::new(Mutex::new(0));
        let count = Arc::clone(&heard);
        let observer: Arc<dyn Observer> = Arc::new(move |_: &Event<'_>| {
            *count.lock().unwrap() += 1;
            panic!("the observer broke");
        });
        let started = WorkQueue::observed("q", config, Clock::system(), work, observer);
        let (queue, workers) = started.unwrap();
        let submit = |job| queue.submit(job, Priority::Normal).unwrap();
        let running = submit(quiet());
        while queue.pressure().depth > 0 {
            std::thread::yield_now();
        }
        let mut woken = submit(quiet());
        let waker = std::task::Waker::from(Arc::new(Breaking));
        let polled =
            std::pin::Pin::new(&mut woken).poll(&mut std::task::Context::from_waker(&waker));
        assert!(polled.is_pending());
        let dropped = submit(Dropping(Box::new(|| panic!("in a drop"))));
        let last = submit(quiet());
        let closing = std::thread::spawn(move || drop(workers));
        for handle in [woken, dropped, last] {
            assert_eq!(handle.wait().unwrap_err().reason(), Reason::Closed);
        }
        drop(open);
        closing.join().expect("no panic of theirs leaves");
        assert_eq!(*heard.lock().unwrap(), 3, "the observer hears of each");
        assert_eq!(running.wait(), Ok(()));
        drop(queue);
    });
}
