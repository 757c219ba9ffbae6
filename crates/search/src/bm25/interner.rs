//! [`Interner`]: a number for every distinct string of bytes, without an allocation for each.

use xxhash_rust::xxh3::xxh3_64;

/// Strings in one buffer, found by hash. Numbers count from 0 in order of first appearance.
#[derive(Default)]
pub(super) struct Interner {
    bytes: Vec<u8>,
    /// For each number, where its bytes end and its hash.
    entries: Vec<(u32, u32)>,
    /// Numbers + 1 by the low bits of the hash, 0 for a free place; a power of two, at most half full.
    table: Vec<u32>,
}

impl Interner {
    /// The memory in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * 8 + self.table.capacity() * 4
    }

    /// The string of a number.
    pub(super) fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.entries[before].0);
        &self.bytes[start as usize..self.entries[number].0 as usize]
    }

    /// The number of a string, and whether it is new. Callers keep all strings together below 4 GiB.
    #[inline]
    pub(super) fn add(&mut self, string: &[u8]) -> (u32, bool) {
        if self.entries.len() * 2 >= self.table.len() {
            self.grow();
        }
        let hash = xxh3_64(string) as u32;
        let mask = self.table.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            match self.table[place] {
                0 => break,
                number => {
                    let number = number - 1;
                    if self.entries[number as usize].1 == hash && self.get(number) == string {
                        return (number, false);
                    }
                }
            }
            place = (place + 1) & mask;
        }
        let number = self.entries.len() as u32;
        self.bytes.extend(string);
        self.entries.push((self.bytes.len() as u32, hash));
        self.table[place] = number + 1;
        (number, true)
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.table.len() * 2).max(1024);
        self.table.clear();
        self.table.resize(size, 0);
        for (number, (_, hash)) in self.entries.iter().enumerate() {
            let mut place = *hash as usize & (size - 1);
            while self.table[place] != 0 {
                place = (place + 1) & (size - 1);
            }
            self.table[place] = number as u32 + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_have_one_number() {
        let mut interner = Interner::default();
        let strings: Vec<String> = (0..5000).map(|i| format!("s{}", i % 3000)).collect();
        for (i, string) in strings.iter().enumerate() {
            assert_eq!(interner.add(string.as_bytes()), ((i % 3000) as u32, i < 3000));
        }
        assert_eq!(interner.get(2999), b"s2999");
    }
}
