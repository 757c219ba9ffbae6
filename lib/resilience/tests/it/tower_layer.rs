//! The layers for tower.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::tower_layer::{PolicyLayer, TimeoutLayer};
use mainstay_resilience::{
    Bulkhead, BulkheadConfig, CircuitBreaker, DropRule, Error, ErrorKind, State, Verdict,
};
use std::convert::Infallible;
use std::future::{Pending, Ready, pending, poll_fn, ready};
use std::task::{Context, Poll};
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
    let layer = PolicyLayer::new(breaker.clone());
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

#[test]
fn the_natural_order_of_timeout_around_breaker_opens_on_a_hang() {
    let time = VirtualTime::new();
    let breaker = CircuitBreaker::builder("b")
        .on_drop(DropRule::TimeoutAfter(ms(900)))
        .clock(time.clock())
        .build()
        .unwrap();
    let inner = PolicyLayer::new(breaker.clone()).layer(Hanging);
    let mut service = TimeoutLayer::new("t", secs(1), time.sleeper()).layer(inner);
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
    let mut service = PolicyLayer::judged(breaker.clone(), judge).layer(Always503);
    (0..5).for_each(|_| assert!(call(&time, &mut service).is_ok()));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_dropped_call_gives_its_slot_back() {
    let bulkhead = Bulkhead::new("s", BulkheadConfig::new(1)).unwrap();
    let mut service = PolicyLayer::new(bulkhead.clone()).layer(Hanging);
    let running = service.call(1);
    assert_eq!(bulkhead.in_use(), 1);
    drop(running);
    assert_eq!(bulkhead.in_use(), 0);
}
