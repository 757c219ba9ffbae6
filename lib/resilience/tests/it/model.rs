//! Each policy against a slow, obvious model, over random schedules of calls, drops, clock steps,
//! commands and reconfigurations.
//!
//! `RESILIENCE_CASES` sets the number of schedules of each model (2 000 without it). A failure
//! prints its seed and the smallest schedule; `PROPTEST_RNG_SEED` plays a seed again.

mod adaptive_limit;
mod breaker;
mod budget;
mod bulkhead;
mod keyed;
mod pipeline;
mod rate_limit;

use proptest::prelude::ProptestConfig;

fn cases() -> u32 {
    std::env::var("RESILIENCE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

fn runs() -> ProptestConfig {
    ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() }
}
