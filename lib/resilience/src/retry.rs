//! Retry: another attempt, if the error is one that another attempt can help.
//!
//! For calls that are safe to repeat. Not for calls whose effect is unknown after a timeout, unless
//! they carry an idempotency key; and not in more than one layer of a system: attempts multiply.
//!
//! Cost: one addition and the budget's deposit when the first attempt succeeds; nothing is
//! allocated until an attempt has failed.

mod config;
mod stats;

pub(crate) use config::ATTEMPTS_MAX;
pub use config::RetryConfig;
pub use stats::RetryStats;

use crate::attempt::Attempt;
use crate::budget::RetryBudget;
use crate::clock::{Clock, Precision};
use crate::config_error::ConfigError;
use crate::context::Context;
use crate::error::{Error, Exhausted, GaveUp};
use crate::error_kind::{Classify, ErrorKind, Verdict};
use crate::event::{Event, Listeners, Observer};
use crate::human_duration;
use crate::random::Random;
use crate::rejection::PolicyKind;
use crate::sleeper::{NoSleeper, Sleeper};
use crate::strategy::{
    BlockingNext, BlockingStrategy, Describe, Done, Env, Next, Operation, Part, Strategy,
};
use crate::sync::{Mutex, lock};
use stats::Stats;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// A retry policy. Clones share configuration, randomness and figures.
///
/// ```
/// use mainstay_resilience::{Clock, ErrorKind, ManualClock, Retry};
///
/// let retry = Retry::builder("catalogue").build()?;
/// let clock = ManualClock::new().clock();
/// let found = retry.run_on(&clock, |attempt| match attempt.number() {
///     1 | 2 => Err(ErrorKind::Connection),
///     _ => Ok("found"),
/// });
/// assert_eq!(found, Ok("found"));
/// assert_eq!(retry.stats().succeeded_after_retry, 1);
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # Cancel safety
/// Dropping the future drops the attempt or the wait under way; no further attempt is made.
///
/// # For, and not for
/// For calls that are safe to repeat. Not for calls whose effect is unknown after a timeout, unless
/// they carry an idempotency key, and in one layer of a system only: attempts multiply.
///
/// # Parameters
/// Those of [`RetryConfig`], with their ranges and defaults.
///
/// # Cost
/// Two additions and the budget's deposit when the first attempt succeeds; nothing is allocated until
/// an attempt has failed.
///
/// # Source
/// Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
#[derive(Clone)]
pub struct Retry(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    config: Mutex<RetryConfig>,
    budget: Option<RetryBudget>,
    random: Random,
    listeners: Listeners,
    stats: Stats,
}

impl Retry {
    /// A retry to be configured: 3 attempts, 100 ms doubling to 5 s, full jitter, no budget.
    pub fn builder(name: impl Into<Arc<str>>) -> RetryBuilder {
        RetryBuilder {
            name: name.into(),
            config: RetryConfig::default(),
            budget: None,
            listeners: Listeners::default(),
            seed: None,
        }
    }

    /// Runs `operation` on this thread, again while it fails with a retryable error, sleeping
    /// between. The request need not be `Clone`: the operation is called again.
    ///
    /// # Errors
    /// The operation's error if it is not retryable at once, else [`Error::Exhausted`] with all.
    pub fn run<T, E: Classify>(
        &self,
        operation: impl Fn(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        self.run_on(&Clock::system(), operation)
    }

    /// As [`run`](Self::run), waiting on `clock`: a manual clock moves instead of sleeping.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_on<T, E: Classify>(
        &self,
        clock: &Clock,
        operation: impl Fn(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        let env = Env::new(clock.clone(), Precision::Coarse, NoSleeper);
        let next = Operation { env: &env, operation, judge: Verdict::of_ref };
        self.execute_blocking(Attempt::first(env.now(), Context::default()), &next).result
    }

    /// Awaits `operation`, again while it fails with a retryable error, sleeping between.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn call<T, E, S, F>(
        &self,
        sleeper: S,
        operation: impl Fn(Attempt) -> F + Sync,
    ) -> Result<T, Error<E>>
    where
        T: Send,
        E: Classify + Send,
        S: Sleeper,
        F: Future<Output = Result<T, E>> + Send,
    {
        let env = Env::new(Clock::system(), Precision::Coarse, sleeper);
        let next = Operation { env: &env, operation, judge: Verdict::of_ref };
        self.execute(Attempt::first(env.now(), Context::default()), &next).await.result
    }

