//! [`Options`]: how a data directory is opened.

use std::sync::Arc;
use std::time::Duration;

use mainstay_resilience::{
    BreakerConfig, CircuitBreaker, Clock, ConfigError, Criticality, Dependency, DependencyKind,
    FanOut, MetricsObserver, NoSleeper, Pipelines, PipelinesConfig, TracingObserver,
};
use mainstay_search::method::Method;
use mainstay_storage::LogOptions;

use crate::error::DbError;

/// How a data directory is opened. `Options::default()` suits production.
#[derive(Clone, Debug)]
pub struct Options {
    /// The write-ahead logs.
    pub log: LogOptions,
    /// Threads for each search method; 0 means as many as there are cores.
    pub search_threads: usize,
    /// Threads that embed; 0 means as many as there are cores.
    pub embed_threads: usize,
    /// The share of each embedding thread's time that background refinement may use, in percent; 1
    /// to 100. Queries are embedded first whatever this says.
    pub refine_percent: u8,
    /// Memory for embedded queries, in bytes; 0 keeps none.
    pub query_cache_bytes: usize,
    /// Each search method's breaker.
    pub breaker: BreakerConfig,
    /// The process's dependencies: search methods are declared here, and remote providers of
    /// embeddings are called through it.
    pub pipelines: Pipelines,
    /// How often a log is looked at for compaction; zero for never.
    pub compact_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: LogOptions::default(),
            search_threads: 0,
            embed_threads: 0,
            refine_percent: 50,
            query_cache_bytes: 16 << 20,
            breaker: BreakerConfig::search_method(),
            pipelines: Self::pipelines(PipelinesConfig::default())
                .expect("the default configuration is valid, as its tests check"),
            compact_interval: Duration::from_secs(60),
        }
    }
}

impl Options {
    /// Pipelines whose events become metrics and log lines.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn pipelines(config: PipelinesConfig) -> Result<Pipelines, ConfigError> {
        let observers = FanOut::new(vec![Arc::new(MetricsObserver), Arc::new(TracingObserver)]);
        Pipelines::with(config, Clock::system(), NoSleeper, Arc::new(observers))
    }

    /// Checks every range.
    pub(crate) fn validate(&self) -> Result<(), DbError> {
        if !(1..=100).contains(&self.refine_percent) {
            return Err(DbError::Bound {
                message: format!("refine_percent is {}; allowed is 1 to 100", self.refine_percent),
            });
        }
        self.breaker
            .validate()
            .map_err(|error| DbError::Bound { message: format!("breaker: {error}") })
    }

    /// Declares one method of one collection.
    pub(crate) fn declare(&self, collection: &str, method: Method) -> Dependency {
        let breaker = CircuitBreaker::builder(format!("{collection}/{method}"))
            .config(self.breaker.clone())
            .observer(self.pipelines.observer())
            .build()
            .expect("the configuration was validated when the data directory was opened");
        let method = Dependency::new(breaker, DependencyKind::Component, Criticality::Degrades);
        self.pipelines.declare(&method);
        method
    }
}
