//! The states of a breaker, and what makes it change them.

use std::fmt;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until the open period is over.
    Open,
    /// A bounded number of probes pass; their results decide.
    HalfOpen,
    /// The probes succeeded; a growing share of calls passes and is counted.
    Recovering,
    /// Held open by hand until reset.
    Isolated,
    /// Switched off: calls pass and are not counted.
    Disabled,
    /// Dry run: calls pass and are counted; openings are only reported.
    ObserveOnly,
}

impl State {
    /// The name used in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
            State::Recovering => "recovering",
            State::Isolated => "isolated",
            State::Disabled => "disabled",
            State::ObserveOnly => "observe_only",
        }
    }

    /// The figure for dashboards: 0 calls pass, 1 calls are refused, 2 some calls pass.
    #[must_use]
    pub const fn as_gauge(self) -> u8 {
        match self {
            State::Closed | State::Disabled | State::ObserveOnly => 0,
            State::Open | State::Isolated => 1,
            State::HalfOpen | State::Recovering => 2,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What made a breaker change its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Too many failures one after the other.
    ConsecutiveFailures,
    /// Too large a share of failures in the window.
    FailureRate,
    /// Too large a share of slow calls in the window.
    SlowCallRate,
    /// The open period is over, probing starts.
    OpenPeriodOver,
    /// The probes succeeded.
    ProbesSucceeded,
    /// The probes failed.
    ProbesFailed,
    /// The probes did not settle in time.
    ProbesGaveUp,
    /// The gradual ramp is complete.
    RampComplete,
    /// Somebody asked for it.
    ByHand,
}

impl Cause {
    /// All causes, in the order of their codes.
    const ALL: [Cause; 9] = [
        Cause::ConsecutiveFailures,
        Cause::FailureRate,
        Cause::SlowCallRate,
        Cause::OpenPeriodOver,
        Cause::ProbesSucceeded,
        Cause::ProbesFailed,
        Cause::ProbesGaveUp,
        Cause::RampComplete,
        Cause::ByHand,
    ];

    pub(crate) fn code(self) -> u64 {
        self as u64
    }

    /// The cause with this code, the last one for an unknown code.
    pub(crate) fn from_code(code: u64) -> Self {
        Cause::ALL[(code as usize).min(Cause::ALL.len() - 1)]
    }

    /// A name from a closed set, fit for a metrics label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::ConsecutiveFailures => "consecutive_failures",
            Cause::FailureRate => "failure_rate",
            Cause::SlowCallRate => "slow_call_rate",
            Cause::OpenPeriodOver => "open_period_over",
            Cause::ProbesSucceeded => "probes_succeeded",
            Cause::ProbesFailed => "probes_failed",
            Cause::ProbesGaveUp => "probes_gave_up",
            Cause::RampComplete => "ramp_complete",
            Cause::ByHand => "by_hand",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_comes_back_from_its_code() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_code(cause.code()), cause);
        }
    }
}
