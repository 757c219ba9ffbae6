//! [`merge`]: adjacent segments to one, dropping documents that no longer live.
//!
//! Units keep their order, so every list is the concatenation of its sources' lists under a rising
//! map of unit numbers. Units whose documents are all gone vanish; neighbouring units of short
//! documents that fit into one are joined, which is how a thousand batches of one document end up in
//! units as full as if they had come at once. A unit that loses only some documents keeps their
//! trigrams: a candidate too many, never one too few.

use std::io::{self, Write};

use super::postings::Corrupt;
use super::segment::{Segment, SegmentWriter};
use super::trigram::Trigram;
use super::unit::{UNIT_BYTES, Unit};
use crate::bitmap::Bitmap;
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::ViewError;

/// Stands in a unit map for a unit that is dropped.
const DROPPED: u32 = u32::MAX;
/// Trigrams between two looks at the stop flag: some milliseconds of work.
const STOP_EVERY: usize = 1024;

/// Where the units of the sources go, and what the merged segment holds.
struct Layout {
    /// For each source, the new number of each unit.
    maps: Vec<Vec<u32>>,
    units: Vec<Unit>,
    numbers: Vec<DocNumber>,
    /// Where the documents come from: source and position there.
    origins: Vec<(u32, u32)>,
}

/// Writes the merger of `sources` (adjacent, in order) to `out`; documents not in `living` are left
/// out, all are kept when it is `None`. Ends with [`io::ErrorKind::Interrupted`] when `stop` is set.
pub(super) fn merge<W: Write>(
    sources: &[&Segment],
    living: Option<&Bitmap>,
    out: W,
    stop: &Stop,
) -> Result<W, ViewError> {
    let layout = lay_out(sources, living);
    let failed = |source| ViewError::Io { doing: "write a merged segment".into(), source };
    let mut writer = SegmentWriter::new(out, layout.units.len() as u32).map_err(failed)?;
    let mut cursors = vec![0usize; sources.len()];
    let (mut decoded, mut units) = (Vec::new(), Vec::new());
    for step in 0.. {
        if step % STOP_EVERY == 0 && stop.is_set() {
            return Err(failed(io::Error::from(io::ErrorKind::Interrupted)));
        }
        let heads = sources.iter().zip(&cursors);
        let next = heads
            .filter(|(source, at)| **at < source.trigram_count())
            .map(|(source, &at)| source.entry(at).trigram)
            .min();
        let Some(trigram) = next else { break };
        units.clear();
        for ((source, cursor), map) in sources.iter().zip(&mut cursors).zip(&layout.maps) {
            decoded.clear();
            take(source, cursor, trigram, &mut decoded).map_err(|Corrupt| {
                ViewError::damaged(source.name(), "a posting list does not match its checksum")
            })?;
            append(&decoded, map, &mut units);
        }
        if !units.is_empty() {
            writer.put(trigram, &units).map_err(failed)?;
        }
    }
    for &(source, document) in &layout.origins {
        let source = sources[source as usize];
        let signatures = source.signatures(document..document + 1).map_err(|Corrupt| {
            ViewError::damaged(source.name(), "a signature does not match its checksum")
        })?;
        for signature in signatures {
            writer.sign(signature.0).map_err(failed)?;
        }
    }
    writer.finish(&layout.units, &layout.numbers).map_err(failed)
}

/// Decodes the list of `trigram` if it is the next of `source`, and moves on.
fn take(
    source: &Segment,
    cursor: &mut usize,
    trigram: Trigram,
    decoded: &mut Vec<u32>,
) -> Result<(), Corrupt> {
    if *cursor < source.trigram_count() {
        let entry = source.entry(*cursor);
        if entry.trigram == trigram {
            source.list(&entry)?.decode(decoded)?;
            *cursor += 1;
        }
    }
    Ok(())
}

/// Appends the mapped units; the map rises, so joined units come twice in a row at most.
fn append(decoded: &[u32], map: &[u32], units: &mut Vec<u32>) {
    for &unit in decoded {
        let new = map.get(unit as usize).copied().unwrap_or(DROPPED);
        if new != DROPPED && units.last() != Some(&new) {
            units.push(new);
        }
    }
}

fn lay_out(sources: &[&Segment], living: Option<&Bitmap>) -> Layout {
    let mut layout =
        Layout { maps: Vec::new(), units: Vec::new(), numbers: Vec::new(), origins: Vec::new() };
    let lives = |number| living.is_none_or(|living| living.contains(number));
    // Whether the last unit holds whole short documents only, so that more may join it.
    let mut joinable = false;
    for (origin, source) in sources.iter().enumerate() {
        let count = source.unit_count();
        let mut map = Vec::with_capacity(count as usize);
        // New position of the long document that is being copied, over several units.
        let mut long: Option<(u32, u32)> = None;
        for index in 0..count {
            let unit = source.unit(index);
            let documents = source.documents_of(index);
            let next_goes_on =
                index + 1 < count && source.unit(index + 1).document == unit.document;
            let whole = unit.offset == 0 && !next_goes_on;
            let position = match long {
                Some((document, position)) if unit.offset > 0 && document == unit.document => {
                    Some(position)
                }
                _ => {
                    let first = layout.numbers.len() as u32;
                    for document in documents.filter(|&at| lives(source.number(at))) {
                        layout.numbers.push(source.number(document));
                        layout.origins.push((origin as u32, document));
                    }
                    (layout.numbers.len() as u32 > first).then_some(first)
                }
            };
            let Some(position) = position else {
                map.push(DROPPED);
                long = None;
                continue;
            };
            long = Some((unit.document, position));
            match layout.units.last_mut() {
                Some(last)
                    if joinable
                        && whole
                        && last.bytes as usize + unit.bytes as usize <= UNIT_BYTES =>
                {
                    last.bytes += unit.bytes;
                }
                _ => layout.units.push(Unit { document: position, ..unit }),
            }
            joinable = whole;
            map.push(layout.units.len() as u32 - 1);
        }
        layout.maps.push(map);
    }
    layout
}
