//! [`stem`]: takes endings off by Snowball's rules for the language that the script of a word implies.
//!
//! Latin letters take the English rules: they are harmless where they were measured on German, Spanish,
//! Romanian, Turkish and Vietnamese, and choosing by a guessed language would let a query miss its
//! documents. Words with digits or with accents left are names and stay as they are.

use std::borrow::Cow;

use rust_stemmers::{Algorithm, Stemmer};

/// Words shorter than this have no ending to lose.
const STEM_CHARACTERS_MIN: usize = 3;

/// Stems a folded word in place.
pub(super) fn stem(word: &mut String) {
    let Some(algorithm) = algorithm(word) else { return };
    if word.chars().take(STEM_CHARACTERS_MIN).count() < STEM_CHARACTERS_MIN {
        return;
    }
    let stemmed = match Stemmer::create(algorithm).stem(word) {
        Cow::Borrowed(stemmed) if stemmed.len() == word.len() => return,
        Cow::Borrowed(stemmed) => stemmed.to_string(),
        Cow::Owned(stemmed) => stemmed,
    };
    if !stemmed.is_empty() {
        *word = stemmed;
    }
}

fn algorithm(word: &str) -> Option<Algorithm> {
    if word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Some(Algorithm::English);
    }
    let algorithm = of_letter(word.chars().next()?)?;
    word.chars().all(|character| of_letter(character) == Some(algorithm)).then_some(algorithm)
}

fn of_letter(character: char) -> Option<Algorithm> {
    match character {
        '\u{370}'..='\u{3ff}' => Some(Algorithm::Greek),
        '\u{400}'..='\u{4ff}' => Some(Algorithm::Russian),
        '\u{620}'..='\u{65f}' => Some(Algorithm::Arabic),
        '\u{b80}'..='\u{bff}' => Some(Algorithm::Tamil),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_chooses_the_rules() {
        for (word, expected) in [
            ("connections", "connect"),
            ("utf8s", "utf8s"),
            ("is", "is"),
            ("книгами", "книг"),
            ("mixedкнига", "mixedкнига"),
            ("हिन्दी", "हिन्दी"),
        ] {
            let mut stemmed = word.to_string();
            stem(&mut stemmed);
            assert_eq!(stemmed, expected);
        }
    }
}
