//! Pipelines as configured: defaults, services, endpoints; and as resolved for one endpoint.

use super::environment::as_variable;
use crate::adaptive_limit::AdaptiveConfig;
use crate::backoff::{Backoff, Jitter};
use crate::breaker::BreakerConfig;
use crate::budget::BudgetConfig;
use crate::bulkhead::BulkheadConfig;
use crate::config_error::{ConfigError, check_range};
use crate::human_duration::check_duration;
use crate::rate_limit::RateConfig;
use crate::retry::RetryConfig;
use std::collections::BTreeMap;
use std::time::Duration;

/// What may be said about a service or one of its endpoints. What is not said comes from the level
/// above: endpoint, service, `defaults`, and at last the external-service preset (30 s for an
/// attempt, 3 attempts, 1 s doubling to 30 s with ±10 %, 5 consecutive failures open for 60 s).
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Overrides {
    /// The limit of one attempt, 1 ms to 1 day.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration::optional"))]
    pub timeout: Option<Duration>,
    /// The limit of all attempts and waits together, 1 ms to 1 day. Without it: twice the attempts
    /// times the attempt's limit.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration::optional"))]
    pub total_timeout: Option<Duration>,
    /// Attempts in all, 1 to 100.
    pub attempts: Option<u32>,
    /// The wait before the second attempt, 1 ms to 1 h.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration::optional"))]
    pub backoff_base: Option<Duration>,
    /// The longest wait, `backoff_base` to 1 h.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration::optional"))]
    pub backoff_max: Option<Duration>,
    /// What each wait is multiplied by, 1 to 100, default 2. With 1 every wait is `backoff_base`.
    pub backoff_factor: Option<f64>,
    /// How waits are scattered.
    pub jitter: Option<Jitter>,
    /// A Retry-After of more than this ends the call instead of being waited for, 0 to 1 h, default
    /// 1 min.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration::optional"))]
    pub retry_after_max: Option<Duration>,
    /// No further attempt is started with less than this left of the deadline, 0 to 1 h, default 0; the
    /// median of successful attempts seen so far counts as well.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration::optional"))]
    pub attempt_time_min: Option<Duration>,
    /// What a retry after a timeout takes from the budget, 0.001 to 100, default 1; other retries
    /// take 1. A timeout has cost the dependency more than a refusal.
    pub timeout_cost: Option<f64>,
    /// The whole breaker, in place of the level above's.
    pub breaker: Option<BreakerConfig>,
    /// Consecutive failures that open the breaker, 1 to 1 000 000.
    pub breaker_failures: Option<u32>,
    /// How long it stays open, 1 ms to 1 day.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration::optional"))]
    pub breaker_open: Option<Duration>,
    /// Calls at a time. Without it there is no bulkhead.
    pub bulkhead: Option<BulkheadConfig>,
    /// Calls per time. Without it there is no rate limit.
    pub rate: Option<RateConfig>,
    /// Calls at a time, as many as the dependency turns out to bear, beside a bulkhead's fixed number.
    /// Without it there is no adaptive limit. A reload keeps the limit it has found, within the new
    /// bounds.
    pub adaptive_limit: Option<AdaptiveConfig>,
}

/// A service: overrides for all of it and for its endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ServiceConfig {
    /// For every endpoint of the service.
    pub all: Overrides,
    /// By endpoint.
    pub endpoints: BTreeMap<String, Overrides>,
}

/// Everything the pipelines can be told.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PipelinesConfig {
    /// For every service.
    pub defaults: Overrides,
    /// By service. A service that is not here by its exact name is looked for as it stands in
    /// environment variables, in capitals and with `_` for everything that is neither letter nor digit:
    /// `open_ai` holds for `open-ai`.
    pub services: BTreeMap<String, ServiceConfig>,
    /// The budget that all retries of one service share.
    pub budget: BudgetConfig,
    /// Pipelines kept, 1 to 100 000. Default 1 000. Endpoints beyond it share one named `*`.
    pub pipelines_max: u32,
}

impl Default for PipelinesConfig {
    fn default() -> Self {
        PipelinesConfig {
            defaults: Overrides::default(),
            services: BTreeMap::new(),
            budget: BudgetConfig::default(),
            pipelines_max: 1_000,
        }
    }
}

