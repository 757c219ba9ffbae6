//! Merges of segment files: which are worth it, and the work itself.
//!
//! Files are sorted into sizes by powers of [`FILES_PER_MERGE`]; when that many of one size have
//! gathered, they become one of the next. A file of which a quarter is dead is written anew without it.
//! A result of [`super::Options::graph_rows_min`] rows or more gets a graph: here, on a merging
//! thread, and never while documents are applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::refinement::NO_PASSAGE;
use super::segment::Segment;
use super::segment_writer::{Joined, Rows};
use super::tier::{HEAD_ROWS_MAX, Tier, write_file};
use crate::bitmap::Bitmap;
use crate::directory::Directory;
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::ViewError;

/// How many files of one size become one.
pub(crate) const FILES_PER_MERGE: usize = 8;
/// The most files of one merge, when a long merge has let many gather.
const FILES_PER_MERGE_MAX: usize = 64;
/// The most rows of a merged segment. It bounds the time and memory of building a graph: minutes,
/// and 128 MiB of links.
pub const SEGMENT_ROWS_MAX: usize = 1 << 20;
/// How many rows are asked to estimate the dead share of a file.
const SAMPLE_ROWS: usize = 1024;
/// The share of dead rows, one in this many, from which on a file is written anew.
const DEAD_ONE_IN: usize = 4;

/// A merge to be made.
pub(crate) struct Plan {
    pub(crate) directory: Arc<dyn Directory>,
    /// The space.
    pub(crate) tier: usize,
    pub(crate) dimension: usize,
    pub(crate) sources: Vec<Arc<Segment>>,
    /// Documents that stay.
    pub(crate) keep: Bitmap,
    /// The file to write.
    pub(crate) name: String,
    pub(crate) graph_rows_min: usize,
}

/// What a merge made.
pub(crate) struct MergedSegment {
    pub(crate) tier: usize,
    pub(crate) sources: Vec<Arc<Segment>>,
    /// `None` when nothing was left.
    pub(crate) segment: Option<Arc<Segment>>,
    /// Documents that are no longer there, and how many passages each had.
    pub(crate) dropped: Vec<(DocNumber, u32)>,
}

/// The files of a tier that should become one, if any.
pub(crate) fn choose(tier: &Tier, keep: &Bitmap) -> Option<Vec<Arc<Segment>>> {
    let mut sizes: BTreeMap<u32, Vec<&Arc<Segment>>> = BTreeMap::new();
    for file in tier.files.iter().filter(|file| file.rows() < SEGMENT_ROWS_MAX) {
        sizes.entry(size(file.rows())).or_default().push(file);
    }
    for files in sizes.values() {
        let mut rows = 0;
        let fits = files.iter().take(FILES_PER_MERGE_MAX).take_while(|file| {
            rows += file.rows();
            rows <= SEGMENT_ROWS_MAX
        });
        let chosen: Vec<_> = fits.map(|file| Arc::clone(file)).collect();
        // Large files may fill a segment before there are eight of them.
        let full = chosen.len() < files.len() && chosen.len() > 1;
        if chosen.len() >= FILES_PER_MERGE || full {
            return Some(chosen);
        }
    }
    let dead = tier.files.iter().find(|file| dead_rows(file, keep) * DEAD_ONE_IN > SAMPLE_ROWS);
    dead.map(|file| vec![Arc::clone(file)])
}

/// 0 for a file as small as a head, one more for each eightfold.
fn size(rows: usize) -> u32 {
    (rows / HEAD_ROWS_MAX).checked_ilog(FILES_PER_MERGE).map_or(0, |size| size + 1)
}

/// How many of [`SAMPLE_ROWS`] evenly chosen rows belong to documents that do not stay.
fn dead_rows(file: &Segment, keep: &Bitmap) -> usize {
    let rows = file.rows();
    (0..SAMPLE_ROWS).filter(|i| !keep.contains(file.number(i * rows / SAMPLE_ROWS))).count()
}

impl Plan {
    /// How many bytes it reads.
    pub(crate) fn bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.bytes()).sum()
    }

    /// Does the work.
    pub(crate) fn run(self, stop: &Stop) -> Result<MergedSegment, ViewError> {
        for source in &self.sources {
            source.verify()?;
        }
        let rows = Joined::new(self.sources.clone(), |number| self.keep.contains(number));
        let with_graph = self.dimension > 0 && rows.len() >= self.graph_rows_min;
        let segment = match rows.len() {
            0 => None,
            _ => {
                let Self { directory, name, dimension, .. } = &self;
                let written = write_file(&**directory, name, &rows, *dimension, with_graph, stop);
                Some(Arc::new(written?))
            }
        };
        let dropped = self.dropped();
        Ok(MergedSegment { tier: self.tier, sources: self.sources, segment, dropped })
    }

    fn dropped(&self) -> Vec<(DocNumber, u32)> {
        let mut dropped: Vec<(DocNumber, u32)> = Vec::new();
        for source in &self.sources {
            for row in 0..source.rows() {
                let number = source.number(row);
                if self.keep.contains(number) {
                    continue;
                }
                let passages = u32::from(source.passage(row) != NO_PASSAGE);
                match dropped.last_mut() {
                    Some((last, count)) if *last == number => *count += passages,
                    _ => dropped.push((number, passages)),
                }
            }
        }
        dropped
    }
}
