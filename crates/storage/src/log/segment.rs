//! One segment file: a header block, then frames, then zeros.
//!
//! ```text
//!  0  [8] magic "MAINSLOG"        56  u64  first seq
//!  8  u32 format version          64  u64  seed of its frames
//! 12  u32 generation              72  u64  file bytes
//! 16  u128 store id               80  u128 hash of the frame before its first
//! 32  u64 first number            96  u64  created at, ms
//! 40  u64 last number            104  zeros
//! 48  u64 last seq (compacted)   508  u32  CRC-32C of bytes 0..508
//! ```
//!
//! The header stands twice, at 0 and at [`HEADER_COPY_OFFSET`], so that one bad sector does not
//! cost a segment.
//!
//! Invariants:
//! - A file gets a segment's name only after its header is durable and all its space is reserved.
//! - A segment ends where the next one begins: frames behind the next segment's first seq were
//!   never acknowledged and are not read.
//! - A file whose numbers include those of another and whose generation is higher stands in for
//!   it (compaction, accepted loss).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::error::{LogError, io_error};
use super::frame::SEQ_CEILING;
use crate::fs::{FileHandle, FileSystem};

/// The format that this build writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Frames begin here.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;

/// Where the second copy of the header stands.
pub(crate) const HEADER_COPY_OFFSET: usize = 2048;

const HEADER_COPY_BYTES: usize = 512;
const CRC_OFFSET: usize = HEADER_COPY_BYTES - 4;
const MAGIC: &[u8; 8] = b"MAINSLOG";
const SUFFIX: &str = ".seg";
const PREFIX: &str = "log-";

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: u128,
    /// Number of the first original segment that it holds.
    pub(crate) first_number: u64,
    /// Number of the last original segment that it holds.
    pub(crate) last_number: u64,
    /// 0 as appended, one more with each rewriting.
    pub(crate) generation: u32,
    pub(crate) first_seq: u64,
    /// Last sequence number of a rewritten segment; 0 for one that is, or was, appended to.
    pub(crate) last_seq: u64,
    pub(crate) seed: u64,
    pub(crate) file_bytes: u64,
    /// Hash of the frame before the first one; 0 at the beginning of the log.
    pub(crate) prev_hash: u128,
    pub(crate) created_at_ms: u64,
}

/// Why a block is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Written by a later version.
    FutureVersion(u32),
    /// Neither copy is whole.
    Damaged,
}

impl SegmentHeader {
    /// The header block with both copies.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(HEADER_COPY_BYTES);
        copy.extend_from_slice(MAGIC);
        copy.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        copy.extend_from_slice(&self.generation.to_le_bytes());
        copy.extend_from_slice(&self.store_id.to_le_bytes());
        copy.extend_from_slice(&self.first_number.to_le_bytes());
        copy.extend_from_slice(&self.last_number.to_le_bytes());
        copy.extend_from_slice(&self.last_seq.to_le_bytes());
        copy.extend_from_slice(&self.first_seq.to_le_bytes());
        copy.extend_from_slice(&self.seed.to_le_bytes());
        copy.extend_from_slice(&self.file_bytes.to_le_bytes());
        copy.extend_from_slice(&self.prev_hash.to_le_bytes());
        copy.extend_from_slice(&self.created_at_ms.to_le_bytes());
        copy.resize(CRC_OFFSET, 0);
        let crc = crc32c::crc32c(&copy);
        copy.extend_from_slice(&crc.to_le_bytes());
        let mut block = vec![0; SEGMENT_HEADER_BYTES];
        block[..HEADER_COPY_BYTES].copy_from_slice(&copy);
        block[HEADER_COPY_OFFSET..HEADER_COPY_OFFSET + HEADER_COPY_BYTES].copy_from_slice(&copy);
        block
    }

    /// Reads a header block, from the second copy where the first is damaged.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        let copies = [0, HEADER_COPY_OFFSET].map(|at| block.get(at..at + HEADER_COPY_BYTES));
        let mut error = HeaderError::Damaged;
        for copy in copies.into_iter().flatten() {
            match Self::decode_copy(copy) {
                Ok(header) => return Ok(header),
                Err(HeaderError::Damaged) => {}
                Err(future) => error = future,
            }
        }
        Err(error)
    }

    fn decode_copy(copy: &[u8]) -> Result<Self, HeaderError> {
        let u32_at = |at: usize| {
            u32::from_le_bytes(copy[at..at + 4].try_into().expect("a slice of 4 bytes"))
        };
        let u64_at = |at: usize| {
            u64::from_le_bytes(copy[at..at + 8].try_into().expect("a slice of 8 bytes"))
        };
        let u128_at = |at: usize| {
            u128::from_le_bytes(copy[at..at + 16].try_into().expect("a slice of 16 bytes"))
        };
        if &copy[..8] != MAGIC || u32_at(CRC_OFFSET) != crc32c::crc32c(&copy[..CRC_OFFSET]) {
            return Err(HeaderError::Damaged);
        }
        if u32_at(8) > FORMAT_VERSION {
            return Err(HeaderError::FutureVersion(u32_at(8)));
        }
        let header = Self {
            generation: u32_at(12),
            store_id: u128_at(16),
            first_number: u64_at(32),
            last_number: u64_at(40),
            last_seq: u64_at(48),
            first_seq: u64_at(56),
            seed: u64_at(64),
            file_bytes: u64_at(72),
            prev_hash: u128_at(80),
            created_at_ms: u64_at(96),
        };
        let sane = header.first_number >= 1
            && header.last_number >= header.first_number
            && (1..SEQ_CEILING).contains(&header.first_seq)
            && header.last_seq < SEQ_CEILING;
        if sane { Ok(header) } else { Err(HeaderError::Damaged) }
    }

    /// The file name that goes with the header.
    pub(crate) fn file_name(&self) -> SegmentName {
        SegmentName {
            first_number: self.first_number,
            last_number: self.last_number,
            generation: self.generation,
        }
    }
}

