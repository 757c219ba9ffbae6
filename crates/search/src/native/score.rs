//! [`Scorer`]: how well a matching document fits, for the fusion with other methods.
//!
//! A sum of plain facts, each with its weight below: whether the pattern matches in the title and in
//! the path, whether some match is a whole word, whether some match looks like the place where the
//! thing is defined, and how dense the matching lines are. The same document and pattern always give
//! the same score. At least [`MATCH`], at most the sum of all weights.

use std::ops::Range;

/// For any match.
const MATCH: f32 = 1.0;
/// For a match that begins and ends at word boundaries.
const WHOLE_WORD: f32 = 1.0;
/// For a match that looks like a definition: somebody who types a name most often wants this line.
const DEFINITION: f32 = 2.0;
/// For a match in the title.
const TITLE: f32 = 2.0;
/// For a match in the path.
const PATH: f32 = 1.0;
/// At most, for the density of matching lines.
const DENSITY: f32 = 1.0;
/// Bytes of text for one matching line at which density counts half.
const DENSITY_HALF_BYTES: f32 = 500.0;
/// Lines looked at in one document; a document with more is dense enough.
pub(super) const LINES_MAX: u32 = 64;

/// Words after which a name is being defined, sorted.
const DEFINING: [&str; 40] = [
    "class",
    "const",
    "contract",
    "data",
    "def",
    "define",
    "defmacro",
    "defmodule",
    "defn",
    "defp",
    "enum",
    "extension",
    "fn",
    "fun",
    "func",
    "function",
    "impl",
    "interface",
    "let",
    "macro",
    "macro_rules",
    "message",
    "mod",
    "module",
    "namespace",
    "object",
    "package",
    "proc",
    "procedure",
    "protocol",
    "record",
    "service",
    "static",
    "struct",
    "sub",
    "trait",
    "type",
    "typedef",
    "union",
    "var",
];

/// Collects the facts about one document.
#[derive(Debug, Default)]
pub(super) struct Scorer {
    lines: u32,
    word: bool,
    definition: bool,
    /// The best line so far and how good it is.
    best: Option<(u8, Range<usize>)>,
}

impl Scorer {
    /// Takes a matching line with its first match, both as ranges of `body`. Answers whether more
    /// lines are of interest.
    pub(super) fn line(&mut self, body: &[u8], line: Range<usize>, found: Range<usize>) -> bool {
        self.lines += 1;
        let word = is_word(body, &line, &found);
        let definition = word
            && is_definition(&body[line.clone()], found.start - line.start, found.end - line.start);
        self.word |= word;
        self.definition |= definition;
        let rank = u8::from(word) + 2 * u8::from(definition);
        if self.best.as_ref().is_none_or(|(best, _)| rank > *best) {
            self.best = Some((rank, line));
        }
        self.lines < LINES_MAX
    }

    /// Whether any line of the body matched.
    pub(super) fn matched(&self) -> bool {
        self.lines > 0
    }

    /// The score of a body of `bytes` bytes.
    pub(super) fn score(&self, bytes: usize, title: bool, path: bool) -> f32 {
        let of = |fact: bool, weight: f32| if fact { weight } else { 0.0 };
        let lines = self.lines as f32 * DENSITY_HALF_BYTES;
        let density = if self.lines == 0 { 0.0 } else { lines / (lines + bytes as f32) };
        MATCH
            + of(self.word, WHOLE_WORD)
            + of(self.definition, DEFINITION)
            + of(title, TITLE)
            + of(path, PATH)
            + DENSITY * density
    }

    /// The line that shows best why the document fits.
    pub(super) fn passage(&self) -> Option<Range<u32>> {
        self.best.as_ref().map(|(_, line)| line.start as u32..line.end as u32)
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether the match is not part of a longer word; bytes beyond ASCII count as letters, which is
/// near enough for a ranking.
fn is_word(body: &[u8], line: &Range<usize>, found: &Range<usize>) -> bool {
    let before = found.start > line.start && is_word_byte(body[found.start - 1]);
    let after = found.end < line.end && is_word_byte(body[found.end]);
    !found.is_empty() && !before && !after
}

/// Whether a name is defined here: after a defining word, as a heading, or as a function that begins
/// in the first column with something before its name and no semicolon at its end.
fn is_definition(line: &[u8], start: usize, end: usize) -> bool {
    let before = line[..start].trim_ascii_end();
    let word = before.len() - before.iter().rev().take_while(|&&byte| is_word_byte(byte)).count();
    if let Ok(word) = std::str::from_utf8(&before[word..])
        && start > before.len()
        && DEFINING.binary_search(&word).is_ok()
    {
        return !line.trim_ascii_end().ends_with(b";") || before.ends_with(b"typedef");
    }
    if before.iter().all(|&byte| byte == b'#') && !before.is_empty() {
        return true;
    }
    let first = line.first().is_some_and(|&byte| is_word_byte(byte));
    first
        && start > 0
        && line[end..].starts_with(b"(")
        && !line.trim_ascii_end().ends_with(b";")
        && !line[..start].contains(&b'(')
        && !line[..start].contains(&b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(line: &str, name: &str) -> bool {
        let start = line.find(name).unwrap_or(0);
        is_definition(line.as_bytes(), start, start + name.len())
    }

    #[test]
    fn definitions_are_told_from_uses() {
        assert!(DEFINING.is_sorted());
        assert!(definition("pub fn merge(a: u32) {", "merge"));
        assert!(definition("static int merge(int a)", "merge"));
        assert!(definition("class Merge:", "Merge"));
        assert!(definition("#define MERGE(x) 1", "MERGE"));
        assert!(definition("## Merge", "Merge"));
        assert!(!definition("    x = merge(a);", "merge"));
        assert!(!definition("struct merge;", "merge"));
        assert!(!definition("return merge(a)", "xx"));
    }

    #[test]
    fn definitions_and_whole_words_score_higher_and_choose_the_passage() {
        let body = b"merged\nmerge()\nfn merge() {\n";
        let mut scorer = Scorer::default();
        scorer.line(body, 0..6, 0..5);
        let part = scorer.score(100, false, false);
        scorer.line(body, 7..14, 7..12);
        let word = scorer.score(100, false, false);
        scorer.line(body, 15..27, 18..23);
        let definition = scorer.score(100, false, false);
        assert!(part < word && word < definition);
        assert_eq!(scorer.passage(), Some(15..27));
        assert!(scorer.score(0, true, true).is_finite());
    }
}
