//! What is shown of the objectives.

use super::alert::Severity;
use super::objective::{Indicator, Source};
use crate::incidents::MeanTimeReport;
use serde::{Deserialize, Serialize};

/// All objectives, those with the least budget first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SloReport {
    /// When it was made, RFC 3339.
    pub time: String,
    /// Since when there are figures, RFC 3339: a ratio says no more than its length.
    pub since: String,
    /// Time in which the process was dead and should not have been, in seconds, since then.
    pub dead_seconds: u64,
    /// Pieces of state that could not be read and whose events are missing.
    pub damaged_pieces: u64,
    /// Events that no save holds yet because saving fails; 0 when it works.
    pub unsaved_seconds: u64,
    /// The objectives.
    pub objectives: Vec<ObjectiveReport>,
    /// The mean times that are promised, with a verdict for each.
    #[serde(default)]
    pub mean_times: Vec<MeanTimeReport>,
}

/// One objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveReport {
    /// Its name.
    pub name: String,
    /// What it promises.
    pub description: String,
    /// What is good.
    pub indicator: Indicator,
    /// Where events come from.
    pub source: Source,
    /// The share of good events that is promised.
    pub target: f64,
    /// Over how many days.
    pub period_days: u32,
    /// Good events in the period.
    pub good: u64,
    /// Bad events in the period.
    pub bad: u64,
    /// The share of good events; nothing without events.
    pub ratio: Option<f64>,
    /// What is left of the error budget, 1 (all) to 0 and below; nothing without events.
    pub budget_remaining: Option<f64>,
    /// Hours until it is used up, at the rate of the second pair's long window (6 h in 30 days).
    pub exhausted_in_hours: Option<f64>,
    /// The most severe alert that fires.
    pub alert: Option<Severity>,
    /// The pairs of windows.
    pub windows: Vec<WindowReport>,
}

/// One pair of windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowReport {
    /// What it asks for when it fires.
    pub severity: Severity,
    /// The long window in seconds.
    pub long_seconds: u64,
    /// The short window in seconds.
    pub short_seconds: u64,
    /// How many times faster than sustainable is too fast.
    pub factor: f64,
    /// How fast it burns over the long window; nothing without events.
    pub burn_long: Option<f64>,
    /// The same over the short window.
    pub burn_short: Option<f64>,
    /// Whether both are too fast.
    pub firing: bool,
}
