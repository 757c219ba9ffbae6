//! [`build`]: makes the graph of a segment, on one thread, the same for the same rows everywhere.
//!
//! Rows enter in order. The level of a row is decided by a hash of its number, so nothing is random;
//! scores are integer sums times stored scales, so no machine rounds differently.

use std::io;

use super::graph::{
    GROUND_LINKS, LEVELS_MAX, Landscape, NO_ROW, Scored, UPPER_LINKS, Visited, descend, walk,
};
use super::kernels::{self, Kernels};
use super::quantize::Query;
use super::segment_writer::{Rows, check_stop};
use crate::request::Stop;

/// How many rows enter between two looks at the stop flag: a few milliseconds.
const ROWS_PER_STOP_CHECK: usize = 16;

/// How hard the builder tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// How many rows are kept on the way to a new row's neighbours.
    pub(crate) breadth: usize,
}

impl Default for Effort {
    /// The least breadth with which recall@10 at the default search breadth no longer improves; see
    /// `docs/design/vector-index.md`.
    fn default() -> Self {
        Self { breadth: 100 }
    }
}

/// The two columns of links of a segment; empty when it has no graph.
#[derive(Default, PartialEq)]
pub(crate) struct Links {
    pub(crate) ground: Vec<u8>,
    pub(crate) upper: Vec<u8>,
}

/// Builds the graph over all rows that have a vector; rows without one stay outside.
pub(crate) fn build(rows: &dyn Rows, effort: Effort, stop: &Stop) -> io::Result<Links> {
    let vectors: Vec<_> = (0..rows.len())
        .map(|index| {
            let row = rows.row(index);
            (row.components, row.scale)
        })
        .collect();
    let mut builder = Builder::new(&vectors, effort);
    for row in 0..vectors.len() as u32 {
        if (row as usize).is_multiple_of(ROWS_PER_STOP_CHECK) {
            check_stop(stop)?;
        }
        if vectors[row as usize].1 > 0.0 {
            builder.insert(row);
        }
    }
    Ok(builder.finish())
}

/// The level of a row: one row in sixteen rises to the next.
fn level_of(row: u32) -> usize {
    // The finaliser of MurmurHash3.
    let mut hash = row ^ 0x9747_b28c;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^= hash >> 16;
    ((hash.trailing_zeros() / 4) as usize).min(LEVELS_MAX)
}

struct Builder<'a> {
    vectors: &'a [(&'a [u8], f32)],
    kernels: Kernels,
    effort: Effort,
    ground: Vec<u32>,
    /// For each level above the ground: the rows in the order they entered, which is rising, and
    /// their links.
    upper: Vec<(Vec<u32>, Vec<u32>)>,
    entry: Option<u32>,
    visited: Stamps,
}

/// Which walk visited a row last.
struct Stamps {
    stamps: Vec<u32>,
    current: u32,
}

impl Visited for Stamps {
    #[inline]
    fn visit(&mut self, row: u32) -> bool {
        let stamp = &mut self.stamps[row as usize];
        let new = *stamp != self.current;
        *stamp = self.current;
        new
    }
}

/// The graph so far, seen from a query.
struct View<'a> {
    vectors: &'a [(&'a [u8], f32)],
    kernels: Kernels,
    ground: &'a [u32],
    upper: &'a [(Vec<u32>, Vec<u32>)],
    query: &'a Query,
}

impl Landscape for View<'_> {
    #[inline]
    fn score(&self, row: u32) -> f32 {
        let (components, scale) = self.vectors[row as usize];
        self.kernels.dot(&self.query.components, components) as f32 * self.query.scale * scale
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        kernels::prefetch(self.vectors[row as usize].0);
    }

    fn links(&self, row: u32, level: usize, links: &mut Vec<u32>) {
        let found = links_at(self.ground, self.upper, row, level);
        links.extend(found.iter().copied().take_while(|&row| row != NO_ROW));
    }
}

fn links_at<'a>(
    ground: &'a [u32],
    upper: &'a [(Vec<u32>, Vec<u32>)],
    row: u32,
    level: usize,
) -> &'a [u32] {
    if level == 0 {
        return &ground[row as usize * GROUND_LINKS..][..GROUND_LINKS];
    }
    let (rows, links) = &upper[level - 1];
    match rows.binary_search(&row) {
        Ok(at) => &links[at * UPPER_LINKS..][..UPPER_LINKS],
        Err(_) => &[],
    }
}

