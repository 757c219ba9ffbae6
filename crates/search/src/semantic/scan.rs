//! [`Scan`]: every sign bit of some segments compared with the query, the nearest rows kept.
//!
//! 48 bytes of a row of 384 dimensions are read instead of 384, in the order they lie in memory. The
//! rows kept are exactly the first `keep` by (distance, segment, row), however many threads share
//! the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::kernels::{BLOCK_ROWS, Kernels, Near, block_bytes};
use super::quantize::Query;
use super::segment::Segment;
use crate::request::Stop;

/// Rows that are compared between two looks at the stop flag and at the bound: 48 KiB of signs.
const ROWS_PER_PART: usize = 1024;
/// Rows that one thread takes at once.
const ROWS_PER_TASK: usize = 1 << 16;
/// A thread more pays from this many rows on: 2 ms of scanning, against the 50 µs that starting a
/// thread takes.
const ROWS_PER_THREAD_MIN: usize = 400_000;
/// Rows that are compared first, to guess how near a row must be to be kept.
const SAMPLE_ROWS: usize = 1024;
/// They lie together in runs of so many, because a block is compared at once. Passages of one document lie
/// together too, so that longer runs would tell less.
const SAMPLE_RUN_ROWS: usize = 2 * BLOCK_ROWS;
/// With fewer rows the guess costs as much as it saves.
const SAMPLED_FROM_ROWS: usize = 8 * SAMPLE_ROWS;
/// How many standard deviations the guess leaves to spare: of rows in no order, one scan in a thousand is
/// made twice.
const SPARE_DEVIATIONS: f64 = 3.0;

/// A row that the scan kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kept {
    pub(crate) distance: u32,
    pub(crate) segment: u32,
    pub(crate) row: u32,
}

/// A scan to be made.
pub(crate) struct Scan<'a, A> {
    /// The segments with their numbers for [`Kept::segment`], rising.
    pub(crate) segments: &'a [(u32, &'a Arc<Segment>)],
    pub(crate) query: &'a Query,
    pub(crate) kernels: Kernels,
    /// How many rows to keep, at least 1.
    pub(crate) keep: usize,
    /// Which rows may be kept. Asked for rows that are near enough, and for those that are compared first.
    pub(crate) accept: &'a A,
    pub(crate) threads: usize,
    pub(crate) stop: &'a Stop,
}

