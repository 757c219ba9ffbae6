//! Circuit breakers, retries with budgets, deadlines, rate and concurrency limits, hedges,
//! fallbacks and pipelines: exact, cheap, cancel-safe, and without `unsafe`.
//!
//! # In ten minutes
//!
//! **A policy is a value.** Build it once, clone it freely: clones share the state. Each works alone,
//! blocking or awaited, without a runtime. What admits a call returns a *permit*, which takes the
//! result; a permit that is dropped is a cancelled call, and each policy says what that means.
//!
//! ```
//! use mainstay_resilience::{CircuitBreaker, ErrorKind};
//!
//! let breaker = CircuitBreaker::external_service("catalogue");
//! let permit = breaker.try_acquire()?;
//! let result: Result<&str, ErrorKind> = Ok("found");
//! permit.record(&result);
//! # Ok::<(), mainstay_resilience::Rejection>(())
//! ```
//!
//! **A pipeline is policies in order**, the outermost first. Its type is the chain, so nothing is
//! boxed, and an order that makes no sense is refused when it is built:
//!
//! ```
//! use mainstay_resilience::{
//!     CircuitBreaker, ErrorKind, Fallback, Pipeline, Retry, RetryBudget, Timeout,
//! };
//! use std::time::Duration;
//!
//! let budget = RetryBudget::new(Default::default())?;
//! let search = Pipeline::builder()
//!     .then(Timeout::total("search", Duration::from_millis(800))?)
//!     .then(Fallback::to("empty", |_: &mainstay_resilience::Error<ErrorKind>| Some(Vec::new())))
//!     .then(Retry::builder("search").budget(&budget).build()?)
//!     .then(CircuitBreaker::search_method("dense"))
//!     .then(Timeout::per_attempt("search", Duration::from_millis(250))?)
//!     .build()?;
//! let hits: Vec<u32> = search.run(|_attempt| Err(ErrorKind::ServerError)).unwrap();
//! assert!(hits.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `run` blocks its thread; `call` awaits, and needs a [`Sleeper`] (tokio's behind the feature
//! `tokio`). The operation gets an [`Attempt`]: its number, its deadline, why the one before failed.
//!
//! **Which policy for what?**
//!
//! | trouble | policy |
//! |---|---|
//! | it may hang | [`Timeout`], with a [`Deadline`] passed on |
//! | it fails now and then | [`Retry`], within a [`RetryBudget`] |
//! | it fails for a while | [`CircuitBreaker`] |
//! | it refuses much of what it gets | [`Throttle`] |
//! | it is slow now and then | [`Hedge`] |
//! | it allows so many calls per second | [`RateLimiter`], [`KeyedRateLimiter`], [`LeasedLimiter`] |
//! | it bears so many calls at a time | [`Bulkhead`]; if nobody knows how many, [`AdaptiveLimit`] |
//! | work comes faster than it is done | [`WorkQueue`] |
//! | a worse answer is better than none | [`Fallback`], [`FallbackCall`], [`AnswerCache`] |
//! | some of several steps may fail | [`Partial`] |
//! | all of it, for each service and endpoint, from a file | [`Pipelines`] |
//!
//! **Which order?** Limit in all → fallback → retry → hedge → breaker → rate limit → bulkhead → limit
//! of an attempt → operation. A fallback inside a retry hides every error from it; a breaker outside
//! the retry counts calls instead of attempts; a timeout outside a breaker or an adaptive limit that
//! counts no dropped calls ([`DropRule`]) hides every hang from it.
//!
//! **Errors** have one taxonomy, [`ErrorKind`]; an error says where it stands by [`Classify`]. A
//! refusal is a [`Rejection`]: which policy, why, with which figures, when to try again.
//!
//! **Time** is a [`Clock`]. Policies read it at most twice per call, and the coarse reading wherever
//! nothing below 100 ms is measured. In tests it is a [`ManualClock`], or whole virtual time with the
//! feature `testing`.
//!
//! # From a file, and while it runs
//! (Feature `serde` to read one.) [`Pipelines`] makes one pipeline for each service and endpoint at its first use, from defaults that
//! a service, and an endpoint of it, may override ([`Overrides`]), and from the environment:
//!
//! ```
//! use mainstay_resilience::{Context, ErrorKind, Pipelines, PipelinesConfig};
//!
//! let read = |text: &str| PipelinesConfig::read(&mut serde_json::Deserializer::from_str(text));
//! let text = r#"{
//!     "defaults": { "timeout": "5s", "attempts": 2 },
//!     "services": {
//!         "openai": {
//!             "all": { "breaker_failures": 3, "breaker_open": "90s" },
//!             "endpoints": {
//!                 "embeddings": {
//!                     "timeout": "750ms",
//!                     "bulkhead": { "limit": 8, "queue": 16, "wait_max": "2s" },
//!                     "rate": { "algorithm": "token_bucket", "limit": 50, "period": "1s" }
//!                 }
//!             }
//!         }
//!     }
//! }"#;
//! let config = read(text)?.with_environment(std::env::vars_os())?;
//! let pipelines = Pipelines::new(config)?;
//! let answer = pipelines.run("openai", "embeddings", Context::default(), |attempt| {
//!     assert!(attempt.deadline().is_set(), "pass it on");
//!     Ok::<_, ErrorKind>([0.5, 0.5])
//! });
//! assert!(answer.is_ok());
//!
//! // Another configuration: windows, states, tokens and slots are kept.
//! pipelines.reload(read(r#"{ "defaults": { "attempts": 4 } }"#)?)?;
//! assert_eq!(pipelines.endpoint("openai", "embeddings").retry().config().attempts, 4);
//!
//! // Whatever is wrong is told before anything changes: key, value, allowed values.
//! let refused = read(r#"{ "defaults": { "attempts": 0 } }"#).unwrap_err();
//! assert_eq!(refused.to_string(), "defaults.attempts: 0 is not allowed, use 1 to 100");
//! # Ok::<(), mainstay_resilience::ConfigError>(())
//! ```
//!
//! `OPENAI_HTTP_RETRIES=5` does for a service, and `HTTP_RETRIES=5` for all, what `attempts` does in the
//! file; [`with_environment`](PipelinesConfig::with_environment) lists the variables.
//! [`list`](Pipelines::list) shows how every endpoint stands, and
//! [`dependency`](Pipelines::dependency) finds a breaker to isolate or reset by hand.
//!
//! # Around a service of tower
//! The same policies as layers, outermost first (feature `tower`, module `tower_layer`):
//!
//! ```
//! use mainstay_resilience::testing::VirtualTime;
//! use mainstay_resilience::tower_layer::{PolicyLayer, RetryLayer, TimeoutLayer};
//! use mainstay_resilience::{CircuitBreaker, ErrorKind, Retry, Timeout};
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let time = VirtualTime::new(); // in a program: `TokioSleeper`, and no clock
//! let total = Timeout::total("search", Duration::from_secs(2))?;
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::new(total, time.sleeper()).on_clock(time.clock()))
//!     .layer(RetryLayer::new(Retry::builder("search").build()?, time.sleeper()).on_clock(time.clock()))
//!     .layer(PolicyLayer::new(CircuitBreaker::search_method("dense"))?)
//!     .service_fn(|query: &'static str| async move { Ok::<_, ErrorKind>(query.len()) });
//! assert_eq!(time.block_on(service.oneshot("words")), Ok(5));
//! # Ok::<(), mainstay_resilience::ConfigError>(())
//! ```
//!
//! # In a test
//! Time is virtual, so nothing sleeps and everything is the same each time. A test of one policy moves a
//! [`ManualClock`]; one of a chain runs in `VirtualTime`, with `Faults` where the dependency would be; one
//! of a whole outage asks a `Simulation` how much load reached the dependency (feature `testing`).
//!
//! ```
//! use mainstay_resilience::testing::{Fault, Faults, VirtualTime};
//! use mainstay_resilience::{Backoff, ErrorKind, Pipeline, Retry};
//! use std::time::Duration;
//!
//! let time = VirtualTime::new();
//! let began = time.clock().now();
//! let second = Duration::from_secs(1);
//! let down = Faults::new("dependency", 7, time.clock(), || ErrorKind::Connection)
//!     .during(Duration::ZERO..second, Fault::Error, 1.0)?;
//! let pipeline = Pipeline::builder()
//!     .clock(time.clock())
//!     .sleeper(time.sleeper())
//!     .then(Retry::builder("search").backoff(Backoff::fixed(second)).build()?)
//!     .then(down)
//!     .build()
//!     .expect("the order makes sense");
//! let answer = time.block_on(pipeline.call(|attempt| async move { Ok::<_, ErrorKind>(attempt.number()) }));
//! assert_eq!(answer, Ok(2), "the second attempt found it well");
//! assert_eq!(time.clock().now().since(began), second);
//! # Ok::<(), mainstay_resilience::ConfigError>(())
//! ```
//!
//! # Features
//! None by default. `serde`: configuration files. `tokio`: waiting on its timer. `tower`: layers.
//! `metrics`, `tracing`: observers. `http`, `tonic`, `reqwest`, `object_store`, `sqlx`, `redis`: places
//! of their errors in the taxonomy. `testing`: virtual time, injected faults, the simulator.
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod adaptive_limit;
mod answer_cache;
mod attempt;
mod attempt_span;
mod backoff;
mod bounded_map;
mod breaker;
mod breaker_state;
mod budget;
mod bulkhead;
mod call_figures;
mod classify;
mod clock;
mod config_error;
mod context;
mod deadline;
mod dependency;
mod error;
mod error_kind;
mod event;
mod fallback;
mod fault_point;
mod hedge;
mod histogram;
pub mod human_duration;
mod losers;
#[cfg(feature = "metrics")]
mod metrics_observer;
mod name;
mod partial;
mod pipeline;
mod propagation;
mod random;
mod rate_limit;
mod registry;
mod rejection;
mod retry;
mod retry_after;
#[cfg(feature = "serde")]
mod serde_duration;
mod shares;
mod sleeper;
mod slots;
mod strategy;
mod stripes;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod throttle;
mod timeout;
#[cfg(feature = "tower")]
pub mod tower_layer;
#[cfg(feature = "tracing")]
mod tracing_observer;
mod waiting_jobs;
mod work_queue;

