//! [`Serving`]: what goes along with a request while its handler runs, in a task-local, so that no handler
//! can forget it: the ticket that its work is begun under, the memory of its body, and who asks. And what a
//! refusal looks like over HTTP.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use mainstay_ops::admission::{Refusal, RefusalKind, Ticket};
use mainstay_ops::memory::Reservation;

use crate::caller::Caller;
use crate::problem::Problem;

tokio::task_local! {
    static SERVING: Serving;
}

/// What goes along with a request while its handler runs.
pub(crate) struct Serving {
    pub(crate) caller: Caller,
    pub(crate) ticket: Arc<Ticket>,
    /// What is reserved for the body; given back when the request is answered or given up.
    pub(crate) body: RefCell<Option<Reservation>>,
}

impl Serving {
    /// Runs a request's work.
    pub(crate) fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        SERVING.scope(self, work)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(SERVING.try_with(|serving| serving.caller.clone()).unwrap_or_default())
    }
}

/// The ticket of the request that this task serves.
pub(crate) fn ticket() -> Option<Arc<Ticket>> {
    SERVING.try_with(|serving| Arc::clone(&serving.ticket)).ok()
}

/// Reserves so many bytes for the body of the request that this task serves, unless it has them
/// already: for what nobody declared, as it arrives.
pub(crate) fn reserve_body(bytes: u64) -> Result<(), Problem> {
    let Some(ticket) = ticket() else { return Ok(()) };
    let reserved = SERVING.try_with(|it| ticket.reserve_up_to(&mut it.body.borrow_mut(), bytes));
    // Outside of a request nothing arrives.
    reserved.unwrap_or(Ok(())).map_err(|refusal| Problem::from(&*refusal))
}

/// Hands out what is reserved for the body, to go along with work that may outlive the request; it
/// is given back when it is dropped.
pub(crate) fn take_body() -> Option<Reservation> {
    SERVING.try_with(|serving| serving.body.take()).ok().flatten()
}

/// Keeps it again for the rest of the request.
pub(crate) fn keep_body(reserved: Option<Reservation>) {
    let _ = SERVING.try_with(|serving| serving.body.replace(reserved));
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
