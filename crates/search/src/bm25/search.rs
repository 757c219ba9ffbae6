//! The search through one segment: MaxScore over windows, with the bounds of blocks.
//!
//! Terms are cut into two groups: those that together cannot lift a document over the threshold (the
//! non-essential ones), and the rest. Only documents of essential terms are looked at; the others are
//! asked for their share while it can still decide (Turtle and Flood, "Query evaluation: strategies and
//! optimizations", 1995). The cut is made anew for each window of documents from the bounds of the
//! blocks that lie in it (Ding and Suel, "Faster top-k document retrieval using block-max indexes", 2011).
//! With several essential terms their scores are added up window by window in an array, which has no
//! branches that depend on the data (as Lucene's `MaxScoreBulkScorer` does).

use super::cursor::{Cursor, END};
use super::list::ListDamage;
use super::segment::Segment;
use super::top::Top;
use crate::request::{Allowed, Stop};

/// The documents of the greatest window: scores of a window take 16 KiB and stay in the first cache.
const WINDOW: u32 = 4096;
/// The least window with several essential terms, so that its costs are spread over enough documents.
const WINDOW_MIN: u32 = 1024;

/// What happens during the search of all segments.
pub(super) struct Run<'r> {
    pub(super) top: Top,
    pub(super) allowed: &'r Allowed,
    pub(super) stop: &'r Stop,
    /// Allowed documents that were seen to match.
    pub(super) seen: u64,
    /// Whether every matching document is looked at, for an exact total.
    pub(super) count_all: bool,
    /// Whether [`Run::stop`] ended the search.
    pub(super) stopped: bool,
    /// Made when the first window with several essential terms needs it.
    scores: Option<Box<Window>>,
}

/// The scores of the documents of one window, all 0 between windows.
struct Window {
    scores: [u32; WINDOW as usize],
    /// A bit for each document that has a score.
    marks: [u64; WINDOW as usize / 64],
}

impl<'r> Run<'r> {
    pub(super) fn new(top: Top, allowed: &'r Allowed, stop: &'r Stop, count_all: bool) -> Self {
        Self { top, allowed, stop, seen: 0, count_all, stopped: false, scores: None }
    }

    /// The score that a document must pass to matter.
    #[inline]
    fn threshold(&self) -> u32 {
        if self.count_all { 0 } else { self.top.threshold() }
    }

    #[inline]
    fn offer(&mut self, segment: &Segment, document: u32, score: u32) {
        let number = segment.number(document);
        if self.allowed.contains(number) {
            self.seen += 1;
            if score > self.top.threshold() {
                self.top.push(score, number);
            }
        }
    }

