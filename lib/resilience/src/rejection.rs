//! A call that a policy did not let through: who refused it, why, with which figures, until when.

use crate::breaker_state::Cause;
use crate::human_duration;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The kind of policy that acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PolicyKind {
    /// A [circuit breaker](crate::CircuitBreaker).
    CircuitBreaker,
    /// A retry or its budget.
    Retry,
    /// A timeout or a deadline.
    Timeout,
    /// A rate limiter.
    RateLimiter,
    /// A bulkhead.
    Bulkhead,
    /// An adaptive concurrency limit.
    AdaptiveLimit,
    /// A client-side throttle.
    Throttle,
    /// A bounded queue with workers.
    Queue,
    /// A hedge.
    Hedge,
    /// A fallback.
    Fallback,
    /// An injected fault.
    Fault,
}

impl PolicyKind {
    /// The name used in configuration, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            PolicyKind::CircuitBreaker => "circuit_breaker",
            PolicyKind::Retry => "retry",
            PolicyKind::Timeout => "timeout",
            PolicyKind::RateLimiter => "rate_limiter",
            PolicyKind::Bulkhead => "bulkhead",
            PolicyKind::AdaptiveLimit => "adaptive_limit",
            PolicyKind::Throttle => "throttle",
            PolicyKind::Queue => "queue",
            PolicyKind::Hedge => "hedge",
            PolicyKind::Fallback => "fallback",
            PolicyKind::Fault => "fault",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call was refused, with the figures behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// The breaker is open.
    Open {
        /// What opened it.
        cause: Cause,
        /// The share of failures in its window when it opened, in percent.
        failed_percent: u32,
    },
    /// The breaker probes, and all its probes are under way or judged.
    ProbesTaken {
        /// How many calls it admits while it probes.
        permitted: u32,
    },
    /// The breaker recovers and admits only a share of the calls.
    Recovering {
        /// The share admitted now, in percent.
        admitted_percent: u32,
    },
    /// The breaker is held open by hand until it is reset.
    Isolated,
    /// The rate limit is used up.
    RateExceeded {
        /// Calls (or cost) allowed per period.
        limit: u64,
        /// The period.
        period: Duration,
    },
    /// The portion leased from a shared quota is spent; the next refill decides.
    LeaseSpent {
        /// What is leased at a time.
        portion: u64,
    },
    /// The cost of this one call is above what the limiter can ever hold.
    CostAboveLimit {
        /// The cost asked for.
        cost: u64,
        /// The most one call may cost.
        limit: u64,
    },
    /// As many calls as allowed are under way, and nobody may wait.
    Full {
        /// Calls allowed at a time.
        limit: u64,
        /// Calls already waiting.
        waiting: u64,
    },
    /// The call waited for its turn for too long.
    WaitedTooLong {
        /// How long it waited.
        waited: Duration,
    },
    /// The call has a lower priority than what is admitted under the present load.
    PriorityTooLow {
        /// The lowest level admitted now; levels count from 0 (least important).
        admitted_from: u32,
    },
    /// The caller has more than its share of the slots under the present load.
    ShareExceeded {
        /// Slots the caller may hold now.
        share: u64,
    },
    /// The client throttles itself because the dependency refuses.
    Throttled {
        /// The probability of refusal, in percent.
        refused_percent: u32,
    },
    /// The deadline passed before the call could start.
    DeadlinePassed,
    /// More keys than the limiter may hold, all of them in use.
    TooManyKeys {
        /// The bound on keys.
        limit: u64,
    },
    /// The policy was closed for shutdown.
    Closed,
    /// The handler of a queued job panicked.
    Panicked,
    /// A fault was injected.
    Injected,
}

