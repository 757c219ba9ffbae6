//! The term dictionary of a segment: sorted terms in blocks of 16, each written as what it does not
//! share with the one before, with where its postings are.
//!
//! A term is found by a binary search over the first terms of the blocks and a walk through one block.
//! Compared with a finite-state map this is larger by a little and built at the speed of copying, which
//! counts because every merge writes it again.
//!
//! ```text
//! block: varint offset of its first postings, then for each term
//!        shared bytes (1), further bytes (1), further bytes,
//!        varint df; df = 1: varint document, varint frequency; else: varint bytes of postings
//! index: for each block, its offset (4 bytes)
//! ```

use super::packing::{put_varint, take_varint, take_varint_u32};

/// How many terms stand in one block.
const BLOCK_TERMS: usize = 16;

/// Where the postings of a term are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// The only posting, kept in the dictionary: most terms have no other.
    Single { document: u32, frequency: u32 },
    /// A list of `documents` postings in the postings section.
    List { documents: u32, offset: u64, bytes: u64 },
}

impl Location {
    pub(super) fn documents(&self) -> u32 {
        match *self {
            Self::Single { .. } => 1,
            Self::List { documents, .. } => documents,
        }
    }
}

/// Collects terms in rising order.
#[derive(Default)]
pub(super) struct DictionaryWriter {
    blocks: Vec<u8>,
    index: Vec<u8>,
    last: Vec<u8>,
    count: u32,
}

impl DictionaryWriter {
    /// Adds a term that is greater than all before and at most 255 bytes long; `position` is where
    /// the postings section stands before it. Answers false, having added nothing, when the dictionary
    /// would pass 4 GiB.
    #[must_use]
    pub(super) fn add(&mut self, term: &[u8], location: &Location, position: u64) -> bool {
        debug_assert!(term.len() <= 255 && (self.count == 0 || term > self.last.as_slice()));
        let first = (self.count as usize).is_multiple_of(BLOCK_TERMS);
        if first {
            let Ok(offset) = u32::try_from(self.blocks.len()) else { return false };
            self.index.extend(offset.to_le_bytes());
            put_varint(&mut self.blocks, position);
        }
        let common = || self.last.iter().zip(term).take_while(|(a, b)| a == b).count();
        let shared = if first { 0 } else { common() };
        self.blocks.extend([shared as u8, (term.len() - shared) as u8]);
        self.blocks.extend(&term[shared..]);
        put_varint(&mut self.blocks, u64::from(location.documents()));
        match *location {
            Location::Single { document, frequency } => {
                put_varint(&mut self.blocks, u64::from(document));
                put_varint(&mut self.blocks, u64::from(frequency));
            }
            Location::List { bytes, .. } => put_varint(&mut self.blocks, bytes),
        }
        self.last.clear();
        self.last.extend(term);
        self.count += 1;
        true
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The blocks and the index.
    pub(super) fn finish(self) -> (Vec<u8>, Vec<u8>) {
        (self.blocks, self.index)
    }
}

/// A dictionary in place.
#[derive(Clone, Copy)]
pub(super) struct Dictionary<'a> {
    pub(super) blocks: &'a [u8],
    pub(super) index: &'a [u8],
}

impl<'a> Dictionary<'a> {
    /// Where the postings of `term` are. `Err` when the dictionary is damaged.
    pub(super) fn find(&self, term: &[u8]) -> Result<Option<Location>, Damage> {
        let (mut low, mut high) = (0, self.index.len() / 4);
        // Invariant: the first term of every block before `low` is at most `term`, of `high` greater.
        while low < high {
            let middle = low + (high - low) / 2;
            if self.first_term(middle).ok_or(Damage)? <= term {
                low = middle + 1
            } else {
                high = middle
            }
        }
        let Some(block) = low.checked_sub(1) else { return Ok(None) };
        let mut walk = self.block(block).ok_or(Damage)?;
        // How many bytes of `term` the entry before shares with it; the walk need not build terms.
        let mut matched = 0;
        for _ in 0..BLOCK_TERMS {
            if walk.bytes.is_empty() {
                return Ok(None);
            }
            let entry = walk.entry().ok_or(Damage)?;
            if entry.shared < matched {
                return Ok(None);
            }
            if entry.shared == matched {
                let rest = term.get(matched..).ok_or(Damage)?;
                let common = entry.suffix.iter().zip(rest).take_while(|(a, b)| a == b).count();
                matched += common;
                if common == rest.len() && common == entry.suffix.len() {
                    return Ok(Some(entry.location));
                }
                if common == rest.len() || entry.suffix.get(common) > rest.get(common) {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Walks through all terms in order.
    pub(super) fn walk(&self) -> DictionaryWalk<'a> {
        DictionaryWalk { dictionary: *self, block: 0, entries: 0, inside: None, term: Vec::new() }
    }

    fn block_bytes(&self, block: usize) -> Option<&'a [u8]> {
        let offset = |block: usize| {
            let raw = self.index.get(block * 4..block * 4 + 4)?;
            Some(u32::from_le_bytes(raw.try_into().ok()?) as usize)
        };
        let end = if (block + 1) * 4 >= self.index.len() {
            self.blocks.len()
        } else {
            offset(block + 1)?
        };
        self.blocks.get(offset(block)?..end)
    }

    fn block(&self, block: usize) -> Option<BlockWalk<'a>> {
        let mut bytes = self.block_bytes(block)?;
        let position = take_varint(&mut bytes)?;
        Some(BlockWalk { bytes, position })
    }

    #[inline]
    fn first_term(&self, block: usize) -> Option<&'a [u8]> {
        let mut bytes = self.block_bytes(block)?;
        take_varint(&mut bytes)?;
        let length = *bytes.get(1)? as usize;
        bytes.get(2..2 + length)
    }
}