pub use adaptive_limit::{AdaptiveConfig, AdaptiveLimit, AdaptivePermit, Law, OwnedAdaptivePermit};
pub use answer_cache::{Answer, AnswerCache, AnswerCacheConfig};
pub use attempt::Attempt;
pub use backoff::{Backoff, Jitter};
pub use budget::{BudgetConfig, RetryBudget};
pub use context::{CallerKey, Context, Priority};
pub use deadline::Deadline;
pub use fallback::{Fallback, FallbackCall};
pub use hedge::{Hedge, HedgeBuilder, HedgeConfig, HedgeDelay};
#[cfg(feature = "metrics")]
pub use metrics_observer::{MetricsObserver, export_breaker, export_retry};
pub use partial::{Enough, Missing, Outcome, Partial, TooFew};
pub use pipeline::{Bare, Chain, Optional, OrderError, Pipeline, PipelineBuilder};
pub use propagation::{HeaderSource, propagated_headers, set_header_source};
pub use retry::{Retry, RetryBuilder, RetryConfig, RetryStats};
pub use retry_after::parse_retry_after;
#[cfg(feature = "tokio")]
pub use sleeper::TokioSleeper;
pub use sleeper::{NoSleeper, Sleeper};
pub use slots::QueueOrder;
pub use strategy::{
    BlockingNext, BlockingStrategy, Describe, Done, Env, Links, Next, Part, Strategy,
};
pub use throttle::{Throttle, ThrottleConfig};
pub use timeout::Timeout;
#[cfg(feature = "tracing")]
pub use tracing_observer::TracingObserver;
pub use work_queue::{JobHandle, Pressure, QueueConfig, WorkQueue, Workers};