/// What a segment's file name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub(crate) first_number: u64,
    pub(crate) last_number: u64,
    pub(crate) generation: u32,
}

impl SegmentName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split('-');
        let parsed = Self {
            first_number: parts.next()?.parse().ok()?,
            last_number: parts.next()?.parse().ok()?,
            generation: parts.next()?.parse().ok()?,
        };
        let sane = parts.next().is_none()
            && parsed.first_number >= 1
            && parsed.last_number >= parsed.first_number;
        sane.then_some(parsed)
    }

    /// Whether this file stands in for `other`.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        self != other
            && self.first_number <= other.first_number
            && self.last_number >= other.last_number
            && self.generation > other.generation
    }

    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.to_string())
    }
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first_number, last_number, generation } = self;
        write!(f, "{PREFIX}{first_number:010}-{last_number:010}-{generation:04}{SUFFIX}")
    }
}

/// An open segment. Stays readable after its file was replaced and removed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn FileHandle>,
    end: AtomicU64,
    points: Mutex<Vec<(u64, u64)>>,
}

/// Distance between the points of the sparse index over a segment: a read that begins in the
/// middle passes over at most this much.
const POINT_BYTES: u64 = 32 << 10;

impl Segment {
    pub(crate) fn new(header: SegmentHeader, path: PathBuf, file: Box<dyn FileHandle>) -> Self {
        let end = AtomicU64::new(header.file_bytes);
        Self { header, path, end, file, points: Mutex::new(Vec::new()) }
    }

    /// First byte behind the frames that may be read; of a sealed segment the file's length.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Lets readers see frames up to `end`, or, when sealing, no more.
    pub(crate) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Opens a segment file and reads its header.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        path: &Path,
    ) -> Result<Result<Self, HeaderError>, LogError> {
        let file = fs.open(path).map_err(io_error("opening", path))?;
        let length = file.len().map_err(io_error("measuring", path))?;
        let mut block = vec![0; SEGMENT_HEADER_BYTES.min(length as usize)];
        file.read_exact_at(&mut block, 0).map_err(io_error("reading", path))?;
        Ok(SegmentHeader::decode(&block).map(|header| {
            let segment = Self::new(header, path.to_owned(), file);
            segment.set_end(length);
            segment
        }))
    }

    /// Remembers that the frame with `first_seq` begins at `offset`.
    pub(crate) fn note(&self, first_seq: u64, offset: u64) {
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        let at = points.partition_point(|(_, known)| *known <= offset);
        let far = at == 0 || points[at - 1].1 + POINT_BYTES <= offset;
        let far_behind = points.get(at).is_none_or(|(_, known)| offset + POINT_BYTES <= *known);
        if far && far_behind {
            points.insert(at, (first_seq, offset));
        }
    }

    /// Where to begin reading for `seq`: a known frame that begins at or before it, as its first
    /// sequence number and offset.
    pub(crate) fn floor(&self, seq: u64) -> (u64, u64) {
        let points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        let at = points.partition_point(|(known, _)| *known <= seq);
        match at.checked_sub(1) {
            Some(at) => points[at],
            None => (self.header.first_seq, SEGMENT_HEADER_BYTES as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            store_id: 1,
            first_number: 2,
            last_number: 3,
            generation: 4,
            first_seq: 5,
            last_seq: 6,
            seed: 7,
            file_bytes: 8,
            prev_hash: 9,
            created_at_ms: 10,
        }
    }

    #[test]
    fn a_header_is_read_from_either_copy() {
        for damaged in [0, HEADER_COPY_OFFSET] {
            let mut block = header().encode();
            block[damaged + 100] ^= 1;
            assert_eq!(SegmentHeader::decode(&block), Ok(header()));
        }
        let mut block = header().encode();
        block[100] ^= 1;
        block[HEADER_COPY_OFFSET + 100] ^= 1;
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderError::Damaged));
        assert_eq!(SegmentHeader::decode(&[]), Err(HeaderError::Damaged));
    }

    #[test]
    fn a_name_says_what_the_header_says() {
        let name = header().file_name();
        assert_eq!(name.to_string(), "log-0000000002-0000000003-0004.seg");
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        for other in ["log-1-2.seg", "log-2-1-0.seg", "log-0-1-0.seg", "log-1-1-0-0.seg", "x.seg"] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_later_generation_over_all_numbers_replaces() {
        let name = |first_number, last_number, generation| SegmentName {
            first_number,
            last_number,
            generation,
        };
        assert!(name(1, 3, 1).replaces(&name(2, 2, 0)));
        assert!(name(1, 3, 2).replaces(&name(1, 2, 1)));
        assert!(!name(1, 3, 1).replaces(&name(1, 3, 1)));
        assert!(!name(1, 3, 1).replaces(&name(3, 4, 0)));
        assert!(!name(1, 3, 0).replaces(&name(2, 2, 0)));
    }
}
