//! [`Literal`]: finds a text as it was typed, or in any case.
//!
//! A regular expression finds it as well, but takes longer to compile than most searches take to read
//! what they have to: in any case, `k` and `s` have forms of two and three bytes, for which its compiler
//! prepares memory of 400 KiB.

use std::ops::Range;

use memchr::memmem;
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// The longest text that is found in any case, in letters. Each place that could begin one is compared
/// to the end, so this bounds the work for each byte of a hostile text.
const LETTERS_MAX: usize = 128;

/// The most forms of a byte that are looked for at once.
const FORMS_MAX: usize = 3;

/// What stands in most texts, the most frequent first; anything else is taken to be rarer.
const FREQUENT: &[u8] = b" etaoinsrlhdcumpfgybvwkT.,_ASIEC-()xjqz";

/// A text to be found.
#[derive(Debug)]
pub(super) enum Literal {
    Exact(Box<memmem::Finder<'static>>),
    AnyCase { letters: Vec<Letter>, anchor: Anchor },
}

/// The forms of a letter in UTF-8: none begins another one.
#[derive(Debug)]
pub(super) struct Letter(Vec<Box<[u8]>>);

/// A byte of every match that stands at the same distance from its start, and is rare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    offset: usize,
    /// Its forms; the last one is repeated.
    forms: [u8; FORMS_MAX],
}

impl Literal {
    /// `None` for a text that is found otherwise: an empty one, or a long one in any case.
    pub(super) fn new(text: &str, any_case: bool) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let letters = text.chars().take(LETTERS_MAX + 1).map(|letter| Letter::of(letter, any_case));
        let letters: Vec<Letter> = letters.collect();
        if !any_case || letters.iter().all(|letter| letter.0.len() == 1) {
            let finder = memmem::Finder::new(text).into_owned();
            return Some(Self::Exact(Box::new(finder)));
        }
        let anchor = Anchor::of(&letters)?;
        (letters.len() <= LETTERS_MAX).then_some(Self::AnyCase { letters, anchor })
    }

    /// Whether it has one form only.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// The first match that begins at `from` or later. `compared` counts the letters that were looked at
    /// beside the bytes that were read: a hostile text nearly matches everywhere.
    pub(super) fn find(
        &self,
        text: &[u8],
        from: usize,
        compared: &mut usize,
    ) -> Option<Range<usize>> {
        match self {
            Self::Exact(finder) => {
                let start = from + finder.find(text.get(from..)?)?;
                Some(start..start + finder.needle().len())
            }
            Self::AnyCase { letters, anchor } => {
                let mut from = from;
                loop {
                    from += anchor.find(text.get(from + anchor.offset..)?)?;
                    if let Some(end) = end_of(letters, text, from, compared) {
                        return Some(from..end);
                    }
                    from += 1;
                }
            }
        }
    }
}

/// Where the match ends that begins at `at`.
fn end_of(letters: &[Letter], text: &[u8], at: usize, compared: &mut usize) -> Option<usize> {
    letters.iter().try_fold(at, |at, letter| {
        *compared += 1;
        let rest = text.get(at..)?;
        letter.0.iter().find(|form| rest.starts_with(form)).map(|form| at + form.len())
    })
}

impl Letter {
    fn of(letter: char, any_case: bool) -> Self {
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(letter, letter)]);
        if any_case {
            class.case_fold_simple();
        }
        let forms = class.ranges().iter().flat_map(|range| range.start()..=range.end());
        Self(forms.map(|form| form.to_string().into_bytes().into()).collect())
    }

    /// The length of every form, if they have the same.
    fn bytes(&self) -> Option<usize> {
        let bytes = self.0.first()?.len();
        self.0.iter().all(|form| form.len() == bytes).then_some(bytes)
    }
}

