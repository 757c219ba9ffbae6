//! The environment variables of a service that calls others.
//!
//! Which there are stands at [`PipelinesConfig::with_environment`].

use super::config::{Overrides, PipelinesConfig};
use crate::config_error::{ConfigError, check_range};
use std::ffi::OsStr;
use std::str::FromStr;
use std::time::Duration;

type Apply = fn(&mut Overrides, &str, &str) -> Result<(), ConfigError>;

const VARIABLES: [(&str, Apply); 5] = [
    ("HTTP_TIMEOUT_SEC", |overrides, name, value| {
        overrides.timeout = Some(seconds(name, value)?);
        Ok(())
    }),
    ("HTTP_RETRIES", |overrides, name, value| {
        overrides.attempts = Some(whole(name, value, 1, 100)?);
        Ok(())
    }),
    ("HTTP_BACKOFF_BASE_MS", |overrides, name, value| {
        let millis = whole(name, value, 1, 3_600_000)?;
        overrides.backoff_base = Some(Duration::from_millis(u64::from(millis)));
        Ok(())
    }),
    ("CB_FAIL_THRESHOLD", |overrides, name, value| {
        overrides.breaker_failures = Some(whole(name, value, 1, 1_000_000)?);
        Ok(())
    }),
    ("CB_RESET_SEC", |overrides, name, value| {
        overrides.breaker_open = Some(seconds(name, value)?);
        Ok(())
    }),
];

impl PipelinesConfig {
    /// Takes in environment variables:
    ///
    /// | variable | default | range | sets |
    /// |---|---|---|---|
    /// | `HTTP_TIMEOUT_SEC` | 30 | 0.001 to 86400 | limit of one attempt, seconds |
    /// | `HTTP_RETRIES` | 3 | 1 to 100 | attempts in all, the first included |
    /// | `HTTP_BACKOFF_BASE_MS` | 1000 | 1 to 3600000 | wait before the second attempt, milliseconds |
    /// | `CB_FAIL_THRESHOLD` | 5 | 1 to 1000000 | consecutive failures that open a breaker |
    /// | `CB_RESET_SEC` | 60 | 0.001 to 86400 | how long it stays open, seconds |
    ///
    /// With a service's name in front, in capitals and with `_` for everything that is neither letter
    /// nor digit, a variable holds for that service: `OPENAI_HTTP_RETRIES`. So `open-ai` and `Open.AI` are
    /// both meant by `OPEN_AI_HTTP_RETRIES`.
    ///
    /// They override what the configuration says at the same level. Variables of services that the
    /// configuration does not name are kept for when such a service is called.
    ///
    /// Pass [`std::env::vars_os`], which unlike [`std::env::vars`] does not panic at what is no
    /// Unicode: here a name that is none is passed over, and a value that is none is refused if the
    /// variable is one of these.
    ///
    /// ```
    /// use mainstay_resilience::PipelinesConfig;
    ///
    /// let vars = [("HTTP_RETRIES", "2"), ("OPENAI_HTTP_TIMEOUT_SEC", "7.5"), ("PATH", "/bin")];
    /// let config = PipelinesConfig::default().with_environment(vars)?;
    /// assert_eq!(config.defaults.attempts, Some(2));
    ///
    /// let broken = [("CB_RESET_SEC", "soon")];
    /// let refused = PipelinesConfig::default().with_environment(broken).unwrap_err();
    /// assert_eq!(
    ///     refused.to_string(),
    ///     "CB_RESET_SEC: \"soon\" is not allowed, use a number of seconds from 0.001 to 86400"
    /// );
    /// # Ok::<(), mainstay_resilience::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// The variable that is malformed, or what [`validate`](Self::validate) finds.
    pub fn with_environment<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        for (name, value) in vars {
            let Some(name) = name.as_ref().to_str() else {
                continue;
            };
            // What is no Unicode becomes a sign that no number has, so that it is refused.
            let value = value.as_ref().to_string_lossy();
            for (suffix, apply) in VARIABLES {
                let Some(prefix) = name.strip_suffix(suffix) else {
                    continue;
                };
                if prefix.is_empty() {
                    apply(&mut self.defaults, name, &value)?;
                } else if prefix == "_" {
                    let allowed = format!("{suffix}, or a service's name in front of {name}");
                    return Err(ConfigError::new(name, format!("{value:?}"), allowed));
                } else if let Some(service) = prefix.strip_suffix('_') {
                    // Known by any spelling, or kept under one that every other is found by.
                    if !self.services.keys().any(|key| as_variable(key) == service) {
                        self.services.entry(service.to_ascii_lowercase()).or_default();
                    }
                    let all =
                        self.services.iter_mut().filter(|(key, _)| as_variable(key) == service);
                    for (_, known) in all {
                        apply(&mut known.all, name, &value)?;
                    }
                }
            }
        }
        self.validate()?;
        Ok(self)
    }
}

/// A service's name as it stands in variables.
pub(super) fn as_variable(service: &str) -> String {
    let mapped = service.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    mapped.collect::<String>().to_ascii_uppercase()
}

fn whole(name: &str, value: &str, min: u32, max: u32) -> Result<u32, ConfigError> {
    let refuse = |_| {
        ConfigError::new(name, format!("{value:?}"), format!("a whole number from {min} to {max}"))
    };
    let number = u32::from_str(value.trim()).map_err(refuse)?;
    check_range(name, number, min, max)?;
    Ok(number)
}

fn seconds(name: &str, value: &str) -> Result<Duration, ConfigError> {
    let number = f64::from_str(value.trim()).ok();
    match number.filter(|number| (0.001..=86_400.0).contains(number)) {
        Some(number) => Ok(Duration::from_secs_f64(number)),
        None => {
            let allowed = "a number of seconds from 0.001 to 86400";
            Err(ConfigError::new(name, format!("{value:?}"), allowed))
        }
    }
}
