//! The storage crate from outside: one binary, one module for each concern.
#![allow(clippy::unwrap_used)]

mod contract;
mod crash;
mod directory;
mod disk_full;
mod format;
mod kill;
mod log;
mod refusal;
mod world;
