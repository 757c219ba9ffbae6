//! Circuit breakers, retries, deadlines, limits and pipelines.
#![forbid(unsafe_code)]

mod adaptive_limit;
mod answer_cache;
mod attempt;
mod backoff;
mod bounded_map;
mod breaker;
mod budget;
mod bulkhead;
mod classify;
mod clock;
mod config_error;
mod context;
mod deadline;
mod error;
mod error_kind;
mod event;
mod fallback;
mod hedge;
mod histogram;
pub mod human_duration;
#[cfg(feature = "metrics")]
mod metrics_observer;
mod partial;
mod pipeline;
mod random;
mod rate_limit;
mod registry;
mod rejection;
mod retry;
mod retry_after;
#[cfg(feature = "serde")]
mod serde_duration;
mod sleeper;
mod slots;
mod strategy;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod throttle;
mod timeout;
#[cfg(feature = "tower")]
pub mod tower_layer;
#[cfg(feature = "tracing")]
mod tracing_observer;
mod work_queue;

pub use adaptive_limit::{AdaptiveConfig, AdaptiveLimit, AdaptivePermit, Law, OwnedAdaptivePermit};
pub use answer_cache::{Answer, AnswerCache};
pub use attempt::Attempt;
pub use backoff::{Backoff, Jitter};
pub use budget::{BudgetConfig, RetryBudget};
pub use context::{Context, Priority};
pub use deadline::Deadline;
pub use fallback::{Fallback, FallbackCall};
pub use hedge::{Hedge, HedgeBuilder, HedgeDelay};
#[cfg(feature = "metrics")]
pub use metrics_observer::MetricsObserver;
pub use partial::{Enough, Missing, Outcome, Partial, TooFew};
pub use pipeline::{Bare, Chain, Optional, OrderError, Pipeline, PipelineBuilder};
pub use retry::{Retry, RetryBuilder, RetryConfig, RetryStats};
pub use retry_after::parse_retry_after;
#[cfg(feature = "tokio")]
pub use sleeper::TokioSleeper;
pub use sleeper::{NoSleeper, Sleeper};
pub use slots::QueueOrder;
pub use strategy::{BlockingNext, BlockingStrategy, Describe, Done, Env, Next, Part, Strategy};
pub use throttle::{Throttle, ThrottleConfig};
pub use timeout::Timeout;
#[cfg(feature = "tracing")]
pub use tracing_observer::TracingObserver;
pub use work_queue::{JobHandle, Pressure, QueueConfig, WorkQueue, Workers};

pub use breaker::{
    Adaptive, BreakerBuilder, BreakerConfig, BreakerSnapshot, CircuitBreaker, DropRule, OpenFor,
    OwnedPermit, Permit, Probes, Ramp, SlowCalls, State, Window,
};
pub use bulkhead::{Bulkhead, BulkheadConfig, BulkheadPermit, OwnedBulkheadPermit};
#[cfg(feature = "http")]
pub use classify::retry_after_of;
pub use classify::{from_http_status as classify_http_status, from_text as classify_text};
pub use clock::{Clock, ManualClock, Tick, TimeSource};
pub use config_error::ConfigError;
pub use error::{Error, Exhausted, GaveUp, TimedOut};
pub use error_kind::{Classify, ErrorKind, Verdict};
pub use event::{Cause, Event, FanOut, Observer};
pub use rate_limit::{
    Algorithm, KeyedConfig, KeyedRateLimiter, Lease, LeasedLimiter, QuotaSource, RateConfig,
    RateLimiter, WhenFull, WithoutSource,
};
pub use registry::{
    Endpoint, EndpointStatus, Overrides, Pipelines, PipelinesConfig, ServiceConfig,
};
pub use rejection::{PolicyKind, Reason, Rejection};