/// The bytes do not form a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage;

struct BlockWalk<'a> {
    bytes: &'a [u8],
    position: u64,
}

struct Entry<'a> {
    shared: usize,
    suffix: &'a [u8],
    location: Location,
}

impl<'a> BlockWalk<'a> {
    #[inline]
    fn entry(&mut self) -> Option<Entry<'a>> {
        let (&[shared, length], rest) = self.bytes.split_first_chunk::<2>()?;
        let (suffix, rest) = rest.split_at_checked(length as usize)?;
        self.bytes = rest;
        let documents = take_varint_u32(&mut self.bytes)?;
        let location = if documents == 1 {
            let document = take_varint_u32(&mut self.bytes)?;
            Location::Single { document, frequency: take_varint_u32(&mut self.bytes)? }
        } else {
            let bytes = take_varint(&mut self.bytes)?;
            let offset = self.position;
            self.position = self.position.checked_add(bytes)?;
            Location::List { documents, offset, bytes }
        };
        Some(Entry { shared: usize::from(shared), suffix, location })
    }
}

/// Goes through all terms of a dictionary in rising order.
pub(super) struct DictionaryWalk<'a> {
    dictionary: Dictionary<'a>,
    block: usize,
    entries: usize,
    inside: Option<BlockWalk<'a>>,
    term: Vec<u8>,
}

impl DictionaryWalk<'_> {
    /// The term of the last answer of [`DictionaryWalk::advance`].
    pub(super) fn term(&self) -> &[u8] {
        &self.term
    }

    /// Goes to the next term; `None` at the end.
    pub(super) fn advance(&mut self) -> Result<Option<Location>, Damage> {
        if self.inside.as_ref().is_none_or(|inside| inside.bytes.is_empty()) {
            if self.block * 4 >= self.dictionary.index.len() {
                return Ok(None);
            }
            self.inside = Some(self.dictionary.block(self.block).ok_or(Damage)?);
            self.block += 1;
        }
        let inside = self.inside.as_mut().ok_or(Damage)?;
        let entry = inside.entry().ok_or(Damage)?;
        self.entries += 1;
        if entry.shared > self.term.len() {
            return Err(Damage);
        }
        if self.entries > 1 && self.term[entry.shared..] >= *entry.suffix {
            return Err(Damage);
        }
        self.term.truncate(entry.shared);
        self.term.extend(entry.suffix);
        Ok(Some(entry.location))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn written(terms: &BTreeMap<Vec<u8>, u32>) -> (Vec<u8>, Vec<u8>, BTreeMap<Vec<u8>, Location>) {
        let (mut writer, mut position, mut expected) =
            (DictionaryWriter::default(), 0, BTreeMap::new());
        for (term, &count) in terms {
            let location = if count <= 1 {
                Location::Single { document: count, frequency: 7 }
            } else {
                Location::List { documents: count, offset: position, bytes: u64::from(count) * 3 }
            };
            assert!(writer.add(term, &location, position));
            if count > 1 {
                position += u64::from(count) * 3;
            }
            expected.insert(term.clone(), location);
        }
        let (blocks, index) = writer.finish();
        (blocks, index, expected)
    }

    fn some_terms() -> impl Strategy<Value = BTreeMap<Vec<u8>, u32>> {
        prop::collection::btree_map(prop::collection::vec(97u8..101, 1..7), 0u32..9, 0..120)
    }

    proptest! {
        #[test]
        fn holds_what_was_added_and_nothing_else(terms in some_terms(), other in prop::collection::vec(97u8..101, 1..7)) {
            let (blocks, index, expected) = written(&terms);
            let dictionary = Dictionary { blocks: &blocks, index: &index };
            for (term, location) in &expected {
                prop_assert_eq!(dictionary.find(term), Ok(Some(*location)));
            }
            prop_assert_eq!(dictionary.find(&other), Ok(expected.get(&other).copied()));
            let mut walk = dictionary.walk();
            for (term, location) in &expected {
                prop_assert_eq!(walk.advance(), Ok(Some(*location)));
                prop_assert_eq!(walk.term(), term.as_slice());
            }
            prop_assert_eq!(walk.advance(), Ok(None));
        }

        #[test]
        fn damaged_bytes_never_panic(terms in some_terms(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let (mut blocks, mut index, expected) = written(&terms);
            if blocks.is_empty() { return Ok(()); }
            let position = at.index(blocks.len() + index.len());
            match position.checked_sub(blocks.len()) {
                None => blocks[position] = byte,
                Some(position) => index[position] = byte,
            }
            blocks.truncate(cut.index(blocks.len() * 2));
            let dictionary = Dictionary { blocks: &blocks, index: &index };
            for term in expected.keys() {
                let _ = dictionary.find(term);
            }
            let mut walk = dictionary.walk();
            for _ in 0..1000 {
                if !matches!(walk.advance(), Ok(Some(_))) { break; }
            }
        }
    }
}
