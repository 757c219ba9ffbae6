//! Integration tests of the search floor: one binary, one module a theme.
#![allow(clippy::unwrap_used)]

mod analysis;
mod bm25;
mod bm25_relevance;
mod contract;
mod documents;
mod documents_columns;
mod documents_damage;
mod full_text;
mod fusion;
mod native;
mod native_limits;
mod native_oracle;
mod relevance;
mod semantic;
mod semantic_recall;
mod snippet;
