//! [`Request`]: one question to one method, and [`MethodAnswer`]: what comes back.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bitmap::Bitmap;
use crate::document::DocNumber;

/// The longest query, in bytes. Longer ones are refused before any work.
pub const QUERY_BYTES_MAX: usize = 16 << 10;

/// One question. The same value goes to every method; each reads the parts it understands.
#[derive(Clone)]
pub struct Request<'a> {
    /// What the user typed; at most [`QUERY_BYTES_MAX`] bytes.
    pub text: &'a str,
    /// How `native` reads [`Request::text`].
    pub pattern: Pattern,
    /// How `tantivy` takes a fault in its query language: `true` answers [`SearchError::Query`],
    /// `false` reads the text as plain words, so that `what's up?` finds something.
    pub strict: bool,
    /// The text as vectors, one for each embedding space that could be asked; for `semantic`.
    pub vectors: &'a [QueryVector],
    /// How many hits are wanted, best first.
    pub limit: usize,
    /// Which documents may be answered.
    pub allowed: &'a Allowed,
    /// Stored text, for methods that verify against it.
    pub texts: &'a dyn Texts,
    /// How many stored texts `native` may verify for a literal, in order of document number;
    /// `usize::MAX` for all there are. Where words are short and frequent, a phrase of them leaves
    /// tens of thousands of candidates; beside other methods that is not worth their waiting. What
    /// was left out shows in [`MethodAnswer::total_is_exact`].
    pub verified_max: usize,
    /// How many threads the method may use, itself included; at least 1.
    pub threads: usize,
    /// Set by the caller when the answer is no longer wanted or the deadline has passed.
    pub stop: &'a Stop,
}

/// How `native` reads a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// Whether the text is a literal or a regular expression.
    pub syntax: Syntax,
    /// How upper and lower case compare.
    pub case: Case,
    /// Whether a match must begin and end at word boundaries, as with `rg -w`.
    pub word: bool,
}

/// The language of a pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syntax {
    /// The text itself.
    #[default]
    Literal,
    /// A regular expression of the `regex` crate.
    Regex,
}

/// How upper and lower case compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Case {
    /// Insensitive unless the pattern has an upper-case letter, as with `rg -S`.
    #[default]
    Smart,
    /// Byte for byte.
    Sensitive,
    /// By simple Unicode case folding.
    Insensitive,
}

/// A query embedded into one space.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryVector {
    /// The index of the space in the collection: 0 is the instant model, 1 the refining one.
    pub space: usize,
    /// Of unit length, as long as the space's dimension, all finite.
    pub vector: Vec<f32>,
}

/// Which documents may be answered: the living ones, less what a filter removes.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    living: Bitmap,
    filter: Option<Bitmap>,
}

impl Allowed {
    /// All living documents, or those that are also in `filter`.
    pub fn new(living: Bitmap, filter: Option<Bitmap>) -> Self {
        Self { living, filter }
    }

    /// Whether the document may be answered.
    #[inline]
    pub fn contains(&self, number: DocNumber) -> bool {
        self.living.contains(number) && self.filter.as_ref().is_none_or(|f| f.contains(number))
    }

    /// The filtered set, when there is a filter.
    pub fn filter(&self) -> Option<&Bitmap> {
        self.filter.as_ref()
    }

    /// The allowed documents in rising order.
    pub fn iter(&self) -> impl Iterator<Item = DocNumber> + '_ {
        let source = self.filter.as_ref().unwrap_or(&self.living);
        source.iter().filter(|&number| self.contains(number))
    }

    /// How many documents are allowed. Reads the whole bitmap.
    pub fn len(&self) -> u64 {
        match &self.filter {
            None => self.living.len(),
            Some(_) => self.iter().count() as u64,
        }
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// A flag that asks running work to end soon. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for. Cheap enough for every few thousand steps of an inner loop.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Stored text, by document number.
pub trait Texts: Send + Sync {
    /// Calls `visit` with each of `numbers` (rising) that is stored; `Break` ends the walk.
    /// Reading in order lets the store decompress each block once.
    fn visit(
        &self,
        numbers: &[DocNumber],
        visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError>;
}

/// The text fields of one stored document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// The headline; empty when there is none.
    pub title: &'a str,
    /// Where the document comes from.
    pub path: &'a str,
    /// The programming or natural language; empty when unknown.
    pub language: &'a str,
    /// The text.
    pub body: &'a str,
}

/// What one method found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodAnswer {
    /// At most [`Request::limit`] hits, best first; equal scores in order of document number.
    pub hits: Vec<Hit>,
    /// How many documents match. See [`MethodAnswer::total_is_exact`].
    pub total: u64,
    /// Whether `total` is the exact number, or a lower bound because work was skipped.
    pub total_is_exact: bool,
    /// Whether all was searched; false when [`Request::stop`] ended the work early.
    pub complete: bool,
}

/// One document found by one method.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document.
    pub number: DocNumber,
    /// How well it fits; higher is better; comparable only inside one answer. Finite.
    pub score: f32,
    /// The byte range of the body that matched best, where the method knows one.
    pub passage: Option<Range<u32>>,
}

/// Why a method cannot answer.
#[derive(Debug)]
pub enum SearchError {
    /// The query cannot be understood: the user's fault, not the method's.
    Query {
        /// What is wrong and what is allowed.
        message: String,
        /// The byte of the query at which it goes wrong, where known.
        position: Option<usize>,
    },
    /// Answering would pass a bound.
    Bound {
        /// Which bound, its figure, and what to do.
        message: String,
    },
    /// A file of the view is damaged: rebuild the view.
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The method failed in another way.
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl SearchError {
    /// A [`SearchError::Query`] about the whole query.
    pub fn query(message: impl Into<String>) -> Self {
        Self::Query { message: message.into(), position: None }
    }

    /// A [`SearchError::Damaged`].
    pub fn damaged(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), reason: reason.into() }
    }
}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query { message, position: Some(at) } => {
                write!(f, "{message} (at byte {at} of the query)")
            }
            Self::Query { message, position: None } | Self::Bound { message } => {
                f.write_str(message)
            }
            Self::Damaged { file, reason } => {
                write!(f, "index file {file} is damaged: {reason}; rebuild the view")
            }
            Self::Failed(source) => write!(f, "search failed: {source}"),
        }
    }
}

impl std::error::Error for SearchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(source) => Some(source.as_ref()),
            _ => None,
        }
    }
}
