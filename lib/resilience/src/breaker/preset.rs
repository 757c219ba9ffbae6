//! The three presets of a search system.

use super::config::{BreakerConfig, DropRule, OpenFor, Probes, Window};
use std::time::Duration;

impl BreakerConfig {
    /// For a search method inside the process: opens after 5 consecutive failures, for 30 s. The
    /// window of 60 s is there for the figures only.
    #[must_use]
    pub fn search_method() -> Self {
        BreakerConfig { failure_rate: None, ..BreakerConfig::default() }
    }

    /// For an object store: opens at 50 % failures over 60 s (10 calls or more), for 300 s; closes
    /// after 10 consecutive successes, and one failure before that re-opens.
    #[must_use]
    pub fn object_storage() -> Self {
        BreakerConfig {
            consecutive_failures: 0,
            window: Window::time(Duration::from_secs(60)),
            failure_rate: Some(0.5),
            min_calls: 10,
            open_for: OpenFor::fixed(Duration::from_secs(300)),
            // An upload may take minutes, so the probes get as long as the open period.
            probes: Probes::new(10).give_up_after(Duration::from_secs(300)),
            ..BreakerConfig::default()
        }
    }

    /// For a service across the network: opens after 5 consecutive failures, for 60 s. A call that
    /// was dropped after 1 s or more counts as a failure: most such drops are timeouts.
    #[must_use]
    pub fn external_service() -> Self {
        BreakerConfig {
            failure_rate: None,
            open_for: OpenFor::fixed(Duration::from_secs(60)),
            on_drop: DropRule::TimeoutAfter(Duration::from_secs(1)),
            ..BreakerConfig::default()
        }
    }
}
