//! [`State`]: what a previous run indexed, so that the next one finds the difference.
//!
//! Invariants: it is only a shortcut. Without the file, or with a damaged one, every file is read
//! and indexed again, and documents of files that are gone are found by their ids. The file is
//! replaced as a whole. A file counts as unchanged only if its length and time are the same *and*
//! the time is safely before the moment at which it was read: a write within the same tick of the
//! clock leaves both as they were.
//!
//! Format, little-endian: magic, version `u32`, count `u32`; for each file name, length `u64`, time
//! `i64`, moment of reading `i64`, hash `u64`, id count `u32` and ids; at the end the xxh3 of all
//! before. Texts are a `u32` length and the bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::walk::FoundFile;

const MAGIC: &[u8; 8] = b"MSFOLDER";
const VERSION: u32 = 1;
/// File systems tick in steps of up to two seconds (FAT); a file written that close to its reading
/// is read again.
const TICK_NS: i64 = 2_000_000_000;

/// What is known of a file that was indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexedFile {
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub(crate) modified_ns: i64,
    /// When it was read, in nanoseconds since 1970.
    pub(crate) read_ns: i64,
    /// [`content_hash`] of its bytes.
    pub(crate) hash: u64,
    /// The documents made of it: one, or none for a binary file, or many for NDJSON.
    pub(crate) ids: Vec<String>,
}

/// What previous runs indexed, by the file's name below the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The files.
    pub(crate) files: BTreeMap<String, IndexedFile>,
}

/// The hash by which contents are compared.
pub(crate) fn content_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The id of the document of a file: its name below the root after an optional prefix.
pub(crate) fn document_id(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_string()
    } else {
        format!("{}/{name}", prefix.trim_end_matches('/'))
    }
}

/// The difference between two runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Files that must be read, in order of name: new ones, and those that look changed.
    pub(crate) read: Vec<FoundFile>,
    /// Files that are there no more, with what was known of them.
    pub(crate) gone: BTreeMap<String, IndexedFile>,
    /// How many files are as they were.
    pub(crate) unchanged: usize,
}

/// What reading a file shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The file is new: index it.
    Added,
    /// Its contents are new: index it again.
    Changed,
    /// Only its time is new: nothing to index.
    Touched,
    /// A file of the same contents is gone: index it under its new name and remove the old one.
    Renamed {
        /// The name it had.
        from: String,
        /// The documents it had.
        ids: Vec<String>,
    },
}

/// Compares what was indexed with what is there, by length and time.
pub(crate) fn plan(previous: &State, current: impl IntoIterator<Item = FoundFile>) -> Plan {
    let mut plan = Plan { gone: previous.files.clone(), ..Plan::default() };
    for file in current {
        match plan.gone.remove(&file.name) {
            Some(known) if is_unchanged(&known, &file) => plan.unchanged += 1,
            _ => plan.read.push(file),
        }
    }
    plan.read.sort();
    plan
}

fn is_unchanged(known: &IndexedFile, file: &FoundFile) -> bool {
    known.bytes == file.bytes
        && known.modified_ns == file.modified_ns
        && file.modified_ns != 0
        && file.modified_ns < known.read_ns.saturating_sub(TICK_NS)
}

impl Plan {
    /// Says what became of a file of [`Plan::read`] whose contents have this hash. A file that is
    /// gone explains one new file only, the first in order of name.
    pub(crate) fn settle(&mut self, previous: &State, file: &FoundFile, hash: u64) -> Change {
        if let Some(known) = previous.files.get(&file.name) {
            return if known.hash == hash && known.bytes == file.bytes {
                Change::Touched
            } else {
                Change::Changed
            };
        }
        let is_same = |known: &IndexedFile| known.hash == hash && known.bytes == file.bytes;
        // Empty files are all alike; none is a rename of another.
        let from = self.gone.iter().find(|(_, known)| file.bytes > 0 && is_same(known));
        let Some(from) = from.map(|(name, _)| name.clone()) else {
            return Change::Added;
        };
        let ids = self.gone.remove(&from).map(|known| known.ids).unwrap_or_default();
        Change::Renamed { from, ids }
    }
}

/// Why a state cannot be used. The caller says so, starts from nothing, and goes on.
#[derive(Debug)]
pub(crate) enum StateError {
    /// The file cannot be read or written.
    Io(io::Error),
    /// The file does not hold what it should.
    Damaged(&'static str),
    /// A later version of the program wrote it.
    FutureFormat {
        /// Its version.
        found: u32,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(source) => write!(f, "folder state: {source}"),
            Self::Damaged(why) => {
                write!(f, "folder state is damaged: {why}; all files are read again")
            }
            Self::FutureFormat { found } => write!(
                f,
                "folder state has format version {found}, this program reads up to {VERSION}; all \
                 files are read again"
            ),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(source) => Some(source),
            _ => None,
        }
    }
}

impl State {
    /// Reads the state; empty when there is no file.
    pub(crate) fn load(path: &Path) -> Result<Self, StateError> {
        match fs::read(path) {
            Ok(bytes) => Self::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(StateError::Io(error)),
        }
    }

    /// Writes the state as a whole: into a file beside it, which then takes its place.
    pub(crate) fn store(&self, path: &Path) -> Result<(), StateError> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".new");
        let beside = path.with_file_name(name);
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(&self.encode())?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            match path.parent() {
                Some(parent) if cfg!(unix) && !parent.as_os_str().is_empty() => {
                    File::open(parent)?.sync_all()
                }
                _ => Ok(()),
            }
        };
        write().map_err(StateError::Io)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((self.files.len() as u32).to_le_bytes());
        for (name, file) in &self.files {
            put(&mut out, name);
            out.extend(file.bytes.to_le_bytes());
            out.extend(file.modified_ns.to_le_bytes());
            out.extend(file.read_ns.to_le_bytes());
            out.extend(file.hash.to_le_bytes());
            out.extend((file.ids.len() as u32).to_le_bytes());
            file.ids.iter().for_each(|id| put(&mut out, id));
        }
        let checksum = xxh3_64(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(StateError::Damaged("it does not begin as a state"));
        };
        let mut input = Input(rest);
        let ends_early = || StateError::Damaged("it ends early");
        let found = input.u32().ok_or_else(ends_early)?;
        if found != VERSION {
            return Err(if found > VERSION {
                StateError::FutureFormat { found }
            } else {
                StateError::Damaged("its format is older than this program's")
            });
        }
        let body = bytes.len().saturating_sub(8);
        if xxh3_64(&bytes[..body]).to_le_bytes() != bytes[body..] {
            return Err(StateError::Damaged("its checksum does not fit its contents"));
        }
        input.state().ok_or_else(ends_early)
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
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

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        Some(std::str::from_utf8(self.take(length)?).ok()?.to_string())
    }

    fn state(&mut self) -> Option<State> {
        let mut files = BTreeMap::new();
        for _ in 0..self.u32()? {
            let name = self.text()?;
            let (bytes, modified_ns) = (self.u64()?, self.u64()? as i64);
            let (read_ns, hash) = (self.u64()? as i64, self.u64()?);
            let mut ids = Vec::new();
            for _ in 0..self.u32()? {
                ids.push(self.text()?);
            }
            files.insert(name, IndexedFile { bytes, modified_ns, read_ns, hash, ids });
        }
        Some(State { files })
    }
}
