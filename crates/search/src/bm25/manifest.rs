//! [`Manifest`]: which segment files make up the view, and how far in the log they reach.
//!
//! It is replaced as a whole, after the files it names are durable; a file that it does not name is
//! left over from work that did not end, and is removed when the view is opened.
//!
//! ```text
//! magic (8) | version (4) | chain (4) | through (8) | next file (8) | count (4)
//! | count × (file (8), bytes (8)) | xxh3 of all before (8)
//! ```

use xxhash_rust::xxh3::xxh3_64;

use crate::view::ViewError;

/// The name of the manifest in its directory.
pub(super) const MANIFEST: &str = "manifest";

const MAGIC: &[u8; 8] = b"MSTBM25M";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 36;

/// The contents of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The code of the analysis that all segments went through.
    pub(super) chain: u32,
    pub(super) through: u64,
    pub(super) next_file: u64,
    /// The segments in order of their documents: the number of the file and its bytes.
    pub(super) files: Vec<(u64, u64)>,
}

/// The name of a segment file.
pub(super) fn file_name(file: u64) -> String {
    format!("segment-{file:010}.bm25")
}

impl Manifest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.files.len() * 16 + 8);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.chain.to_le_bytes());
        out.extend(self.through.to_le_bytes());
        out.extend(self.next_file.to_le_bytes());
        out.extend((self.files.len() as u32).to_le_bytes());
        for (file, bytes) in &self.files {
            out.extend(file.to_le_bytes());
            out.extend(bytes.to_le_bytes());
        }
        let checksum = xxh3_64(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ViewError> {
        let damaged = |reason: &str| ViewError::damaged(MANIFEST, reason);
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if !bytes.starts_with(MAGIC) {
            return Err(damaged("it does not begin with the mark of a bm25 manifest"));
        }
        let short = || damaged("it is too short");
        let found = half(8).ok_or_else(short)?;
        if found > VERSION {
            let file = MANIFEST.to_string();
            return Err(ViewError::FutureFormat { file, found, supported: VERSION });
        }
        let signed = bytes.len().checked_sub(8).ok_or_else(short)?;
        if word(signed) != Some(xxh3_64(&bytes[..signed])) {
            return Err(damaged("its checksum does not fit"));
        }
        let count = half(32).ok_or_else(short)? as usize;
        if bytes.len() != HEAD_BYTES + count * 16 + 8 {
            return Err(damaged("its length does not fit the number of its files"));
        }
        let file = |i: usize| Some((word(HEAD_BYTES + i * 16)?, word(HEAD_BYTES + i * 16 + 8)?));
        Ok(Self {
            chain: half(12).ok_or_else(short)?,
            through: word(16).ok_or_else(short)?,
            next_file: word(24).ok_or_else(short)?,
            files: (0..count).map(file).collect::<Option<_>>().ok_or_else(short)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Manifest {
        Manifest { chain: 5, through: 77, next_file: 9, files: vec![(3, 100), (8, 20)] }
    }

    #[test]
    fn comes_back_as_it_was() {
        assert_eq!(Manifest::decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Manifest::decode(&changed).is_err(), "byte {at}");
            assert!(Manifest::decode(&bytes[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = sample().encode();
        bytes[8] = 9;
        let error = Manifest::decode(&bytes).unwrap_err();
        assert!(matches!(error, ViewError::FutureFormat { found: 9, supported: 1, .. }));
    }
}
