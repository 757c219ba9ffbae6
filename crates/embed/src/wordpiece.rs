//! BERT WordPiece: text to the token numbers that BERT-family models were trained on.
//!
//! The result equals that of the reference tokeniser, token for token. The steps, as in
//! "BERT: Pre-training of Deep Bidirectional Transformers" and its published tokeniser:
//! literals such as `[MASK]` are cut out; control characters are dropped; ideographs stand alone;
//! accents are stripped (NFD, then without non-spacing marks); letters are lower-cased; text is
//! cut at white space and around punctuation; each word is cut into the longest pieces of the
//! vocabulary from the left.
//!
//! Invariants: text is read once from the left and reading stops when enough tokens are there, so
//! the cost is bounded by the tokens asked for and, within one word, by its length.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use unicode_normalization::UnicodeNormalization;

use crate::character::{CharacterClass, class_of, is_ideograph};

/// A word of more characters is one unknown token, as in the reference.
const WORD_CHARS_MAX: usize = 100;

/// Bytes of text read for each token: more than any language spends on one. A text that is mostly
/// white space or dropped characters ends early, which bounds the cost of a text of any length.
const TOKEN_BYTES_MAX: usize = 64;

/// The shortest piece of a word that carries a meaning: shorter ones are mostly letters of scripts
/// that the vocabulary can only spell.
const KNOWN_PIECE_CHARS_MIN: usize = 3;

/// Ideographs in a vocabulary that was made for them; an English one has some hundreds of them.
const KNOWN_IDEOGRAPHS_MIN: usize = 2000;

/// The part of `text` in which `tokens_max` tokens are looked for.
pub(crate) fn readable(text: &str, tokens_max: usize) -> &str {
    &text[..text.floor_char_boundary(tokens_max.saturating_mul(TOKEN_BYTES_MAX))]
}

/// A vocabulary and the rules for cutting text into its pieces.
#[derive(Clone)]
pub struct WordPiece {
    /// Pieces that begin a word.
    initial: PieceTable,
    /// Pieces that continue a word, without their prefix.
    continuing: PieceTable,
    /// Texts that are one token wherever they stand, longest first.
    literals: Vec<(String, u32)>,
    unknown: u32,
    size: usize,
    /// How many entries are one ideograph.
    ideographs: usize,
    case: Case,
}

/// Whether the model distinguishes upper and lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// Letters are lower-cased and accents stripped.
    Folded,
    /// Letters are lower-cased, accents kept.
    FoldedAccented,
    /// Letters are kept, accents stripped.
    KeptUnaccented,
    /// Text is kept as it is.
    Kept,
}

impl Case {
    fn lowers(self) -> bool {
        matches!(self, Self::Folded | Self::FoldedAccented)
    }

    fn strips_accents(self) -> bool {
        matches!(self, Self::Folded | Self::KeptUnaccented)
    }
}

impl WordPiece {
    /// Builds a tokeniser from `pieces` with their numbers. Continuing pieces begin with `prefix`
    /// (`##` in BERT). `literals` are matched in the text before anything else.
    pub(crate) fn new(
        pieces: impl Iterator<Item = (String, u32)>,
        prefix: &str,
        unknown: u32,
        mut literals: Vec<(String, u32)>,
        case: Case,
    ) -> Self {
        let mut initial = PieceTable::default();
        let mut continuing = PieceTable::default();
        let (mut size, mut ideographs) = (0, 0);
        for (piece, id) in pieces {
            size = size.max(id as usize + 1);
            let mut characters = piece.chars();
            let first = characters.next().filter(|_| characters.next().is_none());
            ideographs += usize::from(first.is_some_and(is_ideograph));
            match piece.strip_prefix(prefix) {
                Some(rest) if !rest.is_empty() => continuing.insert(rest, id),
                _ => initial.insert(&piece, id),
            }
        }
        literals.retain(|(text, _)| !text.is_empty());
        literals.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { initial, continuing, literals, unknown, size, ideographs, case }
    }

    /// Number of entries in the vocabulary.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The token for words that the vocabulary cannot spell.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }

