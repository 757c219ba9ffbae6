//! Partial failure: run several steps, be content with enough of them, and say what is missing.
//!
//! For scatter-gather (shards, methods, replicas) and for batches whose items are independent. Not
//! for steps that only make sense together.

use crate::config_error::{ConfigError, check_range};
use crate::sleeper::Sleeper;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// How many steps must succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Enough {
    /// At least this share, above 0 to 1, of the steps.
    Ratio(f64),
    /// At least this many; all of them when there are fewer steps.
    Count(usize),
}

/// Why a step gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing<E> {
    /// It failed.
    Failed(E),
    /// It had not ended when time was up, and was dropped.
    Late,
    /// It was not started, because enough could no longer be reached.
    NotStarted,
    /// It was dropped, because enough had arrived without it or could no longer arrive.
    NotNeeded,
}

/// What arrived, and what did not, each with the index of its step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome<T, E> {
    /// The results, by rising index.
    pub arrived: Vec<(usize, T)>,
    /// What is missing, by rising index.
    pub missing: Vec<(usize, Missing<E>)>,
}

impl<T, E> Outcome<T, E> {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// The share of steps that arrived, 0 to 1; 1 without steps.
    #[must_use]
    pub fn success_rate(&self) -> f64 {
        let all = self.arrived.len() + self.missing.len();
        if all == 0 { 1.0 } else { self.arrived.len() as f64 / all as f64 }
    }
}

/// Fewer steps succeeded than were asked for. Holds what did arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TooFew<T, E> {
    /// What arrived and what did not.
    pub outcome: Outcome<T, E>,
    /// Successes that were asked for.
    pub needed: usize,
}

impl<T, E> fmt::Display for TooFew<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (arrived, missing) = (self.outcome.arrived.len(), self.outcome.missing.len());
        write!(f, "{arrived} of {} steps succeeded, {} were needed", arrived + missing, self.needed)
    }
}

impl<T: fmt::Debug, E: std::error::Error + 'static> std::error::Error for TooFew<T, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.outcome.missing.iter().find_map(|(_, missing)| match missing {
            Missing::Failed(error) => Some(error as _),
            Missing::Late | Missing::NotStarted | Missing::NotNeeded => None,
        })
    }
}

/// Runs several steps and is content with enough of them.
///
/// ```
/// use mainstay_resilience::{Enough, Partial};
///
/// let partial = Partial::new(Enough::Ratio(0.5))?;
/// let outcome = partial.run(["1", "x", "3"].map(|text| move || text.parse::<u32>()))?;
/// assert_eq!(outcome.arrived, [(0, 1), (2, 3)]);
/// assert!(!outcome.is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # For, and not for
/// For scatter-gather (shards, methods, replicas) and for batches whose items are independent. Not for
/// steps that only make sense together.
///
/// # Parameters
/// [`Enough`]: a share above 0 to 1, or a number of at least 1. No default.
///
/// # Cost
/// One allocation per awaited step.
///
/// # Cancel safety
/// Dropping the future drops every step.
///
/// # Source
/// Quorums, as in Dean and Barroso, "The Tail at Scale", on good-enough answers.
#[derive(Clone, Copy, Debug)]
pub struct Partial {
    enough: Enough,
}

impl Partial {
    /// Content with `enough`.
    ///
    /// # Errors
    /// A ratio outside `(0, 1]`, or a count of 0.
    pub fn new(enough: Enough) -> Result<Self, ConfigError> {
        match enough {
            Enough::Ratio(ratio) => crate::config_error::check_ratio("enough.ratio", ratio)?,
            Enough::Count(count) => check_range("enough.count", count, 1, usize::MAX)?,
        }
        Ok(Partial { enough })
    }

    fn needed(&self, steps: usize) -> usize {
        match self.enough {
            Enough::Ratio(ratio) => (ratio * steps as f64 - 1e-9).ceil() as usize,
            Enough::Count(count) => count.min(steps),
        }
    }

    /// Runs the steps one after the other on this thread; stops once enough can no longer be
    /// reached.
    ///
    /// # Errors
    /// [`TooFew`], with what did arrive.
    pub fn run<T, E, S: FnOnce() -> Result<T, E>>(
        &self,
        steps: impl IntoIterator<Item = S, IntoIter: ExactSizeIterator>,
    ) -> Result<Outcome<T, E>, TooFew<T, E>> {
        let steps = steps.into_iter();
        let (count, needed) = (steps.len(), self.needed(steps.len()));
        let mut outcome = Outcome { arrived: Vec::with_capacity(count), missing: Vec::new() };
        for (index, step) in steps.enumerate() {
            if outcome.missing.len() > count - needed {
                outcome.missing.push((index, Missing::NotStarted));
                continue;
            }
            match step() {
                Ok(value) => outcome.arrived.push((index, value)),
                Err(error) => outcome.missing.push((index, Missing::Failed(error))),
            }
        }
        judged(outcome, needed)
    }

    /// Awaits the steps side by side until all have ended or `limit` is over; then drops those that
    /// have not. As much as possible arrives.
    ///
    /// # Errors
    /// [`TooFew`], with what did arrive.
    pub async fn call<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        sleeper: &impl Sleeper,
        limit: Duration,
        steps: impl IntoIterator<Item = F>,
    ) -> Result<Outcome<T, E>, TooFew<T, E>> {
        self.gather(sleeper, limit, steps, false).await
    }

    /// As [`call`](Self::call), but ends as soon as enough have arrived, or no longer can: the
    /// answer is as fast as the k-th of n. The rest is dropped.
    ///
    /// # Errors
    /// [`TooFew`], with what did arrive.
    pub async fn first<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        sleeper: &impl Sleeper,
        limit: Duration,
        steps: impl IntoIterator<Item = F>,
    ) -> Result<Outcome<T, E>, TooFew<T, E>> {
        self.gather(sleeper, limit, steps, true).await
    }

    async fn gather<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        sleeper: &impl Sleeper,
        limit: Duration,
        steps: impl IntoIterator<Item = F>,
        ends_early: bool,
    ) -> Result<Outcome<T, E>, TooFew<T, E>> {
        let mut running: Vec<(usize, Pin<Box<F>>)> =
            steps.into_iter().map(Box::pin).enumerate().collect();
        let (count, needed) = (running.len(), self.needed(running.len()));
        let mut outcome = Outcome { arrived: Vec::new(), missing: Vec::new() };
        let mut timer = pin!(sleeper.sleep(limit));
        let in_time = poll_fn(|cx| {
            running.retain_mut(|(index, step)| match step.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(value)) => {
                    outcome.arrived.push((*index, value));
                    false
                }
                Poll::Ready(Err(error)) => {
                    outcome.missing.push((*index, Missing::Failed(error)));
                    false
                }
            });
            let decided = outcome.arrived.len() >= needed || outcome.missing.len() > count - needed;
            if running.is_empty() || ends_early && decided {
                return Poll::Ready(true);
            }
            timer.as_mut().poll(cx).map(|()| false)
        })
        .await;
        let why = || if in_time { Missing::NotNeeded } else { Missing::Late };
        outcome.missing.extend(running.drain(..).map(|(index, _)| (index, why())));
        outcome.arrived.sort_by_key(|(index, _)| *index);
        outcome.missing.sort_by_key(|(index, _)| *index);
        judged(outcome, needed)
    }
}

fn judged<T, E>(outcome: Outcome<T, E>, needed: usize) -> Result<Outcome<T, E>, TooFew<T, E>> {
    if outcome.arrived.len() >= needed {
        return Ok(outcome);
    }
    Err(TooFew { outcome, needed })
}