/// What holds for one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) timeout: Duration,
    pub(super) total_timeout: Duration,
    pub(super) retry: RetryConfig,
    pub(super) breaker: BreakerConfig,
    pub(super) bulkhead: Option<BulkheadConfig>,
    pub(super) rate: Option<RateConfig>,
    pub(super) adaptive_limit: Option<AdaptiveConfig>,
}

impl PipelinesConfig {
    /// Reads a configuration from any format of serde and checks it.
    ///
    /// ```
    /// use mainstay_resilience::PipelinesConfig;
    ///
    /// let text = r#"{ "services": { "openai": { "all": { "timeout": "5" } } } }"#;
    /// let refused = PipelinesConfig::read(&mut serde_json::Deserializer::from_str(text));
    /// assert_eq!(
    ///     refused.unwrap_err().to_string(),
    ///     "services.openai.all.timeout: \"5\" is not allowed, \
    ///      use a number and a unit such as 250ms, 1.5s or 5m, 1ms to 1d"
    /// );
    /// ```
    ///
    /// # Errors
    /// The key that is unknown, malformed or out of its range, by its whole path.
    #[cfg(feature = "serde")]
    pub fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, ConfigError> {
        let read: Self = serde_path_to_error::deserialize(from)
            .map_err(|error| super::keys::refusal(error.path(), error.inner()))?;
        read.validate()?;
        Ok(read)
    }

