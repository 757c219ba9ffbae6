//! Mean times with their bounds.

use serde::{Deserialize, Serialize};

/// The risk that the lower bound is wrong: one in twenty.
const RISK: f64 = 0.05;

/// What incidents say about reliability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Hours observed, all of them.
    pub observed_hours: f64,
    /// Hours of trouble among them.
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
    /// Mean time between failures in hours; nothing without a failure, because then there is only
    /// the bound.
    pub mtbf_hours: Option<f64>,
    /// With 95 % confidence the mean is at least this.
    pub mtbf_lower_hours: f64,
}

impl Reliability {
    pub(super) fn new(observed_ms: u64, open: usize, mut lasted_ms: Vec<u64>) -> Self {
        lasted_ms.sort_unstable();
        let incidents = lasted_ms.len() + open;
        let trouble_ms = lasted_ms.iter().fold(0u64, |sum, ms| sum.saturating_add(*ms));
        let hours = |ms: u64| ms as f64 / 3_600_000.0;
        let minutes = |ms: u64| ms as f64 / 60_000.0;
        // Only time in which it could fail counts: not the time in which it had.
        let exposed = hours(observed_ms.saturating_sub(trouble_ms));
        let rank = |share: f64| {
            let rank = (share * lasted_ms.len() as f64).ceil() as usize;
            lasted_ms.get(rank.saturating_sub(1)).copied().map(minutes)
        };
        let mean = || minutes(trouble_ms) / lasted_ms.len() as f64;
        Reliability {
            observed_hours: hours(observed_ms),
            trouble_hours: hours(trouble_ms),
            incidents,
            open,
            mttr_minutes: (!lasted_ms.is_empty()).then(mean),
            mttr_median_minutes: rank(0.5),
            mttr_p95_minutes: rank(0.95),
            mtbf_hours: (incidents > 0).then(|| exposed / incidents as f64),
            mtbf_lower_hours: exposed / mtbf_lower_factor(incidents),
        }
    }
}

/// By what the observed time is divided for a lower bound on the mean time between failures that
/// holds with 95 % confidence, after this many failures: the mean of the Poisson distribution that
/// shows so few failures or fewer once in twenty times (half the 95th percentile of chi-square with
/// `2 × failures + 2` degrees of freedom; NIST/SEMATECH e-Handbook, section 8.4.5.1).
#[must_use]
pub fn mtbf_lower_factor(failures: usize) -> f64 {
    // The factor lies above the number of failures and not further than six deviations.
    let failures = failures.min(1_000_000);
    let (mut low, mut high) =
        (failures as f64, failures as f64 + 6.0 * (failures as f64 + 3.0).sqrt());
    // Sixty halvings of so short an interval are beyond what a float can tell apart.
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_most(failures, middle) > RISK { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// How likely a Poisson distribution of this mean shows `count` or less. Summed from the largest
/// term down, in logarithms, so that nothing under- or overflows.
fn at_most(count: usize, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 1.0;
    }
    // The term of `count` itself; each one before it is the next times its number over the mean.
    let log_term = count as f64 * mean.ln() - mean - ln_factorial(count);
    let (mut term, mut sum) = (1.0, 0.0);
    for k in (0..=count).rev() {
        sum += term;
        term *= k as f64 / mean;
        if term < sum * 1e-17 {
            break;
        }
    }
    (log_term + f64::ln(sum)).exp()
}

fn ln_factorial(n: usize) -> f64 {
    if n < 128 {
        return (2..=n).map(|k| (k as f64).ln()).sum();
    }
    // Stirling's series; from 128 on its error is below 1e-12.
    let n = n as f64;
    n * n.ln() - n + 0.5 * (2.0 * std::f64::consts::PI * n).ln() + 1.0 / (12.0 * n)
        - 1.0 / (360.0 * n * n * n)
}
