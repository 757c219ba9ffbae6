//! One check: what is asked, how important the answer is, and how long it may take.

use super::Health;
use mainstay_resilience::{ConfigError, Criticality};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Characters of a check's output that are kept; the rest of a long error is cut.
const OUTPUT_CHARS_MAX: usize = 500;
/// Figures of one observation that are kept.
const FIGURES_MAX: usize = 16;
/// Bytes of a check's name: it becomes a metric label.
const NAME_BYTES_MAX: usize = 64;

/// What kind of thing a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentKind {
    /// A part of this process, such as a search method or a worker.
    Component,
    /// A database or other store; its pool figures belong into the observation.
    Datastore,
    /// A cache; its memory belongs into the observation.
    Cache,
    /// Something reached over HTTP.
    Http,
    /// The machine: disk, memory, file handles.
    System,
}

impl ComponentKind {
    /// The `componentType` of the health+json draft, which knows three.
    pub(super) const fn component_type(self) -> &'static str {
        match self {
            ComponentKind::Component | ComponentKind::Http => "component",
            ComponentKind::Datastore | ComponentKind::Cache => "datastore",
            ComponentKind::System => "system",
        }
    }
}

/// A figure that a check read off, such as the connections in use of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured, for example `connections_in_use`.
    pub name: String,
    /// How much.
    pub value: f64,
    /// In which unit, for example `connections`, `bytes`, `ms`.
    pub unit: String,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    pub(super) health: Health,
    pub(super) output: String,
    pub(super) figures: Vec<Figure>,
}

impl Observation {
    /// It works.
    #[must_use]
    pub fn healthy() -> Self {
        Observation { health: Health::Healthy, output: String::new(), figures: Vec::new() }
    }

    /// It works, but `why`.
    #[must_use]
    pub fn degraded(why: impl fmt::Display) -> Self {
        Observation::with(Health::Degraded, why)
    }

    /// It does not work, because `why`.
    #[must_use]
    pub fn unhealthy(why: impl fmt::Display) -> Self {
        Observation::with(Health::Unhealthy, why)
    }

    /// It cannot be told, because `why`.
    #[must_use]
    pub fn unknown(why: impl fmt::Display) -> Self {
        Observation::with(Health::Unknown, why)
    }

    /// Healthy when there is no error, else unhealthy with the error's text.
    pub fn of<T, E: fmt::Display>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Observation::healthy(),
            Err(error) => Observation::unhealthy(error),
        }
    }

    /// The same with one more figure; of more than 16 the rest is dropped.
    #[must_use]
    pub fn figure(mut self, name: &str, value: f64, unit: &str) -> Self {
        if self.figures.len() < FIGURES_MAX {
            self.figures.push(Figure { name: name.to_owned(), value, unit: unit.to_owned() });
        }
        self
    }

    /// Outputs come from error messages of dependencies, which may quote connection strings.
    fn with(health: Health, why: impl fmt::Display) -> Self {
        let output = crate::redact::redact(&why.to_string());
        let output = match output.char_indices().nth(OUTPUT_CHARS_MAX) {
            Some((cut, _)) => format!("{}…", &output[..cut]),
            None => output,
        };
        Observation { health, output, figures: Vec::new() }
    }
}

pub(super) type CheckFn = dyn Fn() -> Observation + Send + Sync;

/// A check: a name, a kind, a weight, bounds in time, and what to do.
#[derive(Clone)]
pub struct Check {
    pub(super) name: String,
    pub(super) kind: ComponentKind,
    pub(super) criticality: Criticality,
    pub(super) timeout: Duration,
    pub(super) every: Duration,
    pub(super) affects: Vec<String>,
    pub(super) run: Arc<CheckFn>,
}

impl Check {
    /// A check that degrades, with a timeout of 5 s, asked again when its answer is 10 s old.
    ///
    /// `run` may block; it must not need the thread it is on to stay free.
    pub fn new(
        name: impl Into<String>,
        kind: ComponentKind,
        run: impl Fn() -> Observation + Send + Sync + 'static,
    ) -> Self {
        Check {
            name: name.into(),
            kind,
            criticality: Criticality::Degrades,
            timeout: Duration::from_secs(5),
            every: Duration::from_secs(10),
            affects: Vec::new(),
            run: Arc::new(run),
        }
    }

    /// What its failure means for the whole.
    #[must_use]
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = criticality;
        self
    }

    /// How long an answer may take, 1 ms to 60 s (default 5 s); afterwards the check is unknown.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How old an answer may become before it is asked again, 100 ms to 1 h (default 10 s). An
    /// answer three times as old, plus the timeout, counts as unknown.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Which endpoints suffer when it fails, for the report.
    #[must_use]
    pub fn affects(mut self, endpoints: &[&str]) -> Self {
        self.affects = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        self
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let name_fits = !self.name.is_empty()
            && self.name.len() <= NAME_BYTES_MAX
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if !name_fits {
            let allowed = "1 to 64 of the letters a to z, digits, '-', '_', '.' and '/'";
            return Err(ConfigError::new("check.name", format!("{:?}", self.name), allowed));
        }
        let within = |field: &str, value: Duration, low: Duration, high: Duration| {
            if value >= low && value <= high {
                return Ok(());
            }
            let show = mainstay_resilience::human_duration::format;
            let allowed = format!("{} to {}", show(low), show(high));
            Err(ConfigError::new(format!("check.{}.{field}", self.name), show(value), allowed))
        };
        within("timeout", self.timeout, Duration::from_millis(1), Duration::from_secs(60))?;
        within("every", self.every, Duration::from_millis(100), Duration::from_secs(3_600))
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("criticality", &self.criticality)
            .field("timeout", &self.timeout)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}
