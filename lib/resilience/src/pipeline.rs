//! A pipeline: policies around an operation, the first outermost.
//!
//! Invariants: the order of the chain is the order of execution; an order that makes no sense is
//! refused when the pipeline is built; the whole chain is one type, so no policy's future is
//! boxed; nothing starts after the deadline that a call came with.

mod order;

pub use order::OrderError;

use crate::attempt::Attempt;
use crate::breaker::CircuitBreaker;
use crate::clock::{Clock, Precision};
use crate::context::Context;
use crate::error::Error;
use crate::error_kind::{Classify, Verdict};
use crate::rejection::PolicyKind;
use crate::sleeper::{NoSleeper, Sleeper};
use crate::strategy::{
    Behind, BlockingNext, BlockingStrategy, Describe, Done, Env, Guarded, Links, Next, Operation,
    Part, Strategy, late,
};
use std::fmt;

/// Nothing: the innermost end of every chain's type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bare;

/// `Outer`, then `Inner`.
#[derive(Clone, Debug)]
pub struct Chain<Outer, Inner> {
    outer: Outer,
    inner: Inner,
}

/// Policies around an operation. Clones share every policy's state.
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, ErrorKind, Pipeline, Retry, Timeout};
/// use std::time::Duration;
///
/// let breaker = CircuitBreaker::search_method("bm25");
/// let pipeline = Pipeline::builder()
///     .then(Timeout::total("search", Duration::from_millis(800))?)
///     .then(Retry::builder("search").attempts(2).build()?)
///     .then(breaker)
///     .then(Timeout::per_attempt("search", Duration::from_millis(250))?)
///     .build()?;
/// assert_eq!(
///     pipeline.describe(),
///     "timeout search (800ms in all) → retry search (2 attempts, first wait up to 100ms) → \
///      circuit_breaker bm25 (5 in a row, open for 30s; closed) → timeout search (250ms for each attempt)"
/// );
/// let answer = pipeline.run(|attempt| {
///     assert!(attempt.deadline().is_set());
///     Ok::<_, ErrorKind>("hits")
/// });
/// assert_eq!(answer, Ok("hits"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An order that makes no sense is refused:
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, Pipeline, Timeout};
/// use std::time::Duration;
///
/// let refused = Pipeline::builder()
///     .then(Timeout::total("t", Duration::from_secs(1))?)
///     .then(CircuitBreaker::search_method("bm25"))
///     .build()
///     .unwrap_err();
/// assert!(refused.to_string().starts_with("timeout t stands outside circuit_breaker bm25"));
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # Cancel safety
/// Dropping the future of [`call`](Self::call) drops the attempt under way; each policy gives back
/// what it holds.
#[derive(Clone)]
pub struct Pipeline<C, S = NoSleeper> {
    chain: C,
    env: Env<S>,
    /// As they were when it was built: kinds and names, which never change.
    parts: std::sync::Arc<[Part]>,
    /// Of the chain, whose type alone does not say that it can.
    tell: fn(&C, &mut Vec<Part>),
    /// Absent where the clock is precise whatever is reconfigured.
    is_precise: Option<fn(&C) -> bool>,
    /// Whether a timeout in the chain refuses late calls, and drops awaited ones at their deadline.
    watches: bool,
    /// Whether the first policy may have an answer for a late call.
    answers_late: bool,
}

impl Pipeline<Bare> {
    /// An empty chain, to which policies are appended from the outside in.
    pub fn builder() -> PipelineBuilder<Bare> {
        PipelineBuilder { chain: Bare, clock: Clock::system(), sleeper: NoSleeper }
    }
}

