//! What a breaker can be told, checked before anything is built from it.

#[cfg(feature = "serde")]
mod window_keys;

use crate::config_error::{ConfigError, check_range, check_ratio};
use crate::human_duration::check_duration;
use std::time::Duration;

/// The largest count window: one byte a call, so one mebibyte a breaker at most.
pub(crate) const WINDOW_CALLS_MAX: u32 = 1_048_576;
/// The most slices of a time window: finer than a percent of the window changes no decision.
pub(crate) const SLICES_MAX: u32 = 120;
/// The longest duration in a breaker's configuration: a day.
const DURATION_MAX: Duration = Duration::from_secs(86_400);
/// The shortest duration: shorter than the clock can tell apart on every platform.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// The most probes: more would be traffic, not a probe.
const PROBES_MAX: u32 = 10_000;

/// Everything a breaker can be told. Start from [`Default`] or a preset and change fields.
///
/// The default opens after 5 consecutive failures, or at 50 % failures over 60 s once 20 calls
/// were seen; stays open for 30 s; then lets one probe through.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Open after this many failures one after the other. Default 5; 0 switches the rule off.
    pub consecutive_failures: u32,
    /// Which calls the rates are taken over. Default: the last 60 s in 10 slices.
    pub window: Window,
    /// Open at this share of failures in the window, above 0 to 1. Default 0.5; `None` is off.
    pub failure_rate: Option<f64>,
    /// Open at a share of slow calls. Default `None`, off.
    pub slow_calls: Option<SlowCalls>,
    /// Rates are judged once the window holds this many calls, 1 to 1 048 576. Default 20.
    pub min_calls: u32,
    /// How long to stay open. Default 30 s, always.
    pub open_for: OpenFor,
    /// How to probe after that. Default: one probe, given up after 30 s.
    pub probes: Probes,
    /// Whether to let calls back gradually after successful probes. Default `None`: all at once.
    pub ramp: Option<Ramp>,
    /// How a permit that is dropped without a record counts. Default [`DropRule::Neutral`].
    pub on_drop: DropRule,
    /// Whether to learn the failure rate's threshold from history. Default `None`.
    pub adaptive: Option<Adaptive>,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig {
            consecutive_failures: 5,
            window: Window::time(Duration::from_secs(60)),
            failure_rate: Some(0.5),
            slow_calls: None,
            min_calls: 20,
            open_for: OpenFor::fixed(Duration::from_secs(30)),
            probes: Probes::new(1),
            ramp: None,
            on_drop: DropRule::Neutral,
            adaptive: None,
        }
    }
}

impl BreakerConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range, with the range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.window.validate()?;
        check_range("min_calls", self.min_calls, 1, WINDOW_CALLS_MAX)?;
        if let Window::Count { calls } = self.window
            && self.min_calls > calls
        {
            let allowed = format!("at most window.calls, which is {calls}");
            return Err(ConfigError::new("min_calls", self.min_calls, allowed));
        }
        if let Some(rate) = self.failure_rate {
            check_ratio("failure_rate", rate)?;
        }
        if let Some(slow) = &self.slow_calls {
            check_ratio("slow_calls.rate", slow.rate)?;
            check_duration("slow_calls.longer_than", slow.longer_than, DURATION_MIN, DURATION_MAX)?;
        }
        self.check_rules()?;
        self.open_for.validate()?;
        self.probes.validate()?;
        if let Some(ramp) = &self.ramp {
            check_ratio("ramp.from", ramp.from)?;
            check_duration("ramp.over", ramp.over, DURATION_MIN, DURATION_MAX)?;
        }
        self.on_drop.validate()?;
        self.adaptive.as_ref().map_or(Ok(()), Adaptive::validate)
    }

    fn check_rules(&self) -> Result<(), ConfigError> {
        if let (Window::Count { .. }, Some(_)) = (self.window, self.adaptive) {
            let allowed = "a time window, because adaptive learns from the slices of one";
            return Err(ConfigError::new("window", "count", allowed));
        }
        if self.window != Window::None {
            return Ok(());
        }
        if self.slow_calls.is_some() || self.failure_rate.is_some() || self.adaptive.is_some() {
            let allowed = "a time or count window, because a rate is taken over one";
            return Err(ConfigError::new("window", "none", allowed));
        }
        Ok(())
    }
}

/// Which calls a rate is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "kind", rename_all = "snake_case"))]
#[cfg_attr(feature = "serde", serde(try_from = "window_keys::WindowKeys"))]
#[non_exhaustive]
pub enum Window {
    /// No window: nothing is counted but consecutive failures. The cheapest, without a clock read.
    None,
    /// The last `calls` calls, each evicted by the one that comes that many calls later.
    Count {
        /// The calls, 1 to 1 048 576; one byte each.
        calls: u32,
    },
    /// The calls of the last `length`, which slides in steps of `length / slices`: the slice under way
    /// and the full ones before it. So it covers between `length × (slices - 1) / slices`, when a slice
    /// has just begun, and `length`; of a minute in 10 slices the
    /// last 54 to 60 s. A call leaves the window with its whole slice.
    Time {
        /// The length, 10 ms to 1 day.
        #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
        length: Duration,
        /// The slices, 2 to 120. Default 10. Each must be 1 ms long or more.
        slices: u32,
    },
}

