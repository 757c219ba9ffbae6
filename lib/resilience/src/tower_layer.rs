//! Layers for `tower` over the same cores.
//!
//! Each layer drives `poll_ready` on the very service it calls, refuses in `call` and never in
//! `poll_ready` (a buffer takes that for a broken service), returns a named future, and clones by
//! sharing the policy's state. Requests need not be `Clone`; a retry or a hedge copies them by a
//! function that may decline. For pipelines around functions, layers are not needed.

mod hedge;
mod retry;

pub use hedge::{HedgeFuture, HedgeLayer, HedgeService};
pub use retry::{RetryFuture, RetryLayer, RetryService};

use crate::adaptive_limit::AdaptiveLimit;
use crate::breaker::{CircuitBreaker, OwnedPermit};
use crate::bulkhead::{Bulkhead, OwnedBulkheadPermit};
use crate::error::{Error, TimedOut};
use crate::error_kind::{Classify, Verdict};
use crate::rate_limit::RateLimiter;
use crate::rejection::Rejection;
use crate::sleeper::Sleeper;
use crate::throttle::Throttle;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// Decides from a result whether it counts against the dependency.
pub trait Judge<T, E> {
    /// The verdict on one result.
    fn judge(&self, result: Result<&T, &E>) -> Verdict;
}

/// Judges by the error alone, which is [`Classify`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ByError;

impl<T, E: Classify> Judge<T, E> for ByError {
    fn judge(&self, result: Result<&T, &E>) -> Verdict {
        Verdict::of_ref(result)
    }
}

/// Judges by a function of the whole result: for HTTP clients, whose errors come as responses.
#[derive(Clone, Copy, Debug)]
pub struct By<F>(pub F);

impl<T, E, F: Fn(Result<&T, &E>) -> Verdict> Judge<T, E> for By<F> {
    fn judge(&self, result: Result<&T, &E>) -> Verdict {
        (self.0)(result)
    }
}

/// How a request is copied for another attempt.
pub trait Reuse<R> {
    /// A copy, or `None` when the request can be made only once.
    fn copy(&self, request: &R) -> Option<R>;
}

/// Copies requests by `Clone`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cloned;

impl<R: Clone> Reuse<R> for Cloned {
    fn copy(&self, request: &R) -> Option<R> {
        Some(request.clone())
    }
}

/// Copies requests by a function.
#[derive(Clone, Copy, Debug)]
pub struct CopiedBy<F>(pub F);

impl<R, F: Fn(&R) -> Option<R>> Reuse<R> for CopiedBy<F> {
    fn copy(&self, request: &R) -> Option<R> {
        (self.0)(request)
    }
}

/// A policy that admits a call, holds something while it runs, and takes its result.
pub trait Admit: Clone {
    /// What is held; dropping it gives it back.
    type Permit;

    /// Admits or refuses one call.
    ///
    /// # Errors
    /// The refusal.
    fn admit(&self) -> Result<Self::Permit, Rejection>;

    /// Takes the result of an admitted call.
    fn settle(permit: Self::Permit, verdict: &Verdict);
}

impl Admit for CircuitBreaker {
    type Permit = OwnedPermit;

    fn admit(&self) -> Result<OwnedPermit, Rejection> {
        self.try_acquire_owned()
    }

    fn settle(permit: OwnedPermit, verdict: &Verdict) {
        permit.record(*verdict);
    }
}

impl Admit for Bulkhead {
    type Permit = OwnedBulkheadPermit;

    fn admit(&self) -> Result<OwnedBulkheadPermit, Rejection> {
        self.try_acquire_owned()
    }

    fn settle(permit: OwnedBulkheadPermit, _: &Verdict) {
        drop(permit);
    }
}

impl Admit for RateLimiter {
    type Permit = ();

    fn admit(&self) -> Result<(), Rejection> {
        self.try_acquire()
    }

    fn settle((): (), _: &Verdict) {}
}

impl Admit for Throttle {
    type Permit = Throttle;

    fn admit(&self) -> Result<Throttle, Rejection> {
        self.try_acquire().map(|()| self.clone())
    }

    fn settle(permit: Throttle, verdict: &Verdict) {
        permit.record(*verdict);
    }
}

impl Admit for AdaptiveLimit {
    type Permit = crate::adaptive_limit::OwnedAdaptivePermit;

    fn admit(&self) -> Result<Self::Permit, Rejection> {
        self.try_acquire_owned(crate::context::Context::default())
    }

    fn settle(permit: Self::Permit, verdict: &Verdict) {
        permit.record(*verdict);
    }
}

/// Puts a breaker, a bulkhead, a rate limiter, an adaptive limit or a throttle around a service.
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, tower_layer::PolicyLayer};
/// use tower_layer::Layer;
/// # use mainstay_resilience::ErrorKind;
/// # #[derive(Clone)] struct Client;
/// let layer = PolicyLayer::new(CircuitBreaker::external_service("catalogue"));
/// let service = layer.layer(Client);
/// # let _ = service;
/// ```
#[derive(Clone, Debug)]
pub struct PolicyLayer<P, J = ByError> {
    policy: P,
    judge: J,
}

