//! A span around each attempt of a call to the outside, with the feature `tracing`; without it,
//! nothing.

use crate::attempt::Attempt;

/// Makes the span: a client's, named after service and endpoint.
#[cfg(feature = "tracing")]
fn span(service: &str, endpoint: &str, attempt: &Attempt) -> tracing::Span {
    tracing::info_span!(
        target: "mainstay_resilience",
        "dependency.attempt",
        "otel.kind" = "client",
        service,
        endpoint,
        attempt = attempt.number(),
        failed = tracing::field::Empty,
    )
}

/// Runs one attempt on this thread inside its span.
#[cfg(feature = "tracing")]
pub(crate) fn run<T, E>(
    (service, endpoint): (&str, &str),
    attempt: Attempt,
    operation: impl FnOnce(Attempt) -> Result<T, E>,
    failed: impl FnOnce(&Result<T, E>) -> bool,
) -> Result<T, E> {
    let span = span(service, endpoint, &attempt);
    let result = span.in_scope(|| operation(attempt));
    if failed(&result) {
        span.record("failed", true);
    }
    result
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn run<T, E>(
    _: (&str, &str),
    attempt: Attempt,
    operation: impl FnOnce(Attempt) -> Result<T, E>,
    _: impl FnOnce(&Result<T, E>) -> bool,
) -> Result<T, E> {
    operation(attempt)
}

/// Awaits one attempt inside its span.
#[cfg(feature = "tracing")]
pub(crate) fn call<T, E, F: Future<Output = Result<T, E>>>(
    (service, endpoint): (&str, &str),
    attempt: Attempt,
    operation: impl FnOnce(Attempt) -> F,
    failed: impl FnOnce(&Result<T, E>) -> bool,
) -> impl Future<Output = Result<T, E>> {
    use tracing::Instrument;

    let span = span(service, endpoint, &attempt);
    let future = span.in_scope(|| operation(attempt));
    let inside = span.clone();
    async move {
        let result = future.await;
        if failed(&result) {
            inside.record("failed", true);
        }
        result
    }
    .instrument(span)
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn call<T, E, F: Future<Output = Result<T, E>>>(
    _: (&str, &str),
    attempt: Attempt,
    operation: impl FnOnce(Attempt) -> F,
    _: impl FnOnce(&Result<T, E>) -> bool,
) -> impl Future<Output = Result<T, E>> {
    operation(attempt)
}
