//! From text to terms: one chain for prose and code in every script, for documents and queries alike.
//!
//! The terms of a word depend on the word alone, never on a guess about the language around it. So a
//! query finds a document whatever either of them was taken for, and a collection may mix languages:
//!
//! 1. [`words`] cuts text into words (UAX #29, tailored: `.`, `:` and `'` end a word, because they
//!    separate names in code), and into runs of scripts that are written without spaces.
//! 2. A run becomes its pairs of characters. Single characters are indexed as well, so that a query
//!    of one character finds something; longer queries ask for the pairs only.
//! 3. A word of several parts (`snake_case`, `camelCase`, `HTTPServer2`) becomes its parts *and* the
//!    whole without its underscores, so that `httpServer`, `http_server` and `httpserver` meet.
//! 4. [`fold`] takes case, compatibility forms and accents away.
//! 5. [`stem`] takes endings off, by the rules that the script of the word implies.
//!
//! Stop words are indexed, and left out of a query when something else remains in it.
//! The choices and what each is worth: `docs/design/bm25.md`.

mod fold;
mod identifier;
mod stem;
mod stop_words;
pub mod symbols;
pub(crate) mod words;

use std::ops::Range;

use identifier::parts;
use words::{Class, Word, words};

/// The longest term, in bytes: longer ones (encoded data, mostly) are cut, in documents and queries
/// alike. The length of a term then fits one byte in the dictionary.
pub const TERM_BYTES_MAX: usize = 255;

/// The longest word that is analysed, in bytes; what lies beyond in the same word is skipped. Names in
/// code stay below 100 bytes; the rest is encoded data that nobody types into a search box.
pub const WORD_BYTES_MAX: usize = 128;

/// Which version of the chain wrote an index. Raised whenever the terms of some text change, because
/// an index of other terms has to be rebuilt.
pub const CHAIN_VERSION: u32 = 1;

/// What the text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// To be found: everything that a query could ask for is produced.
    Document,
    /// To find with: stop words are left out where something else remains, and single characters of
    /// unsegmented scripts are left out where pairs ask more precisely.
    Query,
}

/// The steps of the chain that can be left out. There is one default; the others exist to measure what
/// each step is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Take accents away.
    pub fold: bool,
    /// Take endings off.
    pub stem: bool,
    /// Leave stop words out of queries.
    pub stop_words: bool,
    /// Split identifiers.
    pub split: bool,
    /// Cut unsegmented scripts into pairs.
    pub pairs: bool,
}

impl Chain {
    /// All steps: what the product uses.
    pub const DEFAULT: Self =
        Self { fold: true, stem: true, stop_words: true, split: true, pairs: true };

    /// A number that tells chains apart; stands in an index beside [`CHAIN_VERSION`].
    pub(crate) fn code(self) -> u32 {
        [self.fold, self.stem, self.stop_words, self.split, self.pairs]
            .iter()
            .fold(CHAIN_VERSION, |code, &step| code << 1 | u32::from(step))
    }
}

/// A term where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The term; 1 to [`TERM_BYTES_MAX`] bytes.
    pub term: &'a str,
    /// The bytes of the text that it stands for.
    pub range: Range<usize>,
    /// Rising by one with each word, part of a word, or character of an unsegmented script. A whole
    /// identifier has the position of its first part.
    pub position: u32,
}

/// Calls `visit` with every term of `text` in order, by the default chain.
///
/// Never panics. Uses memory for one word at a time, but for queries, which are bounded by
/// [`crate::request::QUERY_BYTES_MAX`] where they come in.
pub fn analyze(text: &str, kind: TextKind, visit: &mut dyn FnMut(Token<'_>)) {
    let mut analyzer = Analyzer::new(Chain::DEFAULT);
    match kind {
        TextKind::Document => analyzer.document(text, visit),
        TextKind::Query => {
            for term in analyzer.query(text) {
                visit(Token { term: &term.term, range: term.range, position: term.position });
            }
        }
    }
}

/// The bytes of the words in `text` that match any term of `query`: rising, apart from each other.
/// For highlights.
pub fn matches(text: &str, query: &str) -> Vec<Range<usize>> {
    let mut analyzer = Analyzer::new(Chain::DEFAULT);
    let mut terms: Vec<String> = analyzer.query(query).into_iter().map(|term| term.term).collect();
    terms.sort_unstable();
    terms.dedup();
    let mut found: Vec<Range<usize>> = Vec::new();
    if terms.is_empty() {
        return found;
    }
    analyzer.document(text, &mut |token| {
        if terms.binary_search_by(|term| term.as_str().cmp(token.term)).is_ok() {
            found.push(token.range);
        }
    });
    found.sort_unstable_by_key(|range| (range.start, range.end));
    found.dedup_by(|next, last| {
        let overlap = next.start < last.end;
        if overlap {
            last.end = last.end.max(next.end);
        }
        overlap
    });
    found
}

/// One term of a query, with its own text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryTerm {
    pub(crate) term: String,
    pub(crate) range: Range<usize>,
    pub(crate) position: u32,
    stop: bool,
}