impl Reason {
    /// A name from a closed set, fit for a metrics label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Reason::Open { .. } => "open",
            Reason::ProbesTaken { .. } => "probes_taken",
            Reason::Recovering { .. } => "recovering",
            Reason::Isolated => "isolated",
            Reason::RateExceeded { .. } => "rate_exceeded",
            Reason::LeaseSpent { .. } => "lease_spent",
            Reason::CostAboveLimit { .. } => "cost_above_limit",
            Reason::Full { .. } => "full",
            Reason::WaitedTooLong { .. } => "waited_too_long",
            Reason::PriorityTooLow { .. } => "priority_too_low",
            Reason::ShareExceeded { .. } => "share_exceeded",
            Reason::Throttled { .. } => "throttled",
            Reason::DeadlinePassed => "deadline_passed",
            Reason::TooManyKeys { .. } => "too_many_keys",
            Reason::Closed => "closed",
            Reason::Panicked => "panicked",
            Reason::Injected => "injected",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Open { cause: Cause::ByHand, .. } => f.write_str("it was opened by hand"),
            Reason::Open { cause, failed_percent } => {
                write!(f, "it is open ({cause}, {failed_percent} % of its calls had failed)")
            }
            Reason::ProbesTaken { permitted } => {
                write!(f, "all of its {permitted} probes are taken")
            }
            Reason::Recovering { admitted_percent } => {
                write!(f, "it recovers and admits {admitted_percent} % of the calls")
            }
            Reason::Isolated => f.write_str("it is isolated until it is reset"),
            Reason::RateExceeded { limit, period } => {
                write!(f, "more than {limit} per {}", human_duration::format(*period))
            }
            Reason::LeaseSpent { portion } => {
                write!(f, "its lease of up to {portion} is spent until the next refill")
            }
            Reason::CostAboveLimit { cost, limit } => {
                write!(f, "a cost of {cost} can never fit into {limit}")
            }
            Reason::Full { limit, waiting } => {
                write!(f, "all {limit} slots are taken and {waiting} calls wait")
            }
            Reason::WaitedTooLong { waited } => {
                write!(f, "no slot within {} ms", waited.as_millis())
            }
            Reason::PriorityTooLow { admitted_from } => {
                write!(f, "under this load only priority {admitted_from} and above is admitted")
            }
            Reason::ShareExceeded { share } => {
                write!(f, "under this load a caller may hold {share} slots")
            }
            Reason::Throttled { refused_percent } => {
                write!(f, "it refuses {refused_percent} % of the calls by itself")
            }
            Reason::DeadlinePassed => f.write_str("the deadline has passed"),
            Reason::TooManyKeys { limit } => {
                write!(f, "all {limit} keys are in use")
            }
            Reason::Closed => f.write_str("it is shut down"),
            Reason::Panicked => f.write_str("the handler of the job panicked"),
            Reason::Injected => f.write_str("a fault was injected"),
        }
    }
}

/// A call that a policy refused. Nothing was sent; it is safe to send the call elsewhere.
///
/// Creating one does not allocate.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Rejection {
    name: Arc<str>,
    policy: PolicyKind,
    reason: Reason,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// A refusal by the policy `name`.
    pub fn new(
        name: Arc<str>,
        policy: PolicyKind,
        reason: Reason,
        retry_after: Option<Duration>,
    ) -> Self {
        Rejection { name, policy, reason, retry_after }
    }

    /// The name of the policy that refused.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of the policy that refused.
    #[must_use]
    pub fn policy(&self) -> PolicyKind {
        self.policy
    }

    /// Why it refused.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// When another call may be admitted, counted from the refusal; `None` when nobody knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// One sentence for an operator: which policy, its figures, when to try again.
    #[must_use]
    pub fn explain(&self) -> String {
        match self.retry_after {
            Some(wait) => format!(
                "{self}; the next call may be admitted in {}",
                human_duration::format(Duration::from_millis(
                    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
                ))
            ),
            None => format!("{self}; it does not say when to try again"),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} refused the call: {}", self.policy, self.name, self.reason)
    }
}

impl std::error::Error for Rejection {}
