//! Incidents, opened and closed by the process itself, and what they say about its reliability.
//!
//! Mean times are printed with what they rest on: the number of incidents, the time observed, and
//! for the time between failures a lower bound, because a month without a failure shows no more
//! than a mean of ten days.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_incidents_open` | gauge | |
//! | `mainstay_incidents_total` | counter | |

mod mean_time;
mod poisson;
mod reliability;

pub use mean_time::{MeanTimeReport, MeanTimes, Verdict};
pub use poisson::{mtbf_lower_factor, mtbf_upper_factor};
pub use reliability::Reliability;

use crate::audit::{Action, Audit, SYSTEM};
use crate::lock::lock;
use crate::store::{StateError, StateStore, load_sealed, save_sealed};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// Incidents that are kept: at one a day more than a year; the oldest closed ones go first.
pub const INCIDENTS_MAX: usize = 500;
/// How far back failures count for mean times: a year. A longer one would hold the faults of long
/// mended releases against the present one.
const SPAN_MS: u64 = 365 * 86_400_000;
/// Times in which the process was stopped that are kept: at one a day more than a year.
const STOPS_MAX: usize = 500;
/// A shorter stop than a minute is lost in the rounding of what is shown, and is not kept.
const STOP_MS_MIN: u64 = 60_000;
const PIECE: &str = "incidents";
const KIND: [u8; 4] = *b"inci";
const VERSION: u16 = 1;

/// One incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Rising from 1, over restarts.
    pub number: u64,
    /// What it is about; at most one incident of a key is open.
    pub key: String,
    /// What happened, for people.
    pub title: String,
    /// When trouble began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// When it was noticed.
    pub detected_unix_ms: u64,
    /// When trouble ended; absent while it lasts.
    pub ended_unix_ms: Option<u64>,
}

impl Incident {
    /// How long trouble lasted, or nothing while it lasts.
    #[must_use]
    pub fn lasted_ms(&self) -> Option<u64> {
        Some(self.ended_unix_ms?.saturating_sub(self.began_unix_ms))
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    next: u64,
    incidents: Vec<Incident>,
    /// When the last of those that are no longer kept ended: time before that shows nothing.
    #[serde(default)]
    forgotten_until_unix_ms: u64,
    /// Beginning and end of each time in which the process was stopped in order, rising.
    #[serde(default)]
    stops: Vec<(u64, u64)>,
}

fn lasted(ms: u64) -> String {
    format!("it lasted {} s", ms.div_ceil(1_000))
}

/// The incidents of a process. Clones share them.
#[derive(Clone)]
pub struct Incidents {
    kept: Arc<Mutex<Kept>>,
    store: Arc<dyn StateStore>,
    audit: Option<Audit>,
}

impl Incidents {
    /// Those that were saved.
    ///
    /// # Errors
    /// What was saved cannot be read.
    pub fn open(store: Arc<dyn StateStore>) -> Result<Self, StateError> {
        let kept = match load_sealed(&*store, PIECE, KIND, VERSION)? {
            None => Kept::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| StateError::Damaged {
                name: PIECE.to_owned(),
                what: "no list of incidents",
            })?,
        };
        Ok(Incidents { kept: Arc::new(Mutex::new(kept)), store, audit: None })
    }

    /// With an event in this trail for each beginning and each end.
    #[must_use]
    pub fn audited(self, audit: Audit) -> Self {
        Incidents { audit: Some(audit), ..self }
    }

    /// Trouble began. While an incident of this key is open, nothing more happens.
    pub fn begin(&self, key: &str, title: &str, began_unix_ms: u64, now_unix_ms: u64) {
        let mut kept = lock(&self.kept);
        if kept.incidents.iter().any(|i| i.key == key && i.ended_unix_ms.is_none()) {
            return;
        }
        let began_unix_ms = began_unix_ms.min(now_unix_ms);
        tracing::error!(key, title, "incident opened");
        self.note("incident.open", key, (None, Some("open")), title);
        self.add(&mut kept, key, title, (began_unix_ms, now_unix_ms, None));
    }

    /// Trouble ended; false when no incident of this key is open.
    pub fn end(&self, key: &str, ended_unix_ms: u64) -> bool {
        let mut kept = lock(&self.kept);
        let open = kept.incidents.iter_mut().find(|i| i.key == key && i.ended_unix_ms.is_none());
        let Some(incident) = open else { return false };
        let ended = ended_unix_ms.max(incident.began_unix_ms);
        incident.ended_unix_ms = Some(ended);
        let lasted_ms = ended - incident.began_unix_ms;
        tracing::warn!(key, lasted_ms, "incident closed");
        self.note("incident.close", key, (Some("open"), Some("closed")), &lasted(lasted_ms));
        self.save(&kept);
        true
    }

