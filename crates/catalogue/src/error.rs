//! [`CatalogueError`]: why the catalogue did not answer.

use std::fmt;

use mainstay_resilience::{Classify, ConfigError, ErrorKind};

/// Why the catalogue did not answer, or did not do what it was asked for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CatalogueError {
    /// A setting of the pool or of its pipeline is out of its range.
    Config(ConfigError),
    /// The database could not be asked, or refused the statement.
    Unavailable {
        /// Where it is, without a password.
        location: String,
        /// What was asked.
        operation: &'static str,
        /// The place in the taxonomy.
        kind: ErrorKind,
        /// What the pool, the database or a policy says.
        detail: String,
    },
    /// Another node has changed the piece meanwhile; read it again and decide again.
    Conflict {
        /// The piece.
        name: String,
        /// The version that the caller had seen.
        expected: u64,
        /// The version that is there.
        found: u64,
    },
    /// A later release has changed the tables.
    Newer {
        /// Where it is.
        location: String,
        /// The version that is there.
        found: u64,
        /// The latest that this release knows.
        supported: u64,
    },
    /// A migration that was applied is not the one that this release knows under its number.
    Altered {
        /// Where it is.
        location: String,
        /// The number.
        version: u64,
    },
    /// What is to be stored is over its bound.
    TooLarge {
        /// What it is.
        what: String,
        /// Its size.
        size: u64,
        /// The bound.
        bound: u64,
    },
    /// A row is not what this release writes.
    Unreadable {
        /// What was asked.
        operation: &'static str,
        /// What is wrong.
        detail: String,
    },
}

impl CatalogueError {
    /// Whether trying again without doing anything else cannot help.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            CatalogueError::Unavailable { kind, .. } => !kind.is_retryable(),
            _ => true,
        }
    }
}

impl Classify for CatalogueError {
    fn kind(&self) -> ErrorKind {
        match self {
            CatalogueError::Unavailable { kind, .. } => *kind,
            _ => ErrorKind::BadRequest,
        }
    }
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogueError::Config(error) => write!(f, "catalogue: {error}"),
            CatalogueError::Unavailable { location, operation, kind, detail } => {
                write!(f, "catalogue {location}: {operation}: {kind}: {detail}")
            }
            CatalogueError::Conflict { name, expected, found } => write!(
                f,
                "{name} was changed by another node meanwhile (version {found}, not {expected}); \
                 try again"
            ),
            CatalogueError::Newer { location, found, supported } => write!(
                f,
                "catalogue {location} has schema version {found}, this release knows up to \
                 {supported}; use the release that other nodes use"
            ),
            CatalogueError::Altered { location, version } => write!(
                f,
                "catalogue {location}: migration {version} is not the one that this release \
                 applies; restore the database from a backup, or use an empty one"
            ),
            CatalogueError::TooLarge { what, size, bound } => {
                write!(f, "{what} has size {size}, the bound is {bound}")
            }
            CatalogueError::Unreadable { operation, detail } => {
                write!(f, "catalogue: {operation}: a row cannot be read: {detail}")
            }
        }
    }
}

impl std::error::Error for CatalogueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CatalogueError::Config(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for CatalogueError {
    fn from(error: ConfigError) -> Self {
        CatalogueError::Config(error)
    }
}
