//! Reads durable records in order: the newest from memory, older ones from the segments.

use super::check::FIRST_SEQ;
use super::cursor::{Cursor, Step};
use super::error::{Damage, LogError, Proof, io_error};
use super::record::Entry;
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use super::state::State;

/// A piece of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records in order. Numbers that were compacted away are missing between them.
    pub entries: Vec<Entry>,
    /// Where to go on: everything before it was read or is no longer in the log.
    pub next_seq: u64,
}

/// Reads from `from_seq` on until about `bytes_max` of payload are gathered (the frame in which
/// that happens is read to its end) or nothing durable is left.
pub(crate) fn read(state: &State, from_seq: u64, bytes_max: u64) -> Result<Batch, LogError> {
    if from_seq < FIRST_SEQ {
        return Err(LogError::BeforeFirst { seq: from_seq, first_seq: FIRST_SEQ });
    }
    let durable_seq = state.durable_seq();
    if from_seq > durable_seq {
        return Ok(Batch { entries: Vec::new(), next_seq: from_seq });
    }
    if let Some(entries) = state.cache.read(from_seq, bytes_max) {
        let next_seq = entries.last().map_or(from_seq, |entry| entry.seq + 1);
        return Ok(Batch { entries, next_seq });
    }
    let segments = state.segments();
    let mut at = segments.partition_point(|segment| segment.header.first_seq <= from_seq);
    if at == 0 {
        return Err(LogError::Damaged(Damage {
            first_seq: FIRST_SEQ,
            last_seq: segments.first().map_or(durable_seq, |first| first.header.first_seq - 1),
            path: state.dir.clone(),
            offset: 0,
            proof: if segments.is_empty() { Proof::Caller } else { Proof::LaterSegment },
        }));
    }
    let mut batch = Batch { entries: Vec::new(), next_seq: from_seq };
    let mut bytes = 0;
    while let Some(segment) = segments.get(at - 1)
        && batch.next_seq <= durable_seq
        && (bytes < bytes_max || batch.entries.is_empty())
    {
        let next = segments.get(at).map(|next| next.header.first_seq);
        let limit_seq = next.unwrap_or(durable_seq + 1).min(durable_seq + 1);
        let walk = Walk { segment, limit_seq, bytes_max };
        if !walk.read(&mut batch, &mut bytes)? {
            break;
        }
        at += 1;
    }
    Ok(batch)
}

struct Walk<'a> {
    segment: &'a Segment,
    limit_seq: u64,
    bytes_max: u64,
}

impl Walk<'_> {
    /// Returns whether reading may go on in the next segment.
    fn read(&self, batch: &mut Batch, bytes: &mut u64) -> Result<bool, LogError> {
        let from_seq = batch.next_seq;
        let mut cursor = self.cursor(from_seq);
        while cursor.expected_seq() < self.limit_seq {
            let offset = cursor.offset();
            let step = cursor.step().map_err(io_error("reading", &self.segment.path))?;
            let (first_seq, last_seq, offset, proof) = match step {
                Step::Frame(frame) if frame.header.last_seq < from_seq => continue,
                Step::Frame(frame) => match frame.entries() {
                    Ok(entries) => {
                        for entry in entries.into_iter().filter(|entry| entry.seq >= from_seq) {
                            *bytes += entry.payload.len() as u64;
                            batch.entries.push(entry);
                        }
                        batch.next_seq = frame.header.last_seq + 1;
                        if *bytes >= self.bytes_max && !batch.entries.is_empty() {
                            return Ok(false);
                        }
                        continue;
                    }
                    Err(_) => {
                        let header = frame.header;
                        (header.first_seq, header.last_seq, offset, Proof::LaterFrame)
                    }
                },
                Step::Hole { next_seq, .. } if next_seq <= from_seq => continue,
                Step::Hole { offset, expected_seq, next_seq } if next_seq > expected_seq => {
                    (expected_seq, next_seq - 1, offset, Proof::LaterFrame)
                }
                Step::Hole { .. } => continue,
                Step::Tail { offset, expected_seq, .. } => {
                    (expected_seq, self.limit_seq - 1, offset, Proof::LaterSegment)
                }
            };
            if !batch.entries.is_empty() {
                return Ok(false);
            }
            let path = self.segment.path.clone();
            return Err(LogError::Damaged(Damage { first_seq, last_seq, path, offset, proof }));
        }
        batch.next_seq = batch.next_seq.max(self.limit_seq);
        Ok(true)
    }

    fn cursor(&self, seq: u64) -> Cursor<'_> {
        let (first_seq, offset) = self.segment.floor(seq);
        let end = self.segment.end();
        if offset == SEGMENT_HEADER_BYTES as u64 {
            Cursor::new(self.segment, end)
        } else {
            Cursor::at(self.segment, end, first_seq, offset)
        }
    }
}