impl<P: Admit> PolicyLayer<P> {
    /// Judging by the error alone.
    pub fn new(policy: P) -> Self {
        PolicyLayer { policy, judge: ByError }
    }
}

impl<P: Admit, F> PolicyLayer<P, By<F>> {
    /// Judging by the whole result.
    pub fn judged(policy: P, judge: F) -> Self {
        PolicyLayer { policy, judge: By(judge) }
    }
}

impl<S, P: Clone, J: Clone> Layer<S> for PolicyLayer<P, J> {
    type Service = PolicyService<S, P, J>;

    fn layer(&self, inner: S) -> Self::Service {
        PolicyService { inner, policy: self.policy.clone(), judge: self.judge.clone() }
    }
}

/// A service behind a policy.
#[derive(Clone, Debug)]
pub struct PolicyService<S, P, J> {
    inner: S,
    policy: P,
    judge: J,
}

impl<S, P, J> PolicyService<S, P, J> {
    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, P, J, R> Service<R> for PolicyService<S, P, J>
where
    S: Service<R>,
    P: Admit,
    J: Judge<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = PolicyFuture<S::Future, P, J>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Operation)
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.policy.admit() {
            Ok(permit) => PolicyFuture {
                inner: Some(self.inner.call(request)),
                permit: Some(permit),
                rejection: None,
                judge: self.judge.clone(),
            },
            Err(rejection) => PolicyFuture {
                inner: None,
                permit: None,
                rejection: Some(rejection),
                judge: self.judge.clone(),
            },
        }
    }
}

pin_project! {
    /// The future of a [`PolicyService`]. Dropping it drops the call and gives back what it held.
    #[must_use = "futures do nothing unless polled"]
    pub struct PolicyFuture<F, P, J>
    where
        P: Admit,
    {
        #[pin]
        inner: Option<F>,
        permit: Option<P::Permit>,
        rejection: Option<Rejection>,
        judge: J,
    }
}

impl<F, P, J, T, E> Future for PolicyFuture<F, P, J>
where
    F: Future<Output = Result<T, E>>,
    P: Admit,
    J: Judge<T, E>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            // Polling again after the refusal was returned never ends, as for any future.
            return this.rejection.take().map_or(Poll::Pending, |r| Poll::Ready(Err(r.into())));
        };
        let result = std::task::ready!(inner.poll(cx));
        if let Some(permit) = this.permit.take() {
            P::settle(permit, &this.judge.judge(result.as_ref()));
        }
        Poll::Ready(result.map_err(Error::Operation))
    }
}

/// Puts a limit of time around a service; what is not done by then is dropped.
#[derive(Clone, Debug)]
pub struct TimeoutLayer<Z> {
    name: Arc<str>,
    limit: Duration,
    sleeper: Z,
}

impl<Z: Sleeper> TimeoutLayer<Z> {
    /// A limit for each call, waiting with `sleeper`.
    pub fn new(name: impl Into<Arc<str>>, limit: Duration, sleeper: Z) -> Self {
        TimeoutLayer { name: name.into(), limit, sleeper }
    }
}

impl<S, Z: Clone> Layer<S> for TimeoutLayer<Z> {
    type Service = TimeoutService<S, Z>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeoutService { inner, layer: self.clone() }
    }
}

/// A service under a limit of time.
#[derive(Clone, Debug)]
pub struct TimeoutService<S, Z> {
    inner: S,
    layer: TimeoutLayer<Z>,
}

impl<S, Z: Sleeper, R> Service<R> for TimeoutService<S, Z>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = TimeoutFuture<S::Future, Z::Sleep>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Operation)
    }

    fn call(&mut self, request: R) -> Self::Future {
        TimeoutFuture {
            inner: self.inner.call(request),
            timer: self.layer.sleeper.sleep(self.layer.limit),
            name: Arc::clone(&self.layer.name),
            limit: self.layer.limit,
        }
    }
}

pin_project! {
    /// The future of a [`TimeoutService`]. Dropping it drops the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct TimeoutFuture<F, Z> {
        #[pin]
        inner: F,
        #[pin]
        timer: Z,
        name: Arc<str>,
        limit: Duration,
    }
}

impl<F, Z, T, E> Future for TimeoutFuture<F, Z>
where
    F: Future<Output = Result<T, E>>,
    Z: Future<Output = ()>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.inner.poll(cx) {
            return Poll::Ready(result.map_err(Error::Operation));
        }
        let (name, limit) = (this.name, *this.limit);
        let elapsed = || Error::TimedOut(TimedOut { name: Arc::clone(name), limit });
        this.timer.poll(cx).map(|()| Err(elapsed()))
    }
}
