//! [`split`]: text to words, the same way for documents and queries.
//!
//! A run of letters, digits and `_` is one word. A word that is an identifier (`parse_http`,
//! `parseHttp`, `utf8`) is also given by its parts, each at a position of its own, so that a phrase
//! of its parts finds it. Scripts that put no spaces between words (Han, Kana, Thai, …) give one
//! token a character, so that a phrase of characters finds any substring.

use std::borrow::Cow;

use rust_stemmers::{Algorithm, Stemmer};
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer, TokenizerManager};
use unicode_normalization::UnicodeNormalization;

/// The longest token, in bytes: longer runs are data (base64, hashes), which `native` finds.
pub(super) const TOKEN_BYTES_MAX: usize = 128;
/// Words with more parts than this are data, not names: they are kept by parts only.
const WHOLE_PARTS_MAX: usize = 16;
/// Shorter words have no ending worth taking off.
const STEM_BYTES_MIN: usize = 4;

/// The tokenizer of text in English or code: words, parts and stems.
pub(super) const STEMS: &str = "stems";
/// The tokenizer of names: words and parts.
pub(super) const NAMES: &str = "names";
/// The tokenizer of attribute values: parts only.
pub(super) const PARTS: &str = "parts";
/// tantivy's own tokenizer that keeps a value whole.
pub(super) const RAW: &str = "raw";

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier of several parts, whole; stands at the position of its first part.
    Whole,
    /// A word, or a part of one, as it is written, without case and accents.
    Part,
    /// The stem of the part before, where it differs.
    Stem,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) kind: Kind,
    pub(super) text: Cow<'a, str>,
    pub(super) position: usize,
    /// The byte of the text at which it begins.
    pub(super) start: usize,
    /// The byte of the text at which it ends.
    pub(super) end: usize,
}

/// Cuts `text` into words and calls `sink` with each, in order of position.
pub(super) fn split<'a>(text: &'a str, stemmer: Option<&Stemmer>, sink: &mut dyn FnMut(Word<'a>)) {
    let mut position = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((start, first)) = chars.next() {
        if !is_word_char(first) {
            continue;
        }
        let mut end = start + first.len_utf8();
        while let Some(&(at, next)) = chars.peek() {
            if !is_word_char(next) {
                break;
            }
            end = at + next.len_utf8();
            chars.next();
        }
        position = split_run(text, start..end, position, stemmer, sink);
    }
}

/// All tokens of a short text.
pub(super) fn words<'a>(text: &'a str, stemmer: Option<&Stemmer>) -> Vec<Word<'a>> {
    let mut all = Vec::new();
    split(text, stemmer, &mut |word| all.push(word));
    all
}

/// The stemmer of [`STEMS`].
pub(super) fn stemmer() -> Stemmer {
    Stemmer::create(Algorithm::English)
}

/// Lower case, compatibility forms and accents folded.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(text.to_ascii_lowercase());
        }
        return Cow::Borrowed(text);
    }
    let is_accent = |c: &char| ('\u{300}'..='\u{36f}').contains(c);
    let folded = text.nfkd().filter(|c| !is_accent(c)).flat_map(char::to_lowercase);
    Cow::Owned(folded.filter(|c| !is_accent(c)).nfc().collect())
}

/// Whether a character belongs to words.
pub(super) fn is_word_char(c: char) -> bool {
    c == '_' || c.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&c)
}

fn split_run<'a>(
    text: &'a str,
    run: std::ops::Range<usize>,
    mut position: usize,
    stemmer: Option<&Stemmer>,
    sink: &mut dyn FnMut(Word<'a>),
) -> usize {
    let mut parts = Vec::new();
    cut(&text[run.clone()], &mut parts);
    let whole = &text[run.clone()];
    if (2..=WHOLE_PARTS_MAX).contains(&parts.len())
        && whole.len() <= TOKEN_BYTES_MAX
        && !whole.chars().any(is_unspaced)
    {
        let text = fold(whole);
        sink(Word { kind: Kind::Whole, text, position, start: run.start, end: run.end });
    }
    for part in parts {
        let (start, end) = (run.start + part.start, run.start + part.end);
        let written = fold(&text[start..end]);
        if written.is_empty() || written.len() > TOKEN_BYTES_MAX {
            position += 1;
            continue;
        }
        let stem = stemmer.and_then(|stemmer| stem(stemmer, &written));
        sink(Word { kind: Kind::Part, text: written, position, start, end });
        if let Some(text) = stem {
            sink(Word { kind: Kind::Stem, text: Cow::Owned(text), position, start, end });
        }
        position += 1;
    }
    position
}

fn stem(stemmer: &Stemmer, written: &str) -> Option<String> {
    if written.len() < STEM_BYTES_MIN || !written.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let stem = stemmer.stem(written);
    (stem != written).then(|| stem.into_owned())
}

/// The byte ranges of the parts of a run: at `_`, at a change of case or between letters and digits,
/// and around each character of an unspaced script.
fn cut(run: &str, parts: &mut Vec<std::ops::Range<usize>>) {
    let mut start = 0;
    let mut before: Option<char> = None;
    let mut chars = run.char_indices().peekable();
    let mut close = |start: usize, end: usize| {
        if start < end {
            parts.push(start..end);
        }
    };
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|&(_, next)| next);
        if c == '_' {
            close(start, at);
            start = at + 1;
        } else if before.is_some_and(|before| is_border(before, c, next)) {
            close(start, at);
            start = at;
        }
        before = (c != '_').then_some(c);
    }
    close(start, run.len());
}