    /// Searches one segment. Segments come in rising order of their document numbers, cursors in rising
    /// order of what they may add: the answer does not depend on it, but how much is passed over does.
    pub(super) fn segment(
        &mut self,
        segment: &Segment,
        cursors: &mut [Cursor<'_>],
    ) -> Result<(), ListDamage> {
        let mut low = 0;
        let documents = segment.documents();
        let mut order = Vec::with_capacity(cursors.len());
        while low < documents {
            if self.stop.is_set() {
                self.stopped = true;
                return Ok(());
            }
            let Some((from, high)) = self.window(cursors, low, documents) else { return Ok(()) };
            self.within(segment, cursors, from, high, &mut order)?;
            low = high;
        }
        Ok(())
    }

    /// The next window at or behind `low` in which something could pass the threshold; `None` when
    /// there is none.
    fn window(&self, cursors: &mut [Cursor<'_>], low: u32, documents: u32) -> Option<(u32, u32)> {
        let threshold = self.threshold();
        let (mut sum, mut essential, mut end, mut leader) = (0, 0, END, 0);
        for (at, cursor) in cursors.iter_mut().enumerate() {
            if cursor.is_at_end() {
                continue;
            }
            sum += cursor.list_bound;
            if sum > threshold {
                cursor.skip(low);
                if !cursor.is_at_end() {
                    essential += 1;
                    end = end.min(cursor.block_end());
                    leader = at;
                }
            }
        }
        let (mut from, mut high) = (low, end.saturating_add(1));
        if essential == 0 {
            return None;
        } else if essential == 1 {
            let others: u32 = cursors[..leader].iter().map(|cursor| cursor.list_bound).sum();
            from = cursors[leader].skip_blocks(threshold.saturating_sub(others)).max(low);
            if cursors[leader].is_at_end() {
                return None;
            }
            high = cursors[leader].block_end().saturating_add(1);
        } else {
            high = high.clamp(low.saturating_add(WINDOW_MIN), low.saturating_add(WINDOW));
        }
        Some((from, high.min(documents)))
    }

    /// Searches the documents from `low` to before `high`.
    fn within(
        &mut self,
        segment: &Segment,
        cursors: &mut [Cursor<'_>],
        low: u32,
        high: u32,
        order: &mut Vec<(u32, usize)>,
    ) -> Result<(), ListDamage> {
        order.clear();
        for (at, cursor) in cursors.iter_mut().enumerate() {
            let bound = cursor.bound_within(low, high);
            if bound > 0 {
                order.push((bound, at));
            }
        }
        let threshold = self.threshold();
        if order.iter().map(|(bound, _)| bound).sum::<u32>() <= threshold {
            return Ok(());
        }
        order.sort_unstable();
        // From here on: each term with the sum of the bounds up to and including its own.
        let mut sum = 0;
        for (bound, _) in order.iter_mut() {
            sum += *bound;
            *bound = sum;
        }
        let essential = order.partition_point(|&(sum, _)| sum <= threshold);
        if order.len() - essential == 1 {
            return self.one_essential(segment, cursors, low, high, order);
        }
        self.several_essential(segment, cursors, (low, high), order, essential)
    }

    fn one_essential(
        &mut self,
        segment: &Segment,
        cursors: &mut [Cursor<'_>],
        low: u32,
        high: u32,
        order: &[(u32, usize)],
    ) -> Result<(), ListDamage> {
        let Some((&(_, leader), others)) = order.split_last() else { return Ok(()) };
        let rest = others.last().map_or(0, |&(sum, _)| sum);
        // The leader is taken out while it runs beside the others.
        let (before, after) = cursors.split_at_mut(leader);
        let Some((lead, after)) = after.split_first_mut() else { return Ok(()) };
        lead.scores_within(low, high, &mut |document, mut score| {
            if score + rest <= self.threshold() {
                return Ok(());
            }
            for &(sum, at) in others.iter().rev() {
                if score + sum <= self.threshold() {
                    return Ok(());
                }
                let other = if at < leader { &mut before[at] } else { &mut after[at - leader - 1] };
                score += other.score_of(document)?.unwrap_or(0);
            }
            if score > self.threshold() {
                self.offer(segment, document, score);
            }
            Ok(())
        })
    }

    fn several_essential(
        &mut self,
        segment: &Segment,
        cursors: &mut [Cursor<'_>],
        (low, high): (u32, u32),
        order: &[(u32, usize)],
        essential: usize,
    ) -> Result<(), ListDamage> {
        let (others, leaders) = order.split_at(essential);
        let rest = others.last().map_or(0, |&(sum, _)| sum);
        let mut window = self.scores.take().unwrap_or_else(|| {
            Box::new(Window { scores: [0; WINDOW as usize], marks: [0; WINDOW as usize / 64] })
        });
        let Window { scores, marks } = window.as_mut();
        for &(_, at) in leaders {
            cursors[at].scores_within(low, high, &mut |document, score| {
                let offset = (document - low) as usize % WINDOW as usize;
                scores[offset] += score;
                marks[offset / 64] |= 1 << (offset % 64);
                Ok(())
            })?;
        }
        for (word, marks) in marks[..(high - low).div_ceil(64) as usize].iter_mut().enumerate() {
            let mut left = std::mem::take(marks);
            while left != 0 {
                let offset = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                let score = std::mem::take(&mut scores[offset]);
                if score + rest > self.threshold() {
                    let document = low + offset as u32;
                    self.finish_score(segment, cursors, document, score, others)?;
                }
            }
        }
        self.scores = Some(window);
        Ok(())
    }

    /// Adds what non-essential terms give to a document, as long as it can still pass.
    fn finish_score(
        &mut self,
        segment: &Segment,
        cursors: &mut [Cursor<'_>],
        document: u32,
        mut score: u32,
        others: &[(u32, usize)],
    ) -> Result<(), ListDamage> {
        for &(sum, at) in others.iter().rev() {
            if score + sum <= self.threshold() {
                return Ok(());
            }
            score += cursors[at].score_of(document)?.unwrap_or(0);
        }
        if score > self.threshold() {
            self.offer(segment, document, score);
        }
        Ok(())
    }

    /// Looks only at the documents of a filter: `documents`, rising ordinals of the segment.
    pub(super) fn filtered(
        &mut self,
        segment: &Segment,
        cursors: &mut [Cursor<'_>],
        documents: &[u32],
    ) -> Result<(), ListDamage> {
        for (step, &document) in documents.iter().enumerate() {
            if step.is_multiple_of(256) && self.stop.is_set() {
                self.stopped = true;
                return Ok(());
            }
            let mut score = 0;
            for cursor in cursors.iter_mut() {
                score += cursor.score_of(document)?.unwrap_or(0);
            }
            if score > 0 {
                self.offer(segment, document, score);
            }
        }
        Ok(())
    }
}