    /// The number of an entry, such as `[CLS]`.
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        self.initial.get(piece)
    }

    /// Appends the tokens of `text` to `tokens`, at most `tokens_max` of them, without `[CLS]`
    /// and `[SEP]`.
    pub fn encode(&self, text: &str, tokens_max: usize, tokens: &mut Vec<u32>) {
        self.run(text, tokens_max, tokens);
    }

    /// The share of the letters and digits of `text` that stand in words or in pieces of words long
    /// enough to mean something: about 1 for a language that the vocabulary was made from, 0.7 for one
    /// with the same letters, and 0 for one that it can only spell. 1 for a text without letters.
    pub(crate) fn known_share(&self, text: &str, tokens_max: usize) -> f32 {
        let mut tokens = Vec::new();
        let Letters { all, known } = self.run(readable(text, tokens_max), tokens_max, &mut tokens);
        if all == 0 { 1.0 } else { known as f32 / all as f32 }
    }

    fn run(&self, text: &str, tokens_max: usize, tokens: &mut Vec<u32>) -> Letters {
        let mut run = Run {
            pieces: self,
            word: String::with_capacity(64),
            word_chars: 0,
            end: tokens.len().saturating_add(tokens_max),
            tokens,
            letters: Letters::default(),
        };
        let mut rest = text;
        while !run.is_full() {
            let Some((start, length, id)) = self.next_literal(rest) else { break };
            run.take(&rest[..start]);
            run.token(id);
            rest = &rest[start + length..];
        }
        run.take(rest);
        run.letters
    }

    /// The characters of a piece when it is long enough to be known, otherwise 0. Ideographs are
    /// words of one character, in vocabularies that have them; others hold the few most frequent.
    fn known_chars(&self, piece: &str, is_whole: bool) -> usize {
        let chars = piece.chars().count();
        let known = match piece.chars().next() {
            Some(first) if is_ideograph(first) => self.ideographs >= KNOWN_IDEOGRAPHS_MIN,
            _ => {
                let whole = is_whole && (chars > 1 || piece.is_ascii());
                whole || chars >= KNOWN_PIECE_CHARS_MIN
            }
        };
        if known { chars } else { 0 }
    }

    /// The first literal in `text`: where, how long, which token.
    fn next_literal(&self, text: &str) -> Option<(usize, usize, u32)> {
        // All BERT vocabularies mark literals with one of these two; a folder with others is
        // refused by the reader of tokeniser files.
        text.match_indices(['[', '<']).find_map(|(start, _)| {
            let rest = &text[start..];
            let (literal, id) =
                self.literals.iter().find(|(literal, _)| rest.starts_with(literal.as_str()))?;
            Some((start, literal.len(), *id))
        })
    }
}

impl std::fmt::Debug for WordPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Thirty thousand pieces help nobody in a log.
        f.debug_struct("WordPiece").field("size", &self.size).field("case", &self.case).finish()
    }
}

/// One pass over a text.
struct Run<'a> {
    pieces: &'a WordPiece,
    /// The word read so far, normalised; without the characters beyond the bound.
    word: String,
    /// Its length, counting those beyond the bound.
    word_chars: usize,
    /// Length of `tokens` at which reading stops.
    end: usize,
    tokens: &'a mut Vec<u32>,
    letters: Letters,
}

/// Letters and digits of the words that were read.
#[derive(Default)]
struct Letters {
    all: usize,
    /// Those in pieces of at least [`KNOWN_PIECE_CHARS_MIN`] characters and in words that are one
    /// piece; shorter pieces spell a word that the model has never seen.
    known: usize,
}

