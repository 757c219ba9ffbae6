//! A call that a policy did not let through: who refused it, why, with which figures, until when.

use crate::breaker_state::Cause;
use crate::clock::nanos;
use crate::human_duration;
use crate::name::{Label, Name};
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
    /// All kinds, in the order of their codes.
    const ALL: [PolicyKind; 11] = [
        PolicyKind::CircuitBreaker,
        PolicyKind::Retry,
        PolicyKind::Timeout,
        PolicyKind::RateLimiter,
        PolicyKind::Bulkhead,
        PolicyKind::AdaptiveLimit,
        PolicyKind::Throttle,
        PolicyKind::Queue,
        PolicyKind::Hedge,
        PolicyKind::Fallback,
        PolicyKind::Fault,
    ];

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
    /// A new key, while all keys that the part of the limiter it falls into may hold are in use.
    TooManyKeys {
        /// The bound on keys in all.
        limit: u64,
        /// The bound on keys of one part; other parts may have room. As `limit` where there is one.
        part: u64,
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
            Reason::TooManyKeys { limit, part } if limit == part => {
                write!(f, "all {limit} keys that it may hold are in use")
            }
            Reason::TooManyKeys { limit, part } => write!(
                f,
                "the part that the new key falls into is full, all {part} of its keys are in use \
                 (it holds {limit} keys in all parts)"
            ),
            Reason::Closed => f.write_str("it is shut down"),
            Reason::Panicked => f.write_str("the handler of the job panicked"),
            Reason::Injected => f.write_str("a fault was injected"),
        }
    }
}

/// A call that a policy refused. Nothing was sent; it is safe to send the call elsewhere.
///
/// Creating one neither allocates nor formats: it holds figures, which become text when shown.
#[derive(Clone, PartialEq)]
#[must_use]
pub struct Rejection {
    name: Label,
    /// What [`Reason`] tells, in two words that need no tag of their own.
    figures: [u64; 2],
    /// Nanoseconds; [`UNKNOWN`] when nobody knows.
    retry_after: u64,
    /// The reason's code below the policy's. Whole words throughout: on its way out of a chain a
    /// refusal is moved as such, and smaller pieces would be read back before they are stored.
    kinds: u64,
}

/// The name under which a chain refuses or stops a call at the deadline of its context.
pub(crate) const DEADLINE: &str = "deadline";

/// No time to try again is known.
const UNKNOWN: u64 = u64::MAX;

/// A [`Reason`] without its figures.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Code {
    Open,
    ProbesTaken,
    Recovering,
    Isolated,
    RateExceeded,
    LeaseSpent,
    CostAboveLimit,
    Full,
    WaitedTooLong,
    PriorityTooLow,
    ShareExceeded,
    Throttled,
    DeadlinePassed,
    TooManyKeys,
    Closed,
    Panicked,
    Injected,
}

#[inline]
fn kinds(policy: PolicyKind, code: Code) -> u64 {
    (policy as u64) << 8 | code as u64
}

impl Code {
    /// All codes, in order.
    const ALL: [Code; 17] = [
        Code::Open,
        Code::ProbesTaken,
        Code::Recovering,
        Code::Isolated,
        Code::RateExceeded,
        Code::LeaseSpent,
        Code::CostAboveLimit,
        Code::Full,
        Code::WaitedTooLong,
        Code::PriorityTooLow,
        Code::ShareExceeded,
        Code::Throttled,
        Code::DeadlinePassed,
        Code::TooManyKeys,
        Code::Closed,
        Code::Panicked,
        Code::Injected,
    ];
}

