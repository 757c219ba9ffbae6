//! The one writer of a log: builds a frame, writes it, syncs it, and only then says so.
//!
//! Invariants:
//! - Between frames everything written is synced. At most one frame is ever in flight.
//! - A failed write or sync ends all writing; it is never tried again.
//! - Behind every frame the active segment has room for a heartbeat.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::error::{LogError, io_error};
use super::frame::{
    FrameContext, HEARTBEAT_BYTES, Span, encode, encode_heartbeat, frame_bytes, push_record,
    records_bytes,
};
use super::options::Mutation;
use super::record::{Appended, Class, Entry, Record, receipt};
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use super::spare::ActivateError;
use super::state::State;

/// Where writing goes on in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) next_seq: u64,
    pub(crate) prev_hash: u128,
    pub(crate) written_at_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Writer {
    state: Arc<State>,
    active: Arc<Segment>,
    at: Position,
    heartbeat_due: bool,
    frame: Vec<u8>,
    payload: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(state: Arc<State>, active: Arc<Segment>, at: Position) -> Self {
        Self { state, active, at, heartbeat_due: false, frame: Vec::new(), payload: Vec::new() }
    }

    /// Whether the last commit is not yet proven durable by what follows it.
    pub(crate) fn heartbeat_due(&self) -> bool {
        self.heartbeat_due
    }

    /// Makes the records of several callers durable in one frame. All are durable on return, or
    /// none is acknowledged.
    pub(crate) fn commit(
        &mut self,
        groups: &[&[Record]],
        class: Class,
    ) -> Result<Vec<Appended>, LogError> {
        self.state.check_writable()?;
        if groups.iter().any(|records| records.is_empty()) || groups.is_empty() {
            return Err(LogError::NoRecords);
        }
        let payload_bytes = groups.iter().map(|records| records_bytes(records)).sum();
        let bytes = frame_bytes(payload_bytes);
        let frame_bytes_max = self.state.options.frame_bytes_max;
        if bytes as u64 > frame_bytes_max {
            return Err(LogError::TooLarge { bytes: bytes as u64, frame_bytes_max });
        }
        if self.at.offset + (bytes + HEARTBEAT_BYTES) as u64 > self.active.header.file_bytes {
            self.rotate(bytes, class)?;
        }
        let first_seq = self.at.next_seq;
        let appended = self.fill_payload(groups);
        let last_seq = appended.last().map_or(first_seq, |appended| appended.last_seq);
        let span = Span {
            first_seq,
            last_seq,
            record_count: (last_seq + 1 - first_seq) as u32,
            flags: 0,
            payload_raw_bytes: payload_bytes as u32,
        };
        let context = self.context();
        let hash = encode(&mut self.frame, &context, &span, &self.payload);
        self.write_frame(hash, context.written_at_ms)?;
        self.at.next_seq = last_seq + 1;
        self.heartbeat_due = true;
        self.publish(groups, first_seq, last_seq);
        Ok(appended)
    }

    /// Proves the last commit durable to whoever reads the log after a crash. Does nothing if
    /// that is proven already.
    pub(crate) fn heartbeat(&mut self) -> Result<(), LogError> {
        if !self.heartbeat_due || self.state.options.mutated(Mutation::SkipHeartbeat) {
            return Ok(());
        }
        self.state.check_writable()?;
        let context = self.context();
        let hash = encode_heartbeat(&mut self.frame, &context, self.at.next_seq);
        self.write_frame(hash, context.written_at_ms)?;
        self.heartbeat_due = false;
        Ok(())
    }

    fn fill_payload(&mut self, groups: &[&[Record]]) -> Vec<Appended> {
        self.payload.clear();
        let mut appended = Vec::with_capacity(groups.len());
        let mut seq = self.at.next_seq;
        for records in groups {
            appended.push(receipt(seq, records));
            for record in *records {
                push_record(&mut self.payload, seq, record.kind, &record.payload);
                seq += 1;
            }
        }
        appended
    }

    fn context(&self) -> FrameContext {
        FrameContext {
            seed: self.active.header.seed,
            prev_hash: self.at.prev_hash,
            durable_seq: self.at.next_seq - 1,
            // Never backwards, so that a point in time names a point in the log.
            written_at_ms: (self.state.options.clock)().max(self.at.written_at_ms),
        }
    }

    fn write_frame(&mut self, hash: u128, written_at_ms: u64) -> Result<(), LogError> {
        let written = self.active.file.write_all_at(&self.frame, self.at.offset);
        written.map_err(|source| self.poison("writing", source))?;
        let begun = Instant::now();
        self.sync()?;
        metrics::histogram!("mainstay_log_sync_duration_seconds").record(begun.elapsed());
        metrics::counter!("mainstay_log_appended_bytes_total").increment(self.frame.len() as u64);
        self.at.offset += self.frame.len() as u64;
        self.at.prev_hash = hash;
        self.at.written_at_ms = written_at_ms;
        self.active.set_end(self.at.offset);
        Ok(())
    }

    fn sync(&self) -> Result<(), LogError> {
        let options = &self.state.options;
        if options.mutated(Mutation::AcknowledgeBeforeSync) {
            return Ok(());
        }
        let mut synced = self.active.file.sync_data();
        if synced.is_err() && options.mutated(Mutation::RetrySync) {
            synced = self.active.file.sync_data();
        }
        synced.map_err(|source| self.poison("syncing", source))
    }

    fn poison(&self, action: &'static str, source: io::Error) -> LogError {
        let error = io_error(action, &self.active.path)(source);
        LogError::OutcomeUnknown { reason: self.state.poison(&error) }
    }

    fn publish(&self, groups: &[&[Record]], first_seq: u64, last_seq: u64) {
        let records = groups.iter().flat_map(|records| records.iter());
        self.state.cache.push(records.zip(first_seq..).map(|(record, seq)| Entry {
            seq,
            kind: record.kind,
            payload: record.payload.clone(),
        }));
        self.state.set_durable_seq(last_seq);
    }

    /// Goes on in a fresh segment with room for a frame of `bytes`.
    fn rotate(&mut self, bytes: usize, class: Class) -> Result<(), LogError> {
        let state = Arc::clone(&self.state);
        let number = self.active.header.last_number + 1;
        let header = SegmentHeader {
            store_id: self.active.header.store_id,
            first_number: number,
            last_number: number,
            generation: 0,
            first_seq: self.at.next_seq,
            last_seq: 0,
            seed: (state.options.entropy)(),
            file_bytes: (SEGMENT_HEADER_BYTES + bytes + HEARTBEAT_BYTES) as u64,
            prev_hash: self.at.prev_hash,
            created_at_ms: (state.options.clock)(),
        };
        let segment = match state.spares.activate(header, &[], class) {
            Ok(segment) => Arc::new(segment),
            Err(ActivateError::Unavailable(error)) => return Err(error),
            Err(ActivateError::Fatal(error)) => {
                return Err(LogError::OutcomeUnknown { reason: state.poison(&error) });
            }
        };
        segment.set_end(SEGMENT_HEADER_BYTES as u64);
        // The rest of the old segment is zeros: gives their room back, and nothing is lost if
        // that fails.
        let _ = self.active.file.truncate(self.at.offset);
        state.update_segments(|segments| segments.push(Arc::clone(&segment)));
        self.active = segment;
        self.at.offset = SEGMENT_HEADER_BYTES as u64;
        // The header of the new segment says where the old one ends: that proves the last commit.
        self.heartbeat_due = false;
        Ok(())
    }
}
