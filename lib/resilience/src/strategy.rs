//! What a policy is inside a pipeline: something that runs the rest of the chain, zero times, once
//! or more, and may change the result.
//!
//! Invariants: time is read when a call enters and after each attempt, not by each policy: policies
//! take [`Attempt::began`] on the way in and [`Done::at`] on the way out. No attempt begins after its
//! deadline, and one that is awaited is dropped at it: by the nearest timeout around it, which refuses on
//! the way in and drops what is under way, or, without one, at the end of the chain. No policy's future is boxed.

use crate::attempt::Attempt;
use crate::breaker::DropRule;
use crate::clock::{Clock, Precision, Tick};
use crate::deadline::Deadline;
use crate::error::{Error, TimedOut};
use crate::error_kind::Verdict;
use crate::rejection::{DEADLINE, PolicyKind, Rejection};
use crate::sleeper::Sleeper;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// A result and the time at which it was there.
#[derive(Debug)]
pub struct Done<T, E> {
    /// The result.
    pub result: Result<T, Error<E>>,
    /// When it was there.
    pub at: Tick,
}

impl<T, E> Done<T, E> {
    /// A refusal at `at`.
    pub fn rejected(rejection: Rejection, at: Tick) -> Self {
        Done { result: Err(Error::Rejected(rejection)), at }
    }
}

/// Where a chain takes its time from, and how it waits.
#[derive(Debug)]
pub struct Env<S> {
    clock: Clock,
    /// Written only when a policy of the chain was reconfigured across the bound.
    precise: AtomicBool,
    sleeper: S,
}

impl<S: Clone> Clone for Env<S> {
    fn clone(&self) -> Self {
        Env::new(self.clock.clone(), self.precision(), self.sleeper.clone())
    }
}

impl<S> Env<S> {
    pub(crate) fn new(clock: Clock, precision: Precision, sleeper: S) -> Self {
        Env { clock, precise: AtomicBool::new(precision == Precision::Precise), sleeper }
    }

    /// What the chain's policies ask for now, after they may have been reconfigured.
    #[inline]
    pub(crate) fn set_precise(&self, precise: bool) {
        if self.precise.load(Ordering::Relaxed) != precise {
            self.precise.store(precise, Ordering::Relaxed);
        }
    }

    #[inline]
    fn precision(&self) -> Precision {
        if self.precise.load(Ordering::Relaxed) { Precision::Precise } else { Precision::Coarse }
    }

    /// The chain's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The chain's way to wait.
    pub fn sleeper(&self) -> &S {
        &self.sleeper
    }

    /// The time now, as precisely as the chain's policies need it.
    pub fn now(&self) -> Tick {
        self.clock.read(self.precision())
    }
}

/// The rest of a chain, down to the operation, to be awaited. A handle of a few words, so that a chain
/// of any length is one future per policy.
pub trait Next<T: Send, E: Send>: Copy + Send + Sync {
    /// How the chain waits.
    type Sleeper: Sleeper;

    /// Runs the rest of the chain once.
    fn run(self, attempt: Attempt) -> impl Future<Output = Done<T, E>> + Send;

    /// What to conclude from a result.
    fn judge(&self, done: &Done<T, E>) -> Verdict;

    /// Time and waiting.
    fn env(&self) -> &Env<Self::Sleeper>;
}

/// The rest of a chain, down to the operation, blocking. A handle of a few words.
pub trait BlockingNext<T, E>: Copy {
    /// Runs the rest of the chain once.
    fn run(self, attempt: Attempt) -> Done<T, E>;

    /// What to conclude from a result.
    fn judge(&self, done: &Done<T, E>) -> Verdict;

    /// The chain's clock.
    fn clock(&self) -> &Clock;

    /// The time now, as precisely as the chain's policies need it.
    fn now(&self) -> Tick;
}

