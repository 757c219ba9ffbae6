//! Answers that end their connection, so that the next request looks for another place.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::state::State;

/// Marks the requests of a connection beyond the bound: it is there for one control call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spare;

/// Whether an answer ends its connection.
pub(crate) struct Leaving {
    spare: bool,
}

impl Leaving {
    pub(crate) fn of(request: &Request) -> Self {
        Self { spare: request.extensions().get::<Spare>().is_some() }
    }

    /// Says `Connection: close` on a spare connection, and on every one once the server is about to
    /// end: whoever keeps a connection comes again elsewhere.
    pub(crate) fn add(&self, state: &State, headers: &mut HeaderMap) {
        if self.spare || state.is_draining() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}