    /// Trouble that is over already when it is noticed, such as a time in which the process was
    /// dead.
    pub fn past(&self, key: &str, title: &str, began_unix_ms: u64, ended_unix_ms: u64) {
        let mut kept = lock(&self.kept);
        let ended = Some(ended_unix_ms.max(began_unix_ms));
        let lasted = lasted(ended_unix_ms.saturating_sub(began_unix_ms));
        let why = format!("{title}; {lasted}");
        self.note("incident.close", key, (None, Some("closed")), &why);
        self.add(&mut kept, key, title, (began_unix_ms, ended_unix_ms, ended));
    }

    /// The process was stopped in order for this time: it could not fail in it, so mean times do not
    /// count it.
    pub fn stopped(&self, began_unix_ms: u64, ended_unix_ms: u64) {
        if ended_unix_ms.saturating_sub(began_unix_ms) < STOP_MS_MIN {
            return;
        }
        let mut kept = lock(&self.kept);
        if kept.stops.len() >= STOPS_MAX {
            let (_, until) = kept.stops.remove(0);
            kept.forgotten_until_unix_ms = kept.forgotten_until_unix_ms.max(until);
        }
        kept.stops.push((began_unix_ms, ended_unix_ms));
        self.save(&kept);
    }

    /// All that are kept, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Incident> {
        lock(&self.kept).incidents.iter().rev().cloned().collect()
    }

    /// Mean times of the operation since then, of a year at most, without the time in which the
    /// process was stopped in order, and of no time whose incidents are no longer kept. Incidents that overlap are one failure that several objectives have told.
    #[must_use]
    pub fn reliability(&self, since_unix_ms: u64, now_unix_ms: u64) -> Reliability {
        let kept = lock(&self.kept);
        let known = since_unix_ms.max(kept.forgotten_until_unix_ms);
        let from = known.max(now_unix_ms.saturating_sub(SPAN_MS)).min(now_unix_ms);
        let span =
            |it: &Incident| (it.began_unix_ms.max(from), it.ended_unix_ms.unwrap_or(u64::MAX));
        let mut spans: Vec<(u64, u64)> =
            kept.incidents.iter().map(span).filter(|(_, ended)| *ended >= from).collect();
        spans.sort_unstable();
        let mut failures: Vec<(u64, u64)> = Vec::new();
        for (began, ended) in spans {
            match failures.last_mut() {
                Some(last) if began < last.1 => last.1 = last.1.max(ended),
                _ => failures.push((began, ended)),
            }
        }
        let (closed, open): (Vec<_>, Vec<_>) =
            failures.into_iter().partition(|(_, ended)| *ended != u64::MAX);
        let closed = closed.into_iter().map(|(began, ended)| ended - began).collect();
        let open: Vec<u64> =
            open.into_iter().map(|(began, _)| now_unix_ms.saturating_sub(began)).collect();
        let stopped_ms: u64 = kept
            .stops
            .iter()
            .map(|(began, ended)| (*ended).min(now_unix_ms).saturating_sub((*began).max(from)))
            .sum();
        Reliability::new((now_unix_ms - from).saturating_sub(stopped_ms), closed, &open)
    }

    fn note(
        &self,
        action: &str,
        key: &str,
        (before, after): (Option<&str>, Option<&str>),
        why: &str,
    ) {
        if let Some(audit) = &self.audit {
            audit.record(Action::new(SYSTEM, action, key).change(before, after).because(why));
        }
    }

    fn add(&self, kept: &mut Kept, key: &str, title: &str, times: (u64, u64, Option<u64>)) {
        if kept.incidents.len() >= INCIDENTS_MAX {
            let oldest = kept.incidents.iter().position(|i| i.ended_unix_ms.is_some()).unwrap_or(0);
            let gone = kept.incidents.remove(oldest);
            let until = gone.ended_unix_ms.unwrap_or(gone.began_unix_ms);
            kept.forgotten_until_unix_ms = kept.forgotten_until_unix_ms.max(until);
        }
        kept.next += 1;
        let (began_unix_ms, detected_unix_ms, ended_unix_ms) = times;
        let (number, key, title) = (kept.next, key.to_owned(), title.to_owned());
        let incident =
            Incident { number, key, title, began_unix_ms, detected_unix_ms, ended_unix_ms };
        kept.incidents.push(incident);
        metrics::counter!("mainstay_incidents_total").increment(1);
        self.save(kept);
    }

    /// A list that cannot be saved is still shown; the next change saves all of it.
    fn save(&self, kept: &Kept) {
        let open = kept.incidents.iter().filter(|i| i.ended_unix_ms.is_none()).count();
        metrics::gauge!("mainstay_incidents_open").set(open as f64);
        let Ok(json) = serde_json::to_vec(kept) else { return };
        if let Err(error) = save_sealed(&*self.store, PIECE, KIND, VERSION, &json) {
            tracing::error!(%error, "incidents could not be saved");
        }
    }
}
