//! Integration tests of `mainstay-search`, one module for each boundary.
#![allow(clippy::unwrap_used)]

mod full_text;
mod fusion;
mod relevance;
mod snippet;