pub use breaker::{
    Adaptive, BreakerBuilder, BreakerConfig, BreakerSnapshot, CircuitBreaker, DropRule, OpenFor,
    OwnedPermit, Permit, Probes, Ramp, SlowCalls, State, Window,
};
pub use breaker_state::Cause;
pub use bulkhead::{Bulkhead, BulkheadConfig, BulkheadPermit, OwnedBulkheadPermit};
pub use call_figures::{CallFigures, CallSnapshot};
#[cfg(feature = "http")]
pub use classify::retry_after_of;
pub use classify::{from_http_status as classify_http_status, from_text as classify_text};
pub use clock::{Clock, ManualClock, Tick, TimeSource};
pub use config_error::ConfigError;
pub use dependency::{ActiveProbe, Criticality, Dependency, DependencyKind};
pub use error::{Error, Exhausted, GaveUp, TimedOut};
pub use error_kind::{Classify, ErrorKind, Verdict};
pub use event::{Event, FanOut, Observer};
pub use fault_point::{FaultPoint, Injected, InjectedFault};
pub use rate_limit::{
    Algorithm, KeyedConfig, KeyedLeasedLimiter, KeyedRateLimiter, Lease, LeasedLimiter,
    QuotaSource, RateConfig, RateLimiter, WhenFull, WithoutSource,
};
pub use registry::{
    Endpoint, EndpointStatus, Overrides, Pipelines, PipelinesConfig, ServiceConfig,
};
pub use rejection::{PolicyKind, Reason, Rejection};
