//! Circuit breakers, retries, deadlines, limits and pipelines.
#![forbid(unsafe_code)]

mod breaker;
mod clock;
mod config_error;
mod error;
mod error_kind;
mod event;
pub mod human_duration;
mod random;
mod rejection;
#[cfg(feature = "serde")]
mod serde_duration;
mod sync;

pub use breaker::{
    Adaptive, BreakerBuilder, BreakerConfig, BreakerSnapshot, CircuitBreaker, DropRule, OpenFor,
    OwnedPermit, Permit, Probes, Ramp, SlowCalls, State, Window,
};
pub use clock::{Clock, ManualClock, Tick, TimeSource};
pub use config_error::ConfigError;
pub use error::{Error, Exhausted, GaveUp, TimedOut};
pub use error_kind::{Classify, ErrorKind, Verdict};
pub use event::{Cause, Event, FanOut, Observer};
pub use rejection::{PolicyKind, Reason, Rejection};
