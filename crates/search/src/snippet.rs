//! [`snippets`]: the best pieces of a body to show, and [`matching_lines`]: the lines that match.
//!
//! The caller says what to highlight as byte ranges of the body: words that analysis found, matches
//! of `native`, or nothing but the passage that `semantic` named. Any range is accepted: what lies
//! outside the body is cut off, and borders inside a character move outwards. No HTML is made here;
//! highlights are ranges of the snippet's text.

use std::collections::BTreeMap;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

/// The most ranges of one body that are looked at, the first ones: a snippet shows a few, and a
/// body of 32 MiB can hold millions.
pub const RANGES_MAX: usize = 4096;
/// A matching line longer than this is cut around its first match: minified code has one line.
pub const LINE_BYTES_MAX: usize = 512;
/// How far a snippet of prose looks for the border of a sentence before it takes that of a word.
const SENTENCE_BYTES_MAX: usize = 160;
/// How far it looks for the border of a word before it takes that of a character.
const WORD_BYTES_MAX: usize = 32;

/// How to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// At the borders of sentences or, failing that, words.
    Prose,
    /// At the borders of lines.
    Code,
}

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnippetOptions {
    /// How to cut.
    pub shape: Shape,
    /// The longest snippet, in bytes; at least 16 are taken.
    pub bytes_max: usize,
    /// How many snippets at most, best first.
    pub count: usize,
    /// The part of the body to prefer, such as the passage that matched best by meaning.
    pub focus: Option<Range<usize>>,
}

impl Default for SnippetOptions {
    /// One snippet of prose of 240 bytes, about three lines of a terminal.
    fn default() -> Self {
        Self { shape: Shape::Prose, bytes_max: 240, count: 1, focus: None }
    }
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// The text as it stands in the body, without blanks at its ends.
    pub text: String,
    /// The byte of the body at which it begins.
    pub start: usize,
    /// The line of the body in which it begins, from 1.
    pub line: u32,
    /// What to highlight, as byte ranges of `text`: rising, apart from each other, not empty.
    pub highlights: Vec<Range<usize>>,
    /// Whether text stands before it in the body.
    pub is_cut_before: bool,
    /// Whether text follows it in the body.
    pub is_cut_after: bool,
}

/// A line with a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchingLine {
    /// Its number, from 1.
    pub number: u32,
    /// The byte of the body at which `text` begins; later than the line when that is long.
    pub start: usize,
    /// The line without its end, or [`LINE_BYTES_MAX`] bytes of it.
    pub text: String,
    /// What to highlight, as byte ranges of `text`.
    pub highlights: Vec<Range<usize>>,
}

/// The best pieces: those with most different highlighted words, then most highlights, then first.
/// Pieces do not overlap. Without any highlight, the beginning of the focus or of the body.
pub fn snippets(body: &str, ranges: &[Range<usize>], options: &SnippetOptions) -> Vec<Snippet> {
    let bytes_max = options.bytes_max.max(16);
    let mut ranges = tidy(body, ranges);
    let focus = options.focus.clone().map(|focus| clamp(body, &focus));
    if let Some(focus) = &focus
        && ranges.iter().any(|range| focus.start <= range.start && range.end <= focus.end)
    {
        ranges.retain(|range| focus.start <= range.start && range.end <= focus.end);
    }
    let mut taken: Vec<Range<usize>> = Vec::new();
    for window in best_windows(body, &ranges, bytes_max) {
        if taken.len() == options.count {
            break;
        }
        let piece = cut(body, window, options.shape, bytes_max);
        if taken.iter().all(|other| piece.end <= other.start || other.end <= piece.start) {
            taken.push(piece);
        }
    }
    if taken.is_empty() && options.count > 0 && !body.trim().is_empty() {
        let start = focus.map_or(0, |focus| focus.start);
        let start = start + leading_blanks(&body[start..]);
        taken.push(cut(body, start..start, options.shape, bytes_max));
    }
    taken.into_iter().map(|piece| snippet(body, piece, &ranges)).collect()
}

/// The lines with at least one range, in order, at most `count`. A range over several lines belongs
/// to each of them.
pub fn matching_lines(body: &str, ranges: &[Range<usize>], count: usize) -> Vec<MatchingLine> {
    let ranges = tidy(body, ranges);
    let mut lines: Vec<MatchingLine> = Vec::new();
    let (mut number, mut counted_to) = (1, 0);
    let mut at = 0;
    while let Some(range) = ranges.iter().find(|range| range.end > at) {
        if lines.len() == count {
            break;
        }
        let first = range.start.max(at);
        let start = line_start(body, first);
        let end = line_end(body, first);
        number += newlines(&body[counted_to..start]);
        counted_to = start;
        let text_end = if body[start..end].ends_with('\r') { end - 1 } else { end };
        let piece = cut_line(body, start..text_end, first);
        let highlights = within(&ranges, &piece);
        lines.push(MatchingLine {
            number,
            start: piece.start,
            text: body[piece].to_string(),
            highlights,
        });
        at = end + 1;
    }
    lines
}

