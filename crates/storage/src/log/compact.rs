//! Rewrites old segments without the records that nobody needs.
//!
//! Invariants:
//! - The log stays the full source of truth: kept records keep their numbers, kinds and bytes.
//! - Only sealed segments are touched, so appends go on.
//! - At any moment either the old files or the new one are complete and durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cursor::{Cursor, Step};
use super::error::{Damage, LogError, Proof, io_error};
use super::record::Entry;
use super::rewrite::Rewriter;
use super::segment::{Segment, SegmentHeader};
use super::state::State;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Segments read and replaced.
    pub segments_replaced: u64,
    /// Segments written.
    pub segments_written: u64,
    /// Bytes of the segments replaced.
    pub bytes_before: u64,
    /// Bytes of the segments written.
    pub bytes_after: u64,
    /// Records written.
    pub records_kept: u64,
    /// Records left out.
    pub records_dropped: u64,
}

/// A rewritten segment that is large enough is rewritten again only to drop at least this share
/// of its bytes: otherwise each call would rewrite the whole log.
pub(crate) const DROP_PERCENT_MIN: u64 = 25;

/// Rewrites the sealed segments that end at or before `through_seq`. See
/// [`crate::log::SyncLog::compact`].
pub(crate) fn compact(
    state: &State,
    through_seq: u64,
    keep: &mut dyn FnMut(&Entry) -> bool,
    bytes_per_s: u64,
    drop_percent_min: u64,
) -> Result<Compaction, LogError> {
    let mut pass = Pass {
        state,
        keep,
        drop_percent_min,
        pace: Pace { bytes_per_s, begun: Instant::now(), bytes: 0 },
        done: Compaction::default(),
    };
    // Segments behind the ones compacted stay where they are counted from the end of the log at
    // the start: appends only add behind them.
    let segments = state.segments();
    let sealed = segments.windows(2).take_while(|pair| pair[1].header.first_seq <= through_seq + 1);
    let candidates: Vec<Candidate> = sealed
        .map(|pair| Candidate { segment: Arc::clone(&pair[0]), next: pair[1].header })
        .collect();
    let mut at = 0;
    while at < candidates.len() {
        state.check_writable()?;
        let rest = &candidates[at..];
        if !pass.is_worth(rest)? {
            at += 1;
            continue;
        }
        at += match pass.rewrite(rest, rest.len()) {
            Err(LogError::DiskFull { .. }) if state.spares.release_reserve()? => {
                pass.rewrite(rest, 1)?
            }
            result => result?,
        };
    }
    Ok(pass.done)
}

struct Candidate {
    segment: Arc<Segment>,
    next: SegmentHeader,
}

struct Pass<'a> {
    state: &'a State,
    keep: &'a mut dyn FnMut(&Entry) -> bool,
    drop_percent_min: u64,
    pace: Pace,
    done: Compaction,
}

