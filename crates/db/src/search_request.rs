//! [`SearchRequest`]: everything a caller can ask of one search, with its defaults and bounds.

use std::time::Duration;

use mainstay_search::documents::{Filter, SortKey};
use mainstay_search::fusion::Weights;
use mainstay_search::method::Method;
use mainstay_search::request::{Pattern, QUERY_BYTES_MAX};

use crate::error::DbError;
use crate::search_answer::Level;

/// Hits answered when the caller names no number.
pub const LIMIT_DEFAULT: usize = 10;
/// The most hits in one answer; each is fetched, cut into snippets and sent.
pub const LIMIT_MAX: usize = 1000;
/// The deepest page: `offset + limit`. Each method keeps this many candidates at most.
pub const DEPTH_MAX: usize = 10_000;
/// Candidates that each method contributes to fusion at least: below this, fused rankings lose
/// documents that one method ranks low and another high.
pub const DEPTH_MIN: usize = 100;
/// How long a search may take when the caller names no time.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// The shortest and the longest time a caller may name.
pub const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(30));
/// The most facet fields in one request.
pub const FACETS_MAX: usize = 16;
/// The most sort keys in one request.
pub const SORT_KEYS_MAX: usize = 8;
/// Snippet length when the caller names none, in bytes.
pub const SNIPPET_BYTES_DEFAULT: usize = 240;
/// The longest snippet, in bytes.
pub const SNIPPET_BYTES_MAX: usize = 4096;
/// The most context lines before and after a matching line.
pub const CONTEXT_LINES_MAX: usize = 20;
/// The largest constant of reciprocal rank fusion; beyond it all ranks count alike.
pub const RRF_K_MAX: u32 = 10_000;
/// Matching lines listed for one hit when the caller names no number, and at most.
pub const LINES: (usize, usize) = (3, 1000);

/// One search. `SearchRequest::new("query")` has every default.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchRequest {
    /// What the user typed; at most [`QUERY_BYTES_MAX`] bytes. Empty: all documents that pass the filter.
    pub query: String,
    /// How many hits; 1 to [`LIMIT_MAX`].
    pub limit: usize,
    /// How many hits to pass over; `offset + limit` is at most [`DEPTH_MAX`].
    pub offset: usize,
    /// The methods to ask; empty means all.
    pub methods: Vec<Method>,
    /// Which documents count.
    pub filter: Option<Filter>,
    /// Attributes whose values are counted among the matching candidates; at most [`FACETS_MAX`].
    pub facets: Vec<String>,
    /// The most values of one facet.
    pub facet_values: usize,
    /// Orders the candidates by attributes instead of by score; at most [`SORT_KEYS_MAX`] keys.
    pub sort: Vec<SortKey>,
    /// How the methods' lists are joined.
    pub fusion: Fusion,
    /// How `native` reads the query.
    pub pattern: Pattern,
    /// The time for everything; within [`TIMEOUT_RANGE`].
    pub timeout: Duration,
    /// Whether an incomplete answer is an error.
    pub strict: bool,
    /// Methods that must answer, of those asked: with fewer the answer is an error. Default 1.
    pub methods_min: usize,
    /// Waits until the methods have indexed up to this sequence number: read your own writes.
    pub min_seq: u64,
    /// Whether each hit says which method gave what.
    pub explain: bool,
    /// The length of snippets in bytes; 0 for none; at most [`SNIPPET_BYTES_MAX`].
    pub snippet_bytes: usize,
    /// The most matching lines listed with each hit; 0 for none.
    pub lines: usize,
    /// Lines of context around each matching line; at most [`CONTEXT_LINES_MAX`].
    pub context_lines: usize,
    /// Whether hits carry the whole body.
    pub with_body: bool,
    /// How much service there is; whoever serves decides that, not whoever asks.
    pub service: Service,
}

/// How much service there is: what a search leaves out, and why. The default leaves out nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The level; an answer shows this one or a worse one.
    pub level: Level,
    /// Why it is not full.
    pub reason: String,
    /// How much of the usual work is done, above 0 and up to 1: it scales the candidates of each
    /// method.
    pub effort: f64,
    /// Whether the refining model embeds queries; the instant one does in any case.
    pub refine: bool,
    /// The methods that run; empty means all. When none of them can be used, the others are asked
    /// all the same: less service must not become none.
    pub methods: Vec<Method>,
    /// Methods that are switched off, whatever else can be used.
    pub off: Vec<Method>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            level: Level::Full,
            reason: String::new(),
            effort: 1.0,
            refine: true,
            methods: Vec::new(),
            off: Vec::new(),
        }
    }
}

