//! Hedge: when the first attempt takes unusually long, start another beside it and take whichever
//! succeeds first.
//!
//! For reads with a long tail of latency. Not for calls that change something, and not without a
//! budget: a slow dependency gets more calls exactly when it is slow.
//!
//! Cost: nothing is boxed for the first attempt; each hedge that is really started is one
//! allocation. A short lock per success to learn its duration when the delay is a quantile.
//!
//! Source: Dean and Barroso, "The Tail at Scale" (CACM 56:2, 2013).

use crate::attempt::Attempt;
use crate::budget::RetryBudget;
#[cfg(feature = "tower")]
use crate::clock::Tick;
use crate::config_error::{ConfigError, check_range};
use crate::error::Error;
use crate::error_kind::Verdict;
use crate::event::{Event, Listeners, Observer};
use crate::histogram::Histogram;
use crate::human_duration;
use crate::human_duration::check_duration;
use crate::losers;
use crate::rejection::PolicyKind;
use crate::sleeper::Sleeper;
use crate::strategy::{Describe, Done, Next, Part, Strategy};
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// When a hedge starts.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HedgeDelay {
    /// After this long, 1 ms to 1 h.
    Fixed(#[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))] Duration),
    /// After this quantile of the durations seen lately, 0.5 to 0.999. Until 100 were seen, no
    /// hedge starts.
    Quantile(f64),
}

/// What a hedge can be told that a file can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct HedgeConfig {
    /// When a hedge starts. Default: after the 95th percentile of the durations seen lately.
    pub delay: HedgeDelay,
    /// Attempts in all, the first included, 2 to 5. Default 2.
    pub attempts: u32,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        HedgeConfig { delay: HedgeDelay::Quantile(0.95), attempts: 2 }
    }
}

impl HedgeConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_range("attempts", self.attempts, 2, 5)?;
        match self.delay {
            HedgeDelay::Fixed(delay) => {
                let (ms, hour) = (Duration::from_millis(1), Duration::from_secs(3_600));
                check_duration("delay", delay, ms, hour)
            }
            HedgeDelay::Quantile(quantile) => check_range("delay.quantile", quantile, 0.5, 0.999),
        }
    }
}

/// Successes that a quantile needs.
const SAMPLES_MIN: u64 = 100;

/// A hedge. Clones share what was learned.
///
/// The first success wins, and so does the first error that no other attempt can help. An attempt that
/// a policy further in refuses (a full bulkhead, a spent rate limit, the probe of a half-open breaker
/// already taken) leaves the race without ending it; its refusal comes back only if all others fail.
///
/// # Cancel safety
/// Dropping the future drops every attempt. When one succeeds, the others are dropped before the
/// result is returned; a breaker further in counts them neither for nor against the dependency,
/// whatever its [`DropRule`](crate::DropRule) is: they were not too slow for their caller.
///
/// # For, and not for
/// For reads with a long tail of latency. Not for calls that change something, and not without a
/// [`RetryBudget`]: a slow dependency gets more calls exactly when it is slow.
///
/// # Parameters
/// Those of [`HedgeConfig`], with their ranges and defaults.
///
/// # Cost
/// Nothing is boxed for the first attempt; each hedge that is really started is one allocation. A short
/// lock per success when the delay is a quantile.
///
/// # Source
/// Dean and Barroso, "The Tail at Scale" (CACM 56:2, 2013).
#[derive(Clone)]
pub struct Hedge(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    config: HedgeConfig,
    budget: Option<RetryBudget>,
    histogram: Option<Histogram>,
    listeners: Listeners,
}

/// Builds a [`Hedge`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct HedgeBuilder {
    name: Arc<str>,
    config: HedgeConfig,
    budget: Option<RetryBudget>,
    listeners: Listeners,
}

impl Hedge {
    /// A hedge to be configured: one more attempt after the 95th percentile, no budget.
    pub fn builder(name: impl Into<Arc<str>>) -> HedgeBuilder {
        HedgeBuilder {
            name: name.into(),
            config: HedgeConfig::default(),
            budget: None,
            listeners: Listeners::default(),
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The delay now; `None` while too few durations were seen.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        match (self.0.config.delay, &self.0.histogram) {
            (HedgeDelay::Fixed(delay), _) => Some(delay),
            (HedgeDelay::Quantile(_), Some(histogram)) => histogram.quantile(SAMPLES_MIN),
            (HedgeDelay::Quantile(_), None) => None,
        }
    }
}

/// What the layer for services needs.
#[cfg(feature = "tower")]
impl Hedge {
    pub(crate) fn deposit(&self, attempt: Attempt) -> Attempt {
        self.0.deposit(attempt)
    }

