//! How long to wait before another attempt.
//!
//! Source of the jitters: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

use crate::config_error::{ConfigError, check_range};
use crate::human_duration::check_duration;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The longest wait that may be configured: an hour; longer belongs into a queue.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// The wait before each further attempt. In files `{"fixed": {"wait": "1s"}}` or
/// `{"exponential": {"first": "100ms", "factor": 2, "max": "5s", "jitter": "full"}}`, of which each key
/// may be left out.
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Backoff {
    /// Always the same, with jitter.
    Fixed {
        /// The wait, 0 to 1 h.
        #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
        wait: Duration,
        /// How it is scattered. Default in files [`Jitter::None`].
        #[cfg_attr(feature = "serde", serde(default = "jitter_of_fixed"))]
        jitter: Jitter,
    },
    /// Growing by a factor up to a cap, with jitter.
    Exponential {
        /// The wait before the second attempt, 1 ms to 1 h. Default 100 ms.
        #[cfg_attr(
            feature = "serde",
            serde(default = "first_default", with = "crate::serde_duration")
        )]
        first: Duration,
        /// What each wait is multiplied by, 1 to 100. Default 2.
        #[cfg_attr(feature = "serde", serde(default = "factor_default"))]
        factor: f64,
        /// The longest wait, `first` to 1 h. Default 5 s.
        #[cfg_attr(
            feature = "serde",
            serde(default = "max_default", with = "crate::serde_duration")
        )]
        max: Duration,
        /// How it is scattered. Default [`Jitter::Full`].
        #[cfg_attr(feature = "serde", serde(default))]
        jitter: Jitter,
    },
    /// Whatever the function says: it gets the number of the attempt that failed, from 1. No file can
    /// hold it: writing one fails.
    #[cfg_attr(feature = "serde", serde(skip))]
    Custom(Arc<dyn Fn(u32) -> Duration + Send + Sync>),
}

/// How a wait is scattered, so that clients that failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Jitter {
    /// Not at all.
    None,
    /// Uniformly between zero and the wait: the best at spreading a crowd.
    #[default]
    Full,
    /// Uniformly between half the wait and the wait.
    Equal,
    /// Uniformly between the first wait and three times the one before, up to the cap. Not for
    /// [`Backoff::Fixed`], whose wait is its own cap.
    Decorrelated,
    /// The wait plus or minus up to this share of it, 0 to 1; never above the cap of
    /// [`Backoff::Exponential`].
    Proportional(f64),
}

#[cfg(feature = "serde")]
fn jitter_of_fixed() -> Jitter {
    Jitter::None
}

fn first_default() -> Duration {
    Duration::from_millis(100)
}

fn factor_default() -> f64 {
    2.0
}

fn max_default() -> Duration {
    Duration::from_secs(5)
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::exponential(first_default(), max_default())
    }
}

impl Backoff {
    /// `first`, doubled each time, at most `max`, with full jitter.
    #[must_use]
    pub fn exponential(first: Duration, max: Duration) -> Self {
        Backoff::Exponential { first, factor: factor_default(), max, jitter: Jitter::Full }
    }

    /// Always `wait`.
    #[must_use]
    pub fn fixed(wait: Duration) -> Self {
        Backoff::Fixed { wait, jitter: Jitter::None }
    }

    /// No wait at all.
    #[must_use]
    pub fn none() -> Self {
        Backoff::fixed(Duration::ZERO)
    }

    /// The same waits, scattered by `jitter`. Changes nothing on [`Backoff::Custom`].
    #[must_use]
    pub fn with_jitter(mut self, scatter: Jitter) -> Self {
        match &mut self {
            Backoff::Fixed { jitter, .. } | Backoff::Exponential { jitter, .. } => {
                *jitter = scatter
            }
            Backoff::Custom(_) => {}
        }
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let jitter = match self {
            Backoff::Fixed { wait, jitter } => {
                check_duration("backoff.wait", *wait, Duration::ZERO, WAIT_MAX)?;
                jitter
            }
            Backoff::Exponential { first, factor, max, jitter } => {
                check_duration("backoff.first", *first, Duration::from_millis(1), WAIT_MAX)?;
                check_duration("backoff.max", *max, *first, WAIT_MAX)?;
                check_range("backoff.factor", *factor, 1.0, 100.0)?;
                jitter
            }
            Backoff::Custom(_) => return Ok(()),
        };
        match (*jitter, self) {
            (Jitter::Proportional(share), _) => check_range("backoff.jitter", share, 0.0, 1.0),
            (Jitter::Decorrelated, Backoff::Fixed { .. }) => {
                let allowed = "full, equal or proportional for a fixed wait, or an exponential \
                               backoff, whose waits can spread";
                Err(ConfigError::new("backoff.jitter", "decorrelated", allowed))
            }
            _ => Ok(()),
        }
    }

