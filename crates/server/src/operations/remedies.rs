//! Common faults that need no person, each with an entry in the audit trail.
//!
//! | fault | who mends it |
//! |---|---|
//! | a damaged view | its driver makes it anew from the log |
//! | a breaker that opened | probes of its own; a probe that hangs is given up |
//! | a search thread that hangs | its lane puts another one in its place |
//! | refinement or compaction that panics | whoever started it begins it anew |
//! | memory near the limit | the guard shrinks caches and returns pages |
//! | memory at the last step | what embeds is held open until there is room again: here |
//!
//! Each of the others acts where the fault is, at once; here is what they did, seen from one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_db::{BreakerState, Db, Dependency, DependencyKind, Method, ViewState};
use mainstay_ops::audit::{Action, Audit, SYSTEM};
use mainstay_ops::memory::{MemoryGuard, Step};

/// Compares what is with what was, and notes what changed by itself.
pub(super) struct Remedies {
    db: Arc<Db>,
    memory: MemoryGuard,
    audit: Audit,
    views: BTreeMap<String, View>,
    restarts: BTreeMap<String, u64>,
    breakers: BTreeMap<String, &'static str>,
    step: Step,
    /// Breakers that were opened because memory was at its last step.
    opened: Vec<Dependency>,
    lost: [usize; 4],
}

#[derive(Clone, PartialEq)]
struct View {
    state: &'static str,
    mended: u64,
}

impl Remedies {
    pub(super) fn new(db: Arc<Db>, memory: MemoryGuard, audit: Audit) -> Self {
        let (views, restarts, breakers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (step, opened) = (Step::Normal, Vec::new());
        Self { db, memory, audit, views, restarts, breakers, step, opened, lost: [0; 4] }
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
            let restarts = self.restarts.insert(status.name.clone(), status.worker_restarts);
            if restarts.unwrap_or(0) < status.worker_restarts {
                let why = "refinement or compaction panicked; the log says where";
                self.note("worker.restart", &status.name, "dead", "begun anew", why);
            }
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

    /// Openings and recoveries; what somebody did by hand is in the trail already.
    fn look_at_breakers(&mut self) {
        let mut now = BTreeMap::new();
        for dependency in self.db.pipelines().dependencies() {
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
        if step == Step::Emergency && self.opened.is_empty() {
            self.open_what_embeds();
        } else if step < Step::Reject {
            for dependency in std::mem::take(&mut self.opened) {
                if dependency.breaker().state() == BreakerState::Open {
                    dependency.breaker().reset();
                    let why = "there is memory again";
                    self.note("breaker.reset", dependency.name(), "open", "closed", why);
                }
            }
        }
    }

    /// Embedding takes the most memory of all that a request may cause.
    fn open_what_embeds(&mut self) {
        for dependency in self.db.pipelines().dependencies() {
            let name = dependency.name().to_string();
            let (service, part) = name.rsplit_once('/').unwrap_or((&name, ""));
            let embeds = match dependency.kind() {
                DependencyKind::Component => part == Method::Semantic.name(),
                _ => service == "embedding",
            };
            if embeds && dependency.breaker().state() == BreakerState::Closed {
                dependency.breaker().force_open();
                let why = "memory is at step emergency";
                self.note("breaker.force-open", &name, "closed", "open", why);
                self.opened.push(dependency);
            }
        }
    }

    fn look_at_threads(&mut self) {
        let lanes = self.db.figures().lanes;
        for (method, lane) in Method::ALL.into_iter().zip(lanes) {
            let before = std::mem::replace(&mut self.lost[method as usize], lane.lost);
            if lane.lost > before {
                let why = "a thread was busy for too long; another one took its place";
                self.note("thread.replace", method.name(), "stuck", "replaced", why);
            }
        }
    }

    fn note(&self, action: &str, target: &str, before: &str, after: &str, why: &str) {
        let action = Action::new(SYSTEM, action, target).change(before, after).because(why);
        self.audit.record(action);
    }
}
