//! The operations floor, through its public interface.
#![allow(clippy::unwrap_used)]

mod active_probe;
mod admission;
mod audit;
mod flags;
mod handles;
mod health;
mod keys;
mod levels;
mod memory;
mod meter;
mod shared_rates;
mod shutdown;
mod slo;
mod telemetry;
