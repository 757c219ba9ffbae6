//! Opens what a crash left: decides what is torn and what is damaged, and makes what is kept
//! durable before anybody reads it.
//!
//! | what stands behind the last whole frame | what it is | what happens |
//! |---|---|---|
//! | zeros | a clean end | the log goes on there |
//! | bytes that are no frame, and no whole frame later | a torn tail, never acknowledged | cut |
//! | the same, and a whole frame or segment later, or a checkpoint beyond | damage to acknowledged records | opened read-only with the exact range |
//! | an unreadable sector | not known | the open fails, nothing is changed |
//!
//! The last frame with records may be one that only the page cache shows (a failed sync marks
//! pages clean). So it is not believed where it stands: it is copied into a fresh segment, which
//! is synced before the log is served. The old segment then ends before it.

use std::path::Path;
use std::sync::Arc;

use super::check::{
    AcceptedLoss, FIRST_SEQ, Limit, Scar, SegmentEnd, Verification, check_segment, missing_start,
};
use super::error::{Damage, LogError, Proof, io_error};
use super::frame::{
    FRAME_HEADER_BYTES, Frame, FrameContext, HEARTBEAT_BYTES, Span, encode, encode_heartbeat,
};
use super::inventory::{Inventory, take_inventory};
use super::options::{LogOptions, Mutation, OpenCheck};
use super::record::Class;
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use super::spare::Spares;
use super::state::NamesEnd;
use super::writer::Position;
use crate::fs::FileSystem;

/// What was found and done when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the log was created.
    pub created: bool,
    /// The store that the log belongs to.
    pub store_id: u128,
    /// Segment files.
    pub segments: u64,
    /// Last record that was acknowledged, damaged or not; 0 in an empty log.
    pub durable_seq: u64,
    /// Bytes of a torn tail that were cut. Nothing acknowledged was in them.
    pub torn_bytes: u64,
    /// Records that had been written but maybe not synced: made durable anew.
    pub copied_records: u64,
    /// Acknowledged records that cannot be read. Not empty: the log is read-only.
    pub damage: Vec<Damage>,
    /// Places where bytes are damaged but no record was in them.
    pub scars: Vec<Scar>,
    /// Losses accepted earlier, of the segments that were read.
    pub accepted: Vec<AcceptedLoss>,
    /// Segments whose header was rebuilt from their frames.
    pub headers_rebuilt: Vec<String>,
    /// Files with a segment's name that cannot be read at all.
    pub unreadable: Vec<String>,
}

/// An opened log: where writing goes on, unless it is damaged.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) position: Option<Position>,
    pub(crate) recovery: Recovery,
    pub(crate) names_end: NamesEnd,
}

/// Reads the folder and leaves it in a state from which the log can be served.
pub(crate) fn recover(
    fs: &dyn FileSystem,
    dir: &Path,
    options: &LogOptions,
    spares: &Spares,
) -> Result<Opened, LogError> {
    // A process that died between naming a segment and syncing the folder left a name that only
    // the cache knows. Nothing may be built on it before it is durable.
    if !options.mutated(Mutation::TrustTail) {
        fs.sync_dir(dir).map_err(io_error("syncing", dir))?;
    }
    let inventory = take_inventory(fs, dir, options)?;
    let Inventory { segments, headers_rebuilt, unreadable } = inventory;
    let readable = segments.iter().map(|segment| segment.header.file_name());
    let names_end =
        readable.chain(unreadable.iter().copied()).fold(NamesEnd::default(), |end, name| {
            NamesEnd {
                last_number: end.last_number.max(name.last_number),
                generation: end.generation.max(name.generation),
            }
        });
    let nothing = segments.is_empty() && unreadable.is_empty();
    if nothing && (options.durable_seq_min == 0 || options.mutated(Mutation::TruncateOnDamage)) {
        return create(options, spares);
    }
    if let Some(active) = segments.last()
        && !options.mutated(Mutation::TrustTail)
    {
        active.file.drop_cache().map_err(io_error("dropping the cache of", &active.path))?;
    }
    let (mut found, mut end) = examine(dir, &segments, options)?;
    if options.mutated(Mutation::TruncateOnDamage) {
        end = end.map(|end| cut_at_damage(end, &segments, &found));
    }
    let last_seq = end.as_ref().map_or(FIRST_SEQ, |end| end.next_seq) - 1;
    let last_number = segments.last().map_or(0, |segment| segment.header.last_number);
    let unreadable_end = unreadable.iter().any(|name| name.last_number > last_number);
    claim_missing_end(dir, last_seq, unreadable_end, options, &mut found);
    if options.mutated(Mutation::TruncateOnDamage) {
        found.damage.clear();
    }
    let mut recovery = Recovery {
        created: false,
        store_id: segments.last().map_or(0, |segment| segment.header.store_id),
        segments: segments.len() as u64,
        // Lost records at the end had numbers, too: reading there must fail, not wait.
        durable_seq: found.damage.iter().map(|damage| damage.last_seq).fold(last_seq, u64::max),
        damage: found.damage,
        scars: found.scars,
        accepted: found.accepted,
        headers_rebuilt,
        unreadable: unreadable.iter().map(ToString::to_string).collect(),
        ..Recovery::default()
    };
    let end = match end {
        Some(end) if recovery.damage.is_empty() => end,
        end => {
            if let (Some(end), Some(active)) = (end, segments.last()) {
                active.set_end(end.offset);
            }
            return Ok(Opened { segments, position: None, recovery, names_end });
        }
    };
    let tail = Tail { options, spares };
    let opened = tail.settle(segments, end, &mut recovery)?;
    Ok(Opened { names_end, ..opened })
}