impl Pass<'_> {
    /// Whether to begin a rewritten file with the first of the candidates.
    fn is_worth(&mut self, candidates: &[Candidate]) -> Result<bool, LogError> {
        let Some(candidate) = candidates.first() else { return Ok(false) };
        if candidate.segment.header.generation == 0 {
            return Ok(true);
        }
        let bytes_max = self.state.options.compacted_bytes_max;
        let joins = candidate.segment.end() < bytes_max / 2
            && candidates.get(1).is_some_and(|next| next.segment.end() < bytes_max / 2);
        if joins {
            return Ok(true);
        }
        let (mut bytes, mut dropped) = (0_u64, 0_u64);
        let keep = &mut *self.keep;
        let pace = &mut self.pace;
        walk(candidate, pace, &mut |item| {
            if let Item::Entry(entry) = item {
                bytes += entry.payload.len() as u64 + 1;
                if !keep(&entry) {
                    dropped += entry.payload.len() as u64 + 1;
                }
            }
            Ok(())
        })?;
        Ok(dropped > 0 && dropped * 100 >= bytes * self.drop_percent_min)
    }

    /// Rewrites the first candidates, as many as fit one file and `count_max` at most, into one.
    /// Returns how many.
    fn rewrite(&mut self, candidates: &[Candidate], count_max: usize) -> Result<usize, LogError> {
        let first = &candidates[0].segment.header;
        let header = SegmentHeader {
            seed: (self.state.options.entropy)(),
            created_at_ms: (self.state.options.clock)(),
            ..*first
        };
        let mut rewriter = Rewriter::begin(self.state, header)?;
        let mut count = 0;
        let (mut kept, mut dropped) = (0, 0);
        for candidate in candidates.iter().take(count_max) {
            let full = rewriter.bytes() >= self.state.options.compacted_bytes_max;
            if count > 0 && full {
                break;
            }
            let keep = &mut *self.keep;
            walk(candidate, &mut self.pace, &mut |item| match item {
                Item::Entry(entry) if keep(&entry) => {
                    kept += 1;
                    rewriter.push(&entry)
                }
                Item::Entry(_) => {
                    dropped += 1;
                    Ok(())
                }
                Item::Time(written_at_ms) => {
                    rewriter.note_time(written_at_ms);
                    Ok(())
                }
                Item::Lost { first_seq, last_seq, accepted_at_ms } => {
                    rewriter.flush(first_seq - 1)?;
                    rewriter.note_time(accepted_at_ms);
                    rewriter.bridge_loss(last_seq, 0)
                }
            })?;
            rewriter.flush(candidate.next.first_seq - 1)?;
            count += 1;
        }
        let last = &candidates[count - 1];
        rewriter.bridge_end(last.next.prev_hash)?;
        let replaced: Vec<Arc<Segment>> =
            candidates[..count].iter().map(|c| Arc::clone(&c.segment)).collect();
        let written = rewriter.finish(last.segment.header.last_number, &replaced)?;
        self.done.segments_replaced += count as u64;
        self.done.segments_written += 1;
        self.done.bytes_before += replaced.iter().map(|segment| segment.end()).sum::<u64>();
        self.done.bytes_after += written.end();
        self.done.records_kept += kept;
        self.done.records_dropped += dropped;
        Ok(count)
    }
}

/// What is in a segment.
enum Item {
    Entry(Entry),
    Time(u64),
    Lost { first_seq: u64, last_seq: u64, accepted_at_ms: u64 },
}

/// Hands out what is in a segment, in order. Fails on damage: what cannot be read must not be
/// rewritten.
fn walk(
    candidate: &Candidate,
    pace: &mut Pace,
    each: &mut dyn FnMut(Item) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let segment = &candidate.segment;
    let limit_seq = candidate.next.first_seq;
    let damaged = |first_seq, last_seq, offset, proof| {
        let path = segment.path.clone();
        Err(LogError::Damaged(Damage { first_seq, last_seq, path, offset, proof }))
    };
    let mut cursor = Cursor::new(segment, segment.end());
    while cursor.expected_seq() < limit_seq {
        let at = cursor.offset();
        match cursor.step().map_err(io_error("reading", &segment.path))? {
            Step::Frame(frame) => {
                let header = frame.header;
                pace.spend(u64::from(header.frame_bytes));
                if header.is_lost() {
                    each(Item::Lost {
                        first_seq: header.first_seq,
                        last_seq: header.last_seq,
                        accepted_at_ms: header.written_at_ms,
                    })?;
                    continue;
                }
                each(Item::Time(header.written_at_ms))?;
                let Ok(entries) = frame.entries() else {
                    return damaged(header.first_seq, header.last_seq, at, Proof::LaterFrame);
                };
                for entry in entries {
                    each(Item::Entry(entry))?;
                }
            }
            Step::Hole { expected_seq, next_seq, .. } if next_seq == expected_seq => {}
            Step::Hole { offset, expected_seq, next_seq } => {
                return damaged(expected_seq, next_seq - 1, offset, Proof::LaterFrame);
            }
            Step::Tail { offset, expected_seq, .. } => {
                return damaged(expected_seq, limit_seq - 1, offset, Proof::LaterSegment);
            }
        }
    }
    Ok(())
}

/// Keeps reading within a rate, so that compaction does not starve commits and queries.
struct Pace {
    bytes_per_s: u64,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    fn spend(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes_per_s == 0 {
            return;
        }
        let due_ms = self.bytes.saturating_mul(1000) / self.bytes_per_s;
        let due = Duration::from_millis(due_ms);
        if let Some(ahead) = due.checked_sub(self.begun.elapsed()) {
            std::thread::sleep(ahead);
        }
    }
}
