//! Whole pipelines whose calls are dropped at any moment: nothing is held afterwards, and every
//! attempt is counted once.

use super::runs;
use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Backoff, Bulkhead, BulkheadConfig, CircuitBreaker, Context,
    DropRule, ErrorKind, Event, Hedge, HedgeDelay, Observer, Pipeline, QueueOrder, Retry, Sleeper,
    State, Timeout, Window,
};
use proptest::prelude::*;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;

/// What one attempt of the operation does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Answer(u64),
    Fail(u64),
    BadRequest(u64),
    Hang,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..80u64).prop_map(Act::Answer),
        3 => (0..80u64).prop_map(Act::Fail),
        1 => (0..80u64).prop_map(Act::BadRequest),
        1 => Just(Act::Hang),
    ]
}

/// One caller: when it comes, when it gives up, and what its attempts meet.
type Call = (u64, u64, Vec<Act>);

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = (0..400u64, 0..300u64, proptest::collection::vec(act(), 4));
    proptest::collection::vec(call, 1..20)
}

/// Attempts that began, that ended by themselves, that a limit of time ended, and that lost to another
/// one of their call.
#[derive(Default)]
struct Seen {
    began: AtomicU64,
    ended: AtomicU64,
    timed_out: AtomicU64,
    lost: AtomicU64,
}

/// An attempt under way: dropped after another one has won the call, it has lost.
struct Running<'a>(&'a Seen, &'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lost.fetch_add(u64::from(self.1.load(Relaxed)), Relaxed);
    }
}

/// Waits for `work`, but no longer than `patience`; then it is dropped.
async fn impatient<T>(sleeper: &impl Sleeper, patience: u64, work: impl Future<Output = T>) {
    let (mut work, mut limit) = (pin!(work), pin!(sleeper.sleep(ms(patience))));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => limit.as_mut().poll(cx),
    })
    .await;
}

async fn act_out(
    sleeper: &impl Sleeper,
    act: Act,
    seen: &Seen,
    won: &AtomicBool,
) -> Result<(), ErrorKind> {
    seen.began.fetch_add(1, Relaxed);
    let running = Running(seen, won);
    let (wait, result) = match act {
        Act::Answer(wait) => (wait, Ok(())),
        Act::Fail(wait) => (wait, Err(ErrorKind::ServerError)),
        Act::BadRequest(wait) => (wait, Err(ErrorKind::BadRequest)),
        Act::Hang => std::future::pending().await,
    };
    sleeper.sleep(ms(wait)).await;
    seen.ended.fetch_add(1, Relaxed);
    drop(running);
    won.store(!matches!(act, Act::Fail(_)), Relaxed);
    result
}

proptest! {
    #![proptest_config(runs())]

    #[test]
    fn r3_whenever_calls_are_dropped_nothing_is_held_and_each_attempt_counts_once(
        calls in calls(),
        drops_fail in any::<bool>(),
        hedged in any::<bool>(),
        limit in 1..6u32,
    ) {
        let time = VirtualTime::new();
        let (seen, sleeper) = (Arc::new(Seen::default()), time.sleeper());
        let rule = if drops_fail { DropRule::Failure } else { DropRule::Neutral };
        let breaker = CircuitBreaker::builder("b")
            .consecutive_failures(0)
            .no_failure_rate()
            .window(Window::time(secs(60)))
            .on_drop(rule)
            .clock(time.clock())
            .build()
            .unwrap();
        let slots = BulkheadConfig::new(limit).with_queue(3, ms(100), QueueOrder::Fifo);
        let bulkhead = Bulkhead::new("s", slots).unwrap();
        let adaptive =
            AdaptiveLimit::with_clock("a", AdaptiveConfig::default(), time.clock()).unwrap();
        let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(30))).build().unwrap();
        let counting = Arc::clone(&seen);
        let observer: Arc<dyn Observer> = Arc::new(move |event: &Event<'_>| {
            if matches!(event, Event::TimedOut { .. }) {
                counting.timed_out.fetch_add(1, Relaxed);
            }
        });
        let backoff = Backoff::fixed(ms(10));
        let pipeline = Pipeline::builder()
            .clock(time.clock())
            .sleeper(time.sleeper())
            .then(Timeout::total("t", ms(200)).unwrap())
            .then(Retry::builder("r").backoff(backoff).seed(1).build().unwrap())
            .then_if(hedged.then_some(hedge))
            .then(bulkhead.clone())
            .then(adaptive.clone())
            .then(breaker.clone())
            .then(Timeout::per_attempt("p", ms(60)).unwrap().with_observer(observer))
            .build()
            .unwrap();
        let (pipeline, seen_of, sleeper) = (&pipeline, &*seen, &sleeper);
        time.run_all(calls.iter().map(|(comes, patience, acts)| async move {
            sleeper.sleep(ms(*comes)).await;
            let won = AtomicBool::new(false);
            let call = pipeline.call_within(Context::default(), |attempt| {
                let at = (attempt.number() - 1 + attempt.hedge()) as usize;
                act_out(sleeper, acts[at % acts.len()], seen_of, &won)
            });
            impatient(sleeper, *patience, call).await;
        }));
        prop_assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
        prop_assert_eq!(adaptive.in_use(), 0);
        let (began, ended, timed_out) =
            (seen.began.load(Relaxed), seen.ended.load(Relaxed), seen.timed_out.load(Relaxed));
        let dropped = began - ended - timed_out;
        let cancelled = dropped - seen.lost.load(Relaxed);
        let counted = ended + timed_out + if drops_fail { cancelled } else { 0 };
        prop_assert_eq!(breaker.snapshot().calls, counted);
        prop_assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn b3_whenever_probes_are_dropped_the_breaker_still_finds_its_way_back(
        calls in calls(),
        probes in 1..4u32,
    ) {
        let time = VirtualTime::new();
        let (seen, sleeper) = (Seen::default(), time.sleeper());
        let breaker = CircuitBreaker::builder("b")
            .consecutive_failures(2)
            .open_for(mainstay_resilience::OpenFor::fixed(ms(50)))
            .half_open(mainstay_resilience::Probes::new(probes))
            .clock(time.clock())
            .build()
            .unwrap();
        let pipeline = Pipeline::builder()
            .clock(time.clock())
            .sleeper(time.sleeper())
            .then(breaker.clone())
            .then(Timeout::per_attempt("p", ms(60)).unwrap())
            .build()
            .unwrap();
        let (pipeline, seen, sleeper) = (&pipeline, &seen, &sleeper);
        time.run_all(calls.iter().map(|(comes, patience, acts)| async move {
            sleeper.sleep(ms(*comes)).await;
            let won = AtomicBool::new(false);
            let call = pipeline.call(|_| act_out(sleeper, acts[0], seen, &won));
            impatient(sleeper, *patience, call).await;
        }));
        // Nobody holds a permit any more, so the next good calls must close it.
        time.block_on(sleeper.sleep(ms(50)));
        for _ in 0..probes {
            if let Ok(permit) = breaker.try_acquire() {
                permit.success();
            }
        }
        prop_assert_eq!(breaker.state(), State::Closed);
    }
}
