//! [`Options`]: how a data directory is opened.

use std::sync::Arc;
use std::time::Duration;

use mainstay_resilience::{
    BreakerConfig, CircuitBreaker, FanOut, MetricsObserver, TracingObserver,
};
use mainstay_search::method::Method;
use mainstay_storage::LogOptions;

use crate::error::DbError;
use crate::faults::Faults;

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
    /// Fault points, for tests and drills.
    pub faults: Faults,
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
            faults: Faults::default(),
            compact_interval: Duration::from_secs(60),
        }
    }
}

impl Options {
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

    /// A breaker for one method of one collection.
    pub(crate) fn breaker(&self, collection: &str, method: Method) -> CircuitBreaker {
        CircuitBreaker::builder(format!("{collection}/{method}"))
            .config(self.breaker.clone())
            .observer(Arc::new(FanOut::new(vec![
                Arc::new(MetricsObserver),
                Arc::new(TracingObserver),
            ])))
            .build()
            .expect("the configuration was validated when the data directory was opened")
    }
}
