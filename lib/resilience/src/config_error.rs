//! What is wrong with a configuration: which field, which value, which values it may have.

use std::fmt;

/// A setting that was refused, before anything was built from it.
///
/// The message names the field, the value found and the allowed range:
///
/// ```
/// use mainstay_resilience::CircuitBreaker;
///
/// let refused = CircuitBreaker::builder("embedder").failure_rate(1.5).build().unwrap_err();
/// assert_eq!(refused.to_string(), "failure_rate: 1.5 is not allowed, use above 0 and at most 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: String,
    value: String,
    allowed: String,
}

impl ConfigError {
    /// `field` holds `value`, but may only hold `allowed` (a phrase that follows "use").
    pub fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        ConfigError { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }

    /// The dotted path of the field, for example `services.openai.retry.attempts`.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The value that was found.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The values that are allowed.
    #[must_use]
    pub fn allowed(&self) -> &str {
        &self.allowed
    }

    /// The same error, seen from one level further out.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is not allowed, use {}", self.field, self.value, self.allowed)
    }
}

impl std::error::Error for ConfigError {}

/// Checks that `value` lies in `(0, 1]`.
pub(crate) fn check_ratio(field: &str, value: f64) -> Result<(), ConfigError> {
    if value > 0.0 && value <= 1.0 {
        return Ok(());
    }
    Err(ConfigError::new(field, value, "above 0 and at most 1"))
}

/// Checks that `value` lies in `[min, max]`; a value that is not a number never does.
pub(crate) fn check_range<T: PartialOrd + fmt::Display>(
    field: &str,
    value: T,
    min: T,
    max: T,
) -> Result<(), ConfigError> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(ConfigError::new(field, value, format!("{min} to {max}")))
}
