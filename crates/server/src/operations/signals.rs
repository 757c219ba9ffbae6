//! What moves the level of service, read off the parts of the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_db::{Criticality, Db, DependencyKind, Method, Pipelines};
use mainstay_ops::admission::{Admission, Group};
use mainstay_ops::health::{Health, HealthRegistry};
use mainstay_ops::levels::Signals;
use mainstay_ops::memory::MemoryGuard;
use mainstay_ops::slo::Slo;

use super::checks::{DOCUMENTS, refuses};

/// The parts that are read.
pub(super) struct Watched {
    pub(super) db: Arc<Db>,
    pub(super) pipelines: Pipelines,
    pub(super) health: HealthRegistry,
    pub(super) memory: MemoryGuard,
    pub(super) slo: Slo,
    pub(super) admission: Admission,
}

impl Watched {
    pub(super) fn signals(&mut self) -> Signals {
        let documents =
            self.health.state_of(DOCUMENTS).map_or(Health::Healthy, |(health, _)| health);
        Signals {
            breakers_open: self.breakers_open(),
            // The methods speak through their breakers; what else the checks find, such as a full
            // disk, is no reason to search less thoroughly.
            health: documents,
            memory: self.memory.step(),
            queue_age_ms: self.admission.report(Group::Search).oldest_ms,
            burning: self.slo.burning(),
            // Without names and paths: every answer to a search says the reason of the level.
            read_only: self.db.is_read_only().then(|| "every log is damaged".to_string()),
        }
    }

    /// Methods whose breakers are open in most collections, and other dependencies by name: one
    /// collection's trouble must not lower the service of all.
    fn breakers_open(&self) -> Vec<String> {
        let collections = self.db.collections().len();
        let mut methods: BTreeMap<&str, usize> = BTreeMap::new();
        let mut open = Vec::new();
        for dependency in self.pipelines.dependencies() {
            // What no search needs is no reason to search less thoroughly.
            if dependency.criticality() == Criticality::Informative {
                continue;
            }
            if !refuses(dependency.breaker().state()) {
                continue;
            }
            let name = dependency.name();
            let method = Method::ALL.into_iter().find(|method| {
                dependency.kind() == DependencyKind::Component
                    && name.rsplit_once('/').is_some_and(|(_, last)| last == method.name())
            });
            match method {
                Some(method) => *methods.entry(method.name()).or_default() += 1,
                None => open.push(name.to_string()),
            }
        }
        let most = methods.into_iter().filter(|(_, count)| count * 2 > collections);
        open.extend(most.map(|(method, _)| method.to_string()));
        open
    }
}
