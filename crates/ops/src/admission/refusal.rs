//! [`Refusal`]: a request that is not begun, why, and when to come again.

use super::{Class, Group};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whose doing a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The caller sends more than it may: 429 in HTTP.
    RateLimited,
    /// There is more work than can be done: 503 in HTTP.
    Overloaded,
}

/// Why a request was refused; a closed set, fit for labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The rate of the whole group is used up.
    Rate,
    /// The rate of this key is used up.
    KeyRate,
    /// The key's portion of a quota that several nodes share is used up.
    SharedRate,
    /// As many as may wait already do, and this key has its share of them.
    QueueFull,
    /// Its place in the queue went to a more important request, or to a key with fewer.
    Displaced,
    /// It waited for as long as a request may.
    QueueTimeout,
    /// The queue stands, and it had become too old in it.
    QueueAge,
    /// Only more important requests are begun now.
    Priority,
    /// Its memory is not there.
    Memory,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [RefusalReason; 9] = [
        RefusalReason::Rate,
        RefusalReason::KeyRate,
        RefusalReason::SharedRate,
        RefusalReason::QueueFull,
        RefusalReason::Displaced,
        RefusalReason::QueueTimeout,
        RefusalReason::QueueAge,
        RefusalReason::Priority,
        RefusalReason::Memory,
    ];

    /// The name used in answers, metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RefusalReason::Rate => "rate",
            RefusalReason::KeyRate => "key_rate",
            RefusalReason::SharedRate => "shared_rate",
            RefusalReason::QueueFull => "queue_full",
            RefusalReason::Displaced => "displaced",
            RefusalReason::QueueTimeout => "queue_timeout",
            RefusalReason::QueueAge => "queue_age",
            RefusalReason::Priority => "priority",
            RefusalReason::Memory => "memory",
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn kind(self) -> RefusalKind {
        match self {
            RefusalReason::Rate | RefusalReason::KeyRate | RefusalReason::SharedRate => {
                RefusalKind::RateLimited
            }
            _ => RefusalKind::Overloaded,
        }
    }
}

/// A request that was not begun. Nothing of it was done; it is safe to send it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// What was asked for.
    pub group: Group,
    /// How important it was.
    pub class: Class,
    /// The policy that refused, such as `search-per-key` or `queue`.
    pub policy: Arc<str>,
    /// The policy's bound: units per period, places, bytes; 0 where it has none.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// The time after which a request of this kind may be admitted, above zero.
    pub retry_after: Duration,
    /// One sentence: the figures, and what to do.
    pub detail: String,
}

impl Refusal {
    /// Whose doing it is.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        self.reason.kind()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}
