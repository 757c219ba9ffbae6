//! Hedges over policies that refuse, over breakers that count drops, and on shared budgets.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::tower_layer::{HedgeLayer, PolicyLayer};
use mainstay_resilience::{
    Backoff, BudgetConfig, Bulkhead, BulkheadConfig, CircuitBreaker, DropRule, Error, ErrorKind,
    FallbackCall, Hedge, HedgeDelay, Pipeline, Retry, RetryBudget, Sleeper, State,
};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

fn hedge() -> Hedge {
    Hedge::builder("h").delay(HedgeDelay::Fixed(ms(10))).build().unwrap()
}

/// An open breaker on `time` whose open period is over, with one probe to give.
fn half_open(time: &VirtualTime) -> CircuitBreaker {
    let breaker = CircuitBreaker::builder("b").clock(time.clock()).build().unwrap();
    breaker.force_open();
    time.block_on(time.sleeper().sleep(secs(31)));
    breaker
}

#[test]
fn a_full_bulkhead_refuses_the_hedge_and_leaves_the_first_attempt_alone() {
    let time = VirtualTime::new();
    let bulkhead = Bulkhead::new("b", BulkheadConfig::new(1)).unwrap();
    let pipeline = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper());
    let pipeline = pipeline.then(hedge()).then(bulkhead.clone()).build().unwrap();
    let sleeper = time.sleeper();
    let call = |outcome: Result<u32, ErrorKind>| {
        let sleeper = sleeper.clone();
        pipeline.call(move |_| {
            let sleep = sleeper.sleep(ms(50));
            async move {
                sleep.await;
                outcome
            }
        })
    };
    assert_eq!(time.block_on(call(Ok(7))), Ok(7));
    assert_eq!(bulkhead.refused(), 1, "the hedge was refused");
    let failed = time.block_on(call(Err(ErrorKind::Connection)));
    assert_eq!(failed, Err(Error::Operation(ErrorKind::Connection)), "an error before a refusal");
    let held = bulkhead.try_acquire().unwrap();
    let before = time.clock().now();
    assert!(time.block_on(call(Ok(7))).unwrap_err().is_rejected());
    assert_eq!(time.clock().now(), before, "refused and alone: at once, without a hedge");
    drop(held);
}

#[test]
fn the_probe_of_a_half_open_breaker_survives_the_hedge_that_finds_it_taken() {
    let time = VirtualTime::new();
    let breaker = half_open(&time);
    let pipeline = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper());
    let pipeline = pipeline.then(hedge()).then(breaker.clone()).build().unwrap();
    let sleeper = time.sleeper();
    let probed = time.block_on(pipeline.call(|_| {
        let sleep = sleeper.sleep(ms(50));
        async move {
            sleep.await;
            Ok::<_, ErrorKind>("back")
        }
    }));
    assert_eq!(probed, Ok("back"));
    assert_eq!((breaker.state(), breaker.snapshot().rejected), (State::Closed, 1));
}

/// Answers the first call of all after `first`, the others after 10 ms.
#[derive(Clone)]
struct Slow {
    calls: Arc<AtomicU32>,
    first: Duration,
    time: VirtualTime,
}

impl Service<u32> for Slow {
    type Response = u32;
    type Error = ErrorKind;
    type Future = Pin<Box<dyn Future<Output = Result<u32, ErrorKind>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ErrorKind>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let sleep = self.time.sleeper().sleep(if number == 0 { self.first } else { ms(10) });
        Box::pin(async move {
            sleep.await;
            Ok(number)
        })
    }
}

fn through_layers(time: &VirtualTime, breaker: &CircuitBreaker, first: Duration) -> u32 {
    let slow = Slow { calls: Arc::new(AtomicU32::new(0)), first, time: time.clone() };
    let inner = PolicyLayer::new(breaker.clone()).unwrap().layer(slow);
    let layer = HedgeLayer::new(hedge(), time.sleeper()).on_clock(time.clock());
    let mut service = layer.layer(inner);
    let answer = time.block_on(async {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(7).await
    });
    answer.unwrap()
}

