//! [`fold`]: one spelling for what readers take as the same letters.
//!
//! Compatibility forms are composed (NFKC), upper case becomes lower case, and accents of Latin, Greek,
//! Arabic and Hebrew letters go. Marks that carry meaning of their own stay: vowels of Indic scripts,
//! the Cyrillic `й` and `ї`. Letters without a decomposition follow the usual transcription (`ß` to
//! `ss`, `ø` to `o`). Forms of Arabic letters are left to the stemmer, which knows where they matter.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{compose, decompose_canonical, is_combining_mark};

/// Appends the folded form of `word` to `out`. Without `accents`, only case and compatibility forms.
pub(super) fn fold(word: &str, accents: bool, out: &mut String) {
    if word.is_ascii() {
        let start = out.len();
        out.push_str(word);
        out[start..].make_ascii_lowercase();
        return;
    }
    for character in word.nfkc().flat_map(char::to_lowercase) {
        match character {
            '\u{200c}' | '\u{200d}' | '\u{ad}' | '\u{2060}' | '\u{fe00}'..='\u{fe0f}' => {}
            _ if !accents => out.push(character),
            _ => fold_character(character, out),
        }
    }
}

fn fold_character(character: char, out: &mut String) {
    match character {
        'a'..='z' | '0'..='9' => out.push(character),
        'ß' => out.push_str("ss"),
        'æ' => out.push_str("ae"),
        'œ' => out.push_str("oe"),
        'þ' => out.push_str("th"),
        'ø' => out.push('o'),
        'đ' | 'ð' => out.push('d'),
        'ł' => out.push('l'),
        'ı' => out.push('i'),
        'ħ' => out.push('h'),
        'ς' => out.push('σ'),
        'ё' => out.push('е'),
        // Tatweel stretches a word and says nothing.
        '\u{640}' => {}
        _ if is_accent(character) => {}
        '\u{c0}'..='\u{3ff}' | '\u{1e00}'..='\u{1fff}' => {
            decompose_canonical(character, |part| {
                if !is_accent(part) {
                    out.push(part);
                }
            });
        }
        _ => out.push(character),
    }
}

/// Marks that readers leave out: combining diacritics, Hebrew points, Arabic vowel signs.
fn is_accent(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6ed}')
}

/// Whether the word has a letter that only Vietnamese uses: with a hook, a dot below, or two marks.
/// There, accents tell words apart; elsewhere they are as often left out as written.
pub(super) fn is_vietnamese(word: &str) -> bool {
    !word.is_ascii()
        && word
            .nfc()
            .any(|character| matches!(character, 'ơ' | 'Ơ' | 'ư' | 'Ư' | '\u{1ea0}'..='\u{1ef9}'))
}

/// Whether the character only modifies the one before it.
pub(super) fn is_mark(character: char) -> bool {
    is_combining_mark(character)
}

/// The characters of a run of an unsegmented script, composed and in their usual width, each with the
/// bytes of `text` that it stands for.
pub(super) fn characters(text: &str, run: Range<usize>, out: &mut Vec<(char, Range<usize>)>) {
    out.clear();
    for (offset, character) in text[run.clone()].char_indices() {
        let start = run.start + offset;
        let range = start..start + character.len_utf8();
        let character = usual_width(character);
        if let Some((last, last_range)) = out.last_mut()
            && let Some(composed) = compose(*last, character)
        {
            *last = composed;
            last_range.end = range.end;
            continue;
        }
        out.push((character, range));
    }
}

/// The compatibility form where it is a single character, such as full-width for half-width Kana.
fn usual_width(character: char) -> char {
    let mut forms = [character].into_iter().nfkc();
    match (forms.next(), forms.next()) {
        (Some(form), None) => form,
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(word: &str) -> String {
        let mut out = String::new();
        fold(word, true, &mut out);
        out
    }

    #[test]
    fn accents_case_and_compatibility_forms_go() {
        for (word, expected) in [
            ("Crème", "creme"),
            ("cre\u{300}me", "creme"),
            ("STRASSE", "strasse"),
            ("Straße", "strasse"),
            ("İstanbul", "istanbul"),
            ("ısı", "isi"),
            ("Việt", "viet"),
            ("Ångström", "angstrom"),
            ("Ｆｕｌｌ１２", "full12"),
            ("ﬁle", "file"),
            ("ΆΝΕΜΟΣ", "ανεμοσ"),
            ("Ёлка", "елка"),
            ("край", "край"),
            ("مُحَمَّد", "محمد"),
            ("أحمد", "أحمد"),
        ] {
            assert_eq!(folded(word), expected, "{word}");
        }
    }

    #[test]
    fn vowels_of_indic_scripts_stay() {
        assert_eq!(folded("हिन्दी"), "हिन्दी");
    }

    #[test]
    fn characters_of_a_run_are_composed_with_their_bytes() {
        let text = "\u{1112}\u{1161}\u{11ab}ｶﾞ";
        let mut out = Vec::new();
        characters(text, 0..text.len(), &mut out);
        let composed: Vec<char> = out.iter().map(|(character, _)| *character).collect();
        assert_eq!(composed, ['한', 'ガ']);
        assert_eq!(out[0].1, 0..9);
    }
}
