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
    /// Which rows may be kept. Asked only for rows that are near enough.
    pub(crate) accept: &'a A,
    pub(crate) threads: usize,
    pub(crate) stop: &'a Stop,
}

impl<A: Fn(&Segment, usize) -> bool + Sync> Scan<'_, A> {
    /// The kept rows, in no particular order, and whether all was scanned.
    pub(crate) fn run(&self) -> (Vec<Kept>, bool) {
        let tasks = self.tasks();
        let rows: usize = self.segments.iter().map(|(_, segment)| segment.rows()).sum();
        let threads = self.threads.min(rows / ROWS_PER_THREAD_MIN).min(tasks.len()).max(1);
        let dimensions = self.segments.iter().map(|(_, segment)| segment.dimension());
        let dimension = dimensions.max().unwrap_or(0);
        let next = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        let work = || {
            let mut keeper = Keeper::new(self.keep, dimension);
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
        (nearest(keeper.kept, self.keep.max(1)), !stopped.into_inner())
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
    /// Distances are at most `dimension`.
    fn new(keep: usize, dimension: usize) -> Self {
        let counts = vec![0; dimension + 1];
        let keep = keep.max(1);
        // As many as are ever held, unless a caller wants more than there will be.
        let kept = Vec::with_capacity(keep.saturating_mul(2).min(ROWS_PER_TASK) + ROWS_PER_PART);
        Self { keep, kept, counts, worst: dimension as u32, held: 0 }
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
