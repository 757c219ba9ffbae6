//! The layers for tower.

use crate::{ms, secs};
use mainstay_resilience::testing::{VirtualSleeper, VirtualTime};
use mainstay_resilience::tower_layer::{HedgeLayer, PolicyLayer, RetryLayer, TimeoutLayer};
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Algorithm, Backoff, Bulkhead, BulkheadConfig, CircuitBreaker,
    Context as CallContext, Deadline, DropRule, Error, ErrorKind, Event, Hedge, HedgeDelay,
    KeyedConfig, KeyedLeasedLimiter, KeyedRateLimiter, LeasedLimiter, ManualClock, Observer,
    Priority, QueueOrder, RateConfig, RateLimiter, Reason, Retry, RetryBudget, Sleeper, State,
    Timeout, Verdict, WithoutSource,
};
use std::convert::Infallible;
use std::future::{Pending, Ready, pending, poll_fn, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{ServiceBuilder, ServiceExt};
use tower_layer::Layer;
use tower_service::Service;

/// A service that panics when it is called without having been asked whether it is ready.
#[derive(Clone, Default)]
struct Strict {
    ready: bool,
    answer: Option<ErrorKind>,
}

impl Service<u32> for Strict {
    type Response = u32;
    type Error = ErrorKind;
    type Future = Ready<Result<u32, ErrorKind>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ErrorKind>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        ready(self.answer.map_or(Ok(request), Err))
    }
}

fn call<S: Service<u32>>(time: &VirtualTime, service: &mut S) -> Result<S::Response, S::Error> {
    time.block_on(async {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(7).await
    })
}

#[test]
fn the_service_that_is_ready_is_the_one_that_is_called_and_refusals_come_from_the_call() {
    let time = VirtualTime::new();
    let breaker = CircuitBreaker::search_method("b");
    let layer = PolicyLayer::new(breaker.clone()).unwrap();
    let mut service = layer.layer(Strict::default());
    assert_eq!(call(&time, &mut service), Ok(7));
    service.get_mut().answer = Some(ErrorKind::ServerError);
    for _ in 0..5 {
        assert_eq!(call(&time, &mut service), Err(Error::Operation(ErrorKind::ServerError)));
    }
    assert_eq!(breaker.state(), State::Open);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))), "ready, though open");
    assert!(call(&time, &mut service).unwrap_err().is_rejected());
    assert!(call(&time, &mut service.clone()).unwrap_err().is_rejected(), "clones share the state");
}

#[derive(Clone)]
struct Hanging;

impl Service<u32> for Hanging {
    type Response = ();
    type Error = ErrorKind;
    type Future = Pending<Result<(), ErrorKind>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ErrorKind>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        pending()
    }
}

fn within(limit: Duration) -> Timeout {
    Timeout::total("t", limit).unwrap()
}

#[test]
fn the_natural_order_of_timeout_around_breaker_opens_on_a_hang() {
    let time = VirtualTime::new();
    let breaker = CircuitBreaker::builder("b")
        .on_drop(DropRule::TimeoutAfter(ms(900)))
        .clock(time.clock())
        .build()
        .unwrap();
    let inner = PolicyLayer::new(breaker.clone()).unwrap().layer(Hanging);
    let mut service = TimeoutLayer::new(within(secs(1)), time.sleeper()).layer(inner);
    for _ in 0..5 {
        assert!(call(&time, &mut service).unwrap_err().is_timeout());
    }
    assert_eq!(breaker.state(), State::Open);
}

#[derive(Clone)]
struct Always503;

impl Service<u32> for Always503 {
    type Response = http::StatusCode;
    type Error = Infallible;
    type Future = Ready<Result<http::StatusCode, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        ready(Ok(http::StatusCode::SERVICE_UNAVAILABLE))
    }
}

