//! Layers for `tower` over the same cores.
//!
//! Each layer drives `poll_ready` on the very service it calls, refuses in `call` and never in
//! `poll_ready` (a buffer takes that for a broken service), returns a named future, and clones by
//! sharing the policy's state. Requests need not be `Clone`; a retry or a hedge copies them by a
//! function that may decline. For pipelines around functions, layers are not needed.
//!
//! Layers do not know each other: each is told by `context_by` what a request says about its call
//! (deadline, priority, caller, cost), and none of them waits before a call: a policy that is configured to
//! wait is refused when the layer is built.

mod hedge;
mod retry;

pub use hedge::{HedgeFuture, HedgeLayer, HedgeService};
pub use retry::{RetryFuture, RetryLayer, RetryService};

use crate::adaptive_limit::AdaptiveLimit;
use crate::attempt::Attempt;
use crate::breaker::{CircuitBreaker, OwnedPermit};
use crate::bulkhead::{Bulkhead, OwnedBulkheadPermit};
use crate::clock::Clock;
use crate::config_error::ConfigError;
use crate::context::Context as CallContext;
use crate::error::Error;
use crate::error_kind::{Classify, Verdict};
use crate::human_duration;
use crate::rate_limit::{KeyedLeasedLimiter, KeyedRateLimiter, LeasedLimiter, RateLimiter};
use crate::rejection::Rejection;
use crate::sleeper::Sleeper;
use crate::throttle::Throttle;
use crate::timeout::Timeout;
use pin_project_lite::pin_project;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
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

/// What a request says about its call: by when, how important, on whose behalf.
pub trait Tell<R> {
    /// The call's context.
    fn context(&self, request: &R) -> CallContext;
}

/// Requests say nothing: no deadline, normal priority, no caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untold;

impl<R> Tell<R> for Untold {
    fn context(&self, _: &R) -> CallContext {
        CallContext::default()
    }
}

/// Requests say it by a function, for example from their headers.
#[derive(Clone, Copy, Debug)]
pub struct ToldBy<F>(pub F);

impl<R, F: Fn(&R) -> CallContext> Tell<R> for ToldBy<F> {
    fn context(&self, request: &R) -> CallContext {
        (self.0)(request)
    }
}

/// A policy that admits a call, holds something while it runs, and takes its result.
pub trait Admit: Clone {
    /// What is held; dropping it gives it back.
    type Permit;

    /// Whether it can stand in a layer, which never waits. Default: it can.
    ///
    /// # Errors
    /// The setting by which calls would wait.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Admits or refuses one call at once.
    ///
    /// # Errors
    /// The refusal.
    fn admit(&self, context: CallContext) -> Result<Self::Permit, Rejection>;

    /// Takes the result of an admitted call.
    fn settle(permit: Self::Permit, verdict: &Verdict);
}

fn no_wait(field: &str, value: impl fmt::Display, is_none: bool) -> Result<(), ConfigError> {
    let allowed = "0 in a layer, which refuses at once, or a pipeline, in which calls wait";
    if is_none { Ok(()) } else { Err(ConfigError::new(field, value, allowed)) }
}

impl Admit for CircuitBreaker {
    type Permit = OwnedPermit;

    fn admit(&self, _: CallContext) -> Result<OwnedPermit, Rejection> {
        self.try_acquire_owned()
    }

    fn settle(permit: OwnedPermit, verdict: &Verdict) {
        permit.record(*verdict);
    }
}

impl Admit for Bulkhead {
    type Permit = OwnedBulkheadPermit;

    fn check(&self) -> Result<(), ConfigError> {
        no_wait("queue", self.config().queue, self.config().queue == 0)
    }

    fn admit(&self, _: CallContext) -> Result<OwnedBulkheadPermit, Rejection> {
        self.try_acquire_owned()
    }

    fn settle(permit: OwnedBulkheadPermit, _: &Verdict) {
        drop(permit);
    }
}

impl Admit for RateLimiter {
    type Permit = ();

    fn check(&self) -> Result<(), ConfigError> {
        let wait_max = self.config().wait_max;
        no_wait("wait_max", human_duration::format(wait_max), wait_max.is_zero())
    }

    fn admit(&self, context: CallContext) -> Result<(), Rejection> {
        self.try_acquire_cost(context.cost)
    }

    fn settle((): (), _: &Verdict) {}
}

impl Admit for KeyedRateLimiter {
    type Permit = ();

    fn check(&self) -> Result<(), ConfigError> {
        let wait_max = self.config().rate.wait_max;
        no_wait("rate.wait_max", human_duration::format(wait_max), wait_max.is_zero())
    }

