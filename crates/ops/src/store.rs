//! Where state that must outlive the process is kept, and the envelope it is kept in.
//!
//! Only one crate touches the disk, so this one asks for a [`StateStore`]. Each named piece is
//! replaced as a whole and checked when it is read: a damaged piece is an error, never a guess.

use crate::lock::lock;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// Keeps small named pieces of state. Names are lower-case ASCII letters, digits, `-` and `.`.
pub trait StateStore: Send + Sync {
    /// The piece as it was last saved; nothing when there is none.
    ///
    /// # Errors
    /// It is there but cannot be read.
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the piece atomically and durably: after a crash it is the old one or the new one.
    ///
    /// # Errors
    /// It could not be made durable; the old piece still stands.
    fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// Keeps state in memory: for tests, and for a process that has no data directory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    pieces: Mutex<BTreeMap<String, Vec<u8>>>,
    failing: AtomicBool,
    saves: AtomicU64,
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        MemoryStore::default()
    }

    /// Lets every save fail from now on, or work again.
    pub fn fail_saves(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// How many saves succeeded.
    #[must_use]
    pub fn saves(&self) -> u64 {
        self.saves.load(Ordering::SeqCst)
    }
}

impl StateStore for MemoryStore {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(lock(&self.pieces).get(name).cloned())
    }

    fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("saving fails on request"));
        }
        lock(&self.pieces).insert(name.to_owned(), bytes.to_vec());
        self.saves.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Why a piece of state could not be kept or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// The store itself failed.
    Store {
        /// The piece.
        name: String,
        /// What the store says.
        source: io::Error,
    },
    /// The bytes are not what was saved. Remove the piece to begin anew.
    Damaged {
        /// The piece.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A later release wrote it.
    Future {
        /// The piece.
        name: String,
        /// Its format version.
        found: u16,
        /// The latest one that this release reads.
        supported: u16,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Store { name, source } => write!(f, "state {name}: {source}"),
            StateError::Damaged { name, what } => {
                write!(f, "state {name} is damaged ({what}); remove it to begin anew")
            }
            StateError::Future { name, found, supported } => write!(
                f,
                "state {name} has format version {found}, this release reads up to {supported}; \
                 use the release that wrote it"
            ),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StateError::Store { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// `MOPS`, kind (4 bytes), version (2), zero (2), payload length (4), checksum of all else (8).
const HEADER_BYTES: usize = 24;
const MAGIC: [u8; 4] = *b"MOPS";

/// Puts `payload` into its envelope and saves it. `kind` says what it is, `version` in which format.
///
/// # Errors
/// The store failed; what was saved before still stands.
pub fn save_sealed(
    store: &dyn StateStore,
    name: &str,
    kind: [u8; 4],
    version: u16,
    payload: &[u8],
) -> Result<(), StateError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&kind);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    let payload_bytes = u32::try_from(payload.len())
        .map_err(|_| StateError::Damaged { name: name.to_owned(), what: "longer than 4 GiB" })?;
    bytes.extend_from_slice(&payload_bytes.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(payload);
    let sum = xxh3_64(&bytes);
    bytes[16..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    store.save(name, &bytes).map_err(|source| StateError::Store { name: name.to_owned(), source })
}

/// Loads a piece and takes it out of its envelope; nothing when there is none. `supported` is the
/// latest format version that the caller reads.
///
/// # Errors
/// The store failed, the bytes are damaged or of another kind, or a later release wrote them.
pub fn load_sealed(
    store: &dyn StateStore,
    name: &str,
    kind: [u8; 4],
    supported: u16,
) -> Result<Option<Vec<u8>>, StateError> {
    let damaged = |what| StateError::Damaged { name: name.to_owned(), what };
    let loaded =
        store.load(name).map_err(|source| StateError::Store { name: name.to_owned(), source })?;
    let Some(mut bytes) = loaded else { return Ok(None) };
    if bytes.len() < HEADER_BYTES {
        return Err(damaged("shorter than its header"));
    }
    if bytes[..4] != MAGIC || bytes[4..8] != kind {
        return Err(damaged("of another kind"));
    }
    // The version comes before the checksum: a later one may be summed up in another way.
    let found = u16::from_le_bytes([bytes[8], bytes[9]]);
    if found > supported {
        return Err(StateError::Future { name: name.to_owned(), found, supported });
    }
    let sum: [u8; 8] = bytes[16..HEADER_BYTES].try_into().map_err(|_| damaged("cut short"))?;
    bytes[16..HEADER_BYTES].fill(0);
    if xxh3_64(&bytes) != u64::from_le_bytes(sum) {
        return Err(damaged("its checksum does not match"));
    }
    let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    if usize::try_from(length).ok() != Some(bytes.len() - HEADER_BYTES) {
        return Err(damaged("its length does not match"));
    }
    bytes.drain(..HEADER_BYTES);
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KIND: [u8; 4] = *b"test";

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let store = MemoryStore::new();
        save_sealed(&store, "piece", KIND, 1, b"payload").unwrap();
        assert_eq!(load_sealed(&store, "piece", KIND, 1).unwrap().unwrap(), b"payload");
        let whole = store.load("piece").unwrap().unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            store.save("piece", &flipped).unwrap();
            assert!(load_sealed(&store, "piece", KIND, 1).is_err(), "bit {bit}");
        }
        for cut in 0..whole.len() {
            store.save("piece", &whole[..cut]).unwrap();
            assert!(load_sealed(&store, "piece", KIND, 1).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_later_version_is_refused_with_both_numbers() {
        let store = MemoryStore::new();
        save_sealed(&store, "piece", KIND, 7, b"").unwrap();
        let refused = load_sealed(&store, "piece", KIND, 2).unwrap_err().to_string();
        assert!(refused.contains("version 7") && refused.contains("up to 2"), "{refused}");
    }
}
