//! All checks of a process, and what they say together.

use super::Health;
use super::check::{Check, Observation};
use super::gate::Gate;
use super::report::{CheckEntry, HealthReport};
use super::worker::{Asked, Finished};
use crate::wall_clock::{WallClock, rfc3339};
use mainstay_resilience::{Clock, ConfigError, Criticality, Tick};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Checks that a process may have; each may hold one thread. 64: a dozen dependencies and four
/// methods for each of a dozen collections.
pub const CHECKS_MAX: usize = 64;

/// Why a check was not registered.
#[derive(Debug)]
#[non_exhaustive]
pub enum HealthError {
    /// One of its settings is out of range.
    Config(ConfigError),
    /// There is one of that name.
    Duplicate {
        /// The name.
        name: String,
    },
    /// There are as many as there may be.
    Full {
        /// The name.
        name: String,
    },
}

impl fmt::Display for HealthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthError::Config(error) => write!(f, "{error}"),
            HealthError::Duplicate { name } => {
                write!(f, "check {name} is registered already; remove it first or rename this one")
            }
            HealthError::Full { name } => {
                write!(f, "check {name} is one too many; a process has at most {CHECKS_MAX}")
            }
        }
    }
}

impl std::error::Error for HealthError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HealthError::Config(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for HealthError {
    fn from(error: ConfigError) -> Self {
        HealthError::Config(error)
    }
}

/// What the report says about the process itself.
#[derive(Clone, Debug, Default)]
pub struct ServiceInfo {
    /// The version of the interface, for example `1`.
    pub version: String,
    /// The version of the program.
    pub release_id: String,
    /// Which process this is, for example its host and port.
    pub service_id: String,
    /// What this process is.
    pub description: String,
}

struct Registered {
    checks: RwLock<Vec<Arc<Asked>>>,
    gate: Gate,
    clock: Clock,
    wall: WallClock,
    info: ServiceInfo,
}

impl Drop for Registered {
    fn drop(&mut self) {
        for asked in self.checks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            asked.stop();
        }
    }
}

/// All checks of a process. Clones share them; with the last one their threads end.
#[derive(Clone)]
pub struct HealthRegistry(Arc<Registered>);

impl HealthRegistry {
    /// An empty one behind `gate`.
    #[must_use]
    pub fn new(clock: Clock, wall: WallClock, gate: Gate, info: ServiceInfo) -> Self {
        let checks = RwLock::default();
        HealthRegistry(Arc::new(Registered { checks, gate, clock, wall, info }))
    }

    /// The gate, for steps of the start and for draining.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// Adds a check; it is first asked by the next [`tick`](Self::tick) or report.
    ///
    /// # Errors
    /// A setting out of range, a name that is taken, or more than [`CHECKS_MAX`] checks.
    pub fn register(&self, check: Check) -> Result<(), HealthError> {
        check.validate()?;
        let mut checks = self.0.checks.write().unwrap_or_else(PoisonError::into_inner);
        let name = check.name.clone();
        if checks.iter().any(|asked| asked.check.name == name) {
            return Err(HealthError::Duplicate { name });
        }
        if checks.len() >= CHECKS_MAX {
            return Err(HealthError::Full { name });
        }
        checks.push(Asked::new(check, self.0.clock.clone(), self.0.wall.clone()));
        Ok(())
    }

    /// Removes a check; false when there is none of that name. A hung thread of it ends with its
    /// run.
    pub fn remove(&self, name: &str) -> bool {
        let mut checks = self.0.checks.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = checks.iter().position(|asked| asked.check.name == name) else {
            return false;
        };
        checks.remove(at).stop();
        true
    }

    /// One round: asks every check whose answer is too old, without waiting, and counts what is
    /// known of the critical ones for readiness. Call it at a fixed
    /// rate, every second or so, with a [`Ticker`](crate::ticker::Ticker).
    pub fn tick(&self) {
        let now = self.0.clock.now();
        let checks = self.checks();
        for asked in checks.iter().filter(|asked| asked.is_due(now)) {
            asked.request();
        }
        let critical = checks.iter().filter(|a| a.check.criticality == Criticality::Critical);
        // One that has no answer yet fails no round before its timeout is over.
        let answered = critical.filter(|asked| !asked.is_first_awaited(now));
        let found: Vec<(&str, Health)> = answered
            .map(|asked| (asked.check.name.as_str(), asked.current(now).0.health))
            .collect();
        self.0.gate.round(found);
    }

