//! [`passages`]: cuts a document into the pieces that are embedded.
//!
//! One walk over the characters counts approximate tokens and looks at each gap between words: is it
//! the end of a word, a line, a sentence, a paragraph, a top-level block of code? A passage ends at
//! the first gap that is strong enough for its length, and where none comes in time, at the
//! strongest gap since its start. Scripts without spaces are cut between characters.
//!
//! Invariants: ranges rise, do not overlap, lie on character boundaries, begin and end with
//! something other than white space, and together hold all of the body that is not white space, or
//! all up to the point from which [`Passages::bytes_left_out`] counts.

use std::borrow::Cow;
use std::ops::Range;

use crate::document::Document;

/// The most passages of one document: about 100 KB of prose. One long document then costs no more
/// than 128 short ones to embed and to keep; the rest of it is found by the other methods.
pub const PASSAGES_PER_DOCUMENT_MAX: usize = 128;
/// The longest passage in approximate tokens. With a heading and a short tail it stays below the
/// 256 tokens that sentence models read.
pub const PASSAGE_TOKENS_MAX: usize = 192;
/// A passage ends at a paragraph or blank line from this length on.
const PARAGRAPH_TOKENS_MIN: usize = 128;
/// A passage ends at a sentence or line from this length on.
const SENTENCE_TOKENS_MIN: usize = 168;
/// A passage ends between top-level blocks of code from this length on, so that a function of
/// ordinary size is one passage.
const BLOCK_TOKENS_MIN: usize = 48;
/// When a passage must be cut, no piece shorter than this is cut off for a nicer gap.
const CUT_TOKENS_MIN: usize = 64;
/// A last piece up to this length is added to the passage before.
const TAIL_TOKENS_MAX: usize = 24;
/// The longest passage in bytes, for text whose bytes hardly count as tokens, such as rows of spaces.
const PASSAGE_BYTES_MAX: usize = 4096;
/// The longest heading put in front of each passage, in bytes.
const HEADING_BYTES_MAX: usize = 160;
/// How much of a body without a language is looked at to tell code from prose.
const SAMPLE_BYTES: usize = 4096;

/// A piece of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage<'a> {
    /// Where it stands in the body, in bytes; empty at 0 for a document that has only a title.
    pub range: Range<u32>,
    /// The title (and the path, for code) and the piece itself.
    pub text_to_embed: Cow<'a, str>,
}

/// The pieces of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passages<'a> {
    /// At most [`PASSAGES_PER_DOCUMENT_MAX`], in rising order.
    pub passages: Vec<Passage<'a>>,
    /// Bytes at the end of the body that are beyond the bound and in no passage.
    pub bytes_left_out: u32,
}

/// Cuts a document into passages. A document without any text but a title has one, of the title
/// alone; one without a title either has none.
pub fn passages(document: &Document) -> Passages<'_> {
    let body = document.body.as_str();
    let code = is_code(&document.language, body);
    let heading = heading(document, code);
    let (ranges, end) = cut(body, code);
    let mut passages: Vec<_> = ranges
        .into_iter()
        .map(|range| Passage {
            text_to_embed: with_heading(&heading, &body[range.clone()]),
            range: range.start as u32..range.end as u32,
        })
        .collect();
    if passages.is_empty() && !document.title.trim().is_empty() {
        passages.push(Passage { range: 0..0, text_to_embed: Cow::Owned(heading) });
    }
    Passages { passages, bytes_left_out: (body.trim_end().len().max(end) - end) as u32 }
}

/// The text to embed for one passage of a document, as [`passages`] made it; `None` when the range
/// does not lie in the body. For embedding again with another model.
pub fn text_to_embed<'a>(document: &'a Document, range: &Range<u32>) -> Option<Cow<'a, str>> {
    let text = document.body.get(range.start as usize..range.end as usize)?;
    let heading = heading(document, is_code(&document.language, &document.body));
    Some(if text.is_empty() { Cow::Owned(heading) } else { with_heading(&heading, text) })
}

fn with_heading<'a>(heading: &str, text: &'a str) -> Cow<'a, str> {
    if heading.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut whole = String::with_capacity(heading.len() + 1 + text.len());
    whole.push_str(heading);
    whole.push('\n');
    whole.push_str(text);
    Cow::Owned(whole)
}

fn heading(document: &Document, code: bool) -> String {
    let title = document.title.trim();
    let path = document.path.trim();
    let mut heading = match (code && !path.is_empty(), title.is_empty() || path.ends_with(title)) {
        (true, true) => path.to_string(),
        (true, false) => format!("{path} {title}"),
        (false, _) => title.to_string(),
    };
    heading.truncate(heading.floor_char_boundary(HEADING_BYTES_MAX));
    heading
}

