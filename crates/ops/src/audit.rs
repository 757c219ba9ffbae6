//! The audit trail: who changed what, from what to what, why and when.
//!
//! Every action of an administrator, also one that was refused or failed, and every action that the process takes by itself in an
//! administrator's place, becomes an [`AuditEvent`]. The last ones are kept in memory for display;
//! each goes to the sink that keeps them for good, from where a restart brings the last ones back. Secrets are replaced before anybody sees them.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_audit_events_total` | counter | |
//! | `mainstay_audit_failures_total` | counter: events that the sink could not keep | |

use crate::lock::lock;
use crate::redact::{redact, redact_value};
use crate::wall_clock::{WallClock, rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

/// Events kept in memory: some pages of a console, at about 500 bytes each.
pub const KEPT_MAX: usize = 1_000;
/// Characters kept of a name or a reason.
const TEXT_CHARS_MAX: usize = 500;
/// Who acts when nobody did: the process itself.
pub const SYSTEM: &str = "system";

/// What became of an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    #[default]
    Done,
    /// It was not begun: its input is wrong, or it is not allowed now.
    Refused,
    /// It was begun and failed.
    Failed,
}

impl Outcome {
    /// The name used in events and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// What somebody did; becomes an [`AuditEvent`] when it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    who: String,
    action: String,
    target: String,
    before: Value,
    after: Value,
    why: String,
    outcome: Outcome,
}

impl Action {
    /// `who` (the name of a key or user, or [`SYSTEM`]) did `action` (as `noun.verb`: `flag.set`,
    /// `breaker.reset`) to `target`.
    #[must_use]
    pub fn new(who: &str, action: &str, target: &str) -> Self {
        Action {
            who: short(who),
            action: short(action),
            target: short(target),
            before: Value::Null,
            after: Value::Null,
            why: String::new(),
            outcome: Outcome::Done,
        }
    }

    /// What became of it, when it was not done.
    #[must_use]
    pub fn ended(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// What the target was before and is now; null stands for nothing.
    #[must_use]
    pub fn change(mut self, before: impl Serialize, after: impl Serialize) -> Self {
        let shown = |value: Result<Value, serde_json::Error>| match value {
            Ok(value) => redact_value(&value),
            Err(_) => Value::String("[cannot be shown]".to_owned()),
        };
        self.before = shown(serde_json::to_value(before));
        self.after = shown(serde_json::to_value(after));
        self
    }

    /// Why, in the words of who did it.
    #[must_use]
    pub fn because(mut self, why: &str) -> Self {
        self.why = short(&redact(why));
        self
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

/// One action as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Rising from 1, over restarts too.
    pub number: u64,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// Who did it.
    pub who: String,
    /// What was done, as `noun.verb`.
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// What it was before; null when there was nothing.
    pub before: Value,
    /// What it is now; null when it is gone.
    pub after: Value,
    /// Why it was done, or why it was not; may be empty.
    pub why: String,
    /// What became of it.
    #[serde(default)]
    pub outcome: Outcome,
}

/// Keeps events for good.
pub trait AuditSink: Send + Sync {
    /// Keeps one event. Events come one at a time and in order.
    ///
    /// # Errors
    /// It could not be kept.
    fn keep(&self, event: &AuditEvent) -> io::Result<()>;
}

#[derive(Debug, Default)]
struct Trail {
    events: VecDeque<Arc<AuditEvent>>,
    number: u64,
    failures: u64,
}

/// The trail of a process. Clones share it.
#[derive(Clone)]
pub struct Audit {
    trail: Arc<Mutex<Trail>>,
    /// Held while the sink keeps an event, so that events reach it in order.
    sink: Arc<Mutex<Option<Box<dyn AuditSink>>>>,
    wall: WallClock,
}

impl Audit {
    /// A trail without a sink keeps the last [`KEPT_MAX`] events only.
    #[must_use]
    pub fn new(wall: WallClock, sink: Option<Box<dyn AuditSink>>) -> Self {
        Audit { trail: Arc::default(), sink: Arc::new(Mutex::new(sink)), wall }
    }

    /// The same trail, going on from `earlier`: the events that a former run has kept, the oldest
    /// first. The last [`KEPT_MAX`] of them are shown again, and numbers go on rising. For the start,
    /// before anything is recorded.
    #[must_use]
    pub fn going_on_from(self, earlier: Vec<AuditEvent>) -> Self {
        let mut trail = lock(&self.trail);
        trail.number = earlier.iter().map(|event| event.number).max().unwrap_or(0);
        let beyond = earlier.len().saturating_sub(KEPT_MAX);
        trail.events = earlier.into_iter().skip(beyond).map(Arc::new).collect();
        drop(trail);
        self
    }

    /// Records an action. A sink that fails stops nobody: the failure is counted, logged and shown
    /// by [`failures`](Self::failures), for a health check to look at.
    pub fn record(&self, action: Action) -> Arc<AuditEvent> {
        let sink = lock(&self.sink);
        let Action { who, action, target, before, after, why, outcome } = action;
        let mut trail = lock(&self.trail);
        trail.number += 1;
        let (number, time) = (trail.number, rfc3339(self.wall.unix_ms()));
        let event = AuditEvent { number, time, who, action, target, before, after, why, outcome };
        let event = Arc::new(event);
        if trail.events.len() == KEPT_MAX {
            trail.events.pop_front();
        }
        trail.events.push_back(Arc::clone(&event));
        drop(trail);
        let AuditEvent { who, action, target, .. } = &*event;
        let outcome = event.outcome.as_str();
        tracing::info!(target: "audit", who, action, of = target, outcome, number, "audit");
        metrics::counter!("mainstay_audit_events_total").increment(1);
        if let Some(Err(error)) = sink.as_ref().map(|sink| sink.keep(&event)) {
            tracing::error!(%error, number, "an audit event could not be kept");
            metrics::counter!("mainstay_audit_failures_total").increment(1);
            lock(&self.trail).failures += 1;
        }
        event
    }

    /// The last events, the newest first, at most `count` of them and older than the event of the
    /// number `before` (0 begins with the newest).
    #[must_use]
    pub fn recent(&self, before: u64, count: usize) -> Vec<Arc<AuditEvent>> {
        let trail = lock(&self.trail);
        let older = trail.events.iter().rev().filter(|e| before == 0 || e.number < before);
        older.take(count).cloned().collect()
    }

    /// Events that the sink could not keep.
    #[must_use]
    pub fn failures(&self) -> u64 {
        lock(&self.trail).failures
    }
}
