//! Merging neighbouring segments into one, without their dead documents.
//!
//! Only neighbours are merged, so that the ranges of numbers stay disjoint and in order. Segments are
//! sorted into tiers by size, each [`RUN`] times the one below; [`RUN`] neighbours of a tier or
//! smaller become one, if none of them makes up more than half of it: so a document is written again
//! about once for each tier. A segment that is mostly dead is written again alone.

use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::sync::Arc;

use super::block::OpenBlock;
use super::segment::{Place, Segment, file_name};
use super::segment_writer::SegmentWriter;
use crate::bitmap::Bitmap;
use crate::directory::Directory;
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::ViewError;

/// How many neighbours make a merge. Fewer means fewer segments to look into and more writing.
const RUN: usize = 8;
/// The top of the lowest tier, in stored bytes: about what sealing a full head makes.
const TIER_BYTES: u64 = 2 << 20;
/// Merges up to this many stored bytes run at once in the writer: about 50 ms.
pub(super) const INLINE_BYTES_MAX: u64 = 8 << 20;
/// No merge makes a segment larger than this, in stored bytes: one takes minutes and as much disk
/// again while it runs.
const SEGMENT_BYTES_MAX: u64 = 16 << 30;
/// No merge makes a segment of more documents than this: columns are made in memory, at about 300
/// bytes a document.
const SEGMENT_DOCUMENTS_MAX: u64 = 16 << 20;

/// A segment and how many of its documents are dead.
pub(super) struct Weighed {
    pub(super) bytes: u64,
    pub(super) documents: u32,
    pub(super) dead: u32,
}

impl Weighed {
    fn tier(&self) -> u32 {
        (self.bytes / TIER_BYTES).checked_ilog(RUN as u64).map_or(0, |tier| tier + 1)
    }

    /// Whether writing it again alone frees more than a third of it.
    fn is_mostly_waste(&self) -> bool {
        self.dead > self.documents / 3
    }
}

/// The neighbours to merge next, if any: small ones first.
pub(super) fn choose(segments: &[Weighed]) -> Option<Range<usize>> {
    let tiers: Vec<u32> = segments.iter().map(Weighed::tier).collect();
    let highest = tiers.iter().max().copied().unwrap_or(0);
    for tier in 0..=highest {
        let mut start = 0;
        while start < segments.len() {
            let run = tiers[start..].iter().take_while(|&&other| other <= tier).count();
            let range = start..start + run;
            if run >= RUN
                && let Some(range) = within_bounds(segments, range)
            {
                return Some(range);
            }
            start += run.max(1);
        }
    }
    segments.iter().position(Weighed::is_mostly_waste).map(|at| at..at + 1)
}

/// The longest beginning of the run that may become one segment, if it is worth it.
fn within_bounds(segments: &[Weighed], run: Range<usize>) -> Option<Range<usize>> {
    let (mut bytes, mut documents, mut largest) = (0, 0, 0);
    let mut count = 0;
    for segment in &segments[run.clone()] {
        if bytes + segment.bytes > SEGMENT_BYTES_MAX
            || documents + u64::from(segment.documents) > SEGMENT_DOCUMENTS_MAX
        {
            break;
        }
        bytes += segment.bytes;
        documents += u64::from(segment.documents);
        largest = largest.max(segment.bytes);
        count += 1;
    }
    (count >= RUN && largest <= bytes / 2).then_some(run.start..run.start + count)
}

/// What a merge made.
pub(super) struct MergedSegment {
    /// The ids of the segments that it replaces.
    pub(super) sources: Vec<u64>,
    /// `None` when no document was left.
    pub(super) segment: Option<Segment>,
}

/// Merges into memory.
pub(super) fn merge_in_memory(
    id: u64,
    sources: &[Arc<Segment>],
    living: &Bitmap,
) -> Result<MergedSegment, ViewError> {
    let mut writer = SegmentWriter::new(Vec::new()).map_err(ViewError::io("merge segments"))?;
    write(&mut writer, sources, living, &Stop::new())?;
    let segment = if writer.documents() == 0 {
        None
    } else {
        let bytes = writer.finish().map_err(ViewError::io("merge segments"))?;
        Some(Segment::open(id, Place::Memory, bytes.into())?)
    };
    Ok(MergedSegment { sources: sources.iter().map(|source| source.id()).collect(), segment })
}

