//! [`Front`]: what every request goes through before and after its handler.
//!
//! From the outside in: correlation, trace and figures; the end of the connection; panics; headers for
//! browsers; who is asking; the audit trail; the level of service; admission.
//!
//! It stands in front of the router and is no layer inside it: each layer would box the request's future,
//! copy the services behind it, and be fetched from memory once more after a search has used the caches.

use std::any::Any;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tower::Service;

use crate::admit::{self, Admitted, Shown};
use crate::audited::Change;
use crate::caller::Caller;
use crate::observe::{Figures, Observed};
use crate::problem::Problem;
use crate::route::Route;
use crate::security_headers::SecurityHeaders;
use crate::state::State;
use crate::ticket::Serving;
use crate::{audited, authenticate, leaving, standing};

/// About as many headers as are put on an answer, so that it makes room for them once.
const HEADERS: usize = 16;

/// Answers requests. Clones share everything.
#[derive(Clone)]
pub struct Front {
    state: State,
    router: Router,
    figures: Arc<Figures>,
    peer: Option<IpAddr>,
    spare: bool,
}

/// How a request is let in, and what its answer needs.
struct LetIn {
    serving: Result<Serving, Response>,
    shown: Shown,
    change: Option<(Change, Caller)>,
}

impl Front {
    /// Stands in front of `router`, which has a handler for each route of the table.
    pub(crate) fn new(state: State, router: Router) -> Self {
        Self { state, router, figures: Arc::new(Figures::new()), peer: None, spare: false }
    }

    /// The same for a connection: who is at its other end, and whether it is one beyond the bound, which is
    /// there for one control call.
    pub(crate) fn of_connection(&self, peer: IpAddr, spare: bool) -> Self {
        Self { peer: Some(peer), spare, ..self.clone() }
    }

    /// Answers a request.
    pub async fn answer(self, request: Request) -> Response {
        let Self { state, mut router, figures, peer, spare } = self;
        let state = &state;
        let route = Route::of(request.method(), request.uri().path());
        let mut observed = Observed::begin(&request, route, &figures);
        let security = SecurityHeaders::of(&request);
        let span = observed.span().clone();
        let (mut shown, mut change) = (Shown::default(), None);
        let begun = span.in_scope(|| {
            observed.enter();
            guarded(|| {
                let let_in = let_in(state, peer, spare, &route, &request);
                (shown, change) = (let_in.shown, let_in.change);
                let serving = let_in.serving?;
                Ok(serving.scope(router.call(request)))
            })
        });
        let mut response = match begun.unwrap_or_else(|panic| Err(panicked(panic))) {
            Err(refused) => refused,
            Ok(work) => {
                let mut work = pin!(work);
                // As `tracing::Instrument` does, but for entering the span once more to drop what has
                // ended; what a caller that goes away leaves is dropped outside of it.
                poll_fn(|context| {
                    let polled = span.in_scope(|| guarded(|| work.as_mut().poll(context)));
                    polled.unwrap_or_else(|panic| Poll::Ready(Ok(panicked(panic))))
                })
                .await
                .unwrap_or_else(|never| match never {})
            }
        };
        if let Some((change, caller)) = change
            && let Some(action) = change.came_to_nothing(&caller, &response)
        {
            audited::record(state, action).await;
        }
        span.in_scope(|| {
            let headers = response.headers_mut();
            headers.reserve(HEADERS);
            shown.add(state, headers);
            security.add(state, headers);
            leaving::add(state, spare, headers);
            observed.end(state, &figures, &mut response);
        });
        response
    }
}

/// The part in which somebody is known to ask.
fn let_in(
    state: &State,
    peer: Option<IpAddr>,
    spare: bool,
    route: &Route,
    request: &Request,
) -> LetIn {
    let refused =
        |response| LetIn { serving: Err(response), shown: Shown::default(), change: None };
    let caller = match authenticate::check(state, route.kind, peer, request) {
        Ok(caller) => caller,
        Err(response) => return refused(response),
    };
    let change = Change::of(route, request).map(|change| (change, caller.clone()));
    if let Some(problem) = standing::refused(state, &caller, route.kind, request.method()) {
        return LetIn { change, ..refused(problem.into_response()) };
    }
    let Admitted { serving, shown } = admit::admit(state, caller, route, spare, request);
    LetIn { serving: serving.map_err(IntoResponse::into_response), shown, change }
}

/// Runs a part of a request's work; a panic ends that request alone.
fn guarded<T>(part: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(part))
}

#[cold]
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