    /// Begins one call that steps through its attempts by itself.
    #[cfg(feature = "tower")]
    pub(crate) fn course<E>(&self, attempt: &mut Attempt) -> OwnedCourse<E> {
        OwnedCourse(Course::begin(Arc::clone(&self.0), attempt))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Attempts, successes after retry and refusals by the budget so far.
    #[must_use]
    pub fn stats(&self) -> RetryStats {
        self.0.stats.read()
    }

    /// The budget, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<&RetryBudget> {
        self.0.budget.as_ref()
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> RetryConfig {
        lock(&self.0.config).clone()
    }

    /// Changes the configuration; calls under way use it from their next attempt on.
    ///
    /// # Errors
    /// The field that is out of range; then nothing changes.
    pub fn reconfigure(&self, config: RetryConfig) -> Result<(), ConfigError> {
        config.validate()?;
        *lock(&self.0.config) = config;
        let name = &*self.0.name;
        self.0.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::Retry });
        Ok(())
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retry({})", self.0.name)
    }
}

/// Builds a [`Retry`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RetryBuilder {
    name: Arc<str>,
    config: RetryConfig,
    budget: Option<RetryBudget>,
    listeners: Listeners,
    seed: Option<u64>,
}

impl RetryBuilder {
    /// Takes a whole configuration.
    pub fn config(mut self, config: RetryConfig) -> Self {
        self.config = config;
        self
    }

    /// Attempts in all, the first included, 1 to 100.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.config.attempts = attempts;
        self
    }

    /// The wait between attempts.
    pub fn backoff(mut self, backoff: crate::backoff::Backoff) -> Self {
        self.config.backoff = backoff;
        self
    }

    /// Gives up when the other side asks to wait longer than this.
    pub fn retry_after_max(mut self, wait: Duration) -> Self {
        self.config.retry_after_max = wait;
        self
    }

    /// Takes each retry from `budget`, which other policies may share.
    pub fn budget(mut self, budget: &RetryBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Tells `observer` about each retry.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.listeners = Listeners::one(observer);
        self
    }

    /// Makes the jitter repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks the configuration and builds the policy.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Retry, ConfigError> {
        self.config.validate()?;
        Ok(Retry(Arc::new(Shared {
            name: self.name,
            config: Mutex::new(self.config),
            budget: self.budget,
            random: Random::from_seed(self.seed),
            listeners: self.listeners,
            stats: Stats::default(),
        })))
    }
}

/// What follows an attempt.
pub(crate) enum Step<T, E> {
    Finish(Done<T, E>),
    Again { wait: Duration, attempt: Attempt },
}

/// One call on its way through its attempts.
struct Course<R, E> {
    shared: R,
    errors: Vec<Error<E>>,
    wait_before: Duration,
}

/// As [`Course`], for a future that outlives the borrow of its policy.
#[cfg(feature = "tower")]
pub(crate) struct OwnedCourse<E>(Course<Arc<Shared>, E>);

#[cfg(feature = "tower")]
impl<E> OwnedCourse<E> {
    pub(crate) fn step<T>(
        &mut self,
        attempt: Attempt,
        done: Done<T, E>,
        verdict: Verdict,
    ) -> Step<T, E> {
        self.0.step(attempt, done, verdict)
    }
}

impl<R: Deref<Target = Shared>, E> Course<R, E> {
    fn begin(shared: R, attempt: &mut Attempt) -> Self {
        if let Some(budget) = &shared.budget {
            budget.deposit_once(attempt);
        }
        Course { shared, errors: Vec::new(), wait_before: Duration::ZERO }
    }

    #[inline]
    fn step<T>(&mut self, attempt: Attempt, done: Done<T, E>, verdict: Verdict) -> Step<T, E> {
        if done.result.is_ok() {
            self.shared.stats.took(done.at.since(attempt.began()));
        }
        if verdict.is_retryable() {
            return self.consider(attempt, done, &verdict);
        }
        let gave_up = done.result.is_err().then_some(GaveUp::NotRetryable);
        Step::Finish(self.finish(attempt, done, gave_up, None))
    }

