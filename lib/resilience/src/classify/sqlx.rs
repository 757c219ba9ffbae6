//! Errors of `sqlx`.

use crate::error_kind::{Classify, ErrorKind};
use sqlx::Error;

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Io(error) => Classify::kind(error),
            Error::PoolTimedOut => ErrorKind::Timeout,
            Error::PoolClosed | Error::WorkerCrashed | Error::Tls(_) | Error::Protocol(_) => {
                ErrorKind::Connection
            }
            Error::RowNotFound => ErrorKind::NotFound,
            Error::Database(error) => from_sqlstate(error.code().as_deref().unwrap_or("")),
            Error::Configuration(_)
            | Error::TypeNotFound { .. }
            | Error::ColumnNotFound(_)
            | Error::ColumnIndexOutOfBounds { .. }
            | Error::ColumnDecode { .. }
            | Error::Encode(_)
            | Error::Decode(_) => ErrorKind::BadRequest,
            _ => ErrorKind::Unknown,
        }
    }
}

/// By the class of the SQLSTATE. Source: PostgreSQL documentation, appendix A.
fn from_sqlstate(code: &str) -> ErrorKind {
    match (code.get(..2), code) {
        (_, "57014") => ErrorKind::Timeout,
        (_, "42501") => ErrorKind::PermissionDenied,
        (_, "42P01" | "42703") => ErrorKind::NotFound,
        (Some("08"), _) => ErrorKind::Connection,
        (Some("28"), _) => ErrorKind::Authentication,
        (Some("53"), _) => ErrorKind::RateLimit,
        // Serialization failures and deadlocks ask to be tried again.
        (Some("40" | "55" | "57" | "58" | "XX"), _) => ErrorKind::ServerError,
        (Some("22" | "23" | "42"), _) => ErrorKind::BadRequest,
        _ => ErrorKind::Unknown,
    }
}
