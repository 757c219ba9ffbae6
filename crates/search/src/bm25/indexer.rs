//! [`Indexer`]: makes a segment of a batch of documents.
//!
//! Analysis is remembered: a word that was seen before costs one look-up, whatever folding, splitting
//! and stemming it needs. What is remembered outlives the batch and is forgotten as a whole when it
//! passes [`MEMORY_BYTES_MAX`].

use super::interner::Interner;
use super::scoring::{BODY, Field, PATH, SYMBOLS, TITLE, length_code};
use super::segment::SegmentWriter;
use crate::analysis::words::{Class, words};
use crate::analysis::{Analyzer, Chain, Role, symbols};
use crate::document::{DocNumber, Document};
use crate::view::Addition;

/// How much may be remembered, in bytes: half a million words, more than the processor's caches hold.
const MEMORY_BYTES_MAX: usize = 32 << 20;

/// Turns documents into segments.
pub(super) struct Indexer {
    chain: Chain,
    analyzer: Analyzer,
    /// Words as they stand in texts; each has a range of `word_terms`.
    words: Interner,
    word_ranges: Vec<(u32, u32)>,
    word_terms: Vec<(u32, Role)>,
    terms: Interner,
    states: Vec<State>,
    batch: Batch,
}

/// What is known about a term in the batch at hand.
#[derive(Clone, Copy)]
struct State {
    /// The number of the batch that the rest belongs to.
    batch: u32,
    documents: u32,
    /// The place of its last posting in [`Batch::postings`]; while writing, where its next one goes.
    last: u32,
}

#[derive(Default)]
struct Batch {
    number: u32,
    /// Terms of this batch, in order of first appearance.
    terms: Vec<u32>,
    postings: Vec<Posting>,
    lengths: Vec<u8>,
    numbers: Vec<DocNumber>,
    document: u32,
    length: u32,
}

#[derive(Clone, Copy)]
struct Posting {
    term: u32,
    document: u32,
    frequency: u32,
}

impl Indexer {
    pub(super) fn new(chain: Chain) -> Self {
        Self {
            chain,
            analyzer: Analyzer::new(chain),
            words: Interner::default(),
            word_ranges: Vec::new(),
            word_terms: Vec::new(),
            terms: Interner::default(),
            states: Vec::new(),
            batch: Batch::default(),
        }
    }

    /// The memory that is kept between batches, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.words.bytes()
            + self.terms.bytes()
            + self.word_ranges.capacity() * 8
            + self.word_terms.capacity() * size_of::<(u32, Role)>()
            + self.states.capacity() * size_of::<State>()
            + self.batch.postings.capacity() * size_of::<Posting>()
    }

    /// The bytes of a segment of all `additions`.
    pub(super) fn segment(&mut self, additions: &[&Addition]) -> std::io::Result<Vec<u8>> {
        self.batch.terms.clear();
        self.batch.postings.clear();
        self.batch.lengths.clear();
        self.batch.numbers.clear();
        self.batch.number += 1;
        for addition in additions {
            self.document(&addition.document);
            self.batch.numbers.push(addition.number);
        }
        let segment = self.write();
        self.forget();
        segment
    }

    fn document(&mut self, document: &Document) {
        self.batch.document = self.batch.lengths.len() as u32;
        self.batch.length = 0;
        self.field(&document.path, PATH);
        self.field(&document.title, TITLE);
        for tag in &document.tags {
            self.field(tag, TITLE);
        }
        self.field(&document.body, BODY);
        symbols::names(&document.language, &document.body, &mut |name| self.field(name, SYMBOLS));
        self.batch.lengths.push(length_code(self.batch.length));
    }

    fn field(&mut self, text: &str, field: Field) {
        let mut length = 0u32;
        for word in words(text) {
            if word.class == Class::Unsegmented && self.chain.pairs {
                let Self { analyzer, terms, states, batch, .. } = self;
                analyzer.word(text, &word, &mut |term, _, role| {
                    let (term, _) = terms.add(term.as_bytes());
                    count(states, batch, term, field.weight);
                    length += u32::from(role.has_length());
                });
                continue;
            }
            let (number, is_new) = self.words.add(&text.as_bytes()[word.start..word.end]);
            if is_new {
                let start = self.word_terms.len() as u32;
                let Self { analyzer, terms, word_terms, .. } = self;
                analyzer.word(text, &word, &mut |term, _, role| {
                    word_terms.push((terms.add(term.as_bytes()).0, role));
                });
                self.word_ranges.push((start, self.word_terms.len() as u32));
            }
            let (start, end) = self.word_ranges[number as usize];
            for &(term, role) in &self.word_terms[start as usize..end as usize] {
                count(&mut self.states, &mut self.batch, term, field.weight);
                length += u32::from(role.has_length());
            }
        }
        let share = length.saturating_mul(field.length_share);
        self.batch.length = self.batch.length.saturating_add(share);
    }

    fn write(&mut self) -> std::io::Result<Vec<u8>> {
        let Self { terms, states, batch, .. } = self;
        let mut sorted: Vec<(&[u8], u32)> =
            batch.terms.iter().map(|&term| (terms.get(term), term)).collect();
        sorted.sort_unstable();
        let mut place = 0;
        for &(_, term) in &sorted {
            let state = &mut states[term as usize];
            state.last = place;
            place += state.documents;
        }
        let mut by_term = vec![(0u32, 0u32); batch.postings.len()];
        for posting in &batch.postings {
            let place = &mut states[posting.term as usize].last;
            by_term[*place as usize] = (posting.document, posting.frequency);
            *place += 1;
        }
        let mut writer = SegmentWriter::new(Vec::new(), &batch.lengths);
        let mut start = 0;
        for (bytes, term) in sorted {
            let end = states[term as usize].last as usize;
            for &(document, frequency) in &by_term[start..end] {
                writer.push(document, frequency);
            }
            writer.end_term(bytes)?;
            start = end;
        }
        writer.finish(&batch.numbers, self.chain.code())
    }

    fn forget(&mut self) {
        if self.memory_bytes() > MEMORY_BYTES_MAX {
            *self = Self::new(self.chain);
        }
    }
}

/// Counts `weight` occurrences of a term in the document at hand.
#[inline]
fn count(states: &mut Vec<State>, batch: &mut Batch, term: u32, weight: u32) {
    if term as usize >= states.len() {
        states.resize(term as usize + 1, State { batch: 0, documents: 0, last: 0 });
    }
    let state = &mut states[term as usize];
    if state.batch != batch.number {
        *state = State { batch: batch.number, documents: 0, last: 0 };
        batch.terms.push(term);
    } else if let Some(posting) = batch.postings.get_mut(state.last as usize)
        && posting.document == batch.document
    {
        posting.frequency = posting.frequency.saturating_add(weight);
        return;
    }
    state.documents += 1;
    state.last = batch.postings.len() as u32;
    batch.postings.push(Posting { term, document: batch.document, frequency: weight });
}