/// Formats that are written in sentences. Two-letter names are natural languages, save those of
/// [`SHORT_CODE`].
const PROSE: [&str; 14] = [
    "asciidoc",
    "creole",
    "html",
    "latex",
    "man",
    "markdown",
    "mediawiki",
    "org",
    "plain",
    "rst",
    "rtf",
    "tex",
    "text",
    "txt",
];
const SHORT_CODE: [&str; 14] =
    ["as", "cc", "cs", "go", "hs", "jl", "js", "ml", "pl", "py", "rb", "rs", "sh", "ts"];

fn is_code(language: &str, body: &str) -> bool {
    match language {
        "" => looks_like_code(body),
        "c" | "d" | "r" | "v" => true,
        _ if PROSE.contains(&language) => false,
        _ => language.len() > 2 && !language.contains('-') || SHORT_CODE.contains(&language),
    }
}

/// Whether a third of the lines end as statements do or are indented.
fn looks_like_code(body: &str) -> bool {
    let sample = &body[..body.floor_char_boundary(SAMPLE_BYTES)];
    let (mut lines, mut code) = (0, 0);
    for line in sample.lines().filter(|line| !line.trim().is_empty()) {
        lines += 1;
        let ends = line.trim_end().ends_with([';', '{', '}', ')', ':', ',']);
        code += usize::from(ends || line.starts_with("  ") || line.starts_with('\t'));
    }
    lines >= 2 && code * 3 >= lines
}

/// How well a gap separates what stands before and behind it; higher is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    Word,
    Line,
    Sentence,
    Paragraph,
    Block,
}

impl Gap {
    /// From which length on a passage ends here.
    fn tokens_min(self) -> usize {
        match self {
            Self::Block => BLOCK_TOKENS_MIN,
            Self::Paragraph => PARAGRAPH_TOKENS_MIN,
            Self::Sentence => SENTENCE_TOKENS_MIN,
            Self::Line | Self::Word => PASSAGE_TOKENS_MAX,
        }
    }
}

/// Counts tokens about as a WordPiece vocabulary cuts them.
#[derive(Default)]
struct Tokens {
    count: usize,
    /// Letters and digits since the last break.
    run: usize,
}

impl Tokens {
    fn push(&mut self, c: char) {
        if c.is_whitespace() {
            self.run = 0;
        } else if is_written_without_spaces(c) || !c.is_alphanumeric() {
            self.run = 0;
            self.count += 1;
        } else {
            // A run of up to eight Latin letters is about one token, and each six more another;
            // letters of other scripts are cut into pairs.
            let starts = if c.is_ascii() {
                self.run == 0 || (self.run >= 8 && self.run.is_multiple_of(6))
            } else {
                self.run.is_multiple_of(2)
            };
            self.run += 1;
            self.count += usize::from(starts);
        }
    }
}

/// Thai, Lao, Myanmar, Khmer, kana, ideographs and Hangul: a character is about a token, and a
/// passage may be cut before any of them.
fn is_written_without_spaces(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x2e80..=0x9fff | 0xac00..=0xd7af
        | 0xf900..=0xfaff | 0xff66..=0xff9f | 0x20000..=0x3ffff)
}

fn ends_sentence(c: char) -> bool {
    matches!(
        c,
        '.' | '!' | '?' | '…' | '。' | '！' | '？' | '｡' | '।' | '॥' | '؟' | '۔' | '։' | '።'
    )
}

fn ends_sentence_without_space(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '｡' | '।')
}

/// The passage being gathered.
struct Open {
    start: usize,
    tokens: Tokens,
    /// The best gap so far: its strength, where the text before it ends, where the text behind it
    /// starts, and the tokens before it.
    best: Option<(Gap, usize, usize)>,
}

impl Open {
    fn at(start: usize) -> Self {
        Self { start, tokens: Tokens::default(), best: None }
    }
}

/// The ranges of the passages, and where the last one ends (where the body ends, when all fits).
fn cut(body: &str, code: bool) -> (Vec<Range<usize>>, usize) {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut at = skip_space(body, 0);
    let mut tail_tokens = 0;
    while at < body.len() {
        if ranges.len() == PASSAGES_PER_DOCUMENT_MAX {
            return (ranges, at);
        }
        let (end, next, tokens) = passage_end(body, at, code);
        ranges.push(at..end);
        tail_tokens = tokens;
        at = next;
    }
    if tail_tokens <= TAIL_TOKENS_MAX && ranges.len() > 1 {
        let tail = ranges.pop().map_or(0..0, |tail| tail);
        if let Some(last) = ranges.last_mut() {
            if tail.end - last.start <= PASSAGE_BYTES_MAX + 256 {
                last.end = tail.end;
            } else {
                ranges.push(tail);
            }
        }
    }
    (ranges, body.len())
}

