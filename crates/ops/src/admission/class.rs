//! [`Class`] and [`Group`]: how important a request is, and what it asks for.

use mainstay_resilience::Priority;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How important a request is, the least important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Nobody waits for it: bulk work, and what its sender calls unimportant.
    Batch = 0,
    /// Somebody waits for it.
    Interactive = 1,
    /// It keeps the process alive and understood: health, metrics, administration.
    Control = 2,
}

impl Class {
    /// All classes, the least important first.
    pub const ALL: [Class; 3] = [Class::Batch, Class::Interactive, Class::Control];

    /// The name used in metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Batch => "batch",
            Class::Interactive => "interactive",
            Class::Control => "control",
        }
    }

    /// The priority under which it reserves memory.
    #[must_use]
    pub const fn memory_priority(self) -> Priority {
        match self {
            Class::Batch => Priority::Background,
            Class::Interactive => Priority::Normal,
            Class::Control => Priority::Critical,
        }
    }

    /// The priority under which it takes a slot: batch work may fill 70 % of the limit, so that
    /// whoever waits for an answer always finds some. Control calls take none.
    pub(super) const fn slot_priority(self) -> Priority {
        match self {
            Class::Batch => Priority::Low,
            Class::Interactive | Class::Control => Priority::Critical,
        }
    }

    pub(super) fn from_index(index: u8) -> Class {
        Class::ALL.get(usize::from(index)).copied().unwrap_or(Class::Control)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request asks for: the routes that share limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Searches.
    Search = 0,
    /// Single documents, lists, figures.
    Read = 1,
    /// Whatever changes documents or collections.
    Write = 2,
}

impl Group {
    /// All groups.
    pub const ALL: [Group; 3] = [Group::Search, Group::Read, Group::Write];

    /// The name used in settings, metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Group::Search => "search",
            Group::Read => "read",
            Group::Write => "write",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
