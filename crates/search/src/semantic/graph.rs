//! [`Graph`]: the hierarchical navigable small world graph of a segment, and the walk through it.
//!
//! Malkov, Yashunin: "Efficient and robust approximate nearest neighbor search using Hierarchical
//! Navigable Small World graphs", 2016. Each row links to rows near it; one row in sixteen also stands
//! on the level above, where links reach farther. A walk starts at the top, goes greedily towards
//! the query on each level, and on the ground keeps the best `breadth` rows that it meets.
//!
//! On disk, little-endian: ground links are [`GROUND_LINKS`] row numbers for each row, unused places
//! hold [`NO_ROW`]. Above: entry row u32, number of levels u32, rows of each level u32; then for each
//! level its rows rising, u32, and [`UPPER_LINKS`] row numbers for each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;

use super::segment::u32_at;

/// The most links of a row on the ground level.
pub(crate) const GROUND_LINKS: usize = 32;
/// The most links of a row on each level above.
pub(crate) const UPPER_LINKS: usize = 16;
/// The most levels above the ground: 16^7 rows are more than a segment can hold.
pub(crate) const LEVELS_MAX: usize = 7;
/// An unused place for a link.
pub(crate) const NO_ROW: u32 = u32::MAX;
/// How many rows a walk visits between two looks at the stop flag.
const STEPS_PER_STOP_CHECK: usize = 256;

/// A row and how near it is, ordered by nearness; the lower row of equals is the nearer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scored {
    pub(crate) score: f32,
    pub(crate) row: u32,
}

impl Eq for Scored {}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then(other.row.cmp(&self.row))
    }
}

/// What a walk needs to know of the rows.
pub(crate) trait Landscape {
    /// How near the row is to what is sought; higher is nearer.
    fn score(&self, row: u32) -> f32;
    /// Asks for the row's vector to be brought near the processor.
    fn prefetch(&self, row: u32);
    /// Appends the links of a row on a level; 0 is the ground.
    fn links(&self, row: u32, level: usize, links: &mut Vec<u32>);
}

/// Remembers where a walk has been.
pub(crate) trait Visited {
    /// Marks the row; answers whether it was new.
    fn visit(&mut self, row: u32) -> bool;
}

/// Goes from `from` to the row on `level` whose score no neighbour of it betters.
pub(crate) fn descend(landscape: &impl Landscape, from: Scored, level: usize) -> Scored {
    let mut best = from;
    let mut links = Vec::with_capacity(GROUND_LINKS);
    loop {
        links.clear();
        landscape.links(best.row, level, &mut links);
        links.iter().for_each(|&row| landscape.prefetch(row));
        let next = links.iter().map(|&row| Scored { score: landscape.score(row), row }).max();
        match next {
            Some(next) if next > best => best = next,
            _ => return best,
        }
    }
}

/// What a walk over one level found.
pub(crate) struct Walked {
    /// Accepted rows, best first.
    pub(crate) found: Vec<Scored>,
    /// Whether the walk came to its end.
    pub(crate) complete: bool,
}

/// Walks a level from `from`, keeping the best `breadth` accepted rows.
pub(crate) fn walk(
    landscape: &impl Landscape,
    visited: &mut impl Visited,
    from: &[Scored],
    level: usize,
    breadth: usize,
    mut accept: impl FnMut(u32) -> bool,
    mut stop: impl FnMut() -> bool,
) -> Walked {
    let mut ahead = BinaryHeap::with_capacity(breadth * 2);
    let mut found: BinaryHeap<Reverse<Scored>> = BinaryHeap::with_capacity(breadth + 1);
    let (mut links, mut fresh) =
        (Vec::with_capacity(GROUND_LINKS), Vec::with_capacity(GROUND_LINKS));
    let mut meet = |at: Scored, ahead: &mut BinaryHeap<Scored>| {
        let worst = found.peek().filter(|_| found.len() >= breadth).map(|worst| worst.0);
        if worst.is_none_or(|worst| at > worst) {
            ahead.push(at);
            if accept(at.row) {
                found.push(Reverse(at));
                if found.len() > breadth {
                    found.pop();
                }
            }
        }
        found.peek().filter(|_| found.len() >= breadth).map(|worst| worst.0)
    };
    let mut worst = None;
    for &at in from {
        if visited.visit(at.row) {
            worst = meet(at, &mut ahead);
        }
    }
    let mut complete = true;
    let mut steps = 0;
    while let Some(at) = ahead.pop() {
        if worst.is_some_and(|worst| at < worst) {
            break;
        }
        steps += 1;
        if steps % STEPS_PER_STOP_CHECK == 0 && stop() {
            complete = false;
            break;
        }
        links.clear();
        landscape.links(at.row, level, &mut links);
        fresh.clear();
        fresh.extend(links.iter().copied().filter(|&row| visited.visit(row)));
        fresh.iter().for_each(|&row| landscape.prefetch(row));
        for &row in &fresh {
            let next = Scored { score: landscape.score(row), row };
            if worst.is_none_or(|worst| next > worst) {
                worst = meet(next, &mut ahead);
            }
        }
    }
    let found = found.into_sorted_vec().into_iter().map(|Reverse(scored)| scored).collect();
    Walked { found, complete }
}

