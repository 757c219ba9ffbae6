//! [`Bm25Searcher`]: one immutable state of the view, which answers queries.

use std::collections::HashMap;
use std::sync::Arc;

use super::cursor::{Cursor, Scales};
use super::dictionary::Location;
use super::scoring::{Bounds, Norms, SCORE_SUM_MAX, idf};
use super::search::Run;
use super::segment::{Segment, average};
use super::top::Top;
use crate::analysis::{Analyzer, Chain};
use crate::request::{Hit, MethodAnswer, Request, SearchError};
use crate::view::Searcher;

/// The most different terms of one query that are looked up: the rarest of them are kept. Four times
/// the longest query of the test collections; a whole page pasted in is cut to what tells it apart.
pub const QUERY_TERMS_MAX: usize = 256;
/// The most postings that are read in full for the sake of an exact total: some 20 µs.
const TOTAL_EXACT_POSTINGS: u64 = 2048;
/// A filter leads the search when the query has this many times more postings than it has documents.
const FILTER_LEADS: u64 = 4;

/// One state of the view.
pub struct Bm25Searcher {
    segments: Vec<Arc<Segment>>,
    chain: Chain,
    documents: u64,
    total_length: u64,
}

/// A term of the query, with where it is in every segment.
struct Term {
    repeats: u32,
    weight: f32,
    /// One for each segment.
    locations: Vec<Option<Location>>,
    postings: u64,
}

impl Bm25Searcher {
    pub(super) fn new(segments: Vec<Arc<Segment>>, chain: Chain) -> Self {
        let documents = segments.iter().map(|segment| u64::from(segment.documents())).sum();
        let total_length = segments.iter().map(|segment| segment.total_length()).sum();
        Self { segments, chain, documents, total_length }
    }

    /// The terms of the query that some document holds, weighted so that the sum of all fits.
    fn terms(&self, text: &str) -> Result<Vec<Term>, SearchError> {
        let mut repeats: HashMap<String, u32> = HashMap::new();
        let mut order = Vec::new();
        for term in Analyzer::new(self.chain).query(text) {
            let count = repeats.entry(term.term.clone()).or_insert(0);
            if *count == 0 {
                order.push(term.term);
            }
            *count += 1;
        }
        let mut terms = Vec::with_capacity(order.len());
        for term in order {
            let mut locations = Vec::with_capacity(self.segments.len());
            for segment in &self.segments {
                let found = segment.dictionary().find(term.as_bytes());
                locations.push(found.map_err(|_| damaged(segment, "its dictionary is broken"))?);
            }
            let postings: u64 =
                locations.iter().flatten().map(|location| u64::from(location.documents())).sum();
            if postings > 0 {
                let repeats = repeats[&term];
                let weight = repeats as f32 * idf(self.documents, postings);
                terms.push(Term { repeats, weight, locations, postings });
            }
        }
        if terms.len() > QUERY_TERMS_MAX {
            terms.sort_by_key(|term| term.postings);
            terms.truncate(QUERY_TERMS_MAX);
        }
        let sum: f32 = terms.iter().map(|term| term.weight).sum();
        for term in &mut terms {
            term.weight *= SCORE_SUM_MAX / sum;
        }
        Ok(terms)
    }

    fn cursors<'a>(
        &'a self,
        at: usize,
        terms: &[Term],
        norms: &'a Norms,
    ) -> Result<Vec<Cursor<'a>>, SearchError> {
        let segment = &self.segments[at];
        let now = average(self.total_length, self.documents);
        let bounds = Bounds::new(norms, now, segment.average_length());
        let scales = Scales { norms, lengths: segment.lengths(), bounds };
        let broken = || damaged(segment, "a list of postings is broken");
        let mut cursors = Vec::new();
        for term in terms {
            match term.locations[at] {
                None => {}
                Some(Location::Single { document, .. }) if document >= segment.documents() => {
                    return Err(broken());
                }
                Some(Location::Single { document, frequency }) => {
                    cursors.push(Cursor::of_single(document, frequency, term.weight, scales));
                }
                Some(Location::List { documents, offset, bytes }) => {
                    let list = segment.list(documents, offset, bytes).map_err(|_| broken())?;
                    let cursor = Cursor::of_list(list, documents, term.weight, scales);
                    cursors.push(cursor.map_err(|_| broken())?);
                }
            }
        }
        Ok(cursors)
    }

    fn answer(&self, request: &Request<'_>, terms: &[Term]) -> Result<MethodAnswer, SearchError> {
        let postings: u64 = terms.iter().map(|term| term.postings).sum();
        let filter = request.allowed.filter().map(|filter| filter.len());
        let filter_leads = filter.is_some_and(|count| count * FILTER_LEADS < postings);
        let count_all = filter_leads || postings <= TOTAL_EXACT_POSTINGS || request.limit == 0;
        let top = Top::new(request.limit);
        let mut run = Run::new(top, request.allowed, request.stop, count_all);
        let norms = Norms::new(average(self.total_length, self.documents));
        for (at, segment) in self.segments.iter().enumerate() {
            let mut cursors = self.cursors(at, terms, &norms)?;
            if cursors.is_empty() {
                continue;
            }
            let result = if filter_leads {
                run.filtered(segment, &mut cursors, &allowed_in(segment, request))
            } else {
                run.segment(segment, &mut cursors)
            };
            result.map_err(|_| damaged(segment, "a list of postings is broken"))?;
            if run.stopped {
                break;
            }
        }
        let sum: f32 = terms.iter().map(|term| term.weight).sum();
        let unit = terms.iter().map(|term| self.plain_weight(term)).sum::<f32>() / sum.max(1.0);
        let (total, complete, is_exact) = (run.seen, !run.stopped, run.count_all && !run.stopped);
        let hits = run.top.finish().into_iter().map(|(score, number)| Hit {
            number,
            score: score as f32 * unit,
            passage: None,
        });
        Ok(MethodAnswer { hits: hits.collect(), total, total_is_exact: is_exact, complete })
    }

    fn plain_weight(&self, term: &Term) -> f32 {
        term.repeats as f32 * idf(self.documents, term.postings)
    }
}

/// The ordinals of a segment's documents that the filter lets through.
fn allowed_in(segment: &Segment, request: &Request<'_>) -> Vec<u32> {
    let mut ordinals = Vec::new();
    let Some(last) = segment.documents().checked_sub(1) else { return ordinals };
    let (first, last) = (segment.number(0), segment.number(last));
    let numbers = request.allowed.iter().skip_while(|&number| number < first);
    for number in numbers.take_while(|&number| number <= last) {
        let ordinal = segment.ordinal_from(number);
        if ordinal < segment.documents() && segment.number(ordinal) == number {
            ordinals.push(ordinal);
        }
    }
    ordinals
}

fn damaged(segment: &Segment, reason: &str) -> SearchError {
    SearchError::damaged(segment.name(), reason)
}

impl Searcher for Bm25Searcher {
    fn search(&self, request: &Request<'_>) -> Result<MethodAnswer, SearchError> {
        let terms = self.terms(request.text)?;
        if terms.is_empty() {
            return Ok(MethodAnswer { total_is_exact: true, complete: true, ..Default::default() });
        }
        self.answer(request, &terms)
    }
}