fn slices_default() -> u32 {
    10
}

impl Window {
    /// The last `length` in 10 slices.
    #[must_use]
    pub fn time(length: Duration) -> Self {
        Window::Time { length, slices: slices_default() }
    }

    /// The last `calls` calls.
    #[must_use]
    pub fn count(calls: u32) -> Self {
        Window::Count { calls }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        match *self {
            Window::None => Ok(()),
            Window::Count { calls } => check_range("window.calls", calls, 1, WINDOW_CALLS_MAX),
            Window::Time { length, slices } => {
                check_range("window.slices", slices, 2, SLICES_MAX)?;
                let shortest = (DURATION_MIN * slices).max(Duration::from_millis(10));
                check_duration("window.length", length, shortest, DURATION_MAX)
            }
        }
    }
}

/// The rule on slow calls.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SlowCalls {
    /// Open at this share of slow calls in the window, above 0 to 1.
    pub rate: f64,
    /// A call is slow when it takes at least this long, 1 ms to 1 day. Below 100 ms it costs two
    /// precise clock readings a call instead of coarse ones.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub longer_than: Duration,
}

/// How long a breaker stays open.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct OpenFor {
    /// The first open period, 1 ms to 1 day.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub first: Duration,
    /// Each opening without a close between multiplies the period by this, 1 to 10. Default 1.
    pub factor: f64,
    /// The longest period, jitter included, `first` to 1 day. Default: `first`.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub max: Duration,
    /// Shortens or lengthens each period by up to this share, 0 to 1, so that replicas do not
    /// probe in step; never beyond `max`, and never below a tenth of the period. A period that is at
    /// `max` is therefore only shortened. Default 0.
    pub jitter: f64,
    /// Stay open at least as long as a failed call's Retry-After says, up to this long. Zero, the
    /// default, ignores it.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub retry_after_max: Duration,
}

impl Default for OpenFor {
    fn default() -> Self {
        OpenFor::fixed(Duration::from_secs(30))
    }
}

impl OpenFor {
    /// Always `period`.
    #[must_use]
    pub fn fixed(period: Duration) -> Self {
        OpenFor {
            first: period,
            factor: 1.0,
            max: period,
            jitter: 0.0,
            retry_after_max: Duration::ZERO,
        }
    }

    /// `first`, then twice as long each time the probes fail, at most `max`.
    #[must_use]
    pub fn growing(first: Duration, max: Duration) -> Self {
        OpenFor { factor: 2.0, max, ..OpenFor::fixed(first) }
    }

    /// The same with each period changed by up to `share` (0 to 1) at random.
    #[must_use]
    pub fn with_jitter(self, share: f64) -> Self {
        OpenFor { jitter: share, ..self }
    }

    /// The same, but at least as long as a failed call's Retry-After says, up to `max`.
    #[must_use]
    pub fn or_retry_after(self, max: Duration) -> Self {
        OpenFor { retry_after_max: max, ..self }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check_duration("open_for.first", self.first, DURATION_MIN, DURATION_MAX)?;
        check_duration("open_for.max", self.max, self.first, DURATION_MAX)?;
        check_range("open_for.factor", self.factor, 1.0, 10.0)?;
        check_range("open_for.jitter", self.jitter, 0.0, 1.0)?;
        check_duration(
            "open_for.retry_after_max",
            self.retry_after_max,
            Duration::ZERO,
            DURATION_MAX,
        )
    }

    /// The period of the opening after `opens_before` openings in a row; `unit` is random in 0..1.
    pub(crate) fn period(&self, opens_before: u32, unit: f64) -> Duration {
        // 64 doublings of a millisecond are beyond any maximum.
        let exponent = i32::try_from(opens_before.min(64)).unwrap_or(64);
        let grown = self.first.as_secs_f64() * self.factor.powi(exponent);
        let max = self.max.as_secs_f64();
        let capped = grown.min(max);
        // The bounds are moved, not the results: results cut off at a bound would all lie on it, and
        // replicas would probe in step after all.
        let least = capped * (1.0 - self.jitter).max(0.1);
        let most = (capped * (1.0 + self.jitter)).min(max);
        Duration::try_from_secs_f64(least + (most - least) * unit).unwrap_or(self.max)
    }
}

