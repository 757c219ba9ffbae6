//! The storage crate from outside: one binary, one module for each concern.
#![allow(clippy::unwrap_used)]

mod crash;
mod log;
mod world;
