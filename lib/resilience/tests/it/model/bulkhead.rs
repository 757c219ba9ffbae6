//! The bulkhead as a number of slots and a list of those who wait, polled by hand.

use super::runs;
use crate::secs;
use mainstay_resilience::{
    Bulkhead, BulkheadConfig, BulkheadPermit, Priority, QueueOrder, Reason, Rejection, Sleeper,
};
use proptest::prelude::*;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    TryAcquire,
    Enter(Priority),
    Poll(usize),
    Cancel(usize),
    TimeOut(usize),
    GiveBack(usize),
    Reconfigure(u32, u32, QueueOrder),
}

fn order() -> impl Strategy<Value = QueueOrder> {
    prop_oneof![Just(QueueOrder::Fifo), Just(QueueOrder::Lifo)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::TryAcquire),
        6 => proptest::sample::select(Priority::ALL.to_vec()).prop_map(Step::Enter),
        3 => (0..8usize).prop_map(Step::Poll),
        2 => (0..8usize).prop_map(Step::Cancel),
        1 => (0..8usize).prop_map(Step::TimeOut),
        6 => (0..8usize).prop_map(Step::GiveBack),
        1 => (1..5u32, 0..5u32, order())
            .prop_map(|(limit, queue, order)| Step::Reconfigure(limit, queue, order)),
    ]
}

/// A timer that ends when the schedule says so.
struct Timer(Arc<AtomicBool>);

struct Rings(Arc<AtomicBool>);

impl Future for Rings {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Sleeper for Timer {
    type Sleep = Rings;

    fn sleep(&self, _: Duration) -> Rings {
        Rings(Arc::clone(&self.0))
    }
}

type Entering<'a> = Pin<Box<dyn Future<Output = Result<BulkheadPermit<'a>, Rejection>> + 'a>>;

/// A call that waits, or was granted and has not been polled since.
struct Waiting<'a> {
    id: usize,
    future: Entering<'a>,
    rung: Arc<AtomicBool>,
}

#[derive(Default)]
struct Model {
    limit: usize,
    queue_max: usize,
    lifo: bool,
    in_use: usize,
    queue: Vec<(usize, Priority)>,
    granted: Vec<usize>,
}

impl Model {
    fn try_acquire(&mut self) -> bool {
        let free = self.queue.is_empty() && self.in_use < self.limit;
        self.in_use += usize::from(free);
        free
    }

    /// The next to be served: the highest priority, and of those the first or the last.
    fn next(&mut self) -> Option<usize> {
        let highest = self.queue.iter().map(|(_, priority)| *priority).max()?;
        let is_highest = |(_, priority): &(usize, Priority)| *priority == highest;
        let at = match self.lifo {
            true => self.queue.iter().rposition(is_highest)?,
            false => self.queue.iter().position(is_highest)?,
        };
        Some(self.queue.remove(at).0)
    }

    fn grant_free(&mut self) {
        while self.in_use < self.limit {
            let Some(id) = self.next() else { return };
            self.in_use += 1;
            self.granted.push(id);
        }
    }

    fn give_back(&mut self) {
        self.in_use -= 1;
        self.grant_free();
    }

    /// A call goes away, whether it waits or was granted.
    fn leave(&mut self, id: usize) {
        if let Some(at) = self.granted.iter().position(|granted| *granted == id) {
            self.granted.remove(at);
            self.give_back();
        } else {
            self.queue.retain(|(waiting, _)| *waiting != id);
        }
    }
}

struct Pair<'a> {
    bulkhead: &'a Bulkhead,
    model: Model,
    permits: Vec<BulkheadPermit<'a>>,
    waiting: Vec<Waiting<'a>>,
    ids: usize,
}

