//! [`Bitmap`]: a set of document numbers that is cheap to copy and quick to ask.
//!
//! Numbers are dense, so the set is a plain bit vector cut into chunks of 65,536 bits. A chunk is
//! shared between copies until one of them changes it: publishing a snapshot of a million documents
//! after one deletion copies 16 pointers and one chunk of 8 KiB.

use std::sync::Arc;

const CHUNK_BITS: u32 = 1 << 16;
const CHUNK_WORDS: usize = CHUNK_BITS as usize / 64;

type Chunk = [u64; CHUNK_WORDS];

/// A set of `u32`, copy-on-write by chunks of 65,536 numbers.
#[derive(Clone, Default)]
pub struct Bitmap {
    /// `None` is a chunk without members.
    chunks: Vec<Option<Arc<Chunk>>>,
}

impl Bitmap {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// All numbers from 0 up to, and without, `end`.
    pub fn full(end: u32) -> Self {
        let mut bitmap = Self::new();
        let whole = (end / CHUNK_BITS) as usize;
        let all = Arc::new([u64::MAX; CHUNK_WORDS]);
        bitmap.chunks.extend(std::iter::repeat_n(Some(all), whole));
        for number in whole as u32 * CHUNK_BITS..end {
            bitmap.insert(number);
        }
        bitmap
    }

    /// Whether `number` is in the set.
    #[inline]
    pub fn contains(&self, number: u32) -> bool {
        match self.chunks.get((number / CHUNK_BITS) as usize) {
            Some(Some(chunk)) => {
                let bit = number % CHUNK_BITS;
                chunk[(bit / 64) as usize] >> (bit % 64) & 1 == 1
            }
            _ => false,
        }
    }

    /// Adds `number`; answers whether it was new.
    pub fn insert(&mut self, number: u32) -> bool {
        let index = (number / CHUNK_BITS) as usize;
        if index >= self.chunks.len() {
            self.chunks.resize(index + 1, None);
        }
        let chunk = self.chunks[index].get_or_insert_with(|| Arc::new([0; CHUNK_WORDS]));
        let bit = number % CHUNK_BITS;
        let (word, mask) = ((bit / 64) as usize, 1u64 << (bit % 64));
        if chunk[word] & mask != 0 {
            return false;
        }
        Arc::make_mut(chunk)[word] |= mask;
        true
    }

    /// Takes `number` out; answers whether it was there.
    pub fn remove(&mut self, number: u32) -> bool {
        if !self.contains(number) {
            return false;
        }
        if let Some(Some(chunk)) = self.chunks.get_mut((number / CHUNK_BITS) as usize) {
            let bit = number % CHUNK_BITS;
            Arc::make_mut(chunk)[(bit / 64) as usize] &= !(1u64 << (bit % 64));
        }
        true
    }

    /// How many numbers are in the set. Reads every chunk.
    pub fn len(&self) -> u64 {
        self.words().map(|(_, word)| u64::from(word.count_ones())).sum()
    }

    /// Whether the set has no member.
    pub fn is_empty(&self) -> bool {
        self.words().all(|(_, word)| word == 0)
    }

    /// How many members lie in `start..end`.
    pub fn count_range(&self, start: u32, end: u32) -> u64 {
        (start..end).filter(|&number| self.contains(number)).count() as u64
    }