/// A policy in a chain that is awaited. Implement it, and [`Describe`], for a policy of your own.
pub trait Strategy<T: Send, E: Send>: Send + Sync {
    /// Runs `next` as often as the policy says.
    fn execute<N: Next<T, E>>(
        &self,
        attempt: Attempt,
        next: N,
    ) -> impl Future<Output = Done<T, E>> + Send;
}

/// A policy in a chain that blocks its thread.
pub trait BlockingStrategy<T, E> {
    /// Runs `next` as often as the policy says.
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E>;
}

/// What a policy says of itself: when a chain is built, and whenever the chain is shown.
pub trait Describe {
    /// Its kind, name and text, as configured now.
    fn part(&self) -> Part;

    /// Whether it asks the chain for the precise clock now; asked before each call, so be quick. For
    /// policies that can be reconfigured in a chain; others say so once, by [`Part::precise`].
    #[inline]
    fn is_precise(&self) -> bool {
        false
    }
}

/// A whole chain, which tells what its policies say of themselves.
pub trait Links {
    /// Appends what each policy says of itself now, outermost first.
    fn tell(&self, parts: &mut Vec<Part>);

    /// Whether some policy asks for the precise clock now ([`Describe::is_precise`]).
    fn any_is_precise(&self) -> bool;
}

impl<P: Describe> Links for P {
    fn tell(&self, parts: &mut Vec<Part>) {
        parts.push(self.part());
    }

    #[inline]
    fn any_is_precise(&self) -> bool {
        self.is_precise()
    }
}

/// A policy's description, from which the order of a chain is checked.
#[derive(Clone, Debug)]
pub struct Part {
    pub(crate) kind: PolicyKind,
    pub(crate) name: Arc<str>,
    pub(crate) text: String,
    /// The address of shared state: two parts with one address are the same policy.
    pub(crate) identity: Option<usize>,
    pub(crate) clock: Option<Clock>,
    pub(crate) precise: bool,
    pub(crate) trait_of: Trait,
    /// A timeout's limit; how long a dropped call must have taken for a policy to count it.
    pub(crate) limit: Option<Duration>,
}

/// What the rules on order need to know beside the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trait {
    None,
    /// A timeout over all attempts.
    Total,
    /// A timeout over one attempt.
    PerAttempt,
    /// A breaker or an adaptive limit that counts no dropped call.
    BlindToDrops,
    /// One that does.
    CountsDrops,
}

impl Part {
    /// A part of this kind and name; `text` is what [`describe`](crate::Pipeline::describe) shows.
    pub fn new(kind: PolicyKind, name: impl Into<Arc<str>>, text: impl Into<String>) -> Self {
        Part {
            kind,
            name: name.into(),
            text: text.into(),
            identity: None,
            clock: None,
            precise: false,
            trait_of: Trait::None,
            limit: None,
        }
    }

    /// The same, with the address of the state that clones share.
    #[must_use]
    pub fn sharing(mut self, state: &Arc<impl ?Sized>) -> Self {
        self.identity = Some(Arc::as_ptr(state).cast::<()>() as usize);
        self
    }

    /// The same, with the clock whose ticks the policy compares.
    #[must_use]
    pub fn on_clock(mut self, clock: &Clock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// The same, asking the chain for the precise clock for good ([`Describe::is_precise`]).
    #[must_use]
    pub fn precise(mut self, precise: bool) -> Self {
        self.precise = precise;
        self
    }

    pub(crate) fn with_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = limit.into();
        self
    }

    pub(crate) fn counting_drops(self, rule: DropRule) -> Self {
        match rule {
            DropRule::Neutral => self.with_trait(Trait::BlindToDrops),
            DropRule::Failure => self.with_trait(Trait::CountsDrops),
            DropRule::TimeoutAfter(limit) => self.with_trait(Trait::CountsDrops).with_limit(limit),
        }
    }

    pub(crate) fn with_trait(mut self, trait_of: Trait) -> Self {
        self.trait_of = trait_of;
        self
    }
}

