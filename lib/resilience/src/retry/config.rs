//! What a retry can be told.

use crate::backoff::{Backoff, Jitter};
use crate::config_error::{ConfigError, check_range};
use crate::human_duration::check_duration;
use std::time::Duration;

/// The most attempts: beyond it a queue is the right tool.
pub(crate) const ATTEMPTS_MAX: u32 = 100;

/// Everything a retry can be told. Start from [`Default`] or a preset and change fields.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RetryConfig {
    /// Attempts in all, the first included, 1 to 100. Default 3; 1 means no retry.
    pub attempts: u32,
    /// The wait between attempts. Default: 100 ms doubling up to 5 s, full jitter.
    pub backoff: Backoff,
    /// A Retry-After of more than this ends the call at once instead of being waited for, 0 to 1 h.
    /// Default 60 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub retry_after_max: Duration,
    /// No attempt is started with less than this left of the deadline; the median of successful
    /// attempts seen so far counts as well. 0 to 1 h, default 0.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub attempt_time_min: Duration,
    /// Tokens that a retry after a timeout takes from the budget, 0.001 to 100. Default 1; other
    /// retries take 1. A timeout has cost the dependency more than a refusal.
    pub timeout_cost: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            attempts: 3,
            backoff: Backoff::default(),
            retry_after_max: Duration::from_secs(60),
            attempt_time_min: Duration::ZERO,
            timeout_cost: 1.0,
        }
    }
}

impl RetryConfig {
    /// For a service across the network: 3 attempts, 1 s doubling up to 30 s, each wait changed by
    /// up to 10 %.
    #[must_use]
    pub fn external_service() -> Self {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(30));
        let backoff = Backoff::exponential(first, max).with_jitter(Jitter::Proportional(0.1));
        RetryConfig { backoff, ..RetryConfig::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let hour = Duration::from_secs(3_600);
        check_range("attempts", self.attempts, 1, ATTEMPTS_MAX)?;
        self.backoff.validate()?;
        check_duration("retry_after_max", self.retry_after_max, Duration::ZERO, hour)?;
        check_duration("attempt_time_min", self.attempt_time_min, Duration::ZERO, hour)?;
        check_range("timeout_cost", self.timeout_cost, 0.001, 100.0)
    }
}
