//! What the crate promises, policy by policy.
#![allow(clippy::unwrap_used)]

mod breaker;
