//! [`Fault`]: the error of one attempt, with its place in the taxonomy.

use std::fmt;

use mainstay_resilience::{Classify, ErrorKind};
use sqlx::sqlite::SqliteError;

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// What the driver says.
    Driver(sqlx::Error),
    /// No connection became free, or none could be made, within the time.
    NoConnection {
        /// Connections that are open.
        open: u32,
        /// The bound.
        bound: u32,
    },
    /// A drill made it fail.
    Injected,
    /// A row that this release cannot read.
    Row(String),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Fault::Driver(error)
    }
}

impl Fault {
    /// Whether the connection can be used for the next call: the database has answered.
    pub(crate) fn leaves_connection_sound(&self) -> bool {
        match self {
            Fault::Driver(sqlx::Error::Database(error)) => sqlite_code(&**error).is_none_or(sound),
            Fault::Driver(_) => false,
            Fault::NoConnection { .. } | Fault::Injected | Fault::Row(_) => true,
        }
    }
}

/// A busy or locked SQLite is sound; one whose file cannot be read is opened anew.
fn sound(code: u32) -> bool {
    !matches!(code, 10 | 11 | 14 | 26)
}

/// The primary code of an error of SQLite.
fn sqlite_code(error: &dyn sqlx::error::DatabaseError) -> Option<u32> {
    let error = error.try_downcast_ref::<SqliteError>()?;
    sqlx::error::DatabaseError::code(error)?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// By the primary result code. Source: SQLite documentation, result and error codes.
fn from_sqlite(code: u32) -> ErrorKind {
    match code {
        // Busy and locked: another process writes.
        5 | 6 => ErrorKind::ServerError,
        // No access, read-only, not authorised.
        3 | 8 | 23 => ErrorKind::PermissionDenied,
        // Damaged, or no database at all.
        11 | 26 => ErrorKind::ServerError,
        // Input and output, cannot open, disk full.
        10 | 13 | 14 => ErrorKind::Connection,
        // A statement or a value that it does not take.
        1 | 18 | 19 | 20 | 25 => ErrorKind::BadRequest,
        _ => ErrorKind::Unknown,
    }
}

impl Classify for Fault {
    fn kind(&self) -> ErrorKind {
        match self {
            Fault::Driver(error) => {
                let code = error.as_database_error().and_then(sqlite_code);
                code.map_or_else(|| Classify::kind(error), from_sqlite)
            }
            Fault::NoConnection { .. } => ErrorKind::Timeout,
            Fault::Injected => ErrorKind::ServerError,
            Fault::Row(_) => ErrorKind::BadRequest,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Driver(error) => write!(f, "{error}"),
            Fault::NoConnection { open: 0, .. } => {
                f.write_str("no connection could be made: nothing listens there, or nobody answers")
            }
            Fault::NoConnection { open, bound } => {
                write!(f, "no connection became free: {open} are open, the bound is {bound}")
            }
            Fault::Injected => f.write_str("injected error"),
            Fault::Row(detail) => f.write_str(detail),
        }
    }
}