impl Run<'_> {
    fn is_full(&self) -> bool {
        self.tokens.len() >= self.end
    }

    fn token(&mut self, id: u32) {
        if !self.is_full() {
            self.tokens.push(id);
        }
    }

    /// Reads a stretch without literals; words do not reach across its ends.
    fn take(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() && !self.is_full() {
            match bytes[at] {
                byte if byte.is_ascii() => {
                    self.ascii(byte);
                    at += 1;
                }
                _ => {
                    // Normalisation reorders marks, so it needs whole runs; an ASCII character
                    // that is kept ends a run because nothing moves across it. ASCII control
                    // characters are dropped first, so they belong to the run.
                    let length = bytes[at..]
                        .iter()
                        .position(|byte| byte.is_ascii() && !is_dropped_ascii(*byte))
                        .unwrap_or(bytes.len() - at);
                    self.unicode(&text[at..at + length]);
                    at += length;
                }
            }
        }
        self.end_word();
    }

    fn ascii(&mut self, byte: u8) {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => self.letter(char::from(byte)),
            b'A'..=b'Z' if self.pieces.case.lowers() => {
                self.letter(char::from(byte.to_ascii_lowercase()));
            }
            b'A'..=b'Z' => self.letter(char::from(byte)),
            b' ' | b'\t' | b'\n' | b'\r' => self.end_word(),
            _ if byte.is_ascii_punctuation() => self.single(char::from(byte)),
            _ => {}
        }
    }

    fn unicode(&mut self, text: &str) {
        let kept = text.chars().filter(|c| class_of(*c) != CharacterClass::Dropped);
        let spaced = kept.flat_map(|c| {
            let space = is_ideograph(c).then_some(' ');
            space.into_iter().chain([c]).chain(space)
        });
        match self.pieces.case.strips_accents() {
            true => {
                for c in spaced.nfd() {
                    if class_of(c) != CharacterClass::Mark {
                        self.normalised(c);
                    }
                    if self.is_full() {
                        return;
                    }
                }
            }
            false => {
                for c in spaced {
                    self.normalised(c);
                    if self.is_full() {
                        return;
                    }
                }
            }
        }
    }

    fn normalised(&mut self, c: char) {
        match self.pieces.case.lowers() {
            true => c.to_lowercase().for_each(|lower| self.classified(lower)),
            false => self.classified(c),
        }
    }

    fn classified(&mut self, c: char) {
        match class_of(c) {
            CharacterClass::Space => self.end_word(),
            CharacterClass::Punctuation => self.single(c),
            CharacterClass::Letter | CharacterClass::Mark | CharacterClass::Dropped => {
                self.letter(c);
            }
        }
    }

    fn letter(&mut self, c: char) {
        self.word_chars += 1;
        if self.word_chars <= WORD_CHARS_MAX {
            self.word.push(c);
        }
    }

    /// A character that is a word of its own.
    fn single(&mut self, c: char) {
        self.end_word();
        self.letter(c);
        self.end_word();
    }

    fn end_word(&mut self) {
        if self.word_chars == 0 {
            return;
        }
        match self.word_chars > WORD_CHARS_MAX {
            true => {
                self.letters.all += self.word_chars;
                self.token(self.pieces.unknown);
            }
            false => self.cut_word(),
        }
        self.word.clear();
        self.word_chars = 0;
    }

    /// Longest piece first, from the left; a word with an unknown rest is unknown as a whole.
    fn cut_word(&mut self) {
        let begin = self.tokens.len();
        let is_text = self.word.starts_with(char::is_alphanumeric);
        let mut known = 0;
        let mut rest = self.word.as_str();
        let mut table = &self.pieces.initial;
        while !rest.is_empty() {
            let Some((id, length)) = table.longest(rest) else {
                self.tokens.truncate(begin);
                self.tokens.push(self.pieces.unknown);
                known = 0;
                break;
            };
            self.tokens.push(id);
            let is_whole = length == self.word.len();
            known += self.pieces.known_chars(&rest[..length], is_whole);
            rest = &rest[length..];
            table = &self.pieces.continuing;
        }
        if is_text {
            self.letters.all += self.word_chars;
            self.letters.known += known;
        }
        self.tokens.truncate(self.end);
    }
}

fn is_dropped_ascii(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r')
}

/// Pieces by their text.
#[derive(Clone, Default)]
struct PieceTable {
    ids: HashMap<Box<str>, u32, BuildHasherDefault<PieceHasher>>,
    /// Length of the longest piece: no prefix beyond it is looked up.
    bytes_max: usize,
}

impl PieceTable {
    fn insert(&mut self, piece: &str, id: u32) {
        self.bytes_max = self.bytes_max.max(piece.len());
        self.ids.insert(piece.into(), id);
    }

