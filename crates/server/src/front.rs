//! [`Front`]: what every request goes through before and after its handler.
//!
//! From the outside in: correlation, trace and figures; the end of the connection; panics; headers for
//! browsers; who is asking; the audit trail; the level of service; admission.
//!
//! It stands in front of the router and is no layer inside it: each layer would box the request's future,
//! copy the services behind it, and be fetched from memory once more after a search has used the caches.

use std::any::Any;
use std::cell::RefCell;
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
use mainstay_ops::admission::{Admission, Ticket};
use tower::Service;

use crate::admit::{self, Shown};
use crate::audited::Change;
use crate::caller::Caller;
use crate::http::HEADERS;
use crate::observe::{Figures, Observed};
use crate::problem::Problem;
use crate::route::Route;
use crate::security_headers::SecurityHeaders;
use crate::state::State;
use crate::ticket::Serving;
use crate::{audited, authenticate, leaving, standing};

/// Answers requests. Clones share everything.
#[derive(Clone)]
pub struct Front {
    state: State,
    router: Router,
    figures: Arc<Figures>,
    peer: Option<IpAddr>,
    spare: bool,
}

/// The handlers without anything in front of them, and outside every limit. Clones share everything.
#[derive(Clone)]
pub struct Handlers {
    router: Router,
    ticket: Arc<Ticket>,
}

impl Handlers {
    pub(crate) fn new(admission: &Admission, router: Router) -> Self {
        Self { router, ticket: Arc::new(admission.control()) }
    }

    /// Answers a request.
    pub async fn answer(self, request: Request) -> Response {
        let Self { mut router, ticket } = self;
        let serving = Serving { caller: Caller::default(), ticket, body: RefCell::default() };
        serving.scope(router.call(request)).await.unwrap_or_else(|never| match never {})
    }
}

/// What becomes known of a request while it is let in.
#[derive(Default)]
struct Known {
    caller: Caller,
    shown: Shown,
    change: Option<Change>,
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
        let observed = Observed::begin(&request, route, &figures);
        let security = SecurityHeaders::of(&request);
        let span = observed.span().clone();
        let mut known = Known::default();
        let let_in = span.in_scope(|| {
            observed.enter();
            guarded(|| let_in(state, peer, spare, &route, &request, &mut known))
        });
        let mut response = match let_in {
            Ok(Ok(serving)) => {
                let (mut work, mut answer) = (pin!(serving.scope(router.call(request))), None);
                // As `tracing::Instrument` does, but for entering the span once more to drop what has
                // ended; what a caller that goes away leaves is dropped outside of it.
                let panic = poll_fn(|context| {
                    let poll = || work.as_mut().poll(context).map(|ended| answer = ended.ok());
                    match span.in_scope(|| guarded(poll)) {
                        Ok(polled) => polled.map(|()| None),
                        Err(panic) => Poll::Ready(Some(panic)),
                    }
                });
                match panic.await {
                    Some(panic) => panicked(panic),
                    None => answer.unwrap_or_default(),
                }
            }
            Ok(Err(refused)) => *refused,
            Err(panic) => panicked(panic),
        };
        if let Some(change) = known.change
            && let Some(action) = change.came_to_nothing(&known.caller, &response)
        {
            audited::record(state, action).await;
        }
        span.in_scope(|| {
            let headers = response.headers_mut();
            headers.reserve(HEADERS);
            known.shown.add(state, &route, &known.caller, headers);
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
    known: &mut Known,
) -> Result<Serving, Box<Response>> {
    known.caller = authenticate::check(state, route.kind, peer, request)?;
    known.change = Change::of(route, request);
    let caller = &known.caller;
    if let Some(problem) = standing::refused(state, caller, route.kind, request.method()) {
        return Err(Box::new(problem.into_response()));
    }
    admit::admit(state, caller, route, spare, request, &mut known.shown)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Config, Host, Server};
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use mainstay_db::{Db, Options};

    async fn panics() {
        panic!("at the table");
    }

    /// A request that panics ends by itself, with an answer that says what it belongs to.
    #[test]
    fn a_panic_ends_its_request_alone() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let db = Arc::new(Db::open(folder.path(), Options::default()).unwrap());
            let config = Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() };
            let host = Host::new(&Default::default(), None).unwrap();
            let server = Server::bind(db, config, host).await.unwrap();
            let router = Router::new().route("/health/live", get(panics));
            let front = Front::new(server.state.clone(), router.route("/health", get(|| async {})));
            for (path, status) in [("/health/live", 500), ("/health", 200), ("/health/live", 500)] {
                let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
                let answer = front.clone().answer(request).await;
                assert_eq!(answer.status(), status, "{path}");
                for header in ["x-correlation-id", "traceparent", "x-mainstay-level"] {
                    assert!(answer.headers().contains_key(header), "{header} of {path}");
                }
                let body = to_bytes(answer.into_body(), 4096).await.unwrap();
                let body = String::from_utf8(body.to_vec()).unwrap();
                assert_eq!(body.contains("a fault of the server"), status == 500, "{body}");
                assert!(!body.contains("table"), "what it met is for the log: {body}");
            }
        });
    }
}
