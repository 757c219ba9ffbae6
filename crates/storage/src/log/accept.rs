//! Accepts the loss of a damaged range, so that the log can be written again.
//!
//! Nothing is accepted by default or in passing: the operator names the exact range that was
//! reported, and the log itself keeps the record of it (a bridge frame with the time).

use std::sync::Arc;

use super::check::{AcceptedLoss, FIRST_SEQ, Limit, Verification, check_segment, missing_start};
use super::cursor::{Cursor, Step};
use super::error::{Damage, LogError, io_error};
use super::rewrite::Rewriter;
use super::segment::{Segment, SegmentHeader};
use super::state::State;

/// Rewrites the segment in which the range was. The log must be opened anew afterwards.
pub(crate) fn accept_loss(
    state: &State,
    first_seq: u64,
    last_seq: u64,
) -> Result<AcceptedLoss, LogError> {
    let is_named = |damage: &Damage| damage.first_seq == first_seq && damage.last_seq == last_seq;
    let segments = state.segments();
    let known = state.damage();
    let mut found = Verification::default();
    missing_start(&state.dir, &segments, &mut found);
    if found.damage.iter().any(is_named) {
        stand_in_for_start(state, &segments, last_seq)?;
        return Ok(accepted(state, first_seq, last_seq));
    }
    for (at, segment) in segments.iter().enumerate() {
        let mut found = Verification::default();
        let next = segments.get(at + 1).map(|next| next.header);
        let limit = next.as_ref().map(Limit::next);
        let end = check_segment(segment, segment.end(), limit, &mut found)?;
        let behind_end = next.is_none() && end.next_seq == first_seq && known.iter().any(is_named);
        if behind_end || found.damage.iter().any(is_named) {
            let loss = Loss { state, first_seq, last_seq };
            loss.rewrite(segment, next, behind_end)?;
            return Ok(accepted(state, first_seq, last_seq));
        }
    }
    if segments.is_empty() && known.iter().any(is_named) {
        stand_in_for_all(state, last_seq)?;
        return Ok(accepted(state, first_seq, last_seq));
    }
    Err(LogError::NotDamaged { first_seq, last_seq })
}

fn accepted(state: &State, first_seq: u64, last_seq: u64) -> AcceptedLoss {
    tracing::warn!(dir = %state.dir.display(), first_seq, last_seq, "loss of records accepted");
    AcceptedLoss { first_seq, last_seq, accepted_at_ms: (state.options.clock)() }
}

struct Loss<'a> {
    state: &'a State,
    first_seq: u64,
    last_seq: u64,
}

impl Loss<'_> {
    /// Writes the segment again with a bridge where the range was; other damage stays visible.
    fn rewrite(
        &self,
        segment: &Arc<Segment>,
        next: Option<SegmentHeader>,
        behind_end: bool,
    ) -> Result<(), LogError> {
        let generation = self.state.names_end().generation + 1;
        let header = SegmentHeader { generation, ..segment.header };
        let mut rewriter = Rewriter::begin(self.state, header)?;
        let mut cursor = Cursor::new(segment, segment.end());
        let limit_seq = next.map_or(u64::MAX, |next| next.first_seq);
        // A hole whose bridge waits for the frame behind it, which knows how the chain goes on.
        let mut open = false;
        while cursor.expected_seq() < limit_seq {
            match cursor.step().map_err(io_error("reading", &segment.path))? {
                Step::Frame(frame) => {
                    if std::mem::take(&mut open) {
                        rewriter.bridge_loss(self.last_seq, frame.header.prev_hash)?;
                    }
                    rewriter.copy(&frame)?;
                }
                Step::Hole { expected_seq, next_seq, .. } => {
                    open = self.is_named(expected_seq, next_seq - 1);
                    if !open {
                        rewriter.skip_sector();
                    }
                }
                Step::Tail { expected_seq, .. } => {
                    if next.is_some() && self.is_named(expected_seq, limit_seq - 1) {
                        let resumes = next.map_or(0, |next| next.prev_hash);
                        rewriter.bridge_loss(self.last_seq, resumes)?;
                    }
                    break;
                }
            }
        }
        if open {
            let resumes = next.map_or(0, |next| next.prev_hash);
            rewriter.bridge_loss(self.last_seq, resumes)?;
        }
        if behind_end {
            rewriter.bridge_loss(self.last_seq, 0)?;
        }
        // Stands also for files that are missing before the next segment.
        let last_number = match next {
            Some(next) => next.first_number - 1,
            None => self.state.names_end().last_number.max(segment.header.last_number),
        };
        rewriter.finish(last_number, &[Arc::clone(segment)]).map(|_| ())
    }

    fn is_named(&self, first_seq: u64, last_seq: u64) -> bool {
        self.first_seq == first_seq && self.last_seq == last_seq
    }
}

/// The first segments are missing.
fn stand_in_for_start(
    state: &State,
    segments: &[Arc<Segment>],
    last_seq: u64,
) -> Result<(), LogError> {
    let Some(first) = segments.first() else { return Ok(()) };
    let header = blank_header(state, first.header.store_id);
    let mut rewriter = Rewriter::begin(state, header)?;
    rewriter.bridge_loss(last_seq, first.header.prev_hash)?;
    let last_number = first.header.first_number.saturating_sub(1).max(1);
    rewriter.finish(last_number, &[]).map(|_| ())
}

/// All segments are missing.
fn stand_in_for_all(state: &State, last_seq: u64) -> Result<(), LogError> {
    let entropy = &state.options.entropy;
    let random = (u128::from(entropy()) << 64) | u128::from(entropy());
    let header = blank_header(state, state.options.store_id.unwrap_or(random));
    let mut rewriter = Rewriter::begin(state, header)?;
    rewriter.bridge_loss(last_seq, 0)?;
    rewriter.finish(state.names_end().last_number.max(1), &[]).map(|_| ())
}

fn blank_header(state: &State, store_id: u128) -> SegmentHeader {
    SegmentHeader {
        store_id,
        first_number: 1,
        last_number: 1,
        generation: state.names_end().generation + 1,
        first_seq: FIRST_SEQ,
        last_seq: 0,
        seed: (state.options.entropy)(),
        file_bytes: 0,
        prev_hash: 0,
        created_at_ms: (state.options.clock)(),
    }
}
