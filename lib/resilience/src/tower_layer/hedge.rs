//! Hedge around a service.

use super::{By, ByError, Cloned, CopiedBy, Judge, Reuse, Tell, ToldBy, Untold};
use crate::attempt::Attempt;
use crate::clock::Clock;
use crate::error::Error;
use crate::hedge::Hedge;
use crate::sleeper::Sleeper;
use crate::strategy::{Done, late};
use pin_project_lite::pin_project;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Puts a [`Hedge`] around a service: for requests that change nothing.
///
/// The request is copied for each hedge, by `Clone` or by a function that may decline
/// ([`copied_by`](Self::copied_by)). A hedge runs on a clone of the service, whose readiness it
/// awaits. The first attempt is not boxed; each hedge that is really started is.
///
/// An error that the judge takes for neither success nor failure, as the refusal of a layer further in,
/// leaves the race without ending it; it comes back only if all others fail. A budget that a
/// [`RetryLayer`](super::RetryLayer) outside shares is filled by each of its attempts: requests do not
/// say which attempt they are. Share it in a pipeline, or give it to one of the two.
///
/// # Cancel safety
/// Dropping the future drops every attempt; so does the first success, before it is returned. Breakers
/// further in count the losers neither for nor against.
#[derive(Clone, Debug)]
pub struct HedgeLayer<Z, J = ByError, K = Cloned, X = Untold> {
    hedge: Hedge,
    sleeper: Z,
    clock: Clock,
    judge: J,
    reuse: K,
    told: X,
}

impl<Z: Sleeper> HedgeLayer<Z> {
    /// Judging by the error alone, cloning requests, waiting with `sleeper`.
    pub fn new(hedge: Hedge, sleeper: Z) -> Self {
        HedgeLayer {
            hedge,
            sleeper,
            clock: Clock::system(),
            judge: ByError,
            reuse: Cloned,
            told: Untold,
        }
    }
}

impl<Z, J, K, X> HedgeLayer<Z, J, K, X> {
    /// Takes the time from `clock`.
    #[must_use]
    pub fn on_clock(self, clock: Clock) -> Self {
        HedgeLayer { clock, ..self }
    }

    /// Judging by the whole result: what is not to be retried wins.
    #[must_use]
    pub fn judged_by<F>(self, judge: F) -> HedgeLayer<Z, By<F>, K, X> {
        let HedgeLayer { hedge, sleeper, clock, reuse, told, .. } = self;
        HedgeLayer { hedge, sleeper, clock, judge: By(judge), reuse, told }
    }

    /// Copying requests with `copy`; `None` means that there is no hedge.
    #[must_use]
    pub fn copied_by<F>(self, copy: F) -> HedgeLayer<Z, J, CopiedBy<F>, X> {
        let HedgeLayer { hedge, sleeper, clock, judge, told, .. } = self;
        HedgeLayer { hedge, sleeper, clock, judge, reuse: CopiedBy(copy), told }
    }

    /// Taking the deadline from the request: a request that comes after it is refused, and no hedge
    /// starts after it.
    #[must_use]
    pub fn context_by<F>(self, context: F) -> HedgeLayer<Z, J, K, ToldBy<F>> {
        let HedgeLayer { hedge, sleeper, clock, judge, reuse, .. } = self;
        HedgeLayer { hedge, sleeper, clock, judge, reuse, told: ToldBy(context) }
    }
}

impl<Z: Clone, J: Clone, K: Clone, X> HedgeLayer<Z, J, K, X> {
    /// What a call needs once its context was told.
    fn of_call(&self) -> HedgeLayer<Z, J, K> {
        HedgeLayer {
            hedge: self.hedge.clone(),
            sleeper: self.sleeper.clone(),
            clock: self.clock.clone(),
            judge: self.judge.clone(),
            reuse: self.reuse.clone(),
            told: Untold,
        }
    }
}

impl<S, Z: Clone, J: Clone, K: Clone, X: Clone> Layer<S> for HedgeLayer<Z, J, K, X> {
    type Service = HedgeService<S, Z, J, K, X>;

    fn layer(&self, inner: S) -> Self::Service {
        HedgeService { inner, layer: self.clone() }
    }
}

/// A service behind a hedge.
#[derive(Clone, Debug)]
pub struct HedgeService<S, Z, J = ByError, K = Cloned, X = Untold> {
    inner: S,
    layer: HedgeLayer<Z, J, K, X>,
}

