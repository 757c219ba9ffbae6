//! [`fold_text`]: one spelling for all cases of a letter, so that one index serves every [`crate::request::Case`].
//!
//! Each character is replaced by one representative of its simple case-folding orbit, the very
//! relation by which the regex engine compares case-insensitively: `K`, `k` and the Kelvin sign are
//! one orbit, `S`, `s` and `ſ` another. The map works character by character, so the fold of a text
//! that contains a match contains the fold of the match: whatever trigrams a pattern requires after
//! folding are in the index of every document it matches, sensitive or not.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};
use xxhash_rust::xxh3::xxh3_64;

const PAGE: usize = 256;
const PAGES: usize = 0x11_0000 / PAGE;

/// The representative of every character, in pages; most pages are the shared identity.
struct FoldTable {
    pages: Vec<Option<Box<[char; PAGE]>>>,
    checksum: u32,
}

fn table() -> &'static FoldTable {
    static TABLE: OnceLock<FoldTable> = OnceLock::new();
    TABLE.get_or_init(FoldTable::new)
}

impl FoldTable {
    fn new() -> Self {
        let mut pages: Vec<Option<Box<[char; PAGE]>>> = (0..PAGES).map(|_| None).collect();
        let mut pairs = Vec::new();
        for c in cased() {
            let folded = representative(c);
            if folded == c {
                continue;
            }
            let at = c as usize;
            let page = pages[at / PAGE].get_or_insert_with(|| {
                let base = (at / PAGE * PAGE) as u32;
                // Surrogates are no characters; their page has no cased one, so it is never built.
                Box::new(std::array::from_fn(|i| char::from_u32(base + i as u32).unwrap_or('\0')))
            });
            page[at % PAGE] = folded;
            pairs.extend((c as u32).to_le_bytes());
            pairs.extend((folded as u32).to_le_bytes());
        }
        Self { pages, checksum: xxh3_64(&pairs) as u32 }
    }
}

/// Every character that takes part in case mapping or folding, in rising order.
fn cased() -> impl Iterator<Item = char> {
    let pattern = r"[\p{Changes_When_Casefolded}\p{Changes_When_Casemapped}]";
    let mut class = match regex_syntax::parse(pattern).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        _ => ClassUnicode::empty(),
    };
    class.case_fold_simple();
    let ranges: Vec<_> = class.ranges().to_vec();
    ranges.into_iter().flat_map(|range| range.start()..=range.end())
}

/// The ASCII lower-case letter of the orbit if it has one, else its least character.
fn representative(c: char) -> char {
    let mut orbit = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
    orbit.case_fold_simple();
    let members = || orbit.ranges().iter().flat_map(|range| range.start()..=range.end());
    members().find(char::is_ascii_lowercase).or_else(|| members().next()).unwrap_or(c)
}

/// Names the case table an index was built with: another Unicode version folds other letters, and
/// an index folded differently from the query would miss matches.
pub(super) fn fold_checksum() -> u32 {
    table().checksum
}

/// The representative of one character.
pub(super) fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    match &table().pages[c as usize / PAGE] {
        Some(page) => page[c as usize % PAGE],
        None => c,
    }
}

/// Replaces `out` by the folded bytes of `text`.
pub(super) fn fold_text(text: &str, out: &mut Vec<u8>) {
    out.clear();
    if text.is_ascii() {
        out.extend_from_slice(text.as_bytes());
        out.make_ascii_lowercase();
        return;
    }
    let mut utf8 = [0u8; 4];
    for c in text.chars() {
        if c.is_ascii() {
            out.push((c as u8).to_ascii_lowercase());
        } else {
            out.extend_from_slice(fold_char(c).encode_utf8(&mut utf8).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_character_of_every_orbit_folds_to_one_representative() {
        // In strides over all of Unicode plus the blocks with case, whole.
        let all = (0..0x3000u32).chain((0x3000..0x11_0000).step_by(7)).chain(0xa000..0x1_f000);
        for c in all.filter_map(char::from_u32) {
            let mut orbit = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            orbit.case_fold_simple();
            for range in orbit.ranges() {
                for other in range.start()..=range.end() {
                    assert_eq!(fold_char(other), fold_char(c), "{c:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn the_kelvin_sign_and_the_long_s_fold_to_their_letters() {
        let mut out = Vec::new();
        fold_text("\u{212a}aſe ÀÉ", &mut out);
        let mut other = Vec::new();
        fold_text("KASE àé", &mut other);
        assert_eq!(out, other);
        assert!(out.starts_with(b"kase "));
    }
}
