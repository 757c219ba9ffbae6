//! The search library as its callers see it.

mod native;
mod native_limits;
mod native_oracle;