/// Where the passage that starts at `start` ends, where the next one starts, and its tokens.
fn passage_end(body: &str, start: usize, code: bool) -> (usize, usize, usize) {
    let mut open = Open::at(start);
    let mut at = start;
    let mut before = '\n';
    while let Some(c) = body[at..].chars().next() {
        if c.is_whitespace() {
            let next = skip_space(body, at);
            if next == body.len() {
                return (at, next, open.tokens.count);
            }
            let gap = gap(&body[at..next], before, body[next..].chars().next(), code);
            if open.tokens.count >= gap.tokens_min() {
                return (at, next, open.tokens.count);
            }
            open.offer(gap, at, next);
            if next - open.start >= PASSAGE_BYTES_MAX {
                return open.cut_at(at, next);
            }
            open.tokens.push(' ');
            before = ' ';
            at = next;
            continue;
        }
        let free = is_written_without_spaces(c) || is_written_without_spaces(before);
        if at > start && (free || ends_sentence_without_space(before)) {
            let gap = if ends_sentence_without_space(before) { Gap::Sentence } else { Gap::Word };
            if open.tokens.count >= gap.tokens_min() && !ends_sentence(c) {
                return (at, at, open.tokens.count);
            }
            open.offer(gap, at, at);
        }
        if at > start
            && (open.tokens.count >= PASSAGE_TOKENS_MAX || at - open.start >= PASSAGE_BYTES_MAX)
        {
            return open.cut_at(at, at);
        }
        open.tokens.push(c);
        before = c;
        at += c.len_utf8();
    }
    (at, at, open.tokens.count)
}

impl Open {
    fn offer(&mut self, gap: Gap, end: usize, next: usize) {
        let long_enough = self.tokens.count >= CUT_TOKENS_MIN;
        if long_enough && self.best.is_none_or(|(best, ..)| gap >= best) {
            self.best = Some((gap, end, next));
        }
    }

    /// The passage is full at a place that is no good gap: ends it at the best gap it had.
    fn cut_at(&self, end: usize, next: usize) -> (usize, usize, usize) {
        let (end, next) = self.best.map_or((end, next), |(_, end, next)| (end, next));
        (end, next, self.tokens.count)
    }
}

fn skip_space(body: &str, from: usize) -> usize {
    body[from..].find(|c: char| !c.is_whitespace()).map_or(body.len(), |offset| from + offset)
}