#[test]
fn a_response_can_count_as_a_failure() {
    let time = VirtualTime::new();
    let breaker = CircuitBreaker::search_method("b");
    let judge = |result: Result<&http::StatusCode, &Infallible>| match result {
        Ok(status) if status.is_server_error() => Verdict::from(ErrorKind::ServerError),
        _ => Verdict::success(),
    };
    let mut service = PolicyLayer::judged(breaker.clone(), judge).unwrap().layer(Always503);
    (0..5).for_each(|_| assert!(call(&time, &mut service).is_ok()));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_dropped_call_gives_its_slot_back() {
    let bulkhead = Bulkhead::new("s", BulkheadConfig::new(1)).unwrap();
    let mut service = PolicyLayer::new(bulkhead.clone()).unwrap().layer(Hanging);
    let running = service.call(1);
    assert_eq!(bulkhead.in_use(), 1);
    drop(running);
    assert_eq!(bulkhead.in_use(), 0);
}

/// Fails so often, then answers with the request; counts the calls of all its clones.
#[derive(Clone)]
struct Flaky {
    ready: bool,
    fails: Arc<AtomicU32>,
    calls: Arc<AtomicU32>,
}

impl Flaky {
    fn failing(times: u32) -> Self {
        let calls = Arc::new(AtomicU32::new(0));
        Flaky { ready: false, fails: Arc::new(AtomicU32::new(times)), calls }
    }
}

impl Service<u32> for Flaky {
    type Response = u32;
    type Error = ErrorKind;
    type Future = Ready<Result<u32, ErrorKind>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ErrorKind>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.calls.fetch_add(1, Ordering::Relaxed);
        let failing =
            self.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        ready(if failing.is_ok() { Err(ErrorKind::Connection) } else { Ok(request) })
    }
}

fn retrying(time: &VirtualTime) -> RetryLayer<VirtualSleeper> {
    let retry = Retry::builder("r").backoff(Backoff::fixed(ms(100))).build().unwrap();
    RetryLayer::new(retry, time.sleeper()).on_clock(time.clock())
}

#[test]
fn r1_the_retry_layer_asks_the_service_whether_it_is_ready_before_each_attempt() {
    let time = VirtualTime::new();
    let inner = Flaky::failing(2);
    let mut service = retrying(&time).layer(inner.clone());
    let began = time.clock().now();
    assert_eq!(call(&time, &mut service), Ok(7));
    assert_eq!(inner.calls.load(Ordering::Relaxed), 3);
    assert_eq!(time.clock().now().since(began), ms(200), "two waits");
    inner.fails.store(9, Ordering::Relaxed);
    let Err(Error::Exhausted(all)) = call(&time, &mut service) else { panic!("it failed thrice") };
    assert_eq!(all.errors().len(), 3);
}

#[test]
fn r2_the_retry_layer_makes_a_request_once_that_cannot_be_copied() {
    let time = VirtualTime::new();
    let inner = Flaky::failing(1);
    let mut service = retrying(&time).copied_by(|_: &u32| None).layer(inner.clone());
    assert_eq!(call(&time, &mut service), Err(Error::Operation(ErrorKind::Connection)));
    assert_eq!(inner.calls.load(Ordering::Relaxed), 1);
    let mut judged =
        retrying(&time).judged_by(|_: Result<&u32, &ErrorKind>| Verdict::success()).layer(inner);
    assert_eq!(call(&time, &mut judged), Ok(7));
}

/// Answers the first call of all after a second, the others after 10 ms.
#[derive(Clone)]
struct SlowFirst {
    calls: Arc<AtomicU32>,
    dropped: Arc<AtomicU32>,
    sleeper: VirtualSleeper,
}

/// Counts the calls that were dropped before they ended.
struct Ended(bool, Arc<AtomicU32>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.1.fetch_add(u32::from(!self.0), Ordering::Relaxed);
    }
}

impl Service<u32> for SlowFirst {
    type Response = u32;
    type Error = ErrorKind;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<u32, ErrorKind>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ErrorKind>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let sleep = self.sleeper.sleep(if number == 0 { secs(1) } else { ms(10) });
        let dropped = Arc::clone(&self.dropped);
        Box::pin(async move {
            let mut ended = Ended(false, dropped);
            sleep.await;
            ended.0 = true;
            Ok(number)
        })
    }
}