/// Inside the body, at the borders of characters, in order, joined where they touch.
fn tidy(body: &str, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut inside: Vec<_> =
        ranges.iter().take(RANGES_MAX).map(|range| clamp(body, range)).collect();
    inside.retain(|range| !range.is_empty());
    inside.sort_by_key(|range| (range.start, range.end));
    let mut tidy: Vec<Range<usize>> = Vec::new();
    for range in inside {
        match tidy.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => tidy.push(range),
        }
    }
    tidy
}

fn clamp(body: &str, range: &Range<usize>) -> Range<usize> {
    let start = body.floor_char_boundary(range.start.min(body.len()));
    let end = body.ceil_char_boundary(range.end.min(body.len()));
    start..end.max(start)
}

/// For each range, the ranges that fit into a window beginning with it; best windows first.
fn best_windows(body: &str, ranges: &[Range<usize>], bytes_max: usize) -> Vec<Range<usize>> {
    let words: Vec<String> = ranges
        .iter()
        .map(|range| {
            body[clamp(body, &(range.start..range.end.min(range.start + 64)))].to_lowercase()
        })
        .collect();
    let mut inside: BTreeMap<&str, usize> = BTreeMap::new();
    let mut windows = Vec::new();
    let mut end = 0;
    for start in 0..ranges.len() {
        while end < ranges.len()
            && (end <= start || ranges[end].end - ranges[start].start <= bytes_max)
        {
            *inside.entry(&words[end]).or_default() += 1;
            end += 1;
        }
        windows.push((inside.len(), end - start, ranges[start].start..ranges[end - 1].end));
        if let Some(count) = inside.get_mut(words[start].as_str()) {
            *count -= 1;
            if *count == 0 {
                inside.remove(words[start].as_str());
            }
        }
    }
    windows.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then(a.2.start.cmp(&b.2.start)));
    windows.into_iter().map(|(_, _, window)| window).collect()
}

/// Widens a window to at most `bytes_max` and good borders. A wider window is cut at its end.
fn cut(body: &str, window: Range<usize>, shape: Shape, bytes_max: usize) -> Range<usize> {
    if window.len() >= bytes_max {
        return window.start..body.floor_char_boundary(window.start + bytes_max);
    }
    match shape {
        Shape::Prose => cut_prose(body, window, bytes_max),
        Shape::Code => cut_code(body, window, bytes_max),
    }
}

fn cut_prose(body: &str, window: Range<usize>, bytes_max: usize) -> Range<usize> {
    // A third of the room goes before the window: what follows explains more.
    let before = ((bytes_max - window.len()) / 3).min(SENTENCE_BYTES_MAX);
    let reach = body.ceil_char_boundary(window.start.saturating_sub(before));
    let start = sentence_start(body, reach..window.start)
        .unwrap_or_else(|| if reach == 0 { 0 } else { word_start(body, reach..window.start) });
    let reach = body.floor_char_boundary((start + bytes_max).min(body.len()));
    if reach == body.len() {
        return start..reach;
    }
    let end =
        sentence_end(body, window.end..reach).unwrap_or_else(|| word_end(body, window.end..reach));
    start..end
}

/// The earliest beginning of a sentence or paragraph in the range.
fn sentence_start(body: &str, range: Range<usize>) -> Option<usize> {
    if range.start == 0 {
        return Some(0);
    }
    let text = &body[range.clone()];
    let mut ended = false;
    for (at, c) in text.char_indices() {
        if ended && !c.is_whitespace() {
            return Some(range.start + at);
        }
        ended = (ended && c.is_whitespace()) || is_sentence_end(text, at, c);
    }
    ended.then_some(range.end)
}

/// The latest end of a sentence or paragraph in the range, unless it leaves most of the room empty.
fn sentence_end(body: &str, range: Range<usize>) -> Option<usize> {
    let text = &body[range.clone()];
    let ends = text.char_indices().filter(|&(at, c)| is_sentence_end(text, at, c));
    let end = ends.map(|(at, c)| range.start + at + c.len_utf8()).next_back()?;
    (range.end - end <= SENTENCE_BYTES_MAX).then_some(end)
}

