//! Events for the `tracing` façade: transitions as warnings, refusals and retries as debug.

use crate::breaker::State;
use crate::event::{Event, Observer};
use tracing::{debug, info, warn};

/// Where the events come from, as filters name it.
const TARGET: &str = "mainstay_resilience";

/// Turns events into `tracing` events with the target `mainstay_resilience`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingObserver;

impl Observer for TracingObserver {
    fn on_event(&self, event: &Event<'_>) {
        match *event {
            Event::BreakerChanged { name, from, to: to @ State::Closed, cause, .. } => {
                info!(target: TARGET, name, %from, %to, %cause, "breaker state");
            }
            Event::BreakerChanged { name, from, to, cause, error_rate, .. } => {
                warn!(target: TARGET, name, %from, %to, %cause, error_rate, "breaker state");
            }
            Event::BreakerWouldOpen { name, cause, error_rate } => {
                warn!(target: TARGET, name, %cause, error_rate, "breaker dry run");
            }
            Event::Rejected(rejection) => {
                let policy = rejection.policy().as_str();
                debug!(target: TARGET, name = rejection.name(), policy, reason = %rejection.reason(), "rejection");
            }
            Event::RetryScheduled { name, attempt, kind, delay } => {
                let kind = kind.map_or("result", |kind| kind.as_str());
                debug!(target: TARGET, name, attempt, kind, delay_ms = delay.as_millis() as u64, "retry");
            }
            Event::RetryFinished { name, attempts, succeeded } => {
                debug!(target: TARGET, name, attempts, succeeded, "retry end");
            }
            Event::TimedOut { name, limit } => {
                debug!(target: TARGET, name, limit_ms = limit.as_millis() as u64, "timeout");
            }
            Event::HedgeStarted { name, waited } => {
                debug!(target: TARGET, name, waited_ms = waited.as_millis() as u64, "hedge");
            }
            Event::HedgeFinished { name, winner, attempts } => {
                debug!(target: TARGET, name, winner, attempts, "hedge end");
            }
            Event::FellBack { name } => info!(target: TARGET, name, "fallback"),
            Event::LimitChanged { name, from, to } => {
                debug!(target: TARGET, name, from, to, "limit")
            }
            Event::Reconfigured { name, policy } => {
                info!(target: TARGET, name, policy = policy.as_str(), "reconfiguration");
            }
        }
    }
}
