//! [`Manifest`]: what a checkpoint says: which segments make up the view and who lives.
//!
//! One file, written whole and put in place atomically:
//!
//! ```text
//! magic (8) version u32 reserved u32
//! through u64, count u64, next segment u64, next number u32, segments u32
//! per segment: id u64, bytes u64, documents u64, last eight bytes of the file u64
//! fields
//! living: length u64, words of the bitmap
//! xxh3 u64 of all before
//! ```

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::damage::Damage;
use super::field::Fields;
use super::little_endian::{u32_at, u64_at};
use super::segment::{Segment, file_name};
use crate::bitmap::Bitmap;
use crate::document::DocNumber;
use crate::view::ViewError;

/// The file name.
pub(super) const MANIFEST: &str = "manifest";

const MAGIC: &[u8; 8] = b"MSTAYMAN";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const FIXED_BYTES: usize = HEADER_BYTES + 32;
const SEGMENT_BYTES: usize = 32;

#[derive(Debug, PartialEq)]
pub(super) struct Manifest {
    pub(super) through: u64,
    /// How many documents live.
    pub(super) count: u64,
    pub(super) next_segment: u64,
    /// The lowest number that may be added.
    pub(super) next_number: DocNumber,
    pub(super) segments: Vec<SegmentEntry>,
    pub(super) fields: Fields,
    pub(super) living: Bitmap,
}

/// A segment as the manifest knows it; tells a file of another time apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentEntry {
    pub(super) id: u64,
    bytes: u64,
    documents: u64,
    ending: u64,
}

impl SegmentEntry {
    pub(super) fn of(segment: &Segment) -> Self {
        let bytes = segment.sections().bytes();
        Self {
            id: segment.id(),
            bytes: bytes.len() as u64,
            documents: u64::from(segment.meta().documents),
            ending: u64_at(bytes, bytes.len().saturating_sub(8)).unwrap_or(0),
        }
    }

    /// Whether this is the segment that the checkpoint meant.
    pub(super) fn check(&self, segment: &Segment) -> Result<(), ViewError> {
        if *self == Self::of(segment) {
            return Ok(());
        }
        Err(ViewError::damaged(file_name(self.id), "it is not the segment that the manifest names"))
    }
}

impl Manifest {
    /// Of a view that has seen nothing.
    pub(super) fn empty() -> Self {
        Self {
            through: 0,
            count: 0,
            next_segment: 1,
            next_number: 0,
            segments: Vec::new(),
            fields: Fields::default(),
            living: Bitmap::new(),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 4]);
        for word in [self.through, self.count, self.next_segment] {
            out.extend(word.to_le_bytes());
        }
        out.extend(self.next_number.to_le_bytes());
        out.extend((self.segments.len() as u32).to_le_bytes());
        for entry in &self.segments {
            for word in [entry.id, entry.bytes, entry.documents, entry.ending] {
                out.extend(word.to_le_bytes());
            }
        }
        self.fields.encode(&mut out);
        let living = self.living.to_bytes();
        out.extend((living.len() as u64).to_le_bytes());
        out.extend(living);
        let checksum = xxh3_64(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ViewError> {
        let file: Arc<str> = MANIFEST.into();
        let damaged = |reason: &str| ViewError::from(Damage::new(&file, reason));
        let Some((body, checksum)) = bytes.split_last_chunk::<8>() else {
            return Err(damaged("it is shorter than an empty manifest"));
        };
        if body.get(..8) != Some(MAGIC) {
            return Err(damaged("it does not begin as a manifest"));
        }
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(damaged("it fails its checksum"));
        }
        match u32_at(body, 8).unwrap_or(0) {
            VERSION => {}
            found if found > VERSION => {
                let file = MANIFEST.to_string();
                return Err(ViewError::FutureFormat { file, found, supported: VERSION });
            }
            _ => return Err(damaged("it has no known version")),
        }
        Self::parse_body(body).ok_or_else(|| damaged("its parts do not fit together"))
    }

    fn parse_body(body: &[u8]) -> Option<Self> {
        let word = |at: usize| u64_at(body, HEADER_BYTES + at);
        let (through, count, next_segment) = (word(0)?, word(8)?, word(16)?);
        let next_number = u32_at(body, HEADER_BYTES + 24)?;
        let segment_count = u32_at(body, HEADER_BYTES + 28)? as usize;
        let (entries, rest) =
            body.get(FIXED_BYTES..)?.split_at_checked(segment_count.checked_mul(SEGMENT_BYTES)?)?;
        let segments = entries.chunks_exact(SEGMENT_BYTES).map(|entry| {
            let word = |at: usize| u64_at(entry, at);
            let (id, bytes, documents, ending) = (word(0)?, word(8)?, word(16)?, word(24)?);
            Some(SegmentEntry { id, bytes, documents, ending })
        });
        let segments = segments.collect::<Option<Vec<_>>>()?;
        let mut at = 0;
        let fields = Fields::decode(rest, &mut at)?;
        let length = usize::try_from(u64_at(rest, at)?).ok()?;
        let words = rest.get(at + 8..)?;
        let living = Bitmap::from_bytes(words).filter(|_| words.len() == length)?;
        Some(Self { through, count, next_segment, next_number, segments, fields, living })
    }
}
