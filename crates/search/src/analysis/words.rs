//! [`words`]: where words begin and end.
//!
//! This is UAX #29 with one tailoring, and without its tables: letters, digits, `_` and the marks that
//! follow them stay together; everything else separates. The tailoring: characters that UAX #29 lets
//! join two letters or two digits (`.`, `:`, `'`, `,`, `;`, `·`) separate too, because `os.path` and
//! `l'homme` are two names each. What is left of an English `'s` is skipped.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// How a word is treated further on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// ASCII only.
    Ascii,
    /// Any letters of scripts that put spaces between words.
    Letters,
    /// A run of a script that does not.
    Unsegmented,
}

/// A word as a range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) class: Class,
}

/// The words of `text` in order.
pub(crate) fn words(text: &str) -> Words<'_> {
    Words { text, at: 0 }
}

pub(crate) struct Words<'a> {
    text: &'a str,
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Unsegmented,
    /// Continues what stands before it.
    Extend,
    Separator,
}

/// True for ASCII letters, digits and `_`.
const ASCII_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_';
        byte += 1;
    }
    table
};

impl Iterator for Words<'_> {
    type Item = Word;

    #[inline]
    fn next(&mut self) -> Option<Word> {
        let bytes = self.text.as_bytes();
        loop {
            let start = self.start()?;
            let mut end = start;
            while end < bytes.len() && ASCII_WORD[bytes[end] as usize] {
                end += 1;
            }
            let word = if end == bytes.len() || bytes[end] < 0x80 {
                Word { start, end, class: Class::Ascii }
            } else {
                self.beyond_ascii(start, end)
            };
            self.at = word.end.max(start + 1);
            if word.start < word.end && self.is_wanted(&word) {
                return Some(word);
            }
        }
    }
}

impl Words<'_> {
    /// The next byte at which a word could begin.
    #[inline]
    fn start(&self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        while at < bytes.len() && !ASCII_WORD[bytes[at] as usize] {
            if bytes[at] >= 0x80 {
                let character = self.text.get(at..)?.chars().next()?;
                if matches!(kind(character), Kind::Letter | Kind::Unsegmented) {
                    break;
                }
                at += character.len_utf8();
            } else {
                at += 1;
            }
        }
        (at < bytes.len()).then_some(at)
    }

    /// A word from `start` whose bytes up to `end` are ASCII and whose next character is not.
    #[cold]
    fn beyond_ascii(&self, start: usize, end: usize) -> Word {
        let mut class = if end > start { Class::Ascii } else { Class::Letters };
        let mut at = end;
        for character in self.text[end..].chars() {
            match kind(character) {
                Kind::Letter if class == Class::Unsegmented => break,
                Kind::Letter if character.is_ascii() => {}
                Kind::Letter => class = Class::Letters,
                Kind::Unsegmented if at == start => class = Class::Unsegmented,
                Kind::Unsegmented if class == Class::Unsegmented => {}
                Kind::Unsegmented | Kind::Separator => break,
                Kind::Extend if class == Class::Ascii => class = Class::Letters,
                Kind::Extend => {}
            }
            at += character.len_utf8();
        }
        Word { start, end: at, class }
    }

    /// Whether the word holds more than underscores and is not the rest of an English `'s`.
    #[inline]
    fn is_wanted(&self, word: &Word) -> bool {
        let bytes = self.text.as_bytes();
        let own = &bytes[word.start..word.end];
        if own[0] == b'_' && own.iter().all(|&byte| byte == b'_') {
            return false;
        }
        if own.len() > 2 || word.class != Class::Ascii || word.start < 2 {
            return true;
        }
        let before = &bytes[..word.start];
        let before = match before.strip_suffix(b"'") {
            Some(rest) => rest,
            None => match before.strip_suffix("\u{2019}".as_bytes()) {
                Some(rest) => rest,
                None => return true,
            },
        };
        let after_letter = before.last().is_some_and(u8::is_ascii_alphabetic);
        !(after_letter
            && matches!(own, b"s" | b"t" | b"d" | b"m" | b"ll" | b"re" | b"ve" | b"S" | b"T"))
    }
}

