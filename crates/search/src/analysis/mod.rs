//! From text to terms: one chain for prose and code in every script, for documents and queries alike.
//!
//! The terms of a word depend on the word alone, never on a guess about the language around it. So a
//! query finds a document whatever either of them was taken for, and a collection may mix languages:
//!
//! 1. [`words`](mod@words) cuts text into words (UAX #29, tailored: `.`, `:` and `'` end a word, because they
//!    separate names in code), and into runs of scripts that are written without spaces.
//! 2. A run becomes its pairs of characters. Single characters are indexed as well, so that a query
//!    of one character finds something; longer queries ask for the pairs only.
//! 3. A word of several parts (`snake_case`, `camelCase`, `HTTPServer2`) becomes its parts *and* the
//!    whole without its underscores, so that `httpServer`, `http_server` and `httpserver` meet.
//! 4. [`fold`] takes case, compatibility forms and accents away. Vietnamese words keep their accents,
//!    which tell words apart there, and are indexed without them as well, for those who type none.
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
    /// To find with: stop words are left out where something else remains, and other forms of a word
    /// (without its accents, single characters) where the one as typed asks more precisely.
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

/// The terms of a query, to be found in texts again. For highlights.
#[derive(Clone, Debug)]
pub struct QueryTerms {
    /// Rising.
    terms: Vec<String>,
    initials: Initials,
}

impl QueryTerms {
    /// By the default chain.
    pub fn of(query: &str) -> Self {
        let mut analyzer = Analyzer::new(Chain::DEFAULT);
        let mut terms: Vec<String> =
            analyzer.query(query).into_iter().map(|term| term.term).collect();
        terms.sort_unstable();
        terms.dedup();
        let initials = Initials::of(&terms);
        Self { terms, initials }
    }

