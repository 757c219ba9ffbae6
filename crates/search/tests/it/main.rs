//! Integration tests of the search floor: one binary, one module a theme.
#![allow(clippy::unwrap_used)]

mod analysis;
mod documents;
mod full_text;
mod fusion;
mod native;
mod native_limits;
mod native_oracle;
mod relevance;
mod snippet;
//! Integration tests of the search floor: one binary.
#![allow(clippy::unwrap_used)]

mod semantic;
mod documents_columns;
mod documents_damage;
