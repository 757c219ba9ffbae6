//! [`Tier`]: the segments of one space: files, and a head in memory that grows with every batch.
//!
//! A batch becomes a small segment at once, so readers see it without a lock. Two segments at the
//! end of the head are joined as soon as they are of like size: a row is copied about
//! `log2(HEAD_ROWS_MAX)` times before it reaches a file, and the head stays below twenty segments.

use std::sync::Arc;

use super::segment::Segment;
use super::segment_writer::{Joined, Rows, segment_in_memory, write_segment};
use crate::directory::Directory;
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::ViewError;

/// A head of this many rows is written into a file: 11 MiB of vectors of 384 dimensions.
pub(crate) const HEAD_ROWS_MAX: usize = 1 << 14;

/// The segments of one space.
#[derive(Clone)]
pub(crate) struct Tier {
    /// The space.
    pub(crate) index: usize,
    pub(crate) dimension: usize,
    /// Durable once the manifest names them.
    pub(crate) files: Vec<Arc<Segment>>,
    /// Still in memory, oldest first.
    pub(crate) head: Vec<Arc<Segment>>,
}

impl Tier {
    /// Adds the rows of a batch.
    pub(crate) fn push(&mut self, rows: &dyn Rows) -> Result<(), ViewError> {
        let mut head = self.head.clone();
        head.push(Arc::new(segment_in_memory(rows, self.dimension)?));
        while let [.., before, last] = &head[..] {
            if last.rows() * 2 < before.rows() {
                break;
            }
            let joined = Joined::new(vec![Arc::clone(before), Arc::clone(last)], |_| true);
            let joined = Arc::new(segment_in_memory(&joined, self.dimension)?);
            head.truncate(head.len() - 2);
            head.push(joined);
        }
        self.head = head;
        Ok(())
    }

    /// Rows in memory.
    pub(crate) fn head_rows(&self) -> usize {
        self.head.iter().map(|segment| segment.rows()).sum()
    }

    /// Writes the head into the file `name`; changes nothing when that fails.
    pub(crate) fn seal(&mut self, directory: &dyn Directory, name: &str) -> Result<(), ViewError> {
        let joined = Joined::new(self.head.clone(), |_| true);
        let segment = write_file(directory, name, &joined, self.dimension, false, &Stop::new())?;
        self.files.push(Arc::new(segment));
        self.head.clear();
        Ok(())
    }

    /// All segments, files first.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.files.iter().chain(&self.head).cloned().collect()
    }

    /// The segment and rows of a document; for the instant tier, where a document is in one segment.
    pub(crate) fn rows_of(&self, number: DocNumber) -> Option<(&Segment, std::ops::Range<usize>)> {
        let mut segments = holding(self.files.iter().chain(&self.head), number);
        segments.find_map(|segment| {
            let rows = segment.rows_of(number);
            (!rows.is_empty()).then_some((segment, rows))
        })
    }
}

/// The segment and row of a passage among some segments.
pub(crate) fn find<'a>(
    segments: impl Iterator<Item = &'a Arc<Segment>>,
    number: DocNumber,
    passage: u32,
) -> Option<(&'a Segment, usize)> {
    holding(segments, number).find_map(|segment| Some((segment, segment.find(number, passage)?)))
}

fn holding<'a>(
    segments: impl Iterator<Item = &'a Arc<Segment>>,
    number: DocNumber,
) -> impl Iterator<Item = &'a Segment> {
    let within = move |(low, high): (DocNumber, DocNumber)| (low..=high).contains(&number);
    segments.filter(move |segment| segment.bounds().is_some_and(within)).map(|segment| &**segment)
}

/// Writes rows into a finished file and opens it.
pub(crate) fn write_file(
    directory: &dyn Directory,
    name: &str,
    rows: &dyn Rows,
    dimension: usize,
    with_graph: bool,
    stop: &Stop,
) -> Result<Segment, ViewError> {
    let write = || {
        let mut file = directory.create(name)?;
        write_segment(rows, dimension, with_graph, stop, &mut file)?;
        file.finish()?;
        directory.open(name)
    };
    let contents = write().map_err(ViewError::io(format!("write vectors into {name}")))?;
    Segment::open(name, &contents)
}