/// Begins an empty log.
fn create(options: &LogOptions, spares: &Spares) -> Result<Opened, LogError> {
    let high = (options.entropy)();
    let low = (options.entropy)();
    let store_id = options.store_id.unwrap_or((u128::from(high) << 64) | u128::from(low));
    let header = SegmentHeader {
        store_id,
        first_number: 1,
        last_number: 1,
        generation: 0,
        first_seq: FIRST_SEQ,
        last_seq: 0,
        seed: (options.entropy)(),
        file_bytes: (SEGMENT_HEADER_BYTES + HEARTBEAT_BYTES) as u64,
        prev_hash: 0,
        created_at_ms: (options.clock)(),
    };
    let segment = spares
        .activate(header, &[], Class::Ordinary)
        .map_err(super::spare::ActivateError::into_inner)?;
    segment.set_end(SEGMENT_HEADER_BYTES as u64);
    let position = Position {
        offset: SEGMENT_HEADER_BYTES as u64,
        next_seq: FIRST_SEQ,
        prev_hash: 0,
        written_at_ms: 0,
    };
    let recovery = Recovery { created: true, store_id, segments: 1, ..Recovery::default() };
    Ok(Opened {
        segments: vec![Arc::new(segment)],
        position: Some(position),
        recovery,
        names_end: NamesEnd { last_number: 1, generation: 0 },
    })
}

/// Reads the last segment, and the others where the options or a gap in the numbers ask for it.
fn examine(
    dir: &Path,
    segments: &[Arc<Segment>],
    options: &LogOptions,
) -> Result<(Verification, Option<SegmentEnd>), LogError> {
    let mut found = Verification::default();
    missing_start(dir, segments, &mut found);
    for pair in segments.windows(2) {
        let (segment, next) = (&pair[0].header, &pair[1].header);
        let gap = segment.last_number + 1 != next.first_number;
        if gap || options.check == OpenCheck::Full {
            check_segment(&pair[0], pair[0].end(), Some(Limit::next(next)), &mut found)?;
        }
    }
    let Some(last) = segments.last() else { return Ok((found, None)) };
    let limit = (last.header.generation > 0).then_some(Limit::seq(last.header.last_seq + 1));
    let end = check_segment(last, last.end(), limit, &mut found)?;
    Ok((found, Some(end)))
}

/// What the caller knows to have been durable must be there, and so must what an unreadable
/// segment at the end held.
fn claim_missing_end(
    dir: &Path,
    last_seq: u64,
    unreadable_end: bool,
    options: &LogOptions,
    found: &mut Verification,
) {
    let covered = found.damage.iter().map(|damage| damage.last_seq).max().unwrap_or(0);
    let first_seq = last_seq.max(covered) + 1;
    if options.durable_seq_min >= first_seq || unreadable_end {
        found.damage.push(Damage {
            first_seq,
            last_seq: options.durable_seq_min.max(first_seq),
            path: dir.to_owned(),
            offset: 0,
            proof: Proof::Caller,
        });
    }
}

/// What many logs do, and this one only to prove that its tests notice: ends at the first frame
/// that cannot be read.
fn cut_at_damage(end: SegmentEnd, segments: &[Arc<Segment>], found: &Verification) -> SegmentEnd {
    let active = segments.last().map(|segment| &segment.path);
    match found.damage.iter().find(|damage| Some(&damage.path) == active) {
        Some(damage) => SegmentEnd {
            last: None,
            offset: damage.offset,
            next_seq: damage.first_seq,
            torn_bytes: 1,
            ..end
        },
        None => end,
    }
}

struct Tail<'a> {
    options: &'a LogOptions,
    spares: &'a Spares,
}

