//! [`Bm25Searcher`]: one immutable state of the view, which answers queries.

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
/// The most postings that are read in full for the sake of an exact total: two blocks, which pruning
/// would hardly shorten.
const TOTAL_EXACT_POSTINGS: u64 = 256;
/// A filter leads the search when the query has this many times more postings than it has documents.
const FILTER_LEADS: u64 = 4;

/// One state of the view.
pub struct Bm25Searcher {
    segments: Vec<Arc<Segment>>,
    chain: Chain,
    documents: u64,
    average_length: f32,
    norms: Norms,
}

/// A term of the query, with where it is in every segment.
struct Term {
    /// Without the scale of [`SCORE_SUM_MAX`].
    plain_weight: f32,
    weight: f32,
    postings: u64,
    /// Its place in the locations: one for each segment follows.
    place: usize,
}

/// The terms of a query.
struct Terms {
    terms: Vec<Term>,
    locations: Vec<Option<Location>>,
}

impl Bm25Searcher {
    pub(super) fn new(segments: Vec<Arc<Segment>>, chain: Chain) -> Self {
        let documents = segments.iter().map(|segment| u64::from(segment.documents())).sum();
        let total_length = segments.iter().map(|segment| segment.total_length()).sum();
        let average_length = average(total_length, documents);
        Self { segments, chain, documents, average_length, norms: Norms::new(average_length) }
    }

    /// The terms of the query that some document holds, weighted so that the sum of all fits.
    fn terms(&self, text: &str) -> Result<Terms, SearchError> {
        let mut asked = Analyzer::new(self.chain).query(text);
        asked.sort_unstable_by(|a, b| a.term.cmp(&b.term));
        let mut terms = Vec::with_capacity(asked.len());
        let mut locations = Vec::with_capacity(asked.len() * self.segments.len());
        for same in asked.chunk_by(|a, b| a.term == b.term) {
            let place = locations.len();
            let mut postings = 0;
            for segment in &self.segments {
                let found = segment.dictionary().find(same[0].term.as_bytes());
                let found = found.map_err(|_| damaged(segment, "its dictionary is broken"))?;
                postings += found.map_or(0, |location| u64::from(location.documents()));
                locations.push(found);
            }
            if postings > 0 {
                let plain_weight = same.len() as f32 * idf(self.documents, postings);
                terms.push(Term { plain_weight, weight: 0.0, postings, place });
            }
        }
        if terms.len() > QUERY_TERMS_MAX {
            terms.sort_by_key(|term| term.postings);
            terms.truncate(QUERY_TERMS_MAX);
        }
        terms.sort_by(|a, b| a.plain_weight.total_cmp(&b.plain_weight));
        let sum: f32 = terms.iter().map(|term| term.plain_weight).sum();
        for term in &mut terms {
            term.weight = term.plain_weight * (SCORE_SUM_MAX / sum);
        }
        Ok(Terms { terms, locations })
    }

    fn cursors<'a>(&'a self, at: usize, terms: &Terms) -> Result<Vec<Cursor<'a>>, SearchError> {
        let segment = &self.segments[at];
        let bounds = Bounds::new(&self.norms, self.average_length, segment.average_length());
        let scales = Scales { norms: &self.norms, lengths: segment.lengths(), bounds };
        let broken = || damaged(segment, "a list of postings is broken");
        let mut cursors = Vec::with_capacity(terms.terms.len());
        for term in &terms.terms {
            match terms.locations[term.place + at] {
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

    fn answer(&self, request: &Request<'_>, terms: &Terms) -> Result<MethodAnswer, SearchError> {
        let postings: u64 = terms.terms.iter().map(|term| term.postings).sum();
        let filter = request.allowed.filter().map(|filter| filter.len());
        let filter_leads = filter.is_some_and(|count| count * FILTER_LEADS < postings);
        let count_all = filter_leads || postings <= TOTAL_EXACT_POSTINGS || request.limit == 0;
        let top = Top::new(request.limit);
        let mut run = Run::new(top, request.allowed, request.stop, count_all);
        for (at, segment) in self.segments.iter().enumerate() {
            let mut cursors = self.cursors(at, terms)?;
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
        let sum: f32 = terms.terms.iter().map(|term| term.plain_weight).sum();
        let unit = sum / SCORE_SUM_MAX;
        let (total, complete, is_exact) = (run.seen, !run.stopped, run.count_all && !run.stopped);
        let hits = run.top.finish().into_iter().map(|(score, number)| Hit {
            number,
            score: score as f32 * unit,
            passage: None,
        });
        Ok(MethodAnswer { hits: hits.collect(), total, total_is_exact: is_exact, complete })
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
        if terms.terms.is_empty() {
            return Ok(MethodAnswer { total_is_exact: true, complete: true, ..Default::default() });
        }
        self.answer(request, &terms)
    }
}
