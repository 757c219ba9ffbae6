//! Figures for the `metrics` façade.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `resilience_breaker_state` | gauge: 0 closed, 1 open, 2 half-open | `name` |
//! | `resilience_breaker_error_rate` | gauge, 0 to 1, at the last transition or export | `name` |
//! | `resilience_breaker_slow_rate` | gauge, 0 to 1, at the last export | `name` |
//! | `resilience_breaker_calls` | gauge, calls in the window at the last export | `name` |
//! | `resilience_retry_budget` | gauge, tokens left at the last export | `name` |
//! | `resilience_rate_available` | gauge at the last export | `name` |
//! | `resilience_bulkhead_in_use`, `resilience_bulkhead_waiting` | gauges at the last export | `name` |
//! | `resilience_breaker_transitions_total` | counter | `name`, `to`, `cause` |
//! | `resilience_rejected_total` | counter | `name`, `policy`, `reason` |
//! | `resilience_retries_total` | counter | `name`, `kind` |
//! | `resilience_retry_attempts` | histogram, calls with a retry or a failure | `name` |
//! | `resilience_retry_success_total` | counter, successes after a retry | `name` |
//! | `resilience_timeouts_total` | counter | `name` |
//! | `resilience_hedges_total` | counter | `name` |
//! | `resilience_hedge_wins_total` | counter, hedges that beat the first attempt | `name` |
//! | `resilience_fallbacks_total` | counter | `name` |
//! | `resilience_limit` | gauge of an adaptive limit | `name` |
//!
//! Gauges of what changes without an event are set by [`Pipelines::export_metrics`] and
//! [`export_breaker`], which whoever answers the scrape, or a timer, calls.
//!
//! Labels come from closed sets, and names from the configuration, so their number is bounded.

use crate::breaker::BreakerSnapshot;
use crate::event::{Event, Observer};
use crate::registry::Pipelines;
use metrics::{counter, gauge, histogram};

/// Turns events into metrics.
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
/// which no event tells.
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
}

impl<S: Clone> Pipelines<S> {
    /// Sets the gauges of every breaker, of endpoints in use and declared, and of the endpoints'
    /// budgets, rate limits and bulkheads, as they stand. Costs a snapshot each; call it when the
    /// figures are asked for.
    pub fn export_metrics(&self) {
        self.breakers().iter().for_each(|breaker| export_breaker(&breaker.snapshot()));
        for endpoint in self.list() {
            let name = || endpoint.breaker.name.to_string();
            gauge!("resilience_retry_budget", "name" => name()).set(endpoint.budget);
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
