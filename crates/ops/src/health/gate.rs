//! Startup and readiness: whether work may be sent here.
//!
//! Readiness moves only after several rounds that agree, so that one slow answer takes no node out
//! of service; draining closes it at once.

use super::Health;
use crate::lock::lock;
use mainstay_resilience::ConfigError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How many rounds must agree before readiness changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateConfig {
    /// Rounds with a failing critical check until it is not ready, 1 to 100 (default 3).
    pub failures: u32,
    /// Rounds without one until it is ready again, 1 to 100 (default 2).
    pub successes: u32,
}

impl Default for GateConfig {
    fn default() -> Self {
        GateConfig { failures: 3, successes: 2 }
    }
}

impl GateConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [("failures", self.failures), ("successes", self.successes)] {
            if !(1..=100).contains(&value) {
                return Err(ConfigError::new(format!("readiness.{field}"), value, "1 to 100"));
            }
        }
        Ok(())
    }
}

/// Whether the start is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Startup {
    /// True when nothing is waited for any more.
    pub started: bool,
    /// Steps that are not over.
    pub waiting_for: Vec<String>,
}

/// Whether work may be sent here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// True when work may be sent.
    pub ready: bool,
    /// Why it may not.
    pub reasons: Vec<String>,
}

#[derive(Debug)]
struct Rounds {
    config: GateConfig,
    open: bool,
    bad: u32,
    good: u32,
    failing: Vec<String>,
    waiting_for: BTreeSet<String>,
}

/// The gate in front of all work. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate {
    rounds: Arc<Mutex<Rounds>>,
    draining: Arc<AtomicBool>,
}

impl Gate {
    /// A gate that opens once every step in `waiting_for` is [done](Gate::done). Before the first
    /// [round](Gate::round) the checks are taken to be fine: what they ask may be lazy.
    ///
    /// # Errors
    /// A number of rounds out of its range.
    pub fn new(config: GateConfig, waiting_for: &[&str]) -> Result<Self, ConfigError> {
        config.validate()?;
        let waiting_for = waiting_for.iter().map(|step| (*step).to_owned()).collect();
        let rounds =
            Rounds { config, open: true, bad: 0, good: 0, failing: Vec::new(), waiting_for };
        Ok(Gate { rounds: Arc::new(Mutex::new(rounds)), draining: Arc::default() })
    }

    /// A step of the start is over.
    pub fn done(&self, step: &str) {
        lock(&self.rounds).waiting_for.remove(step);
        self.show();
    }

    /// Not ready from now on, whatever the checks say. There is no way back.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.show();
    }

    /// Whether [`drain`](Gate::drain) was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Counts one round of checks: the critical ones with what they found. A critical check that is
    /// unhealthy or unknown fails the round; a degraded one does not.
    pub fn round<'a>(&self, critical: impl IntoIterator<Item = (&'a str, Health)>) {
        let failing: Vec<String> = critical
            .into_iter()
            .filter(|(_, health)| matches!(health, Health::Unhealthy | Health::Unknown))
            .map(|(name, health)| format!("{name} is {}", health.as_str()))
            .collect();
        let mut rounds = lock(&self.rounds);
        if failing.is_empty() {
            rounds.good = rounds.good.saturating_add(1);
            rounds.bad = 0;
        } else {
            rounds.bad = rounds.bad.saturating_add(1);
            rounds.good = 0;
            rounds.failing = failing;
        }
        let was_open = rounds.open;
        if rounds.open && rounds.bad >= rounds.config.failures {
            rounds.open = false;
        } else if !rounds.open && rounds.good >= rounds.config.successes {
            rounds.open = true;
            rounds.failing.clear();
        }
        let (open, failing) = (rounds.open, rounds.failing.join(", "));
        drop(rounds);
        if open != was_open {
            tracing::warn!(ready = open, failing, "readiness changed");
        }
        self.show();
    }

    /// Whether the start is over.
    #[must_use]
    pub fn startup(&self) -> Startup {
        let waiting_for: Vec<String> = lock(&self.rounds).waiting_for.iter().cloned().collect();
        Startup { started: waiting_for.is_empty(), waiting_for }
    }

    /// Whether work may be sent here.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.is_draining() {
            reasons.push("shutting down".to_owned());
        }
        let rounds = lock(&self.rounds);
        reasons.extend(rounds.waiting_for.iter().map(|step| format!("waiting for {step}")));
        if !rounds.open {
            reasons.extend(rounds.failing.iter().cloned());
        }
        Readiness { ready: reasons.is_empty(), reasons }
    }

    fn show(&self) {
        let ready = self.readiness().ready;
        metrics::gauge!("mainstay_ready").set(f64::from(u8::from(ready)));
    }
}
