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

mod reliability;

pub use reliability::{Reliability, mtbf_lower_factor};

use crate::lock::lock;
use crate::store::{StateError, StateStore, load_sealed, save_sealed};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// Incidents that are kept: at one a day more than a year; the oldest closed ones go first.
pub const INCIDENTS_MAX: usize = 500;
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
}

/// The incidents of a process. Clones share them.
#[derive(Clone)]
pub struct Incidents {
    kept: Arc<Mutex<Kept>>,
    store: Arc<dyn StateStore>,
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
        Ok(Incidents { kept: Arc::new(Mutex::new(kept)), store })
    }

    /// Trouble began. While an incident of this key is open, nothing more happens.
    pub fn begin(&self, key: &str, title: &str, began_unix_ms: u64, now_unix_ms: u64) {
        let mut kept = lock(&self.kept);
        if kept.incidents.iter().any(|i| i.key == key && i.ended_unix_ms.is_none()) {
            return;
        }
        let began_unix_ms = began_unix_ms.min(now_unix_ms);
        tracing::error!(key, title, "incident opened");
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
        self.save(&kept);
        true
    }

    /// Trouble that is over already when it is noticed, such as a time in which the process was
    /// dead.
    pub fn past(&self, key: &str, title: &str, began_unix_ms: u64, ended_unix_ms: u64) {
        let mut kept = lock(&self.kept);
        let ended = Some(ended_unix_ms.max(began_unix_ms));
        self.add(&mut kept, key, title, (began_unix_ms, ended_unix_ms, ended));
    }

    /// All that are kept, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Incident> {
        lock(&self.kept).incidents.iter().rev().cloned().collect()
    }

    /// Mean times over `observed_ms` of operation. Incidents that overlap are one failure that
    /// several objectives have told.
    #[must_use]
    pub fn reliability(&self, observed_ms: u64) -> Reliability {
        let kept = lock(&self.kept);
        let span = |it: &Incident| (it.began_unix_ms, it.ended_unix_ms.unwrap_or(u64::MAX));
        let mut spans: Vec<(u64, u64)> = kept.incidents.iter().map(span).collect();
        spans.sort_unstable();
        let mut failures: Vec<(u64, u64)> = Vec::new();
        for (began, ended) in spans {
            match failures.last_mut() {
                Some(last) if began < last.1 => last.1 = last.1.max(ended),
                _ => failures.push((began, ended)),
            }
        }
        let open = failures.iter().filter(|(_, ended)| *ended == u64::MAX).count();
        let closed = failures.iter().filter(|(_, ended)| *ended != u64::MAX);
        Reliability::new(observed_ms, open, closed.map(|(began, ended)| ended - began).collect())
    }

    fn add(&self, kept: &mut Kept, key: &str, title: &str, times: (u64, u64, Option<u64>)) {
        if kept.incidents.len() >= INCIDENTS_MAX {
            let oldest = kept.incidents.iter().position(|i| i.ended_unix_ms.is_some()).unwrap_or(0);
            kept.incidents.remove(oldest);
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
