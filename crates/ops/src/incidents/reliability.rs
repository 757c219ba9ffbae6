//! Mean times with their bounds.

use super::poisson::{mtbf_lower_factor, mtbf_upper_factor};
use serde::{Deserialize, Serialize};

/// What incidents say about reliability.
///
/// Bounds hold with 95 % confidence each, for failures that come independently and repairs whose
/// lengths are distributed exponentially.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Hours observed, all of them.
    pub observed_hours: f64,
    /// Hours of trouble among them, that which lasts included.
    pub trouble_hours: f64,
    /// Failures, the open one included: incidents that overlap are one.
    pub incidents: usize,
    /// Incidents that last.
    pub open: usize,
    /// Mean time to repair in minutes, over closed incidents; nothing without one.
    pub mttr_minutes: Option<f64>,
    /// The median of the same.
    pub mttr_median_minutes: Option<f64>,
    /// The 95th percentile of the same.
    pub mttr_p95_minutes: Option<f64>,
    /// The mean time to repair is at least this; 0 without an incident. One that lasts counts with
    /// the time that it has lasted.
    pub mttr_lower_minutes: f64,
    /// It is at most this; nothing before the first incident was closed.
    pub mttr_upper_minutes: Option<f64>,
    /// Mean time between failures in hours; nothing without a failure, because then there is only
    /// the bound.
    pub mtbf_hours: Option<f64>,
    /// The mean time between failures is at least this.
    pub mtbf_lower_hours: f64,
    /// It is at most this; nothing without a failure.
    pub mtbf_upper_hours: Option<f64>,
}

impl Reliability {
    /// From the lengths of what is over and of what lasts.
    pub(super) fn new(observed_ms: u64, mut closed_ms: Vec<u64>, open_ms: &[u64]) -> Self {
        closed_ms.sort_unstable();
        let (closed, open) = (closed_ms.len(), open_ms.len());
        let incidents = closed + open;
        let sum = |lengths: &[u64]| lengths.iter().fold(0u64, |sum, ms| sum.saturating_add(*ms));
        let repaired_ms = sum(&closed_ms);
        let trouble_ms = repaired_ms.saturating_add(sum(open_ms));
        let hours = |ms: u64| ms as f64 / 3_600_000.0;
        let minutes = |ms: u64| ms as f64 / 60_000.0;
        // Only time in which it could fail counts: not the time in which it had.
        let exposed = hours(observed_ms.saturating_sub(trouble_ms));
        let rank = |share: f64| {
            let rank = (share * closed as f64).ceil() as usize;
            closed_ms.get(rank.saturating_sub(1)).copied().map(minutes)
        };
        // A repair that lasts has told of its length only that it is longer: as one more that ends
        // right now, it makes the bound lower than the truth and never higher.
        let ended = if open > 0 { Some(closed) } else { closed.checked_sub(1) };
        let lower = ended.map_or(0.0, |ended| minutes(trouble_ms) / mtbf_lower_factor(ended));
        Reliability {
            observed_hours: hours(observed_ms),
            trouble_hours: hours(trouble_ms),
            incidents,
            open,
            mttr_minutes: (closed > 0).then(|| minutes(repaired_ms) / closed as f64),
            mttr_median_minutes: rank(0.5),
            mttr_p95_minutes: rank(0.95),
            mttr_lower_minutes: lower,
            mttr_upper_minutes: mtbf_upper_factor(closed).map(|by| minutes(trouble_ms) / by),
            mtbf_hours: (incidents > 0).then(|| exposed / incidents as f64),
            mtbf_lower_hours: exposed / mtbf_lower_factor(incidents),
            mtbf_upper_hours: mtbf_upper_factor(incidents).map(|by| exposed / by),
        }
    }
}
