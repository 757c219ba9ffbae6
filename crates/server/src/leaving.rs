//! Answers that end their connection, so that the next request looks for another place.

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::state::State;

/// Says `Connection: close` once the server is about to end: whoever keeps a connection comes again
/// elsewhere.
pub(crate) async fn apply(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if state.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
