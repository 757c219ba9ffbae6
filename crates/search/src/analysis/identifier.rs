//! [`parts`]: the words inside an identifier.
//!
//! A part ends at an underscore, where lower case turns to upper (`camel|Case`), before the last
//! capital of several when a small letter follows (`HTTP|Server`), and between letters and digits
//! (`utf|8`). A plural acronym (`URLs`) is one part.

use std::ops::Range;

/// The most parts of one identifier; the last one takes what remains.
const PARTS_MAX: usize = 24;

/// A quick test: whether [`parts`] could find more than one part or cut underscores off.
#[inline]
pub(super) fn may_have_parts(word: &str) -> bool {
    let bytes = word.as_bytes();
    let first_digit = bytes.first().is_some_and(u8::is_ascii_digit);
    bytes.iter().skip(1).any(|&byte| {
        byte == b'_'
            || byte.is_ascii_uppercase()
            || byte.is_ascii_digit() != first_digit
            || byte >= 0x80
    }) || bytes.first() == Some(&b'_')
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Underscore,
    Digit,
    Upper,
    Lower,
}

fn kind(character: char) -> Kind {
    if character == '_' {
        Kind::Underscore
    } else if character.is_numeric() {
        Kind::Digit
    } else if character.is_uppercase() {
        Kind::Upper
    } else {
        Kind::Lower
    }
}

/// The parts of `word` in order: not empty, apart from each other.
pub(super) fn parts(word: &str) -> Parts<'_> {
    Parts { word, at: 0, found: 0 }
}

pub(super) struct Parts<'a> {
    word: &'a str,
    at: usize,
    found: usize,
}

impl Iterator for Parts<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let rest = &self.word[self.at..];
        let start = self.at + (rest.len() - rest.trim_start_matches('_').len());
        let rest = &self.word[start..];
        if rest.is_empty() {
            return None;
        }
        self.found += 1;
        let length = if self.found == PARTS_MAX { rest.len() } else { part_length(rest) };
        self.at = start + length;
        Some(start..self.at)
    }
}

/// The length of the part at the start of `rest`, which does not begin with an underscore.
fn part_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().map(|(at, character)| (at, kind(character)));
    let Some((_, first)) = characters.next() else { return 0 };
    let (mut last, mut last_at, mut uppers) = (first, 0, usize::from(first == Kind::Upper));
    for (at, now) in characters {
        let ends = match (last, now) {
            (_, Kind::Underscore) => return at,
            (Kind::Digit, other) | (other, Kind::Digit) => other != Kind::Digit,
            (Kind::Lower, Kind::Upper) => true,
            (Kind::Upper, Kind::Lower) if uppers > 1 && !is_plural(&rest[at..]) => return last_at,
            _ => false,
        };
        if ends {
            return at;
        }
        uppers = if now == Kind::Upper { uppers + 1 } else { 0 };
        (last, last_at) = (now, at);
    }
    rest.len()
}

/// Whether `rest` is the `s` of an acronym's plural.
fn is_plural(rest: &str) -> bool {
    let mut characters = rest.chars();
    characters.next() == Some('s') && characters.next().is_none_or(|next| kind(next) != Kind::Lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_naming_convention_gives_its_parts() {
        for (word, expected) in [
            ("snake_case", vec!["snake", "case"]),
            ("camelCase", vec!["camel", "Case"]),
            ("HTTPServer2", vec!["HTTP", "Server", "2"]),
            ("__init__", vec!["init"]),
            ("MAX_LEN", vec!["MAX", "LEN"]),
            ("utf8", vec!["utf", "8"]),
            ("x86_64", vec!["x", "86", "64"]),
            ("URLs", vec!["URLs"]),
            ("getURLsFor", vec!["get", "URLs", "For"]),
            ("Word", vec!["Word"]),
            ("ÜberGroß", vec!["Über", "Groß"]),
            ("_", vec![]),
        ] {
            let found: Vec<&str> = parts(word).map(|range| &word[range]).collect();
            assert_eq!(found, expected, "{word}");
            if found.len() != 1 || found[0] != word {
                assert!(may_have_parts(word), "{word}");
            }
        }
    }

    #[test]
    fn the_number_of_parts_is_bounded() {
        assert_eq!(parts(&"a_".repeat(60)).count(), PARTS_MAX);
    }
}
