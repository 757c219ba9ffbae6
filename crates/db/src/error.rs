//! [`DbError`]: why an operation on a data directory failed, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use mainstay_embed::EmbedError;
use mainstay_search::document::Invalid;
use mainstay_search::method::Method;
use mainstay_search::view::ViewError;
use mainstay_storage::{LockError, LogError};

/// Why an operation failed. Each has a stable [`DbError::code`].
#[derive(Debug)]
pub enum DbError {
    /// Another process, or another part of this one, uses the data directory.
    Locked(LockError),
    /// A file of the data directory cannot be read or written.
    Io {
        /// What was being done, such as `read settings`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of the data directory does not hold what it should.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The data directory was written by a later version.
    FutureFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version it names.
        found: u32,
        /// The latest version this program reads.
        supported: u32,
    },
    /// The write-ahead log refused or failed.
    Log(LogError),
    /// A view failed.
    View {
        /// `documents` or a method's name.
        view: &'static str,
        /// The cause.
        source: ViewError,
    },
    /// The embedding model cannot be used.
    Embed(EmbedError),
    /// No collection has this name.
    NoCollection {
        /// The name asked for.
        name: String,
    },
    /// A collection of this name exists already.
    CollectionExists {
        /// The name.
        name: String,
    },
    /// A collection's name breaks the rules.
    CollectionName {
        /// The name.
        name: String,
    },
    /// One more collection would pass the bound.
    TooManyCollections {
        /// The bound.
        collections_max: usize,
    },
    /// No document has this id.
    NoDocument {
        /// The id asked for.
        id: String,
    },
    /// The only document of a request is invalid.
    InvalidDocument(Vec<Invalid>),
    /// A request passes a bound.
    Bound {
        /// Which bound, its figure, and what to do.
        message: String,
    },
    /// The request cannot be understood.
    Query {
        /// The method that could not read it, when it was one.
        method: Option<Method>,
        /// What is wrong and what is allowed.
        message: String,
        /// The byte of the query at which it goes wrong, where known.
        position: Option<usize>,
    },
    /// No method answered, or fewer than the request demands.
    Unanswered {
        /// Each method's reason, one after the other.
        reasons: String,
        /// Milliseconds after which to try again, where known.
        retry_after_ms: Option<u64>,
    },
    /// The collection is closing or was dropped.
    Closed {
        /// The collection.
        name: String,
    },
    /// Something that cannot happen did; the message names it.
    Internal(String),
}

impl DbError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked(_) => "data_directory_locked",
            Self::Io { .. } => "io",
            Self::Damaged { .. } => "damaged",
            Self::FutureFormat { .. } => "future_format",
            Self::Log(error) => match error {
                LogError::DiskFull { .. } => "disk_full",
                LogError::QueueFull { .. } => "write_queue_full",
                _ => "log",
            },
            Self::View { .. } => "view",
            Self::Embed(EmbedError::ModelMismatch { .. }) => "model_mismatch",
            Self::Embed(_) => "embedding",
            Self::NoCollection { .. } => "collection_not_found",
            Self::CollectionExists { .. } => "collection_exists",
            Self::CollectionName { .. } => "collection_name",
            Self::TooManyCollections { .. } => "too_many_collections",
            Self::NoDocument { .. } => "document_not_found",
            Self::InvalidDocument(_) => "invalid_document",
            Self::Bound { .. } => "bound",
            Self::Query { .. } => "query",
            Self::Unanswered { .. } => "unanswered",
            Self::Closed { .. } => "collection_closed",
            Self::Internal(_) => "internal",
        }
    }

    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(error) => write!(f, "the data directory is in use: {error}"),
            Self::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            Self::Damaged { path, reason } => write!(f, "{} is damaged: {reason}", path.display()),
            Self::FutureFormat { path, found, supported } => write!(
                f,
                "{} has format version {found}, this program reads up to {supported}; \
                 use the program that wrote it",
                path.display()
            ),
            Self::Log(error) => error.fmt(f),
            Self::View { view, source } => write!(f, "view {view}: {source}"),
            Self::Embed(error) => error.fmt(f),
            Self::NoCollection { name } => {
                write!(
                    f,
                    "there is no collection named \"{name}\"; create it or list those that exist"
                )
            }
            Self::CollectionExists { name } => {
                write!(f, "a collection named \"{name}\" exists already")
            }
            Self::CollectionName { name } => write!(
                f,
                "\"{name}\" cannot name a collection; use 1 to 64 of a-z, 0-9, '-' and '_', \
                 beginning with a letter or digit"
            ),
            Self::TooManyCollections { collections_max } => write!(
                f,
                "the data directory holds {collections_max} collections, which is the bound; \
                 drop one or use another data directory"
            ),
            Self::NoDocument { id } => write!(f, "there is no document with id \"{id}\""),
            Self::InvalidDocument(faults) => {
                f.write_str("invalid document: ")?;
                for (i, fault) in faults.iter().enumerate() {
                    write!(f, "{}{fault}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Bound { message } | Self::Internal(message) => f.write_str(message),
            Self::Query { method, message, position } => {
                if let Some(method) = method {
                    write!(f, "{method}: ")?;
                }
                f.write_str(message)?;
                match position {
                    Some(at) => write!(f, " (at byte {at} of the query)"),
                    None => Ok(()),
                }
            }
            Self::Unanswered { reasons, .. } => write!(f, "no answer: {reasons}"),
            Self::Closed { name } => write!(f, "collection \"{name}\" is closed"),
        }
    }
}

impl std::error::Error for DbError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Locked(error) => Some(error),
            Self::Io { source, .. } => Some(source),
            Self::Log(error) => Some(error),
            Self::View { source, .. } => Some(source),
            Self::Embed(error) => Some(error),
            _ => None,
        }
    }
}

impl From<LogError> for DbError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<EmbedError> for DbError {
    fn from(error: EmbedError) -> Self {
        Self::Embed(error)
    }
}