/// A set of rows whose size follows the walk and not the segment: open addressing, at most half full.
pub(crate) struct VisitedSet {
    places: Vec<u32>,
    count: usize,
}

impl VisitedSet {
    /// For about `expected` rows; grows when there are more.
    pub(crate) fn new(expected: usize) -> Self {
        Self { places: vec![NO_ROW; (expected * 2).next_power_of_two().max(64)], count: 0 }
    }

    fn grow(&mut self) {
        let larger = vec![NO_ROW; self.places.len() * 2];
        let old = std::mem::replace(&mut self.places, larger);
        self.count = 0;
        for row in old.into_iter().filter(|&row| row != NO_ROW) {
            self.visit(row);
        }
    }
}

impl Visited for VisitedSet {
    #[inline]
    fn visit(&mut self, row: u32) -> bool {
        if self.count * 2 >= self.places.len() {
            self.grow();
        }
        let mask = self.places.len() - 1;
        // Fibonacci hashing: the high bits of the product are well mixed.
        let mut at = (row.wrapping_mul(0x9E37_79B9) >> 7) as usize & mask;
        loop {
            if self.places[at] == row {
                return false;
            }
            if self.places[at] == NO_ROW {
                self.places[at] = row;
                self.count += 1;
                return true;
            }
            at = (at + 1) & mask;
        }
    }
}

/// The graph of an open segment.
#[derive(Clone)]
pub(crate) struct Graph {
    ground: Bytes,
    levels: Vec<Level>,
    entry: u32,
}

#[derive(Clone)]
struct Level {
    rows: Bytes,
    links: Bytes,
}

impl Graph {
    /// Reads the two columns of links; `None` when they are empty.
    pub(crate) fn open(ground: Bytes, upper: Bytes, rows: usize) -> Result<Option<Self>, String> {
        if ground.is_empty() && upper.is_empty() {
            return Ok(None);
        }
        let entry = u32_at(&upper, 0);
        let count = u32_at(&upper, 4) as usize;
        let right = ground.len() == rows * GROUND_LINKS * 4 && (entry as usize) < rows;
        if !right || count > LEVELS_MAX || upper.len() < 8 + count * 4 {
            return Err("its graph does not fit its rows".into());
        }
        let mut at = 8 + count * 4;
        let mut levels = Vec::with_capacity(count);
        for level in 0..count {
            let rows = u32_at(&upper, 8 + level * 4) as usize;
            let (ids, end) = (at + rows * 4, at + rows * 4 * (1 + UPPER_LINKS));
            if end > upper.len() {
                return Err("a level of its graph ends early".into());
            }
            levels.push(Level { rows: upper.slice(at..ids), links: upper.slice(ids..end) });
            at = end;
        }
        Ok(Some(Self { ground, levels, entry }))
    }

    /// The row at which walks begin.
    pub(crate) fn entry(&self) -> u32 {
        self.entry
    }

    /// How many levels there are above the ground.
    pub(crate) fn levels(&self) -> usize {
        self.levels.len()
    }

    /// Appends the links of a row; those that name no row of the segment are damage and left out.
    pub(crate) fn links(&self, row: u32, level: usize, rows: usize, out: &mut Vec<u32>) {
        let links = match level {
            0 => {
                let at = row as usize * GROUND_LINKS * 4;
                self.ground.get(at..at + GROUND_LINKS * 4)
            }
            _ => self.levels.get(level - 1).and_then(|level| level.links_of(row)),
        };
        let links = links.unwrap_or_default().as_chunks::<4>().0;
        out.extend(
            links.iter().map(|raw| u32::from_le_bytes(*raw)).filter(|&r| (r as usize) < rows),
        );
    }
}

impl Level {
    fn links_of(&self, row: u32) -> Option<&[u8]> {
        let at =
            self.rows.as_chunks::<4>().0.binary_search_by_key(&row, |raw| u32::from_le_bytes(*raw));
        let at = at.ok()? * UPPER_LINKS * 4;
        self.links.get(at..at + UPPER_LINKS * 4)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn visited_rows_are_new_exactly_once(rows in prop::collection::vec(0u32..500, 0..600)) {
            let (mut visited, mut set) = (VisitedSet::new(1), HashSet::new());
            for row in rows {
                prop_assert_eq!(visited.visit(row), set.insert(row));
            }
        }
    }
}
