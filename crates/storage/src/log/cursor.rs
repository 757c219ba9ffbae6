//! Walks over the frames of a segment and tells whole from torn from damaged.
//!
//! The rule that everything rests on: a frame is written only after the one before it was synced.
//! So of all the frames of a segment at most the last may be torn, and a whole frame behind a hole
//! proves that what was in the hole had been durable.

use std::io;

use bytes::Bytes;

use super::frame::{
    FRAME_ALIGN, FRAME_BYTES_CEILING, FRAME_HEADER_BYTES, Frame, FrameError, decode, decode_header,
};
use super::segment::{SEGMENT_HEADER_BYTES, Segment};

/// Read ahead in pieces of this size: sequential reading is then limited by the disk.
const WINDOW_BYTES: usize = 512 << 10;

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole frame that continues the one before.
    Frame(Box<Frame>),
    /// No whole frame at the offset, but a whole one later. The numbers between are gone; none
    /// are if `next_seq` is still the expected one (a heartbeat was hit).
    Hole { offset: u64, expected_seq: u64, next_seq: u64 },
    /// No whole frame from the offset on. `torn_bytes` up to the last that is not zero.
    Tail { offset: u64, expected_seq: u64, torn_bytes: u64 },
}

/// A position in a segment, moving forward.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    segment: &'a Segment,
    end: u64,
    offset: u64,
    expected_seq: u64,
    /// `None` behind a hole, and where reading begins in the middle.
    expected_prev_hash: Option<u128>,
    window: Bytes,
    window_offset: u64,
    /// A whole frame found behind a hole, handed out after the hole.
    found: Option<Frame>,
}

impl<'a> Cursor<'a> {
    /// At the first frame. Reads up to `end`.
    pub(crate) fn new(segment: &'a Segment, end: u64) -> Self {
        let mut cursor =
            Self::at(segment, end, segment.header.first_seq, SEGMENT_HEADER_BYTES as u64);
        cursor.expected_prev_hash = Some(segment.header.prev_hash);
        cursor
    }

    /// At the frame that begins at `offset` with `first_seq`.
    pub(crate) fn at(segment: &'a Segment, end: u64, first_seq: u64, offset: u64) -> Self {
        Self {
            segment,
            end,
            offset,
            expected_seq: first_seq,
            expected_prev_hash: None,
            window: Bytes::new(),
            window_offset: 0,
            found: None,
        }
    }

    /// First byte not yet walked over.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The sequence number that the next frame begins with if nothing is lost.
    pub(crate) fn expected_seq(&self) -> u64 {
        self.expected_seq
    }

    /// The hash that the next frame names as its predecessor's, where it is known.
    pub(crate) fn expected_prev_hash(&self) -> Option<u128> {
        self.expected_prev_hash
    }

    /// Moves on.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        if let Some(frame) = self.found.take() {
            return Ok(self.pass(frame));
        }
        if let Some(frame) = self.frame_at(self.offset)?
            && self.continues(&frame)
        {
            return Ok(self.pass(frame));
        }
        self.hole_or_tail()
    }

    fn continues(&self, frame: &Frame) -> bool {
        frame.header.first_seq == self.expected_seq
            && self.expected_prev_hash.is_none_or(|hash| hash == frame.header.prev_hash)
    }

    fn pass(&mut self, frame: Frame) -> Step {
        self.segment.note(frame.header.first_seq, self.offset);
        self.offset += u64::from(frame.header.frame_bytes);
        self.expected_seq = frame.header.last_seq + 1;
        self.expected_prev_hash = Some(frame.successor_prev_hash());
        Step::Frame(Box::new(frame))
    }

    /// Looks behind bytes that are no frame for one that is.
    fn hole_or_tail(&mut self) -> io::Result<Step> {
        let hole = self.offset;
        let expected_seq = self.expected_seq;
        let mut last_nonzero = hole;
        let mut offset = hole;
        while offset < self.end {
            let sector = self.bytes_at(offset, FRAME_ALIGN)?;
            if let Some(at) = sector.iter().rposition(|byte| *byte != 0) {
                last_nonzero = offset + at as u64 + 1;
                if let Some(frame) = self.frame_at(offset)?
                    && frame.header.first_seq >= expected_seq
                {
                    self.offset = offset;
                    self.expected_prev_hash = None;
                    let next_seq = frame.header.first_seq;
                    self.expected_seq = next_seq;
                    self.found = Some(frame);
                    return Ok(Step::Hole { offset: hole, expected_seq, next_seq });
                }
            }
            offset += FRAME_ALIGN as u64;
        }
        Ok(Step::Tail { offset: hole, expected_seq, torn_bytes: last_nonzero - hole })
    }

    /// The whole frame at an offset, if there is one.
    fn frame_at(&mut self, offset: u64) -> io::Result<Option<Frame>> {
        let head = self.bytes_at(offset, FRAME_HEADER_BYTES)?;
        let Ok(header) = decode_header(&head) else { return Ok(None) };
        let total = header.frame_bytes as usize;
        if header.seed != self.segment.header.seed
            || total > FRAME_BYTES_CEILING
            || offset + total as u64 > self.end
        {
            return Ok(None);
        }
        let stored = self.bytes_at(offset, total)?;
        match decode(&stored, self.segment.header.seed) {
            Ok(frame) => Ok(Some(frame)),
            Err(FrameError::Short { .. } | FrameError::Header | FrameError::Payload) => Ok(None),
        }
    }

    /// Bytes of the file, fewer at its end, through the read-ahead window.
    fn bytes_at(&mut self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let bytes = bytes.min(self.end.saturating_sub(offset) as usize);
        let from = offset.wrapping_sub(self.window_offset) as usize;
        let inside = offset >= self.window_offset
            && from.checked_add(bytes).is_some_and(|to| to <= self.window.len());
        if inside {
            return Ok(self.window.slice(from..from + bytes));
        }
        let wanted = bytes.max(WINDOW_BYTES).min(self.end.saturating_sub(offset) as usize);
        let mut buffer = vec![0; wanted];
        let read = read_up_to(self.segment, &mut buffer, offset)?;
        buffer.truncate(read);
        self.window = Bytes::from(buffer);
        self.window_offset = offset;
        Ok(self.window.slice(..bytes.min(read)))
    }
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(segment: &Segment, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match segment.file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
