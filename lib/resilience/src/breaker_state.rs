//! The states of a breaker.

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
