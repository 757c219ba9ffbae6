//! [`Manifest`]: which segment files make up a checkpoint, and how far in the log it stands.
//!
//! One small file, replaced as a whole: the moment of a checkpoint. Little-endian: magic "MSNATMAN",
//! version u32, segments u32, through u64, next id u64, the ids u64 each, checksum u64 of all before.

use xxhash_rust::xxh3::xxh3_64;

use crate::view::ViewError;

/// The file's name.
pub(super) const MANIFEST: &str = "manifest";
const MAGIC: &[u8; 8] = b"MSNATMAN";
const VERSION: u32 = 1;
const HEADER: usize = 32;

/// The contents of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The log sequence number up to which everything is in the segments.
    pub(super) through: u64,
    /// The id that the next segment file gets.
    pub(super) next_id: u64,
    /// The segments, in order of their document numbers.
    pub(super) ids: Vec<u64>,
}

impl Manifest {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.ids.len() as u32).to_le_bytes());
        bytes.extend(self.through.to_le_bytes());
        bytes.extend(self.next_id.to_le_bytes());
        self.ids.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ViewError> {
        let damaged = |reason: &str| ViewError::damaged(MANIFEST, reason);
        let (words, rest) = bytes.as_chunks::<8>();
        let word = |at: usize| words.get(at).copied().map(u64::from_le_bytes);
        let (Some(version), Some(through), Some(next_id)) = (word(1), word(2), word(3)) else {
            return Err(damaged("it is too short"));
        };
        if !bytes.starts_with(MAGIC) {
            return Err(damaged("it does not begin like a manifest"));
        }
        let (version, count) = (version as u32, (version >> 32) as usize);
        if version > VERSION {
            let file = MANIFEST.to_string();
            return Err(ViewError::FutureFormat { file, found: version, supported: VERSION });
        }
        if !rest.is_empty() || words.len() != HEADER / 8 + count + 1 {
            return Err(damaged("its length is wrong"));
        }
        if word(words.len() - 1) != Some(xxh3_64(&bytes[..bytes.len() - 8])) {
            return Err(damaged("it does not match its checksum"));
        }
        let ids = words[HEADER / 8..][..count].iter().map(|raw| u64::from_le_bytes(*raw)).collect();
        Ok(Self { through, next_id, ids })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_manifest_survives_its_bytes_and_any_damage_is_noticed() {
        let manifest = Manifest { through: 77, next_id: 9, ids: vec![3, 8, 5] };
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(Manifest::from_bytes(&damaged).is_err());
            assert!(Manifest::from_bytes(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let mut bytes = Manifest::default().to_bytes();
        bytes[8] = 9;
        let error = Manifest::from_bytes(&bytes);
        assert!(matches!(error, Err(ViewError::FutureFormat { found: 9, supported: 1, .. })));
    }
}
