//! Timeout: a limit of time over the rest of the chain, which is dropped when it is reached.
//!
//! Every call across a process boundary needs one. Awaited work is really stopped: its future is
//! dropped. Blocking work cannot be stopped from outside; it is told its deadline
//! ([`Attempt::deadline`]) and must heed it, and no further attempt starts after it.
//!
//! Cost: none beyond the chain's clock readings when the operation is ready at its first poll; a
//! timer only when it is not.

use crate::attempt::Attempt;
use crate::clock::{Clock, Precision};
use crate::config_error::ConfigError;
use crate::context::Context;
use crate::deadline::Deadline;
use crate::error::{Error, TimedOut};
use crate::error_kind::{Classify, Verdict};
use crate::event::{Event, Listeners, Observer};
use crate::human_duration;
use crate::human_duration::check_duration;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::sleeper::Sleeper;
use crate::strategy::{
    BlockingNext, BlockingStrategy, Describe, Done, Env, Next, Operation, Part, Strategy, Trait,
};
use crate::sync::{AtomicU64, Ordering};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// A limit of time. Clones share the limit, which may change while running.
///
/// # Cancel safety
/// Dropping the future drops the work.
///
/// # For, and not for
/// For every call across a process boundary. Awaited work is really stopped: its future is dropped.
/// Not for blocking work that ignores its deadline ([`Attempt::deadline`]): that cannot be stopped from
/// outside, only not be started again.
///
/// # Parameters
/// The limit, 1 ms to 1 day, and whether it is over all attempts ([`total`](Self::total)) or over each
/// ([`per_attempt`](Self::per_attempt)). No default: it is told to the constructor.
///
/// # Cost
/// None beyond the chain's clock readings when the operation is ready at its first poll; a timer only
/// when it is not.
///
/// # Source
/// One deadline over everything below, as in gRPC.
#[derive(Clone, Debug)]
pub struct Timeout {
    name: Arc<str>,
    limit: Arc<AtomicU64>,
    scope: Trait,
    listeners: Listeners,
}

impl Timeout {
    /// A limit over all attempts and the waits between them, 1 ms to 1 day. Stands outside the
    /// retry.
    ///
    /// # Errors
    /// When the limit is out of its range.
    pub fn total(name: impl Into<Arc<str>>, limit: Duration) -> Result<Self, ConfigError> {
        Timeout::new(name.into(), limit, Trait::Total)
    }

    /// A limit over each attempt, 1 ms to 1 day; never more than what is left of the deadline.
    /// Stands inside the retry.
    ///
    /// # Errors
    /// When the limit is out of its range.
    pub fn per_attempt(name: impl Into<Arc<str>>, limit: Duration) -> Result<Self, ConfigError> {
        Timeout::new(name.into(), limit, Trait::PerAttempt)
    }

    fn new(name: Arc<str>, limit: Duration, scope: Trait) -> Result<Self, ConfigError> {
        let limit = Arc::new(AtomicU64::new(checked_nanos(limit)?));
        Ok(Timeout { name, limit, scope, listeners: Listeners::default() })
    }

    /// The same, telling `observer` when a call is stopped, or refused because nothing is left.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.listeners = Listeners::one(observer);
        self
    }

    /// The limit now.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_nanos(self.limit.load(Ordering::Relaxed))
    }

    /// Changes the limit for calls that begin from now on.
    ///
    /// # Errors
    /// When the limit is out of its range; then nothing changes.
    pub fn set_limit(&self, limit: Duration) -> Result<(), ConfigError> {
        self.limit.store(checked_nanos(limit)?, Ordering::Relaxed);
        Ok(())
    }

    /// Awaits `operation` for at most the limit.
    ///
    /// # Errors
    /// The operation's error, or [`Error::TimedOut`].
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
        let precision = Precision::for_duration(self.limit());
        let env = Env::new(Clock::system(), precision, sleeper);
        let next = Operation { env: &env, operation, judge: Verdict::of_ref };
        self.execute(Attempt::first(env.now(), Context::default()), &next).await.result
    }

    /// The attempt under this limit, or the refusal when nothing is left.
    pub(crate) fn begin(&self, attempt: Attempt) -> Result<Attempt, Rejection> {
        let limit = Deadline::at(attempt.began().after(self.limit()));
        let deadline = attempt.deadline().earlier(limit);
        if deadline.has_passed(attempt.began()) {
            let (name, kind) = (Arc::clone(&self.name), PolicyKind::Timeout);
            let refused = Err(Rejection::new(name, kind, Reason::DeadlinePassed, None));
            self.listeners.hear_refusal(&refused);
            return refused;
        }
        Ok(Attempt { deadline, watched: true, ..attempt })
    }

    #[cold]
    pub(crate) fn timed_out<E>(&self, attempt: Attempt) -> Error<E> {
        let limit = attempt.deadline().remaining(attempt.began());
        let name = &*self.name;
        self.listeners.emit(|| Event::TimedOut { name, limit });
        Error::TimedOut(TimedOut { name: Arc::clone(&self.name), limit })
    }
}

fn checked_nanos(limit: Duration) -> Result<u64, ConfigError> {
    let (min, max) = (Duration::from_millis(1), Duration::from_secs(86_400));
    check_duration("timeout", limit, min, max)?;
    Ok(crate::clock::nanos(limit))
}

impl<T: Send, E: Send> Strategy<T, E> for Timeout {
    #[expect(clippy::manual_async_fn, reason = "an `async fn` moves its arguments once more")]
    fn execute<N: Next<T, E>>(
        &self,
        attempt: Attempt,
        next: N,
    ) -> impl Future<Output = Done<T, E>> + Send {
        async move {
            let attempt = match self.begin(attempt) {
                Ok(attempt) => attempt,
                Err(rejection) => return Done::rejected(rejection, attempt.began()),
            };
            let mut work = pin!(next.run(attempt));
            // Most calls that do no input or output are ready at once and need no timer.
            let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            if let Poll::Ready(done) = first {
                return done;
            }
            let left = attempt.deadline().remaining(next.env().now());
            let mut timer = pin!(next.env().sleeper().sleep(left));
            let mut polled = true;
            let finished = poll_fn(|cx| {
                // The work was polled in this very turn before the timer was made.
                if !std::mem::take(&mut polled)
                    && let Poll::Ready(done) = work.as_mut().poll(cx)
                {
                    return Poll::Ready(Some(done));
                }
                timer.as_mut().poll(cx).map(|()| None)
            });
            match finished.await {
                Some(done) => done,
                None => Done { result: Err(self.timed_out(attempt)), at: next.env().now() },
            }
        }
    }
}

impl<T, E> BlockingStrategy<T, E> for Timeout {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        match self.begin(attempt) {
            Ok(attempt) => next.run(attempt),
            Err(rejection) => Done::rejected(rejection, attempt.began()),
        }
    }
}

impl Describe for Timeout {
    fn part(&self) -> Part {
        let limit = human_duration::format(self.limit());
        let text = match self.scope {
            Trait::PerAttempt => format!("{limit} for each attempt"),
            _ => format!("{limit} in all"),
        };
        Part::new(PolicyKind::Timeout, Arc::clone(&self.name), text)
            .with_trait(self.scope)
            .with_limit(self.limit())
    }

    #[inline]
    fn is_precise(&self) -> bool {
        Precision::for_duration(self.limit()) == Precision::Precise
    }
}
