//! Figures for the `metrics` façade.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `resilience_breaker_state` | gauge: 0 closed, 1 open, 2 half-open | `name` |
//! | `resilience_breaker_error_rate` | gauge, 0 to 1, at the last transition | `name` |
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
//! Labels come from closed sets, and names from the configuration, so their number is bounded.

use crate::event::{Event, Observer};
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