impl Anchor {
    /// The rarest byte among those at a fixed distance; `None` when each has too many forms.
    fn of(letters: &[Letter]) -> Option<Self> {
        let (mut best, mut start) = (None, 0);
        for letter in letters {
            let bytes = letter.bytes();
            // The last byte of a letter tells more than the first, which a whole script shares.
            let at = bytes.map_or(0, |bytes| bytes - 1);
            let mut forms: Vec<u8> = letter.0.iter().map(|form| form[at]).collect();
            forms.sort_unstable();
            forms.dedup();
            if forms.len() <= FORMS_MAX {
                let frequency = forms.iter().map(|form| frequency(*form)).max();
                if best.is_none_or(|(least, _)| frequency < least) {
                    let form = |at: usize| forms[at.min(forms.len() - 1)];
                    let forms = [form(0), form(1), form(2)];
                    best = Some((frequency, Self { offset: start + at, forms }));
                }
            }
            match bytes {
                Some(bytes) => start += bytes,
                None => break,
            }
        }
        best.map(|(_, anchor)| anchor)
    }

    fn find(&self, text: &[u8]) -> Option<usize> {
        let [a, b, c] = self.forms;
        match a == b {
            true => memchr::memchr(a, text),
            false if b == c => memchr::memchr2(a, b, text),
            false => memchr::memchr3(a, b, c, text),
        }
    }
}

/// The greater, the more often a byte is expected.
fn frequency(byte: u8) -> usize {
    let rank = FREQUENT.iter().position(|frequent| *frequent == byte);
    rank.map_or(0, |rank| FREQUENT.len() - rank)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::native::matcher::{Matcher, compile};
    use crate::native::pattern::parse;
    use crate::request::{Case, Pattern, Syntax};
    use proptest::prelude::*;

    fn all(text: &str, any_case: bool, body: &str) -> Vec<Range<usize>> {
        let literal = Literal::new(text, any_case).unwrap();
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(range) = literal.find(body.as_bytes(), at, &mut 0) {
            at = range.end;
            found.push(range);
        }
        found
    }

    proptest! {
        /// The regular expression for the same text is the oracle.
        #[test]
        fn it_finds_what_the_regular_expression_finds(
            text in "[a-ckKsSſßéЖдΣς .\u{212a}]{1,6}",
            body in "[a-ckKsSſßéЖжДΣσς .\n\u{212a}]{0,200}",
            any_case in any::<bool>(),
        ) {
            let case = if any_case { Case::Insensitive } else { Case::Sensitive };
            let pattern = Pattern { syntax: Syntax::Literal, case, word: false };
            let regex = compile(&parse(&text, pattern).unwrap()).unwrap();
            for body in [body.clone(), format!("{body}{text}{body}{}", text.to_uppercase())] {
                let expected: Vec<Range<usize>> =
                    regex.find_iter(&body).map(|found| found.range()).collect();
                prop_assert_eq!(all(&text, any_case, &body), expected);
            }
        }
    }

    #[test]
    fn the_anchor_is_a_rare_byte_at_a_fixed_distance() {
        let anchor = |text: &str| match Literal::new(text, true).unwrap() {
            Literal::AnyCase { anchor, .. } => (anchor.offset, anchor.forms.to_vec()),
            Literal::Exact(_) => panic!("{text} has other forms"),
        };
        assert_eq!(anchor("tax"), (2, b"Xxx".to_vec()));
        // Behind a `k`, which has a form of three bytes, no distance is fixed.
        assert_eq!(anchor("tkx"), (1, vec![b'K', b'k', 0xe2]));
        // The second bytes of `Ж` and `ж`; the first is that of half of the alphabet.
        assert_eq!(anchor("жи"), (1, vec![0x96, 0xb6, 0xb6]));
        assert!(matches!(Literal::new("42!", true), Some(Literal::Exact(_))));
    }

    #[test]
    fn long_texts_in_any_case_and_empty_ones_are_left_to_others() {
        assert!(Literal::new("", false).is_none() && Literal::new("", true).is_none());
        assert!(Literal::new(&"a".repeat(LETTERS_MAX), true).is_some());
        assert!(Literal::new(&"a".repeat(LETTERS_MAX + 1), true).is_none());
        assert!(Literal::new(&"a".repeat(LETTERS_MAX + 1), false).is_some());
        let pattern = Pattern { syntax: Syntax::Literal, case: Case::Insensitive, word: false };
        let long = "a".repeat(LETTERS_MAX + 1);
        assert!(Matcher::new(&long, pattern).unwrap().is_match(&long.to_uppercase()));
    }
}
