//! [`Matcher`]: the lines of a text in which a pattern matches, as ripgrep would print them.

use std::ops::{ControlFlow, Range};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use regex_automata::Input;
use regex_automata::meta::{self, Regex};
use regex_syntax::hir::Hir;

use super::literal::Literal;
use super::pattern::{is_any_case, parse, without_word_boundaries};
use super::plan::Plan;
use crate::request::{Pattern, SearchError, Stop, Syntax};

/// The largest compiled automaton, in bytes: about 80 repetitions of `\w`. Searching costs at worst
/// a step for each of its states and each byte of text, so this also bounds the time for a line.
pub const REGEX_BYTES_MAX: usize = 4 << 20;
/// Memory for states built during a search, for each thread, in bytes.
const LAZY_STATES_BYTES_MAX: usize = 8 << 20;
/// Text between two looks at the stop flag, in bytes, for a small automaton (at most
/// [`SMALL_REGEX_BYTES`]) and for a large one, which may be a thousand times slower.
const WINDOW_BYTES: usize = 256 << 10;
const WINDOW_BYTES_LARGE: usize = 4 << 10;
/// The same for a literal: where a hostile text nearly matches at every byte, its expression takes over
/// behind the first window.
const WINDOW_BYTES_LITERAL: usize = 32 << 10;
const SMALL_REGEX_BYTES: usize = 256 << 10;

/// A compiled pattern. Shared between threads; each searches with its own [`Scratch`].
#[derive(Debug)]
pub struct Matcher {
    engine: Engine,
    plan: Plan,
    window_bytes: usize,
}

#[derive(Debug)]
enum Engine {
    Literal(Box<Adaptive>),
    Regex {
        regex: Regex,
        /// The pattern without word boundaries, when these would slow the search down: finds the
        /// lines that `regex` then confirms.
        filter: Option<Regex>,
    },
}

/// A literal, until so much was read that compiling its expression pays.
#[derive(Debug)]
struct Adaptive {
    literal: Literal,
    hir: Hir,
    /// Bytes, and letters that were compared, by all threads.
    read: AtomicUsize,
    /// `None` in it when it is too large.
    regex: OnceLock<Option<Regex>>,
}

/// Bytes that are read for a literal in any case before its expression is compiled, which takes as long.
const READ_BEFORE_COMPILED: usize = 1 << 20;

impl Adaptive {
    fn new(literal: Literal, hir: Hir) -> Self {
        Self { literal, hir, read: AtomicUsize::new(0), regex: OnceLock::new() }
    }

    fn regex(&self) -> Option<&Regex> {
        if self.read.load(Ordering::Relaxed) < READ_BEFORE_COMPILED {
            return None;
        }
        self.regex.get_or_init(|| compile(&self.hir).ok()).as_ref()
    }

    fn find(&self, text: &[u8], at: usize) -> Option<Range<usize>> {
        let mut compared = 0;
        let found = self.literal.find(text, at, &mut compared);
        // Nothing finds an exact text faster.
        if !self.literal.is_exact() {
            let end = found.as_ref().map_or(text.len(), |found| found.end);
            self.read.fetch_add(end.saturating_sub(at) + compared, Ordering::Relaxed);
        }
        found
    }
}

/// Working memory of one thread that searches with one [`Matcher`].
#[derive(Debug)]
pub struct Scratch {
    regex: Option<meta::Cache>,
    filter: Option<meta::Cache>,
}

/// How much [`Matcher::lines`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLimits {
    /// The most lines; 0 answers nothing.
    pub lines_max: usize,
    /// The most match ranges for each line; 0 leaves the ranges out.
    pub matches_max: usize,
}

impl Default for LineLimits {
    /// 1,000 lines of 100 matches each.
    fn default() -> Self {
        Self { lines_max: 1_000, matches_max: 100 }
    }
}

/// A line in which the pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineMatch {
    /// The line's number, from 1.
    pub line: u32,
    /// Where the first match starts: its byte in the line, from 1, as with `rg --column`.
    pub column: u32,
    /// The line in the body, without its `\n`.
    pub range: Range<usize>,
    /// The matches in the body, in order, not overlapping.
    pub matches: Vec<Range<usize>>,
}

