//! One taxonomy for everything external, and what a policy concludes from it.

use std::fmt;
use std::time::Duration;

/// What went wrong with an external operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No answer in time.
    Timeout,
    /// No connection, or it broke: refused, reset, name not resolved.
    Connection,
    /// The other side asks for fewer calls (HTTP 429, gRPC `RESOURCE_EXHAUSTED`).
    RateLimit,
    /// Who calls is unknown (HTTP 401).
    Authentication,
    /// Who calls is known and may not (HTTP 403).
    PermissionDenied,
    /// What is asked for does not exist (HTTP 404, 410).
    NotFound,
    /// The request is wrong and stays wrong (other HTTP 4xx).
    BadRequest,
    /// The other side failed (HTTP 5xx).
    ServerError,
    /// Nothing is known about the error.
    Unknown,
}

impl ErrorKind {
    /// Every kind, in the order of the taxonomy.
    pub const ALL: [ErrorKind; 9] = [
        ErrorKind::Timeout,
        ErrorKind::Connection,
        ErrorKind::RateLimit,
        ErrorKind::Authentication,
        ErrorKind::PermissionDenied,
        ErrorKind::NotFound,
        ErrorKind::BadRequest,
        ErrorKind::ServerError,
        ErrorKind::Unknown,
    ];

    /// The name used in configuration, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Timeout => "timeout",
            ErrorKind::Connection => "connection",
            ErrorKind::RateLimit => "rate_limit",
            ErrorKind::Authentication => "authentication",
            ErrorKind::PermissionDenied => "permission_denied",
            ErrorKind::NotFound => "not_found",
            ErrorKind::BadRequest => "bad_request",
            ErrorKind::ServerError => "server_error",
            ErrorKind::Unknown => "unknown",
        }
    }

    /// Whether another attempt may succeed. Authentication, permission, not-found and bad-request
    /// errors stay what they are.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        !matches!(
            self,
            ErrorKind::Authentication
                | ErrorKind::PermissionDenied
                | ErrorKind::NotFound
                | ErrorKind::BadRequest
        )
    }

    /// Whether the error speaks against the dependency. The four kinds that are not retryable
    /// speak against the caller: an answer of 404 shows a healthy dependency.
    #[must_use]
    pub const fn blames_dependency(self) -> bool {
        self.is_retryable()
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// It may be the whole error of an operation that has no other.
impl std::error::Error for ErrorKind {}

/// An error that knows its place in the taxonomy.
///
/// Implemented here for [`std::io::Error`] and, behind features, for the errors of `http`,
/// `tonic`, `reqwest`, `object_store`, `sqlx` and `redis`.
pub trait Classify {
    /// What went wrong.
    fn kind(&self) -> ErrorKind;

    /// How long the other side asks to wait, if it says so.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// The conclusion for breaker and retry. Override it for an error that must not be retried
    /// although its kind is retryable (a payment that may have gone through).
    fn verdict(&self) -> Verdict {
        Verdict::failure(self.kind()).with_retry_after(self.retry_after())
    }
}

impl Classify for ErrorKind {
    fn kind(&self) -> ErrorKind {
        *self
    }
}

impl Classify for std::convert::Infallible {
    fn kind(&self) -> ErrorKind {
        match *self {}
    }
}

/// What the policies conclude from one result.
///
/// A breaker asks whether it counts, a retry whether to try again and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    kind: Option<ErrorKind>,
    count: Count,
    retry: bool,
    retry_after: Option<Duration>,
}

/// How a result counts against the dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Success,
    Failure,
    Ignored,
}

impl Verdict {
    /// The dependency did well.
    #[must_use]
    pub const fn success() -> Self {
        Verdict { kind: None, count: Count::Success, retry: false, retry_after: None }
    }

    /// An error of `kind`: counts as the kind says (a caller's mistake counts as a success of the
    /// dependency) and is retried if the kind is retryable.
    #[must_use]
    pub const fn failure(kind: ErrorKind) -> Self {
        let count = if kind.blames_dependency() { Count::Failure } else { Count::Success };
        Verdict { kind: Some(kind), count, retry: kind.is_retryable(), retry_after: None }
    }

    /// Says nothing about the dependency and is not retried, for example a cancelled call.
    #[must_use]
    pub const fn ignored() -> Self {
        Verdict { kind: None, count: Count::Ignored, retry: false, retry_after: None }
    }

    /// The same verdict, never retried.
    #[must_use]
    pub const fn without_retry(mut self) -> Self {
        self.retry = false;
        self
    }

    /// The same verdict, retried. Turns a success into a result that is asked for again, such as
    /// "not ready yet".
    #[must_use]
    pub const fn with_retry(mut self) -> Self {
        self.retry = true;
        self
    }

    /// The same verdict with the wait that the other side asks for.
    #[must_use]
    pub const fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// The kind of error, `None` for a success.
    #[must_use]
    pub const fn kind(&self) -> Option<ErrorKind> {
        self.kind
    }

    /// Whether the result counts against the dependency.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(self.count, Count::Failure)
    }

    /// Whether the result counts for the dependency.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.count, Count::Success)
    }

    /// Whether another attempt makes sense.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.retry
    }

    /// The wait that the other side asks for.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(crate) const fn count(&self) -> Count {
        self.count
    }

    /// The verdict on a result whose error knows its kind.
    #[must_use]
    pub fn of<T, E: Classify>(result: &Result<T, E>) -> Self {
        Self::of_ref(result.as_ref())
    }

    /// As [`of`](Self::of), in the form that every `judge` parameter has.
    #[must_use]
    pub fn of_ref<T, E: Classify>(result: Result<&T, &E>) -> Self {
        match result {
            Ok(_) => Verdict::success(),
            Err(error) => error.verdict(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_the_callers_mistakes_are_neither_retried_nor_held_against_the_dependency() {
        for kind in ErrorKind::ALL {
            let callers_mistake = matches!(
                kind,
                ErrorKind::Authentication
                    | ErrorKind::PermissionDenied
                    | ErrorKind::NotFound
                    | ErrorKind::BadRequest
            );
            let verdict = Verdict::failure(kind);
            assert_eq!(verdict.is_retryable(), !callers_mistake, "{kind}");
            assert_eq!(verdict.is_failure(), !callers_mistake, "{kind}");
            assert_eq!(verdict.is_success(), callers_mistake, "{kind}");
        }
    }
}
