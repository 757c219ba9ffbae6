//! Writes a file that stands in for one or several segments, and puts it in their place.
//!
//! Invariants:
//! - The file gets its name only after its content is durable, and what it replaces is removed
//!   only after that name is. A crash in between leaves both; recovery keeps the new one.
//! - Readers go on in the files they have open.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::{LogError, io_error, is_no_room};
use super::frame::{
    Bridge, FLAG_COMPACTED, FLAG_COMPRESSED, Frame, FrameContext, RECORD_HEADER_BYTES, Span,
    encode, encode_bridge, push_record,
};
use super::options::Mutation;
use super::record::Entry;
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use super::state::State;
use crate::fs::{FileHandle, temp_path};

/// Records are gathered into frames of about this size: large enough to compress well, small
/// enough that reading one record does not decompress megabytes.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Rewriter<'a> {
    state: &'a State,
    header: SegmentHeader,
    path: PathBuf,
    temp: PathBuf,
    file: Option<Box<dyn FileHandle>>,
    offset: u64,
    prev_hash: u128,
    written_at_ms: u64,
    /// The first number not yet in a frame.
    next_seq: u64,
    payload: Vec<u8>,
    record_count: u32,
    frame: Vec<u8>,
}

impl<'a> Rewriter<'a> {
    /// Begins a file. Of `header` the last number and sequence number are set when it is
    /// finished, and the generation is raised above those it replaces.
    pub(crate) fn begin(state: &'a State, header: SegmentHeader) -> Result<Self, LogError> {
        // The name depends on how many segments are taken in, which is not known yet.
        let temp = temp_path(&state.dir.join(format!("rewrite-{:010}", header.first_number)));
        let file =
            state.fs.create(&temp).map_err(|error| failed(state, "creating", &temp, error))?;
        Ok(Self {
            state,
            header,
            path: PathBuf::new(),
            temp,
            file: Some(file),
            offset: SEGMENT_HEADER_BYTES as u64,
            prev_hash: header.prev_hash,
            written_at_ms: 0,
            next_seq: header.first_seq,
            payload: Vec::new(),
            record_count: 0,
            frame: Vec::new(),
        })
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.offset + self.payload.len() as u64
    }

