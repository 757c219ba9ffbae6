//! [`Expansion`]: the documents with any word that fits a pattern.
//!
//! Walks the sorted words of a field from the pattern's literal beginning and looks at the stop flag
//! as it goes, which tantivy's own prefix and regular-expression queries do not. Every match scores
//! 1, as the frequency of unknown words says nothing.

use std::fmt;

use regex::bytes::Regex;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::query::{
    BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{BitSet, DocId, DocSet, Score, SegmentReader, TERMINATED, TantivyError};

use crate::request::Stop;

/// Words between two looks at the stop flag: about 0.1 ms.
const WORDS_PER_LOOK: usize = 1024;

/// A set of words.
#[derive(Clone)]
pub(super) enum WordPattern {
    /// Words that begin so.
    Prefix(String),
    /// Words that begin with the text and match the expression whole.
    Regex {
        /// What every match begins with; may be empty.
        prefix: String,
        /// Anchored at both ends.
        regex: Regex,
    },
    /// Any word at all: documents in which the field is not empty.
    Any,
}

/// A query for the documents with a word that fits.
#[derive(Clone)]
pub(super) struct Expansion {
    pub(super) field: Field,
    pub(super) pattern: WordPattern,
    pub(super) stop: Stop,
}

impl fmt::Debug for Expansion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = match &self.pattern {
            WordPattern::Prefix(prefix) => format!("{prefix}*"),
            WordPattern::Regex { regex, .. } => format!("/{regex}/"),
            WordPattern::Any => "*".to_string(),
        };
        write!(f, "Expansion({:?}:{pattern})", self.field)
    }
}

impl Query for Expansion {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Expansion {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let rows = match &self.pattern {
            WordPattern::Any => match self.filled(reader)? {
                Some(rows) => rows,
                None => self.fitting(reader)?,
            },
            _ => self.fitting(reader)?,
        };
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(rows), boost)))
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        let mut scorer = self.scorer(reader, 1.0)?;
        if scorer.doc() > doc || scorer.seek(doc) != doc {
            let message = format!("document {doc} does not match");
            return Err(TantivyError::InvalidArgument(message));
        }
        Ok(Explanation::new("Expansion", 1.0))
    }
}

impl Expansion {
    fn fitting(&self, reader: &SegmentReader) -> tantivy::Result<BitSet> {
        let mut rows = BitSet::with_max_value(reader.max_doc());
        let index = reader.inverted_index(self.field)?;
        let (prefix, regex) = match &self.pattern {
            WordPattern::Prefix(prefix) => (prefix.as_bytes(), None),
            WordPattern::Regex { prefix, regex } => (prefix.as_bytes(), Some(regex)),
            WordPattern::Any => (&b""[..], None),
        };
        let mut words = index.terms().range().ge(prefix).into_stream()?;
        let mut looked_at = 0;
        while words.advance() {
            looked_at += 1;
            if looked_at % WORDS_PER_LOOK == 0 && self.stop.is_set() {
                break;
            }
            if !words.key().starts_with(prefix) {
                break;
            }
            if regex.is_some_and(|regex| !regex.is_match(words.key())) {
                continue;
            }
            let mut block =
                index.read_block_postings_from_terminfo(words.value(), IndexRecordOption::Basic)?;
            while !block.docs().is_empty() {
                for &row in block.docs() {
                    rows.insert(row);
                }
                block.advance();
            }
        }
        Ok(rows)
    }

    /// By the lengths of the fields, where the index keeps them.
    fn filled(&self, reader: &SegmentReader) -> tantivy::Result<Option<BitSet>> {
        if !reader.schema().get_field_entry(self.field).has_fieldnorms() {
            return Ok(None);
        }
        let lengths: FieldNormReader = reader.get_fieldnorms_reader(self.field)?;
        let mut rows = BitSet::with_max_value(reader.max_doc());
        for row in (0..reader.max_doc()).filter(|&row| lengths.fieldnorm_id(row) > 0) {
            rows.insert(row);
        }
        Ok(Some(rows))
    }
}

/// Walks all documents of a scorer; `Break` ends the walk.
pub(super) fn walk(
    scorer: &mut dyn Scorer,
    visit: &mut dyn FnMut(DocId, Score) -> std::ops::ControlFlow<()>,
) {
    let mut doc = scorer.doc();
    while doc != TERMINATED && visit(doc, scorer.score()).is_continue() {
        doc = scorer.advance();
    }
}