    fn admit(&self, context: CallContext) -> Result<(), Rejection> {
        self.try_acquire(&context.caller_key(), context.cost)
    }

    fn settle((): (), _: &Verdict) {}
}

impl Admit for LeasedLimiter {
    type Permit = ();

    fn check(&self) -> Result<(), ConfigError> {
        let wait_max = self.wait_max_alone();
        no_wait("wait_max", human_duration::format(wait_max), wait_max.is_zero())
    }

    fn admit(&self, context: CallContext) -> Result<(), Rejection> {
        self.try_acquire(context.cost)
    }

    fn settle((): (), _: &Verdict) {}
}

impl Admit for KeyedLeasedLimiter {
    type Permit = ();

    fn check(&self) -> Result<(), ConfigError> {
        let wait_max = self.wait_max_alone();
        no_wait("wait_max", human_duration::format(wait_max), wait_max.is_zero())
    }

    fn admit(&self, context: CallContext) -> Result<(), Rejection> {
        self.try_acquire(&context.caller_key(), context.cost)
    }

    fn settle((): (), _: &Verdict) {}
}

impl Admit for Throttle {
    type Permit = Throttle;

    fn admit(&self, _: CallContext) -> Result<Throttle, Rejection> {
        self.try_acquire().map(|()| self.clone())
    }

    fn settle(permit: Throttle, verdict: &Verdict) {
        permit.record(*verdict);
    }
}

impl Admit for AdaptiveLimit {
    type Permit = crate::adaptive_limit::OwnedAdaptivePermit;

    fn admit(&self, context: CallContext) -> Result<Self::Permit, Rejection> {
        self.try_acquire_owned(context)
    }

    fn settle(permit: Self::Permit, verdict: &Verdict) {
        permit.record(*verdict);
    }
}

/// Puts a breaker, a bulkhead, a rate limit of any kind, an adaptive limit or a throttle around a
/// service.
///
/// A rate limit takes the cost that [`context_by`](Self::context_by) tells, and one with keys counts by
/// the caller it tells, under [`Context::caller_key`](crate::Context::caller_key), as in a chain:
///
/// ```
/// use mainstay_resilience::{Algorithm, Context, KeyedConfig, KeyedRateLimiter, RateConfig};
/// use mainstay_resilience::tower_layer::PolicyLayer;
/// # struct Request { api_key: String, tokens: u32 }
///
/// let rate = RateConfig::per_second(Algorithm::TokenBucket, 1_000);
/// let limiter = KeyedRateLimiter::new("by-key", KeyedConfig::new(rate))?;
/// let layer = PolicyLayer::new(limiter)?.context_by(|request: &Request| {
///     Context::default().caller(&request.api_key).cost(request.tokens)
/// });
/// # let _ = layer;
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// It refuses at once and never waits: a bulkhead with a queue and a rate limiter with a `wait_max` are
/// refused when it is built, and one that is reconfigured to wait later still refuses here.
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, tower_layer::PolicyLayer};
/// use tower_layer::Layer;
/// # use mainstay_resilience::ErrorKind;
/// # #[derive(Clone)] struct Client;
/// let layer = PolicyLayer::new(CircuitBreaker::external_service("catalogue"))?;
/// let service = layer.layer(Client);
/// # let _ = service;
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PolicyLayer<P, J = ByError, X = Untold> {
    policy: P,
    judge: J,
    told: X,
}

impl<P: Admit> PolicyLayer<P> {
    /// Judging by the error alone.
    ///
    /// # Errors
    /// The setting of `policy` by which calls would wait.
    pub fn new(policy: P) -> Result<Self, ConfigError> {
        policy.check()?;
        Ok(PolicyLayer { policy, judge: ByError, told: Untold })
    }
}

impl<P: Admit, F> PolicyLayer<P, By<F>> {
    /// Judging by the whole result.
    ///
    /// # Errors
    /// As [`new`](PolicyLayer::new).
    pub fn judged(policy: P, judge: F) -> Result<Self, ConfigError> {
        policy.check()?;
        Ok(PolicyLayer { policy, judge: By(judge), told: Untold })
    }
}

impl<P, J, X> PolicyLayer<P, J, X> {
    /// Taking priority, caller and cost from the request: an adaptive limit admits by the first two, a
    /// rate limit takes the cost, and one with keys counts by the caller.
    #[must_use]
    pub fn context_by<F>(self, context: F) -> PolicyLayer<P, J, ToldBy<F>> {
        PolicyLayer { policy: self.policy, judge: self.judge, told: ToldBy(context) }
    }
}

