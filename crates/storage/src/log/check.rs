//! Reads whole segments and says what is in them and what is missing.

use std::path::Path;
use std::sync::Arc;

use super::cursor::{Cursor, Step};
use super::error::{Damage, LogError, Proof, io_error};
use super::frame::Frame;
use super::segment::{Segment, SegmentHeader};

/// What a walk over the whole log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Segment files.
    pub segments: u64,
    /// Whole frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the frames.
    pub bytes: u64,
    /// First sequence number of the log.
    pub first_seq: u64,
    /// Last sequence number found.
    pub last_seq: u64,
    /// Places where the chain is interrupted though no record is missing.
    pub scars: Vec<Scar>,
    /// Acknowledged records that cannot be read.
    pub damage: Vec<Damage>,
    /// Losses that were accepted earlier.
    pub accepted: Vec<AcceptedLoss>,
}

impl Verification {
    /// Whether every acknowledged record is there.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }
}

/// A place where bytes between frames are damaged but no record was in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scar {
    /// The segment's file name.
    pub segment: String,
    /// Where the bytes begin.
    pub offset: u64,
    /// The record that follows.
    pub seq: u64,
}

/// A range whose loss was accepted, as the log itself records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// First sequence number lost.
    pub first_seq: u64,
    /// Last sequence number lost.
    pub last_seq: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_at_ms: u64,
}

/// How a segment ends.
#[derive(Debug)]
pub(crate) struct SegmentEnd {
    /// The last whole frame, with its offset.
    pub(crate) last: Option<(Frame, u64)>,
    /// First byte behind the whole frames.
    pub(crate) offset: u64,
    /// The sequence number that comes next.
    pub(crate) next_seq: u64,
    /// The hash that the next frame names.
    pub(crate) prev_hash: u128,
    /// Bytes behind the last whole frame, up to the last that is not zero.
    pub(crate) torn_bytes: u64,
}

/// Where a segment must lead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The number that follows.
    seq: u64,
    /// The hash that the next segment continues, where there is one.
    prev_hash: Option<u128>,
}

impl Limit {
    /// Up to a number.
    pub(crate) fn seq(seq: u64) -> Self {
        Self { seq, prev_hash: None }
    }

    /// Up to the next segment.
    pub(crate) fn next(next: &SegmentHeader) -> Self {
        Self { seq: next.first_seq, prev_hash: Some(next.prev_hash) }
    }
}

/// Walks over a segment up to where it must lead, or, without a limit, to its last whole frame.
pub(crate) fn check_segment(
    segment: &Segment,
    end: u64,
    limit: Option<Limit>,
    found: &mut Verification,
) -> Result<SegmentEnd, LogError> {
    let mut cursor = Cursor::new(segment, end);
    let mut last = None;
    found.segments += 1;
    loop {
        let offset = cursor.offset();
        if let Some(limit) = limit
            && cursor.expected_seq() >= limit.seq
        {
            let end = segment_end(&cursor, segment, last, 0);
            check_link(&mut cursor, segment, limit, found)?;
            return Ok(end);
        }
        match cursor.step().map_err(io_error("reading", &segment.path))? {
            Step::Frame(frame) => {
                count(segment, &frame, offset, found);
                last = Some((*frame, offset));
            }
            Step::Hole { offset, expected_seq, next_seq } if next_seq == expected_seq => {
                found.scars.push(Scar { segment: name(&segment.path), offset, seq: next_seq });
            }
            Step::Hole { offset, expected_seq, next_seq } => found.damage.push(Damage {
                first_seq: expected_seq,
                last_seq: next_seq.min(limit.map_or(next_seq, |limit| limit.seq)) - 1,
                path: segment.path.clone(),
                offset,
                proof: Proof::LaterFrame,
            }),
            Step::Tail { offset, expected_seq, torn_bytes } => {
                if let Some(limit) = limit {
                    found.damage.push(Damage {
                        first_seq: expected_seq,
                        last_seq: limit.seq - 1,
                        path: segment.path.clone(),
                        offset,
                        proof: Proof::LaterSegment,
                    });
                }
                return Ok(segment_end(&cursor, segment, last, torn_bytes));
            }
        }
    }
}

/// Whether the chain leads into the next segment, over heartbeats that may stand at the end.
fn check_link(
    cursor: &mut Cursor<'_>,
    segment: &Segment,
    limit: Limit,
    found: &mut Verification,
) -> Result<(), LogError> {
    let Some(prev_hash) = limit.prev_hash else { return Ok(()) };
    while cursor.expected_prev_hash().is_some_and(|hash| hash != prev_hash) {
        let offset = cursor.offset();
        match cursor.step().map_err(io_error("reading", &segment.path))? {
            Step::Frame(frame) if frame.header.is_heartbeat() => {
                count(segment, &frame, offset, found);
            }
            Step::Frame(_) | Step::Hole { .. } | Step::Tail { .. } => {
                let segment = name(&segment.path);
                found.scars.push(Scar { segment, offset, seq: limit.seq });
                return Ok(());
            }
        }
    }
    Ok(())
}

fn segment_end(
    cursor: &Cursor<'_>,
    segment: &Segment,
    last: Option<(Frame, u64)>,
    torn_bytes: u64,
) -> SegmentEnd {
    SegmentEnd {
        last,
        offset: cursor.offset(),
        next_seq: cursor.expected_seq(),
        prev_hash: cursor.expected_prev_hash().unwrap_or(segment.header.prev_hash),
        torn_bytes,
    }
}

fn count(segment: &Segment, frame: &Frame, offset: u64, found: &mut Verification) {
    found.frames += 1;
    found.bytes += u64::from(frame.header.frame_bytes);
    found.records += u64::from(frame.header.record_count);
    found.last_seq = found.last_seq.max(frame.header.last_seq);
    if frame.header.is_lost() {
        found.accepted.push(AcceptedLoss {
            first_seq: frame.header.first_seq,
            last_seq: frame.header.last_seq,
            accepted_at_ms: frame.header.written_at_ms,
        });
    }
    if frame.entries().is_err() {
        // Its hash is right, so it was written wrong; its records are as lost as by rot.
        found.damage.push(Damage {
            first_seq: frame.header.first_seq,
            last_seq: frame.header.last_seq,
            path: segment.path.clone(),
            offset,
            proof: Proof::LaterFrame,
        });
    }
}

/// Walks over all segments. `durable_seq` is the last record that must be there.
pub(crate) fn check_all(
    dir: &Path,
    segments: &[Arc<Segment>],
    durable_seq: u64,
) -> Result<Verification, LogError> {
    let mut found = Verification { first_seq: FIRST_SEQ, ..Verification::default() };
    missing_start(dir, segments, &mut found);
    for (at, segment) in segments.iter().enumerate() {
        let next = segments.get(at + 1).map(|next| Limit::next(&next.header));
        let limit = next.unwrap_or(Limit::seq(durable_seq + 1));
        check_segment(segment, segment.end(), Some(limit), &mut found)?;
    }
    Ok(found)
}

/// The first record ever appended.
pub(crate) const FIRST_SEQ: u64 = 1;

/// Notes what is missing before the first segment.
pub(crate) fn missing_start(dir: &Path, segments: &[Arc<Segment>], found: &mut Verification) {
    let Some(first) = segments.first() else { return };
    if first.header.first_seq > FIRST_SEQ {
        found.damage.push(Damage {
            first_seq: FIRST_SEQ,
            last_seq: first.header.first_seq - 1,
            path: dir.to_owned(),
            offset: 0,
            proof: Proof::LaterSegment,
        });
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
