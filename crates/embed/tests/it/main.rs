//! Integration tests of the crate, in one binary.
#![allow(clippy::unwrap_used)]

mod agreement;
mod contract;
mod gate;
mod model_folder;
mod pool;
mod provider;
mod remote;