    /// The members in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words().flat_map(|(base, mut word)| {
            std::iter::from_fn(move || {
                if word == 0 {
                    return None;
                }
                let bit = word.trailing_zeros();
                word &= word - 1;
                Some(base + bit)
            })
        })
    }

    /// Keeps only what is also in `other`.
    pub fn intersect(&mut self, other: &Bitmap) {
        self.chunks.truncate(other.chunks.len());
        for (mine, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            match (mine.as_mut(), theirs) {
                (Some(chunk), Some(with)) if !Arc::ptr_eq(chunk, with) => {
                    let chunk = Arc::make_mut(chunk);
                    chunk.iter_mut().zip(with.iter()).for_each(|(word, with)| *word &= with);
                }
                (Some(_), Some(_)) => {}
                _ => *mine = None,
            }
        }
    }

    /// Adds every member of `other`.
    pub fn unite(&mut self, other: &Bitmap) {
        if self.chunks.len() < other.chunks.len() {
            self.chunks.resize(other.chunks.len(), None);
        }
        for (mine, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            match (mine.as_mut(), theirs) {
                (Some(chunk), Some(with)) if !Arc::ptr_eq(chunk, with) => {
                    let chunk = Arc::make_mut(chunk);
                    chunk.iter_mut().zip(with.iter()).for_each(|(word, with)| *word |= with);
                }
                (None, Some(with)) => *mine = Some(Arc::clone(with)),
                _ => {}
            }
        }
    }

    /// Takes every member of `other` out.
    pub fn subtract(&mut self, other: &Bitmap) {
        for (mine, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            if let (Some(chunk), Some(with)) = (mine.as_mut(), theirs) {
                let chunk = Arc::make_mut(chunk);
                chunk.iter_mut().zip(with.iter()).for_each(|(word, with)| *word &= !with);
            }
        }
    }

    /// The set as little-endian 64-bit words, chunk after chunk; for checkpoints.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.chunks.len() * CHUNK_WORDS * 8);
        for chunk in &self.chunks {
            match chunk {
                Some(chunk) => chunk.iter().for_each(|word| bytes.extend(word.to_le_bytes())),
                None => bytes.resize(bytes.len() + CHUNK_WORDS * 8, 0),
            }
        }
        bytes
    }

    /// Reads what [`Bitmap::to_bytes`] wrote; `None` when the length is not a whole number of chunks.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if !bytes.len().is_multiple_of(CHUNK_WORDS * 8) {
            return None;
        }
        let mut chunks = Vec::with_capacity(bytes.len() / (CHUNK_WORDS * 8));
        for part in bytes.chunks_exact(CHUNK_WORDS * 8) {
            let mut chunk = [0u64; CHUNK_WORDS];
            for (word, raw) in chunk.iter_mut().zip(part.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*raw);
            }
            chunks.push((chunk != [0; CHUNK_WORDS]).then(|| Arc::new(chunk)));
        }
        Some(Self { chunks })
    }

    fn words(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.chunks.iter().enumerate().filter_map(|(i, chunk)| Some((i, chunk.as_ref()?))).flat_map(
            |(i, chunk)| {
                let base = i as u32 * CHUNK_BITS;
                chunk.iter().enumerate().map(move |(j, &word)| (base + j as u32 * 64, word))
            },
        )
    }
}

impl FromIterator<u32> for Bitmap {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut bitmap = Self::new();
        for number in numbers {
            bitmap.insert(number);
        }
        bitmap
    }
}

impl PartialEq for Bitmap {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitmap({} members)", self.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set_under_any_operations(
            a in prop::collection::btree_set(0u32..300_000, 0..200),
            b in prop::collection::btree_set(0u32..300_000, 0..200),
            gone in prop::collection::vec(0u32..300_000, 0..50),
        ) {
            let other: Bitmap = b.iter().copied().collect();
            let check = |bitmap: &Bitmap, set: &BTreeSet<u32>| {
                assert_eq!(bitmap.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
                assert_eq!(bitmap.len(), set.len() as u64);
                assert_eq!(Bitmap::from_bytes(&bitmap.to_bytes()).unwrap(), *bitmap);
            };
            let mut bitmap: Bitmap = a.iter().copied().collect();
            let before = bitmap.clone();
            let mut set = a.clone();
            for number in gone {
                prop_assert_eq!(bitmap.remove(number), set.remove(&number));
            }
            check(&bitmap, &set);
            check(&before, &a);
            let mut both = bitmap.clone();
            both.intersect(&other);
            check(&both, &set.intersection(&b).copied().collect());
            let mut either = bitmap.clone();
            either.unite(&other);
            check(&either, &set.union(&b).copied().collect());
            bitmap.subtract(&other);
            check(&bitmap, &set.difference(&b).copied().collect());
        }
    }

    #[test]
    fn full_holds_every_number_below_its_end() {
        let bitmap = Bitmap::full(65_536 + 70);
        assert_eq!(bitmap.len(), 65_606);
        assert!(bitmap.contains(65_605) && !bitmap.contains(65_606));
    }

    #[test]
    fn bytes_of_a_wrong_length_are_refused() {
        assert!(Bitmap::from_bytes(&[0; 12]).is_none());
    }
}