    /// What is known now. Waits for nothing; answers that are too old are asked for in passing.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        let now = self.0.clock.now();
        let checks = self.checks();
        let report = self.assemble(&checks, now);
        for asked in checks.iter().filter(|asked| asked.is_due(now)) {
            asked.request();
        }
        report
    }

    /// Asks every check now, all at once, and waits for the answers, at most as long as the longest
    /// timeout. Checks that are being asked already are not asked a second time.
    #[must_use]
    pub fn report_fresh(&self) -> HealthReport {
        self.report_within(Duration::MAX)
    }

    /// The same within `patience`: of a check that has not answered by then, what is known of it.
    #[must_use]
    pub fn report_within(&self, patience: Duration) -> HealthReport {
        let asked_at = self.0.clock.now();
        let checks = self.checks();
        let before: Vec<u64> = checks.iter().map(|asked| asked.runs()).collect();
        for asked in &checks {
            asked.request();
        }
        for (asked, runs) in checks.iter().zip(before) {
            asked.wait_beyond(runs, asked_at, patience);
        }
        self.assemble(&checks, self.0.clock.now())
    }

    /// Whether every check of this name that exists is healthy, and why not.
    #[must_use]
    pub fn state_of(&self, name: &str) -> Option<(Health, String)> {
        let now = self.0.clock.now();
        let checks = self.checks();
        let asked = checks.iter().find(|asked| asked.check.name == name)?;
        let (observation, _) = asked.current(now);
        Some((observation.health, observation.output))
    }

    fn checks(&self) -> Vec<Arc<Asked>> {
        self.0.checks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn assemble(&self, checks: &[Arc<Asked>], now: Tick) -> HealthReport {
        let readiness = self.0.gate.readiness();
        let mut notes = readiness.reasons;
        let mut state = Health::Healthy;
        let mut entries = BTreeMap::new();
        for asked in checks {
            let (observation, last) = asked.current(now);
            state = state.worse(weighed(asked.check.criticality, observation.health));
            if observation.health != Health::Healthy {
                let (name, health) = (&asked.check.name, observation.health.as_str());
                notes.push(format!("{name} is {health}: {}", observation.output));
            }
            add_entries(&mut entries, &asked.check, &observation, last.as_ref());
        }
        let ServiceInfo { version, release_id, service_id, description } = self.0.info.clone();
        HealthReport {
            status: state.into(),
            state,
            ready: readiness.ready,
            version,
            release_id,
            service_id,
            description,
            notes,
            checks: entries,
        }
    }
}

/// What a check's state means for the whole.
fn weighed(criticality: Criticality, health: Health) -> Health {
    match (criticality, health) {
        (Criticality::Informative, _) => Health::Healthy,
        (Criticality::Degrades, Health::Unhealthy | Health::Unknown) => Health::Degraded,
        (_, health) => health,
    }
}

fn add_entries(
    entries: &mut BTreeMap<String, Vec<CheckEntry>>,
    check: &Check,
    found: &Observation,
    last: Option<&Finished>,
) {
    let healthy = found.health == Health::Healthy;
    let response_ms = last.map(|last| last.took.as_secs_f64() * 1e3);
    let entry = |value: Option<f64>, unit: &str| CheckEntry {
        component_id: check.name.clone(),
        component_type: check.kind.component_type().to_owned(),
        status: found.health.into(),
        state: found.health,
        criticality: check.criticality,
        observed_value: value,
        observed_unit: value.map(|_| unit.to_owned()),
        time: last.map(|last| rfc3339(last.unix_ms)),
        affected_endpoints: if healthy { Vec::new() } else { check.affects.clone() },
        output: found.output.clone(),
    };
    entries.insert(format!("{}:responseTime", check.name), vec![entry(response_ms, "ms")]);
    for figure in &found.figures {
        let key = format!("{}:{}", check.name, figure.name);
        entries.entry(key).or_default().push(entry(Some(figure.value), &figure.unit));
    }
}