impl<A: Fn(&Segment, usize) -> bool + Sync> Scan<'_, A> {
    /// The kept rows, in no particular order, and whether all was scanned.
    pub(crate) fn run(&self) -> (Vec<Kept>, bool) {
        let dimensions = self.segments.iter().map(|(_, segment)| segment.dimension());
        let all = dimensions.max().unwrap_or(0) as u32 + 1;
        let (guess, keep) = (self.guess(all), self.keep.max(1));
        let (mut kept, mut complete) = self.nearer_than(guess);
        if complete && kept.len() < keep && guess < all {
            // The rows that were compared first are nearer than most. Should there be no time to look at
            // all, the nearest are found already.
            let (more, was_all) = self.nearer_than(all);
            complete = was_all;
            kept = if was_all { more } else { kept };
        }
        (nearest(kept, keep), complete)
    }

    fn rows(&self) -> usize {
        self.segments.iter().map(|(_, segment)| segment.rows()).sum()
    }

    /// A distance below which there should be as many rows as are kept, and few more: by rows here and
    /// there. Otherwise the first thousands are taken for near, looked up, and thrown out again.
    fn guess(&self, all: u32) -> u32 {
        let rows = self.rows();
        let expected = self.keep.max(1) as f64 * SAMPLE_ROWS as f64 / rows.max(1) as f64;
        let wanted = expected + SPARE_DEVIATIONS * expected.sqrt();
        if rows < SAMPLED_FROM_ROWS || wanted > SAMPLE_ROWS as f64 / 2.0 {
            return all;
        }
        let mut counts = vec![0u32; all as usize];
        let mut near = Vec::with_capacity(SAMPLE_RUN_ROWS);
        let runs = SAMPLE_ROWS / SAMPLE_RUN_ROWS;
        for run in 0..runs {
            let (segment, first) = self.at(run * rows / runs);
            let block = block_bytes(segment.dimension());
            let blocks = first / BLOCK_ROWS..(first + SAMPLE_RUN_ROWS) / BLOCK_ROWS;
            let end = (blocks.end * block).min(segment.signs().len());
            near.clear();
            let signs = &segment.signs()[blocks.start * block..end];
            self.kernels.near(&self.query.signs, signs, all, &mut near);
            for &Near { distance, row } in &near {
                let row = blocks.start * BLOCK_ROWS + row as usize;
                if row < segment.rows() && (self.accept)(segment, row) {
                    counts[distance as usize] += 1;
                }
            }
        }
        let mut nearer = 0;
        let reached = counts.iter().position(|count| {
            nearer += count;
            f64::from(nearer) >= wanted
        });
        reached.map_or(all, |distance| distance as u32 + 1)
    }

    /// The segment of a row that is counted over all segments, and its place there.
    fn at(&self, mut row: usize) -> (&Segment, usize) {
        let mut segments = self.segments.iter().map(|(_, segment)| &***segment);
        let found = segments.find(|segment| {
            let is_here = row < segment.rows();
            row -= if is_here { 0 } else { segment.rows() };
            is_here
        });
        found.map_or((self.segments[0].1, 0), |segment| (segment, row))
    }

    /// Rows nearer than `bound`, the first `keep` at least if there are as many, and whether all was
    /// scanned.
    fn nearer_than(&self, bound: u32) -> (Vec<Kept>, bool) {
        let tasks = self.tasks();
        let threads = self.threads.min(self.rows() / ROWS_PER_THREAD_MIN).min(tasks.len()).max(1);
        let next = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        let work = || {
            let mut keeper = Keeper::new(self.keep, bound);
            while let Some(&(segment, first)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !self.scan_task(segment, first, &mut keeper) {
                    stopped.store(true, Ordering::Relaxed);
                    break;
                }
            }
            keeper
        };
        let keeper = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            let mut keeper = work();
            for other in others {
                match other.join() {
                    Ok(other) => keeper.kept.extend(other.kept),
                    Err(_) => stopped.store(true, Ordering::Relaxed),
                }
            }
            keeper
        });
        (keeper.kept, !stopped.into_inner())
    }

    /// (index of the segment, first row) of each piece of work.
    fn tasks(&self) -> Vec<(usize, usize)> {
        let each = self.segments.iter().enumerate();
        each.flat_map(|(index, (_, segment))| {
            (0..segment.rows()).step_by(ROWS_PER_TASK).map(move |first| (index, first))
        })
        .collect()
    }

    fn scan_task(&self, index: usize, first: usize, keeper: &mut Keeper) -> bool {
        let (number, segment) = self.segments[index];
        let block = block_bytes(segment.dimension());
        let end = segment.rows().min(first + ROWS_PER_TASK);
        let mut near = Vec::with_capacity(ROWS_PER_PART);
        for part in (first..end).step_by(ROWS_PER_PART) {
            if self.stop.is_set() {
                return false;
            }
            let rows = part..(part + ROWS_PER_PART).min(end.next_multiple_of(BLOCK_ROWS));
            let blocks = rows.start / BLOCK_ROWS * block..rows.end / BLOCK_ROWS * block;
            near.clear();
            let signs = &segment.signs()[blocks];
            self.kernels.near(&self.query.signs, signs, keeper.bound(), &mut near);
            for &Near { distance, row } in &near {
                let row = part + row as usize;
                // The bound may have fallen since the kernel looked.
                if row < end && distance < keeper.bound() && (self.accept)(segment, row) {
                    keeper.push(Kept { distance, segment: number, row: row as u32 });
                }
            }
            keeper.shrink_when_full();
        }
        true
    }
}

/// The nearest rows so far. Distances are few whole numbers, so counting them gives the bound
/// without sorting. Rows come in rising order, so one that is no nearer than `keep` others is behind
/// them. Never holds more than twice `keep` and one part of rows.
struct Keeper {
    keep: usize,
    kept: Vec<Kept>,
    /// How many kept rows there are at each distance.
    counts: Vec<u32>,
    /// Rows farther than this are behind `keep` others.
    worst: u32,
    /// How many kept rows are at most that far.
    held: usize,
}