fn is_sentence_end(text: &str, at: usize, c: char) -> bool {
    let rest = &text[at + c.len_utf8()..];
    match c {
        '.' | '!' | '?' => rest.chars().next().is_none_or(char::is_whitespace),
        '。' | '！' | '？' => true,
        '\n' => rest.starts_with('\n'),
        _ => false,
    }
}

fn word_start(body: &str, range: Range<usize>) -> usize {
    let text =
        &body[range.start..range.end.min(body.ceil_char_boundary(range.start + WORD_BYTES_MAX))];
    match text.find(char::is_whitespace) {
        Some(at) => range.start + at + leading_blanks(&body[range.start + at..range.end]),
        None => range.start,
    }
}

fn word_end(body: &str, range: Range<usize>) -> usize {
    let from = body.floor_char_boundary(range.start.max(range.end.saturating_sub(WORD_BYTES_MAX)));
    body[from..range.end].rfind(char::is_whitespace).map_or(range.end, |at| from + at)
}

/// Whole lines around the window: first its own, then by turns one after and one before.
fn cut_code(body: &str, window: Range<usize>, bytes_max: usize) -> Range<usize> {
    let mut start = line_start(body, window.start);
    let mut end = line_end(body, window.end.max(window.start + 1) - 1).max(window.end);
    if end - start > bytes_max {
        return around(body, window, start..end, bytes_max);
    }
    loop {
        let next = if end < body.len() { line_end(body, end + 1) } else { end };
        let has_next = next > end && next - start <= bytes_max;
        if has_next {
            end = next;
        }
        let previous = if start > 0 { line_start(body, start - 1) } else { start };
        let has_previous = previous < start && end - previous <= bytes_max;
        if has_previous {
            start = previous;
        }
        if !has_next && !has_previous {
            return start..end;
        }
    }
}

/// `bytes_max` of `all` around the window, a quarter of the room before it.
fn around(body: &str, window: Range<usize>, all: Range<usize>, bytes_max: usize) -> Range<usize> {
    let before = bytes_max.saturating_sub(window.len()) / 4;
    let start = window.start.saturating_sub(before).max(all.start);
    let start = start.min(all.end.saturating_sub(bytes_max).max(all.start));
    let start = body.ceil_char_boundary(start).min(window.start);
    let end = body.floor_char_boundary((start + bytes_max).min(all.end));
    start..end.max(start)
}

fn cut_line(body: &str, line: Range<usize>, first: usize) -> Range<usize> {
    if line.len() <= LINE_BYTES_MAX {
        return line;
    }
    let first = first.min(line.end);
    around(body, first..first, line, LINE_BYTES_MAX)
}

fn snippet(body: &str, piece: Range<usize>, ranges: &[Range<usize>]) -> Snippet {
    let text = &body[piece.clone()];
    let kept = text.trim_end();
    // Blanks in front of code are its indentation: whole lines keep it.
    let skip = if piece.start == line_start(body, piece.start) {
        text.len() - text.trim_start_matches(['\n', '\r']).len()
    } else {
        leading_blanks(text)
    };
    let piece = piece.start + skip.min(kept.len())..piece.start + kept.len();
    Snippet {
        text: body[piece.clone()].to_string(),
        start: piece.start,
        line: 1 + newlines(&body[..piece.start]),
        highlights: within(ranges, &piece),
        is_cut_before: !body[..piece.start].trim().is_empty(),
        is_cut_after: !body[piece.end..].trim().is_empty(),
    }
}

/// The ranges inside a piece, as ranges of the piece.
fn within(ranges: &[Range<usize>], piece: &Range<usize>) -> Vec<Range<usize>> {
    let first = ranges.partition_point(|range| range.end <= piece.start);
    ranges[first..]
        .iter()
        .take_while(|range| range.start < piece.end)
        .map(|range| {
            range.start.max(piece.start) - piece.start..range.end.min(piece.end) - piece.start
        })
        .filter(|range| !range.is_empty())
        .collect()
}

fn leading_blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

fn newlines(text: &str) -> u32 {
    memchr_iter(b'\n', text.as_bytes()).count() as u32
}

fn line_start(body: &str, at: usize) -> usize {
    memrchr(b'\n', &body.as_bytes()[..at]).map_or(0, |newline| newline + 1)
}

fn line_end(body: &str, at: usize) -> usize {
    let at = at.min(body.len());
    memchr(b'\n', &body.as_bytes()[at..]).map_or(body.len(), |newline| at + newline)
}