    fn get(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// The longest piece that `text` begins with, and its length in bytes.
    fn longest(&self, text: &str) -> Option<(u32, usize)> {
        let mut length = text.len().min(self.bytes_max);
        while length > 0 {
            if text.is_char_boundary(length)
                && let Some(id) = self.get(&text[..length])
            {
                return Some((id, length));
            }
            length -= 1;
        }
        None
    }
}

/// A multiplicative hash for short keys. The vocabulary is fixed by the operator, so keys chosen
/// to collide can only come from the model itself, and looking up costs the attacker as much as
/// any other text.
#[derive(Default)]
struct PieceHasher(u64);

impl PieceHasher {
    fn mix(&mut self, word: u64) {
        // The multiplier is 2^64 divided by the golden ratio (Knuth, volume 3, section 6.4).
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for PieceHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let last = rest.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        self.mix(last ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 ^= u64::from(byte);
    }

    fn finish(&self) -> u64 {
        // The table takes its bucket from the low and its tag from the high bits.
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokeniser(case: Case) -> WordPiece {
        let pieces =
            ["[UNK]", "[MASK]", "un", "##aff", "##able", "é", "e", "hello", ",", "日", "H"];
        let pieces = (0u32..).zip(pieces).map(|(id, piece)| (piece.to_owned(), id));
        WordPiece::new(pieces, "##", 0, vec![("[MASK]".into(), 1)], case)
    }

    fn encode(case: Case, text: &str, tokens_max: usize) -> Vec<u32> {
        let mut tokens = Vec::new();
        tokeniser(case).encode(text, tokens_max, &mut tokens);
        tokens
    }

    #[test]
    fn a_word_is_cut_into_the_longest_pieces_from_the_left() {
        assert_eq!(encode(Case::Folded, "unaffable", 10), [2, 3, 4]);
    }

    #[test]
    fn a_word_with_an_unknown_rest_is_unknown_as_a_whole() {
        assert_eq!(encode(Case::Folded, "unaffabl hello", 10), [0, 7]);
    }

    #[test]
    fn accents_and_case_follow_the_model() {
        assert_eq!(encode(Case::Folded, "É e\u{301} HELLO", 10), [6, 6, 7]);
        assert_eq!(encode(Case::FoldedAccented, "É HELLO", 10), [5, 7]);
        assert_eq!(encode(Case::KeptUnaccented, "é H", 10), [6, 10]);
        assert_eq!(encode(Case::Kept, "é H HELLO", 10), [5, 10, 0]);
    }

    #[test]
    fn punctuation_and_ideographs_stand_alone() {
        assert_eq!(encode(Case::Folded, "hello,hello日hello", 10), [7, 8, 7, 9, 7]);
    }

    #[test]
    fn a_literal_is_one_token_and_ends_the_word_before_it() {
        assert_eq!(encode(Case::Folded, "un[MASK]hello", 10), [2, 1, 7]);
        assert_eq!(encode(Case::Folded, "[mask]", 10), [0, 0, 0]);
    }

    #[test]
    fn a_word_of_more_than_100_characters_is_unknown() {
        assert_eq!(encode(Case::Folded, &"e".repeat(101), 10), [0]);
        assert_eq!(encode(Case::Folded, &"é".repeat(1_000_000), 10), [0]);
    }

    #[test]
    fn letters_are_known_in_whole_words_and_long_pieces() {
        let share = |text| tokeniser(Case::Folded).known_share(text, 10);
        assert_eq!(share("hello, [MASK] hello"), 1.0);
        assert_eq!(share(", ,"), 1.0);
        assert_eq!(share(""), 1.0);
        // "un" is short, "aff" and "able" are not.
        assert!((share("unaffable") - 7.0 / 9.0).abs() < 1e-6);
        assert_eq!(share("unaffabl"), 0.0, "a word that cannot be spelt");
        assert_eq!(share("日"), 0.0, "an ideograph in a vocabulary that has only some");
        assert_eq!(share("hello привет"), 5.0 / 11.0);
    }

    #[test]
    fn never_more_tokens_than_asked_for() {
        for tokens_max in 0..6 {
            let all = encode(Case::Folded, "unaffable [MASK] hello,", 10);
            let some = encode(Case::Folded, "unaffable [MASK] hello,", tokens_max);
            assert_eq!(some, all[..tokens_max.min(all.len())]);
        }
    }
}
