//! Health: is it up, is it ready, and which dependency is in trouble.
//!
//! Three questions that are never mixed:
//!
//! * **live** ([`Pulses`]): do the process's own loops still turn? A dependency never decides it,
//!   because a restart heals no dependency.
//! * **started** ([`Gate`]): are recovery and warm-up over?
//! * **ready** ([`Gate`]): started, not draining, and no critical check failing for long enough.
//!
//! Checks run on threads of their own, one for each check and never a second one for the same
//! check, so one that hangs costs one thread and takes the answer of nobody else. Readers only ever
//! look at the last results: a [`HealthRegistry::report`] takes microseconds while every dependency
//! hangs.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_health_check_state` | gauge: 0 healthy, 1 degraded, 2 unhealthy, 3 unknown | `check` |
//! | `mainstay_health_check_duration_seconds` | histogram | `check` |
//! | `mainstay_health_check_timeouts_total` | counter | `check` |
//! | `mainstay_ready` | gauge: 0 or 1 | |

mod check;
mod gate;
mod pulse;
mod registry;
mod report;
mod worker;

pub use check::{Check, ComponentKind, Figure, Observation};
pub use gate::{Gate, GateConfig, Readiness, Startup};
pub use mainstay_resilience::Criticality;
pub use pulse::{Liveness, Pulse, Pulses};
pub use registry::{CHECKS_MAX, HealthError, HealthRegistry, ServiceInfo};
pub use report::{CheckEntry, HealthReport, Status};

use serde::{Deserialize, Serialize};

/// How a process or one of its dependencies is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It works as it should.
    Healthy,
    /// It works, with something missing or slow.
    Degraded,
    /// It does not work.
    Unhealthy,
    /// Nobody can say: it was never asked, does not answer, or answered too long ago.
    Unknown,
}

impl Health {
    /// The name used in reports and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Unhealthy => "unhealthy",
            Health::Unknown => "unknown",
        }
    }

    /// The figure for dashboards: 0 healthy, 1 degraded, 2 unhealthy, 3 unknown.
    #[must_use]
    pub const fn as_gauge(self) -> u8 {
        match self {
            Health::Healthy => 0,
            Health::Degraded => 1,
            Health::Unhealthy => 2,
            Health::Unknown => 3,
        }
    }

    /// The worse of two, where unhealthy is worst: what is known to be broken outweighs what nobody
    /// knows.
    #[must_use]
    pub fn worse(self, other: Health) -> Health {
        let rank = |health| match health {
            Health::Healthy => 0,
            Health::Degraded => 1,
            Health::Unknown => 2,
            Health::Unhealthy => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}