impl Reason {
    #[inline]
    fn taken_apart(self) -> (Code, [u64; 2]) {
        match self {
            Reason::Open { cause, failed_percent } => {
                (Code::Open, [cause.code(), failed_percent.into()])
            }
            Reason::ProbesTaken { permitted } => (Code::ProbesTaken, [permitted.into(), 0]),
            Reason::Recovering { admitted_percent } => {
                (Code::Recovering, [admitted_percent.into(), 0])
            }
            Reason::Isolated => (Code::Isolated, [0; 2]),
            Reason::RateExceeded { limit, period } => (Code::RateExceeded, [limit, nanos(period)]),
            Reason::LeaseSpent { portion } => (Code::LeaseSpent, [portion, 0]),
            Reason::CostAboveLimit { cost, limit } => (Code::CostAboveLimit, [cost, limit]),
            Reason::Full { limit, waiting } => (Code::Full, [limit, waiting]),
            Reason::WaitedTooLong { waited } => (Code::WaitedTooLong, [nanos(waited), 0]),
            Reason::PriorityTooLow { admitted_from } => {
                (Code::PriorityTooLow, [admitted_from.into(), 0])
            }
            Reason::ShareExceeded { share } => (Code::ShareExceeded, [share, 0]),
            Reason::Throttled { refused_percent } => (Code::Throttled, [refused_percent.into(), 0]),
            Reason::DeadlinePassed => (Code::DeadlinePassed, [0; 2]),
            Reason::TooManyKeys { limit, part } => (Code::TooManyKeys, [limit, part]),
            Reason::Closed => (Code::Closed, [0; 2]),
            Reason::Panicked => (Code::Panicked, [0; 2]),
            Reason::Injected => (Code::Injected, [0; 2]),
        }
    }

    /// What decides when a call is admitted again, where that is no matter of time or where nobody
    /// can know the time.
    fn instead_of_a_time(self) -> &'static str {
        match self {
            Reason::Open { .. } | Reason::RateExceeded { .. } => {
                "it does not say when to try again"
            }
            Reason::ProbesTaken { .. } => "the next call is judged anew when a probe has ended",
            Reason::Recovering { .. } => {
                "the share grows by itself, and the next call may be in it"
            }
            Reason::Isolated => "no time is set for that",
            Reason::LeaseSpent { .. } => {
                "when that is, only the task that refills it knows, and what it gets only the store"
            }
            Reason::CostAboveLimit { .. } => "it is never admitted, only a smaller one is",
            Reason::Full { .. } | Reason::WaitedTooLong { .. } => {
                "a slot is free when a call under way ends, which no policy can foresee"
            }
            Reason::PriorityTooLow { .. } => {
                "less important calls are admitted when the load falls, which no policy can foresee"
            }
            Reason::ShareExceeded { .. } => {
                "the caller's next call may be admitted when one of its own ends"
            }
            Reason::Throttled { .. } => {
                "each call is drawn anew, so the next may be admitted at once"
            }
            Reason::DeadlinePassed => "another call with time left may be admitted at once",
            Reason::TooManyKeys { .. } => {
                "a new key may be admitted when one of them has become idle"
            }
            Reason::Closed => "no call is admitted any more",
            Reason::Panicked => "the next job may be handled at once",
            Reason::Injected => "calls are admitted when the fault is taken back",
        }
    }

    fn put_together(code: Code, [first, second]: [u64; 2]) -> Self {
        match code {
            Code::Open => {
                Reason::Open { cause: Cause::from_code(first), failed_percent: second as u32 }
            }
            Code::ProbesTaken => Reason::ProbesTaken { permitted: first as u32 },
            Code::Recovering => Reason::Recovering { admitted_percent: first as u32 },
            Code::Isolated => Reason::Isolated,
            Code::RateExceeded => {
                Reason::RateExceeded { limit: first, period: Duration::from_nanos(second) }
            }
            Code::LeaseSpent => Reason::LeaseSpent { portion: first },
            Code::CostAboveLimit => Reason::CostAboveLimit { cost: first, limit: second },
            Code::Full => Reason::Full { limit: first, waiting: second },
            Code::WaitedTooLong => Reason::WaitedTooLong { waited: Duration::from_nanos(first) },
            Code::PriorityTooLow => Reason::PriorityTooLow { admitted_from: first as u32 },
            Code::ShareExceeded => Reason::ShareExceeded { share: first },
            Code::Throttled => Reason::Throttled { refused_percent: first as u32 },
            Code::DeadlinePassed => Reason::DeadlinePassed,
            Code::TooManyKeys => Reason::TooManyKeys { limit: first, part: second },
            Code::Closed => Reason::Closed,
            Code::Panicked => Reason::Panicked,
            Code::Injected => Reason::Injected,
        }
    }
}

