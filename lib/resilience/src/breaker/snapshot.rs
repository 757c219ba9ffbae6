//! The figures of a breaker at one moment.

use super::state::{Cause, State};
use std::sync::Arc;
use std::time::Duration;

/// What a breaker shows of itself: for lists, dashboards and tests.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerSnapshot {
    /// The breaker's name.
    pub name: Arc<str>,
    /// Its state. An open breaker whose open period is over is still open until the next call.
    pub state: State,
    /// Rises by one with each transition.
    pub generation: u64,
    /// The share of failures in the window, 0 to 1. While open or probing: the rate it opened at.
    pub error_rate: f64,
    /// The share of slow calls in the window, 0 to 1.
    pub slow_rate: f64,
    /// Calls in the window.
    pub calls: u64,
    /// Failures in a row.
    pub consecutive_failures: u64,
    /// The failure rate that opens it now, learned or configured; `None` when the rule is off.
    pub failure_rate_threshold: Option<f64>,
    /// Calls refused since it was built.
    pub rejected: u64,
    /// Calls that would have been refused while it only observed.
    pub would_reject: u64,
    /// Transitions since it was built.
    pub transitions: u64,
    /// Openings since it was last closed.
    pub opens_in_a_row: u32,
    /// How long ago the state last changed.
    pub since_change: Duration,
    /// Why it opened; `None` unless open.
    pub opened_by: Option<Cause>,
    /// How long until the next probe is admitted; `None` unless open.
    pub next_probe: Option<Duration>,
}