    #[cold]
    fn consider<T>(&mut self, attempt: Attempt, done: Done<T, E>, verdict: &Verdict) -> Step<T, E> {
        let (shared, retry_after) = (&*self.shared, verdict.retry_after());
        let config = lock(&shared.config).clone();
        if attempt.number() >= config.attempts {
            let gave_up = Some(GaveUp::AttemptsUsedUp);
            return Step::Finish(self.finish(attempt, done, gave_up, retry_after));
        }
        let wait = config.backoff.wait(attempt.number(), self.wait_before, shared.random.unit());
        let wait = wait.max(retry_after.unwrap_or(Duration::ZERO));
        let asked_too_much = retry_after.is_some_and(|asked| asked > config.retry_after_max);
        let needed = shared.stats.typical().max(config.attempt_time_min);
        let end = done.at.after(wait).after(needed);
        let too_late = attempt.deadline().is_set() && end >= attempt.deadline().tick();
        if asked_too_much || too_late {
            let gave_up =
                if asked_too_much { GaveUp::RetryAfterTooLong } else { GaveUp::DeadlineTooClose };
            let gave_up = Some(gave_up);
            return Step::Finish(self.finish(attempt, done, gave_up, retry_after));
        }
        let timed_out = verdict.kind() == Some(ErrorKind::Timeout);
        let cost = if timed_out { config.timeout_cost } else { 1.0 };
        if shared.budget.as_ref().is_some_and(|budget| !budget.try_withdraw_cost(cost)) {
            shared.stats.refused_by_budget();
            let gave_up = Some(GaveUp::BudgetUsedUp);
            return Step::Finish(self.finish(attempt, done, gave_up, retry_after));
        }
        let (name, kind) = (&*shared.name, verdict.kind());
        let number = attempt.number();
        shared.listeners.emit(|| Event::RetryScheduled {
            name,
            attempt: number,
            kind,
            delay: wait,
        });
        self.wait_before = wait;
        if let Err(error) = done.result {
            self.errors.push(error);
        }
        let attempt = Attempt { number: number + 1, previous: kind, now: done.at, ..attempt };
        Step::Again { wait, attempt }
    }

    /// Wraps the last result with all errors before it. `gave_up` says why no attempt follows,
    /// `None` after a success.
    #[inline]
    fn finish<T>(
        &mut self,
        attempt: Attempt,
        done: Done<T, E>,
        gave_up: Option<GaveUp>,
        retry_after: Option<Duration>,
    ) -> Done<T, E> {
        let succeeded = done.result.is_ok();
        let attempts = attempt.number();
        self.shared.stats.finished(attempts, succeeded);
        if attempts == 1 && succeeded {
            return done;
        }
        let name = &*self.shared.name;
        self.shared.listeners.emit(|| Event::RetryFinished { name, attempts, succeeded });
        let result = match (done.result, gave_up) {
            (Err(error), Some(GaveUp::NotRetryable)) if attempts == 1 => Err(error),
            (Err(error), Some(gave_up)) => {
                let errors = std::mem::take(&mut self.errors);
                Err(Error::Exhausted(Box::new(Exhausted::new(errors, error, gave_up, retry_after))))
            }
            (result, _) => result,
        };
        Done { result, at: done.at }
    }
}

impl<T: Send, E: Send> Strategy<T, E> for Retry {
    #[expect(clippy::manual_async_fn, reason = "an `async fn` moves its arguments once more")]
    fn execute<N: Next<T, E>>(
        &self,
        mut attempt: Attempt,
        next: N,
    ) -> impl Future<Output = Done<T, E>> + Send {
        async move {
            let mut course = Course::begin(&*self.0, &mut attempt);
            loop {
                let done = next.run(attempt).await;
                let verdict = next.judge(&done);
                match course.step(attempt, done, verdict) {
                    Step::Finish(done) => return done,
                    Step::Again { wait, attempt: again } => {
                        attempt = again;
                        if !wait.is_zero() {
                            next.env().sleeper().sleep(wait).await;
                            attempt.now = next.env().now();
                        }
                    }
                }
            }
        }
    }
}

impl<T, E> BlockingStrategy<T, E> for Retry {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let mut attempt = attempt;
        let mut course = Course::begin(&*self.0, &mut attempt);
        loop {
            let done = next.run(attempt);
            let verdict = next.judge(&done);
            match course.step(attempt, done, verdict) {
                Step::Finish(done) => return done,
                Step::Again { wait, attempt: again } => {
                    attempt = again;
                    if !wait.is_zero() {
                        next.clock().pause(wait);
                        attempt.now = next.now();
                    }
                }
            }
        }
    }
}

impl Describe for Retry {
    fn part(&self) -> Part {
        let config = self.config();
        let budget = if self.0.budget.is_some() { " within a budget" } else { "" };
        let wait = human_duration::format(config.backoff.wait(1, Duration::ZERO, 1.0));
        let text = format!("{} attempts{budget}, first wait up to {wait}", config.attempts);
        Part::new(PolicyKind::Retry, Arc::clone(&self.0.name), text).sharing(&self.0)
    }
}