impl<S, P: Clone, J: Clone, X: Clone> Layer<S> for PolicyLayer<P, J, X> {
    type Service = PolicyService<S, P, J, X>;

    fn layer(&self, inner: S) -> Self::Service {
        let PolicyLayer { policy, judge, told } = self.clone();
        PolicyService { inner, policy, judge, told }
    }
}

/// A service behind a policy.
#[derive(Clone, Debug)]
pub struct PolicyService<S, P, J, X = Untold> {
    inner: S,
    policy: P,
    judge: J,
    told: X,
}

impl<S, P, J, X> PolicyService<S, P, J, X> {
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

impl<S, P, J, X, R> Service<R> for PolicyService<S, P, J, X>
where
    S: Service<R>,
    P: Admit,
    X: Tell<R>,
    J: Judge<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = PolicyFuture<S::Future, P, J>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Operation)
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.policy.admit(self.told.context(&request)) {
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

/// Puts a [`Timeout`] around a service; what is not done by then is dropped.
///
/// The limit may change while running, and its observer hears of each call that is stopped. The scope
/// makes no difference: what a layer limits is what stands inside it.
#[derive(Clone, Debug)]
pub struct TimeoutLayer<Z, X = Untold> {
    timeout: Timeout,
    sleeper: Z,
    clock: Clock,
    told: X,
}

impl<Z: Sleeper> TimeoutLayer<Z> {
    /// A limit for each call, waiting with `sleeper`.
    pub fn new(timeout: Timeout, sleeper: Z) -> Self {
        TimeoutLayer { timeout, sleeper, clock: Clock::system(), told: Untold }
    }
}

impl<Z, X> TimeoutLayer<Z, X> {
    /// Takes the time from `clock`, which the deadlines of requests are measured by.
    #[must_use]
    pub fn on_clock(self, clock: Clock) -> Self {
        TimeoutLayer { clock, ..self }
    }

    /// Taking the deadline from the request: a call gets the limit or what is left until then,
    /// whichever is less, and is refused when nothing is.
    #[must_use]
    pub fn context_by<F>(self, context: F) -> TimeoutLayer<Z, ToldBy<F>> {
        let TimeoutLayer { timeout, sleeper, clock, .. } = self;
        TimeoutLayer { timeout, sleeper, clock, told: ToldBy(context) }
    }
}

impl<S, Z: Clone, X: Clone> Layer<S> for TimeoutLayer<Z, X> {
    type Service = TimeoutService<S, Z, X>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeoutService { inner, layer: self.clone() }
    }
}

/// A service under a limit of time.
#[derive(Clone, Debug)]
pub struct TimeoutService<S, Z, X = Untold> {
    inner: S,
    layer: TimeoutLayer<Z, X>,
}

impl<S, Z: Sleeper, X: Tell<R>, R> Service<R> for TimeoutService<S, Z, X>
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
        let layer = &self.layer;
        let attempt = Attempt::first(layer.clock.now(), layer.told.context(&request));
        let timeout = layer.timeout.clone();
        match timeout.begin(attempt) {
            Ok(attempt) => {
                let left = attempt.deadline().remaining(attempt.began());
                let (timer, inner) = (layer.sleeper.sleep(left), self.inner.call(request));
                let (inner, timer) = (Some(inner), Some(timer));
                TimeoutFuture { inner, timer, timeout, attempt, rejection: None }
            }
            Err(rejection) => {
                let rejection = Some(rejection);
                TimeoutFuture { inner: None, timer: None, timeout, attempt, rejection }
            }
        }
    }
}

pin_project! {
    /// The future of a [`TimeoutService`]. Dropping it drops the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct TimeoutFuture<F, Z> {
        #[pin]
        inner: Option<F>,
        #[pin]
        timer: Option<Z>,
        timeout: Timeout,
        attempt: Attempt,
        rejection: Option<Rejection>,
    }
}

impl<F, Z, T, E> Future for TimeoutFuture<F, Z>
where
    F: Future<Output = Result<T, E>>,
    Z: Future<Output = ()>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(inner), Some(timer)) =
            (this.inner.as_mut().as_pin_mut(), this.timer.as_mut().as_pin_mut())
        else {
            // Polling again after the end never ends, as for any future.
            return this.rejection.take().map_or(Poll::Pending, |r| Poll::Ready(Err(r.into())));
        };
        if let Poll::Ready(result) = inner.poll(cx) {
            return Poll::Ready(result.map_err(Error::Operation));
        }
        std::task::ready!(timer.poll(cx));
        // Before the event, so that whoever hears of it finds nothing held.
        this.inner.set(None);
        Poll::Ready(Err(this.timeout.timed_out(*this.attempt)))
    }
}
