//! Common faults that need no person: what the process mends by itself is noted in the audit trail.
//!
//! Damaged views are rebuilt by their drivers, breakers probe by themselves and stuck search threads
//! are replaced by their lanes. What is done here is what these cannot see: that a rebuild began and
//! ended, and that a breaker which was opened by hand is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_db::{Db, ViewState};
use mainstay_ops::audit::{Action, Audit, SYSTEM};

/// Watches views and notes what becomes of them.
pub(super) struct Remedies {
    db: Arc<Db>,
    audit: Audit,
    /// Views in trouble, by collection and name, with their trouble.
    known: BTreeMap<String, &'static str>,
}

impl Remedies {
    pub(super) fn new(db: Arc<Db>, audit: Audit) -> Self {
        Self { db, audit, known: BTreeMap::new() }
    }

    /// Compares with what was known, and notes each change.
    pub(super) fn look(&mut self) {
        let mut now = BTreeMap::new();
        for collection in self.db.collections() {
            let status = collection.status();
            for view in &status.views {
                let (trouble, why) = match &view.state {
                    ViewState::Ready => continue,
                    ViewState::Rebuilding { .. } => ("rebuilding", String::new()),
                    ViewState::Failing { reason } => ("failing", reason.clone()),
                };
                let name = format!("{}/{}", status.name, view.view);
                if self.known.get(&name) != Some(&trouble) {
                    let before = self.known.get(&name).copied().unwrap_or("ready");
                    self.note(&name, before, trouble, &why);
                }
                now.insert(name, trouble);
            }
        }
        for (name, before) in &self.known {
            if !now.contains_key(name) {
                self.note(name, before, "ready", "");
            }
        }
        self.known = now;
    }

    fn note(&self, view: &str, before: &str, after: &str, why: &str) {
        let action = Action::new(SYSTEM, "view.change", view).change(before, after).because(why);
        self.audit.record(action);
    }
}
