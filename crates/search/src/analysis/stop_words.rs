//! [`is_stop_word`]: English words that say nothing about what is sought.
//!
//! They are left out of queries only, and only beside other words, so nothing becomes unfindable.
//! The list is Lucene's for English (`EnglishAnalyzer.ENGLISH_STOP_WORDS_SET`) and the words with which
//! questions begin.

/// The longest word in [`STOP_WORDS`].
const STOP_WORD_BYTES_MAX: usize = 5;

/// In rising order, for binary search.
const STOP_WORDS: [&str; 42] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "did", "do", "does", "for", "how",
    "if", "in", "into", "is", "it", "no", "not", "of", "on", "or", "such", "that", "the", "their",
    "then", "there", "these", "they", "this", "to", "was", "what", "when", "which", "who", "why",
    "will", "with",
];

/// The same, each in one number: it is asked for every word of every text.
const PACKED: [u64; STOP_WORDS.len()] = {
    let (mut packed, mut at) = ([0; STOP_WORDS.len()], 0);
    while at < packed.len() {
        packed[at] = pack(STOP_WORDS[at].as_bytes());
        at += 1;
    }
    packed
};

/// The bytes in lower case, the first one highest, and how many: numbers are in the order of their words.
const fn pack(word: &[u8]) -> u64 {
    let (mut packed, mut at) = (0, 0);
    while at < STOP_WORD_BYTES_MAX {
        let byte = if at < word.len() { word[at].to_ascii_lowercase() } else { 0 };
        packed = packed << 8 | byte as u64;
        at += 1;
    }
    packed << 8 | word.len() as u64
}

/// Whether the word, in any case, is a stop word.
pub(super) fn is_stop_word(word: &str) -> bool {
    word.len() <= STOP_WORD_BYTES_MAX && PACKED.binary_search(&pack(word.as_bytes())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_found_in_any_case() {
        assert!(STOP_WORDS.is_sorted() && PACKED.is_sorted());
        assert!(STOP_WORDS.iter().all(|word| is_stop_word(word)));
        assert!(STOP_WORDS.iter().all(|word| word.len() <= STOP_WORD_BYTES_MAX));
        assert!(is_stop_word("The") && is_stop_word("a") && is_stop_word("WHICH"));
        assert!(!is_stop_word("whale") && !is_stop_word("") && !is_stop_word("tha"));
        assert!(!is_stop_word("a\0") && !is_stop_word("\0a") && !is_stop_word("thé"));
    }
}
