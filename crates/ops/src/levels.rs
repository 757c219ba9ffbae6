//! The ladder of service levels: full, degraded, minimal, maintenance.
//!
//! Signals say which level they want; the worst one counts. A level gets worse once a signal wants
//! it for `worsen_after_ms`, and better one rung at a time, each after `recover_after_ms` in which
//! no signal wanted to stay. Queue age has separate thresholds for both directions; the other
//! signals bring their own hysteresis. By hand a level is held for a time, never forever.
//!
//! What a level means is data ([`Effects`]); whoever answers a request reads it once and shows
//! level and reason in the answer.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_level` | gauge: 0 full, 1 degraded, 2 minimal, 3 maintenance | |
//! | `mainstay_level_transitions_total` | counter | `to`, `cause` (`signal`, `hand`, `recovery`) |

mod effects;
mod ladder;
mod signals;

pub use effects::{Effects, LevelEffects};
pub use ladder::{Held, HoldError, Levels, LevelsReport, Standing, Transition};
pub use signals::{LevelsConfig, Signals};

use serde::{Deserialize, Serialize};

/// How much service there is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Everything.
    #[default]
    Full = 0,
    /// Without what is costly: no refining model, less effort.
    Degraded = 1,
    /// What must work: lexical methods, cached answers.
    Minimal = 2,
    /// Read-only, or closed.
    Maintenance = 3,
}

impl Level {
    /// All levels, the best first.
    pub const ALL: [Level; 4] = [Level::Full, Level::Degraded, Level::Minimal, Level::Maintenance];

    /// The name used in answers, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Full => "full",
            Level::Degraded => "degraded",
            Level::Minimal => "minimal",
            Level::Maintenance => "maintenance",
        }
    }

    /// One rung up; full stays full.
    pub(crate) fn better(self) -> Level {
        Level::ALL[(self as usize).saturating_sub(1)]
    }
}
