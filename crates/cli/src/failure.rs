//! [`Failure`]: why a command failed, and the exit code that says which kind it was.

use std::fmt;
use std::process::ExitCode;

use mainstay_db::DbError;
use mainstay_server::redact::redact_logins;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

/// Something was found to be wrong: hits that are none, data that disagrees.
pub(crate) const FOUND_FAULT: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// The work could not be done.
const FAILED: u8 = 3;

impl Failure {
    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::with_code(USAGE, &message.into())
    }

    /// The work could not be done.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::with_code(FAILED, &message.into())
    }

    /// Messages name addresses, and an address may hold a password.
    fn with_code(code: u8, message: &str) -> Self {
        Self { message: redact_logins(message), code }
    }

    /// Prints the message and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        anstream::eprintln!(
            "{}error{}: {}",
            crate::print::BAD,
            crate::print::BAD.render_reset(),
            self.message
        );
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        match &error {
            DbError::Locked(_) => {
                Self::new(format!("{error}; or ask the running server with --url"))
            }
            DbError::Query { .. } | DbError::Bound { .. } | DbError::CollectionName { .. } => {
                Self::usage(error.to_string())
            }
            _ => Self::new(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
