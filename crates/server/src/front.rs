//! What every request goes through before and after its handler, in one layer: each of many would box
//! the request's future and copy the services behind it once more.
//!
//! From the outside in: correlation, trace and figures; the end of the connection; panics; headers for
//! browsers; who is asking; the audit trail; the level of service; admission.

use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

use axum::extract::{Request, State as Shared};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::leaving::Leaving;
use crate::observe::Observed;
use crate::problem::Problem;
use crate::route_kind::RouteKind;
use crate::security_headers::SecurityHeaders;
use crate::state::State;
use crate::{admit, audited, authenticate, standing};

/// About as many headers as are put on an answer, so that it makes room for them once.
const HEADERS: usize = 16;

/// Answers a request.
pub(crate) async fn apply(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let kind = RouteKind::of(request.method(), request.uri().path());
    let mut observed = Observed::begin(&request, kind);
    let span = observed.span();
    let mut answer = pin!(async move {
        observed.enter();
        let (leaving, security) = (Leaving::of(&request), SecurityHeaders::of(&request));
        let answered = AssertUnwindSafe(checked(&state, kind, request, next)).catch_unwind().await;
        let mut response = answered.unwrap_or_else(panicked);
        let headers = response.headers_mut();
        headers.reserve(HEADERS);
        security.add(&state, headers);
        leaving.add(&state, headers);
        observed.end(&state, &mut response);
        response
    });
    // As `tracing::Instrument` does, but for entering the span once more to drop what has ended; what a
    // caller that goes away leaves is dropped outside of it.
    poll_fn(|context| span.in_scope(|| answer.as_mut().poll(context))).await
}

/// The part in which somebody is known to ask.
async fn checked(state: &State, kind: RouteKind, mut request: Request, next: Next) -> Response {
    let caller = match authenticate::check(state, kind, &request) {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    request.extensions_mut().insert(caller.clone());
    let change = audited::Change::of(&request);
    let response = match standing::refused(state, &caller, kind, request.method()) {
        Some(problem) => problem.into_response(),
        None => admit::apply(state, &caller, kind, request, next).await,
    };
    if let Some(action) = change.and_then(|change| change.came_to_nothing(&caller, &response)) {
        audited::record(state, action).await;
    }
    response
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message");
    metrics::counter!("mainstay_http_panics_total").increment(1);
    tracing::error!(panic = message, "a handler panicked");
    let detail = "the request met a fault of the server; it is in the log";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).into_response()
}
