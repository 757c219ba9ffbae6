//! Where the errors of other crates stand in the taxonomy. Types and codes decide; text is the last
//! resort.

#[cfg(feature = "http")]
mod http;
#[cfg(feature = "object_store")]
mod object_store;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "sqlx")]
mod sqlx;
#[cfg(feature = "tonic")]
mod tonic;

#[cfg(feature = "http")]
pub use http::retry_after_of;

use crate::error_kind::{Classify, ErrorKind};
use std::error::Error;
use std::io;

impl Classify for io::Error {
    fn kind(&self) -> ErrorKind {
        use io::ErrorKind as Io;
        match io::Error::kind(self) {
            Io::TimedOut => ErrorKind::Timeout,
            Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::NotConnected
            | Io::BrokenPipe
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::AddrNotAvailable
            | Io::UnexpectedEof => ErrorKind::Connection,
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied => ErrorKind::PermissionDenied,
            Io::InvalidInput | Io::InvalidData | Io::AlreadyExists | Io::Unsupported => {
                ErrorKind::BadRequest
            }
            // `source` of an error made by `io::Error::other` skips the very error it was made from.
            _ => match self.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()) {
                Some(inner) => Classify::kind(inner),
                None => match from_chain(self) {
                    // A name that is not resolved has no kind of its own in the standard library.
                    ErrorKind::Unknown if is_unresolved(&self.to_string()) => ErrorKind::Connection,
                    kind => kind,
                },
            },
        }
    }
}

/// What resolvers say of a host: the lookup of the standard library, of Go, of the C library.
const UNRESOLVED: [&str; 4] = [
    "failed to lookup address information",
    "no such host",
    "name or service not known",
    "name resolution",
];

fn is_unresolved(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    UNRESOLVED.iter().any(|phrase| text.contains(phrase))
}

/// Looks for an `io::Error` below `error`; what has none is unknown.
fn from_chain(error: &(dyn Error + 'static)) -> ErrorKind {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Classify::kind(io);
        }
        source = error.source();
    }
    ErrorKind::Unknown
}

impl Classify for Box<dyn Error + Send + Sync> {
    fn kind(&self) -> ErrorKind {
        let error: &(dyn Error + 'static) = &**self;
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Classify::kind(io);
        }
        match from_chain(error) {
            ErrorKind::Unknown => from_text(&error.to_string()),
            kind => kind,
        }
    }
}

/// Where a status code of HTTP stands; `None` for one that is no error.
#[must_use]
pub fn from_http_status(status: u16) -> Option<ErrorKind> {
    match status {
        0..=399 => None,
        401 | 407 => Some(ErrorKind::Authentication),
        403 => Some(ErrorKind::PermissionDenied),
        404 | 410 => Some(ErrorKind::NotFound),
        408 | 504 => Some(ErrorKind::Timeout),
        429 => Some(ErrorKind::RateLimit),
        400..=499 => Some(ErrorKind::BadRequest),
        _ => Some(ErrorKind::ServerError),
    }
}

/// The last resort, for errors that are nothing but text.
///
/// ```
/// use mainstay_resilience::{ErrorKind, classify_text};
///
/// assert_eq!(classify_text("request timed out after 30s"), ErrorKind::Timeout);
/// assert_eq!(classify_text("who knows"), ErrorKind::Unknown);
/// ```
#[must_use]
pub fn from_text(text: &str) -> ErrorKind {
    /// Phrases by kind, the more particular first: "gateway timeout" is a timeout.
    const PHRASES: [(ErrorKind, &[&str]); 9] = [
        (ErrorKind::Timeout, &["timed out", "timeout", "deadline exceeded"]),
        (ErrorKind::RateLimit, &["rate limit", "too many requests", "quota exceeded", "throttl"]),
        (ErrorKind::Authentication, &["unauthorized", "unauthenticated", "invalid api key"]),
        (ErrorKind::PermissionDenied, &["permission denied", "forbidden", "access denied"]),
        (
            ErrorKind::Connection,
            &["connection refused", "connection reset", "connection closed", "broken pipe", "dns"],
        ),
        (ErrorKind::Connection, &UNRESOLVED),
        (ErrorKind::NotFound, &["not found", "no such"]),
        (ErrorKind::ServerError, &["internal server error", "bad gateway", "service unavailable"]),
        (ErrorKind::BadRequest, &["bad request", "invalid argument", "malformed"]),
    ];
    let text = text.to_ascii_lowercase();
    let found = PHRASES.iter().find(|(_, phrases)| phrases.iter().any(|p| text.contains(p)));
    found.map_or(ErrorKind::Unknown, |(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_io_errors_are_placed_by_their_kind_even_inside_other_errors() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Classify::kind(&refused()), ErrorKind::Connection);
        let wrapped: Box<dyn Error + Send + Sync> = Box::new(io::Error::other(refused()));
        assert_eq!(wrapped.kind(), ErrorKind::Connection);
        let text: Box<dyn Error + Send + Sync> = "503 service unavailable".into();
        assert_eq!(text.kind(), ErrorKind::ServerError);
    }

    #[test]
    fn r4_a_name_that_is_not_resolved_is_a_connection_error_and_no_missing_thing() {
        let texts = [
            "failed to lookup address information: Name or service not known",
            "dial tcp: lookup store: no such host",
            "getaddrinfo: Temporary failure in name resolution",
        ];
        for text in texts {
            assert_eq!(from_text(text), ErrorKind::Connection, "{text}");
            assert_eq!(Classify::kind(&io::Error::other(text)), ErrorKind::Connection, "{text}");
            let boxed: Box<dyn Error + Send + Sync> = Box::new(io::Error::other(text));
            assert_eq!(boxed.kind(), ErrorKind::Connection, "{text}");
        }
        assert_eq!(from_text("no such file or directory"), ErrorKind::NotFound);
        assert_eq!(Classify::kind(&io::Error::other("no such key")), ErrorKind::Unknown);
    }

    #[test]
    fn r4_every_status_code_has_its_place() {
        let expected = [
            (200, None),
            (301, None),
            (400, Some(ErrorKind::BadRequest)),
            (401, Some(ErrorKind::Authentication)),
            (403, Some(ErrorKind::PermissionDenied)),
            (404, Some(ErrorKind::NotFound)),
            (408, Some(ErrorKind::Timeout)),
            (422, Some(ErrorKind::BadRequest)),
            (429, Some(ErrorKind::RateLimit)),
            (500, Some(ErrorKind::ServerError)),
            (503, Some(ErrorKind::ServerError)),
            (504, Some(ErrorKind::Timeout)),
        ];
        for (status, kind) in expected {
            assert_eq!(from_http_status(status), kind, "{status}");
        }
    }
}
