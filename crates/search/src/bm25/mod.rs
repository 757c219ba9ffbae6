//! `bm25`: which documents are about these words. A BM25F index of our own.
//!
//! [`Bm25View`] takes batches in, each as a small segment in memory; segments of like size are merged;
//! a checkpoint writes what is in memory to a file. [`Bm25Searcher`] answers from all segments as if
//! they were one: statistics are those of the whole collection, and the score that a document has to
//! pass is carried from segment to segment.
//!
//! Why it is built like this, and what it measures: `docs/design/bm25.md`.

mod scoring;
mod view;

mod dictionary;
mod list;
mod packing;
mod segment;

mod indexer;
mod interner;
mod manifest;
mod merge;

mod cursor;
mod search;
mod searcher;
mod top;

pub use scoring::{B, BODY, Field, K1, PATH, SYMBOLS, TITLE};
pub use searcher::{Bm25Searcher, QUERY_TERMS_MAX};
pub use view::Bm25View;
