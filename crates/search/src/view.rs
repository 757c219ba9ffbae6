//! [`View`] and [`Searcher`]: the contract between the log's driver and the methods.
//!
//! A view consumes the log in order, keeps its own structure, and can be thrown away and rebuilt.
//! What every view promises:
//!
//! 1. `apply` is deterministic and changes what readers see only through the next [`View::searcher`].
//! 2. A searcher is immutable: an answer never mixes two states.
//! 3. After `checkpoint` returns, opening the same directory again gives a view whose `through()` is
//!    at least what it was at the call. What was applied later is applied again from the log.
//! 4. Opening never panics on damaged files: it answers [`ViewError::Damaged`], and the driver
//!    throws the view away and rebuilds it.
//! 5. A removed document may stay inside a view until a merge drops it; readers never see it because
//!    every request carries [`crate::request::Allowed`].

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::bitmap::Bitmap;
use crate::document::{DocNumber, Document};
use crate::request::{MethodAnswer, Request, SearchError, Stop};

/// A document that enters a view.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    /// Its number: higher than every number applied before.
    pub number: DocNumber,
    /// Its contents.
    pub document: Document,
}

/// A structure fed by the log.
pub trait View: Send {
    /// What one step consumes: [`Addition`] for most, an addition with vectors for `semantic`.
    type Item;

    /// Applies a batch in order and moves [`View::through`] to `through`, which may be beyond the
    /// last item (removals concern no view) or come with no item at all.
    ///
    /// Documents that can never be applied are left out and returned; any other failure is an error,
    /// after which the view is as it was before the call and may be asked again.
    fn apply(&mut self, items: &[Self::Item], through: u64) -> Result<Vec<Refused>, ViewError>;

    /// The log sequence number up to which everything is applied; 0 for a new view.
    fn through(&self) -> u64;

    /// The state as readers may see it. Cheap; called after every batch.
    fn searcher(&self) -> Arc<dyn Searcher>;

    /// Makes all that was applied durable.
    fn checkpoint(&mut self) -> Result<(), ViewError>;

    /// The next merge that would pay, if any. `living` lets a merge drop removed documents.
    /// The merge runs on another thread while this view goes on applying; one at a time.
    fn plan_merge(&self, living: &Bitmap) -> Option<Merge>;

    /// Puts the result of a planned merge in place of its sources. Cheap: files are already written.
    fn install(&mut self, merged: Merged) -> Result<(), ViewError>;

    /// Every document number the view holds, removed ones included; for `verify`.
    fn numbers(&self) -> Result<Bitmap, ViewError>;

    /// What it costs.
    fn figures(&self) -> ViewFigures;
}

/// An immutable state of a view that answers questions. Shared between threads.
pub trait Searcher: Send + Sync {
    /// Answers within [`Request::limit`], looks at [`Request::stop`] often enough to end within a few
    /// milliseconds of it being set (answering what it has, `complete: false`), and never panics on
    /// any request.
    fn search(&self, request: &Request<'_>) -> Result<MethodAnswer, SearchError>;
}

/// Work planned by [`View::plan_merge`].
pub struct Merge {
    /// The bytes it will read, so that the caller can bound its IO.
    pub bytes: u64,
    /// Does the work; ends early with an error of kind [`io::ErrorKind::Interrupted`] when the flag is set.
    #[allow(clippy::type_complexity)]
    pub run: Box<dyn FnOnce(&Stop) -> Result<Merged, ViewError> + Send>,
}

/// What a merge made, for [`View::install`] of the same view.
pub type Merged = Box<dyn Any + Send>;

/// A document that a view can never apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The document.
    pub number: DocNumber,
    /// Why.
    pub reason: String,
}

/// What a view costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewFigures {
    /// Documents held, removed ones that no merge has dropped yet included.
    pub documents: u64,
    /// Bytes in finished files.
    pub disk_bytes: u64,
    /// Bytes in memory that are not yet in files.
    pub memory_bytes: u64,
    /// Parts that a query must look into.
    pub segments: u64,
}

/// Why a view cannot go on.
#[derive(Debug)]
pub enum ViewError {
    /// Reading or writing failed; may pass (a full disk) or not.
    Io {
        /// What was being done, such as `write segment 17`.
        doing: String,
        /// The cause.
        source: io::Error,
    },
    /// A file does not hold what it should: rebuild the view.
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A file was written by a later version of the program.
    FutureFormat {
        /// The file.
        file: String,
        /// The version it names.
        found: u32,
        /// The latest version this program reads.
        supported: u32,
    },
    /// Going on would pass a bound.
    Bound {
        /// Which bound, its figure, and what to do.
        message: String,
    },
    /// Anything else.
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl ViewError {
    /// For `map_err`: an [`ViewError::Io`] that says what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// A [`ViewError::Damaged`].
    pub fn damaged(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), reason: reason.into() }
    }
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Damaged { file, reason } => {
                write!(f, "file {file} is damaged: {reason}; the view is rebuilt from the log")
            }
            Self::FutureFormat { file, found, supported } => write!(
                f,
                "file {file} has format version {found}, this program reads up to {supported}; \
                 use the program that wrote it or rebuild the view"
            ),
            Self::Bound { message } => f.write_str(message),
            Self::Failed(source) => write!(f, "view failed: {source}"),
        }
    }
}

impl std::error::Error for ViewError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Failed(source) => Some(source.as_ref()),
            _ => None,
        }
    }
}