fn kind(character: char) -> Kind {
    if character.is_ascii() {
        let word = ASCII_WORD[character as usize];
        return if word { Kind::Letter } else { Kind::Separator };
    }
    let unsegmented = is_unsegmented(character);
    if character.is_alphanumeric() {
        return if unsegmented { Kind::Unsegmented } else { Kind::Letter };
    }
    match character {
        // Joiners and the soft hyphen stand inside words.
        '\u{200c}' | '\u{200d}' | '\u{ad}' | '\u{2060}' => Kind::Extend,
        _ if character.general_category_group() == GeneralCategoryGroup::Mark => {
            if unsegmented {
                Kind::Unsegmented
            } else {
                Kind::Extend
            }
        }
        _ => Kind::Separator,
    }
}

/// Whether the character belongs to a script that puts no spaces between words: Han, the Kana,
/// Bopomofo, Thai, Lao, Khmer and Myanmar by their Unicode blocks. Hangul is with them, as in Lucene's
/// `CJKAnalyzer`: Korean joins particles to nouns, and pairs find the noun without knowing them.
fn is_unsegmented(character: char) -> bool {
    matches!(character as u32,
        0x0e00..=0x0eff
        | 0x1000..=0x109f | 0xa9e0..=0xa9ff | 0xaa60..=0xaa7f
        | 0x1100..=0x11ff | 0xa960..=0xa97f | 0xac00..=0xd7ff
        | 0x1780..=0x17ff
        | 0x2e80..=0x2fdf | 0x3005..=0x3007 | 0x3021..=0x3029
        | 0x3040..=0x31bf | 0x31f0..=0x31ff
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff
        | 0xf900..=0xfaff | 0xff66..=0xffdc
        | 0x1b000..=0x1b16f | 0x20000..=0x3ffff)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use unicode_segmentation::UnicodeSegmentation;

    use super::*;

    fn of(text: &str) -> Vec<&str> {
        words(text).map(|word| &text[word.start..word.end]).collect()
    }

    #[test]
    fn names_in_code_are_words_of_their_own() {
        assert_eq!(
            of("os.path::join(a_b, _, __init__)"),
            ["os", "path", "join", "a_b", "__init__"]
        );
    }

    #[test]
    fn apostrophes_separate_and_english_endings_after_them_are_skipped() {
        assert_eq!(
            of("the user's l'homme don't we\u{2019}ll"),
            ["the", "user", "l", "homme", "don", "we"]
        );
        assert_eq!(of("c == 's'"), ["c", "s"]);
    }

    #[test]
    fn scripts_without_spaces_are_runs_apart_from_letters_around_them() {
        let text = "NFL黑豹队abc 24ภาษาไทย";
        let classes: Vec<_> = words(text).map(|word| word.class).collect();
        assert_eq!(of(text), ["NFL", "黑豹队", "abc", "24", "ภาษาไทย"]);
        assert_eq!(classes[1], Class::Unsegmented);
        assert_eq!(classes[4], Class::Unsegmented);
    }

    #[test]
    fn marks_and_joiners_stay_in_their_word() {
        assert_eq!(
            of("क्षत्रिय e\u{301}te\u{301} co\u{ad}op"),
            ["क्षत्रिय", "e\u{301}te\u{301}", "co\u{ad}op"]
        );
    }

    proptest! {
        #[test]
        fn agrees_with_uax_29_where_nothing_is_tailored(
            text in "([a-zäöüéñßàçœĳøł]{1,6}|[а-яёї]{1,6}|[α-ωά]{1,6}|[\u{621}-\u{64a}]{1,5}|[अ-ह][ा-्]?|[0-9]{1,4}|[ \n(){}=!?—«»$€]{1,3}){0,40}"
        ) {
            let expected: Vec<&str> = text.unicode_words().collect();
            prop_assert_eq!(of(&text), expected);
        }

        #[test]
        fn words_lie_apart_in_rising_order_on_any_text(text in "\\PC{0,60}|[\u{0}-\u{10ffff}]{0,60}") {
            let mut last = 0;
            for word in words(&text) {
                prop_assert!(word.start >= last && word.end > word.start);
                prop_assert!(text.is_char_boundary(word.start) && text.is_char_boundary(word.end));
                last = word.end;
            }
        }
    }
}
