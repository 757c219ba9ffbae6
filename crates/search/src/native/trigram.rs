//! [`TrigramSet`]: the distinct trigrams of some text, folded, collected without hashing.
//!
//! A trigram is three bytes of folded UTF-8 that follow each other inside one line, packed into the
//! low 24 bits of a `u32`, first byte highest. No trigram spans a line break: no match does either.

use super::fold::fold_text;

/// Three bytes in the low 24 bits.
pub(super) type Trigram = u32;

const WORDS: usize = (1 << 24) / 64;

/// The trigram of three bytes.
pub(super) fn trigram(bytes: [u8; 3]) -> Trigram {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

/// A bit for each of the 2^24 trigrams and the list of those that are set: 2 MiB, reused for every
/// unit, cleared through the list.
pub(super) struct TrigramSet {
    words: Vec<u64>,
    found: Vec<Trigram>,
    folded: Vec<u8>,
}

impl TrigramSet {
    pub(super) fn new() -> Self {
        Self { words: vec![0; WORDS], found: Vec::new(), folded: Vec::new() }
    }

    /// Adds every trigram of `text`.
    pub(super) fn add(&mut self, text: &str) {
        let mut folded = std::mem::take(&mut self.folded);
        fold_text(text, &mut folded);
        let mut rolling = 0u32;
        let mut run = 0u32;
        for &byte in &folded {
            if byte == b'\n' {
                run = 0;
                continue;
            }
            rolling = (rolling << 8 | u32::from(byte)) & 0xff_ffff;
            run += 1;
            if run >= 3 {
                let word = &mut self.words[(rolling >> 6) as usize];
                let mask = 1u64 << (rolling & 63);
                if *word & mask == 0 {
                    *word |= mask;
                    self.found.push(rolling);
                }
            }
        }
        self.folded = folded;
    }

    /// Hands out what was collected, in no particular order, and starts anew.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Trigram)) {
        for trigram in self.found.drain(..) {
            self.words[(trigram >> 6) as usize] = 0;
            each(trigram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigrams_are_distinct_folded_and_never_span_lines() {
        let mut set = TrigramSet::new();
        set.add("ABCab\nc abc");
        let mut found = Vec::new();
        set.drain(|trigram| found.push(trigram));
        found.sort_unstable();
        let mut expected: Vec<_> =
            [*b"abc", *b"bca", *b"cab", *b"c a", *b" ab"].map(trigram).to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected);
        set.add("xy");
        set.drain(|_| panic!("two bytes have no trigram"));
    }
}
