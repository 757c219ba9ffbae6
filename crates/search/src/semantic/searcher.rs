//! [`SemanticSearcher`]: an immutable state of the view that answers questions.
//!
//! Which spaces are asked:
//!
//! - refinement is complete for all documents the request allows: the refining space alone;
//! - it is partial: both. Passages with a refined vector compete by it; the others by their instant
//!   score, brought onto the refined scale by a [`Calibration`] made for this query. So no document
//!   vanishes because others were refined before it;
//! - the request has no vector of the refining space (its model is down): the instant space alone.
//!
//! A document scores as its best passage does, and its hit carries that passage's range.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::calibration::Calibration;
use super::kernels::Kernels;
use super::nearest::{Answer, Found, Nearest};
use super::quantize::{Query, VectorError};
use super::refinement::Pending;
use super::segment::Segment;
use super::space::{INSTANT, REFINING, Spaces};
use super::tier::find;
use crate::document::DocNumber;
use crate::request::{Hit, MethodAnswer, Request, SearchError};
use crate::view::Searcher;

/// The best refined passages whose instant scores are looked up for a calibration.
const BEST_PAIRS: usize = 64;
/// Other refined passages, evenly chosen, for the same.
const SAMPLED_PAIRS: usize = 192;
/// When too few documents stand among the rows found, this many times more rows are asked for.
const WIDER: usize = 8;
/// Rows that are put in order for each hit, before it is known how many share a document.
const ORDERED_PER_HIT: usize = 4;

/// A question that the vectors in a request cannot answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryVectorError {
    /// There is none for a space of this collection.
    Missing {
        /// The spaces there are.
        spaces: Spaces,
    },
    /// One is not fit for its space.
    Unfit {
        /// The index of the space.
        space: usize,
        /// What is wrong.
        error: VectorError,
    },
}

impl fmt::Display for QueryVectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { spaces } => {
                write!(f, "the query has no vector; embed it with {spaces}")
            }
            Self::Unfit { space, error } => write!(f, "query for space {space}: {error}"),
        }
    }
}

impl std::error::Error for QueryVectorError {}

/// What readers hold.
pub struct SemanticSearcher {
    pub(crate) spaces: Spaces,
    pub(crate) tiers: [Vec<Arc<Segment>>; 2],
    pub(crate) pending: Pending,
    pub(crate) kernels: Kernels,
}

/// A passage with its final score.
struct Ranked<'a> {
    score: f32,
    segment: &'a Segment,
    row: usize,
}

/// Passages of one round, and whether there are more.
struct Round<'a> {
    ranked: Vec<Ranked<'a>>,
    exhausted: bool,
    complete: bool,
}

impl Searcher for SemanticSearcher {
    fn search(&self, request: &Request<'_>) -> Result<MethodAnswer, SearchError> {
        self.answer(request, false)
    }
}

impl SemanticSearcher {
    /// As [`Searcher::search`], with every allowed passage scored: no graph, no sign bits. A server
    /// compares the two in idle time to know the recall it gives.
    pub fn exact(&self, request: &Request<'_>) -> Result<MethodAnswer, SearchError> {
        self.answer(request, true)
    }

    fn answer(&self, request: &Request<'_>, exact: bool) -> Result<MethodAnswer, SearchError> {
        let queries = self.queries(request)?;
        let most: usize = self.tiers.iter().flatten().map(|segment| segment.rows()).sum();
        let mut wanted = request.limit.max(1);
        loop {
            let round = self.round(request, &queries, wanted, exact);
            let hits = documents(round.ranked, request.limit);
            let enough = hits.len() >= request.limit || round.exhausted || wanted >= most;
            if enough || !round.complete {
                let total = hits.len() as u64;
                let complete = round.complete;
                return Ok(MethodAnswer { hits, total, total_is_exact: false, complete });
            }
            wanted = wanted.saturating_mul(WIDER);
        }
    }

    /// The request's vectors, quantised, by space. A zero vector asks nothing of its space.
    fn queries(&self, request: &Request<'_>) -> Result<[Option<Query>; 2], SearchError> {
        let mut queries = [None, None];
        let mut given = false;
        for asked in request.vectors {
            let Some(Some(space)) = self.spaces.each().get(asked.space).copied() else { continue };
            given = true;
            match Query::new(&asked.vector, space.dimension) {
                Ok(query) => queries[asked.space] = Some(query),
                Err(VectorError::ZeroLength) => {}
                Err(error) => {
                    let error = QueryVectorError::Unfit { space: asked.space, error };
                    return Err(SearchError::Failed(Box::new(error)));
                }
            }
        }
        if given {
            return Ok(queries);
        }
        let spaces = self.spaces.clone();
        Err(SearchError::Failed(Box::new(QueryVectorError::Missing { spaces })))
    }