impl<'a> Builder<'a> {
    fn new(vectors: &'a [(&'a [u8], f32)], effort: Effort) -> Self {
        Self {
            vectors,
            kernels: Kernels::detected(),
            effort,
            ground: vec![NO_ROW; vectors.len() * GROUND_LINKS],
            upper: Vec::new(),
            entry: None,
            visited: Stamps { stamps: vec![0; vectors.len()], current: 0 },
        }
    }

    fn query(&self, row: u32) -> Query {
        let (components, scale) = self.vectors[row as usize];
        Query::from_row(components, scale)
    }

    fn view<'b>(&'b self, query: &'b Query) -> View<'b> {
        let Self { vectors, kernels, ground, upper, .. } = self;
        View { vectors, kernels: *kernels, ground, upper, query }
    }

    fn insert(&mut self, row: u32) {
        let top = level_of(row);
        let levels = self.upper.len();
        let nearest = self.entry.map(|entry| self.nearest(row, entry, top.min(levels)));
        self.upper.resize_with(levels.max(top), Default::default);
        for (rows, links) in &mut self.upper[..top] {
            rows.push(row);
            links.resize(links.len() + UPPER_LINKS, NO_ROW);
        }
        for (level, found) in nearest.into_iter().flatten().enumerate() {
            let chosen = self.choose(&found, UPPER_LINKS);
            for &to in &chosen {
                self.link(to.row, row, level);
            }
            let places = self.places(row, level);
            places.iter_mut().zip(&chosen).for_each(|(place, to)| *place = to.row);
        }
        if self.entry.is_none() || top > levels {
            self.entry = Some(row);
        }
    }

    /// The rows nearest to `row` on each level from the ground to `top`.
    fn nearest(&mut self, row: u32, entry: u32, top: usize) -> Vec<Vec<Scored>> {
        let query = self.query(row);
        let mut visited =
            std::mem::replace(&mut self.visited, Stamps { stamps: Vec::new(), current: 0 });
        let view = self.view(&query);
        let mut from = Scored { score: view.score(entry), row: entry };
        for level in (top + 1..=self.upper.len()).rev() {
            from = descend(&view, from, level);
        }
        let mut nearest = Vec::with_capacity(top + 1);
        let mut starts = vec![from];
        for level in (0..=top).rev() {
            visited.current += 1;
            let breadth = self.effort.breadth;
            let walked = walk(&view, &mut visited, &starts, level, breadth, |_| true, || false);
            starts.clone_from(&walked.found);
            nearest.push(walked.found);
        }
        nearest.reverse();
        self.visited = visited;
        nearest
    }

    /// Chooses links among `found`, best first: each is nearer to the new row than to any chosen
    /// before it, so that links point in different directions; free places go to the best of the rest.
    fn choose(&self, found: &[Scored], places: usize) -> Vec<Scored> {
        let mut chosen: Vec<(Scored, Query)> = Vec::with_capacity(places);
        let mut rest = Vec::new();
        for &candidate in found {
            if chosen.len() == places {
                break;
            }
            let hidden = chosen
                .iter()
                .any(|(_, other)| self.view(other).score(candidate.row) > candidate.score);
            match hidden {
                true => rest.push(candidate),
                false => chosen.push((candidate, self.query(candidate.row))),
            }
        }
        let mut links: Vec<_> = chosen.into_iter().map(|(candidate, _)| candidate).collect();
        links.extend(rest.into_iter().take(places - links.len()));
        links
    }

    /// Adds a link from a row; when it has no free place, chooses anew.
    fn link(&mut self, from: u32, to: u32, level: usize) {
        if let Some(free) = self.places(from, level).iter_mut().find(|place| **place == NO_ROW) {
            *free = to;
            return;
        }
        let query = self.query(from);
        let view = self.view(&query);
        let mut links = Vec::with_capacity(GROUND_LINKS + 1);
        view.links(from, level, &mut links);
        links.push(to);
        let mut found: Vec<_> =
            links.iter().map(|&row| Scored { score: view.score(row), row }).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        let chosen = self.choose(&found, links.len() - 1);
        let places = self.places(from, level);
        places.fill(NO_ROW);
        places.iter_mut().zip(chosen).for_each(|(place, to)| *place = to.row);
    }

    fn places(&mut self, row: u32, level: usize) -> &mut [u32] {
        if level == 0 {
            return &mut self.ground[row as usize * GROUND_LINKS..][..GROUND_LINKS];
        }
        let (rows, links) = &mut self.upper[level - 1];
        match rows.binary_search(&row) {
            Ok(at) => &mut links[at * UPPER_LINKS..][..UPPER_LINKS],
            Err(_) => &mut [],
        }
    }

    fn finish(self) -> Links {
        let Some(entry) = self.entry else { return Links::default() };
        let bytes = |numbers: &[u32]| -> Vec<u8> {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
        let mut upper = bytes(&[entry, self.upper.len() as u32]);
        for (rows, _) in &self.upper {
            upper.extend((rows.len() as u32).to_le_bytes());
        }
        for (rows, links) in &self.upper {
            upper.extend(bytes(rows));
            upper.extend(bytes(links));
        }
        Links { ground: bytes(&self.ground), upper }
    }
}