    /// Adds a record that is kept.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<(), LogError> {
        let bytes = RECORD_HEADER_BYTES + entry.payload.len();
        if !self.payload.is_empty() && self.payload.len() + bytes > CHUNK_BYTES {
            self.flush(entry.seq - 1)?;
        }
        push_record(&mut self.payload, entry.seq, entry.kind, &entry.payload);
        self.record_count += 1;
        Ok(())
    }

    /// Notes the time of a frame whose records were taken in.
    pub(crate) fn note_time(&mut self, written_at_ms: u64) {
        self.written_at_ms = self.written_at_ms.max(written_at_ms);
    }

    /// Ends the frame in progress: it spans everything up to `last_seq`.
    pub(crate) fn flush(&mut self, last_seq: u64) -> Result<(), LogError> {
        if last_seq < self.next_seq {
            return Ok(());
        }
        let compressed = lz4_flex::block::compress(&self.payload);
        let smaller = compressed.len() < self.payload.len();
        let span = Span {
            first_seq: self.next_seq,
            last_seq,
            record_count: self.record_count,
            flags: FLAG_COMPACTED | if smaller { FLAG_COMPRESSED } else { 0 },
            payload_raw_bytes: self.payload.len() as u32,
        };
        let payload = if smaller { &compressed } else { &self.payload };
        let context = self.context();
        self.prev_hash = encode(&mut self.frame, &context, &span, payload);
        self.payload.clear();
        self.record_count = 0;
        self.next_seq = last_seq + 1;
        self.write_frame()
    }

    /// Adds a frame of the segment that is being replaced, unchanged; the seed must be the same.
    pub(crate) fn copy(&mut self, frame: &Frame) -> Result<(), LogError> {
        self.frame.clear();
        self.frame.extend_from_slice(&frame.stored);
        self.prev_hash = frame.successor_prev_hash();
        self.next_seq = frame.header.last_seq + 1;
        self.note_time(frame.header.written_at_ms);
        self.write_frame()
    }

    /// Leaves a place without a frame: what was damaged stays visibly damaged.
    pub(crate) fn skip_sector(&mut self) {
        self.offset += super::frame::FRAME_ALIGN as u64;
    }

    /// Records that everything up to `last_seq` is lost and that this was accepted. The next
    /// frame names `resumes` as its predecessor's hash; zero: the bridge's own.
    pub(crate) fn bridge_loss(&mut self, last_seq: u64, resumes: u128) -> Result<(), LogError> {
        self.flush(self.next_seq - 1)?;
        let now = (self.state.options.clock)();
        self.note_time(now);
        self.bridge(last_seq, true, resumes)
    }

    /// Ends the chain so that the next segment, which names `resumes`, continues it.
    pub(crate) fn bridge_end(&mut self, resumes: u128) -> Result<(), LogError> {
        self.bridge(self.next_seq - 1, false, resumes)
    }

    fn bridge(&mut self, last_seq: u64, lost: bool, resumes: u128) -> Result<(), LogError> {
        let bridge = Bridge { first_seq: self.next_seq, last_seq, lost, resumes };
        let context = self.context();
        let hash = encode_bridge(&mut self.frame, &context, &bridge);
        self.prev_hash = if resumes == 0 { hash } else { resumes };
        self.next_seq = last_seq + 1;
        self.write_frame()
    }

    /// Makes the file durable under its name, lets readers see it in place of the `replaced`
    /// segments, and removes those.
    pub(crate) fn finish(
        mut self,
        last_number: u64,
        replaced: &[Arc<Segment>],
    ) -> Result<Arc<Segment>, LogError> {
        let generations = replaced.iter().map(|segment| segment.header.generation + 1);
        let generation = generations.fold(self.header.generation, u32::max);
        self.header.generation = generation;
        self.header.last_number = last_number;
        self.header.last_seq = self.next_seq - 1;
        self.header.file_bytes = self.offset;
        self.path = self.header.file_name().path(&self.state.dir);
        let block = self.header.encode();
        let file = self.file.take().expect("only finish takes the file");
        let durable = file.write_all_at(&block, 0).and_then(|()| file.truncate(self.offset));
        if let Err(error) = durable.and_then(|()| file.sync_all()) {
            self.file = Some(file);
            return Err(failed(self.state, "writing", &self.temp, error));
        }
        if self.state.options.mutated(Mutation::RemoveInputsEarly) {
            self.remove(replaced);
        }
        let named = self.state.fs.rename(&self.temp, &self.path);
        let named = named.and_then(|()| {
            if self.state.options.mutated(Mutation::SkipDirSync) {
                return Ok(());
            }
            self.state.fs.sync_dir(&self.state.dir)
        });
        if let Err(error) = named {
            let error = io_error("naming", &self.path)(error);
            return Err(LogError::Poisoned { reason: self.state.poison(&error) });
        }
        let segment = Arc::new(Segment::new(self.header, self.path.clone(), file));
        self.swap(&segment, replaced);
        self.remove(replaced);
        Ok(segment)
    }

    fn swap(&self, segment: &Arc<Segment>, replaced: &[Arc<Segment>]) {
        self.state.update_segments(|segments| {
            let is_first = |other: &Arc<Segment>| {
                replaced.first().is_some_and(|first| first.path == other.path)
            };
            if let Some(at) = segments.iter().position(is_first) {
                segments.splice(at..at + replaced.len(), [Arc::clone(segment)]);
            }
        });
    }

    fn remove(&self, replaced: &[Arc<Segment>]) {
        for old in replaced {
            // A file that stays is removed when the log is opened the next time.
            if let Err(error) = self.state.fs.remove_file(&old.path) {
                tracing::warn!(path = %old.path.display(), %error, "replaced segment stays");
            }
        }
    }

    fn context(&self) -> FrameContext {
        FrameContext {
            seed: self.header.seed,
            prev_hash: self.prev_hash,
            durable_seq: self.next_seq - 1,
            written_at_ms: self.written_at_ms,
        }
    }

    fn write_frame(&mut self) -> Result<(), LogError> {
        let file = self.file.as_ref().expect("only finish takes the file");
        let written = file.write_all_at(&self.frame, self.offset);
        written.map_err(|error| failed(self.state, "writing", &self.temp, error))?;
        self.offset += self.frame.len() as u64;
        Ok(())
    }
}

impl Drop for Rewriter<'_> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Left behind it would be removed when the log is opened the next time.
            let _ = self.state.fs.remove_file(&self.temp);
        }
    }
}

fn failed(
    state: &State,
    action: &'static str,
    path: &std::path::Path,
    error: io::Error,
) -> LogError {
    if is_no_room(&error) {
        let available_bytes = state.fs.available_bytes(&state.dir).unwrap_or(0);
        let needed_bytes = state.options.segment_bytes_max;
        return LogError::DiskFull { path: state.dir.clone(), needed_bytes, available_bytes };
    }
    io_error(action, path)(error)
}
