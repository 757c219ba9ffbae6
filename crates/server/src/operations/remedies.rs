//! Common faults that need no person, each with an entry in the audit trail.
//!
//! | fault | who mends it |
//! |---|---|
//! | a damaged view | its driver makes it anew from the log |
//! | a breaker that opened | active probes once its open period is over; one that hangs is given up |
//! | a search thread that hangs | its lane puts another one in its place |
//! | refinement, compaction or the driver of a view that panics | whoever started it begins it anew |
//! | memory near the limit | the guard shrinks caches and returns pages |
//! | memory at the last step | what embeds is isolated until there is room again: here |
//!
//! Each of the others acts where the fault is, at once; here is what they did, seen from one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_db::{BreakerState, Db, Dependency, DependencyKind, Method, ViewState};
use mainstay_ops::audit::{Action, Audit, SYSTEM};
use mainstay_ops::memory::{MemoryGuard, Step};
use mainstay_resilience::Cause;
use mainstay_resilience::human_duration::format;

use super::checks::is_provider;

/// Compares what is with what was, and notes what changed by itself.
pub(super) struct Remedies {
    db: Arc<Db>,
    memory: MemoryGuard,
    audit: Audit,
    views: BTreeMap<String, View>,
    restarts: BTreeMap<String, u64>,
    breakers: BTreeMap<String, &'static str>,
    /// Breakers whose probes were given up, by the generation in which they opened for that.
    gave_up: BTreeMap<String, u64>,
    step: Step,
    /// What was isolated because memory was at its last step, and the generation of its breaker
    /// since: another one tells that somebody has decided otherwise.
    isolated: Vec<(Dependency, u64)>,
    lost: [usize; 4],
}

#[derive(Clone, PartialEq)]
struct View {
    state: &'static str,
    mended: u64,
}

impl Remedies {
    pub(super) fn new(db: Arc<Db>, memory: MemoryGuard, audit: Audit) -> Self {
        Self {
            db,
            memory,
            audit,
            views: BTreeMap::new(),
            restarts: BTreeMap::new(),
            breakers: BTreeMap::new(),
            gave_up: BTreeMap::new(),
            step: Step::Normal,
            isolated: Vec::new(),
            lost: [0; 4],
        }
    }

    /// Looks at everything once.
    pub(super) fn look(&mut self) {
        self.look_at_views();
        self.look_at_breakers();
        self.look_at_memory();
        self.look_at_threads();
    }

    fn look_at_views(&mut self) {
        let mut now = BTreeMap::new();
        for collection in self.db.collections() {
            let status = collection.status();
            self.look_at_workers(&status.name, status.worker_restarts);
            for view in &status.views {
                let (state, trouble) = match &view.state {
                    ViewState::Ready => ("ready", ""),
                    ViewState::Rebuilding { .. } => ("rebuilding", ""),
                    ViewState::Failing { reason } => ("failing", reason.as_str()),
                };
                let name = format!("{}/{}", status.name, view.view);
                let (mended, why) = &view.mended;
                let before = self.views.get(&name);
                if before.map_or(0, |before| before.mended) < *mended {
                    self.note("view.mend", &name, "damaged", "made anew from the log", why);
                }
                let was = before.map_or("ready", |before| before.state);
                if was != state {
                    self.note("view.change", &name, was, state, trouble);
                }
                now.insert(name, View { state, mended: *mended });
            }
        }
        self.views = now;
    }

    fn look_at_workers(&mut self, collection: &str, restarts: u64) {
        let before = self.restarts.insert(collection.to_string(), restarts);
        if before.unwrap_or(0) < restarts {
            let why = "background work or the driver of a view panicked; the log says where";
            self.note("worker.restart", collection, "dead", "begun anew", why);
        }
    }

    /// A probe that hung was given up, and the breaker opened again to send another one later.
    fn look_at_probes(&mut self, dependency: &Dependency, noted: &BTreeMap<String, u64>) {
        let breaker = dependency.breaker().snapshot();
        if breaker.opened_by != Some(Cause::ProbesGaveUp) {
            return;
        }
        self.gave_up.insert(dependency.name().to_string(), breaker.generation);
        if noted.get(dependency.name()) != Some(&breaker.generation) {
            let limit = format(dependency.breaker().config().probes.give_up_after);
            let why = format!("no answer for {limit}, so it was given up");
            self.note("breaker.probe", dependency.name(), "hangs", "probed anew later", &why);
        }
    }

