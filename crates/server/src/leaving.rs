//! Answers that end their connection, so that the next request looks for another place.

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::state::State;

/// Marks the requests of a connection beyond the bound: it is there for one control call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spare;

/// Says `Connection: close` on a spare connection, and on every one once the server is about to end:
/// whoever keeps a connection comes again elsewhere.
pub(crate) async fn apply(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let spare = request.extensions().get::<Spare>().is_some();
    let mut response = next.run(request).await;
    if spare || state.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