#[test]
fn the_hedge_layer_does_not_take_a_refusal_for_the_winner() {
    let time = VirtualTime::new();
    let breaker = half_open(&time);
    assert_eq!(through_layers(&time, &breaker, ms(50)), 0, "the first attempt, not its hedge");
    assert_eq!((breaker.state(), breaker.snapshot().rejected), (State::Closed, 1));
}

#[test]
fn cancelled_losers_count_for_nothing_whatever_a_breaker_makes_of_drops() {
    for rule in [DropRule::Failure, DropRule::TimeoutAfter(ms(5)), DropRule::Neutral] {
        let time = VirtualTime::new();
        let breaker = CircuitBreaker::builder("b").on_drop(rule).clock(time.clock());
        let breaker = breaker.build().unwrap();
        let pipeline = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper());
        let pipeline = pipeline.then(hedge()).then(breaker.clone()).build().unwrap();
        let sleeper = time.sleeper();
        let call = || {
            pipeline.call(|attempt| {
                let sleep = sleeper.sleep(if attempt.hedge() == 0 { secs(9) } else { ms(1) });
                async move {
                    sleep.await;
                    Ok::<_, ErrorKind>(())
                }
            })
        };
        (0..3).for_each(|_| time.block_on(call()).unwrap());
        assert_eq!((breaker.snapshot().calls, breaker.snapshot().error_rate), (3, 0.0), "{rule:?}");
        assert_eq!(through_layers(&time, &breaker, secs(9)), 1);
        assert_eq!((breaker.snapshot().calls, breaker.snapshot().error_rate), (4, 0.0), "{rule:?}");
        // Cancelled from outside is something else.
        let mut cancelled = Box::pin(call());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(cancelled.as_mut().poll(&mut cx).is_pending());
        drop(cancelled);
        let counted = breaker.snapshot().calls == 5;
        assert_eq!(counted, rule == DropRule::Failure, "{rule:?}");
    }
}

#[test]
fn one_call_fills_a_budget_once_however_many_policies_share_it() {
    const CALLS: u32 = 1_000;
    let time = VirtualTime::new();
    let mut config = BudgetConfig::default();
    (config.ratio, config.capacity, config.floor_per_second) = (0.1, 10, 0);
    let budget = RetryBudget::with_clock(config, time.clock()).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let elsewhere = Arc::clone(&calls);
    let fallback = FallbackCall::new("f", move |_| {
        elsewhere.fetch_add(1, Ordering::Relaxed);
        async { Err::<(), _>(ErrorKind::ServerError) }
    });
    let retry = Retry::builder("r").backoff(Backoff::none()).budget(&budget).build().unwrap();
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(10))).budget(&budget);
    let pipeline = Pipeline::builder()
        .clock(time.clock())
        .sleeper(time.sleeper())
        .then(fallback.with_budget(&budget))
        .then(retry)
        .then(hedge.build().unwrap())
        .build()
        .unwrap();
    for _ in 0..CALLS {
        let failed = time.block_on(pipeline.call(|_| {
            calls.fetch_add(1, Ordering::Relaxed);
            async { Err::<(), _>(ErrorKind::ServerError) }
        }));
        assert!(failed.is_err());
    }
    let extra = calls.load(Ordering::Relaxed) - CALLS;
    // A tenth of the calls, and ten that were saved up.
    assert!((109..=110).contains(&extra), "{extra}");
}

#[test]
fn each_of_two_budgets_is_filled_once() {
    let config = |ratio| {
        let mut config = BudgetConfig::default();
        (config.ratio, config.capacity, config.floor_per_second) = (ratio, 1, 0);
        config
    };
    let budgets = [0.1, 0.2].map(|ratio| RetryBudget::new(config(ratio)).unwrap());
    budgets.iter().for_each(|budget| assert!(budget.try_withdraw()));
    let call = |budget| FallbackCall::new("f", |_| Ok("else")).with_budget(budget);
    let pipeline = Pipeline::builder()
        .then(call(&budgets[0]))
        .then(call(&budgets[1]))
        .then(Retry::builder("r").budget(&budgets[0]).build().unwrap())
        .build()
        .unwrap();
    assert_eq!(pipeline.run(|_| Ok::<_, ErrorKind>("here")), Ok("here"));
    assert_eq!([budgets[0].balance(), budgets[1].balance()], [0.1, 0.2]);
}