    /// The wait after attempt number `failed` (from 1), given the wait before it and a random
    /// number in `[0, 1)`.
    pub(crate) fn wait(&self, failed: u32, previous: Duration, unit: f64) -> Duration {
        let (first, factor, max, jitter) = match self {
            Backoff::Fixed { wait, jitter } => (*wait, 1.0, WAIT_MAX, *jitter),
            Backoff::Exponential { first, factor, max, jitter } => (*first, *factor, *max, *jitter),
            Backoff::Custom(wait) => return wait(failed).min(WAIT_MAX),
        };
        // Beyond 64 steps every factor above 1.2 has passed the cap; a factor of 1 stays 1.
        let steps = i32::try_from(failed.saturating_sub(1).min(64)).unwrap_or(64);
        let cap = max.as_secs_f64();
        let base = (first.as_secs_f64() * factor.powi(steps)).min(cap);
        let scattered = match jitter {
            Jitter::None => base,
            Jitter::Full => base * unit,
            Jitter::Equal => base * (0.5 + 0.5 * unit),
            Jitter::Decorrelated => {
                let low = first.as_secs_f64();
                let high = (previous.as_secs_f64().max(low) * 3.0).max(low);
                (low + (high - low) * unit).min(cap)
            }
            // At the cap the upper half is left out: cut off there, half of a crowd would meet.
            Jitter::Proportional(share) => {
                let (low, high) = (base * (1.0 - share), (base * (1.0 + share)).min(cap));
                low + (high - low) * unit
            }
        };
        Duration::try_from_secs_f64(scattered).unwrap_or(max)
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backoff::Fixed { wait, jitter } => {
                f.debug_struct("Fixed").field("wait", wait).field("jitter", jitter).finish()
            }
            Backoff::Exponential { first, factor, max, jitter } => f
                .debug_struct("Exponential")
                .field("first", first)
                .field("factor", factor)
                .field("max", max)
                .field("jitter", jitter)
                .finish(),
            Backoff::Custom(_) => f.write_str("Custom"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS_100: Duration = Duration::from_millis(100);

    #[test]
    fn r1_waits_double_from_100_ms_up_to_5_s() {
        let backoff = Backoff::default().with_jitter(Jitter::None);
        let waits: Vec<u128> =
            (1..=8).map(|n| backoff.wait(n, Duration::ZERO, 0.5).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    }

    #[test]
    fn r1_each_jitter_stays_within_its_bounds() {
        let exponential = Backoff::default();
        let wait = |jitter, unit| {
            exponential.clone().with_jitter(jitter).wait(1, MS_100 * 2, unit).as_millis()
        };
        let almost_one = 0.9999;
        assert_eq!((wait(Jitter::Full, 0.0), wait(Jitter::Full, almost_one)), (0, 99));
        assert_eq!((wait(Jitter::Equal, 0.0), wait(Jitter::Equal, almost_one)), (50, 99));
        let decorrelated = Jitter::Decorrelated;
        assert_eq!((wait(decorrelated, 0.0), wait(decorrelated, almost_one)), (100, 599));
        let tenth = Jitter::Proportional(0.1);
        assert_eq!((wait(tenth, 0.0), wait(tenth, almost_one)), (90, 109));
    }

    #[test]
    fn r1_a_proportional_jitter_scatters_below_the_cap_and_both_ways_below_it() {
        let capped = Backoff::exponential(Duration::from_secs(5), Duration::from_secs(5))
            .with_jitter(Jitter::Proportional(0.1));
        let waits = [0.0, 0.5, 0.9999].map(|unit| capped.wait(1, MS_100, unit).as_millis());
        assert_eq!(waits, [4_500, 4_750, 4_999], "never above the cap, and not all at the cap");
        let fixed = Backoff::fixed(MS_100).with_jitter(Jitter::Proportional(0.1));
        let waits = [0.0, 0.5, 0.9999].map(|unit| fixed.wait(3, MS_100, unit).as_millis());
        assert_eq!(waits, [90, 100, 109], "a fixed wait has no cap");
    }

    #[test]
    fn r1_a_decorrelated_jitter_of_a_fixed_wait_is_refused() {
        let fixed = Backoff::fixed(MS_100).with_jitter(Jitter::Decorrelated);
        assert_eq!(
            fixed.validate().expect_err("refused").to_string(),
            "backoff.jitter: decorrelated is not allowed, use full, equal or proportional for a \
             fixed wait, or an exponential backoff, whose waits can spread"
        );
        assert_eq!(Backoff::default().with_jitter(Jitter::Decorrelated).validate(), Ok(()));
    }

    #[test]
    fn a_cap_below_the_first_wait_is_refused() {
        let refused =
            Backoff::exponential(Duration::from_secs(2), MS_100).validate().expect_err("refused");
        assert_eq!(refused.to_string(), "backoff.max: 100ms is not allowed, use 2s to 1h");
    }
}