    /// Resolves and checks every service and endpoint that is named.
    ///
    /// # Errors
    /// An empty name, or the first field that is out of its range, with its path.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_range("pipelines_max", self.pipelines_max, 1, 100_000)?;
        self.budget.validate()?;
        // First, since a level is resolved alone by the name that nobody may have.
        self.check_names()?;
        self.resolve("", "").map_err(|error| error.within("defaults"))?;
        for (service, config) in &self.services {
            let path = format!("services.{service}");
            self.resolve(service, "").map_err(|error| error.within(&format!("{path}.all")))?;
            for endpoint in config.endpoints.keys() {
                self.resolve(service, endpoint)
                    .map_err(|error| error.within(&format!("{path}.endpoints.{endpoint}")))?;
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        for (service, config) in &self.services {
            if service.is_empty() {
                let allowed = "a service's name; what holds for every service stands in `defaults`";
                return Err(ConfigError::new("services", "an empty name", allowed));
            }
            if config.endpoints.contains_key("") {
                let path = format!("services.{service}.endpoints");
                let allowed = "an endpoint's name; what holds for every endpoint stands in `all`";
                return Err(ConfigError::new(path, "an empty name", allowed));
            }
        }
        Ok(())
    }

    /// The levels that apply to an endpoint, most particular first.
    fn levels(&self, service: &str, endpoint: &str) -> [Option<&Overrides>; 3] {
        let config = self.services.get(service).or_else(|| self.by_another_spelling(service));
        let endpoint = config.and_then(|config| config.endpoints.get(endpoint));
        [endpoint, config.map(|config| &config.all), Some(&self.defaults)]
    }

    /// Only while a pipeline is made, so a look at every service is cheap enough.
    fn by_another_spelling(&self, service: &str) -> Option<&ServiceConfig> {
        let wanted = as_variable(service);
        let mut all = self.services.iter();
        all.find(|(name, _)| as_variable(name) == wanted).map(|(_, config)| config)
    }

    pub(super) fn resolve(&self, service: &str, endpoint: &str) -> Result<Settings, ConfigError> {
        let levels = self.levels(service, endpoint);
        let preset = RetryConfig::external_service();
        let (ms, day) = (Duration::from_millis(1), Duration::from_secs(86_400));

        let timeout = said(levels, |o| o.timeout).unwrap_or(Duration::from_secs(30));
        check_duration("timeout", timeout, ms, day)?;
        let attempts = said(levels, |o| o.attempts).unwrap_or(preset.attempts);
        check_range("attempts", attempts, 1, crate::retry::ATTEMPTS_MAX)?;
        let total_default = timeout.saturating_mul(attempts.saturating_mul(2)).min(day);
        let total_timeout = said(levels, |o| o.total_timeout).unwrap_or(total_default);
        check_duration("total_timeout", total_timeout, ms, day)?;

        let retry = RetryConfig {
            attempts,
            backoff: backoff(levels)?,
            retry_after_max: said(levels, |o| o.retry_after_max).unwrap_or(preset.retry_after_max),
            attempt_time_min: said(levels, |o| o.attempt_time_min)
                .unwrap_or(preset.attempt_time_min),
            timeout_cost: said(levels, |o| o.timeout_cost).unwrap_or(preset.timeout_cost),
            ..preset
        };
        retry.validate()?;

        let bulkhead = said(levels, |o| o.bulkhead);
        if let Some(bulkhead) = &bulkhead {
            bulkhead.validate().map_err(|error| error.within("bulkhead"))?;
        }
        let rate = said(levels, |o| o.rate);
        if let Some(rate) = &rate {
            rate.validate().map_err(|error| error.within("rate"))?;
        }
        let adaptive_limit = said(levels, |o| o.adaptive_limit);
        if let Some(adaptive_limit) = &adaptive_limit {
            adaptive_limit.validate().map_err(|error| error.within("adaptive_limit"))?;
        }
        let breaker = breaker(levels, timeout)?;
        Ok(Settings { timeout, total_timeout, retry, breaker, bulkhead, rate, adaptive_limit })
    }
}

/// What the most particular level says.
fn said<T>(levels: [Option<&Overrides>; 3], field: impl Fn(&Overrides) -> Option<T>) -> Option<T> {
    levels.into_iter().flatten().find_map(field)
}

/// Checked by the keys of [`Overrides`]; the policy's own check knows only its own fields.
fn backoff(levels: [Option<&Overrides>; 3]) -> Result<Backoff, ConfigError> {
    let (ms, hour) = (Duration::from_millis(1), Duration::from_secs(3_600));
    let base = said(levels, |o| o.backoff_base).unwrap_or(Duration::from_secs(1));
    check_duration("backoff_base", base, ms, hour)?;
    let max = said(levels, |o| o.backoff_max).unwrap_or(base.max(Duration::from_secs(30)));
    let level = |says: fn(&Overrides) -> bool| levels.iter().position(|o| o.is_some_and(says));
    let base_level = level(|o| o.backoff_base.is_some());
    if base_level.is_some_and(|base| level(|o| o.backoff_max.is_some()) > Some(base)) {
        // The cap comes from further out: what was written here is the base.
        check_duration("backoff_base", base, ms, max.max(ms))?;
    }
    check_duration("backoff_max", max, base, hour)?;
    let factor = said(levels, |o| o.backoff_factor).unwrap_or(2.0);
    check_range("backoff_factor", factor, 1.0, 100.0)?;
    let jitter = said(levels, |o| o.jitter).unwrap_or(Jitter::Proportional(0.1));
    if let Jitter::Proportional(share) = jitter {
        check_range("jitter.proportional", share, 0.0, 1.0)?;
    }
    Ok(Backoff::Exponential { first: base, factor, max, jitter })
}

fn breaker(
    levels: [Option<&Overrides>; 3],
    timeout: Duration,
) -> Result<BreakerConfig, ConfigError> {
    let mut breaker = said(levels, |o| o.breaker.clone()).unwrap_or_else(|| {
        let preset = BreakerConfig::external_service();
        // A call that the outer limit drops shortly before its own limit has hung as well.
        let dropped = crate::breaker::DropRule::TimeoutAfter(timeout.mul_f64(0.9));
        let ms = Duration::from_millis(1);
        if timeout > ms * 2 { BreakerConfig { on_drop: dropped, ..preset } } else { preset }
    });
    if let Some(failures) = said(levels, |o| o.breaker_failures) {
        check_range("breaker_failures", failures, 1, 1_000_000)?;
        breaker.consecutive_failures = failures;
    }
    if let Some(open) = said(levels, |o| o.breaker_open) {
        let (ms, day) = (Duration::from_millis(1), Duration::from_secs(86_400));
        check_duration("breaker_open", open, ms, day)?;
        breaker.open_for.first = open;
        breaker.open_for.max = breaker.open_for.max.max(open);
        if breaker.open_for.factor == 1.0 {
            breaker.open_for.max = open;
        }
    }
    breaker.validate().map_err(|error| error.within("breaker"))?;
    Ok(breaker)
}
