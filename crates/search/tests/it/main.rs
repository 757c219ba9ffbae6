//! Integration tests of the search floor: one binary, one module a theme.
#![allow(clippy::unwrap_used)]

mod documents;
//! The search library as its callers see it.

mod native;
mod native_limits;
mod native_oracle;
