//! Feature flags: evaluated in tens of nanoseconds, changed while running, kept across restarts.
//!
//! The shape is OpenFeature's: an evaluation gives the value, the variant it came from and the
//! reason, and never fails; a flag that is missing or of another type gives the caller's default
//! and says so.
//!
//! A flag is *declared* by the program with its default definition. An administrator *overrides*
//! it, and removing the override brings the declared one back. Overrides are saved before they
//! count, so a restart never takes one back; a reader sees all flags before a change or all after
//! it.
//!
//! Order of evaluation: disabled, outside its schedule, a required flag that stands otherwise
//! (each gives the `off` variant), then the first rule that matches, then the `default` variant.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_flags` | gauge: flags that are defined | |
//! | `mainstay_flag_changes_total` | counter | |
//! | `mainstay_flag_errors_total` | counter: evaluations that gave the caller's default | `code` |

mod definition;
mod evaluation;
mod table;

pub use definition::{Definition, FlagError, FlagValue, Requirement, Rule, parse};
pub use evaluation::{ErrorCode, Evaluation, Reason, Subject};

use crate::audit::{Action, Audit};
use crate::lock::lock;
use crate::store::{StateError, StateStore, load_sealed, save_sealed};
use crate::wall_clock::WallClock;
use arc_swap::ArcSwap;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use table::Table;

/// Flags of a process: some for each of its parts, with room.
pub const FLAGS_MAX: usize = 1_000;
/// The piece of state that overrides are kept in.
const PIECE: &str = "flags";
const KIND: [u8; 4] = *b"flag";
const VERSION: u16 = 1;

/// Definitions by name.
pub type Definitions = BTreeMap<String, Definition>;

struct Kept {
    declared: Definitions,
    /// Changed under this lock only, saved before the table is swapped.
    overrides: Mutex<Definitions>,
    table: ArcSwap<Table>,
    store: Arc<dyn StateStore>,
    wall: WallClock,
    audit: Audit,
}

/// The flags of a process. Clones share them.
#[derive(Clone)]
pub struct Flags(Arc<Kept>);

/// What is shown of a flag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlagReport {
    /// Its name.
    pub name: String,
    /// Whether the program declares it, so that it is there without an administrator too.
    pub declared: bool,
    /// Whether an administrator's definition stands in place of the declared one.
    pub overridden: bool,
    /// The definition that counts.
    pub definition: Definition,
    /// What the subject gets now.
    pub value: FlagValue,
    /// The variant it came from.
    pub variant: String,
    /// Why.
    pub reason: Reason,
}

impl Flags {
    /// The declared flags, with the overrides that were saved.
    ///
    /// # Errors
    /// A definition is not allowed, or what was saved cannot be read. A process that must start all
    /// the same opens its flags over an empty store, and says so in its health.
    pub fn open(
        declared: Definitions,
        store: Arc<dyn StateStore>,
        wall: WallClock,
        audit: Audit,
    ) -> Result<Self, FlagError> {
        let overrides = read(&*store)?;
        let table = Table::build(&declared, &overrides)?;
        metrics::gauge!("mainstay_flags").set(table.len() as f64);
        let overrides = Mutex::new(overrides);
        let table = ArcSwap::from_pointee(table);
        Ok(Flags(Arc::new(Kept { declared, overrides, table, store, wall, audit })))
    }

    /// Reads what is saved again: another process may have changed it. Answers whether it differs.
    ///
    /// # Errors
    /// It cannot be read or is not allowed; the flags known so far stay.
    pub fn refresh(&self) -> Result<bool, FlagError> {
        let kept = &*self.0;
        // Read under the lock, so that no change comes between what is read and what counts.
        let mut overrides = lock(&kept.overrides);
        let saved = read(&*kept.store)?;
        if *overrides == saved {
            return Ok(false);
        }
        let table = Table::build(&kept.declared, &saved)?;
        metrics::gauge!("mainstay_flags").set(table.len() as f64);
        kept.table.store(Arc::new(table));
        *overrides = saved;
        Ok(true)
    }

