//! Integration tests of the search floor: one binary, one module a theme.
#![allow(clippy::unwrap_used)]

mod documents;
mod documents_columns;
mod documents_damage;
