//! The floor as others see it.
#![allow(clippy::unwrap_used)]

mod analysis;
mod bm25;
mod bm25_relevance;