/// Takes a matching line: its number (from 1) and range. The scratch may be used to look closer.
pub(super) type LineVisitor<'a> =
    &'a mut dyn FnMut(&mut Scratch, u32, Range<usize>) -> ControlFlow<()>;

/// A line of the body shown around matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextLine {
    /// The line's number, from 1.
    pub line: u32,
    /// The line in the body, without its `\n`.
    pub range: Range<usize>,
    /// Which of the given matches it is; `None` for context.
    pub matched: Option<usize>,
}

impl Matcher {
    /// Compiles a pattern.
    ///
    /// Errors: [`SearchError::Query`] with the position for a syntax error or a line break,
    /// [`SearchError::Bound`] for a pattern too long, too deep or too large when compiled.
    pub fn new(text: &str, pattern: Pattern) -> Result<Self, SearchError> {
        let hir = parse(text, pattern)?;
        let plan = Plan::of(&hir);
        if let Pattern { syntax: Syntax::Literal, case, word: false } = pattern
            && let Some(literal) = Literal::new(text, is_any_case(text, case))
        {
            let engine = Engine::Literal(Box::new(Adaptive::new(literal, hir)));
            return Ok(Self { engine, plan, window_bytes: WINDOW_BYTES_LITERAL });
        }
        let regex = compile(&hir)?;
        let filter = without_word_boundaries(&hir).map(|hir| compile(&hir)).transpose()?;
        let bytes = regex.memory_usage();
        let window_bytes =
            if bytes <= SMALL_REGEX_BYTES { WINDOW_BYTES } else { WINDOW_BYTES_LARGE };
        Ok(Self { engine: Engine::Regex { regex, filter }, plan, window_bytes })
    }

    /// Working memory for one thread.
    pub fn scratch(&self) -> Scratch {
        let filter = match &self.engine {
            Engine::Regex { filter: Some(filter), .. } => Some(filter.create_cache()),
            _ => None,
        };
        Scratch { regex: None, filter }
    }

