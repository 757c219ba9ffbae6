//! What is promised of mean times, and whether it is kept.
//!
//! A promise is met or missed only when the figures show it with 95 % confidence; until then nobody
//! knows, however good the mean of a few incidents looks. It is judged anew all the time, so over
//! months the risk of a wrong verdict adds up to more than one in twenty.

use super::poisson::mtbf_lower_factor;
use super::reliability::Reliability;
use mainstay_resilience::ConfigError;
use serde::{Deserialize, Serialize};

/// The longest mean time between failures that a year without one would show: 365 days divided by
/// 3.00 (the factor of no failure), rounded down.
const MTBF_MIN_MS_MAX: u64 = 120 * 86_400_000;
/// A day: what takes longer to mend is no matter of a mean.
const MTTR_MAX_MS_MAX: u64 = 86_400_000;

/// What is promised of mean times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeanTimes {
    /// The least mean time between failures in ms, 0 to 10,368,000,000 (120 days; default 720
    /// hours); 0 promises none.
    pub mtbf_min_ms: u64,
    /// The longest mean time to repair in ms, 0 to 86,400,000 (default 15 minutes); 0 promises
    /// none.
    pub mttr_max_ms: u64,
}

impl Default for MeanTimes {
    fn default() -> Self {
        MeanTimes { mtbf_min_ms: 720 * 3_600_000, mttr_max_ms: 15 * 60_000 }
    }
}

/// Whether a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The figures show it.
    Met,
    /// The figures show that it is not.
    Missed,
    /// There are too few incidents, or too little time, to say.
    NotYetKnown,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 3] = [Verdict::Met, Verdict::Missed, Verdict::NotYetKnown];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::NotYetKnown => "not_yet_known",
        }
    }
}

/// One mean time, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanTimeReport {
    /// `mtbf` or `mttr`.
    pub name: String,
    /// What it promises.
    pub description: String,
    /// What is promised, in seconds: at least for `mtbf`, at most for `mttr`.
    pub target_seconds: u64,
    /// The mean of what was observed; nothing without an incident.
    pub estimate_seconds: Option<f64>,
    /// The mean is at least this, with 95 % confidence.
    pub lower_seconds: f64,
    /// The mean is at most this, with 95 % confidence; nothing while there is no bound.
    pub upper_seconds: Option<f64>,
    /// What follows from the bounds.
    pub verdict: Verdict,
    /// Why, with the figures.
    pub why: String,
}

impl MeanTimes {
    /// # Errors
    /// The first setting out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value, max) in [
            ("slo.mean_times.mtbf_min_ms", self.mtbf_min_ms, MTBF_MIN_MS_MAX),
            ("slo.mean_times.mttr_max_ms", self.mttr_max_ms, MTTR_MAX_MS_MAX),
        ] {
            if value > max {
                return Err(ConfigError::new(field, value, format!("0 to {max}")));
            }
        }
        Ok(())
    }

    /// Every promise with its verdict; none for what is 0.
    #[must_use]
    pub fn judge(&self, found: &Reliability) -> Vec<MeanTimeReport> {
        let promised = |ms: u64| (ms > 0).then_some(ms as f64 / 1_000.0);
        let mtbf = promised(self.mtbf_min_ms).map(|target| between_failures(target, found));
        let mttr = promised(self.mttr_max_ms).map(|target| to_repair(target, found));
        mtbf.into_iter().chain(mttr).collect()
    }
}

fn between_failures(target: f64, found: &Reliability) -> MeanTimeReport {
    let lower = found.mtbf_lower_hours * 3_600.0;
    let upper = found.mtbf_upper_hours.map(|hours| hours * 3_600.0);
    let exposed = (found.observed_hours - found.trouble_hours).max(0.0) * 3_600.0;
    let seen = format!("{} in {}", counted(found.incidents, "failure"), spoken(exposed));
    let (verdict, why) = if lower >= target {
        (Verdict::Met, format!("{seen}: the mean is at least {}", spoken(lower)))
    } else if let Some(upper) = upper.filter(|upper| *upper < target) {
        (Verdict::Missed, format!("{seen}: the mean is at most {}", spoken(upper)))
    } else {
        let more = spoken(target * mtbf_lower_factor(found.incidents) - exposed);
        let least = spoken(lower);
        let why =
            format!("{seen} shows no more than {least}; {more} more without one would show it");
        (Verdict::NotYetKnown, why)
    };
    MeanTimeReport {
        name: "mtbf".to_owned(),
        description: "mean time between failures, at least".to_owned(),
        target_seconds: target as u64,
        estimate_seconds: found.mtbf_hours.map(|hours| hours * 3_600.0),
        lower_seconds: lower,
        upper_seconds: upper,
        verdict,
        why,
    }
}

fn to_repair(target: f64, found: &Reliability) -> MeanTimeReport {
    let lower = found.mttr_lower_minutes * 60.0;
    let upper = found.mttr_upper_minutes.map(|minutes| minutes * 60.0);
    let mut seen = counted(found.incidents - found.open, "repair");
    if found.open > 0 {
        seen.push_str(&format!(" and {} that lasts", found.open));
    }
    let (verdict, why) = if lower > target {
        (Verdict::Missed, format!("{seen}: the mean is at least {}", spoken(lower)))
    } else if let Some(upper) = upper.filter(|upper| *upper <= target) {
        (Verdict::Met, format!("{seen}: the mean is at most {}", spoken(upper)))
    } else if let Some(upper) = upper {
        let (lower, upper) = (spoken(lower), spoken(upper));
        (Verdict::NotYetKnown, format!("{seen}: the mean may be anything from {lower} to {upper}"))
    } else {
        (Verdict::NotYetKnown, format!("{seen}: nothing is known before one has ended"))
    };
    MeanTimeReport {
        name: "mttr".to_owned(),
        description: "mean time to repair, at most".to_owned(),
        target_seconds: target as u64,
        estimate_seconds: found.mttr_minutes.map(|minutes| minutes * 60.0),
        lower_seconds: lower,
        upper_seconds: upper,
        verdict,
        why,
    }
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}"),
        1 => format!("1 {noun}"),
        more => format!("{more} {noun}s"),
    }
}

/// A length of time in the unit that people would use, with four digits at most.
fn spoken(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 120.0 => (s, "s"),
        s if s < 7_200.0 => (s / 60.0, "min"),
        s => (s / 3_600.0, "h"),
    };
    if value < 100.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}