impl Rejection {
    /// A refusal by the policy `name`. Durations are kept in nanoseconds, up to 584 years.
    pub fn new(
        name: Arc<str>,
        policy: PolicyKind,
        reason: Reason,
        retry_after: Option<Duration>,
    ) -> Self {
        Rejection::labelled(name.into(), policy, reason, retry_after)
    }

    /// A refusal by a policy of this crate.
    #[inline]
    pub(crate) fn by(
        name: &Name,
        policy: PolicyKind,
        reason: Reason,
        retry_after: Option<Duration>,
    ) -> Self {
        Rejection::labelled(name.label(), policy, reason, retry_after)
    }

    /// A refusal by a rate limit; nanoseconds, which nobody has to turn into anything yet.
    #[inline]
    pub(crate) fn rate_exceeded(name: &Name, limit: u64, period: u64, wait: u64) -> Self {
        Rejection {
            name: name.label(),
            figures: [limit, period],
            retry_after: wait.min(UNKNOWN - 1),
            kinds: kinds(PolicyKind::RateLimiter, Code::RateExceeded),
        }
    }

    /// A refusal of a call whose deadline has passed, by a chain itself.
    #[cold]
    pub(crate) fn deadline_passed() -> Self {
        let name = Label::short(DEADLINE);
        Rejection::labelled(name, PolicyKind::Timeout, Reason::DeadlinePassed, None)
    }

    #[inline]
    fn labelled(
        name: Label,
        policy: PolicyKind,
        reason: Reason,
        retry_after: Option<Duration>,
    ) -> Self {
        let (code, figures) = reason.taken_apart();
        let retry_after = retry_after.map_or(UNKNOWN, |wait| nanos(wait).min(UNKNOWN - 1));
        Rejection { name, figures, retry_after, kinds: kinds(policy, code) }
    }

    /// The name of the policy that refused.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The kind of the policy that refused.
    #[must_use]
    pub fn policy(&self) -> PolicyKind {
        // Always in range; the last kind stands for what cannot be.
        PolicyKind::ALL[((self.kinds >> 8) as usize).min(PolicyKind::ALL.len() - 1)]
    }

