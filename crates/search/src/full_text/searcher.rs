//! [`FullTextSearcher`]: one immutable list of parts that answers questions.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tantivy::query::{Bm25StatisticsProvider, EnableScoring, Weight};
use tantivy::schema::Field;
use tantivy::{Score, Term};

use super::expansion::walk;
use super::language::compile;
use super::part::Part;
use crate::document::DocNumber;
use crate::request::{Hit, MethodAnswer, QUERY_BYTES_MAX, Request, SearchError};
use crate::view::Searcher;

/// Matches are counted exactly up to here; beyond, documents that cannot reach the best are skipped
/// and the total is a lower bound. Most queries have fewer, and counting 10,000 takes about 0.2 ms.
const COUNT_EXACT_MAX: u64 = 10_000;
/// Documents between two looks at the stop flag: some tens of microseconds.
const DOCUMENTS_PER_LOOK: u64 = 512;

/// The readers of the `tantivy` view.
pub struct FullTextSearcher {
    parts: Vec<Arc<Part>>,
}

impl FullTextSearcher {
    pub(super) fn new(parts: Vec<Arc<Part>>) -> Self {
        Self { parts }
    }

    fn run(&self, request: &Request<'_>) -> Result<MethodAnswer, SearchError> {
        let compiled = compile(request.text, request.strict, request.stop)?;
        let mut best = Best::new(request);
        if let Some(part) = self.parts.first() {
            let scoring = EnableScoring::enabled_from_statistics_provider(self, &part.searcher);
            let weight = compiled.query.weight(scoring).map_err(failed)?;
            for part in &self.parts {
                if best.has_stopped() {
                    break;
                }
                if compiled.is_sum_of_words {
                    best.prune(part, weight.as_ref())?;
                } else {
                    best.exhaust(part, weight.as_ref())?;
                }
            }
        }
        Ok(best.answer())
    }
}

impl Searcher for FullTextSearcher {
    fn search(&self, request: &Request<'_>) -> Result<MethodAnswer, SearchError> {
        if request.text.len() > QUERY_BYTES_MAX {
            return Err(SearchError::Bound {
                message: format!(
                    "the query has {} bytes, the bound is {QUERY_BYTES_MAX}; shorten it",
                    request.text.len()
                ),
            });
        }
        // tantivy trusts its files: on damaged bytes it may panic where it should answer an error.
        // The query may be at fault as well, so this alone does not condemn the view.
        catch_unwind(AssertUnwindSafe(|| self.run(request))).unwrap_or_else(|_| {
            let reason = "tantivy panicked; if it does so again, verify the view and rebuild it";
            Err(SearchError::Failed(reason.into()))
        })
    }
}

/// Statistics over all parts, so that a score does not depend on how documents are spread over them.
impl Bm25StatisticsProvider for FullTextSearcher {
    fn total_num_tokens(&self, field: Field) -> tantivy::Result<u64> {
        let mut total = 0;
        for part in &self.parts {
            total += part.reader().inverted_index(field)?.total_num_tokens();
        }
        Ok(total)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.parts.iter().map(|part| u64::from(part.documents)).sum())
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        let mut total = 0;
        for part in &self.parts {
            total += u64::from(part.reader().inverted_index(term.field())?.doc_freq(term)?);
        }
        Ok(total)
    }
}

fn failed(error: tantivy::TantivyError) -> SearchError {
    SearchError::Failed(Box::new(error))
}

/// The best hits so far.
struct Best<'a> {
    request: &'a Request<'a>,
    worst_first: BinaryHeap<Ranked>,
    total: u64,
    seen: u64,
    has_stopped: bool,
    has_pruned: bool,
}

impl<'a> Best<'a> {
    fn new(request: &'a Request<'a>) -> Self {
        let has_stopped = request.stop.is_set();
        let worst_first = BinaryHeap::new();
        Self { request, worst_first, total: 0, seen: 0, has_stopped, has_pruned: false }
    }

    fn has_stopped(&mut self) -> bool {
        self.has_stopped |= self.request.stop.is_set();
        self.has_stopped
    }

    /// Visits documents that can still reach the best, once enough are counted.
    fn prune(&mut self, part: &Part, weight: &dyn Weight) -> Result<(), SearchError> {
        let threshold = self.threshold();
        let mut visit = |row, score| {
            self.visit(part, row, score);
            self.threshold()
        };
        weight.for_each_pruning(threshold, part.reader(), &mut visit).map_err(failed)
    }

    /// Visits every matching document.
    fn exhaust(&mut self, part: &Part, weight: &dyn Weight) -> Result<(), SearchError> {
        let mut scorer = weight.scorer(part.reader(), 1.0).map_err(failed)?;
        walk(scorer.as_mut(), &mut |row, score| {
            self.visit(part, row, score);
            if self.has_stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        Ok(())
    }

    fn visit(&mut self, part: &Part, row: u32, score: Score) {
        self.seen += 1;
        if self.seen.is_multiple_of(DOCUMENTS_PER_LOOK) && self.has_stopped() {
            return;
        }
        let number = part.number_at(row);
        if !self.request.allowed.contains(number) {
            return;
        }
        self.total += 1;
        let ranked = Ranked { score: if score.is_finite() { score } else { 0.0 }, number };
        if self.worst_first.len() < self.request.limit {
            self.worst_first.push(ranked);
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && ranked < *worst
        {
            *worst = ranked;
        }
    }

    /// Documents that score no more than this need not be visited.
    fn threshold(&mut self) -> Score {
        if self.has_stopped {
            return Score::MAX;
        }
        match self.worst_first.peek() {
            Some(worst)
                if self.total >= COUNT_EXACT_MAX
                    && self.worst_first.len() == self.request.limit =>
            {
                self.has_pruned = true;
                worst.score
            }
            _ => Score::MIN,
        }
    }

    fn answer(mut self) -> MethodAnswer {
        let complete = !self.has_stopped();
        let hits = self
            .worst_first
            .into_sorted_vec()
            .into_iter()
            .map(|ranked| Hit { number: ranked.number, score: ranked.score, passage: None })
            .collect();
        let total_is_exact = complete && !self.has_pruned;
        MethodAnswer { hits, total: self.total, total_is_exact, complete }
    }
}

/// A hit; the better one is the lesser: higher score, then lower number.
#[derive(Clone, Copy, PartialEq)]
struct Ranked {
    score: f32,
    number: DocNumber,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