    /// Openings and recoveries; what somebody did by hand is in the trail already.
    fn look_at_breakers(&mut self) {
        let mut now = BTreeMap::new();
        // Anew each time, so that nothing stays of what is dropped.
        let noted = std::mem::take(&mut self.gave_up);
        for dependency in self.db.pipelines().dependencies() {
            self.look_at_probes(&dependency, &noted);
            let state = match dependency.breaker().state() {
                BreakerState::Closed => "closed",
                BreakerState::Open | BreakerState::HalfOpen => "open",
                _ => continue,
            };
            let name = dependency.name();
            let was = self.breakers.get(name).copied().unwrap_or("closed");
            if was != state {
                let why = match state {
                    "open" => dependency.figures().snapshot().last_error.map(|(_, error)| error),
                    _ => Some("its probes succeeded, or it was reset".to_string()),
                };
                self.note("breaker.change", name, was, state, &why.unwrap_or_default());
            }
            now.insert(name.to_string(), state);
        }
        self.breakers = now;
    }

    fn look_at_memory(&mut self) {
        let step = self.memory.step();
        if step != self.step {
            self.note("memory.step", "memory", self.step.as_str(), step.as_str(), "");
            self.step = step;
        }
        if step == Step::Emergency {
            self.isolate_what_embeds();
        } else if step < Step::Reject {
            for (dependency, generation) in std::mem::take(&mut self.isolated) {
                if dependency.breaker().snapshot().generation == generation {
                    dependency.breaker().reset();
                    let why = "there is memory again";
                    self.note("breaker.reset", dependency.name(), "isolated", "closed", why);
                }
            }
        }
    }

    /// Embedding takes the most memory of all that a request may cause. A breaker that is only open
    /// would let probes through after its open period, and close again; one that is open or probes
    /// by itself already would do so as well. What is declared meanwhile is isolated too.
    fn isolate_what_embeds(&mut self) {
        for dependency in self.db.pipelines().dependencies() {
            let name = dependency.name();
            let embeds = match dependency.kind() {
                DependencyKind::Component => {
                    name.rsplit_once('/').is_some_and(|(_, part)| part == Method::Semantic.name())
                }
                _ => is_provider(&dependency),
            };
            let breaker = dependency.breaker();
            let known = self.isolated.iter().any(|(it, _)| it.breaker().is_same(breaker));
            let before = breaker.state();
            // What somebody has decided by hand stays.
            let by_itself = !matches!(
                before,
                BreakerState::Isolated | BreakerState::Disabled | BreakerState::ObserveOnly
            );
            if embeds && !known && by_itself {
                breaker.isolate();
                let why = "memory is at step emergency";
                self.note("breaker.isolate", name, before.as_str(), "isolated", why);
                let generation = breaker.snapshot().generation;
                self.isolated.push((dependency, generation));
            }
        }
    }

    fn look_at_threads(&mut self) {
        for lane in self.db.figures().lanes {
            self.look_at_lane(lane.method, lane.lost);
        }
    }

    fn look_at_lane(&mut self, method: Method, lost: usize) {
        let before = std::mem::replace(&mut self.lost[method as usize], lost);
        if lost > before {
            let why = "a thread was busy for too long; another one took its place";
            self.note("thread.replace", method.name(), "stuck", "replaced", why);
        }
    }

    fn note(&self, action: &str, target: &str, before: &str, after: &str, why: &str) {
        let action = Action::new(SYSTEM, action, target).change(before, after).because(why);
        self.audit.record(action);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mainstay_db::Options;
    use mainstay_ops::kernel_files::KernelFiles;
    use mainstay_ops::memory::MemoryConfig;
    use mainstay_ops::wall_clock::WallClock;
    use mainstay_resilience::Clock;

    /// D5: each time that something dead is begun anew there is one entry, and none in between.
    #[test]
    fn each_dead_worker_and_each_stuck_thread_is_noted_once() {
        let folder = tempfile::tempdir().unwrap();
        let db = Arc::new(Db::open(folder.path(), Options::default()).unwrap());
        let kernel = KernelFiles::default();
        let memory = MemoryGuard::new(MemoryConfig::default(), kernel, Clock::system(), None);
        let audit = Audit::new(WallClock::system(), None);
        let mut remedies = Remedies::new(db, memory.unwrap(), audit.clone());
        for restarts in [0, 1, 1, 1, 3] {
            remedies.look_at_workers("docs", restarts);
        }
        // One of the two stuck threads comes back, then a third one gets stuck.
        for lost in [0, 2, 2, 1, 2] {
            remedies.look_at_lane(Method::Native, lost);
        }
        let events = audit.recent(0, 100);
        let of = |action: &str| -> Vec<String> {
            let found = events.iter().filter(|event| event.action == action);
            found.map(|event| event.target.clone()).collect()
        };
        assert_eq!(of("worker.restart"), ["docs", "docs"]);
        assert_eq!(of("thread.replace"), ["native", "native"]);
        assert!(events.iter().all(|event| event.who == SYSTEM));
    }
}
