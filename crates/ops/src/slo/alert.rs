//! Burn-rate alerts over pairs of windows.

use super::objective::Objective;
use super::series::{FINE_MS, FINE_SPAN_MS, Tier};
use serde::{Deserialize, Serialize};

/// What an alert asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody looks at it within days.
    Ticket,
    /// Somebody is woken up.
    Page,
}

impl Severity {
    /// The name used in metrics and rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Ticket => "ticket",
            Severity::Page => "page",
        }
    }
}

/// Severity, share of the budget, long and short window of a period of 30 days in minutes.
const PAIRS: [(Severity, f64, u64, u64); 4] = [
    (Severity::Page, 0.02, 60, 5),
    (Severity::Page, 0.05, 360, 30),
    (Severity::Ticket, 0.10, 1_440, 120),
    (Severity::Ticket, 0.10, 4_320, 360),
];

/// One pair of windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) severity: Severity,
    pub(super) long_ms: u64,
    pub(super) short_ms: u64,
    pub(super) factor: f64,
}

/// The pairs of an objective's period.
pub(super) fn pairs(objective: &Objective) -> [Pair; 4] {
    let days = u64::from(objective.period_days);
    let period_ms = days * 86_400_000;
    PAIRS.map(|(severity, share, long_min, short_min)| {
        // Rounded to whole fine buckets; a rule in seconds must not round down to nothing.
        let scaled = |minutes: u64| (minutes * 60_000 * days / 30 / FINE_MS).max(1) * FINE_MS;
        let (long_ms, short_ms) = (scaled(long_min), scaled(short_min));
        Pair { severity, long_ms, short_ms, factor: share * period_ms as f64 / long_ms as f64 }
    })
}

/// Bad events without which nothing fires: one alone is no rate, whatever it is a share of.
pub(super) const BAD_EVENTS_MIN: u64 = 2;

/// How fast the budget burns in the two windows of a pair, and whether that is too fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Burn {
    pub(super) long: Option<f64>,
    pub(super) short: Option<f64>,
    pub(super) firing: bool,
}

pub(super) fn burn(
    objective: &Objective,
    pair: &Pair,
    now_ms: u64,
    fine: &Tier,
    coarse: &Tier,
) -> Burn {
    let counted = |window_ms: u64| {
        let tier = if window_ms <= FINE_SPAN_MS { fine } else { coarse };
        tier.sum(now_ms, window_ms)
    };
    let (long, short) = (counted(pair.long_ms), counted(pair.short_ms));
    let rate = |ratio: Option<f64>| ratio.map(|ratio| ratio / objective.budget());
    let (long_rate, short_rate) = (rate(long.error_ratio()), rate(short.error_ratio()));
    let above = |rate: Option<f64>| rate.is_some_and(|rate| rate > pair.factor);
    let enough = long.total() >= objective.events_min && long.bad >= BAD_EVENTS_MIN;
    Burn {
        long: long_rate,
        short: short_rate,
        firing: enough && above(long_rate) && above(short_rate),
    }
}
