//! [`Signature`]: which four-byte grams a short document has, in two bits a byte of text.
//!
//! Short documents share a unit, so trigrams alone make candidates of all that share one with what
//! was sought, and of those that have its trigrams in other places. A Bloom filter for each
//! document (Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", 1970; one hash)
//! tells most of them apart without reading their text: a literal of twelve bytes asks nine bits.
//! Long documents have none; their units are as small as a short document.

use super::fold::fold_text;

/// Bytes of a gram: shorter ones are in too many documents, longer ones too few in a literal.
pub(super) const GRAM_BYTES: usize = 4;
/// Bits of a signature for each byte of text.
const BITS_PER_BYTE: usize = 2;
/// Bytes of the unit in which signatures grow.
pub(super) const WORD_BYTES: usize = 8;

/// [`GRAM_BYTES`] folded bytes, packed, first byte highest.
pub(super) type Gram = u32;

/// Where a gram stands in signatures of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GramHash(u32);

impl GramHash {
    pub(super) fn of(gram: Gram) -> Self {
        // Fibonacci hashing; the second round spreads what the product leaves in its low half.
        let product = u64::from(gram).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(((product ^ product >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32)
    }

    /// Its bit in a signature of so many bytes.
    fn bit(self, bytes: usize) -> usize {
        ((u64::from(self.0) * (bytes as u64 * 8)) >> 32) as usize
    }
}

/// All grams of a folded string, in order.
pub(super) fn grams(folded: &[u8]) -> impl Iterator<Item = Gram> + '_ {
    folded.array_windows::<GRAM_BYTES>().map(|gram| u32::from_be_bytes(*gram))
}

/// The signature of one document, as stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature<'a>(pub(super) &'a [u8]);

impl Signature<'_> {
    /// Whether the document may have the gram; an empty signature says yes to all.
    pub(super) fn may_have(self, gram: GramHash) -> bool {
        let bit = gram.bit(self.0.len());
        self.0.get(bit / 8).is_none_or(|byte| byte >> (bit % 8) & 1 == 1)
    }
}

/// Appends the signature of a document of these texts to `out`.
pub(super) fn sign(texts: [&str; 2], folded: &mut Vec<u8>, out: &mut Vec<u8>) {
    let text_bytes: usize = texts.iter().map(|text| text.len()).sum();
    let bytes = (text_bytes * BITS_PER_BYTE).div_ceil(8 * WORD_BYTES).max(1) * WORD_BYTES;
    let start = out.len();
    out.resize(start + bytes, 0);
    let own = &mut out[start..];
    for text in texts {
        fold_text(text, folded);
        for line in folded.split(|&byte| byte == b'\n') {
            for gram in grams(line) {
                let bit = GramHash::of(gram).bit(bytes);
                own[bit / 8] |= 1 << (bit % 8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(title: &str, body: &str) -> Vec<u8> {
        let mut out = Vec::new();
        sign([title, body], &mut Vec::new(), &mut out);
        out
    }

    fn may_contain(signature: &[u8], literal: &str) -> bool {
        let mut folded = Vec::new();
        fold_text(literal, &mut folded);
        grams(&folded).all(|gram| Signature(signature).may_have(GramHash::of(gram)))
    }

    #[test]
    fn what_a_document_contains_passes_and_most_else_does_not() {
        let words = |from: usize| (from..from + 60).map(|i| format!("w{:x} ", i * 7919));
        let signature = signed("The Title", &words(1).collect::<String>());
        assert!(words(1).all(|word| may_contain(&signature, &word)));
        assert!(may_contain(&signature, "the title"));
        let strange = (1_000u64..2_000).map(|i| format!("{:x} w{:x}", i * 104_729, i * 15_485_863));
        let passed = strange.filter(|word| may_contain(&signature, word)).count();
        assert!(passed < 2, "{passed} of 1000 strange literals pass");
    }

    #[test]
    fn no_gram_spans_a_line_and_a_document_without_text_has_none() {
        let signature = signed("", "abcd\nefgh");
        assert!(may_contain(&signature, "abcd") && may_contain(&signature, "efgh"));
        assert!(!may_contain(&signature, "bcdefg"));
        assert!(!may_contain(&signed("", ""), "abcd"));
        assert!(may_contain(&[], "anything at all"), "no signature excludes nothing");
    }
}
