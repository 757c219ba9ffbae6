//! The ticket that a request's work is begun under, in a task-local, so that no handler can forget it;
//! and what a refusal looks like over HTTP.

use std::sync::Arc;

use mainstay_ops::admission::{Refusal, RefusalKind, Ticket};

use crate::problem::Problem;

tokio::task_local! {
    static TICKET: Arc<Ticket>;
}

/// The ticket of the request that this task serves.
pub(crate) fn ticket() -> Option<Arc<Ticket>> {
    TICKET.try_with(Arc::clone).ok()
}

/// Serves a request under its ticket.
pub(crate) async fn under<F: Future>(ticket: Ticket, work: F) -> F::Output {
    TICKET.scope(Arc::new(ticket), work).await
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let (status, code) = match refusal.kind() {
            RefusalKind::RateLimited => (axum::http::StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            RefusalKind::Overloaded => (axum::http::StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        };
        let wait_ms = refusal.retry_after.as_millis().max(1);
        Self {
            retry_after_ms: Some(u64::try_from(wait_ms).unwrap_or(u64::MAX)),
            policy: Some(refusal.policy.to_string()),
            reason: Some(refusal.reason.as_str().to_string()),
            ..Self::new(status, code, refusal.detail.clone())
        }
    }
}