    /// Asks for one more attempt beside those that were `started`.
    pub(crate) fn may_start_another(&self, attempt: &Attempt, started: u32, now: Tick) -> bool {
        started < self.0.config.attempts && self.0.may_start(attempt, now.since(attempt.began()))
    }

    pub(crate) fn ended<T, E>(
        &self,
        attempt: &Attempt,
        done: &Done<T, E>,
        winner: u32,
        started: u32,
    ) {
        self.0.learn(attempt, done);
        self.0.finished(winner, started);
    }

    pub(crate) fn all_failed(&self, started: u32) {
        self.0.finished(0, started);
    }
}

impl HedgeBuilder {
    /// Replaces the whole configuration.
    pub fn config(mut self, config: HedgeConfig) -> Self {
        self.config = config;
        self
    }

    /// When a hedge starts.
    pub fn delay(mut self, delay: HedgeDelay) -> Self {
        self.config.delay = delay;
        self
    }

    /// Attempts in all, the first included, 2 to 5. Default 2.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.config.attempts = attempts;
        self
    }

    /// Takes each hedge from `budget`, which retries may share.
    pub fn budget(mut self, budget: &RetryBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Tells `observer` about each hedge and who won.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.listeners = Listeners::one(observer);
        self
    }

    /// Checks the configuration and builds the policy.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn build(self) -> Result<Hedge, ConfigError> {
        self.config.validate()?;
        let histogram = match self.config.delay {
            HedgeDelay::Fixed(_) => None,
            HedgeDelay::Quantile(quantile) => Some(Histogram::new(quantile)),
        };
        Ok(Hedge(Arc::new(Shared {
            name: self.name,
            config: self.config,
            budget: self.budget,
            histogram,
            listeners: self.listeners,
        })))
    }
}

/// The first attempt, those under way beside it, and what became of those that ended.
struct Race<T, E, F> {
    extras: Vec<(u32, Pin<Box<F>>)>,
    started: u32,
    first_done: bool,
    /// The last error that another attempt may help.
    failure: Option<Done<T, E>>,
    /// The last refusal by a policy further in; told only if there is no error.
    refusal: Option<Done<T, E>>,
}

impl<T, E, F: Future<Output = Done<T, E>>> Race<T, E, F> {
    /// The winner's number and result, or that some still run or none is left.
    fn poll(
        &mut self,
        first: &mut Pin<&mut Option<F>>,
        judge: impl Fn(&Done<T, E>) -> Verdict,
        cx: &mut Context<'_>,
    ) -> Poll<(u32, Done<T, E>)> {
        if let Some(running) = first.as_mut().as_pin_mut()
            && let Poll::Ready(done) = running.poll(cx)
        {
            first.set(None);
            self.first_done = true;
            // Refused and alone: whoever refused it would refuse another as well.
            let alone = self.started == 1 && is_refusal(&done);
            if let Some(done) = if alone { Some(done) } else { self.unless_won(done, &judge) } {
                return Poll::Ready((1, done));
            }
        }
        let mut at = 0;
        while at < self.extras.len() {
            let (number, future) = &mut self.extras[at];
            let number = *number;
            let Poll::Ready(done) = future.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            self.extras.swap_remove(at);
            if let Some(done) = self.unless_won(done, &judge) {
                return Poll::Ready((number, done));
            }
        }
        Poll::Pending
    }

    /// The result if it wins: a success, or an error of the operation that no other attempt can
    /// help. What does not win is kept for when nothing does. A refusal sent nothing, so it says
    /// nothing about the attempts that still run.
    fn unless_won(
        &mut self,
        done: Done<T, E>,
        judge: impl Fn(&Done<T, E>) -> Verdict,
    ) -> Option<Done<T, E>> {
        if is_refusal(&done) {
            self.refusal = Some(done);
        } else if judge(&done).is_retryable() {
            self.failure = Some(done);
        } else {
            return Some(done);
        }
        None
    }

    fn all_failed(&self) -> bool {
        self.first_done && self.extras.is_empty()
    }