    /// A flag that is on or off.
    #[must_use]
    pub fn bool(&self, name: &str, default: bool, subject: &Subject<'_>) -> Evaluation<bool> {
        self.evaluate(name, default, subject, |value| match value {
            FlagValue::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A whole number.
    #[must_use]
    pub fn int(&self, name: &str, default: i64, subject: &Subject<'_>) -> Evaluation<i64> {
        self.evaluate(name, default, subject, |value| match value {
            FlagValue::Int(value) => Some(*value),
            _ => None,
        })
    }

    /// A number; whole ones are numbers too.
    #[must_use]
    pub fn float(&self, name: &str, default: f64, subject: &Subject<'_>) -> Evaluation<f64> {
        self.evaluate(name, default, subject, |value| match value {
            FlagValue::Float(value) => Some(*value),
            FlagValue::Int(value) => Some(*value as f64),
            _ => None,
        })
    }

    /// A text.
    #[must_use]
    pub fn string(&self, name: &str, default: &str, subject: &Subject<'_>) -> Evaluation<Arc<str>> {
        let found = self.evaluate(name, None, subject, |value| match value {
            FlagValue::String(value) => Some(Some(Arc::clone(value))),
            _ => None,
        });
        let Evaluation { value, variant, reason, error } = found;
        Evaluation { value: value.unwrap_or_else(|| default.into()), variant, reason, error }
    }

    fn evaluate<T>(
        &self,
        name: &str,
        default: T,
        subject: &Subject<'_>,
        typed: impl Fn(&FlagValue) -> Option<T>,
    ) -> Evaluation<T> {
        let table = self.0.table.load();
        let Some(flag) = table.find(name) else {
            return Evaluation::failed(default, ErrorCode::FlagNotFound);
        };
        let (variant, reason) = table.choose(flag, subject, &self.0.wall);
        match typed(&variant.value) {
            Some(value) => {
                Evaluation { value, variant: Some(Arc::clone(&variant.name)), reason, error: None }
            }
            None => Evaluation::failed(default, ErrorCode::TypeMismatch),
        }
    }

    /// Overrides a flag, or defines a new one.
    ///
    /// # Errors
    /// The definition is not allowed or could not be saved; nothing has changed then.
    pub fn set(
        &self,
        name: &str,
        definition: Definition,
        who: &str,
        why: &str,
    ) -> Result<(), FlagError> {
        self.change("flag.set", name, who, why, |overrides| {
            overrides.insert(name.to_owned(), definition);
            Ok(())
        })
    }

    /// Switches a flag on or off and leaves the rest of its definition as it is.
    ///
    /// # Errors
    /// There is no such flag, or the change could not be saved.
    pub fn enable(&self, name: &str, enabled: bool, who: &str, why: &str) -> Result<(), FlagError> {
        self.change("flag.enable", name, who, why, |overrides| {
            let known = overrides.get(name).or_else(|| self.0.declared.get(name));
            let mut definition =
                known.cloned().ok_or_else(|| FlagError::NotFound { name: name.to_owned() })?;
            definition.enabled = enabled;
            overrides.insert(name.to_owned(), definition);
            Ok(())
        })
    }

    /// Takes an override back; the declared definition counts again.
    ///
    /// # Errors
    /// There is no override, another flag requires this one, or the change could not be saved.
    pub fn remove(&self, name: &str, who: &str, why: &str) -> Result<(), FlagError> {
        self.change("flag.remove", name, who, why, |overrides| {
            let missing = || FlagError::NotFound { name: name.to_owned() };
            overrides.remove(name).map(|_| ()).ok_or_else(missing)
        })
    }

    /// Replaces all overrides at once, or none of them.
    ///
    /// # Errors
    /// One of the definitions is not allowed, or they could not be saved; nothing has changed then.
    pub fn replace_all(
        &self,
        definitions: Definitions,
        who: &str,
        why: &str,
    ) -> Result<(), FlagError> {
        self.change("flag.replace_all", "*", who, why, |overrides| {
            *overrides = definitions;
            Ok(())
        })
    }

    /// All flags by name, each with what `subject` gets of it.
    #[must_use]
    pub fn list(&self, subject: &Subject<'_>) -> Vec<FlagReport> {
        let overrides = lock(&self.0.overrides).clone();
        let mut names: Vec<&String> = self.0.declared.keys().chain(overrides.keys()).collect();
        names.sort();
        names.dedup();
        names.into_iter().filter_map(|name| self.report(name, &overrides, subject)).collect()
    }

    /// One flag, with what `subject` gets of it; nothing when there is none of this name.
    #[must_use]
    pub fn get(&self, name: &str, subject: &Subject<'_>) -> Option<FlagReport> {
        let overrides = lock(&self.0.overrides).clone();
        self.report(name, &overrides, subject)
    }

    fn report(
        &self,
        name: &str,
        overrides: &Definitions,
        subject: &Subject<'_>,
    ) -> Option<FlagReport> {
        let (declared, overridden) = (self.0.declared.get(name), overrides.get(name));
        let definition = overridden.or(declared)?;
        let table = self.0.table.load();
        let (variant, reason) = table.choose(table.find(name)?, subject, &self.0.wall);
        Some(FlagReport {
            name: name.to_owned(),
            declared: declared.is_some(),
            overridden: overridden.is_some(),
            definition: definition.clone(),
            value: variant.value.clone(),
            variant: variant.name.to_string(),
            reason,
        })
    }

    /// Validates, saves, publishes and records, in this order.
    fn change(
        &self,
        action: &str,
        name: &str,
        who: &str,
        why: &str,
        edit: impl FnOnce(&mut Definitions) -> Result<(), FlagError>,
    ) -> Result<(), FlagError> {
        let kept = &*self.0;
        let mut overrides = lock(&kept.overrides);
        let mut edited = overrides.clone();
        edit(&mut edited)?;
        let table = Table::build(&kept.declared, &edited)?;
        let text = serde_json::to_vec(&edited)
            .map_err(|_| StateError::Damaged { name: PIECE.to_owned(), what: "not writable" })?;
        save_sealed(&*kept.store, PIECE, KIND, VERSION, &text)?;
        metrics::gauge!("mainstay_flags").set(table.len() as f64);
        metrics::counter!("mainstay_flag_changes_total").increment(1);
        kept.table.store(Arc::new(table));
        let action = Action::new(who, action, name).because(why);
        let action = match name {
            "*" => action.change(&*overrides, &edited),
            name => action.change(overrides.get(name), edited.get(name)),
        };
        *overrides = edited;
        // Still under the lock: the trail has changes in the order in which they counted.
        kept.audit.record(action);
        Ok(())
    }
}

/// The overrides that were saved.
fn read(store: &dyn StateStore) -> Result<Definitions, FlagError> {
    match load_sealed(store, PIECE, KIND, VERSION)? {
        None => Ok(Definitions::new()),
        Some(bytes) => parse(&String::from_utf8_lossy(&bytes)),
    }
}