impl Service {
    /// Whether some of the methods asked for are left out while none of the others can be used.
    pub(crate) fn leaves_nothing_of(
        &self,
        asked: &[Method],
        usable: impl Fn(Method) -> bool,
    ) -> bool {
        let mut allowed = asked.iter().filter(|method| self.methods.contains(method)).peekable();
        allowed.peek().is_some() && !allowed.any(|method| usable(*method))
    }

    /// Why a method does not run, if it does not.
    pub(crate) fn leaves_out(&self, method: Method, relaxed: bool) -> Option<String> {
        if self.off.contains(&method) {
            return Some("switched off by a flag".to_string());
        }
        if relaxed || self.methods.is_empty() || self.methods.contains(&method) {
            return None;
        }
        Some(format!("left out at level {}: {}", self.level.name(), self.reason))
    }
}

/// How the methods' lists are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fusion {
    /// Sum of normalised scores; with the collection's weights, or these.
    Weighted(Option<Weights>),
    /// Reciprocal rank fusion with this constant, usually 60.
    ReciprocalRank {
        /// Added to each rank; 1 to [`RRF_K_MAX`].
        k: u32,
    },
}

impl SearchRequest {
    /// A search with every default.
    pub fn new(query: impl Into<String>) -> Self {
        Self {
            query: query.into(),
            limit: LIMIT_DEFAULT,
            offset: 0,
            methods: Vec::new(),
            filter: None,
            facets: Vec::new(),
            facet_values: 10,
            sort: Vec::new(),
            fusion: Fusion::Weighted(None),
            pattern: Pattern::default(),
            timeout: TIMEOUT_DEFAULT,
            strict: false,
            methods_min: 1,
            min_seq: 0,
            explain: false,
            snippet_bytes: SNIPPET_BYTES_DEFAULT,
            lines: LINES.0,
            context_lines: 0,
            with_body: false,
            service: Service::default(),
        }
    }

    /// The methods asked for, each once, in the order of answers.
    pub fn methods(&self) -> Vec<Method> {
        let asked = |method: &Method| self.methods.is_empty() || self.methods.contains(method);
        Method::ALL.into_iter().filter(asked).collect()
    }

    /// Candidates that each method contributes.
    pub(crate) fn depth(&self) -> usize {
        (self.offset + self.limit).max(self.scaled(DEPTH_MIN))
    }

    /// This much work, as far as the present service goes.
    pub(crate) fn scaled(&self, work: usize) -> usize {
        (work as f64 * self.service.effort.clamp(0.0, 1.0)).ceil() as usize
    }

    /// Checks every bound.
    pub fn validate(&self) -> Result<(), DbError> {
        let bound = |what: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(DbError::Bound {
                message: format!("{what} is {value}; allowed is {least} to {most}"),
            })
        };
        bound("the query's length in bytes", self.query.len(), 0, QUERY_BYTES_MAX)?;
        bound("methods_min", self.methods_min, 1, self.methods().len())?;
        bound("limit", self.limit, 1, LIMIT_MAX)?;
        bound("offset + limit", self.offset.saturating_add(self.limit), 1, DEPTH_MAX)?;
        bound("the number of facets", self.facets.len(), 0, FACETS_MAX)?;
        bound("facet_values", self.facet_values, 1, LIMIT_MAX)?;
        bound("the number of sort keys", self.sort.len(), 0, SORT_KEYS_MAX)?;
        bound("snippet_bytes", self.snippet_bytes, 0, SNIPPET_BYTES_MAX)?;
        bound("lines", self.lines, 0, LINES.1)?;
        bound("context_lines", self.context_lines, 0, CONTEXT_LINES_MAX)?;
        let (least, most) = TIMEOUT_RANGE;
        if !(least..=most).contains(&self.timeout) {
            return Err(DbError::Bound {
                message: format!("timeout is {:?}; allowed is {least:?} to {most:?}", self.timeout),
            });
        }
        match self.fusion {
            Fusion::ReciprocalRank { k } => {
                bound("the constant k of rank fusion", k as usize, 1, RRF_K_MAX as usize)
            }
            Fusion::Weighted(Some(weights)) => weights
                .validate()
                .map_err(|message| DbError::Bound { message: message.to_string() }),
            _ => Ok(()),
        }
    }
}
