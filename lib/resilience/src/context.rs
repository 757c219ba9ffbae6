//! What a caller says about one call: by when, how important, on whose behalf.

use crate::deadline::Deadline;

/// How important a call is. Under load the least important are refused first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Priority {
    /// May wait for hours: compaction, re-indexing.
    Background = 0,
    /// May be dropped: prefetching, speculative work.
    Low = 1,
    /// A user waits for it.
    #[default]
    Normal = 2,
    /// A user waits for it and pays for it.
    High = 3,
    /// Must pass while anything passes: health checks, administration.
    Critical = 4,
}

impl Priority {
    /// All levels, least important first.
    pub const ALL: [Priority; 5] =
        [Priority::Background, Priority::Low, Priority::Normal, Priority::High, Priority::Critical];

    /// The level as a number, 0 (least important) to 4.
    #[must_use]
    pub const fn level(self) -> u32 {
        self as u32
    }

    /// The name used in configuration and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Background => "background",
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
            Priority::Critical => "critical",
        }
    }
}

/// What a caller says about one call. A [`Deadline`] alone is a context too.
///
/// ```
/// use mainstay_resilience::{Clock, Context, Deadline, Priority};
/// use std::time::Duration;
///
/// let deadline = Deadline::after(&Clock::system(), Duration::from_millis(800));
/// let context = Context::within(deadline).priority(Priority::High).caller("tenant-7");
/// # let _ = context;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub(crate) deadline: Deadline,
    pub(crate) priority: Priority,
    pub(crate) caller: Option<u64>,
}

impl Default for Context {
    fn default() -> Self {
        Context::within(Deadline::NEVER)
    }
}

impl Context {
    /// A call of normal priority that must be done by `deadline`.
    #[must_use]
    pub const fn within(deadline: Deadline) -> Self {
        Context { deadline, priority: Priority::Normal, caller: None }
    }

    /// The same with this priority.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The same on behalf of `caller`, a tenant or an API key, for fair shares. Only a hash is
    /// kept; two callers with one hash share their share.
    #[must_use]
    pub fn caller(mut self, caller: &str) -> Self {
        // FNV-1a: fixed, so that the same caller is the same in every process.
        let hash = caller.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.caller = Some(hash);
        self
    }
}

impl From<Deadline> for Context {
    fn from(deadline: Deadline) -> Self {
        Context::within(deadline)
    }
}

impl From<Priority> for Context {
    fn from(priority: Priority) -> Self {
        Context::default().priority(priority)
    }
}
