//! Integration tests of the search floor: one binary.
#![allow(clippy::unwrap_used)]

mod semantic;
mod semantic_recall;
