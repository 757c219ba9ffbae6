//! What policies tell their observers. Events are borrowed, emitted outside every lock, and not
//! even built when nobody listens.

use crate::breaker_state::{Cause, State};
use crate::error_kind::ErrorKind;
use crate::rejection::{PolicyKind, Rejection};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Something a policy did.
///
/// Two events of one policy may reach an observer out of order when two threads cause them; the
/// generation says which came first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A breaker changed its state.
    BreakerChanged {
        /// The breaker.
        name: &'a str,
        /// The state before.
        from: State,
        /// The state now.
        to: State,
        /// What caused it.
        cause: Cause,
        /// Counts the transitions of this breaker; rises by one with each.
        generation: u64,
        /// The error rate that the old state ended with, 0 to 1.
        error_rate: f64,
    },
    /// A breaker that only observes would have opened.
    BreakerWouldOpen {
        /// The breaker.
        name: &'a str,
        /// What would have caused it.
        cause: Cause,
        /// The error rate, 0 to 1.
        error_rate: f64,
    },
    /// A policy refused a call.
    Rejected(&'a Rejection),
    /// A retry waits before another attempt.
    RetryScheduled {
        /// The retry policy.
        name: &'a str,
        /// The number of the attempt that failed, from 1.
        attempt: u32,
        /// Why it failed; `None` for a result that is asked for again.
        kind: Option<ErrorKind>,
        /// The wait before the next attempt.
        delay: Duration,
    },
    /// A retry policy is done with a call that needed more than one attempt or failed.
    RetryFinished {
        /// The retry policy.
        name: &'a str,
        /// The attempts made, from 1.
        attempts: u32,
        /// Whether the last one succeeded.
        succeeded: bool,
    },
    /// A timeout stopped a call.
    TimedOut {
        /// The policy.
        name: &'a str,
        /// The limit that was reached.
        limit: Duration,
    },
    /// A hedge started another attempt beside the first.
    HedgeStarted {
        /// The policy.
        name: &'a str,
        /// How long the first attempt had been under way.
        waited: Duration,
    },
    /// A hedged call ended.
    HedgeFinished {
        /// The policy.
        name: &'a str,
        /// Which attempt won, from 1; the others were cancelled.
        winner: u32,
        /// Attempts started.
        attempts: u32,
    },
    /// A fallback answered instead of the operation.
    FellBack {
        /// The policy.
        name: &'a str,
    },
    /// A concurrency limit moved.
    LimitChanged {
        /// The policy.
        name: &'a str,
        /// The limit before.
        from: u64,
        /// The limit now.
        to: u64,
    },
    /// A policy was reconfigured while running.
    Reconfigured {
        /// The policy.
        name: &'a str,
        /// Its kind.
        policy: PolicyKind,
    },
}

/// Hears what policies do. Called on the thread of the call that caused the event, so be quick; a
/// closure `Fn(&Event)` is an observer.
///
/// An observer may call the policy that emitted the event: no lock is held. One that panics ends the
/// call whose event it heard, and nothing else: slots, probes and jobs are settled as if it had not.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// The observers of one policy: none, or one behind an `Arc`.
#[derive(Clone, Default)]
pub(crate) struct Listeners(Option<Arc<dyn Observer>>);

impl Listeners {
    pub(crate) fn one(observer: Arc<dyn Observer>) -> Self {
        Listeners(Some(observer))
    }

    /// Emits a refusal, where it lies.
    #[inline]
    pub(crate) fn hear_refusal<T>(&self, refused: &Result<T, Rejection>) {
        if let (Some(observer), Err(rejection)) = (&self.0, refused) {
            tell(&**observer, &Event::Rejected(rejection));
        }
    }

    /// Builds and emits the event only if somebody listens.
    #[inline]
    pub(crate) fn emit<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if let Some(observer) = &self.0 {
            tell(&**observer, &event());
        }
    }
}

#[inline]
fn tell(observer: &dyn Observer, event: &Event<'_>) {
    if std::thread::panicking() {
        return tell_while_unwinding(observer, event);
    }
    observer.on_event(event);
}

/// A permit that is dropped by a panic tells what became of it; a second panic that leaves its drop
/// would end the process.
#[cold]
fn tell_while_unwinding(observer: &dyn Observer, event: &Event<'_>) {
    let _ = catch_unwind(AssertUnwindSafe(|| observer.on_event(event)));
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listeners({})", usize::from(self.0.is_some()))
    }
}

/// Hands each event to every observer, in order.
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, Event, FanOut, Observer};
/// use std::sync::Arc;
///
/// let first: Arc<dyn Observer> = Arc::new(|event: &Event<'_>| println!("{event:?}"));
/// let second: Arc<dyn Observer> = Arc::new(|_: &Event<'_>| ());
/// let breaker =
///     CircuitBreaker::builder("cache").observer(Arc::new(FanOut::new(vec![first, second]))).build()?;
/// # let _ = breaker;
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
pub struct FanOut(Vec<Arc<dyn Observer>>);

impl FanOut {
    /// Joins `observers` into one.
    #[must_use]
    pub fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        FanOut(observers)
    }
}

impl Observer for FanOut {
    fn on_event(&self, event: &Event<'_>) {
        for observer in &self.0 {
            observer.on_event(event);
        }
    }
}

impl fmt::Debug for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FanOut({})", self.0.len())
    }
}
