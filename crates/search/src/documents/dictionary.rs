//! [`Dictionary`]: a sorted set of strings, searched in place, each known by its rank.
//!
//! ```text
//! count u32, groups u32, group offsets u64 each, entries
//! entry: varint bytes shared with the entry before, varint bytes that follow, those bytes
//! ```
//!
//! Entries stand in groups of 16; the first of a group shares nothing. Finding a key is a binary
//! search over group heads and a walk through one group; paths and ids shrink to a third because
//! neighbours share most of their bytes. One form serves ids (where an `fst` would be a little
//! smaller but slower to build and to read by rank), paths, tags and attribute values.

use super::little_endian::{put_varint, u32_at, u64_at, varint_at};

/// Entries in a group: 16 keeps the walk below the cost of the binary search before it.
const GROUP: u32 = 16;
const HEADER_BYTES: usize = 8;

/// Builds a dictionary from rising keys.
#[derive(Default)]
pub(super) struct DictionaryWriter {
    offsets: Vec<u64>,
    entries: Vec<u8>,
    last: Vec<u8>,
    count: u32,
}

impl DictionaryWriter {
    /// Adds a key, which must be higher than the one before.
    pub(super) fn push(&mut self, key: &[u8]) {
        debug_assert!(self.count == 0 || self.last.as_slice() < key);
        let shared = if self.count.is_multiple_of(GROUP) {
            self.offsets.push(self.entries.len() as u64);
            0
        } else {
            self.last.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        put_varint(&mut self.entries, shared as u64);
        put_varint(&mut self.entries, (key.len() - shared) as u64);
        self.entries.extend_from_slice(&key[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&key[shared..]);
        self.count += 1;
    }

    /// The binary form.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(HEADER_BYTES + self.offsets.len() * 8 + self.entries.len());
        out.extend(self.count.to_le_bytes());
        out.extend((self.offsets.len() as u32).to_le_bytes());
        self.offsets.iter().for_each(|offset| out.extend(offset.to_le_bytes()));
        out.extend_from_slice(&self.entries);
        out
    }
}

/// A dictionary in its binary form.
#[derive(Clone, Copy)]
pub(super) struct Dictionary<'a> {
    count: u32,
    offsets: &'a [u8],
    entries: &'a [u8],
}

/// The bytes are not a dictionary.
pub(super) const BROKEN: &str = "a dictionary is not well formed";

impl<'a> Dictionary<'a> {
    /// Reads the header; `None` when the lengths do not fit.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let count = u32_at(bytes, 0)?;
        let groups = u32_at(bytes, 4)?;
        if groups != count.div_ceil(GROUP) {
            return None;
        }
        let rest = bytes.get(HEADER_BYTES..)?;
        let (offsets, entries) = rest.split_at_checked(groups as usize * 8)?;
        Some(Self { count, offsets, entries })
    }

    /// How many keys there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn group_start(&self, group: u32) -> Option<usize> {
        usize::try_from(u64_at(self.offsets, group as usize * 8)?).ok()
    }

    /// The first key of a group, in place.
    fn head(&self, group: u32) -> Option<&'a [u8]> {
        let mut at = self.group_start(group)?;
        let shared = varint_at(self.entries, &mut at)?;
        let length = usize::try_from(varint_at(self.entries, &mut at)?).ok()?;
        (shared == 0).then(|| self.entries.get(at..)?.get(..length))?
    }

    /// The rank of `key` (`Ok`), or the rank it would have (`Err`); outer `None` when broken.
    pub(super) fn find(&self, key: &[u8]) -> Option<Result<u32, u32>> {
        let (mut low, mut high) = (0, self.count.div_ceil(GROUP));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.head(middle)? <= key { low = middle + 1 } else { high = middle }
        }
        let Some(group) = low.checked_sub(1) else {
            return Some(Err(0));
        };
        let mut cursor = self.from(group * GROUP)?;
        for rank in group * GROUP..((group + 1) * GROUP).min(self.count) {
            match cursor.next()?.cmp(key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(Ok(rank)),
                std::cmp::Ordering::Greater => return Some(Err(rank)),
            }
        }
        Some(Err(((group + 1) * GROUP).min(self.count)))
    }

    /// The first rank whose key is not below `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> Option<u32> {
        self.find(key).map(|found| found.unwrap_or_else(|rank| rank))
    }

    /// The key at `rank`.
    pub(super) fn key(&self, rank: u32) -> Option<Vec<u8>> {
        (rank < self.count).then(|| Some(self.from(rank)?.next()?.to_vec()))?
    }

    /// A walk that begins at `rank`.
    pub(super) fn from(&self, rank: u32) -> Option<Cursor<'a>> {
        let group = rank / GROUP;
        let at = if group * GROUP < self.count { self.group_start(group)? } else { 0 };
        let mut cursor = Cursor { entries: self.entries, at, key: Vec::new() };
        for _ in group * GROUP..rank.min(self.count) {
            cursor.next()?;
        }
        Some(cursor)
    }
}

/// A walk over the keys in order. Who walks counts: it does not know where the dictionary ends.
pub(super) struct Cursor<'a> {
    entries: &'a [u8],
    at: usize,
    key: Vec<u8>,
}

impl Cursor<'_> {
    /// The next key; `None` behind the last one and when broken.
    #[inline]
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let shared = usize::try_from(varint_at(self.entries, &mut self.at)?).ok()?;
        let length = usize::try_from(varint_at(self.entries, &mut self.at)?).ok()?;
        let suffix = self.entries.get(self.at..)?.get(..length)?;
        if shared > self.key.len() {
            return None;
        }
        self.at += length;
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        Some(&self.key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn build(keys: &BTreeSet<Vec<u8>>) -> Vec<u8> {
        let mut writer = DictionaryWriter::default();
        keys.iter().for_each(|key| writer.push(key));
        writer.finish()
    }

    proptest! {
        #[test]
        fn finds_and_reads_every_key_like_a_sorted_set(
            keys in prop::collection::btree_set("[ab]{0,6}".prop_map(String::into_bytes), 0..80),
            asked in "[abc]{0,6}",
        ) {
            let bytes = build(&keys);
            let dictionary = Dictionary::parse(&bytes).unwrap();
            let sorted: Vec<_> = keys.iter().cloned().collect();
            for (rank, key) in sorted.iter().enumerate() {
                prop_assert_eq!(dictionary.find(key).unwrap(), Ok(rank as u32));
                prop_assert_eq!(&dictionary.key(rank as u32).unwrap(), key);
            }
            let place = sorted.partition_point(|key| key.as_slice() < asked.as_bytes()) as u32;
            prop_assert_eq!(dictionary.lower_bound(asked.as_bytes()).unwrap(), place);
            prop_assert_eq!(dictionary.key(dictionary.count()), None);
        }

        #[test]
        fn broken_bytes_never_panic(
            keys in prop::collection::btree_set("[ab]{0,6}".prop_map(String::into_bytes), 1..40),
            at: prop::sample::Index, byte: u8,
        ) {
            let mut bytes = build(&keys);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(dictionary) = Dictionary::parse(&bytes) {
                let _ = dictionary.find(b"ab");
                let _ = dictionary.key(3);
                let _ = dictionary.from(dictionary.count());
            }
        }
    }
}
