//! The memory guard: a process that gives memory back and refuses work before the kernel kills it.
//!
//! A tick reads the use of memory and its limit and moves a step:
//!
//! | step | from (default) | what happens |
//! |---|---|---|
//! | normal | | nothing |
//! | warn | 70 % | it is logged and shown; the allocator gives pages back as soon as they are free |
//! | shrink | 80 % | caches are asked to halve, background work is refused |
//! | return | 82 % | the allocator gives back what it holds already |
//! | reject | 85 % | caches are emptied, work below high priority is refused |
//! | emergency | 93 % | everything but control calls is refused |
//!
//! Steps are entered at once and left one at a time, each only after the use stayed a margin below
//! its threshold for a while. When work is refused for want of room, the allocator gives its free
//! pages back at any step. Each request [reserves](Budget::try_reserve) what it will need before
//! it begins, so that what is on its way counts before it shows in any figure.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_memory_used_bytes` | gauge | |
//! | `mainstay_memory_limit_bytes` | gauge | |
//! | `mainstay_memory_step` | gauge: 0 normal to 5 emergency | |
//! | `mainstay_memory_reserved_bytes` | gauge | |
//! | `mainstay_memory_pressure_ratio` | gauge, 0 to 1: share of the last 10 s that all tasks stood still | |
//! | `mainstay_memory_refused_total` | counter | `priority` |
//! | `mainstay_memory_shrunk_bytes_total` | counter | `cache` |
//! | `mainstay_memory_purges_total` | counter | |

mod budget;
mod guard;
mod reading;

pub use budget::{Budget, MemoryRefused, Reservation};
pub use guard::{Allocator, AllocatorStats, MemoryGuard, MemoryReport, Shrinker};
pub use reading::{LimitSource, Reading, read};

use mainstay_resilience::{ConfigError, Priority};
use serde::{Deserialize, Serialize};

/// How near to its limit the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// There is room.
    Normal = 0,
    /// Somebody should know.
    Warn = 1,
    /// Caches shrink.
    Shrink = 2,
    /// Free pages go back to the kernel.
    Return = 3,
    /// Caches are emptied, most new work is refused.
    Reject = 4,
    /// Only control calls pass.
    Emergency = 5,
}

impl Step {
    /// All steps, the lightest first.
    pub const ALL: [Step; 6] =
        [Step::Normal, Step::Warn, Step::Shrink, Step::Return, Step::Reject, Step::Emergency];

    /// The name used in reports and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Normal => "normal",
            Step::Warn => "warn",
            Step::Shrink => "shrink",
            Step::Return => "return",
            Step::Reject => "reject",
            Step::Emergency => "emergency",
        }
    }

    /// The least important work that is still begun.
    #[must_use]
    pub const fn admits_from(self) -> Priority {
        match self {
            Step::Normal | Step::Warn => Priority::Background,
            Step::Shrink | Step::Return => Priority::Low,
            Step::Reject => Priority::High,
            Step::Emergency => Priority::Critical,
        }
    }

    /// The step of this number; emergency for anything larger.
    pub(crate) fn from_index(index: u8) -> Step {
        Step::ALL.get(usize::from(index)).copied().unwrap_or(Step::Emergency)
    }
}

/// Where the steps begin and how they are left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// A limit of one's own in bytes, beside those of the machine; 0 (default) sets none.
    pub limit_bytes: u64,
    /// Share of the limit at which warning begins, above 0 and below 1 (default 0.70).
    pub warn: f64,
    /// The same for shrinking caches (default 0.80).
    pub shrink: f64,
    /// The same for giving free pages back (default 0.82).
    pub give_back: f64,
    /// The same for refusing work (default 0.85).
    pub reject: f64,
    /// The same for refusing everything but control calls (default 0.93).
    pub emergency: f64,
    /// How far below its threshold a step is left, 0 to 0.2 of the limit (default 0.03).
    pub margin: f64,
    /// How long the use must stay there, in ms, 0 to 600,000 (default 2,000).
    pub hold_ms: u64,
    /// Time between two attempts to reclaim memory, in ms, 10 to 600,000 (default 1,000).
    pub reclaim_every_ms: u64,
    /// Share of time in which every task waited for memory from which on caches shrink whatever the
    /// use, 0 to 1 (default 0.10); 0 ignores it.
    pub stall: f64,
    /// Bytes that one request may reserve at most, 1 MiB or more (default 512 MiB).
    pub request_bytes_max: u64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig {
            limit_bytes: 0,
            warn: 0.70,
            shrink: 0.80,
            give_back: 0.82,
            reject: 0.85,
            emergency: 0.93,
            margin: 0.03,
            hold_ms: 2_000,
            reclaim_every_ms: 1_000,
            stall: 0.10,
            request_bytes_max: 512 << 20,
        }
    }
}

impl MemoryConfig {
    /// The share at which a step begins.
    #[must_use]
    pub fn threshold(&self, step: Step) -> f64 {
        match step {
            Step::Normal => 0.0,
            Step::Warn => self.warn,
            Step::Shrink => self.shrink,
            Step::Return => self.give_back,
            Step::Reject => self.reject,
            Step::Emergency => self.emergency,
        }
    }

    /// # Errors
    /// The first setting out of its range, or thresholds that do not rise.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, value: &dyn std::fmt::Display, allowed: &str| {
            Err(ConfigError::new(format!("memory.{field}"), value, allowed))
        };
        let steps = [
            ("warn", self.warn),
            ("shrink", self.shrink),
            ("give_back", self.give_back),
            ("reject", self.reject),
            ("emergency", self.emergency),
        ];
        let mut below = ("0", 0.0);
        for (field, value) in steps {
            // A comparison with what is not a number is false, so this refuses it too.
            let rises = value > below.1 && value < 1.0;
            if !rises {
                return refuse(field, &value, &format!("above {} and below 1", below.0));
            }
            below = (field, value);
        }
        if !(0.0..=0.2).contains(&self.margin) {
            return refuse("margin", &self.margin, "0 to 0.2");
        }
        if !(0.0..=1.0).contains(&self.stall) {
            return refuse("stall", &self.stall, "0 to 1");
        }
        if self.hold_ms > 600_000 {
            return refuse("hold_ms", &self.hold_ms, "0 to 600000");
        }
        if !(10..=600_000).contains(&self.reclaim_every_ms) {
            return refuse("reclaim_every_ms", &self.reclaim_every_ms, "10 to 600000");
        }
        if self.request_bytes_max < 1 << 20 {
            return refuse("request_bytes_max", &self.request_bytes_max, "1048576 or more");
        }
        if self.limit_bytes != 0 && self.limit_bytes < 32 << 20 {
            return refuse("limit_bytes", &self.limit_bytes, "0, or 33554432 or more");
        }
        Ok(())
    }
}