    /// Why it refused.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let code = Code::ALL[((self.kinds & 0xff) as usize).min(Code::ALL.len() - 1)];
        Reason::put_together(code, self.figures)
    }

    /// When another call may be admitted, counted from the refusal; `None` when nobody knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        (self.retry_after != UNKNOWN).then(|| Duration::from_nanos(self.retry_after))
    }

    /// One sentence for an operator: which policy, its figures, when to try again; where no time is
    /// known, what decides it instead.
    #[must_use]
    pub fn explain(&self) -> String {
        match self.retry_after() {
            Some(wait) => format!(
                "{self}; the next call may be admitted in {}",
                human_duration::format(Duration::from_millis(
                    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
                ))
            ),
            None => format!("{self}; {}", self.reason().instead_of_a_time()),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} refused the call: {}", self.policy(), self.name(), self.reason())
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("name", &self.name)
            .field("policy", &self.policy())
            .field("reason", &self.reason())
            .field("retry_after", &self.retry_after())
            .finish()
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_every_reason_with_the_figures_it_was_given() {
        let (period, cause) = (Duration::new(86_400, 1), Cause::SlowCallRate);
        for reason in [
            Reason::Open { cause, failed_percent: 73 },
            Reason::ProbesTaken { permitted: 4 },
            Reason::Recovering { admitted_percent: 30 },
            Reason::Isolated,
            Reason::RateExceeded { limit: 10, period },
            Reason::LeaseSpent { portion: 50 },
            Reason::CostAboveLimit { cost: 11, limit: 10 },
            Reason::Full { limit: 8, waiting: 3 },
            Reason::WaitedTooLong { waited: period },
            Reason::PriorityTooLow { admitted_from: 2 },
            Reason::ShareExceeded { share: 5 },
            Reason::Throttled { refused_percent: 40 },
            Reason::DeadlinePassed,
            Reason::TooManyKeys { limit: 32, part: 2 },
            Reason::Closed,
            Reason::Panicked,
            Reason::Injected,
        ] {
            let name: Arc<str> = "a name of more than twenty-two bytes".into();
            let rejection = Rejection::new(name, PolicyKind::Queue, reason, Some(period));
            assert_eq!((rejection.reason(), rejection.retry_after()), (reason, Some(period)));
            assert_eq!(rejection.name(), "a name of more than twenty-two bytes");
        }
        let silent = Rejection::new("q".into(), PolicyKind::Queue, Reason::Closed, None);
        assert_eq!(silent.retry_after(), None);
    }

    #[test]
    fn a_refusal_that_knows_no_time_explains_what_decides_instead() {
        let cause = Cause::FailureRate;
        for (reason, said, instead) in [
            (
                Reason::Open { cause, failed_percent: 60 },
                "it is open (failure_rate, 60 % of its calls had failed)",
                "it does not say when to try again",
            ),
            (
                Reason::ProbesTaken { permitted: 4 },
                "all of its 4 probes are taken",
                "the next call is judged anew when a probe has ended",
            ),
            (
                Reason::Recovering { admitted_percent: 30 },
                "it recovers and admits 30 % of the calls",
                "the share grows by itself, and the next call may be in it",
            ),
            (Reason::Isolated, "it is isolated until it is reset", "no time is set for that"),
            (
                Reason::RateExceeded { limit: 10, period: Duration::from_secs(1) },
                "more than 10 per 1s",
                "it does not say when to try again",
            ),
            (
                Reason::LeaseSpent { portion: 50 },
                "its lease of up to 50 is spent until the next refill",
                "when that is, only the task that refills it knows, and what it gets only the store",
            ),
            (
                Reason::CostAboveLimit { cost: 11, limit: 10 },
                "a cost of 11 can never fit into 10",
                "it is never admitted, only a smaller one is",
            ),
            (
                Reason::Full { limit: 8, waiting: 3 },
                "all 8 slots are taken and 3 calls wait",
                "a slot is free when a call under way ends, which no policy can foresee",
            ),
            (
                Reason::WaitedTooLong { waited: Duration::from_millis(50) },
                "no slot within 50 ms",
                "a slot is free when a call under way ends, which no policy can foresee",
            ),
            (
                Reason::PriorityTooLow { admitted_from: 2 },
                "under this load only priority 2 and above is admitted",
                "less important calls are admitted when the load falls, which no policy can foresee",
            ),
            (
                Reason::ShareExceeded { share: 5 },
                "under this load a caller may hold 5 slots",
                "the caller's next call may be admitted when one of its own ends",
            ),
            (
                Reason::Throttled { refused_percent: 40 },
                "it refuses 40 % of the calls by itself",
                "each call is drawn anew, so the next may be admitted at once",
            ),
            (
                Reason::DeadlinePassed,
                "the deadline has passed",
                "another call with time left may be admitted at once",
            ),
            (
                Reason::TooManyKeys { limit: 32, part: 2 },
                "the part that the new key falls into is full, all 2 of its keys are in use (it \
                 holds 32 keys in all parts)",
                "a new key may be admitted when one of them has become idle",
            ),
            (Reason::Closed, "it is shut down", "no call is admitted any more"),
            (
                Reason::Panicked,
                "the handler of the job panicked",
                "the next job may be handled at once",
            ),
            (
                Reason::Injected,
                "a fault was injected",
                "calls are admitted when the fault is taken back",
            ),
        ] {
            let explain =
                |wait| Rejection::new("p".into(), PolicyKind::Fault, reason, wait).explain();
            assert_eq!(explain(None), format!("fault p refused the call: {said}; {instead}"));
            let timed = explain(Some(Duration::from_secs(3)));
            let when = "the next call may be admitted in 3s";
            assert_eq!(timed, format!("fault p refused the call: {said}; {when}"));
        }
    }

    #[test]
    fn a_refusal_tells_every_kind_of_policy() {
        for policy in PolicyKind::ALL {
            let rejection = Rejection::new("p".into(), policy, Reason::Closed, None);
            assert_eq!(rejection.policy(), policy);
        }
    }

    #[test]
    fn a_refusal_is_no_larger_than_seven_words() {
        // It is moved once per policy on the way out of a chain, and so is every result.
        assert!(size_of::<Rejection>() <= 7 * size_of::<u64>());
    }
}