/// Merges into a file, which nobody needs before the next checkpoint names it.
pub(super) fn merge_to_file(
    directory: &dyn Directory,
    id: u64,
    sources: &[Arc<Segment>],
    living: &Bitmap,
    stop: &Stop,
) -> Result<MergedSegment, ViewError> {
    const BUFFER_BYTES: usize = 1 << 20;
    let name = file_name(id);
    let doing = |error| ViewError::io(format!("write {name}"))(error);
    let file = BufWriter::with_capacity(BUFFER_BYTES, directory.create(&name).map_err(doing)?);
    let mut writer = SegmentWriter::new(file).map_err(doing)?;
    write(&mut writer, sources, living, stop)?;
    let segment = if writer.documents() == 0 {
        None
    } else {
        let file = writer.finish().map_err(doing)?;
        file.into_inner().map_err(|error| doing(error.into_error()))?.finish().map_err(doing)?;
        Some(Segment::open(id, Place::File, directory.open(&name).map_err(doing)?)?)
    };
    Ok(MergedSegment { sources: sources.iter().map(|source| source.id()).collect(), segment })
}

fn write<W: Write>(
    writer: &mut SegmentWriter<W>,
    sources: &[Arc<Segment>],
    living: &Bitmap,
    stop: &Stop,
) -> Result<(), ViewError> {
    for source in sources {
        let fail = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => ViewError::from(source.damage(&error.to_string())),
            _ => ViewError::io(format!("merge {}", file_name(source.id())))(error),
        };
        let numbers: Vec<DocNumber> = source.each_number()?.collect();
        let blocks = source.blocks()?;
        let mut open = OpenBlock::default();
        for index in 0..blocks.count() {
            if stop.is_set() {
                return Err(fail(io::Error::new(io::ErrorKind::Interrupted, "asked to stop")));
            }
            let (ordinals, block) = blocks.block(index)?;
            let alive = |ordinal: &u32| living.contains(numbers[*ordinal as usize]);
            let whole = block.filter(|_| ordinals.clone().all(|ordinal| alive(&ordinal)));
            if let Some(block) = &whole {
                writer.push_block(block).map_err(fail)?;
            }
            for ordinal in ordinals.filter(alive) {
                let number = numbers[ordinal as usize];
                let encoded = blocks.document(ordinal, &mut open)?;
                match whole {
                    Some(_) => writer.describe(number, encoded).map_err(fail)?,
                    None => writer.push(number, encoded).map_err(fail)?,
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(megabytes: &[u64]) -> Vec<Weighed> {
        let weigh = |&mb: &u64| Weighed { bytes: mb << 20, documents: 1000, dead: 0 };
        megabytes.iter().map(weigh).collect()
    }

    #[test]
    fn eight_neighbours_of_a_size_become_one_the_small_ones_first() {
        assert_eq!(choose(&of(&[1; 7])), None);
        assert_eq!(choose(&of(&[1; 8])), Some(0..8));
        assert_eq!(choose(&of(&[900, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1])), Some(2..11));
        assert_eq!(choose(&of(&[9, 9, 9, 9, 9, 9, 9, 1])), Some(0..8));
        assert_eq!(choose(&of(&[1, 1, 1, 1, 900, 1, 1, 1, 1])), None);
    }

    #[test]
    fn a_segment_that_is_mostly_dead_is_written_again_alone() {
        let mut segments = of(&[500, 9, 1]);
        segments[1].dead = 400;
        assert_eq!(choose(&segments), Some(1..2));
    }

    #[test]
    fn steady_growth_keeps_the_segments_few_and_the_writing_logarithmic() {
        let (mut segments, mut written, mut most) = (Vec::new(), 0, 0);
        for _ in 0..5000 {
            segments.extend(of(&[1]));
            while let Some(range) = choose(&segments) {
                let bytes: u64 = segments[range.clone()].iter().map(|s| s.bytes).sum();
                written += bytes >> 20;
                segments.splice(range, [Weighed { bytes, documents: 1000, dead: 0 }]);
            }
            most = most.max(segments.len());
        }
        assert!(most <= 36, "{most} segments");
        assert!(written <= 6 * 5000, "{written} MB written for 5000 MB");
    }
}