#[test]
fn the_hedge_layer_takes_the_first_success_and_drops_the_loser() {
    let time = VirtualTime::new();
    let dropped = Arc::new(AtomicU32::new(0));
    let inner = SlowFirst {
        calls: Arc::new(AtomicU32::new(0)),
        dropped: Arc::clone(&dropped),
        sleeper: time.sleeper(),
    };
    let budget = RetryBudget::new(Default::default()).unwrap();
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(30))).budget(&budget);
    let layer = HedgeLayer::new(hedge.build().unwrap(), time.sleeper()).on_clock(time.clock());
    let mut service = layer.layer(inner);
    let began = time.clock().now();
    assert_eq!(call(&time, &mut service), Ok(1), "the hedge won");
    assert_eq!(time.clock().now().since(began), ms(40));
    assert_eq!((dropped.load(Ordering::Relaxed), budget.withdrawn()), (1, 1));
    assert_eq!(call(&time, &mut service), Ok(2), "quick enough without a hedge");
    assert_eq!(budget.withdrawn(), 1);
}

#[test]
fn the_hedge_layer_returns_the_last_failure_when_all_failed() {
    let time = VirtualTime::new();
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(30))).build().unwrap();
    let layer = HedgeLayer::new(hedge, time.sleeper()).on_clock(time.clock());
    let inner = Flaky::failing(2);
    let mut service = layer.layer(inner.clone());
    assert_eq!(call(&time, &mut service), Err(Error::Operation(ErrorKind::Connection)));
    assert_eq!(inner.calls.load(Ordering::Relaxed), 2, "a failure brings the hedge forward");
}

#[test]
fn layers_stack_in_the_order_of_a_pipeline() {
    let time = VirtualTime::new();
    let breaker = CircuitBreaker::builder("b").clock(time.clock()).build().unwrap();
    let inner = Flaky::failing(5);
    let guarded = PolicyLayer::new(breaker.clone()).unwrap().layer(inner.clone());
    let mut service = retrying(&time).layer(guarded);
    assert!(call(&time, &mut service).is_err());
    let refused = call(&time, &mut service).unwrap_err();
    assert!(refused.to_string().contains("it is open"), "{refused}");
    assert_eq!((breaker.state(), inner.calls.load(Ordering::Relaxed)), (State::Open, 5));
}

#[test]
fn a_policy_that_is_configured_to_wait_is_refused_by_the_layer_that_would_not() {
    let queue = BulkheadConfig::new(1).with_queue(5, secs(1), QueueOrder::Fifo);
    let bulkhead = Bulkhead::new("s", queue).unwrap();
    assert_eq!(
        PolicyLayer::new(bulkhead).unwrap_err().to_string(),
        "queue: 5 is not allowed, use 0 in a layer, which refuses at once, or a pipeline, in which \
         calls wait"
    );
    let rate = RateConfig::per_second(Algorithm::TokenBucket, 1).with_wait_max(ms(500));
    let limiter = RateLimiter::new("r", rate).unwrap();
    let judge = |_: Result<&u32, &ErrorKind>| Verdict::success();
    let refused = PolicyLayer::judged(limiter.clone(), judge).err().unwrap();
    assert_eq!((refused.field(), refused.value()), ("wait_max", "500ms"));
    limiter.reconfigure(RateConfig::per_second(Algorithm::TokenBucket, 1)).unwrap();
    assert!(PolicyLayer::new(limiter).is_ok());
}

#[test]
fn a_timeout_layer_follows_its_timeout_and_tells_its_observer() {
    assert!(Timeout::total("t", ms(0)).is_err(), "a layer is built from a checked limit only");
    let time = VirtualTime::new();
    let stopped = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&stopped);
    let observer: Arc<dyn Observer> = Arc::new(move |event: &Event<'_>| {
        if let Event::TimedOut { name, limit } = event {
            heard.lock().unwrap().push(((*name).to_owned(), *limit));
        }
    });
    let timeout = within(secs(1)).with_observer(observer);
    let mut service = TimeoutLayer::new(timeout.clone(), time.sleeper()).layer(Hanging);
    assert!(call(&time, &mut service).unwrap_err().is_timeout());
    timeout.set_limit(ms(20)).unwrap();
    let began = time.clock().now();
    assert!(call(&time, &mut service).unwrap_err().is_timeout());
    assert_eq!(time.clock().now().since(began), ms(20));
    assert_eq!(*stopped.lock().unwrap(), [("t".to_owned(), secs(1)), ("t".to_owned(), ms(20))]);
}