fn is_border(before: char, c: char, next: Option<char>) -> bool {
    if is_unspaced(before) || is_unspaced(c) {
        return !('\u{300}'..='\u{36f}').contains(&c);
    }
    if before.is_numeric() != c.is_numeric() {
        return true;
    }
    c.is_uppercase() && (before.is_lowercase() || next.is_some_and(char::is_lowercase))
}

fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff
        | 0x2e80..=0x2fdf | 0x3005..=0x30ff | 0x31f0..=0x31ff | 0x3400..=0x4dbf
        | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0xff66..=0xff9f | 0x2_0000..=0x3_ffff)
}

/// The tokenizers by the names that the schema uses.
pub(super) fn tokenizers() -> TokenizerManager {
    let manager = TokenizerManager::default();
    manager.register(STEMS, TextAnalyzer::builder(Words { mode: Mode::Stems }).build());
    manager.register(NAMES, TextAnalyzer::builder(Words { mode: Mode::Names }).build());
    manager.register(PARTS, TextAnalyzer::builder(Words { mode: Mode::Parts }).build());
    manager
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Stems,
    Names,
    Parts,
}

#[derive(Clone, Copy)]
struct Words {
    mode: Mode,
}

impl Tokenizer for Words {
    type TokenStream<'a> = Stream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Stream<'a> {
        let stemmer = (self.mode == Mode::Stems).then(stemmer);
        Stream {
            text,
            at: 0,
            position: 0,
            stemmer,
            parts_only: self.mode == Mode::Parts,
            ready: Vec::new(),
            next: 0,
            token: Token::default(),
        }
    }
}

/// Tokens one run at a time, so that a body of many megabytes is never held as tokens.
pub(super) struct Stream<'a> {
    text: &'a str,
    at: usize,
    position: usize,
    stemmer: Option<Stemmer>,
    parts_only: bool,
    ready: Vec<Word<'a>>,
    next: usize,
    token: Token,
}

impl Stream<'_> {
    fn fill(&mut self) -> bool {
        self.ready.clear();
        self.next = 0;
        while self.ready.is_empty() {
            let rest = &self.text[self.at..];
            let Some(skip) = rest.find(is_word_char) else { return false };
            let start = self.at + skip;
            let run = &self.text[start..];
            let end = start + run.find(|c| !is_word_char(c)).unwrap_or(run.len());
            let (ready, parts_only) = (&mut self.ready, self.parts_only);
            let keep = &mut |word: Word<'_>| {
                if !parts_only || word.kind == Kind::Part {
                    ready.push(Word { text: Cow::Owned(word.text.into_owned()), ..word });
                }
            };
            self.position =
                split_run(self.text, start..end, self.position, self.stemmer.as_ref(), keep);
            self.at = end;
        }
        true
    }
}

impl TokenStream for Stream<'_> {
    fn advance(&mut self) -> bool {
        if self.next == self.ready.len() && !self.fill() {
            return false;
        }
        let word = &self.ready[self.next];
        self.next += 1;
        self.token.offset_from = word.start;
        self.token.offset_to = word.end;
        self.token.position = word.position;
        self.token.text.clear();
        self.token.text.push_str(&word.text);
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let stemmer = stemmer();
        words(text, Some(&stemmer))
            .iter()
            .map(|word| match word.kind {
                Kind::Whole => format!("{}={}", word.position, word.text),
                Kind::Part => format!("{}:{}", word.position, word.text),
                Kind::Stem => format!("{}~{}", word.position, word.text),
            })
            .collect()
    }

    #[test]
    fn identifiers_are_given_whole_and_by_parts() {
        assert_eq!(
            shown("parse_httpRequest"),
            ["0=parse_httprequest", "0:parse", "0~pars", "1:http", "2:request"]
        );
        assert_eq!(shown("HTTPServer2"), ["0=httpserver2", "0:http", "1:server", "2:2"]);
        assert_eq!(shown("__init__"), ["0:init"]);
    }

    #[test]
    fn prose_is_folded_and_stemmed_beside_the_written_form() {
        assert_eq!(shown("Running, CAFÉS"), ["0:running", "0~run", "1:cafes", "1~cafe"]);
    }

    #[test]
    fn unspaced_scripts_give_one_token_a_character() {
        assert_eq!(shown("東京タワーtower"), ["0:東", "1:京", "2:タ", "3:ワ", "4:ー", "5:tower"]);
    }

    #[test]
    fn the_stream_gives_what_split_gives() {
        let text = "fn parse_http(x: &str) -> Größe { 東京 } running";
        let expected: Vec<_> = words(text, Some(&stemmer()))
            .into_iter()
            .map(|word| (word.text.into_owned(), word.position, word.start, word.end))
            .collect();
        let mut tokenizer = Words { mode: Mode::Stems };
        let mut stream = tokenizer.token_stream(text);
        let mut found = Vec::new();
        while let Some(token) = stream.next() {
            found.push((token.text.clone(), token.position, token.offset_from, token.offset_to));
        }
        assert_eq!(found, expected);
    }
}
