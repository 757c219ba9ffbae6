//! [`Manifest`]: the one file that says which segments make up the view, and through which `seq`.
//!
//! It is replaced whole, so a checkpoint happened or it did not. Segment files that it does not name
//! were written by a checkpoint or merge that did not come to its end, and are removed at opening.

use xxhash_rust::xxh3::xxh3_64;

use super::segment::{u32_at, u64_at};
use super::space::{Space, Spaces};
use crate::view::ViewError;

/// The name of the file.
pub(crate) const MANIFEST: &str = "manifest";
const MAGIC: [u8; 8] = *b"MSTYsem\n";
const VERSION: u32 = 1;

/// What is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The log is applied up to here.
    pub(crate) through: u64,
    /// The number of the next segment file.
    pub(crate) next_file: u64,
    /// Documents of which a part is beyond the bound of passages.
    pub(crate) documents_cut: u64,
    /// What the vectors are.
    pub(crate) spaces: Spaces,
    /// The segment files of each space, oldest first.
    pub(crate) files: [Vec<String>; 2],
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        for value in [self.through, self.next_file, self.documents_cut] {
            out.extend(value.to_le_bytes());
        }
        for space in self.spaces.each() {
            let (dimension, model) = space.map_or((0, ""), |s| (s.dimension, s.model.as_str()));
            out.extend((dimension as u32).to_le_bytes());
            put_text(&mut out, model);
        }
        for files in &self.files {
            out.extend((files.len() as u32).to_le_bytes());
            files.iter().for_each(|file| put_text(&mut out, file));
        }
        out.extend(xxh3_64(&out).to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ViewError> {
        let damaged = |reason: &str| ViewError::damaged(MANIFEST, reason);
        if bytes.len() < 20 || bytes[..8] != MAGIC {
            return Err(damaged("it does not begin as a manifest of vectors"));
        }
        let (contents, checksum) = bytes.split_at(bytes.len() - 8);
        let found = u32_at(contents, 8);
        if found > VERSION {
            let file = MANIFEST.to_string();
            return Err(ViewError::FutureFormat { file, found, supported: VERSION });
        }
        if xxh3_64(contents) != u64_at(checksum, 0) {
            return Err(damaged("it fails its checksum"));
        }
        let mut input = Input { bytes: contents, at: 12 };
        let manifest = input.manifest().ok_or_else(|| damaged("it ends early"))?;
        match input.at == contents.len() {
            true => Ok(manifest),
            false => Err(damaged("it has bytes left over")),
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn manifest(&mut self) -> Option<Manifest> {
        let (through, next_file, documents_cut) = (self.u64()?, self.u64()?, self.u64()?);
        let spaces = Spaces { instant: self.space()?, refining: self.space()? };
        let files = [self.files()?, self.files()?];
        Some(Manifest { through, next_file, documents_cut, spaces, files })
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|raw| u32_at(raw, 0))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|raw| u64_at(raw, 0))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn space(&mut self) -> Option<Option<Space>> {
        let (dimension, model) = (self.u32()? as usize, self.text()?);
        Some((dimension > 0).then_some(Space { dimension, model }))
    }

    fn files(&mut self) -> Option<Vec<String>> {
        (0..self.u32()?).map(|_| self.text()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            through: 17,
            next_file: 4,
            documents_cut: 1,
            spaces: Spaces {
                instant: None,
                refining: Some(Space { dimension: 384, model: "minilm".into() }),
            },
            files: [vec!["vectors-0-1.seg".into()], vec![]],
        }
    }

    #[test]
    fn a_manifest_survives_its_file() {
        assert_eq!(Manifest::decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn any_damaged_byte_and_any_cut_is_an_error() {
        let good = sample().encode();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            assert!(Manifest::decode(&bytes).is_err(), "byte {at}");
            assert!(Manifest::decode(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_later_version_is_refused_with_both_versions() {
        let mut bytes = sample().encode();
        bytes[8] = 9;
        let error = Manifest::decode(&bytes).unwrap_err();
        assert!(matches!(error, ViewError::FutureFormat { found: 9, supported: VERSION, .. }));
    }
}
