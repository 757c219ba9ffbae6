//! Figures for the `metrics` façade.
//!
//! Which there are stands at [`MetricsObserver`].

use crate::breaker::BreakerSnapshot;
use crate::event::{Event, Observer};
use crate::registry::Pipelines;
use crate::retry::RetryStats;
use metrics::{counter, gauge, histogram};

/// Turns events into metrics:
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `resilience_breaker_state` | gauge: 0 closed, 1 open, 2 half-open | `name` |
/// | `resilience_breaker_error_rate` | gauge, 0 to 1, at the last transition or export | `name` |
/// | `resilience_breaker_slow_rate` | gauge, 0 to 1, at the last export | `name` |
/// | `resilience_breaker_calls` | gauge, calls in the window at the last export | `name` |
/// | `resilience_retry_budget` | gauge, tokens left at the last export | `name` |
/// | `resilience_rate_available` | gauge at the last export | `name` |
/// | `resilience_bulkhead_in_use`, `resilience_bulkhead_waiting` | gauges at the last export | `name` |
/// | `resilience_breaker_transitions_total` | counter | `name`, `to`, `cause` |
/// | `resilience_breaker_would_open_total` | counter, a breaker that only observes would have opened | `name`, `cause` |
/// | `resilience_breaker_would_reject_total` | counter at the last export, calls that it would have refused | `name` |
/// | `resilience_rejected_total` | counter | `name`, `policy`, `reason` |
/// | `resilience_retries_total` | counter | `name`, `kind` |
/// | `resilience_retry_attempts` | histogram, calls with a retry or a failure | `name` |
/// | `resilience_retry_calls_total` | counter at the last export, all calls by their attempts, `10` for 10 and more | `name`, `attempts` |
/// | `resilience_retry_success_total` | counter, successes after a retry | `name` |
/// | `resilience_timeouts_total` | counter | `name` |
/// | `resilience_hedges_total` | counter | `name` |
/// | `resilience_hedge_wins_total` | counter, hedges that beat the first attempt | `name` |
/// | `resilience_fallbacks_total` | counter | `name` |
/// | `resilience_limit` | gauge of an adaptive limit, when it moves and at the last export | `name` |
///
/// What changes without an event is set by [`Pipelines::export_metrics`], [`export_breaker`] and
/// [`export_retry`], which whoever answers the scrape, or a timer, calls. Among it is the distribution
/// of calls by attempts: a call that succeeds at once emits nothing, so that it costs nothing, and is
/// counted all the same. The share that a retry saved is `resilience_retry_success_total` over the sum
/// of `resilience_retry_calls_total`.
///
/// Labels come from closed sets, and names from the configuration, so their number is bounded.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricsObserver;

impl Observer for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        let own = |name: &str| name.to_owned();
        match *event {
            Event::BreakerChanged { name, to, cause, error_rate, .. } => {
                // One gauge per breaker, not one per state: no old state is left at 1.
                gauge!("resilience_breaker_state", "name" => own(name)).set(to.as_gauge());
                gauge!("resilience_breaker_error_rate", "name" => own(name)).set(error_rate);
                counter!(
                    "resilience_breaker_transitions_total",
                    "name" => own(name), "to" => to.as_str(), "cause" => cause.as_str()
                )
                .increment(1);
            }
            Event::BreakerWouldOpen { name, cause, .. } => counter!(
                "resilience_breaker_would_open_total",
                "name" => own(name), "cause" => cause.as_str()
            )
            .increment(1),
            Event::Rejected(rejection) => counter!(
                "resilience_rejected_total",
                "name" => own(rejection.name()),
                "policy" => rejection.policy().as_str(),
                "reason" => rejection.reason().as_str()
            )
            .increment(1),
            Event::RetryScheduled { name, kind, .. } => {
                let kind = kind.map_or("result", |kind| kind.as_str());
                counter!("resilience_retries_total", "name" => own(name), "kind" => kind)
                    .increment(1);
            }
            Event::RetryFinished { name, attempts, succeeded } => {
                histogram!("resilience_retry_attempts", "name" => own(name)).record(attempts);
                if succeeded && attempts > 1 {
                    counter!("resilience_retry_success_total", "name" => own(name)).increment(1);
                }
            }
            Event::TimedOut { name, .. } => {
                counter!("resilience_timeouts_total", "name" => own(name)).increment(1);
            }
            Event::HedgeStarted { name, .. } => {
                counter!("resilience_hedges_total", "name" => own(name)).increment(1);
            }
            Event::HedgeFinished { name, winner, .. } if winner > 1 => {
                counter!("resilience_hedge_wins_total", "name" => own(name)).increment(1);
            }
            Event::FellBack { name } => {
                counter!("resilience_fallbacks_total", "name" => own(name)).increment(1);
            }
            Event::LimitChanged { name, to, .. } => {
                gauge!("resilience_limit", "name" => own(name)).set(to as f64);
            }
            _ => {}
        }
    }
}