impl Keeper {
    /// Takes rows nearer than `bound`, which is at least 1.
    fn new(keep: usize, bound: u32) -> Self {
        let counts = vec![0; bound as usize];
        let keep = keep.max(1);
        // As many as are ever held, unless a caller wants more than there will be.
        let kept = Vec::with_capacity(keep.saturating_mul(2).min(ROWS_PER_TASK) + ROWS_PER_PART);
        Self { keep, kept, counts, worst: bound.saturating_sub(1), held: 0 }
    }

    /// Further rows at this distance or farther are behind `keep` others already.
    fn bound(&self) -> u32 {
        self.worst + u32::from(self.held < self.keep)
    }

    /// Takes a row nearer than [`Keeper::bound`].
    fn push(&mut self, kept: Kept) {
        self.counts[kept.distance as usize] += 1;
        self.held += 1;
        self.kept.push(kept);
        while self.held - self.counts[self.worst as usize] as usize >= self.keep {
            self.held -= self.counts[self.worst as usize] as usize;
            self.worst -= 1;
        }
    }

    /// Gives back the room of rows that fell behind.
    fn shrink_when_full(&mut self) {
        if self.kept.len() >= self.keep.saturating_mul(2).saturating_add(ROWS_PER_PART) {
            self.kept.retain(|kept| kept.distance <= self.worst);
        }
    }
}

