//! What the crate promises, policy by policy.
#![allow(clippy::unwrap_used)]

#[cfg(not(resilience_loom))]
mod allocation;
#[cfg(not(resilience_loom))]
mod bad_input;
#[cfg(not(resilience_loom))]
mod breaker;
#[cfg(not(resilience_loom))]
mod chained_limits;
#[cfg(not(resilience_loom))]
mod clock_readings;
#[cfg(not(resilience_loom))]
mod concurrency;
#[cfg(not(resilience_loom))]
mod config_file;
#[cfg(not(resilience_loom))]
mod deadlines;
#[cfg(not(resilience_loom))]
mod defects;
#[cfg(not(resilience_loom))]
mod documentation;
#[cfg(not(resilience_loom))]
mod edges;
#[cfg(not(resilience_loom))]
mod examples;
#[cfg(not(resilience_loom))]
mod hedge;
#[cfg(resilience_loom)]
mod interleavings;
#[cfg(not(resilience_loom))]
mod limits;
#[cfg(not(resilience_loom))]
mod model;
#[cfg(not(resilience_loom))]
mod observers;
#[cfg(not(resilience_loom))]
mod panicking_observer;
#[cfg(not(resilience_loom))]
mod pipeline;
#[cfg(not(resilience_loom))]
mod redis_quota;
#[cfg(not(resilience_loom))]
mod registry;
#[cfg(not(resilience_loom))]
mod simulation;
#[cfg(not(resilience_loom))]
mod tower_layer;
#[cfg(not(resilience_loom))]
mod user_code;

#[cfg(not(resilience_loom))]
use std::time::Duration;

#[cfg(not(resilience_loom))]
const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[cfg(not(resilience_loom))]
const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
