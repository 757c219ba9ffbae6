//! [`merge`]: one segment of several neighbours, without the documents that are gone.

use std::io::{self, Write};
use std::sync::Arc;

use super::dictionary::{DictionaryWalk, Location};
use super::list::Block;
use super::segment::{Segment, SegmentWriter};
use crate::bitmap::Bitmap;
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::ViewError;

/// How many terms pass between two looks at the stop flag.
const STOP_TERMS: usize = 256;

/// Marks a document that is dropped.
const GONE: u32 = u32::MAX;

/// Where the ordinals of one source go.
enum Remap {
    /// All stay, moved up by this.
    Shift(u32),
    /// Each goes to its own place or is [`GONE`].
    Each(Vec<u32>),
}

/// Writes one segment of `sources`, whose document numbers rise from one to the next, keeping the
/// documents that are `living` (all, when `None`). Answers `None`, having written nothing, when none is.
pub(super) fn merge<W: Write>(
    sources: &[Arc<Segment>],
    living: Option<&Bitmap>,
    stop: &Stop,
    chain: u32,
    out: W,
) -> Result<Option<W>, ViewError> {
    let (remaps, lengths, numbers) = keep(sources, living);
    if numbers.is_empty() {
        return Ok(None);
    }
    let mut writer = SegmentWriter::new(out, &lengths);
    let mut walks = Vec::with_capacity(sources.len());
    for source in sources {
        let mut walk = Walk { walk: source.dictionary().walk(), now: None };
        walk.step(source)?;
        walks.push(walk);
    }
    let mut term = Vec::new();
    let mut block = Block::new();
    for step in 0usize.. {
        if step.is_multiple_of(STOP_TERMS) && stop.is_set() {
            return Err(ViewError::io("merge segments")(io::ErrorKind::Interrupted.into()));
        }
        let running = walks.iter().filter(|walk| walk.now.is_some());
        let Some(least) = running.min_by(|a, b| a.walk.term().cmp(b.walk.term())) else { break };
        term.clear();
        term.extend(least.walk.term());
        for ((walk, source), remap) in walks.iter_mut().zip(sources).zip(&remaps) {
            let Some(location) = walk.now.filter(|_| walk.walk.term() == term) else { continue };
            copy(source, location, remap, &mut block, &mut writer)?;
            walk.step(source)?;
        }
        writer.end_term(&term).map_err(ViewError::io("write a merged segment"))?;
    }
    let out = writer.finish(&numbers, chain).map_err(ViewError::io("write a merged segment"))?;
    Ok(Some(out))
}

struct Walk<'a> {
    walk: DictionaryWalk<'a>,
    now: Option<Location>,
}

impl Walk<'_> {
    fn step(&mut self, source: &Segment) -> Result<(), ViewError> {
        let next = self.walk.advance();
        self.now =
            next.map_err(|_| ViewError::damaged(source.name(), "its dictionary is broken"))?;
        Ok(())
    }
}

/// Which documents stay: where each goes, and their length codes and numbers.
fn keep(
    sources: &[Arc<Segment>],
    living: Option<&Bitmap>,
) -> (Vec<Remap>, Vec<u8>, Vec<DocNumber>) {
    let (mut remaps, mut lengths, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for source in sources {
        let base = numbers.len() as u32;
        let mut each = Vec::new();
        for (ordinal, &code) in (0..source.documents()).zip(source.lengths()) {
            let number = source.number(ordinal);
            let stays = living.is_none_or(|living| living.contains(number));
            if !stays && each.is_empty() {
                each.extend(base..base + ordinal);
            }
            if !stays || !each.is_empty() {
                each.push(if stays { numbers.len() as u32 } else { GONE });
            }
            if stays {
                lengths.push(code);
                numbers.push(number);
            }
        }
        let is_whole = numbers.len() as u32 == base + source.documents();
        remaps.push(if is_whole { Remap::Shift(base) } else { Remap::Each(each) });
    }
    (remaps, lengths, numbers)
}

fn copy<W: Write>(
    source: &Segment,
    location: Location,
    remap: &Remap,
    block: &mut Block,
    writer: &mut SegmentWriter<'_, W>,
) -> Result<(), ViewError> {
    let damaged = || ViewError::damaged(source.name(), "a list of postings is broken");
    let mut push = |ordinal: u32, frequency: u32| match remap {
        Remap::Shift(base) => writer.push(base + ordinal, frequency),
        Remap::Each(each) => match each[ordinal as usize] {
            GONE => {}
            ordinal => writer.push(ordinal, frequency),
        },
    };
    match location {
        Location::Single { document, .. } if document >= source.documents() => Err(damaged()),
        Location::Single { document, frequency } => {
            push(document, frequency);
            Ok(())
        }
        Location::List { documents, offset, bytes } => {
            let list = source.list(documents, offset, bytes).map_err(|_| damaged())?;
            for at in 0..list.blocks() {
                list.documents(at, block).map_err(|_| damaged())?;
                list.frequencies(at, block).map_err(|_| damaged())?;
                let postings = block.documents.iter().zip(&block.frequencies);
                for (&ordinal, &frequency) in postings.take(block.length) {
                    push(ordinal, frequency);
                }
            }
            Ok(())
        }
    }
}
