//! What the BERT tokeniser takes a character for.

use std::sync::OnceLock;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// The classes that matter for cutting text into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CharacterClass {
    /// Part of a word.
    Letter,
    /// Ends a word.
    Space,
    /// A word of its own.
    Punctuation,
    /// A non-spacing mark: an accent.
    Mark,
    /// Control, format, private-use characters and U+FFFD: not seen at all.
    Dropped,
}

/// The class of `c`.
pub(crate) fn class_of(c: char) -> CharacterClass {
    // The category is a binary search over three thousand ranges; most text of any living
    // language lies in the first plane, so its classes are kept in 64 KiB.
    static FIRST_PLANE: OnceLock<Box<[CharacterClass]>> = OnceLock::new();
    let table = FIRST_PLANE.get_or_init(|| {
        (0..0x1_0000u32)
            .map(|code| char::from_u32(code).map_or(CharacterClass::Dropped, compute))
            .collect()
    });
    match table.get(c as usize) {
        Some(class) => *class,
        None => compute(c),
    }
}

fn compute(c: char) -> CharacterClass {
    match c {
        '\t' | '\n' | '\r' => return CharacterClass::Space,
        '\u{FFFD}' => return CharacterClass::Dropped,
        // Their category changed after the reference's tables were made.
        '\u{166D}' | '\u{111C9}' => return CharacterClass::Punctuation,
        '\u{1734}' | '\u{1171E}' => return CharacterClass::Mark,
        _ if is_unknown_to_reference(c) => return CharacterClass::Letter,
        _ => {}
    }
    match c.general_category() {
        GeneralCategory::Control
        | GeneralCategory::Format
        | GeneralCategory::PrivateUse
        | GeneralCategory::Surrogate => CharacterClass::Dropped,
        GeneralCategory::NonspacingMark => CharacterClass::Mark,
        GeneralCategory::ConnectorPunctuation
        | GeneralCategory::DashPunctuation
        | GeneralCategory::OpenPunctuation
        | GeneralCategory::ClosePunctuation
        | GeneralCategory::InitialPunctuation
        | GeneralCategory::FinalPunctuation
        | GeneralCategory::OtherPunctuation => CharacterClass::Punctuation,
        _ if c.is_whitespace() => CharacterClass::Space,
        // Symbols such as `$` and `+` are punctuation in ASCII only.
        _ if c.is_ascii_punctuation() => CharacterClass::Punctuation,
        _ => CharacterClass::Letter,
    }
}

/// Whether the reference puts spaces around `c`: the blocks of unified and compatibility
/// ideographs that it knows.
pub(crate) fn is_ideograph(c: char) -> bool {
    matches!(
        c,
        '\u{4E00}'..='\u{9FFF}'
            | '\u{3400}'..='\u{4DBF}'
            | '\u{20000}'..='\u{2A6DF}'
            | '\u{2A700}'..='\u{2B73F}'
            | '\u{2B740}'..='\u{2B81F}'
            | '\u{2B920}'..='\u{2CEAF}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{2F800}'..='\u{2FA1F}'
    )
}

fn is_unknown_to_reference(c: char) -> bool {
    let code = c as u32;
    let at = UNKNOWN_TO_REFERENCE.partition_point(|(_, last)| *last < code);
    UNKNOWN_TO_REFERENCE.get(at).is_some_and(|(first, _)| *first <= code)
}

