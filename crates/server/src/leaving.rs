//! Answers that end their connection, so that the next request looks for another place.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::state::State;

/// Says `Connection: close` on a connection beyond the bound, which is there for one control call, and on
/// every one once the server is about to end: whoever keeps a connection comes again elsewhere.
pub(crate) fn add(state: &State, spare: bool, headers: &mut HeaderMap) {
    if spare || state.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