impl<S, Z, J, K, X, R> Service<R> for HedgeService<S, Z, J, K, X>
where
    S: Service<R> + Clone,
    Z: Sleeper + Clone,
    J: Judge<S::Response, S::Error> + Clone,
    K: Reuse<R> + Clone,
    X: Tell<R>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = HedgeFuture<S, R, Z, J, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Operation)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let layer = self.layer.of_call();
        let attempt = Attempt::first(layer.clock.now(), self.layer.told.context(&request));
        let attempt = layer.hedge.deposit(attempt);
        let delay = layer.hedge.delay().filter(|_| !attempt.is_late());
        let timer = delay.map(|delay| layer.sleeper.sleep(delay));
        // Without a delay nothing was learned yet, and no hedge starts.
        let kept = timer.as_ref().and_then(|_| layer.reuse.copy(&request));
        let service = self.inner.clone();
        let first = (!attempt.is_late()).then(|| self.inner.call(request));
        let started = u32::from(first.is_some());
        let (extras, failure, refusal) = (Vec::new(), None, None);
        HedgeFuture {
            first,
            timer,
            service,
            layer,
            kept,
            attempt,
            extras,
            failure,
            refusal,
            started,
        }
    }
}

/// A hedge that was started: its service asked whether it is ready, then called.
enum Extra<S: Service<R>, R> {
    Asking(S, Option<R>),
    Calling(Pin<Box<S::Future>>),
}

impl<S: Service<R>, R> Extra<S, R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>> {
        loop {
            match self {
                Extra::Calling(future) => return future.as_mut().poll(cx),
                Extra::Asking(service, request) => {
                    if let Err(error) = std::task::ready!(service.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    let Some(request) = request.take() else { return Poll::Pending };
                    let future = Box::pin(service.call(request));
                    *self = Extra::Calling(future);
                }
            }
        }
    }
}

pin_project! {
    /// The future of a [`HedgeService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct HedgeFuture<S, R, Z, J, K>
    where
        S: Service<R>,
        Z: Sleeper,
    {
        #[pin]
        first: Option<S::Future>,
        #[pin]
        timer: Option<Z::Sleep>,
        service: S,
        layer: HedgeLayer<Z, J, K>,
        kept: Option<R>,
        attempt: Attempt,
        extras: Vec<(u32, Extra<S, R>)>,
        failure: Option<Result<S::Response, S::Error>>,
        refusal: Option<Result<S::Response, S::Error>>,
        started: u32,
    }
}

impl<S, R, Z, J, K> Future for HedgeFuture<S, R, Z, J, K>
where
    S: Service<R> + Clone,
    Z: Sleeper,
    J: Judge<S::Response, S::Error>,
    K: Reuse<R>,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if *this.started == 0 {
            return Poll::Ready(Err(late()));
        }
        loop {
            let mut ended = Vec::new();
            if let Some(first) = this.first.as_mut().as_pin_mut()
                && let Poll::Ready(result) = first.poll(cx)
            {
                ended.push((1, result));
                this.first.set(None);
            }
            this.extras.retain_mut(|(number, extra)| match extra.poll(cx) {
                Poll::Pending => true,
                Poll::Ready(result) => {
                    ended.push((*number, result));
                    false
                }
            });
            for (number, result) in ended {
                let verdict = this.layer.judge.judge(result.as_ref());
                let refused = result.is_err() && !verdict.is_success() && !verdict.is_failure();
                // Refused first and alone: whoever refused it would refuse another as well.
                if refused && *this.started > 1 {
                    *this.refusal = Some(result);
                    continue;
                }
                if verdict.is_retryable() {
                    *this.failure = Some(result);
                    continue;
                }
                let at = this.layer.clock.now();
                let done = Done { result: result.map_err(Error::Operation), at };
                this.layer.hedge.ended(this.attempt, &done, number, *this.started);
                // The others are dropped before the result is returned.
                crate::losers::neutrally(|| {
                    this.first.set(None);
                    this.extras.clear();
                });
                return Poll::Ready(done.result);
            }
            let none_runs = this.first.is_none() && this.extras.is_empty();
            let rung = match this.timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(cx).is_ready(),
                None => false,
            };
            if !none_runs && !rung {
                return Poll::Pending;
            }
            this.timer.set(None);
            let now = this.layer.clock.now();
            let may = this.kept.is_some()
                && this.layer.hedge.may_start_another(this.attempt, *this.started, now);
            if may && let Some(request) = this.kept.take() {
                *this.kept = this.layer.reuse.copy(&request);
                *this.started += 1;
                this.extras
                    .push((*this.started, Extra::Asking(this.service.clone(), Some(request))));
                let delay = this.layer.hedge.delay();
                this.timer.set(delay.map(|delay| this.layer.sleeper.sleep(delay)));
            } else if none_runs && let Some(result) = this.failure.take().or(this.refusal.take()) {
                this.layer.hedge.all_failed(*this.started);
                return Poll::Ready(result.map_err(Error::Operation));
            } else {
                return Poll::Pending;
            }
        }
    }
}

impl<S: Service<R>, R, Z: Sleeper, J, K> fmt::Debug for HedgeFuture<S, R, Z, J, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HedgeFuture({:?}, {} started)", self.layer.hedge, self.started)
    }
}
