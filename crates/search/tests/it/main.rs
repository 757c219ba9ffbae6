//! Integration tests of the search floor: one binary, one module a theme.
#![allow(clippy::unwrap_used)]

mod documents;

mod native;
mod native_limits;
mod native_oracle;
//! Integration tests of `mainstay-search`, one module for each boundary.

mod full_text;
mod fusion;
mod relevance;
mod snippet;
//! The floor as others see it.
#![allow(clippy::unwrap_used)]

mod analysis;