/// Sets the gauges of one breaker as it stands: also a closed one whose calls fail now and then, of
/// which no event tells; and the counter of calls that it would have refused while it only observed.
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, export_breaker};
///
/// let breaker = CircuitBreaker::search_method("bm25");
/// export_breaker(&breaker.snapshot());
/// ```
pub fn export_breaker(snapshot: &BreakerSnapshot) {
    let name = || snapshot.name.to_string();
    gauge!("resilience_breaker_state", "name" => name()).set(snapshot.state.as_gauge());
    gauge!("resilience_breaker_error_rate", "name" => name()).set(snapshot.error_rate);
    gauge!("resilience_breaker_slow_rate", "name" => name()).set(snapshot.slow_rate);
    gauge!("resilience_breaker_calls", "name" => name()).set(snapshot.calls as f64);
    counter!("resilience_breaker_would_reject_total", "name" => name())
        .absolute(snapshot.would_reject);
}

/// Sets the counters of the calls through one retry by the attempts they needed, also of those that
/// succeeded at once.
///
/// ```
/// use mainstay_resilience::{Retry, export_retry};
///
/// let retry = Retry::builder("catalogue").build()?;
/// export_retry(retry.name(), &retry.stats());
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
pub fn export_retry(name: &str, stats: &RetryStats) {
    for (calls, attempts) in stats.calls_by_attempts.iter().zip(ATTEMPTS) {
        let name = name.to_owned();
        counter!("resilience_retry_calls_total", "name" => name, "attempts" => attempts)
            .absolute(*calls);
    }
}

/// The labels of [`RetryStats::calls_by_attempts`].
const ATTEMPTS: [&str; 10] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];

impl<S: Clone> Pipelines<S> {
    /// Sets the gauges of every breaker, of endpoints in use and declared, and of the endpoints'
    /// retries, budgets, rate limits, bulkheads and adaptive limits, as they stand. Costs a snapshot each; call it when the
    /// figures are asked for.
    pub fn export_metrics(&self) {
        self.breakers().iter().for_each(|breaker| export_breaker(&breaker.snapshot()));
        for endpoint in self.list() {
            let name = || endpoint.breaker.name.to_string();
            gauge!("resilience_retry_budget", "name" => name()).set(endpoint.budget);
            export_retry(&endpoint.breaker.name, &endpoint.retry);
            if let Some((limit, ..)) = endpoint.adaptive_limit {
                gauge!("resilience_limit", "name" => name()).set(limit as f64);
            }
            if let Some((available, _)) = endpoint.rate {
                gauge!("resilience_rate_available", "name" => name()).set(available as f64);
            }
            if let Some((in_use, waiting, _)) = endpoint.bulkhead {
                gauge!("resilience_bulkhead_in_use", "name" => name()).set(in_use as f64);
                gauge!("resilience_bulkhead_waiting", "name" => name()).set(waiting as f64);
            }
        }
    }
}
