//! [`Manifest`]: which parts are durable, and how far in the log they reach.
//!
//! Invariants: the file is replaced as a whole; every file it names was durable before it was
//! written; files that it does not name are left-overs of work that never came to a checkpoint.
//!
//! Format, little-endian: magic, version `u32`, through `u64`, next part `u32`, part count `u32`;
//! for each part number `u32`, documents `u32`, first and last document number `u32`, file count
//! `u32`, for each file its extension, length `u64` and xxh3 `u64`, then tantivy's meta; at the end
//! the xxh3 of all before. Texts and blobs are a `u32` length and the bytes.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::part_files::FileSum;
use crate::document::DocNumber;
use crate::view::ViewError;

/// The name of the file.
pub(super) const MANIFEST: &str = "manifest";
/// Raised when the format, the schema, the words or tantivy's own format change.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"MSFULLTX";

/// The contents of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Manifest {
    pub(super) through: u64,
    pub(super) next_part: u32,
    pub(super) parts: Vec<PartEntry>,
}

/// A durable part.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PartEntry {
    pub(super) part: u32,
    pub(super) documents: u32,
    pub(super) first: DocNumber,
    pub(super) last: DocNumber,
    pub(super) files: BTreeMap<String, FileSum>,
    pub(super) meta: Vec<u8>,
}

impl Manifest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend(self.through.to_le_bytes());
        out.extend(self.next_part.to_le_bytes());
        out.extend((self.parts.len() as u32).to_le_bytes());
        for part in &self.parts {
            for value in [part.part, part.documents, part.first, part.last] {
                out.extend(value.to_le_bytes());
            }
            out.extend((part.files.len() as u32).to_le_bytes());
            for (extension, file) in &part.files {
                put(&mut out, extension.as_bytes());
                out.extend(file.bytes.to_le_bytes());
                out.extend(file.checksum.to_le_bytes());
            }
            put(&mut out, &part.meta);
        }
        let checksum = xxh3_64(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ViewError> {
        let damaged = |reason: &str| ViewError::damaged(MANIFEST, reason);
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(damaged("it does not begin as a manifest"));
        };
        let mut input = Input(rest);
        let version = input.u32().ok_or_else(|| damaged("it ends early"))?;
        if version > VERSION {
            let file = MANIFEST.to_string();
            return Err(ViewError::FutureFormat { file, found: version, supported: VERSION });
        }
        if version < VERSION {
            return Err(damaged("its format is older than this program's"));
        }
        let body = bytes.len().saturating_sub(8);
        if xxh3_64(&bytes[..body]).to_le_bytes() != bytes[body..] {
            return Err(damaged("its checksum does not fit its contents"));
        }
        input.manifest().ok_or_else(|| damaged("it ends early"))
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn blob(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn manifest(&mut self) -> Option<Manifest> {
        let (through, next_part) = (self.u64()?, self.u32()?);
        let mut parts = Vec::new();
        for _ in 0..self.u32()? {
            let (part, documents) = (self.u32()?, self.u32()?);
            let (first, last) = (self.u32()?, self.u32()?);
            let mut files = BTreeMap::new();
            for _ in 0..self.u32()? {
                let extension = std::str::from_utf8(self.blob()?).ok()?.to_string();
                files.insert(extension, FileSum { bytes: self.u64()?, checksum: self.u64()? });
            }
            let meta = self.blob()?.to_vec();
            parts.push(PartEntry { part, documents, first, last, files, meta });
        }
        Some(Manifest { through, next_part, parts })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Manifest {
        let file = FileSum { bytes: 7, checksum: 9 };
        let part = PartEntry {
            part: 3,
            documents: 2,
            first: 10,
            last: 12,
            files: [("idx".to_string(), file), ("pos".to_string(), file)].into(),
            meta: b"{}".to_vec(),
        };
        Manifest { through: 42, next_part: 4, parts: vec![part.clone(), part] }
    }

    #[test]
    fn a_manifest_survives_its_file() {
        assert_eq!(Manifest::decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn a_future_version_is_refused_by_its_number() {
        let mut bytes = sample().encode();
        bytes[8] = 2;
        let error = Manifest::decode(&bytes).unwrap_err();
        assert!(matches!(error, ViewError::FutureFormat { found: 2, supported: 1, .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(at in 12usize..150, flip in 1u8..=255, cut in 0usize..150) {
            let mut bytes = sample().encode();
            let at = at % bytes.len();
            prop_assume!(at >= 12);
            bytes[at] ^= flip;
            prop_assert!(Manifest::decode(&bytes).is_err());
            let whole = sample().encode();
            prop_assert!(Manifest::decode(&whole[..cut.min(whole.len() - 1)]).is_err());
        }
    }
}
