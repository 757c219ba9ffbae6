//! [`State`]: what every handler shares, and the door to the blocking floors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mainstay_db::{Collection, Db, DbError};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::problem::Problem;

/// What every handler shares.
#[derive(Clone)]
pub(crate) struct State(Arc<Shared>);

struct Shared {
    db: Arc<Db>,
    config: Config,
    searches: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    started: Instant,
    draining: AtomicBool,
    metrics: Option<PrometheusHandle>,
}

/// Which bound a blocking call counts against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Reading: searches, documents, lists.
    Search,
    /// Writing, rebuilding, verifying.
    Write,
}

impl State {
    pub(crate) fn new(db: Arc<Db>, config: Config, metrics: Option<PrometheusHandle>) -> Self {
        Self(Arc::new(Shared {
            db,
            searches: Arc::new(Semaphore::new(config.searches_max)),
            writes: Arc::new(Semaphore::new(config.writes_max)),
            config,
            started: Instant::now(),
            draining: AtomicBool::new(false),
            metrics,
        }))
    }

    pub(crate) fn db(&self) -> &Arc<Db> {
        &self.0.db
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn metrics(&self) -> Option<&PrometheusHandle> {
        self.0.metrics.as_ref()
    }

    pub(crate) fn uptime_s(&self) -> f64 {
        self.0.started.elapsed().as_secs_f64()
    }

    /// Answers "not ready" from now on, so that load balancers look elsewhere.
    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn collection(&self, name: &str) -> Result<Collection, Problem> {
        Ok(self.0.db.collection(name)?)
    }

    /// Runs blocking work on a thread of its own, at most so many at a time; beyond that the caller
    /// is told at once to come again.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: Work,
        run: impl FnOnce(&Db) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, Problem> {
        let (permits, what, bound) = match work {
            Work::Search => (&self.0.searches, "searches", self.0.config.searches_max),
            Work::Write => (&self.0.writes, "writes", self.0.config.writes_max),
        };
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            metrics::counter!("mainstay_requests_shed_total", "work" => what).increment(1);
            let detail = format!("{bound} {what} are running, which is the bound; try again");
            return Err(Problem::busy(detail, 1000));
        };
        let db = Arc::clone(&self.0.db);
        let joined = tokio::task::spawn_blocking(move || {
            let result = run(&db);
            drop(permit);
            result
        });
        match joined.await {
            Ok(result) => Ok(result?),
            Err(error) => {
                Err(DbError::Internal(format!("the request's work ended: {error}")).into())
            }
        }
    }
}
