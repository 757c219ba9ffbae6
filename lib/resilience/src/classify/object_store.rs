//! Errors of `object_store`.

use super::{from_chain, from_text};
use crate::error_kind::{Classify, ErrorKind};
use object_store::Error;

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::PermissionDenied { .. } => ErrorKind::PermissionDenied,
            Error::Unauthenticated { .. } => ErrorKind::Authentication,
            Error::InvalidPath { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented
            | Error::UnknownConfigurationKey { .. } => ErrorKind::BadRequest,
            // What is left comes from the store's client as an error without a type.
            other => match from_chain(other) {
                ErrorKind::Unknown => from_text(&other.to_string()),
                kind => kind,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Box<dyn std::error::Error + Send + Sync> {
        text.into()
    }

    #[test]
    fn r4_errors_of_a_store_are_placed_by_type_then_by_cause_and_at_last_by_text() {
        let path = || "a/b".to_owned();
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let generic = |source| Error::Generic { store: "S3", source };
        for (error, kind) in [
            (Error::NotFound { path: path(), source: text("timeout") }, ErrorKind::NotFound),
            (
                Error::PermissionDenied { path: path(), source: text("") },
                ErrorKind::PermissionDenied,
            ),
            (Error::Unauthenticated { path: path(), source: text("") }, ErrorKind::Authentication),
            (Error::Precondition { path: path(), source: text("") }, ErrorKind::BadRequest),
            (Error::NotImplemented, ErrorKind::BadRequest),
            (generic(Box::new(refused)), ErrorKind::Connection),
            (generic(text("503 service unavailable")), ErrorKind::ServerError),
            (generic(text("operation timed out")), ErrorKind::Timeout),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