/// Marks, punctuation and format characters that Unicode has assigned since the reference's tables
/// were made; it takes them for letters, and so did the training of every model that used it.
/// Found by `models/reproduce/check_tokens.py`, which tries every code point.
#[rustfmt::skip]
const UNKNOWN_TO_REFERENCE: &[(u32, u32)] = &[
    (0x5C8, 0x5C9), (0x61D, 0x61D), (0x7FD, 0x7FD), (0x890, 0x891), (0x897, 0x89F), (0x8CA, 0x8E2),
    (0x9FD, 0x9FE), (0xA76, 0xA76), (0xAFA, 0xAFF), (0xB53, 0xB55), (0xC04, 0xC04), (0xC3C, 0xC3C),
    (0xC77, 0xC77), (0xC84, 0xC84), (0xD00, 0xD00), (0xD3B, 0xD3C), (0xD81, 0xD81), (0xEBA, 0xEBA),
    (0xECE, 0xECE), (0x180F, 0x180F), (0x1885, 0x1886), (0x1ABF, 0x1AF0), (0x1B4E, 0x1B4F),
    (0x1B7D, 0x1B7F), (0x1DF6, 0x1DFB), (0x2E43, 0x2E4F), (0x2E52, 0x2E5D), (0x2E60, 0x2E63),
    (0xA82C, 0xA82C), (0xA8C5, 0xA8C5), (0xA8FF, 0xA8FF), (0xA9BD, 0xA9BD), (0x10D24, 0x10D27),
    (0x10D69, 0x10D6E), (0x10EAB, 0x10EAD), (0x10ECB, 0x10ED0), (0x10EF0, 0x10EFF),
    (0x10F46, 0x10F50), (0x10F55, 0x10F59), (0x10F82, 0x10F89), (0x11070, 0x11070),
    (0x11073, 0x11074), (0x110C2, 0x110C2), (0x110CD, 0x110CD), (0x111C9, 0x111C9),
    (0x111CF, 0x111CF), (0x1123E, 0x1123E), (0x11241, 0x11241), (0x1133B, 0x1133B),
    (0x113BB, 0x113C0), (0x113CE, 0x113CE), (0x113D0, 0x113D0), (0x113D2, 0x113D2),
    (0x113D4, 0x113D5), (0x113D7, 0x113D8), (0x113E1, 0x113E2), (0x11438, 0x1143F),
    (0x11442, 0x11444), (0x11446, 0x11446), (0x1144B, 0x1144F), (0x1145A, 0x1145B),
    (0x1145D, 0x1145E), (0x11660, 0x1166C), (0x116B9, 0x116B9), (0x1182F, 0x11837),
    (0x11839, 0x1183B), (0x1193B, 0x1193C), (0x1193E, 0x1193E), (0x11943, 0x11946),
    (0x119D4, 0x119D7), (0x119DA, 0x119DB), (0x119E0, 0x119E0), (0x119E2, 0x119E2),
    (0x11A01, 0x11A0A), (0x11A33, 0x11A38), (0x11A3B, 0x11A47), (0x11A51, 0x11A56),
    (0x11A59, 0x11A5B), (0x11A8A, 0x11A96), (0x11A98, 0x11A9C), (0x11A9E, 0x11AA2),
    (0x11B00, 0x11B09), (0x11B60, 0x11B60), (0x11B62, 0x11B64), (0x11B66, 0x11B66),
    (0x11BE1, 0x11BE1), (0x11C30, 0x11C36), (0x11C38, 0x11C3D), (0x11C3F, 0x11C3F),
    (0x11C41, 0x11C45), (0x11C70, 0x11C71), (0x11C92, 0x11CA7), (0x11CAA, 0x11CB0),
    (0x11CB2, 0x11CB3), (0x11CB5, 0x11CB6), (0x11D31, 0x11D36), (0x11D3A, 0x11D3A),
    (0x11D3C, 0x11D3D), (0x11D3F, 0x11D45), (0x11D47, 0x11D47), (0x11D90, 0x11D91),
    (0x11D95, 0x11D95), (0x11D97, 0x11D97), (0x11DF0, 0x11DF0), (0x11EF3, 0x11EF4),
    (0x11EF7, 0x11EF8), (0x11F00, 0x11F01), (0x11F36, 0x11F3A), (0x11F40, 0x11F40),
    (0x11F42, 0x11F4F), (0x11F5A, 0x11F5A), (0x11FFF, 0x11FFF), (0x12FF1, 0x12FF2),
    (0x13430, 0x13440), (0x13447, 0x13455), (0x1611E, 0x16129), (0x1612D, 0x1612F),
    (0x16D6D, 0x16D6F), (0x16E97, 0x16E9A), (0x16F4F, 0x16F4F), (0x16FE2, 0x16FE2),
    (0x16FE4, 0x16FE4), (0x1CF00, 0x1CF2D), (0x1CF30, 0x1CF46), (0x1D127, 0x1D128),
    (0x1D25B, 0x1D25C), (0x1E000, 0x1E006), (0x1E008, 0x1E018), (0x1E01B, 0x1E021),
    (0x1E023, 0x1E024), (0x1E026, 0x1E02A), (0x1E08F, 0x1E08F), (0x1E130, 0x1E136),
    (0x1E2AE, 0x1E2AE), (0x1E2EC, 0x1E2EF), (0x1E4EC, 0x1E4EF), (0x1E5EE, 0x1E5EF),
    (0x1E5FF, 0x1E5FF), (0x1E6E3, 0x1E6E3), (0x1E6E6, 0x1E6E6), (0x1E6EE, 0x1E6EF),
    (0x1E6F5, 0x1E6F5), (0x1E944, 0x1E94A), (0x1E95E, 0x1E95F),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_file::sha256_hex;

    #[test]
    fn every_code_point_has_the_class_that_was_checked_against_the_reference() {
        let classes: Vec<u8> = ('\0'..=char::MAX).map(|c| class_of(c) as u8).collect();
        assert_eq!(
            sha256_hex(&classes),
            "61a16db0f7036d0395d261219f049532e80d58eb44d528d2d02744101d076ab0",
            "the Unicode tables changed: run models/reproduce/check_tokens.py and add what it finds"
        );
    }

    #[test]
    fn the_exceptions_are_sorted() {
        assert!(UNKNOWN_TO_REFERENCE.windows(2).all(|pair| pair[0].1 < pair[1].0));
        assert!(UNKNOWN_TO_REFERENCE.iter().all(|(first, last)| first <= last));
    }
}
