//! What a process depends on, declared once: name, weight, breaker, figures and fault point.
//!
//! Whoever declares a dependency gives it to [`Pipelines`](crate::Pipelines); whoever runs the process
//! lists all of them from there and derives health, metrics, active probes and manual control.

use crate::breaker::CircuitBreaker;
use crate::call_figures::CallFigures;
use crate::fault_point::FaultPoint;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What the failure of a dependency means for the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Criticality {
    /// Without it nothing can be answered: the whole is unhealthy and not ready.
    Critical,
    /// Without it answers are worse: the whole is degraded and stays ready.
    #[default]
    Degrades,
    /// It is shown and never counted.
    Informative,
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DependencyKind {
    /// A part of this process, such as a search method or a worker.
    Component,
    /// A database or another store.
    Datastore,
    /// A cache, or what limits are shared through.
    Cache,
    /// Something reached over HTTP, such as a provider of embeddings.
    #[default]
    Http,
}

impl DependencyKind {
    /// The name used in lists and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DependencyKind::Component => "component",
            DependencyKind::Datastore => "datastore",
            DependencyKind::Cache => "cache",
            DependencyKind::Http => "http",
        }
    }
}

impl Criticality {
    /// The name used in lists and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Criticality::Critical => "critical",
            Criticality::Degrades => "degrades",
            Criticality::Informative => "informative",
        }
    }
}

/// A dependency. Clones share it.
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, Criticality, Dependency, DependencyKind, Pipelines};
///
/// let breaker = CircuitBreaker::search_method("docs/bm25");
/// let declared = Dependency::new(breaker, DependencyKind::Component, Criticality::Degrades);
/// let pipelines = Pipelines::new(Default::default())?;
/// pipelines.declare(&declared);
/// assert_eq!(pipelines.dependencies()[0].name(), "docs/bm25");
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Dependency(Arc<Declared>);

/// Finds out whether a dependency works: a cheap real call through what protects it, which bounds its
/// own time. The error says what is wrong, without secrets.
pub type ActiveProbe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

struct Declared {
    kind: DependencyKind,
    criticality: Criticality,
    breaker: CircuitBreaker,
    figures: CallFigures,
    faults: FaultPoint,
    probe: Mutex<Option<ActiveProbe>>,
}

impl Dependency {
    /// Declares what `breaker` protects, under the breaker's name and on its clock.
    #[must_use]
    pub fn new(breaker: CircuitBreaker, kind: DependencyKind, criticality: Criticality) -> Self {
        let figures = CallFigures::on_clock(breaker.clock().clone());
        let faults = FaultPoint::on_clock(breaker.clock().clone());
        let probe = Mutex::default();
        Dependency(Arc::new(Declared { kind, criticality, breaker, figures, faults, probe }))
    }

    /// Its name: the breaker's.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.breaker.name()
    }

    /// What kind of thing it is.
    #[must_use]
    pub fn kind(&self) -> DependencyKind {
        self.0.kind
    }

    /// What its failure means for the whole.
    #[must_use]
    pub fn criticality(&self) -> Criticality {
        self.0.criticality
    }

    /// What protects it.
    #[must_use]
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.0.breaker
    }

    /// How its calls went. Who makes the calls records them.
    #[must_use]
    pub fn figures(&self) -> &CallFigures {
        &self.0.figures
    }

    /// Where tests and drills make it fail. Who makes the calls asks it first.
    #[must_use]
    pub fn faults(&self) -> &FaultPoint {
        &self.0.faults
    }

    /// Says how it is probed while nobody calls it; what was said before is forgotten. `probe` may
    /// block, and is to hold whatever makes the call weakly: whoever lists dependencies holds this one.
    pub fn probe_by(&self, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        *self.0.probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(probe));
    }

    /// How it is probed, if anybody has said. Who runs the process decides when.
    #[must_use]
    pub fn probe(&self) -> Option<ActiveProbe> {
        self.0.probe.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependency")
            .field("name", &self.name())
            .field("kind", &self.0.kind)
            .field("criticality", &self.0.criticality)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_handle_knows_how_the_dependency_is_probed_as_said_last() {
        let breaker = CircuitBreaker::search_method("docs/bm25");
        let declared = Dependency::new(breaker, DependencyKind::Component, Criticality::Degrades);
        let listed = declared.clone();
        assert!(listed.probe().is_none());
        declared.probe_by(|| Ok(()));
        declared.probe_by(|| Err("no answer".to_string()));
        assert_eq!(listed.probe().unwrap()(), Err("no answer".to_string()));
    }
}
