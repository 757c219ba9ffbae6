//! [`Nearest`]: the best rows of one space, by the way that is quickest for each segment.
//!
//! - **direct**: a filter leaves few documents: each of their rows is scored;
//! - **graph**: the segment is large enough to have one, and the filter leaves enough rows for the
//!   walk not to lose its way;
//! - **scan**: everything else: sign bits of all rows, then exact scores of the nearest.
//!
//! `docs/design/vector-index.md` has the measurements behind the constants.

use std::sync::Arc;

use super::graph::{Graph, Landscape, Scored, VisitedSet, descend, walk};
use super::kernels::{self, Kernels};
use super::quantize::Query;
use super::scan::{Kept, Scan};
use super::segment::Segment;
use crate::document::DocNumber;
use crate::request::{Allowed, Stop};

/// A scan scores at least this many rows exactly. Sign bits of vectors whose variance lies in few
/// components, as those of the static table, order near rows poorly: 200 gave a recall@10 of 0.90
/// among 20,000 of them. A row more costs about 30 ns.
const RESCORED_ROWS_MIN: usize = 1000;
/// A scan scores this many rows exactly for each hit that is wanted.
const RESCORED_ROWS_PER_HIT: usize = 20;
/// A scan scores at least one in this many rows exactly, because more rows crowd at each distance;
/// about a quarter of the cost of the scan itself.
const RESCORED_ONE_IN: usize = 64;
/// A scan hands on so many rows for each hit that is wanted, and [`RESCORED_ROWS_MIN`] at least: a
/// hit is a document, and a document has several passages.
const FOUND_ROWS_PER_HIT: usize = 8;
/// A walk keeps at least this many rows.
const BREADTH_MIN: usize = 128;
/// A walk keeps this many rows for each hit that is wanted.
const BREADTH_PER_HIT: usize = 2;
/// Beyond this breadth a walk costs more than the scan of a full segment.
const BREADTH_MAX: usize = 2048;
/// A walk needs at least this share of rows to be accepted; below it, too much of its way leads
/// through rows it may not keep.
const WALK_ACCEPTED_MIN: f32 = 0.5;
/// How many rows are asked to estimate the share of accepted ones.
const SAMPLE_ROWS: usize = 256;
/// When a filter leaves at most this many documents, each is looked up and scored exactly: a quarter
/// of a millisecond at most, and no recall is lost to sign bits.
const DIRECT_DOCUMENTS_MAX: usize = 4096;
/// Rows scored exactly between two looks at the stop flag.
const ROWS_PER_STOP_CHECK: usize = 1024;

/// A row and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) score: f32,
    /// The index of the segment in [`Nearest::segments`].
    pub(crate) segment: u32,
    pub(crate) row: u32,
}

/// What was found in one space.
pub(crate) struct Answer {
    /// In no particular order.
    pub(crate) found: Vec<Found>,
    /// Whether all accepted rows with a vector are among `found`.
    pub(crate) exhausted: bool,
    /// Whether the stop flag did not end the work early.
    pub(crate) complete: bool,
}

/// A question to one space.
pub(crate) struct Nearest<'a, A> {
    pub(crate) segments: &'a [Arc<Segment>],
    pub(crate) query: &'a Query,
    pub(crate) kernels: Kernels,
    pub(crate) allowed: &'a Allowed,
    /// Which rows may be found; implies that `allowed` has their document.
    pub(crate) accept: &'a A,
    pub(crate) threads: usize,
    pub(crate) stop: &'a Stop,
}

