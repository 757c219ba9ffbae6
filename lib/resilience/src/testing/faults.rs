//! Faults put between a pipeline and its operation.

use crate::attempt::Attempt;
use crate::clock::{Clock, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::error::Error;
use crate::random::Random;
use crate::rejection::PolicyKind;
use crate::sleeper::Sleeper;
use crate::strategy::{BlockingNext, BlockingStrategy, Describe, Done, Next, Part, Strategy};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails without being made.
    Error,
    /// It is made after this long.
    Latency(Duration),
    /// It never ends. A blocking call ends at its deadline, or after an hour, with the error.
    Hang,
}

#[derive(Clone, Debug)]
struct Rule {
    fault: Fault,
    rate: f64,
    during: Range<Duration>,
}

/// Injects faults by rate and by schedule. The innermost policy of a chain.
///
/// ```
/// use mainstay_resilience::{Clock, ErrorKind, Pipeline, testing::{Fault, Faults}};
///
/// let faults = Faults::new("dependency", 7, Clock::system(), || ErrorKind::Connection)
///     .always(Fault::Error, 1.0)?;
/// let pipeline = Pipeline::builder().then(faults).build().expect("the order is fine");
/// assert!(pipeline.run(|_| Ok::<_, ErrorKind>(())).is_err());
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # For, and not for
/// For tests of whole pipelines: errors, latency and hangs by a seed and a schedule, in virtual time.
/// Not for a service that runs: a fault there is armed and cleared at a
/// [`FaultPoint`](crate::FaultPoint).
///
/// # Parameters
/// A seed; the function that makes the error; by rule a [`Fault`], the share of calls that it happens
/// to, 0 to 1, and from when to when. No default rule: without one every call passes.
///
/// # Cost
/// A clock reading, and a random number by rule.
///
/// # Cancel safety
/// Dropping the future drops the fault's wait, or the call.
///
/// # Source
/// Basiri et al., "Chaos Engineering" (IEEE Software 33:3, 2016).
#[derive(Clone)]
pub struct Faults<E> {
    name: Arc<str>,
    random: Arc<Random>,
    clock: Clock,
    began: Tick,
    rules: Vec<Rule>,
    error: Arc<dyn Fn() -> E + Send + Sync>,
}

impl<E> Faults<E> {
    /// No faults yet; schedules count from now. `error` makes the error of a failed call.
    pub fn new(
        name: impl Into<Arc<str>>,
        seed: u64,
        clock: Clock,
        error: impl Fn() -> E + Send + Sync + 'static,
    ) -> Self {
        let (random, began) = (Arc::new(Random::seeded(seed)), clock.now());
        Faults {
            name: name.into(),
            random,
            clock,
            began,
            rules: Vec::new(),
            error: Arc::new(error),
        }
    }

    /// Lets `fault` happen to the share `rate` (0 to 1) of calls. Of several rules the first that
    /// applies decides.
    ///
    /// # Errors
    /// A rate out of its range.
    pub fn always(self, fault: Fault, rate: f64) -> Result<Self, ConfigError> {
        self.during(Duration::ZERO..Duration::MAX, fault, rate)
    }

    /// The same, only for calls that begin in this stretch of time.
    ///
    /// # Errors
    /// A rate out of its range.
    pub fn during(
        mut self,
        during: Range<Duration>,
        fault: Fault,
        rate: f64,
    ) -> Result<Self, ConfigError> {
        check_range("rate", rate, 0.0, 1.0)?;
        self.rules.push(Rule { fault, rate, during });
        Ok(self)
    }

    fn next_fault(&self) -> Option<Fault> {
        let age = self.clock.now().since(self.began);
        let applies = |rule: &&Rule| rule.during.contains(&age) && self.random.unit() < rule.rate;
        self.rules.iter().find(applies).map(|rule| rule.fault)
    }

    fn failed<T>(&self, at: Tick) -> Done<T, E> {
        Done { result: Err(Error::Operation((self.error)())), at }
    }
}

impl<T: Send, E: Send> Strategy<T, E> for Faults<E> {
    async fn execute<N: Next<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        match self.next_fault() {
            None => {}
            Some(Fault::Error) => return self.failed(next.env().now()),
            Some(Fault::Latency(wait)) => next.env().sleeper().sleep(wait).await,
            Some(Fault::Hang) => std::future::pending().await,
        }
        next.run(attempt).await
    }
}

impl<T, E> BlockingStrategy<T, E> for Faults<E> {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        match self.next_fault() {
            None => next.run(attempt),
            Some(Fault::Error) => self.failed(next.now()),
            Some(Fault::Latency(wait)) => {
                next.clock().pause(wait);
                next.run(attempt)
            }
            Some(Fault::Hang) => {
                let hour = Duration::from_secs(3_600);
                next.clock().pause(attempt.deadline().remaining(next.now()).min(hour));
                self.failed(next.now())
            }
        }
    }
}

impl<E> Describe for Faults<E> {
    fn part(&self) -> Part {
        let text = format!("{} rules", self.rules.len());
        Part::new(PolicyKind::Fault, Arc::clone(&self.name), text).on_clock(&self.clock)
    }
}

impl<E> fmt::Debug for Faults<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults({}, {:?})", self.name, self.rules)
    }
}