/// The end of a chain: the operation itself.
pub(crate) struct Operation<'a, S, F, J> {
    pub(crate) env: &'a Env<S>,
    pub(crate) operation: F,
    pub(crate) judge: J,
}

impl<T, E, S, F, Fut, J> Next<T, E> for &Operation<'_, S, F, J>
where
    T: Send,
    E: Send,
    S: Sleeper,
    F: Fn(Attempt) -> Fut + Sync,
    Fut: Future<Output = Result<T, E>> + Send,
    J: Fn(Result<&T, &E>) -> Verdict + Sync,
{
    type Sleeper = S;

    #[inline]
    fn run(self, attempt: Attempt) -> impl Future<Output = Done<T, E>> + Send {
        // Called here and not inside the block, so that the operation's future is all it holds.
        let future = (self.operation)(attempt);
        async move {
            let result = future.await.map_err(Error::Operation);
            Done { result, at: self.env.now() }
        }
    }

    fn judge(&self, done: &Done<T, E>) -> Verdict {
        judged(&self.judge, done)
    }

    fn env(&self) -> &Env<S> {
        self.env
    }
}

/// The end of a chain for calls with a deadline: it begins nothing after it, and drops awaited work at it
/// where no timeout does. Of its own type, so that all other calls neither carry nor move what it takes.
pub(crate) struct Guarded<'a, S, F, J>(pub(crate) Operation<'a, S, F, J>);

impl<T, E, S, F, Fut, J> Next<T, E> for &Guarded<'_, S, F, J>
where
    T: Send,
    E: Send,
    S: Sleeper,
    F: Fn(Attempt) -> Fut + Sync,
    Fut: Future<Output = Result<T, E>> + Send,
    J: Fn(Result<&T, &E>) -> Verdict + Sync,
{
    type Sleeper = S;

    fn run(self, attempt: Attempt) -> impl Future<Output = Done<T, E>> + Send {
        let Operation { env, operation, .. } = &self.0;
        let future = (!attempt.is_late()).then(|| operation(attempt));
        let mut limit = Limit::of(&attempt);
        async move {
            let mut work = pin!(future);
            let result = poll_fn(|cx| match work.as_mut().as_pin_mut() {
                Some(work) => limit.poll(work, env, cx),
                None => Poll::Ready(Err(late())),
            });
            Done { result: result.await, at: env.now() }
        }
    }

    fn judge(&self, done: &Done<T, E>) -> Verdict {
        judged(&self.0.judge, done)
    }

    fn env(&self) -> &Env<S> {
        self.0.env
    }
}

impl<T, E, S, F, J> BlockingNext<T, E> for &Operation<'_, S, F, J>
where
    F: Fn(Attempt) -> Result<T, E>,
    J: Fn(Result<&T, &E>) -> Verdict,
{
    #[inline]
    fn run(self, attempt: Attempt) -> Done<T, E> {
        let result = (self.operation)(attempt).map_err(Error::Operation);
        Done { result, at: self.env.now() }
    }

    fn judge(&self, done: &Done<T, E>) -> Verdict {
        judged(&self.judge, done)
    }

    fn clock(&self) -> &Clock {
        &self.env.clock
    }

    fn now(&self) -> Tick {
        self.env.now()
    }
}

impl<T, E, S, F, J> BlockingNext<T, E> for &Guarded<'_, S, F, J>
where
    F: Fn(Attempt) -> Result<T, E>,
    J: Fn(Result<&T, &E>) -> Verdict,
{
    #[inline]
    fn run(self, attempt: Attempt) -> Done<T, E> {
        if attempt.is_late() {
            return Done { result: Err(late()), at: attempt.began() };
        }
        BlockingNext::run(&self.0, attempt)
    }

    fn judge(&self, done: &Done<T, E>) -> Verdict {
        judged(&self.0.judge, done)
    }

    fn clock(&self) -> &Clock {
        &self.0.env.clock
    }

    fn now(&self) -> Tick {
        self.0.env.now()
    }
}