impl<A: Fn(DocNumber, u32) -> bool + Sync> Nearest<'_, A> {
    /// The best rows, enough for `hits` documents of one passage each.
    pub(crate) fn best(&self, hits: usize) -> Answer {
        let mut answer = Answer { found: Vec::new(), exhausted: true, complete: true };
        let few = self.few_documents();
        let mut scanned = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let breadth = hits.saturating_mul(BREADTH_PER_HIT).max(BREADTH_MIN);
            match (&few, segment.graph()) {
                (Some(few), _) => self.direct(index, few, &mut answer),
                (None, Some(graph)) if breadth <= BREADTH_MAX && self.is_walkable(segment) => {
                    self.walk(index, graph, breadth, &mut answer);
                }
                _ => scanned.push((index as u32, segment)),
            }
        }
        self.scan(&scanned, hits, &mut answer);
        answer
    }

    /// Every accepted row, scored.
    pub(crate) fn all(&self) -> Answer {
        let mut answer = Answer { found: Vec::new(), exhausted: true, complete: true };
        for (index, segment) in self.segments.iter().enumerate() {
            self.score_rows(index, 0..segment.rows(), &mut answer);
        }
        answer
    }

    /// The exact score of a row; `None` when it has no vector.
    pub(crate) fn score(&self, segment: &Segment, row: usize) -> Option<f32> {
        let scale = segment.scale(row);
        (scale > 0.0).then(|| {
            let dot = self.kernels.dot(&self.query.components, segment.components(row));
            dot as f32 * self.query.scale * scale
        })
    }

    fn accepts(&self, segment: &Segment, row: usize) -> bool {
        (self.accept)(segment.number(row), segment.passage(row))
            && (segment.is_dense() || segment.scale(row) > 0.0)
    }

    /// The allowed documents, when there is a filter and it leaves few.
    fn few_documents(&self) -> Option<Vec<DocNumber>> {
        self.allowed.filter()?;
        let few: Vec<_> = self.allowed.iter().take(DIRECT_DOCUMENTS_MAX + 1).collect();
        (few.len() <= DIRECT_DOCUMENTS_MAX).then_some(few)
    }

    fn direct(&self, index: usize, few: &[DocNumber], answer: &mut Answer) {
        let segment = &self.segments[index];
        let Some((low, high)) = segment.bounds() else { return };
        let mut from = 0;
        let within = few.partition_point(|&n| n < low)..few.partition_point(|&n| n <= high);
        for &number in &few[within] {
            from = segment.first_row_from(number, from);
            let mut end = from;
            while end < segment.rows() && segment.number(end) == number {
                end += 1;
            }
            self.score_rows(index, from..end, answer);
            from = end;
        }
    }

    fn score_rows(&self, index: usize, rows: std::ops::Range<usize>, answer: &mut Answer) {
        let segment = &self.segments[index];
        for row in rows {
            if row.is_multiple_of(ROWS_PER_STOP_CHECK) && self.stop.is_set() {
                answer.complete = false;
                return;
            }
            if !(self.accept)(segment.number(row), segment.passage(row)) {
                continue;
            }
            if let Some(score) = self.score(segment, row) {
                answer.found.push(Found { score, segment: index as u32, row: row as u32 });
            }
        }
    }

    fn is_walkable(&self, segment: &Segment) -> bool {
        let accepted = sample(segment.rows()).filter(|&row| self.accepts(segment, row)).count();
        accepted as f32 >= SAMPLE_ROWS as f32 * WALK_ACCEPTED_MIN
    }

    fn walk(&self, index: usize, graph: &Graph, breadth: usize, answer: &mut Answer) {
        let segment = &*self.segments[index];
        let seen = Seen { nearest: self, segment, graph };
        let entry = graph.entry();
        let mut from = Scored { score: seen.score(entry), row: entry };
        for level in (1..=graph.levels()).rev() {
            from = descend(&seen, from, level);
        }
        let mut visited = VisitedSet::new(breadth * 16);
        let accept = |row| self.accepts(segment, row as usize);
        let stop = || self.stop.is_set();
        let walked = walk(&seen, &mut visited, &[from], 0, breadth, accept, stop);
        answer.complete &= walked.complete;
        answer.exhausted = false;
        answer.found.extend(walked.found.into_iter().map(|Scored { score, row }| Found {
            score,
            segment: index as u32,
            row,
        }));
    }

    fn scan(&self, segments: &[(u32, &Arc<Segment>)], hits: usize, answer: &mut Answer) {
        let rows: usize = segments.iter().map(|(_, segment)| segment.rows()).sum();
        let wanted = hits
            .saturating_mul(RESCORED_ROWS_PER_HIT)
            .max(RESCORED_ROWS_MIN)
            .max(rows / RESCORED_ONE_IN);
        if rows <= wanted {
            for &(index, segment) in segments {
                self.score_rows(index as usize, 0..segment.rows(), answer);
            }
            return;
        }
        let (kept, complete) = Scan {
            segments,
            query: self.query,
            kernels: self.kernels,
            keep: wanted,
            accept: &|segment: &Segment, row| self.accepts(segment, row),
            threads: self.threads,
            stop: self.stop,
        }
        .run();
        answer.complete &= complete;
        answer.exhausted &= kept.len() < wanted;
        for &Kept { segment, row, .. } in &kept {
            kernels::prefetch(self.segments[segment as usize].components(row as usize));
        }
        let scored = kept.into_iter().filter_map(|Kept { segment, row, .. }| {
            let score = self.score(&self.segments[segment as usize], row as usize)?;
            Some(Found { score, segment, row })
        });
        let mut scored: Vec<_> = scored.collect();
        let most = hits.saturating_mul(FOUND_ROWS_PER_HIT).max(RESCORED_ROWS_MIN);
        if scored.len() > most {
            let order = |a: &Found, b: &Found| {
                b.score.total_cmp(&a.score).then((a.segment, a.row).cmp(&(b.segment, b.row)))
            };
            scored.select_nth_unstable_by(most - 1, order);
            scored.truncate(most);
            answer.exhausted = false;
        }
        answer.found.extend(scored);
    }
}

/// [`SAMPLE_ROWS`] rows spread over a segment that is not empty, some twice when it is small. Not at
/// even distances: a filter that accepts every tenth document would accept all of them, or none.
fn sample(rows: usize) -> impl Iterator<Item = usize> {
    // Multiples of the golden ratio, without their whole part, fill 0..1 most evenly.
    let spread = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (1..=SAMPLE_ROWS as u64).map(move |i| ((u128::from(spread(i)) * rows as u128) >> 64) as usize)
}

/// A segment seen from a question.
struct Seen<'a, A> {
    nearest: &'a Nearest<'a, A>,
    segment: &'a Segment,
    graph: &'a Graph,
}

impl<A: Fn(DocNumber, u32) -> bool + Sync> Landscape for Seen<'_, A> {
    #[inline]
    fn score(&self, row: u32) -> f32 {
        self.nearest.score(self.segment, row as usize).unwrap_or(f32::MIN)
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        kernels::prefetch(self.segment.components(row as usize));
    }

    fn links(&self, row: u32, level: usize, links: &mut Vec<u32>) {
        self.graph.links(row, level, self.segment.rows(), links);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_in_step_with_the_rows_is_not_mistaken_for_one_that_accepts_most() {
        for rows in [SAMPLE_ROWS, 25_600, 100_000, 1_000_000] {
            assert!(sample(rows).all(|row| row < rows));
            for step in 3..1000 {
                for first in [0, 1] {
                    let accepted = sample(rows).filter(|row| row % step == first).count();
                    let share = accepted as f32 / SAMPLE_ROWS as f32;
                    assert!(share < WALK_ACCEPTED_MIN, "{rows} rows, every {step}th: {share}");
                }
            }
        }
    }
}