/// The first `keep`, in no particular order.
fn nearest(mut kept: Vec<Kept>, keep: usize) -> Vec<Kept> {
    if kept.len() > keep {
        kept.select_nth_unstable(keep - 1);
        kept.truncate(keep);
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::quantize::quantize_row;
    use super::super::segment::Row;
    use super::super::segment_writer::{Gathered, write_segment};
    use super::*;
    use crate::document::DocNumber;

    const DIMENSION: usize = 64;

    /// The same for the same state.
    fn vector(state: &mut u64) -> Vec<f32> {
        let mut next = || {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..DIMENSION).map(|_| next()).collect()
    }

    fn segment(first: DocNumber, vectors: &[Vec<f32>]) -> Arc<Segment> {
        let mut gathered = Gathered::new(DIMENSION);
        for (number, vector) in (first..).zip(vectors) {
            let mut components = Vec::new();
            let scale = quantize_row(vector, DIMENSION, &mut components).unwrap();
            let components = &components;
            gathered.push(Row { number, passage: 0, start: 0, end: 0, scale, components });
        }
        let mut bytes = Vec::new();
        write_segment(&gathered, DIMENSION, false, &Stop::new(), &mut bytes).unwrap();
        Arc::new(Segment::open("test", &Bytes::from(bytes)).unwrap())
    }

    /// Every accepted row by (distance, segment, row), from the definition.
    fn oracle(
        segments: &[Arc<Segment>],
        query: &Query,
        accept: &dyn Fn(usize) -> bool,
    ) -> Vec<Kept> {
        let mut all = Vec::new();
        for (segment, rows) in segments.iter().enumerate() {
            for row in (0..rows.rows()).filter(|row| accept(*row)) {
                let components = rows.components(row).iter().zip(&query.components);
                let distance =
                    components.filter(|(a, b)| (a.cast_signed() < 0) != (**b < 0)).count();
                all.push(Kept {
                    distance: distance as u32,
                    segment: segment as u32,
                    row: row as u32,
                });
            }
        }
        all.sort_unstable();
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn the_rows_kept_are_the_first_by_distance_segment_and_row(
            seed in any::<u64>(),
            rows in prop::collection::vec(1..9_000usize, 1..4),
            keep in prop_oneof![1..50usize, 500..3_000usize],
            one_in in 1..4usize,
        ) {
            let mut state = seed;
            let asked = vector(&mut state);
            let query = Query::new(&asked, DIMENSION).unwrap();
            let mut number = 0;
            let segments: Vec<_> = rows.iter().map(|&rows| {
                let vectors: Vec<_> = (0..rows).map(|_| vector(&mut state)).collect();
                number += rows as DocNumber;
                segment(number, &vectors)
            }).collect();
            let numbered: Vec<_> = (0..).zip(&segments).collect();
            let accept = |_: &Segment, row: usize| row.is_multiple_of(one_in);
            let stop = Stop::new();
            let scan = Scan {
                segments: &numbered,
                query: &query,
                kernels: Kernels::detected(),
                keep,
                accept: &accept,
                threads: 1,
                stop: &stop,
            };
            let (mut kept, complete) = scan.run();
            kept.sort_unstable();
            let mut expected = oracle(&segments, &query, &|row| row.is_multiple_of(one_in));
            expected.truncate(keep);
            prop_assert!(complete);
            prop_assert_eq!(kept, expected);
        }
    }

    /// How many rows are kept of this segment, how many were looked up for that, and the farthest.
    fn scanned(segment: &Arc<Segment>, query: &Query, keep: usize) -> (usize, usize, u32) {
        let looked_up = AtomicUsize::new(0);
        let accept = |_: &Segment, _: usize| {
            looked_up.fetch_add(1, Ordering::Relaxed);
            true
        };
        let (kept, complete) = Scan {
            segments: &[(0, segment)],
            query,
            kernels: Kernels::detected(),
            keep,
            accept: &accept,
            threads: 1,
            stop: &Stop::new(),
        }
        .run();
        assert!(complete);
        let farthest = kept.iter().map(|kept| kept.distance).max().unwrap();
        (kept.len(), looked_up.into_inner(), farthest)
    }

    const ROWS: usize = 20_000;
    const KEEP: usize = 2_000;

    #[test]
    fn few_more_rows_are_looked_up_than_are_kept() {
        let mut state = 7;
        let query = Query::new(&vector(&mut state), DIMENSION).unwrap();
        let vectors: Vec<_> = (0..ROWS).map(|_| vector(&mut state)).collect();
        let (kept, looked_up, _) = scanned(&segment(0, &vectors), &query, KEEP);
        assert_eq!(kept, KEEP);
        assert!(looked_up < SAMPLE_ROWS + 2 * KEEP, "{looked_up}");
    }

    /// A question, and [`ROWS`] rows of which those that are compared first are the question itself.
    fn misleading() -> (Query, Arc<Segment>) {
        let mut state = 7;
        let asked = vector(&mut state);
        let runs = SAMPLE_ROWS / SAMPLE_RUN_ROWS;
        let firsts = (0..runs).map(|run| run * ROWS / runs / BLOCK_ROWS * BLOCK_ROWS);
        let near: HashSet<usize> = firsts.flat_map(|row| row..row + SAMPLE_RUN_ROWS).collect();
        assert_eq!(near.len(), SAMPLE_ROWS);
        let at = |row| if near.contains(&row) { asked.clone() } else { vector(&mut state) };
        let vectors: Vec<_> = (0..ROWS).map(at).collect();
        (Query::new(&asked, DIMENSION).unwrap(), segment(0, &vectors))
    }

    #[test]
    fn where_the_rows_looked_at_first_mislead_all_is_scanned() {
        let (query, segment) = misleading();
        let (kept, looked_up, farthest) = scanned(&segment, &query, KEEP);
        assert_eq!(kept, KEEP);
        assert!(farthest > 0 && looked_up > KEEP, "{looked_up}");
    }

    #[test]
    fn what_was_found_is_answered_when_there_is_no_time_to_scan_again() {
        let (query, segment) = misleading();
        let (looked_up, stop) = (AtomicUsize::new(0), Stop::new());
        let accept = |_: &Segment, _: usize| {
            // Those that are compared first, and each of them again in the first scan.
            if looked_up.fetch_add(1, Ordering::Relaxed) > 2 * SAMPLE_ROWS {
                stop.set();
            }
            true
        };
        let (kept, complete) = Scan {
            segments: &[(0, &segment)],
            query: &query,
            kernels: Kernels::detected(),
            keep: KEEP,
            accept: &accept,
            threads: 1,
            stop: &stop,
        }
        .run();
        assert!(!complete);
        assert_eq!(kept.iter().filter(|kept| kept.distance == 0).count(), SAMPLE_ROWS);
    }
}
