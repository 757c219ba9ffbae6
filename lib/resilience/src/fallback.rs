//! Fallback: another answer when the operation has none.
//!
//! For answers that are worse but useful: a cached one, a static one, another service's. Not for
//! hiding errors: emit [`Event::FellBack`] to a metric and say in the answer that it is degraded.
//! A caller's mistake (not found, bad request) is an answer and is never replaced.

use crate::attempt::Attempt;
use crate::budget::RetryBudget;
use crate::error::Error;
use crate::event::{Event, Listeners, Observer};
use crate::rejection::PolicyKind;
use crate::strategy::{
    BlockingNext, BlockingStrategy, Describe, Done, Limit, Next, Part, Strategy,
};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

/// A fallback to a value that is at hand: static, or from a cache. Made by [`Fallback::to`].
///
/// ```
/// use mainstay_resilience::{ErrorKind, Fallback, Pipeline};
///
/// let pipeline = Pipeline::builder()
///     .then(Fallback::to("static", |_: &mainstay_resilience::Error<ErrorKind>| Some("default")))
///     .build()?;
/// assert_eq!(pipeline.run(|_| Err(ErrorKind::ServerError)), Ok("default"));
/// assert!(pipeline.run(|_| Err::<&str, _>(ErrorKind::NotFound)).is_err());
/// # Ok::<(), mainstay_resilience::OrderError>(())
/// ```
///
/// # For, and not for
/// For answers that are worse but useful. Not for hiding errors: count [`Event::FellBack`] and say in
/// the answer that it is degraded. A caller's mistake is an answer and is never replaced.
///
/// # Parameters
/// The function that makes the answer from the error; where it gives none, the error stays.
///
/// # Cost
/// One comparison while the operation succeeds.
///
/// # Cancel safety
/// Dropping the future drops the operation; the answer is computed without waiting.
///
/// # Source
/// Hystrix's fallback, with the caller's mistakes left alone.
#[derive(Clone)]
pub struct Fallback<F> {
    name: Arc<str>,
    answer: F,
    listeners: Listeners,
}

impl<F> Fallback<F> {
    /// Answers with `answer(error)` where it gives one; else the error stays.
    pub fn to<T, E>(name: impl Into<Arc<str>>, answer: F) -> Self
    where
        F: Fn(&Error<E>) -> Option<T>,
    {
        Fallback { name: name.into(), answer, listeners: Listeners::default() }
    }

    /// The same, telling `observer` each time.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.listeners = Listeners::one(observer);
        self
    }

    fn replace<T, E>(&self, done: Done<T, E>) -> Done<T, E>
    where
        F: Fn(&Error<E>) -> Option<T>,
    {
        match done.result {
            Err(error) => {
                let answer = (self.answer)(&error);
                if answer.is_some() {
                    self.listeners.emit(|| Event::FellBack { name: &self.name });
                }
                Done { result: answer.ok_or(error), at: done.at }
            }
            Ok(value) => Done { result: Ok(value), at: done.at },
        }
    }
}

/// Whether the dependency, not the caller, is why there is no answer.
fn is_wanted<T, E>(done: &Done<T, E>, verdict: crate::error_kind::Verdict) -> bool {
    done.result.is_err() && !verdict.is_success()
}

impl<T: Send, E: Send, F> Strategy<T, E> for Fallback<F>
where
    F: Fn(&Error<E>) -> Option<T> + Send + Sync,
{
    async fn execute<N: Next<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let done = next.run(attempt).await;
        if is_wanted(&done, next.judge(&done)) { self.replace(done) } else { done }
    }
}

impl<T, E, F: Fn(&Error<E>) -> Option<T>> BlockingStrategy<T, E> for Fallback<F> {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let done = next.run(attempt);
        if is_wanted(&done, next.judge(&done)) { self.replace(done) } else { done }
    }
}

impl<F> Describe for Fallback<F> {
    fn part(&self) -> Part {
        Part::new(PolicyKind::Fallback, Arc::clone(&self.name), "to a value")
    }
}

impl<F> fmt::Debug for Fallback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fallback({})", self.name)
    }
}

/// A fallback to another operation, for example another service. Made by [`FallbackCall::new`].
///
/// # For, and not for
/// For a second service that can answer the same question. Not without a budget where the second is
/// smaller than the first: an outage must not move all load elsewhere.
///
/// # Parameters
/// The other operation, and a [`RetryBudget`] that each call of it is taken from: none by default, and
/// then an outage moves all load elsewhere.
///
/// # Cost
/// The budget's deposit while the operation succeeds.
///
/// # Cancel safety
/// Dropping the future drops whichever operation is under way.
///
/// # Source
/// Google SRE book, chapter 22, on what an outage moves.
#[derive(Clone)]
pub struct FallbackCall<F> {
    name: Arc<str>,
    operation: F,
    budget: Option<RetryBudget>,
    listeners: Listeners,
}

impl<F> FallbackCall<F> {
    /// Calls `operation` when the first has no answer; for a blocking chain it returns the result,
    /// for an awaited one a future of it.
    pub fn new(name: impl Into<Arc<str>>, operation: F) -> Self {
        let listeners = Listeners::default();
        FallbackCall { name: name.into(), operation, budget: None, listeners }
    }

    /// The same, taking each call from `budget`: an outage must not move all load elsewhere.
    #[must_use]
    pub fn with_budget(mut self, budget: &RetryBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// The same, telling `observer` each time.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.listeners = Listeners::one(observer);
        self
    }

    fn deposit(&self, mut attempt: Attempt) -> Attempt {
        if let Some(budget) = &self.budget {
            budget.deposit_once(&mut attempt);
        }
        attempt
    }

    fn may_call(&self) -> bool {
        let allowed = self.budget.as_ref().is_none_or(RetryBudget::try_withdraw);
        if allowed {
            self.listeners.emit(|| Event::FellBack { name: &self.name });
        }
        allowed
    }
}

impl<T: Send, E: Send, F, Fut> Strategy<T, E> for FallbackCall<F>
where
    F: Fn(Attempt) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, E>> + Send,
{
    async fn execute<N: Next<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let attempt = self.deposit(attempt);
        let done = next.run(attempt).await;
        let attempt = Attempt { now: done.at, ..attempt };
        if !is_wanted(&done, next.judge(&done)) || attempt.is_late() || !self.may_call() {
            return done;
        }
        let mut work = pin!((self.operation)(attempt));
        let mut limit = Limit::of(&attempt);
        let result = poll_fn(|cx| limit.poll(work.as_mut(), next.env(), cx)).await;
        Done { result, at: next.env().now() }
    }
}

impl<T, E, F: Fn(Attempt) -> Result<T, E>> BlockingStrategy<T, E> for FallbackCall<F> {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let attempt = self.deposit(attempt);
        let done = next.run(attempt);
        let attempt = Attempt { now: done.at, ..attempt };
        if !is_wanted(&done, next.judge(&done)) || attempt.is_late() || !self.may_call() {
            return done;
        }
        let result = (self.operation)(attempt);
        Done { result: result.map_err(Error::Operation), at: next.now() }
    }
}

impl<F> Describe for FallbackCall<F> {
    fn part(&self) -> Part {
        let text = if self.budget.is_some() { "to a call within a budget" } else { "to a call" };
        Part::new(PolicyKind::Fallback, Arc::clone(&self.name), text)
    }
}

impl<F> fmt::Debug for FallbackCall<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FallbackCall({})", self.name)
    }
}