    fn round(
        &self,
        request: &Request<'_>,
        queries: &[Option<Query>; 2],
        wanted: usize,
        exact: bool,
    ) -> Round<'_> {
        let allowed = |number, _| request.allowed.contains(number);
        let waiting =
            |number, passage| allowed(number, passage) && self.pending.waits(number, passage);
        match queries {
            [None, None] => Round { ranked: Vec::new(), exhausted: true, complete: true },
            [Some(instant), None] => {
                let found = self.best(INSTANT, instant, request, &allowed, wanted, exact);
                self.ranked(INSTANT, found, |score| score)
            }
            [instant, Some(refining)] => {
                let found = self.best(REFINING, refining, request, &allowed, wanted, exact);
                let partial =
                    self.pending.documents().any(|number| request.allowed.contains(number));
                let Some(instant) = instant.as_ref().filter(|_| partial) else {
                    return self.ranked(REFINING, found, |score| score);
                };
                let calibration = self.calibrate(instant, refining, request, &found.found);
                let unrefined = self.best(INSTANT, instant, request, &waiting, wanted, exact);
                let mut round = self.ranked(REFINING, found, |score| score);
                let other = self.ranked(INSTANT, unrefined, |score| calibration.refined(score));
                round.ranked.extend(other.ranked);
                round.exhausted &= other.exhausted;
                round.complete &= other.complete;
                round
            }
        }
    }

    fn best<A: Fn(DocNumber, u32) -> bool + Sync>(
        &self,
        space: usize,
        query: &Query,
        request: &Request<'_>,
        accept: &A,
        wanted: usize,
        exact: bool,
    ) -> Answer {
        let nearest = self.nearest(space, query, request, accept);
        if exact { nearest.all() } else { nearest.best(wanted) }
    }

    fn nearest<'a, A>(
        &'a self,
        space: usize,
        query: &'a Query,
        request: &'a Request<'_>,
        accept: &'a A,
    ) -> Nearest<'a, A> {
        Nearest {
            segments: &self.tiers[space],
            query,
            kernels: self.kernels,
            allowed: request.allowed,
            accept,
            threads: request.threads,
            stop: request.stop,
        }
    }

    fn ranked(&self, space: usize, answer: Answer, scale: impl Fn(f32) -> f32) -> Round<'_> {
        let segments = &self.tiers[space];
        let ranked = answer.found.into_iter().map(|Found { score, segment, row }| Ranked {
            score: scale(score),
            segment: &segments[segment as usize],
            row: row as usize,
        });
        let Answer { exhausted, complete, .. } = answer;
        Round { ranked: ranked.collect(), exhausted, complete }
    }

    /// Pairs of scores of passages that have both: the best of `found`, and an even sample.
    fn calibrate(
        &self,
        instant: &Query,
        refining: &Query,
        request: &Request<'_>,
        found: &[Found],
    ) -> Calibration {
        let any = |_, _| true;
        let refined = self.nearest(REFINING, refining, request, &any);
        let first = self.nearest(INSTANT, instant, request, &any);
        let mut best: Vec<_> = found.to_vec();
        best.sort_unstable_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            by_score.then_with(|| (a.segment, a.row).cmp(&(b.segment, b.row)))
        });
        best.truncate(BEST_PAIRS);
        let rows: usize = self.tiers[REFINING].iter().map(|segment| segment.rows()).sum();
        let step = (rows / SAMPLED_PAIRS).max(1);
        let mut sampled = Vec::new();
        let mut next = step / 2;
        for segment in &self.tiers[REFINING] {
            while next < segment.rows() {
                sampled.push((&**segment, next));
                next += step;
            }
            next -= segment.rows();
        }
        let best =
            best.iter().map(|at| (&*self.tiers[REFINING][at.segment as usize], at.row as usize));
        let pairs: Vec<_> = best
            .chain(sampled)
            .filter_map(|(segment, row)| {
                let (number, passage) = (segment.number(row), segment.passage(row));
                let (other, at) = find(self.tiers[INSTANT].iter(), number, passage)?;
                Some((first.score(other, at)?, refined.score(segment, row)?))
            })
            .collect();
        Calibration::fit(&pairs)
    }
}

/// The best passage of each document, the best documents first. A scan hands over a thousand rows
/// and more, so they are put in order only as far as the hits need it.
fn documents(mut ranked: Vec<Ranked<'_>>, limit: usize) -> Vec<Hit> {
    // Equal passages of a document: the first one.
    let order = |a: &Ranked<'_>, b: &Ranked<'_>| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then_with(|| (a.number(), a.passage()).cmp(&(b.number(), b.passage())))
    };
    let mut wanted = limit.saturating_mul(ORDERED_PER_HIT);
    loop {
        let ordered = wanted.min(ranked.len());
        if ordered < ranked.len() {
            ranked.select_nth_unstable_by(ordered, order);
        }
        ranked[..ordered].sort_unstable_by(order);
        let mut seen = HashSet::with_capacity(limit.min(ordered));
        let first = ranked[..ordered].iter().filter(|at| seen.insert(at.number()));
        let hits: Vec<_> = first.take(limit).map(Ranked::hit).collect();
        if hits.len() == limit || ordered == ranked.len() {
            return hits;
        }
        wanted = wanted.saturating_mul(WIDER);
    }
}

impl Ranked<'_> {
    fn number(&self) -> DocNumber {
        self.segment.number(self.row)
    }

    fn passage(&self) -> u32 {
        self.segment.passage(self.row)
    }

    fn hit(&self) -> Hit {
        let passage = Some(self.segment.range(self.row));
        Hit { number: self.number(), score: self.score, passage }
    }
}