/// What kind of gap a run of white space is, from the character before and the one behind.
fn gap(space: &str, before: char, behind: Option<char>, code: bool) -> Gap {
    let lines = space.matches('\n').count();
    let indented = space.rsplit('\n').next().is_some_and(|indent| !indent.is_empty());
    match (code, lines) {
        (true, 2..) if !indented && !matches!(behind, Some('}' | ')' | ']')) => Gap::Block,
        (_, 2..) => Gap::Paragraph,
        (true, 1) if !indented => Gap::Sentence,
        (true, 1) => Gap::Line,
        (true, _) => Gap::Word,
        (false, _) if ends_sentence(before) => Gap::Sentence,
        (false, 1) => Gap::Line,
        (false, _) => Gap::Word,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn document(language: &str, body: &str) -> Document {
        Document { language: language.into(), body: body.into(), ..Document::default() }
    }

    /// The texts of the passages, headings included.
    fn texts(document: &Document) -> Vec<String> {
        passages(document).passages.iter().map(|p| p.text_to_embed.to_string()).collect()
    }

    fn check_invariants(document: &Document) {
        let body = &document.body;
        let Passages { passages, bytes_left_out } = passages(document);
        assert!(passages.len() <= PASSAGES_PER_DOCUMENT_MAX);
        let mut at = 0;
        for passage in &passages {
            let range = passage.range.start as usize..passage.range.end as usize;
            assert!(range.start >= at && range.len() <= PASSAGE_BYTES_MAX * 2, "{range:?} at {at}");
            assert!(
                body[at..range.start].trim().is_empty(),
                "text between passages before {range:?}"
            );
            let piece = &body[range.clone()];
            assert_eq!(piece, piece.trim());
            assert!(!piece.is_empty());
            assert_eq!(text_to_embed(document, &passage.range).unwrap(), passage.text_to_embed);
            at = range.end;
        }
        let rest = body[at..].trim();
        if bytes_left_out == 0 {
            assert_eq!(rest, "");
        } else {
            assert_eq!(passages.len(), PASSAGES_PER_DOCUMENT_MAX);
            assert_eq!(rest.len(), bytes_left_out as usize);
        }
    }

    /// Bodies of many scripts, with and without white space.
    fn body() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-zA-Z]{1,12}",
            "\\PC{0,20}",
            "[\\p{Han}\\p{Hiragana}]{1,60}",
            "[\\p{Thai}]{1,40}",
            Just(". ".to_string()),
            Just("\n".to_string()),
            Just("\n\n".to_string()),
            Just(" ".to_string()),
            Just("。".to_string()),
            Just("    ".to_string()),
            Just("}\n\nfn a() {\n".to_string()),
            Just("x".repeat(3000)),
            Just(" ".repeat(5000)),
            "[\\p{Cyrillic} ]{1,40}",
            "\\p{M}{1,300}",
        ];
        prop::collection::vec(piece, 0..300).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn passages_cover_any_body_in_order_and_within_bounds(
            body in body(), code: bool, repeat in 1usize..8,
        ) {
            check_invariants(&document(if code { "rust" } else { "en" }, &body.repeat(repeat)));
        }
    }

    #[test]
    fn short_prose_is_one_passage_with_its_title_in_front() {
        let document = Document { title: "Whales".into(), ..document("en", " They sing. \n") };
        assert_eq!(texts(&document), ["Whales\nThey sing."]);
        assert_eq!(passages(&document).passages[0].range, 1..11);
    }

    #[test]
    fn a_document_of_a_title_alone_has_one_passage_and_an_empty_one_has_none() {
        let titled = Document { title: "Whales".into(), ..document("en", " \n ") };
        assert_eq!(texts(&titled), ["Whales"]);
        assert_eq!(text_to_embed(&titled, &(0..0)).unwrap(), "Whales");
        assert_eq!(texts(&document("rust", "\n")), Vec::<String>::new());
    }

    #[test]
    fn prose_ends_at_sentences_and_prefers_paragraphs() {
        let sentence = "The quick brown fox jumps over the lazy dog near the river bank today. ";
        let body = sentence.repeat(40);
        let pieces = texts(&document("en", &body));
        assert!(pieces.len() > 2);
        assert!(pieces.iter().all(|piece| piece.ends_with('.')), "{pieces:?}");
        let paragraph = sentence.repeat(10);
        let body = format!("{paragraph}\n\n{paragraph}\n\n{paragraph}");
        let expected = paragraph.trim();
        assert_eq!(texts(&document("en", &body)), [expected, expected, expected]);
    }

    #[test]
    fn code_ends_between_top_level_blocks_and_names_its_file() {
        let function = |name: &str| {
            let line = "    let total = price * count + shipping;\n\n";
            format!("fn {name}(price: u32) -> u32 {{\n{}    total\n}}\n", line.repeat(8))
        };
        let body = format!("{}\n{}\n{}", function("one"), function("two"), function("three"));
        let document = Document { path: "src/shop.rs".into(), ..document("rust", &body) };
        let pieces = texts(&document);
        assert_eq!(pieces.len(), 3);
        for (piece, name) in pieces.iter().zip(["one", "two", "three"]) {
            assert!(piece.starts_with(&format!("src/shop.rs\nfn {name}(")), "{piece}");
            assert!(piece.ends_with("total\n}"), "{piece}");
        }
    }

    #[test]
    fn scripts_without_spaces_are_cut_at_their_full_stops() {
        let body = "日本語の文章は空白なしで書かれます。".repeat(40);
        let pieces = texts(&document("ja", &body));
        assert!(pieces.len() >= 3);
        assert!(pieces.iter().all(|piece| piece.ends_with('。')));
        assert!(pieces.iter().all(|piece| piece.chars().count() <= 220));
    }

    #[test]
    fn a_body_beyond_the_bound_says_how_much_is_left_out() {
        let body = "word ".repeat(60_000);
        let found = passages(&document("en", &body).clone()).bytes_left_out;
        assert!(found > 100_000 && (found as usize) < body.len());
        check_invariants(&document("en", &body));
    }

    #[test]
    fn code_is_told_from_prose_by_language_or_else_by_its_lines() {
        let code = "fn main() {\n    run();\n}\n";
        assert!(is_code("rust", "") && is_code("c", "") && is_code("go", "") && is_code("", code));
        assert!(!is_code("en", code) && !is_code("markdown", code) && !is_code("pt-br", code));
        assert!(!is_code("", "Ships sail on the sea.\nThey carry grain and wool."));
    }
}