impl<C, S> Pipeline<C, S> {
    /// Runs `operation` on this thread under the chain.
    ///
    /// A chain with a hedge cannot run blocking, and says so at compile time:
    ///
    /// ```compile_fail,E0277
    /// # use mainstay_resilience::{ErrorKind, Hedge, Pipeline};
    /// let hedge = Hedge::builder("h").build().unwrap();
    /// let pipeline = Pipeline::builder().then(hedge).build().unwrap();
    /// let _ = pipeline.run(|_| Ok::<_, ErrorKind>(()));
    /// ```
    ///
    /// # Errors
    /// The operation's own error, or what a policy made of it.
    #[inline]
    pub fn run<T, E: Classify>(
        &self,
        operation: impl Fn(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>>
    where
        C: BlockingStrategy<T, E>,
    {
        self.run_within(Context::default(), operation)
    }

    /// As [`run`](Self::run), within a [`Context`] or [`Deadline`](crate::Deadline) that came from
    /// outside. Whether or not the chain holds a [`Timeout`](crate::Timeout), no attempt begins after
    /// the deadline; one under way goes on, since a thread cannot be stopped from outside.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[inline]
    pub fn run_within<T, E: Classify>(
        &self,
        context: impl Into<Context>,
        operation: impl Fn(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>>
    where
        C: BlockingStrategy<T, E>,
    {
        self.run_judged(context, Verdict::of_ref, operation)
    }

    /// As [`run_within`](Self::run_within), with `judge` concluding from each result.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[inline]
    pub fn run_judged<T, E>(
        &self,
        context: impl Into<Context>,
        judge: impl Fn(Result<&T, &E>) -> Verdict,
        operation: impl Fn(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>>
    where
        C: BlockingStrategy<T, E>,
    {
        let next = Operation { env: self.env(), operation, judge };
        let attempt = Attempt::first(self.env.now(), context.into());
        if !self.watches && !attempt.deadline().is_set() {
            return self.chain.execute_blocking(attempt, &next).result;
        }
        if attempt.is_late() && !self.watches && !self.answers_late {
            return Err(late());
        }
        self.chain.execute_blocking(attempt, &Guarded(next)).result
    }

    /// Awaits `operation` under the chain. `operation` may be called more than once; it gets the
    /// attempt's number and deadline and need not own or clone its request.
    ///
    /// A chain without a sleeper cannot be awaited, and says so at compile time:
    ///
    /// ```compile_fail,E0277
    /// # use mainstay_resilience::{ErrorKind, Pipeline};
    /// let pipeline = Pipeline::builder().build().unwrap();
    /// let _ = pipeline.call(|_| async { Ok::<_, ErrorKind>(()) });
    /// ```
    ///
    /// # Errors
    /// The operation's own error, or what a policy made of it.
    #[inline]
    pub fn call<T, E, F>(
        &self,
        operation: impl Fn(Attempt) -> F + Sync,
    ) -> impl Future<Output = Result<T, Error<E>>>
    where
        T: Send,
        E: Classify + Send,
        S: Sleeper,
        C: Strategy<T, E>,
        F: Future<Output = Result<T, E>> + Send,
    {
        self.call_judged(Context::default(), Verdict::of_ref, operation)
    }

    /// As [`call`](Self::call), within a [`Context`] or [`Deadline`](crate::Deadline) that came from
    /// outside. Whether or not the chain holds a [`Timeout`](crate::Timeout), no attempt begins after
    /// the deadline, and one under way is dropped at it: [`Error::TimedOut`].
    ///
    /// # Errors
    /// As [`call`](Self::call).
    #[inline]
    pub fn call_within<T, E, F>(
        &self,
        context: impl Into<Context>,
        operation: impl Fn(Attempt) -> F + Sync,
    ) -> impl Future<Output = Result<T, Error<E>>>
    where
        T: Send,
        E: Classify + Send,
        S: Sleeper,
        C: Strategy<T, E>,
        F: Future<Output = Result<T, E>> + Send,
    {
        self.call_judged(context, Verdict::of_ref, operation)
    }

    /// As [`call_within`](Self::call_within), with `judge` concluding from each result: for errors
    /// that are not [`Classify`], and for results that count as failures.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    #[inline]
    pub async fn call_judged<T, E, F>(
        &self,
        context: impl Into<Context>,
        judge: impl Fn(Result<&T, &E>) -> Verdict + Sync,
        operation: impl Fn(Attempt) -> F + Sync,
    ) -> Result<T, Error<E>>
    where
        T: Send,
        E: Send,
        S: Sleeper,
        C: Strategy<T, E>,
        F: Future<Output = Result<T, E>> + Send,
    {
        let next = Operation { env: self.env(), operation, judge };
        let attempt = Attempt::first(self.env.now(), context.into());
        if self.watches || !attempt.deadline().is_set() {
            return self.chain.execute(attempt, &next).await.result;
        }
        if attempt.is_late() && !self.answers_late {
            return Err(late());
        }
        self.chain.execute(attempt, &Guarded(next)).await.result
    }

    /// The clock and the sleeper, the clock as precise as the policies need it now.
    #[inline]
    fn env(&self) -> &Env<S> {
        if let Some(is_precise) = self.is_precise {
            self.env.set_precise(is_precise(&self.chain));
        }
        &self.env
    }

    /// The chain in one line, outermost first, as configured now and with the states of its breakers.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts = Vec::with_capacity(self.parts.len());
        (self.tell)(&self.chain, &mut parts);
        let parts = parts.iter();
        let texts: Vec<String> =
            parts.map(|part| format!("{} {} ({})", part.kind, part.name, part.text)).collect();
        if texts.is_empty() { "nothing".to_owned() } else { texts.join(" → ") }
    }

    /// The kinds and names of the policies, outermost first.
    pub fn policies(&self) -> impl Iterator<Item = (PolicyKind, &str)> {
        self.parts.iter().map(|part| (part.kind, &*part.name))
    }
}

impl<C, S> fmt::Debug for Pipeline<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline({})", self.describe())
    }
}

/// Builds a [`Pipeline`] from the outside in.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct PipelineBuilder<C, S = NoSleeper> {
    chain: C,
    clock: Clock,
    sleeper: S,
}

impl<C, S> PipelineBuilder<C, S> {
    /// Appends a policy inside all that were appended before.
    pub fn then<P: Describe>(self, policy: P) -> PipelineBuilder<Chain<C, P>, S> {
        let chain = Chain { outer: self.chain, inner: policy };
        PipelineBuilder { chain, clock: self.clock, sleeper: self.sleeper }
    }

    /// Appends a policy if there is one; without, the chain goes on as if nothing had been said.
    pub fn then_if<P: Describe>(
        self,
        policy: Option<P>,
    ) -> PipelineBuilder<Chain<C, Optional<P>>, S> {
        let chain = Chain { outer: self.chain, inner: Optional(policy) };
        PipelineBuilder { chain, clock: self.clock, sleeper: self.sleeper }
    }

    /// As [`sleeper`](Self::sleeper), also for [`NoSleeper`].
    pub(crate) fn wait_with<Other>(self, sleeper: Other) -> PipelineBuilder<C, Other> {
        PipelineBuilder { chain: self.chain, clock: self.clock, sleeper }
    }

    /// Waits with `sleeper`; without one the pipeline only runs blocking.
    pub fn sleeper<Other: Sleeper>(self, sleeper: Other) -> PipelineBuilder<C, Other> {
        PipelineBuilder { chain: self.chain, clock: self.clock, sleeper }
    }

    /// Takes the time from `clock`, which must be the clock of every policy in the chain.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks the order and builds the pipeline.
    ///
    /// # Errors
    /// What is wrong with the order, and what to write instead.
    pub fn build(self) -> Result<Pipeline<C, S>, OrderError>
    where
        C: Links,
    {
        let mut parts = Vec::new();
        self.chain.tell(&mut parts);
        order::check(&parts, &self.clock)?;
        let always = parts.iter().any(|part| part.precise);
        let precision = if always { Precision::Precise } else { Precision::Coarse };
        let is = |part: &Part, kind| part.kind == kind;
        let watches = parts.iter().any(|part| is(part, PolicyKind::Timeout));
        let answers_late = parts.first().is_some_and(|part| is(part, PolicyKind::Fallback));
        Ok(Pipeline {
            chain: self.chain,
            env: Env::new(self.clock, precision, self.sleeper),
            parts: parts.into(),
            tell: C::tell,
            is_precise: (!always).then_some(C::any_is_precise as fn(&C) -> bool),
            watches,
            answers_late,
        })
    }
}

impl Links for Bare {
    fn tell(&self, _: &mut Vec<Part>) {}

    #[inline]
    fn any_is_precise(&self) -> bool {
        false
    }
}

impl<Outer: Links, Inner: Links> Links for Chain<Outer, Inner> {
    fn tell(&self, parts: &mut Vec<Part>) {
        self.outer.tell(parts);
        self.inner.tell(parts);
    }

    #[inline]
    fn any_is_precise(&self) -> bool {
        self.outer.any_is_precise() || self.inner.any_is_precise()
    }
}

impl<P: Describe> Links for Optional<P> {
    fn tell(&self, parts: &mut Vec<Part>) {
        parts.extend(self.0.as_ref().map(Describe::part));
    }

    #[inline]
    fn any_is_precise(&self) -> bool {
        self.0.as_ref().is_some_and(Describe::is_precise)
    }
}

/// A policy that may be absent; then the chain goes on as if it were not there.
#[derive(Clone, Debug)]
pub struct Optional<P>(Option<P>);

impl<T: Send, E: Send, P: Strategy<T, E>> Strategy<T, E> for Optional<P> {
    async fn execute<N: Next<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        match &self.0 {
            Some(policy) => policy.execute(attempt, next).await,
            None => next.run(attempt).await,
        }
    }
}

impl<T, E, P: BlockingStrategy<T, E>> BlockingStrategy<T, E> for Optional<P> {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        match &self.0 {
            Some(policy) => policy.execute_blocking(attempt, next),
            None => next.run(attempt),
        }
    }
}