    /// Whether any line of the text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.next_line(text.as_bytes(), 0, &mut self.scratch()).is_some()
    }

    /// The matching lines, in order.
    pub fn lines(&self, body: &str, limits: LineLimits) -> Vec<LineMatch> {
        let mut scratch = self.scratch();
        let mut lines = Vec::new();
        if limits.lines_max == 0 {
            return lines;
        }
        let mut found = Vec::new();
        self.scan(
            body.as_bytes(),
            Window::WHOLE,
            &mut scratch,
            &Stop::new(),
            &mut |_, number, range| {
                found.push((number, range));
                if found.len() < limits.lines_max { ControlFlow::Continue(()) } else { BREAK }
            },
        );
        for (line, range) in found {
            let matches =
                self.matches(body.as_bytes(), &range, &mut scratch, limits.matches_max.max(1));
            let column = matches.first().map_or(1, |first| first.start - range.start + 1) as u32;
            let matches = if limits.matches_max == 0 { Vec::new() } else { matches };
            lines.push(LineMatch { line, column, range, matches });
        }
        lines
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Calls `each` with the number (from 1) and range of every matching line of a window that
    /// starts at a line's start. Answers false when `stop` ended the walk.
    pub(super) fn scan(
        &self,
        text: &[u8],
        window: Window,
        scratch: &mut Scratch,
        stop: &Stop,
        each: LineVisitor<'_>,
    ) -> bool {
        let window_end = (window.end as usize).min(text.len());
        let mut start = window.start as usize;
        let (mut counted, mut line) = (start, window.line);
        while start < window_end {
            if stop.is_set() {
                return false;
            }
            let end = match text.get(start + self.window_bytes..window_end) {
                Some(rest) => memchr::memchr(b'\n', rest)
                    .map_or(window_end, |at| start + self.window_bytes + at + 1),
                None => window_end,
            };
            let mut at = start;
            while let Some(range) = self.next_line(&text[..end], at, scratch) {
                line += memchr::memchr_iter(b'\n', &text[counted..range.start]).count() as u32;
                counted = range.start;
                at = range.end + 1;
                if each(scratch, line + 1, range).is_break() {
                    return true;
                }
                if at >= end {
                    break;
                }
            }
            start = end;
        }
        true
    }

    /// The first matching line at or after `at`, a line's start.
    fn next_line(&self, text: &[u8], at: usize, scratch: &mut Scratch) -> Option<Range<usize>> {
        let mut at = at;
        while at < text.len() {
            let end = self.first_end(text, at, scratch)?;
            let line = line_around(text, end);
            if line.start == text.len() {
                // An empty match after the last line break: there is no line there.
                return None;
            }
            if scratch.filter.is_none() || self.line_matches(text, &line, scratch) {
                return Some(line);
            }
            at = line.end + 1;
        }
        None
    }

    /// Where the first match ends that begins at `at` or later, perhaps one of the filter alone.
    fn first_end(&self, text: &[u8], at: usize, scratch: &mut Scratch) -> Option<usize> {
        let (regex, cache) = match (&self.engine, scratch) {
            (Engine::Regex { filter: Some(filter), .. }, Scratch { filter: Some(cache), .. }) => {
                (filter, cache)
            }
            (Engine::Regex { regex, .. }, scratch) => (regex, scratch.of(regex)),
            (Engine::Literal(literal), scratch) => match literal.regex() {
                Some(regex) => (regex, scratch.of(regex)),
                None => return Some(literal.find(text, at)?.end),
            },
        };
        let input = Input::new(text).span(at..text.len()).earliest(true);
        Some(regex.search_half_with(cache, &input)?.offset())
    }

    /// The first match that begins at `at` or later.
    fn find(&self, text: &[u8], at: usize, scratch: &mut Scratch) -> Option<Range<usize>> {
        let regex = match &self.engine {
            Engine::Regex { regex, .. } => regex,
            Engine::Literal(literal) => match literal.regex() {
                Some(regex) => regex,
                None => return literal.find(text, at),
            },
        };
        let input = Input::new(text).span(at..text.len());
        Some(regex.search_with(scratch.of(regex), &input)?.range())
    }

    /// Whether any line of a short text (a title, a path) matches.
    pub(super) fn matches_in(&self, text: &str, scratch: &mut Scratch) -> bool {
        self.next_line(text.as_bytes(), 0, scratch).is_some()
    }

    /// The first match in a line that has one.
    pub(super) fn first_match(
        &self,
        text: &[u8],
        line: &Range<usize>,
        scratch: &mut Scratch,
    ) -> Range<usize> {
        self.find(&text[line.clone()], 0, scratch).map_or(line.start..line.start, |found| {
            line.start + found.start..line.start + found.end
        })
    }

    fn line_matches(&self, text: &[u8], line: &Range<usize>, scratch: &mut Scratch) -> bool {
        let Engine::Regex { regex, .. } = &self.engine else { return true };
        let input = Input::new(&text[line.clone()]).earliest(true);
        regex.search_half_with(scratch.of(regex), &input).is_some()
    }

    /// The matches inside one line, at most `max`.
    pub(super) fn matches(
        &self,
        text: &[u8],
        line: &Range<usize>,
        scratch: &mut Scratch,
        max: usize,
    ) -> Vec<Range<usize>> {
        let haystack = &text[line.clone()];
        let mut matches: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        while matches.len() < max && at <= haystack.len() {
            let Some(found) = self.find(haystack, at, scratch) else { break };
            // An empty match right behind the last one is no match of its own.
            let repeats = found.is_empty()
                && matches.last().is_some_and(|last| last.end == line.start + found.start);
            if !repeats {
                matches.push(line.start + found.start..line.start + found.end);
            }
            at = if found.is_empty() { next_character(haystack, found.end) } else { found.end };
        }
        matches
    }
}

impl Scratch {
    /// The memory of a matcher's only expression, or of the one without the filter.
    fn of(&mut self, regex: &Regex) -> &mut meta::Cache {
        self.regex.get_or_insert_with(|| regex.create_cache())
    }
}

const BREAK: ControlFlow<()> = ControlFlow::Break(());

