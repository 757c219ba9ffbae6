//! [`SearchAnswer`]: what a search found, and what the answer is worth.

use std::fmt;
use std::ops::Range;

use mainstay_search::document::Document;
use mainstay_search::method::Method;

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchAnswer {
    /// The hits of the page that was asked for, best first.
    pub hits: Vec<SearchHit>,
    /// How many documents match; see `total_is_exact`.
    pub total: u64,
    /// Whether `total` is exact, or a lower bound.
    pub total_is_exact: bool,
    /// Whether every method that was asked searched all that it has indexed.
    pub complete: bool,
    /// How much of the service stands behind the answer.
    pub level: Level,
    /// Why the level is not full; empty when it is.
    pub reason: String,
    /// Each method that was asked.
    pub methods: Vec<MethodReport>,
    /// Counts of values, for each facet that was asked for.
    pub facets: Vec<Facet>,
    /// The last durable sequence number when the search began. A method whose `indexed_through` is
    /// lower has not seen the newest writes.
    pub durable_seq: u64,
    /// Passages with a vector of the refining model, and passages in all; `None` without one.
    pub refined: Option<(u64, u64)>,
    /// Milliseconds from request to answer.
    pub duration_ms: f64,
}

/// How much of the service stands behind an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything: every method that was asked answered in full.
    #[default]
    Full,
    /// At least one method did not, or costly work is left out.
    Degraded,
    /// What must work: lexical methods, answers from the cache.
    Minimal,
    /// Read-only, or closed.
    Maintenance,
}

impl Level {
    /// `full`, `degraded`, `minimal` or `maintenance`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Full => "full",
            Level::Degraded => "degraded",
            Level::Minimal => "minimal",
            Level::Maintenance => "maintenance",
        }
    }
}

/// What became of one method.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodReport {
    /// The method.
    pub method: Method,
    /// What became of it.
    pub status: MethodStatus,
    /// Why it is not [`MethodStatus::Ok`]; empty otherwise.
    pub reason: String,
    /// Up to which sequence number it has indexed.
    pub indexed_through: u64,
    /// How long it took, in milliseconds; how long it was waited for when it did not answer.
    pub took_ms: f64,
    /// Documents that match, as far as it counted.
    pub total: u64,
    /// Milliseconds after which it is tried again, when it was skipped.
    pub retry_after_ms: Option<u64>,
}

/// What became of one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodStatus {
    /// It answered in full.
    Ok,
    /// It answered with a part: the deadline came, or a part of it is not available.
    Partial,
    /// It was not asked: its breaker is open, its queue is full, or its index is being made.
    Skipped,
    /// It did not answer in time.
    TimedOut,
    /// It answered with an error.
    Failed,
}

impl MethodStatus {
    /// `ok`, `partial`, `skipped`, `timed_out` or `failed`.
    pub fn name(self) -> &'static str {
        match self {
            MethodStatus::Ok => "ok",
            MethodStatus::Partial => "partial",
            MethodStatus::Skipped => "skipped",
            MethodStatus::TimedOut => "timed_out",
            MethodStatus::Failed => "failed",
        }
    }
}

impl fmt::Display for MethodStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One document found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchHit {
    /// The document; its body is empty unless it was asked for.
    pub document: Document,
    /// Its fused score; higher is better; comparable inside one answer.
    pub score: f32,
    /// Which methods found it.
    pub methods: Vec<Method>,
    /// What each method gave; empty unless it was asked for.
    pub explanation: Vec<Contribution>,
    /// The piece of the body that shows best why it was found.
    pub snippet: Option<HitSnippet>,
    /// Lines that match.
    pub lines: Vec<HitLine>,
}

/// What one method gave to one hit.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The method.
    pub method: Method,
    /// The hit's place in the method's list; 1 is best.
    pub rank: usize,
    /// The method's own score.
    pub score: f32,
    /// The score in 0..=1 inside the list.
    pub normalised: f32,
    /// The method's share in the fused score.
    pub weight: f32,
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HitSnippet {
    /// The text.
    pub text: String,
    /// The line of the body at which it begins; 1 is the first.
    pub line: u32,
    /// The byte ranges of `text` that match.
    pub highlights: Vec<Range<usize>>,
}

/// A line of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HitLine {
    /// Its number; 1 is the first.
    pub line: u32,
    /// The byte of the line at which the first match begins; 1 is the first; 0 in a context line.
    pub column: u32,
    /// The byte of the line at which `text` begins: 0, or more in a line too long to be shown whole.
    pub offset: usize,
    /// The text without the line's end, 4 KiB of it at most.
    pub text: String,
    /// The byte ranges of `text` that match; empty in a context line.
    pub highlights: Vec<Range<usize>>,
}

/// The values of one facet.
#[derive(Clone, Debug, PartialEq)]
pub struct Facet {
    /// The field.
    pub field: String,
    /// Values and how many of the candidates have them, most frequent first.
    pub values: Vec<(String, u64)>,
}
