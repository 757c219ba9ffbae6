//! What goes into the log and comes out of it.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

/// What a caller appends. The log looks at neither kind nor payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The caller's own distinction.
    pub kind: u8,
    /// The caller's bytes; may be empty.
    pub payload: Bytes,
}

/// A record with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Sequence number: 1 for the first record ever appended, one more for each that follows.
    pub seq: u64,
    /// As appended.
    pub kind: u8,
    /// As appended.
    pub payload: Bytes,
}

/// Which records may still be written while the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Refused once the next segment cannot be prepared.
    Ordinary,
    /// Goes on from the reserve: what makes room (deletes) or ends the process in order.
    Essential,
}

/// Proof of a durable append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// Sequence number of the last record.
    pub last_seq: u64,
    /// [`receipt_hash`] of the records: the same for as long as all of them are in the log,
    /// whatever recovery and compaction did to the frames around them.
    pub hash: u128,
}

/// Hash of records with their sequence numbers and kinds (XXH3, 128 bits).
pub fn receipt_hash<'a>(entries: impl IntoIterator<Item = (u64, u8, &'a [u8])>) -> u128 {
    let mut hasher = Xxh3::new();
    for (seq, kind, payload) in entries {
        hasher.update(&seq.to_le_bytes());
        hasher.update(&[kind]);
        hasher.update(&(payload.len() as u64).to_le_bytes());
        hasher.update(payload);
    }
    hasher.digest128()
}

/// The receipt of records that get the sequence numbers from `first_seq` on.
pub(super) fn receipt(first_seq: u64, records: &[Record]) -> Appended {
    let numbered = records.iter().zip(first_seq..);
    let hash = receipt_hash(numbered.map(|(r, seq)| (seq, r.kind, r.payload.as_ref())));
    Appended { first_seq, last_seq: first_seq + records.len() as u64 - 1, hash }
}