/// A part of a text that starts at a line's start and ends at a line's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Its first byte.
    pub(super) start: u32,
    /// Behind its last byte; anything beyond the text means its end.
    pub(super) end: u32,
    /// Lines before `start`.
    pub(super) line: u32,
}

impl Window {
    /// A whole text.
    pub(super) const WHOLE: Self = Self { start: 0, end: u32::MAX, line: 0 };
}

fn next_character(text: &[u8], at: usize) -> usize {
    let rest = text.get(at + 1..).unwrap_or_default();
    at + 1 + rest.iter().take_while(|&&byte| byte & 0xc0 == 0x80).count()
}

/// The line in which a match ends at `end`, without its `\n`. A match never contains `\n`, so the
/// byte before its end is in its line unless it is empty and stands at the line's start.
fn line_around(text: &[u8], end: usize) -> Range<usize> {
    let start = memchr::memrchr(b'\n', &text[..end]).map_or(0, |at| at + 1);
    let end = memchr::memchr(b'\n', &text[end..]).map_or(text.len(), |at| end + at);
    start..end
}

pub(super) fn compile(hir: &Hir) -> Result<Regex, SearchError> {
    let config = Regex::config()
        .utf8_empty(false)
        .nfa_size_limit(Some(REGEX_BYTES_MAX))
        .hybrid_cache_capacity(LAZY_STATES_BYTES_MAX)
        .which_captures(regex_automata::nfa::thompson::WhichCaptures::Implicit);
    Regex::builder().configure(config).build_from_hir(hir).map_err(|error| {
        if error.size_limit().is_some() {
            return SearchError::Bound {
                message: format!(
                    "the pattern compiles to more than {REGEX_BYTES_MAX} bytes; \
                     repeat less or use smaller classes"
                ),
            };
        }
        SearchError::query(format!("the regular expression cannot be used: {error}"))
    })
}