impl<T: Send, E: Send> Strategy<T, E> for Bare {
    #[inline]
    fn execute<N: Next<T, E>>(
        &self,
        attempt: Attempt,
        next: N,
    ) -> impl Future<Output = Done<T, E>> + Send {
        next.run(attempt)
    }
}

impl<T, E> BlockingStrategy<T, E> for Bare {
    #[inline]
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        next.run(attempt)
    }
}

impl<T, E, Outer, Inner> Strategy<T, E> for Chain<Outer, Inner>
where
    T: Send,
    E: Send,
    Outer: Strategy<T, E>,
    Inner: Strategy<T, E>,
{
    #[inline]
    fn execute<N: Next<T, E>>(
        &self,
        attempt: Attempt,
        next: N,
    ) -> impl Future<Output = Done<T, E>> + Send {
        self.outer.execute(attempt, Behind { policy: &self.inner, next })
    }
}

impl<T, E, Outer, Inner> BlockingStrategy<T, E> for Chain<Outer, Inner>
where
    Outer: BlockingStrategy<T, E>,
    Inner: BlockingStrategy<T, E>,
{
    #[inline]
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        self.outer.execute_blocking(attempt, Behind { policy: &self.inner, next })
    }
}

impl<T: Send, E: Send> Strategy<T, E> for CircuitBreaker {
    #[inline]
    #[expect(clippy::manual_async_fn, reason = "an `async fn` moves its arguments once more")]
    fn execute<N: Next<T, E>>(
        &self,
        attempt: Attempt,
        next: N,
    ) -> impl Future<Output = Done<T, E>> + Send {
        async move {
            let permit = match self.try_acquire_at(attempt.began()) {
                Ok(permit) => permit,
                Err(rejection) => return Done::rejected(rejection, attempt.began()),
            };
            let done = next.run(attempt).await;
            permit.record_at(&next.judge(&done), done.at);
            done
        }
    }
}

impl<T, E> BlockingStrategy<T, E> for CircuitBreaker {
    #[inline]
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let permit = match self.try_acquire_at(attempt.began()) {
            Ok(permit) => permit,
            Err(rejection) => return Done::rejected(rejection, attempt.began()),
        };
        let done = next.run(attempt);
        permit.record_at(&next.judge(&done), done.at);
        done
    }
}

impl Describe for CircuitBreaker {
    fn part(&self) -> Part {
        let config = self.config();
        let text = format!("{}; {}", config.rule(), self.state().as_str());
        Part::new(PolicyKind::CircuitBreaker, self.name(), text)
            .sharing(self.shared())
            .on_clock(self.clock())
            .counting_drops(config.on_drop)
    }

    #[inline]
    fn is_precise(&self) -> bool {
        self.needs_precise()
    }
}