impl Tail<'_> {
    /// Makes the end of the log durable and finds where writing goes on.
    fn settle(
        &self,
        mut segments: Vec<Arc<Segment>>,
        end: SegmentEnd,
        recovery: &mut Recovery,
    ) -> Result<Opened, LogError> {
        let active = segments.last().expect("only a log with segments has an end").clone();
        let unproven = end.last.as_ref().filter(|(frame, _)| !frame.header.is_heartbeat());
        let unproven = unproven.filter(|_| active.header.generation == 0);
        let position = Position {
            offset: end.offset,
            next_seq: end.next_seq,
            prev_hash: end.prev_hash,
            written_at_ms: end.last.as_ref().map_or(0, |(frame, _)| frame.header.written_at_ms),
        };
        recovery.torn_bytes = end.torn_bytes;
        active.set_end(end.offset);
        if self.options.mutated(Mutation::TrustTail) {
            return Ok(opened(segments, position, recovery));
        }
        let rewritten = active.header.generation > 0;
        if unproven.is_none() && end.torn_bytes == 0 && !rewritten {
            self.confirm(&active, &end, 0)?;
            return Ok(opened(segments, position, recovery));
        }
        recovery.copied_records =
            unproven.map_or(0, |(frame, _)| u64::from(frame.header.record_count));
        match self.continue_in_fresh(&active, &end, unproven, position)? {
            Some((segment, position)) => {
                active.set_end(unproven.map_or(end.offset, |(_, offset)| *offset));
                let _ = active.file.truncate(active.end());
                segments.push(Arc::new(segment));
                Ok(opened(segments, position, recovery))
            }
            None => {
                self.confirm(&active, &end, end.torn_bytes)?;
                Ok(opened(segments, position, recovery))
            }
        }
    }

    /// Copies the unproven frame into a fresh segment and makes it durable. `None` if there is no
    /// room for one.
    fn continue_in_fresh(
        &self,
        active: &Segment,
        end: &SegmentEnd,
        unproven: Option<&(Frame, u64)>,
        position: Position,
    ) -> Result<Option<(Segment, Position)>, LogError> {
        let seed = (self.options.entropy)();
        let mut content = Vec::new();
        let mut prev_hash = position.prev_hash;
        if let Some((frame, _)) = unproven {
            prev_hash = copy_frame(&mut content, frame, seed);
            if !self.options.mutated(Mutation::SkipHeartbeat) {
                // The file gets its name after its sync, so the heartbeat beside the copy is true.
                let context = FrameContext {
                    seed,
                    prev_hash,
                    durable_seq: frame.header.last_seq,
                    written_at_ms: frame.header.written_at_ms,
                };
                let mut heartbeat = Vec::new();
                prev_hash = encode_heartbeat(&mut heartbeat, &context, position.next_seq);
                content.extend_from_slice(&heartbeat);
            }
        }
        let number = active.header.last_number + 1;
        let header = SegmentHeader {
            store_id: active.header.store_id,
            first_number: number,
            last_number: number,
            generation: 0,
            first_seq: unproven.map_or(end.next_seq, |(frame, _)| frame.header.first_seq),
            last_seq: 0,
            seed,
            file_bytes: (SEGMENT_HEADER_BYTES + content.len() + HEARTBEAT_BYTES) as u64,
            prev_hash: unproven.map_or(end.prev_hash, |(frame, _)| frame.header.prev_hash),
            created_at_ms: (self.options.clock)(),
        };
        let segment = match self.spares.activate(header, &content, Class::Essential) {
            Ok(segment) => segment,
            Err(super::spare::ActivateError::Unavailable(LogError::DiskFull { .. }))
                if active.header.generation == 0 =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into_inner()),
        };
        let offset = (SEGMENT_HEADER_BYTES + content.len()) as u64;
        segment.set_end(offset);
        Ok(Some((segment, Position { offset, prev_hash, ..position })))
    }

    /// Makes the last frame durable where it stands, by writing the same bytes again, and zeros
    /// over a torn tail. For a heartbeat this is the ordinary way; for records only when the disk
    /// is full, since it writes over the place where acknowledged bytes may be.
    fn confirm(&self, active: &Segment, end: &SegmentEnd, torn: u64) -> Result<(), LogError> {
        if let Some((frame, offset)) = &end.last {
            let rewritten = active.file.write_all_at(&frame.stored, *offset);
            rewritten.map_err(io_error("confirming the end of", &active.path))?;
        }
        if torn > 0 {
            let zeros = vec![0; torn as usize];
            let cut = active.file.write_all_at(&zeros, end.offset);
            cut.map_err(io_error("cutting the torn end of", &active.path))?;
        }
        active.file.sync_data().map_err(io_error("syncing", &active.path))
    }
}

fn opened(segments: Vec<Arc<Segment>>, position: Position, recovery: &Recovery) -> Opened {
    let mut recovery = recovery.clone();
    recovery.segments = segments.len() as u64;
    Opened { segments, position: Some(position), recovery, names_end: NamesEnd::default() }
}

/// The same records under another segment's seed. Returns the new hash.
fn copy_frame(out: &mut Vec<u8>, frame: &Frame, seed: u64) -> u128 {
    let header = &frame.header;
    let context = FrameContext {
        seed,
        prev_hash: header.prev_hash,
        durable_seq: header.durable_seq,
        written_at_ms: header.written_at_ms,
    };
    let span = Span {
        first_seq: header.first_seq,
        last_seq: header.last_seq,
        record_count: header.record_count,
        flags: header.flags,
        payload_raw_bytes: header.payload_raw_bytes,
    };
    let from = FRAME_HEADER_BYTES;
    let payload = &frame.stored[from..from + header.payload_bytes as usize];
    encode(out, &context, &span, payload)
}