/// The matching lines (rising) with up to `before` and `after` lines of context, each line once.
pub fn with_context(
    body: &str,
    lines: &[LineMatch],
    before: usize,
    after: usize,
) -> Vec<ContextLine> {
    let bytes = body.as_bytes();
    let mut shown: Vec<ContextLine> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut above = Vec::new();
        let mut start = line.range.start;
        let shown_to = shown.last().map_or(0, |last| last.line);
        while above.len() < before && start > 0 && line.line - above.len() as u32 - 1 > shown_to {
            let end = start - 1;
            start = memchr::memrchr(b'\n', &bytes[..end]).map_or(0, |at| at + 1);
            let number = line.line - above.len() as u32 - 1;
            above.push(ContextLine { line: number, range: start..end, matched: None });
        }
        shown.extend(above.into_iter().rev());
        if shown.last().is_some_and(|last| last.line == line.line) {
            continue;
        }
        let range = line.range.clone();
        shown.push(ContextLine { line: line.line, range, matched: Some(index) });
        let next = lines.get(index + 1).map_or(u32::MAX, |next| next.line);
        let (mut end, mut number) = (line.range.end, line.line);
        for _ in 0..after {
            number += 1;
            if end + 1 >= bytes.len() || number >= next {
                break;
            }
            let start = end + 1;
            end = memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |at| start + at);
            shown.push(ContextLine { line: number, range: start..end, matched: None });
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::{Case, Syntax};

    fn regex(text: &str) -> Matcher {
        let pattern = Pattern { syntax: Syntax::Regex, case: Case::Sensitive, word: false };
        Matcher::new(text, pattern).unwrap()
    }

    fn numbers(text: &str, body: &str) -> Vec<u32> {
        regex(text).lines(body, LineLimits::default()).iter().map(|line| line.line).collect()
    }

    #[test]
    fn lines_are_found_as_ripgrep_finds_them() {
        assert_eq!(numbers("b", "a\nb\nab\n"), [2, 3]);
        assert_eq!(numbers("", "a\n\nb\n"), [1, 2, 3]);
        assert_eq!(numbers("", ""), [] as [u32; 0]);
        assert_eq!(numbers("^$", "a\n\nb\n\n"), [2, 4]);
        assert_eq!(numbers(r"\Ab\z", "a\nb\nbc"), [2]);
        assert_eq!(numbers(r"a\s+b", "a\nb\na b"), [3]);
        assert_eq!(numbers("a$", "a\r\na\n"), [2]);
        assert_eq!(numbers("[^x]b", "a\nb\ncb"), [3]);
    }

    #[test]
    fn a_line_names_its_column_and_its_matches() {
        let body = "é foo foo\nbar\n";
        let lines = regex("fo*").lines(body, LineLimits::default());
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].column, lines[0].range.clone()), (4, 0..10));
        assert_eq!(lines[0].matches, [3..6, 7..10]);
        let empty = regex("x*").lines("éx\n", LineLimits::default());
        assert_eq!(empty[0].matches, [0..0, 2..3]);
    }

    #[test]
    fn words_end_at_half_boundaries_in_any_script() {
        let word = |text: &str, body: &str| {
            let pattern = Pattern { word: true, case: Case::Sensitive, syntax: Syntax::Literal };
            Matcher::new(text, pattern).unwrap().is_match(body)
        };
        assert!(word("foo", "a foo b") && word("foo", "foo"));
        assert!(!word("foo", "foobar") && !word("foo", "éfoo") && !word("foo", "foo_"));
        assert!(word("-2", "x -2") && word("-2", "1 - -2,"));
        assert!(word("foo", "foobar foo"));
    }

    #[test]
    fn a_literal_finds_the_same_before_and_after_its_expression_is_compiled() {
        let matcher = Matcher::new("kiss", Pattern::default()).unwrap();
        let body =
            format!("{}\u{212a}I\u{17f}s\n{}a kiss\n", "x kis\n".repeat(3), "y\n".repeat(70_000));
        let mut scratch = matcher.scratch();
        for _ in 0..20 {
            let lines = matcher.lines(&body, LineLimits::default());
            let found: Vec<_> = lines.iter().map(|line| (line.line, line.column)).collect();
            assert_eq!(found, [(4, 1), (70_005, 3)]);
            assert!(matcher.matches_in("a kiss", &mut scratch));
        }
        let Engine::Literal(literal) = &matcher.engine else { panic!("a literal") };
        assert!(literal.regex().is_some());
    }

    #[test]
    fn a_text_that_nearly_matches_everywhere_is_left_to_the_expression_at_once() {
        let matcher = Matcher::new(&"a".repeat(100), Pattern::default()).unwrap();
        let Engine::Literal(literal) = &matcher.engine else { panic!("a literal") };
        let plain = "x".repeat(99);
        assert!(!matcher.is_match(&format!("{plain}\n").repeat(1_000)));
        assert!(literal.regex().is_none(), "so much of any other text is read as it is");
        let nearly = "a".repeat(99);
        assert!(!matcher.is_match(&format!("{nearly}\n").repeat(1_000)));
        assert!(literal.regex().is_some());
    }

    #[test]
    fn regex_bombs_are_refused_or_harmless() {
        for bomb in ["(a{1000}){1000}", r"\pL{500}", r"((\w{50}){50}){50}"] {
            let pattern = Pattern { syntax: Syntax::Regex, ..Pattern::default() };
            let answer = Matcher::new(bomb, pattern);
            assert!(matches!(answer, Err(SearchError::Bound { .. })), "{bomb}: {answer:?}");
        }
        let body = "aaaa ".repeat(20_000);
        assert!(!regex("(.*)*x").is_match(&body));
        assert!(!regex("(a+)+$x").is_match(&body));
    }

    #[test]
    fn context_shows_each_line_once() {
        let body = "1\n2\n3\n4\n5\n6\n7\n8\n9";
        let lines = regex("[346]").lines(body, LineLimits::default());
        let shown = with_context(body, &lines, 1, 1);
        let numbers: Vec<_> = shown.iter().map(|line| (line.line, line.matched)).collect();
        assert_eq!(
            numbers,
            [(2, None), (3, Some(0)), (4, Some(1)), (5, None), (6, Some(2)), (7, None)]
        );
        assert!(shown.iter().all(|line| body[line.range.clone()] == line.line.to_string()));
    }
}
