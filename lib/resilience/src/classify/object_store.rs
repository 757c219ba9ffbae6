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
            | Error::UnknownConfigurationKey { .. } => ErrorKind::BadRequest,
            // What is left comes from the store's client as an error without a type.
            other => match from_chain(other) {
                ErrorKind::Unknown => from_text(&other.to_string()),
                kind => kind,
            },
        }
    }
}