    /// The bytes of the words in `text` that match any of the terms: rising, apart from each other.
    pub fn matches(&self, text: &str) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        if self.terms.is_empty() {
            return found;
        }
        let mut analyzer = Analyzer::new(Chain::DEFAULT);
        analyzer.initials = self.initials;
        analyzer.document(text, &mut |token| {
            if self.terms.binary_search_by(|term| term.as_str().cmp(token.term)).is_ok() {
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
}

/// Which terms are wanted, by the first byte. Taking endings off takes most of the time of the chain,
/// and leaves the first letter where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Initials(u128);

impl Initials {
    const ALL: Self = Self(u128::MAX);

    fn of(terms: &[String]) -> Self {
        let bytes = terms.iter().filter_map(|term| term.bytes().next());
        Self(bytes.filter(u8::is_ascii).fold(0, |all, byte| all | 1 << byte))
    }

    /// Whether a word may become a wanted term, in any case. Other letters than those of ASCII always may.
    fn may_have(self, word: &str) -> bool {
        let first = word.bytes().next().map(|byte| byte.to_ascii_lowercase());
        first.is_none_or(|byte| !byte.is_ascii() || self.0 >> byte & 1 == 1)
    }
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
    /// The word itself, one part of it, or a pair of characters.
    Own,
    /// The same as [`Role::Own`], and a stop word.
    Stop,
    /// A whole beside its parts.
    Whole,
    /// Another form beside the one before: a word without its accents, a character beside its pairs.
    Variant,
}

impl Role {
    /// Whether the term counts for the length of a text: stop words and variants say nothing more.
    pub(crate) fn has_length(self) -> bool {
        matches!(self, Self::Own | Self::Whole)
    }

    /// Whether the term takes a position of its own.
    fn has_position(self) -> bool {
        matches!(self, Self::Own | Self::Stop)
    }
}

/// The chain with its buffers.
pub(crate) struct Analyzer {
    chain: Chain,
    /// Of the terms that are handed on; words of unsegmented scripts always are.
    initials: Initials,
    folded: String,
    whole: String,
    characters: Vec<(char, Range<usize>)>,
}

impl Analyzer {
    pub(crate) fn new(chain: Chain) -> Self {
        let (folded, whole, characters) = (String::new(), String::new(), Vec::new());
        Self { chain, initials: Initials::ALL, folded, whole, characters }
    }

    /// The terms of a text to be found.
    pub(crate) fn document(&mut self, text: &str, visit: &mut dyn FnMut(Token<'_>)) {
        let mut place = Place::default();
        for word in words(text) {
            self.word(text, &word, &mut |term, range, role| {
                visit(Token { term, range, position: place.of(role) });
            });
            place.end_word();
        }
    }

    /// The terms of a text to find with.
    pub(crate) fn query(&mut self, text: &str) -> Vec<QueryTerm> {
        let mut terms: Vec<QueryTerm> = Vec::new();
        let mut place = Place::default();
        let drops_stop_words = self.chain.stop_words;
        for word in words(text) {
            let before = terms.len();
            self.word(text, &word, &mut |term, range, role| {
                let position = place.of(role);
                if role == Role::Variant && terms.len() > before {
                    return;
                }
                let stop = role == Role::Stop && drops_stop_words;
                terms.push(QueryTerm { term: term.to_string(), range, position, stop });
            });
            place.end_word();
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
        if !self.chain.split || !identifier::may_have_parts(own) {
            // Most words of a text are told from those that are wanted by their first letter. (What is
            // folded from other characters may begin with another one.)
            if own.is_ascii() && !self.initials.may_have(own) {
                return;
            }
            let role = if stop_words::is_stop_word(own) { Role::Stop } else { Role::Own };
            return self.form(text, word.start..end, role, visit);
        }
        let mut count = 0;
        let mut whole = std::mem::take(&mut self.whole);
        whole.clear();
        for part in parts(own) {
            let range = word.start + part.start..word.start + part.end;
            self.folded.clear();
            fold::fold(&text[range.clone()], self.chain.fold, &mut self.folded);
            whole.push_str(&self.folded);
            count += 1;
            let is_stop = stop_words::is_stop_word(&text[range.clone()]);
            self.form(text, range, if is_stop { Role::Stop } else { Role::Own }, visit);
        }
        if count > 1 {
            self.folded.clone_from(&whole);
            self.emit(word.start..end, Role::Whole, visit);
        }
        self.whole = whole;
    }

    /// The terms of a word without parts: with its accents, where they count, and without.
    fn form(
        &mut self,
        text: &str,
        range: Range<usize>,
        role: Role,
        visit: &mut dyn FnMut(&str, Range<usize>, Role),
    ) {
        let own = &text[range.clone()];
        self.folded.clear();
        if self.chain.fold && fold::is_vietnamese(own) {
            fold::fold(own, false, &mut self.folded);
            self.emit(range.clone(), role, visit);
            self.folded.clear();
            fold::fold(own, true, &mut self.folded);
            return self.emit(range, Role::Variant, visit);
        }
        fold::fold(own, self.chain.fold, &mut self.folded);
        self.emit(range, role, visit);
    }

    /// Cuts, stems and hands on what is folded.
    fn emit(
        &mut self,
        range: Range<usize>,
        role: Role,
        visit: &mut dyn FnMut(&str, Range<usize>, Role),
    ) {
        if !self.initials.may_have(&self.folded) {
            return;
        }
        let cut = floor_boundary(&self.folded, TERM_BYTES_MAX);
        self.folded.truncate(cut);
        if self.chain.stem {
            stem::stem(&mut self.folded);
        }
        if !self.folded.is_empty() {
            visit(&self.folded, range, role);
        }
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
                let role = if alone { Role::Own } else { Role::Variant };
                visit(&buffer, range.clone(), role);
            }
        }
    }
}

/// Counts positions.
#[derive(Default)]
struct Place {
    next: u32,
    /// How many positions the word at hand has taken.
    taken: u32,
}

impl Place {
    fn of(&mut self, role: Role) -> u32 {
        let position = match role {
            Role::Whole => self.next.saturating_sub(self.taken),
            Role::Variant => self.next.saturating_sub(self.taken.min(1)),
            Role::Own | Role::Stop => self.next,
        };
        let step = u32::from(role.has_position());
        self.next = self.next.saturating_add(step);
        self.taken += step;
        position
    }

    fn end_word(&mut self) {
        self.taken = 0;
    }
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