/// The deadline of awaited work that no timeout further out drops then, and the timer once there is one.
/// Boxed: a chain's future is moved once per policy, and nearly no call needs a timer here.
pub(crate) struct Limit<Z> {
    began: Tick,
    deadline: Deadline,
    timer: Option<Pin<Box<Z>>>,
}

impl<Z: Future<Output = ()>> Limit<Z> {
    pub(crate) fn of(attempt: &Attempt) -> Self {
        Limit { began: attempt.began(), deadline: attempt.own_deadline(), timer: None }
    }

    /// Polls `work`, and what is left of its time. Of what is ready at its first poll no timer is made.
    #[inline]
    pub(crate) fn poll<T, E>(
        &mut self,
        work: Pin<&mut impl Future<Output = Result<T, E>>>,
        env: &Env<impl Sleeper<Sleep = Z>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Error<E>>> {
        match work.poll(cx) {
            Poll::Ready(result) => Poll::Ready(result.map_err(Error::Operation)),
            Poll::Pending if self.deadline.is_set() => self.poll_timer(env, cx).map(Err),
            Poll::Pending => Poll::Pending,
        }
    }

    #[inline(never)]
    fn poll_timer<E>(
        &mut self,
        env: &Env<impl Sleeper<Sleep = Z>>,
        cx: &mut Context<'_>,
    ) -> Poll<Error<E>> {
        let Limit { began, deadline, timer } = self;
        let timer = timer.get_or_insert_with(|| {
            // Precisely: no policy has asked for it, and here a few milliseconds count.
            Box::pin(env.sleeper.sleep(deadline.remaining(env.clock.now())))
        });
        timer.as_mut().poll(cx).map(|()| {
            Error::TimedOut(TimedOut { name: DEADLINE.into(), limit: deadline.remaining(*began) })
        })
    }
}

/// What becomes of a call whose deadline has passed.
#[cold]
#[inline(never)]
pub(crate) fn late<E>() -> Error<E> {
    Error::Rejected(Rejection::deadline_passed())
}

#[inline]
fn judged<T, E>(judge: impl Fn(Result<&T, &E>) -> Verdict, done: &Done<T, E>) -> Verdict {
    match &done.result {
        Ok(value) => judge(Ok(value)),
        Err(error) => error.judged(|error| judge(Err(error))),
    }
}

/// One policy with the rest of the chain behind it.
pub(crate) struct Behind<'a, P, N> {
    pub(crate) policy: &'a P,
    pub(crate) next: N,
}

impl<P, N: Copy> Clone for Behind<'_, P, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P, N: Copy> Copy for Behind<'_, P, N> {}

impl<T, E, P, N> Next<T, E> for Behind<'_, P, N>
where
    T: Send,
    E: Send,
    P: Strategy<T, E>,
    N: Next<T, E>,
{
    type Sleeper = N::Sleeper;

    #[inline]
    fn run(self, attempt: Attempt) -> impl Future<Output = Done<T, E>> + Send {
        self.policy.execute(attempt, self.next)
    }

    fn judge(&self, done: &Done<T, E>) -> Verdict {
        self.next.judge(done)
    }

    fn env(&self) -> &Env<N::Sleeper> {
        self.next.env()
    }
}

impl<T, E, P, N> BlockingNext<T, E> for Behind<'_, P, N>
where
    P: BlockingStrategy<T, E>,
    N: BlockingNext<T, E>,
{
    #[inline]
    fn run(self, attempt: Attempt) -> Done<T, E> {
        self.policy.execute_blocking(attempt, self.next)
    }

    fn judge(&self, done: &Done<T, E>) -> Verdict {
        self.next.judge(done)
    }

    fn clock(&self) -> &Clock {
        self.next.clock()
    }

    fn now(&self) -> Tick {
        self.next.now()
    }
}
