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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_errors_of_a_database_are_placed_by_type_and_by_sqlstate() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        for (error, kind) in [
            (Error::Io(reset), ErrorKind::Connection),
            (Error::PoolTimedOut, ErrorKind::Timeout),
            (Error::PoolClosed, ErrorKind::Connection),
            (Error::RowNotFound, ErrorKind::NotFound),
            (Error::ColumnNotFound("id".to_owned()), ErrorKind::BadRequest),
        ] {
            assert_eq!(Classify::kind(&error), kind, "{error}");
        }
        for (state, kind) in [
            ("57014", ErrorKind::Timeout),
            ("08006", ErrorKind::Connection),
            ("28P01", ErrorKind::Authentication),
            ("42501", ErrorKind::PermissionDenied),
            ("42P01", ErrorKind::NotFound),
            ("53300", ErrorKind::RateLimit),
            ("40001", ErrorKind::ServerError),
            ("23505", ErrorKind::BadRequest),
            ("", ErrorKind::Unknown),
        ] {
            assert_eq!(from_sqlstate(state), kind, "{state}");
        }
    }
}
