//! [`Reloader`]: reads the sources of settings again and takes over what changed, all of it or
//! nothing, whoever asks: a signal or an administrator.

use std::sync::{Mutex, PoisonError};

use mainstay_ops::audit::{Action, Audit};

use crate::settings::{Change, Settings};

/// Reads all sources; the error is every fault found.
pub type ReadSettings = dyn Fn() -> Result<Settings, Vec<String>> + Send + Sync;
/// Takes settings over; the error says why nothing was changed.
pub type ApplySettings = dyn Fn(&Settings) -> Result<(), String> + Send + Sync;

/// The settings that count, and where they come from.
pub(crate) struct Reloader {
    current: Mutex<Settings>,
    read: Box<ReadSettings>,
    apply: Box<ApplySettings>,
    audit: Audit,
}

impl Reloader {
    pub(crate) fn new(
        current: Settings,
        read: Box<ReadSettings>,
        apply: Box<ApplySettings>,
        audit: Audit,
    ) -> Self {
        Self { current: Mutex::new(current), read, apply, audit }
    }

    /// The settings that count.
    pub(crate) fn current(&self) -> Settings {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the sources again. With `dry_run` nothing is taken over.
    pub(crate) fn reload(&self, dry_run: bool, who: &str) -> Result<Vec<Change>, Vec<String>> {
        // One reload at a time: two at once would each see the other's half.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let after = (self.read)()?;
        let changes = current.changes(&after);
        let fixed: Vec<String> = changes
            .iter()
            .filter(|change| !change.reloadable)
            .map(|change| {
                let Change { name, before, after, .. } = change;
                format!("{name} needs a restart to become {after} (it is {before})")
            })
            .collect();
        if !fixed.is_empty() {
            return Err(fixed);
        }
        let faults = after.validate();
        if !faults.is_empty() {
            return Err(faults.iter().map(ToString::to_string).collect());
        }
        if !dry_run {
            (self.apply)(&after).map_err(|error| vec![error])?;
            *current = after;
            self.audit.record(audited(who, &changes));
        }
        Ok(changes)
    }
}

fn audited(who: &str, changes: &[Change]) -> Action {
    let list = |value: fn(&Change) -> &str| -> serde_json::Value {
        let pairs = changes.iter().map(|c| (c.name.clone(), value(c).into()));
        serde_json::Value::Object(pairs.collect())
    };
    Action::new(who, "config.reload", "settings").change(list(|c| &c.before), list(|c| &c.after))
}