/// A service whose requests say in how many milliseconds they must be done.
fn due(time: &VirtualTime) -> impl Fn(&u32) -> CallContext + Clone + use<> {
    let clock = time.clock();
    move |request| Deadline::after(&clock, ms(u64::from(*request))).into()
}

fn oneshot<S: Service<u32>>(
    time: &VirtualTime,
    service: S,
    request: u32,
) -> Result<S::Response, S::Error> {
    time.block_on(service.oneshot(request))
}

#[test]
fn r3_layers_in_tower_s_builder_heed_the_deadline_that_a_request_tells() {
    let time = VirtualTime::new();
    let began = time.clock().now();
    let elapsed = || time.clock().now().since(began);
    let layer = TimeoutLayer::new(within(secs(1)), time.sleeper()).on_clock(time.clock());
    let timed = ServiceBuilder::new().layer(layer.context_by(due(&time))).service(Hanging);
    assert!(oneshot(&time, timed.clone(), 30).unwrap_err().is_timeout());
    assert_eq!(elapsed(), ms(30), "the request's deadline");
    assert!(oneshot(&time, timed.clone(), 5_000).unwrap_err().is_timeout());
    assert_eq!(elapsed(), ms(1_030), "the limit");
    assert!(oneshot(&time, timed, 0).unwrap_err().is_rejected(), "nothing is left");

    let inner = Flaky::failing(9);
    let retry = retrying(&time).context_by(due(&time));
    let breaker = PolicyLayer::new(CircuitBreaker::search_method("b")).unwrap();
    let retried = ServiceBuilder::new().layer(retry).layer(breaker).service(inner.clone());
    assert!(oneshot(&time, retried, 150).is_err());
    assert_eq!(inner.calls.load(Ordering::Relaxed), 2, "a third would begin after 200 ms");

    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(30))).build().unwrap();
    let hedge = HedgeLayer::new(hedge, time.sleeper()).on_clock(time.clock());
    let started = |request| {
        let calls = Arc::new(AtomicU32::new(0));
        let dropped = Arc::new(AtomicU32::new(0));
        let inner = SlowFirst { calls: Arc::clone(&calls), dropped, sleeper: time.sleeper() };
        let layer = hedge.clone().context_by(due(&time));
        assert!(oneshot(&time, ServiceBuilder::new().layer(layer).service(inner), request).is_ok());
        calls.load(Ordering::Relaxed)
    };
    assert_eq!((started(20), started(5_000)), (1, 2), "no hedge begins after the deadline");
}

#[test]
fn an_adaptive_limit_in_a_layer_admits_by_the_priority_that_a_request_tells() {
    let time = VirtualTime::new();
    let limit = AdaptiveLimit::new("a", AdaptiveConfig::default()).unwrap();
    let _half: Vec<_> =
        (0..10).map(|_| limit.try_acquire(Priority::Critical.into()).unwrap()).collect();
    let by_request = |request: &u32| match request {
        0 => Priority::Background.into(),
        _ => CallContext::default(),
    };
    let layer = PolicyLayer::new(limit.clone()).unwrap().context_by(by_request);
    let service = ServiceBuilder::new().layer(layer).service(Strict::default());
    assert!(oneshot(&time, service.clone(), 0).unwrap_err().is_rejected());
    assert_eq!(oneshot(&time, service, 1), Ok(1));
    assert_eq!(limit.refused(), 1);
}

/// A request is its cost; an even one comes from one caller, an odd one from another.
fn cost_and_caller(request: &u32) -> CallContext {
    CallContext::default().cost(*request).caller(if request.is_multiple_of(2) {
        "even"
    } else {
        "odd"
    })
}

