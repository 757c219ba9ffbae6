//! Orders of policies that make no sense, and what to write instead.

use crate::clock::Clock;
use crate::human_duration;
use crate::rejection::PolicyKind;
use crate::strategy::{Part, Trait};
use std::fmt;
use std::time::Duration;

/// A chain that was refused, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderError {
    problem: String,
    instead: &'static str,
}

impl OrderError {
    fn new(problem: String, instead: &'static str) -> Self {
        OrderError { problem, instead }
    }

    /// What to write instead.
    #[must_use]
    pub fn instead(&self) -> &str {
        self.instead
    }
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.instead)
    }
}

impl std::error::Error for OrderError {}

/// One rule about two policies, the first standing outside the second.
struct Rule {
    outer: fn(&Part) -> bool,
    inner: fn(&Part) -> bool,
    because: &'static str,
    instead: &'static str,
}

fn is(kind: PolicyKind) -> impl Fn(&Part) -> bool {
    move |part| part.kind == kind
}

const RULES: [Rule; 10] = [
    Rule {
        outer: |part| part.kind == PolicyKind::Retry,
        inner: |part| part.kind == PolicyKind::Fallback,
        because: "which would never see an error to retry",
        instead: "put the fallback before the retry",
    },
    Rule {
        outer: |part| part.kind == PolicyKind::CircuitBreaker,
        inner: |part| part.kind == PolicyKind::Fallback,
        because: "which would count the fallback's answers as successes of the dependency",
        instead: "put the fallback before the breaker",
    },
    Rule {
        outer: |part| part.kind == PolicyKind::Throttle,
        inner: |part| part.kind == PolicyKind::Fallback,
        because: "which would count the fallback's answers as accepted by the dependency",
        instead: "put the fallback before the throttle",
    },
    Rule {
        outer: |part| part.kind == PolicyKind::AdaptiveLimit,
        inner: |part| part.kind == PolicyKind::Fallback,
        because: "which would learn its limit from the fallback's answers",
        instead: "put the fallback before the adaptive limit",
    },
    Rule {
        outer: |part| part.kind == PolicyKind::Hedge,
        inner: |part| part.kind == PolicyKind::Fallback,
        because: "which would take a fallback's answer for the winner",
        instead: "put the fallback before the hedge",
    },
    Rule {
        outer: |part| part.kind == PolicyKind::Retry,
        inner: |part| part.kind == PolicyKind::Retry,
        because: "so that attempts multiply",
        instead: "use one retry with more attempts",
    },
    Rule {
        outer: |part| part.kind == PolicyKind::Hedge,
        inner: |part| part.kind == PolicyKind::Retry,
        because: "so that each hedge retries by itself and the load multiplies",
        instead: "put the retry before the hedge",
    },
    Rule {
        outer: |part| part.kind == PolicyKind::Hedge,
        inner: |part| part.kind == PolicyKind::Hedge,
        because: "so that hedges multiply",
        instead: "use one hedge with more attempts",
    },
    Rule {
        outer: |part| part.trait_of == Trait::PerAttempt,
        inner: |part| part.kind == PolicyKind::Retry,
        because: "so that it limits all attempts together",
        instead: "put it after the retry, or use Timeout::total",
    },
    Rule {
        outer: |part| part.kind == PolicyKind::Retry,
        inner: |part| part.trait_of == Trait::Total,
        because: "so that it limits one attempt only",
        instead: "put it before the retry, or use Timeout::per_attempt",
    },
];

/// Refuses the first thing that makes no sense in `parts`, outermost first.
pub(super) fn check(parts: &[Part], clock: &Clock) -> Result<(), OrderError> {
    for (i, inner) in parts.iter().enumerate() {
        for outer in &parts[..i] {
            check_pair(outer, inner)?;
        }
        check_drops(parts, i)?;
        if inner.clock.as_ref().is_some_and(|own| !own.is_same(clock)) {
            return Err(OrderError::new(
                format!("{} {} runs on another clock than the pipeline", inner.kind, inner.name),
                "give the same clock to the policy and to PipelineBuilder::clock",
            ));
        }
    }
    Ok(())
}

fn check_pair(outer: &Part, inner: &Part) -> Result<(), OrderError> {
    let broken = RULES.iter().find(|rule| (rule.outer)(outer) && (rule.inner)(inner));
    if let Some(rule) = broken {
        let problem = format!(
            "{} {} stands inside {} {}, {}",
            inner.kind, inner.name, outer.kind, outer.name, rule.because
        );
        return Err(OrderError::new(problem, rule.instead));
    }
    if inner.identity.is_some() && inner.identity == outer.identity {
        return Err(OrderError::new(
            format!("{} {} stands in the chain twice", inner.kind, inner.name),
            "leave one of the two out: each call would be counted twice",
        ));
    }
    Ok(())
}

/// A policy that learns from results and does not count a dropped call, under a timeout that drops it,
/// never hears of a hang: one that counts none, or only those that took longer than the timeout lets
/// them.
fn check_drops(parts: &[Part], learner: usize) -> Result<(), OrderError> {
    let part = &parts[learner];
    let timeout = is(PolicyKind::Timeout);
    if parts[learner + 1..].iter().any(&timeout) {
        return Ok(());
    }
    let outside = parts[..learner].iter().filter(|part| timeout(part));
    let Some(outside) = outside.min_by_key(|part| part.limit.unwrap_or(Duration::MAX)) else {
        return Ok(());
    };
    let (counts, advice) = match (part.trait_of, part.limit, outside.limit) {
        (Trait::BlindToDrops, ..) => ("does not count dropped calls".to_owned(), 0),
        (Trait::CountsDrops, Some(after), Some(limit)) if after >= limit => {
            let [after, limit] = [after, limit].map(human_duration::format);
            let counts = format!("counts dropped calls only after {after}, while that drops them");
            (format!("{counts} after {limit},"), 1)
        }
        _ => return Ok(()),
    };
    let (instead, misses) = match part.kind {
        PolicyKind::AdaptiveLimit => (LIMIT_INSTEAD[advice], "fall for"),
        _ => (BREAKER_INSTEAD[advice], "open on"),
    };
    Err(OrderError::new(
        format!(
            "{} {} stands outside {} {}, which {counts} and would never {misses} a dependency \
             that hangs",
            outside.kind, outside.name, part.kind, part.name
        ),
        instead,
    ))
}

/// What to write where a breaker counts no drops, and where it counts them too late.
const BREAKER_INSTEAD: [&str; 2] = [
    "put a Timeout::per_attempt after the breaker, or set its on_drop rule to TimeoutAfter",
    "put a Timeout::per_attempt after the breaker, or set TimeoutAfter below the timeout \
     outside, at nine tenths of it",
];

/// The same for an adaptive limit.
const LIMIT_INSTEAD: [&str; 2] = [
    "put a Timeout::per_attempt after the limit, or set its on_drop rule to TimeoutAfter",
    "put a Timeout::per_attempt after the limit, or set TimeoutAfter below the timeout outside, at \
     nine tenths of it",
];
