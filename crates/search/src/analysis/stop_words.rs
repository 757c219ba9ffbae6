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

/// Whether the word, in any case, is a stop word.
pub(super) fn is_stop_word(word: &str) -> bool {
    if word.len() > STOP_WORD_BYTES_MAX {
        return false;
    }
    let mut lower = [0; STOP_WORD_BYTES_MAX];
    for (to, from) in lower.iter_mut().zip(word.bytes()) {
        *to = from.to_ascii_lowercase();
    }
    STOP_WORDS.binary_search_by(|stop| stop.as_bytes().cmp(&lower[..word.len()])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_found_in_any_case() {
        assert!(STOP_WORDS.is_sorted());
        assert!(STOP_WORDS.iter().all(|word| word.len() <= STOP_WORD_BYTES_MAX));
        assert!(is_stop_word("The") && is_stop_word("a") && is_stop_word("WHICH"));
        assert!(!is_stop_word("whale") && !is_stop_word("") && !is_stop_word("tha"));
    }
}