/// The part that a term plays in its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The word itself, one part of it, or a pair of characters: counts for the length of a text.
    Own,
    /// A whole beside its parts, or a character beside its pairs: does not count again.
    Beside,
}

/// The chain with its buffers.
pub(crate) struct Analyzer {
    chain: Chain,
    folded: String,
    whole: String,
    characters: Vec<(char, Range<usize>)>,
}

impl Analyzer {
    pub(crate) fn new(chain: Chain) -> Self {
        let (folded, whole, characters) = (String::new(), String::new(), Vec::new());
        Self { chain, folded, whole, characters }
    }

    /// The terms of a text to be found.
    pub(crate) fn document(&mut self, text: &str, visit: &mut dyn FnMut(Token<'_>)) {
        let mut position = 0u32;
        for word in words(text) {
            let mut own = 0u32;
            self.word(text, &word, &mut |term, range, role| {
                let at = match role {
                    Role::Own => position.saturating_add(own),
                    Role::Beside => position.saturating_add(own.saturating_sub(1)),
                };
                own += u32::from(role == Role::Own);
                visit(Token { term, range, position: at });
            });
            position = position.saturating_add(own);
        }
    }

    /// The terms of a text to find with.
    pub(crate) fn query(&mut self, text: &str) -> Vec<QueryTerm> {
        let mut terms: Vec<QueryTerm> = Vec::new();
        let mut position = 0u32;
        for word in words(text) {
            let run = word.class == Class::Unsegmented && self.chain.pairs;
            let before = terms.len();
            let mut own = 0u32;
            self.word(text, &word, &mut |term, range, role| {
                if run && role == Role::Beside && terms.len() > before {
                    return;
                }
                let at = position.saturating_add(own);
                own += u32::from(role == Role::Own);
                terms.push(QueryTerm { term: term.to_string(), range, position: at, stop: false });
            });
            if self.chain.stop_words && word.class == Class::Ascii {
                for term in &mut terms[before..] {
                    term.stop = stop_words::is_stop_word(&text[term.range.clone()]);
                }
            }
            position = position.saturating_add(own);
        }
        if terms.iter().any(|term| !term.stop) {
            terms.retain(|term| !term.stop);
        }
        terms
    }

    /// The terms of one word; ranges are those of `text`.
    pub(crate) fn word(
        &mut self,
        text: &str,
        word: &Word,
        visit: &mut dyn FnMut(&str, Range<usize>, Role),
    ) {
        if word.class == Class::Unsegmented && self.chain.pairs {
            return self.run(text, word, visit);
        }
        let end = floor_boundary(text, word.end.min(word.start + WORD_BYTES_MAX));
        let own = &text[word.start..end];
        let mut count = 0;
        if self.chain.split && identifier::may_have_parts(own) {
            self.whole.clear();
            for part in parts(own) {
                let range = word.start + part.start..word.start + part.end;
                self.fold(&text[range.clone()]);
                self.whole.push_str(&self.folded);
                count += 1;
                let term = self.stemmed();
                if !term.is_empty() {
                    visit(term, range, Role::Own);
                }
            }
            if count > 1 {
                std::mem::swap(&mut self.folded, &mut self.whole);
                let term = self.stemmed();
                if !term.is_empty() {
                    visit(term, word.start..end, Role::Beside);
                }
            }
            return;
        }
        self.fold(own);
        let term = self.stemmed();
        if !term.is_empty() {
            visit(term, word.start..end, Role::Own);
        }
    }

    fn fold(&mut self, word: &str) {
        self.folded.clear();
        fold::fold(word, self.chain.fold, &mut self.folded);
        let cut = floor_boundary(&self.folded, TERM_BYTES_MAX);
        self.folded.truncate(cut);
    }

    fn stemmed(&mut self) -> &str {
        let cut = floor_boundary(&self.folded, TERM_BYTES_MAX);
        self.folded.truncate(cut);
        if self.chain.stem {
            stem::stem(&mut self.folded);
        }
        &self.folded
    }

    /// A run of an unsegmented script: every pair, and every character beside them.
    fn run(&mut self, text: &str, run: &Word, visit: &mut dyn FnMut(&str, Range<usize>, Role)) {
        fold::characters(text, run.start..run.end, &mut self.characters);
        let mut buffer = String::with_capacity(8);
        let alone = self.characters.len() == 1;
        for (at, (character, range)) in self.characters.iter().enumerate() {
            if let Some((next, next_range)) = self.characters.get(at + 1) {
                buffer.clear();
                buffer.push(*character);
                buffer.push(*next);
                visit(&buffer, range.start..next_range.end, Role::Own);
            }
            if !fold::is_mark(*character) {
                buffer.clear();
                buffer.push(*character);
                let role = if alone { Role::Own } else { Role::Beside };
                visit(&buffer, range.clone(), role);
            }
        }
    }
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
