//! The ticket that a request's work is begun under, in a task-local, so that no handler can forget it;
//! the memory of its body; and what a refusal looks like over HTTP.

use std::cell::RefCell;
use std::sync::Arc;

use mainstay_ops::admission::{Refusal, RefusalKind, Ticket};
use mainstay_ops::memory::Reservation;

use crate::problem::Problem;

tokio::task_local! {
    static TICKET: Arc<Ticket>;
    /// What is reserved for the body; given back when the request is answered or given up.
    static BODY: RefCell<Option<Reservation>>;
}

/// The ticket of the request that this task serves.
pub(crate) fn ticket() -> Option<Arc<Ticket>> {
    TICKET.try_with(Arc::clone).ok()
}

/// Serves a request under its ticket; `body` is reserved for its body already.
pub(crate) async fn under<F: Future>(
    ticket: Ticket,
    body: Option<Reservation>,
    work: F,
) -> F::Output {
    TICKET.scope(Arc::new(ticket), BODY.scope(RefCell::new(body), work)).await
}

/// Reserves so many bytes for the body of the request that this task serves, unless it has them
/// already: for what nobody declared, as it arrives.
pub(crate) fn reserve_body(bytes: u64) -> Result<(), Problem> {
    let Some(ticket) = ticket() else { return Ok(()) };
    let reserved = BODY.try_with(|body| ticket.reserve_up_to(&mut body.borrow_mut(), bytes));
    // Outside of a request nothing arrives.
    reserved.unwrap_or(Ok(())).map_err(|refusal| Problem::from(&*refusal))
}

/// Hands out what is reserved for the body, to go along with work that may outlive the request; it
/// is given back when it is dropped.
pub(crate) fn take_body() -> Option<Reservation> {
    BODY.try_with(RefCell::take).ok().flatten()
}

/// Keeps it again for the rest of the request.
pub(crate) fn keep_body(reserved: Option<Reservation>) {
    let _ = BODY.try_with(|body| body.replace(reserved));
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
