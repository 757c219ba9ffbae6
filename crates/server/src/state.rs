//! [`State`]: what every handler shares, and the door to the blocking floors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use mainstay_db::{Collection, Db, DbError};
use mainstay_ops::meter::Meter;

use tokio::sync::Semaphore;

use crate::config::Config;
use crate::problem::Problem;

/// What every handler shares.
#[derive(Clone)]
pub(crate) struct State(Arc<Shared>);

struct Shared {
    db: Arc<Db>,
    running: RwLock<Arc<Running>>,
    started: Instant,
    draining: AtomicBool,
    meter: Option<&'static Meter>,
}

/// What a reload replaces.
struct Running {
    config: Config,
    searches: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Running {
    fn new(config: Config) -> Arc<Self> {
        let searches = Arc::new(Semaphore::new(config.searches_max));
        let writes = Arc::new(Semaphore::new(config.writes_max));
        Arc::new(Self { config, searches, writes })
    }
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
    pub(crate) fn new(db: Arc<Db>, config: Config, meter: Option<&'static Meter>) -> Self {
        Self(Arc::new(Shared {
            db,
            running: RwLock::new(Running::new(config)),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            meter,
        }))
    }

    pub(crate) fn db(&self) -> &Arc<Db> {
        &self.0.db
    }

    fn running(&self) -> Arc<Running> {
        Arc::clone(&self.0.running.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn config(&self) -> Config {
        self.running().config.clone()
    }

    /// Takes over another configuration. What runs keeps the bounds it was admitted under.
    pub(crate) fn reconfigure(&self, config: Config) {
        let running = Running::new(config);
        *self.0.running.write().unwrap_or_else(PoisonError::into_inner) = running;
    }

    pub(crate) fn meter(&self) -> Option<&'static Meter> {
        self.0.meter
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
        let running = self.running();
        let (permits, what, bound) = match work {
            Work::Search => (&running.searches, "searches", running.config.searches_max),
            Work::Write => (&running.writes, "writes", running.config.writes_max),
        };
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            metrics::counter!("mainstay_requests_shed_total", "work" => what).increment(1);
            let detail = format!("{bound} {what} are running, which is the bound; try again");
            return Err(Problem::busy(detail, 1000));
        };
        let db = Arc::clone(&self.0.db);
        // The span goes along, so that whatever the work logs and calls names its request.
        let span = tracing::Span::current();
        let joined = tokio::task::spawn_blocking(move || {
            let result = span.in_scope(|| run(&db));
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
