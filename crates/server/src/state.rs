//! [`State`]: what every handler shares, and the door to the blocking floors.

use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use mainstay_db::{Collection, Db, DbError};
use mainstay_ops::meter::Meter;

use tokio::sync::Semaphore;

use crate::answers::Answers;
use crate::config::Config;
use crate::operations::Operations;
use crate::problem::Problem;
use crate::reload::Reloader;

/// What every handler shares.
#[derive(Clone)]
pub(crate) struct State(Arc<Shared>);

struct Shared {
    db: Arc<Db>,
    running: RwLock<Arc<Running>>,
    meter: Option<&'static Meter>,
    operations: Operations,
    answers: Answers,
    reloader: OnceLock<Arc<Reloader>>,
}

/// A handle that keeps nothing alive.
pub(crate) struct WeakState(Weak<Shared>);

impl WeakState {
    /// The state, while the server lives.
    pub(crate) fn upgrade(&self) -> Option<State> {
        self.0.upgrade().map(State)
    }
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
    pub(crate) fn new(
        db: Arc<Db>,
        config: Config,
        meter: Option<&'static Meter>,
        operations: Operations,
    ) -> Self {
        Self(Arc::new(Shared {
            db,
            answers: Answers::new(config.answers_max, config.answers_stale_for),
            operations,
            reloader: OnceLock::new(),
            running: RwLock::new(Running::new(config)),
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

    /// What runs beside the requests.
    pub(crate) fn operations(&self) -> &Operations {
        &self.0.operations
    }

    /// Answers that stand in for better ones.
    pub(crate) fn answers(&self) -> &Answers {
        &self.0.answers
    }

    /// What reads the settings again, when there are sources to read.
    pub(crate) fn reloader(&self) -> Option<Arc<Reloader>> {
        self.0.reloader.get().cloned()
    }

    /// Once: a second one is ignored.
    pub(crate) fn set_reloader(&self, reloader: Reloader) {
        let _ = self.0.reloader.set(Arc::new(reloader));
    }

    /// A handle that keeps nothing alive.
    pub(crate) fn downgrade(&self) -> WeakState {
        WeakState(Arc::downgrade(&self.0))
    }

    /// Answers "not ready" from now on, so that load balancers look elsewhere.
    pub(crate) fn drain(&self) {
        self.0.operations.health.gate().drain();
    }

    pub(crate) fn collection(&self, name: &str) -> Result<Collection, Problem> {
        Ok(self.0.db.collection(name)?)
    }

    /// Runs a control call that may touch the disk: outside every limit.
    pub(crate) async fn control<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let joined = tokio::task::spawn_blocking(run).await;
        joined
            .map_err(|error| DbError::Internal(format!("the request's work ended: {error}")).into())
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
