//! Headers that tell browsers to do as little as possible with an answer.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::state::State;

/// On every answer (OWASP's recommendations for REST interfaces).
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];
/// A year, once a certificate is in use.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Which of them an answer needs; the default: those of every answer.
#[derive(Default)]
pub(crate) struct SecurityHeaders {
    control: bool,
    chunked: bool,
}

impl SecurityHeaders {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            control: request.uri().path().starts_with("/admin"),
            chunked: request.headers().contains_key(header::TRANSFER_ENCODING),
        }
    }

    /// Adds them.
    pub(crate) fn add(&self, state: &State, headers: &mut HeaderMap) {
        if self.chunked {
            // A length beside it may have been dropped by now, and then what follows may be a smuggled
            // request: nothing behind a chunked body is believed (RFC 9112, 6.1).
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        add_always(headers);
        if self.control {
            headers.entry(header::CACHE_CONTROL).or_insert(NO_STORE);
        }
        if state.has_tls() {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
        }
    }
}

/// Adds those of every answer.
pub(crate) fn add_always(headers: &mut HeaderMap) {
    // The console's pages say what they may load.
    let policy = headers.get(header::CONTENT_SECURITY_POLICY).cloned();
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    if let Some(policy) = policy {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}