/// How a breaker probes when its open period is over.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Probes {
    /// Results that decide, 1 to 10 000. Default 1.
    pub count: u32,
    /// Close when this share of them succeeded, above 0 to 1. Default 1: all must succeed, and
    /// the first failure re-opens. Decided as soon as the rest cannot change it.
    pub close_at: f64,
    /// Probes under way at a time, 1 to `count`; 0, the default, means `count`.
    pub concurrent: u32,
    /// Re-open when the probes have not settled after this long, 1 ms to 1 day. Default 30 s.
    /// A probe that hangs therefore never wedges the breaker.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub give_up_after: Duration,
}

impl Default for Probes {
    fn default() -> Self {
        Probes::new(1)
    }
}

impl Probes {
    /// `count` probes that must all succeed within 30 s.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Probes { count, close_at: 1.0, concurrent: 0, give_up_after: Duration::from_secs(30) }
    }

    /// The same, closing at this share of successes.
    #[must_use]
    pub fn close_at(self, share: f64) -> Self {
        Probes { close_at: share, ..self }
    }

    /// The same with at most `concurrent` under way at a time.
    #[must_use]
    pub fn concurrent(self, concurrent: u32) -> Self {
        Probes { concurrent, ..self }
    }

    /// The same, re-opening when they have not settled after `limit`.
    #[must_use]
    pub fn give_up_after(self, limit: Duration) -> Self {
        Probes { give_up_after: limit, ..self }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check_range("probes.count", self.count, 1, PROBES_MAX)?;
        check_range("probes.concurrent", self.concurrent, 0, self.count)?;
        check_ratio("probes.close_at", self.close_at)?;
        check_duration("probes.give_up_after", self.give_up_after, DURATION_MIN, DURATION_MAX)
    }

    /// Successes that close.
    pub(crate) fn needed(&self) -> u32 {
        let needed = (f64::from(self.count) * self.close_at - 1e-9).ceil();
        (needed as u32).clamp(1, self.count)
    }

    /// Probes under way at a time.
    pub(crate) fn at_a_time(&self) -> u32 {
        if self.concurrent == 0 { self.count } else { self.concurrent }
    }
}

/// A gradual return after successful probes, like a slow start.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Ramp {
    /// The share admitted at first, above 0 to 1.
    pub from: f64,
    /// All calls are admitted after this long, 1 ms to 1 day; the share grows linearly.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub over: Duration,
}

/// How a permit of a breaker or an adaptive limit counts that is dropped without a record: the call
/// was cancelled, or a timeout around it dropped its future. A call that lost against another attempt
/// of a [`Hedge`](crate::Hedge) around the policy never counts: its caller was answered.
///
/// To an adaptive limit a failure is an overload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DropRule {
    /// It does not count. Right when callers often cancel for reasons of their own.
    #[default]
    Neutral,
    /// It counts as a failure.
    Failure,
    /// It counts as a failure if the call was under way for at least this long, else not at all.
    /// Right under a timeout: set it a little below the timeout.
    TimeoutAfter(#[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))] Duration),
}

impl DropRule {
    pub(crate) fn validate(self) -> Result<(), ConfigError> {
        match self {
            DropRule::TimeoutAfter(limit) => {
                check_duration("on_drop.timeout_after", limit, DURATION_MIN, DURATION_MAX)
            }
            DropRule::Neutral | DropRule::Failure => Ok(()),
        }
    }
}

/// Learns the threshold of the failure rate from the breaker's own history.
///
/// At the end of each slice of a time window the failure rate of that slice moves a mean and a
/// variance (exponentially weighted over `memory_slices`). The threshold is the mean plus
/// `deviations` standard deviations, held between `floor` and `ceiling`. Until `memory_slices`
/// slices with calls were seen, `failure_rate` is the threshold.
///
/// Use it for dependencies whose normal failure rate is not zero and drifts. Do not use it where
/// an outage may last for hours: what lasts becomes normal, up to the ceiling.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Adaptive {
    /// Standard deviations above the mean, 1 to 10. Default 3.
    pub deviations: f64,
    /// The lowest threshold, above 0 to 1. Default 0.1.
    pub floor: f64,
    /// The highest threshold, `floor` to 1. Default 0.9.
    pub ceiling: f64,
    /// Slices that the mean remembers, 2 to 10 000. Default 60.
    pub memory_slices: u32,
}

impl Default for Adaptive {
    fn default() -> Self {
        Adaptive { deviations: 3.0, floor: 0.1, ceiling: 0.9, memory_slices: 60 }
    }
}

impl Adaptive {
    fn validate(&self) -> Result<(), ConfigError> {
        check_range("adaptive.deviations", self.deviations, 1.0, 10.0)?;
        check_ratio("adaptive.floor", self.floor)?;
        check_range("adaptive.ceiling", self.ceiling, self.floor, 1.0)?;
        check_range("adaptive.memory_slices", self.memory_slices, 2, 10_000)
    }
}