impl<'a> Pair<'a> {
    fn enter(&mut self, priority: Priority) {
        self.ids += 1;
        let (id, rung) = (self.ids, Arc::new(AtomicBool::new(false)));
        let (bulkhead, timer) = (self.bulkhead, Timer(Arc::clone(&rung)));
        let future = Box::pin(async move { bulkhead.acquire(&timer, priority).await });
        if self.model.try_acquire() {
            self.model.granted.push(id);
        } else if self.model.queue.len() < self.model.queue_max {
            self.model.queue.push((id, priority));
        } else {
            let refused = self.polled(future).expect("refused at once").unwrap_err();
            assert!(matches!(refused.reason(), Reason::Full { .. }));
            return;
        }
        self.waiting.push(Waiting { id, future, rung });
        self.poll(self.waiting.len() - 1);
    }

    fn polled(&self, mut future: Entering<'a>) -> Option<Result<BulkheadPermit<'a>, Rejection>> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Polls a waiting call: it is granted exactly if the model says so.
    fn poll(&mut self, at: usize) {
        let waiting = &mut self.waiting[at];
        let (id, timed_out) = (waiting.id, waiting.rung.load(Ordering::Relaxed));
        let granted = self.model.granted.iter().position(|granted| *granted == id);
        match waiting.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                assert!(granted.is_none() && !timed_out, "call {id} was granted or is too late");
                return;
            }
            Poll::Ready(Ok(permit)) => {
                self.model.granted.remove(granted.expect("granted in the model too"));
                self.permits.push(permit);
            }
            Poll::Ready(Err(rejection)) => {
                assert!(matches!(rejection.reason(), Reason::WaitedTooLong { .. }));
                assert!(granted.is_none() && timed_out);
                self.model.leave(id);
            }
        }
        self.waiting.remove(at);
    }

    fn step(&mut self, step: &Step) {
        let one_of = |count: usize, at: usize| (count > 0).then(|| at % count);
        match *step {
            Step::TryAcquire => {
                let permit = self.bulkhead.try_acquire().ok();
                assert_eq!(permit.is_some(), self.model.try_acquire());
                self.permits.extend(permit);
            }
            Step::Enter(priority) => self.enter(priority),
            Step::Poll(at) => {
                one_of(self.waiting.len(), at).into_iter().for_each(|at| self.poll(at))
            }
            Step::Cancel(at) => {
                if let Some(at) = one_of(self.waiting.len(), at) {
                    let cancelled = self.waiting.remove(at);
                    self.model.leave(cancelled.id);
                    drop(cancelled);
                }
            }
            Step::TimeOut(at) => {
                if let Some(at) = one_of(self.waiting.len(), at) {
                    self.waiting[at].rung.store(true, Ordering::Relaxed);
                    self.poll(at);
                }
            }
            Step::GiveBack(at) => {
                if let Some(at) = one_of(self.permits.len(), at) {
                    drop(self.permits.remove(at));
                    self.model.give_back();
                }
            }
            Step::Reconfigure(limit, queue, order) => {
                self.bulkhead.reconfigure(config(limit, queue, order)).unwrap();
                self.model.limit = limit as usize;
                self.model.queue_max = queue as usize;
                self.model.lifo = order == QueueOrder::Lifo;
                self.model.grant_free();
            }
        }
        assert_eq!(self.bulkhead.in_use(), self.model.in_use as u64, "after {step:?}");
        assert_eq!(self.bulkhead.waiting(), self.model.queue.len() as u64, "after {step:?}");
    }
}

fn config(limit: u32, queue: u32, order: QueueOrder) -> BulkheadConfig {
    BulkheadConfig::new(limit).with_queue(queue, secs(1), order)
}

proptest! {
    #![proptest_config(runs())]

    #[test]
    fn o5_a_bulkhead_does_what_its_model_does(
        (limit, queue, order) in (1..5u32, 0..5u32, order()),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let bulkhead = Bulkhead::new("model", config(limit, queue, order)).unwrap();
        let model = Model {
            limit: limit as usize,
            queue_max: queue as usize,
            lifo: order == QueueOrder::Lifo,
            ..Model::default()
        };
        let mut pair =
            Pair { bulkhead: &bulkhead, model, permits: Vec::new(), waiting: Vec::new(), ids: 0 };
        steps.iter().for_each(|step| pair.step(step));
        pair.waiting.clear();
        pair.permits.clear();
        prop_assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
    }
}