#[test]
fn o4_rate_limits_in_a_layer_take_the_cost_that_a_request_tells() {
    let (time, clock) = (VirtualTime::new(), ManualClock::new());
    let rate = RateConfig::per_second(Algorithm::TokenBucket, 10);
    let limiter = RateLimiter::with_clock("r", rate, clock.clock()).unwrap();
    let layer = PolicyLayer::new(limiter.clone()).unwrap().context_by(cost_and_caller);
    let service = ServiceBuilder::new().layer(layer).service(Strict::default());
    assert_eq!(oneshot(&time, service.clone(), 6), Ok(6));
    assert_eq!(limiter.available(), 4);
    assert!(oneshot(&time, service.clone(), 5).unwrap_err().is_rejected());
    assert_eq!(oneshot(&time, service, 4), Ok(4));

    let alone = WithoutSource::LimitLocally(rate);
    let leased = LeasedLimiter::new("l", 10, alone, clock.clock()).unwrap();
    let layer = PolicyLayer::new(leased).unwrap().context_by(cost_and_caller);
    let service = ServiceBuilder::new().layer(layer).service(Strict::default());
    assert_eq!(oneshot(&time, service.clone(), 6), Ok(6));
    assert!(oneshot(&time, service, 5).unwrap_err().is_rejected());
}

#[test]
fn o4_rate_limits_by_caller_stand_in_layers_and_count_as_in_a_chain() {
    let (time, clock) = (VirtualTime::new(), ManualClock::new());
    let rate = RateConfig::per_second(Algorithm::TokenBucket, 10);
    let keyed = KeyedRateLimiter::with_clock("k", KeyedConfig::new(rate), clock.clock()).unwrap();
    let alone = WithoutSource::LimitLocally(rate);
    let leased = KeyedLeasedLimiter::new("l", 10, 100, alone, clock.clock()).unwrap();
    let first = PolicyLayer::new(keyed.clone()).unwrap().context_by(cost_and_caller);
    let second = PolicyLayer::new(leased.clone()).unwrap().context_by(cost_and_caller);
    let first = ServiceBuilder::new().layer(first).service(Strict::default());
    let second = ServiceBuilder::new().layer(second).service(Strict::default());
    for request in [6, 7] {
        assert_eq!(oneshot(&time, first.clone(), request), Ok(request), "each has its own limit");
        assert_eq!(oneshot(&time, second.clone(), request), Ok(request));
        assert!(oneshot(&time, first.clone(), request).unwrap_err().is_rejected());
        assert!(oneshot(&time, second.clone(), request).unwrap_err().is_rejected());
    }
    assert_eq!(keyed.available(&CallContext::default().caller("even").caller_key()), 4);
    assert_eq!((keyed.keys(), leased.keys()), (2, 2));
}

#[test]
fn o4_rate_limits_by_caller_and_by_lease_that_would_wait_are_refused_by_the_layer() {
    let clock = ManualClock::new().clock();
    let rate = RateConfig::per_second(Algorithm::TokenBucket, 1).with_wait_max(ms(500));
    let keyed = KeyedRateLimiter::new("k", KeyedConfig::new(rate)).unwrap();
    let refused = PolicyLayer::new(keyed).unwrap_err();
    assert_eq!((refused.field(), refused.value()), ("rate.wait_max", "500ms"));
    let alone = WithoutSource::LimitLocally(rate);
    let leased = LeasedLimiter::new("l", 10, alone, clock.clone()).unwrap();
    let refused = PolicyLayer::new(leased).unwrap_err();
    assert_eq!((refused.field(), refused.value()), ("wait_max", "500ms"));
    let both = KeyedLeasedLimiter::new("b", 10, 10, alone, clock).unwrap();
    let refused = PolicyLayer::new(both).unwrap_err();
    assert_eq!((refused.field(), refused.value()), ("wait_max", "500ms"));
}

#[test]
fn r3_layers_that_repeat_calls_begin_none_for_a_request_that_comes_too_late() {
    let time = VirtualTime::new();
    let inner = Flaky::failing(9);
    let retry = retrying(&time).context_by(due(&time));
    let retried = ServiceBuilder::new().layer(retry).service(inner.clone());
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(30))).build().unwrap();
    let hedge = HedgeLayer::new(hedge, time.sleeper()).on_clock(time.clock());
    let hedged = ServiceBuilder::new().layer(hedge.context_by(due(&time))).service(inner.clone());
    for refused in [oneshot(&time, retried, 0), oneshot(&time, hedged, 0)] {
        let reason = refused.unwrap_err().rejection().map(|rejection| rejection.reason());
        assert_eq!(reason, Some(Reason::DeadlinePassed));
    }
    assert_eq!(inner.calls.load(Ordering::Relaxed), 0);
}
