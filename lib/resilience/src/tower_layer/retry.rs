//! Retry around a service.

use super::{By, ByError, Cloned, CopiedBy, Judge, Reuse, Tell, ToldBy, Untold};
use crate::attempt::Attempt;
use crate::clock::Clock;
use crate::error::Error;
use crate::retry::{OwnedCourse, Retry, Step};
use crate::sleeper::Sleeper;
use crate::strategy::{Done, late};
use pin_project_lite::pin_project;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Puts a [`Retry`] around a service.
///
/// The request is copied for each further attempt, by `Clone` or by a function that may decline
/// ([`copied_by`](Self::copied_by)): a request that cannot be copied is made once. `Retry`'s
/// budget, Retry-After and statistics work as in a pipeline.
///
/// # Cancel safety
/// Dropping the future drops the attempt or the wait under way; no further attempt is made.
#[derive(Clone, Debug)]
pub struct RetryLayer<Z, J = ByError, K = Cloned, X = Untold> {
    retry: Retry,
    sleeper: Z,
    clock: Clock,
    judge: J,
    reuse: K,
    told: X,
}

impl<Z: Sleeper> RetryLayer<Z> {
    /// Judging by the error alone, cloning requests, waiting with `sleeper`.
    pub fn new(retry: Retry, sleeper: Z) -> Self {
        RetryLayer {
            retry,
            sleeper,
            clock: Clock::system(),
            judge: ByError,
            reuse: Cloned,
            told: Untold,
        }
    }
}

impl<Z, J, K, X> RetryLayer<Z, J, K, X> {
    /// Takes the time from `clock`.
    #[must_use]
    pub fn on_clock(self, clock: Clock) -> Self {
        RetryLayer { clock, ..self }
    }

    /// Judging by the whole result.
    #[must_use]
    pub fn judged_by<F>(self, judge: F) -> RetryLayer<Z, By<F>, K, X> {
        let RetryLayer { retry, sleeper, clock, reuse, told, .. } = self;
        RetryLayer { retry, sleeper, clock, judge: By(judge), reuse, told }
    }

    /// Copying requests with `copy`; `None` means that the request is made once.
    #[must_use]
    pub fn copied_by<F>(self, copy: F) -> RetryLayer<Z, J, CopiedBy<F>, X> {
        let RetryLayer { retry, sleeper, clock, judge, told, .. } = self;
        RetryLayer { retry, sleeper, clock, judge, reuse: CopiedBy(copy), told }
    }

    /// Taking the deadline from the request: a request that comes after it is refused, and no further
    /// attempt starts that could not end by then.
    #[must_use]
    pub fn context_by<F>(self, context: F) -> RetryLayer<Z, J, K, ToldBy<F>> {
        let RetryLayer { retry, sleeper, clock, judge, reuse, .. } = self;
        RetryLayer { retry, sleeper, clock, judge, reuse, told: ToldBy(context) }
    }
}

impl<Z: Clone, J: Clone, K: Clone, X> RetryLayer<Z, J, K, X> {
    /// What a call needs once its context was told.
    fn of_call(&self) -> RetryLayer<Z, J, K> {
        RetryLayer {
            retry: self.retry.clone(),
            sleeper: self.sleeper.clone(),
            clock: self.clock.clone(),
            judge: self.judge.clone(),
            reuse: self.reuse.clone(),
            told: Untold,
        }
    }
}

impl<S, Z: Clone, J: Clone, K: Clone, X: Clone> Layer<S> for RetryLayer<Z, J, K, X> {
    type Service = RetryService<S, Z, J, K, X>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService { inner, layer: self.clone() }
    }
}

/// A service behind a retry.
#[derive(Clone, Debug)]
pub struct RetryService<S, Z, J = ByError, K = Cloned, X = Untold> {
    inner: S,
    layer: RetryLayer<Z, J, K, X>,
}

impl<S, Z, J, K, X> RetryService<S, Z, J, K, X> {
    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S, Z, J, K, X, R> Service<R> for RetryService<S, Z, J, K, X>
where
    S: Service<R> + Clone,
    Z: Sleeper + Clone,
    J: Judge<S::Response, S::Error> + Clone,
    K: Reuse<R> + Clone,
    X: Tell<R>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = RetryFuture<S, R, Z, J, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Operation)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // The instance that is ready goes with the call, its clone stays behind.
        let other = self.inner.clone();
        let mut service = std::mem::replace(&mut self.inner, other);
        let kept = self.layer.reuse.copy(&request);
        let mut attempt = Attempt::first(self.layer.clock.now(), self.layer.told.context(&request));
        let course = self.layer.retry.course(&mut attempt);
        let state = match attempt.is_late() {
            true => State::Late,
            false => State::Calling { future: service.call(request) },
        };
        RetryFuture { service, layer: self.layer.of_call(), kept, course, attempt, state }
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, Z> {
        Calling { #[pin] future: F },
        Waiting { #[pin] sleep: Z },
        Asking,
        Late,
    }
}

pin_project! {
    /// The future of a [`RetryService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RetryFuture<S, R, Z, J, K>
    where
        S: Service<R>,
        Z: Sleeper,
    {
        service: S,
        layer: RetryLayer<Z, J, K>,
        kept: Option<R>,
        course: OwnedCourse<S::Error>,
        attempt: Attempt,
        #[pin]
        state: State<S::Future, Z::Sleep>,
    }
}

impl<S, R, Z, J, K> Future for RetryFuture<S, R, Z, J, K>
where
    S: Service<R>,
    Z: Sleeper,
    J: Judge<S::Response, S::Error>,
    K: Reuse<R>,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let result = match this.state.as_mut().project() {
                StateProjection::Calling { future } => ready!(future.poll(cx)),
                StateProjection::Late => {
                    return Poll::Ready(Err(late()));
                }
                StateProjection::Waiting { sleep } => {
                    ready!(sleep.poll(cx));
                    this.attempt.now = this.layer.clock.now();
                    this.state.set(State::Asking);
                    continue;
                }
                StateProjection::Asking => match ready!(this.service.poll_ready(cx)) {
                    Err(error) => Err(error),
                    Ok(()) => {
                        let request = this.kept.take().expect("a retry is made of a kept request");
                        *this.kept = this.layer.reuse.copy(&request);
                        let future = this.service.call(request);
                        this.state.set(State::Calling { future });
                        continue;
                    }
                },
            };
            let verdict = this.layer.judge.judge(result.as_ref());
            let verdict = if this.kept.is_some() { verdict } else { verdict.without_retry() };
            let at = this.layer.clock.now();
            let done = Done { result: result.map_err(Error::Operation), at };
            match this.course.step(*this.attempt, done, verdict) {
                Step::Finish(done) => return Poll::Ready(done.result),
                Step::Again { wait, attempt } => {
                    *this.attempt = attempt;
                    let next = match wait.is_zero() {
                        true => State::Asking,
                        false => State::Waiting { sleep: this.layer.sleeper.sleep(wait) },
                    };
                    this.state.set(next);
                }
            }
        }
    }
}

impl<S: Service<R>, R, Z: Sleeper, J, K> fmt::Debug for RetryFuture<S, R, Z, J, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryFuture({}, attempt {})", self.layer.retry.name(), self.attempt.number())
    }
}
