//! Objectives, as they are configured.

use crate::incidents::MeanTimes;
use mainstay_resilience::ConfigError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Objectives of a process. Each costs an addition for each request and 200 KiB for 30 days.
pub(super) const OBJECTIVES_MAX: usize = 16;

/// Where events come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What users search for.
    #[default]
    Searches,
    /// What users store and remove.
    Writes,
    /// What the process asks itself on a schedule.
    Probes,
}

/// What makes an event good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Indicator {
    /// It did not fail.
    Availability,
    /// It did not fail and took at most this long. Failures are left to availability.
    Latency {
        /// In ms, 1 to 600,000.
        threshold_ms: u64,
    },
}

/// One objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Its name: 1 to 40 lower-case letters, digits and '-'.
    pub name: String,
    /// What it promises.
    #[serde(default)]
    pub description: String,
    /// What is good.
    pub indicator: Indicator,
    /// Where events come from (default searches).
    #[serde(default)]
    pub source: Source,
    /// The share of good events, 0.5 to 0.99999 (for example 0.999).
    pub target: f64,
    /// Over how many days, 7 to 90 (default 30).
    #[serde(default = "thirty")]
    pub period_days: u32,
    /// Events that a window needs before its ratio can alert (default 10): below it, one failure
    /// of few requests is no burn rate.
    #[serde(default = "ten")]
    pub events_min: u64,
}

fn thirty() -> u32 {
    30
}

fn ten() -> u64 {
    10
}

impl Objective {
    /// The share of events that may be bad.
    #[must_use]
    pub fn budget(&self) -> f64 {
        1.0 - self.target
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 40 || !self.name.bytes().all(letter) {
            let allowed = "1 to 40 lower-case letters, digits and '-'";
            return Err(ConfigError::new("slo.name", format!("{:?}", self.name), allowed));
        }
        let at = |field: &str| format!("slo.{}.{field}", self.name);
        if !(0.5..=0.99999).contains(&self.target) {
            return Err(ConfigError::new(at("target"), self.target, "0.5 to 0.99999"));
        }
        if !(7..=90).contains(&self.period_days) {
            return Err(ConfigError::new(at("period_days"), self.period_days, "7 to 90"));
        }
        match self.indicator {
            Indicator::Latency { threshold_ms } if !(1..=600_000).contains(&threshold_ms) => {
                Err(ConfigError::new(at("threshold_ms"), threshold_ms, "1 to 600000"))
            }
            _ => Ok(()),
        }
    }
}

/// All objectives, and how they are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SloConfig {
    /// Up to 16 objectives.
    pub objectives: Vec<Objective>,
    /// Time between two saves, in ms, 1,000 to 600,000 (default 10,000). What happened since the
    /// last one is counted as dead time after a crash.
    pub save_every_ms: u64,
    /// How long an objective must be quiet until its incident is closed, in ms, 0 to 86,400,000
    /// (default 300,000).
    pub incident_quiet_ms: u64,
    /// What is promised of the times between failures and to repair.
    pub mean_times: MeanTimes,
}

impl Default for SloConfig {
    /// 99.9 % of searches answered in 30 days (43.2 minutes), 99 % of them within a second, 99.9 % of
    /// writes and of the process's own probes; 720 hours between failures, 15 minutes to repair.
    fn default() -> Self {
        let objective = |name: &str, description: &str, indicator, source, target| Objective {
            name: name.to_owned(),
            description: description.to_owned(),
            indicator,
            source,
            target,
            period_days: thirty(),
            events_min: ten(),
        };
        let (searches, writes, probes) = (Source::Searches, Source::Writes, Source::Probes);
        let latency = Indicator::Latency { threshold_ms: 1_000 };
        let answered = Indicator::Availability;
        SloConfig {
            objectives: vec![
                objective("availability", "searches are answered", answered, searches, 0.999),
                objective("latency", "searches take at most 1000 ms", latency, searches, 0.99),
                objective("writes", "writes are taken", answered, writes, 0.999),
                objective("probes", "the process's own searches work", answered, probes, 0.999),
            ],
            save_every_ms: 10_000,
            incident_quiet_ms: 300_000,
            mean_times: MeanTimes::default(),
        }
    }
}

impl SloConfig {
    /// # Errors
    /// The first setting out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.objectives.len() > OBJECTIVES_MAX {
            let allowed = format!("up to {OBJECTIVES_MAX}");
            return Err(ConfigError::new("slo.objectives", self.objectives.len(), allowed));
        }
        let mut names = BTreeSet::new();
        for objective in &self.objectives {
            objective.validate()?;
            if !names.insert(&objective.name) {
                return Err(ConfigError::new("slo.name", &objective.name, "each name once"));
            }
        }
        if !(1_000..=600_000).contains(&self.save_every_ms) {
            let allowed = "1000 to 600000";
            return Err(ConfigError::new("slo.save_every_ms", self.save_every_ms, allowed));
        }
        if self.incident_quiet_ms > 86_400_000 {
            let allowed = "0 to 86400000";
            return Err(ConfigError::new("slo.incident_quiet_ms", self.incident_quiet_ms, allowed));
        }
        self.mean_times.validate()
    }
}
