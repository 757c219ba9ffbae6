//! The operations floor, through its public interface.
#![allow(clippy::unwrap_used)]

mod health;
mod memory;
