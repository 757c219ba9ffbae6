//! What comes back instead of a result: the operation's own error, or what a policy made of it.

use crate::error_kind::{Classify, ErrorKind, Verdict};
use crate::human_duration;
use crate::rejection::Rejection;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The error of a protected operation whose own error is `E`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error<E> {
    /// The operation's own error.
    Operation(E),
    /// A policy refused the call; nothing was sent.
    Rejected(Rejection),
    /// A timeout stopped the call; its work was dropped.
    TimedOut(TimedOut),
    /// More than one attempt was made, or a retry was given up; all errors are kept.
    Exhausted(Box<Exhausted<E>>),
}

impl<E> Error<E> {
    /// The operation's last own error, if any attempt got that far.
    #[must_use]
    pub fn operation(&self) -> Option<&E> {
        match self {
            Error::Operation(error) => Some(error),
            Error::Exhausted(exhausted) => exhausted.last().operation(),
            Error::Rejected(_) | Error::TimedOut(_) => None,
        }
    }

    /// The operation's last own error, if any attempt got that far.
    #[must_use]
    pub fn into_operation(self) -> Option<E> {
        match self {
            Error::Operation(error) => Some(error),
            Error::Exhausted(mut exhausted) => {
                exhausted.errors.pop().and_then(Error::into_operation)
            }
            Error::Rejected(_) | Error::TimedOut(_) => None,
        }
    }

    /// The refusal that ended the call.
    #[must_use]
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Error::Rejected(rejection) => Some(rejection),
            Error::Exhausted(exhausted) => exhausted.last().rejection(),
            Error::Operation(_) | Error::TimedOut(_) => None,
        }
    }

    /// Whether a policy refused the call.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.rejection().is_some()
    }

    /// Whether a timeout ended the call.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Error::TimedOut(_) => true,
            Error::Exhausted(exhausted) => exhausted.last().is_timeout(),
            Error::Operation(_) | Error::Rejected(_) => false,
        }
    }

    /// When to try again, if the refusal or the retry says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Rejected(rejection) => rejection.retry_after(),
            Error::Exhausted(exhausted) => {
                exhausted.retry_after.or_else(|| exhausted.last().retry_after())
            }
            Error::Operation(_) | Error::TimedOut(_) => None,
        }
    }

    /// The verdict on this error, asking `judge` about the operation's own.
    pub(crate) fn judged(&self, judge: impl Fn(&E) -> Verdict) -> Verdict {
        match self {
            Error::Operation(error) => judge(error),
            // Nothing was sent, so it says nothing about the dependency.
            Error::Rejected(rejection) => {
                Verdict::ignored().with_retry_after(rejection.retry_after())
            }
            Error::TimedOut(_) => Verdict::failure(ErrorKind::Timeout),
            Error::Exhausted(exhausted) => exhausted.last().judged(judge).without_retry(),
        }
    }
}

impl<E: Classify> Classify for Error<E> {
    fn kind(&self) -> ErrorKind {
        self.judged(Classify::verdict).kind().unwrap_or(ErrorKind::Unknown)
    }

    fn retry_after(&self) -> Option<Duration> {
        Error::retry_after(self).or_else(|| self.operation().and_then(Classify::retry_after))
    }

    fn verdict(&self) -> Verdict {
        self.judged(Classify::verdict)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Operation(error) => error.fmt(f),
            Error::Rejected(rejection) => rejection.fmt(f),
            Error::TimedOut(timed_out) => timed_out.fmt(f),
            Error::Exhausted(exhausted) => exhausted.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its text is shown as this error's own, so its source comes next.
            Error::Operation(error) => error.source(),
            Error::Exhausted(exhausted) => Some(exhausted.last()),
            Error::Rejected(_) | Error::TimedOut(_) => None,
        }
    }
}

impl<E> From<Rejection> for Error<E> {
    fn from(rejection: Rejection) -> Self {
        Error::Rejected(rejection)
    }
}

/// A limit of time that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedOut {
    /// The policy whose limit it was.
    pub name: Arc<str>,
    /// The limit; with a deadline, what was left of it when the call began.
    pub limit: Duration,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "timeout {} stopped the call after {}",
            self.name,
            human_duration::format(self.limit)
        )
    }
}

impl std::error::Error for TimedOut {}

/// Why a retry made no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GaveUp {
    /// All attempts were made.
    AttemptsUsedUp,
    /// The error cannot be helped by another attempt.
    NotRetryable,
    /// The budget for retries is used up.
    BudgetUsedUp,
    /// Another attempt could not finish before the deadline, or the other side asks to wait beyond
    /// it.
    DeadlineTooClose,
    /// The other side asks to wait longer than
    /// [`RetryConfig::retry_after_max`](crate::RetryConfig::retry_after_max).
    RetryAfterTooLong,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GaveUp::AttemptsUsedUp => "all attempts are used up",
            GaveUp::NotRetryable => "another attempt cannot help",
            GaveUp::BudgetUsedUp => "the retry budget is used up",
            GaveUp::DeadlineTooClose => "another attempt could not finish before the deadline",
            GaveUp::RetryAfterTooLong => {
                "the other side asks to wait longer than retry_after_max allows"
            }
        })
    }
}

/// The errors of all attempts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Exhausted<E> {
    errors: Vec<Error<E>>,
    gave_up: GaveUp,
    retry_after: Option<Duration>,
}

impl<E> Exhausted<E> {
    /// `errors` and then `last` are the attempts' errors in order.
    pub(crate) fn new(
        errors: Vec<Error<E>>,
        last: Error<E>,
        gave_up: GaveUp,
        retry_after: Option<Duration>,
    ) -> Self {
        let mut errors = errors;
        errors.push(last);
        Exhausted { errors, gave_up, retry_after }
    }

    /// One error per attempt, in order; never empty.
    #[must_use]
    pub fn errors(&self) -> &[Error<E>] {
        &self.errors
    }

    /// The last attempt's error.
    #[must_use]
    pub fn last(&self) -> &Error<E> {
        self.errors.last().expect("an exhausted call has at least the error it was built with")
    }

    /// Why no further attempt was made.
    #[must_use]
    pub fn gave_up(&self) -> GaveUp {
        self.gave_up
    }
}

impl<E: fmt::Display> fmt::Display for Exhausted<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} attempts: {}", self.gave_up, self.errors.len(), self.last())
    }
}