    /// Drops what still runs, so that it counts for nothing.
    fn drop_losers(&mut self, first: &mut Pin<&mut Option<F>>) {
        losers::neutrally(|| {
            first.set(None);
            self.extras.clear();
        });
    }
}

/// Whether a policy refused the attempt.
fn is_refusal<T, E>(done: &Done<T, E>) -> bool {
    done.result.as_ref().is_err_and(Error::is_rejected)
}

impl<T: Send, E: Send> Strategy<T, E> for Hedge {
    async fn execute<N: Next<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let shared = &*self.0;
        let attempt = shared.deposit(attempt);
        let Some(delay) = self.delay() else {
            let done = next.run(attempt).await;
            shared.learn(&attempt, &done);
            return done;
        };
        let judge = |done: &Done<T, E>| next.judge(done);
        let mut first = pin!(Some(next.run(attempt)));
        let mut race = Race {
            extras: Vec::new(),
            started: 1,
            first_done: false,
            failure: None,
            refusal: None,
        };
        // Before the timer is made: most calls of a pool or a cache are ready at once.
        let ready = poll_fn(|cx| Poll::Ready(race.poll(&mut first, judge, cx))).await;
        if let Poll::Ready((_, done)) = ready {
            shared.learn(&attempt, &done);
            return done;
        }
        let mut timer = pin!(Some(next.env().sleeper().sleep(delay)));
        loop {
            // `None` means: time for another attempt.
            let turn = poll_fn(|cx| {
                if let Poll::Ready(winner) = race.poll(&mut first, judge, cx) {
                    return Poll::Ready(Some(winner));
                }
                let rung = timer.as_mut().as_pin_mut().map(|timer| timer.poll(cx));
                let over = matches!(rung, Some(Poll::Ready(())));
                if over || race.all_failed() { Poll::Ready(None) } else { Poll::Pending }
            });
            if let Some((winner, done)) = turn.await {
                race.drop_losers(&mut first);
                shared.learn(&attempt, &done);
                shared.finished(winner, race.started);
                return done;
            }
            timer.set(None);
            let now = next.env().now();
            if race.started < shared.config.attempts
                && shared.may_start(&attempt, now.since(attempt.now))
            {
                let hedge = Attempt { hedge: race.started, now, ..attempt };
                race.started += 1;
                race.extras.push((race.started, Box::pin(next.run(hedge))));
                timer.set(Some(next.env().sleeper().sleep(delay)));
            } else if race.all_failed()
                && let Some(done) = race.failure.take().or(race.refusal.take())
            {
                shared.finished(0, race.started);
                return done;
            }
        }
    }
}

impl Shared {
    fn deposit(&self, mut attempt: Attempt) -> Attempt {
        if let Some(budget) = &self.budget {
            budget.deposit_once(&mut attempt);
        }
        attempt
    }

    fn learn<T, E>(&self, attempt: &Attempt, done: &Done<T, E>) {
        if let Some(histogram) = &self.histogram
            && done.result.is_ok()
        {
            histogram.record(done.at.since(attempt.began()));
        }
    }

    fn may_start(&self, attempt: &Attempt, waited: Duration) -> bool {
        let in_time = !attempt.deadline().has_passed(attempt.began().after(waited));
        let allowed = in_time && self.budget.as_ref().is_none_or(RetryBudget::try_withdraw);
        if allowed {
            self.listeners.emit(|| Event::HedgeStarted { name: &self.name, waited });
        }
        allowed
    }

    fn finished(&self, winner: u32, attempts: u32) {
        if attempts > 1 {
            self.listeners.emit(|| Event::HedgeFinished { name: &self.name, winner, attempts });
        }
    }
}

impl Describe for Hedge {
    fn part(&self) -> Part {
        let delay = match self.0.config.delay {
            HedgeDelay::Fixed(delay) => human_duration::format(delay),
            HedgeDelay::Quantile(quantile) => format!("the {quantile} quantile"),
        };
        let budget = if self.0.budget.is_some() { " within a budget" } else { "" };
        let text = format!("{} attempts{budget}, after {delay}", self.0.config.attempts);
        Part::new(PolicyKind::Hedge, Arc::clone(&self.0.name), text).sharing(&self.0).precise(true)
    }
}

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hedge({})", self.0.name)
    }
}
