//! [`Catalogue`]: the database behind its pipeline.
//!
//! Invariants: nothing is asked of the database before its tables have this release's version; every
//! call goes through the pipeline; messages never hold a password.

use std::sync::Arc;

use mainstay_resilience::{
    Classify, Clock, ConfigError, Context, Criticality, Dependency, DependencyKind, Error, FanOut,
    MetricsObserver, Pipelines, PipelinesConfig, TokioSleeper, TracingObserver,
};
use std::time::Duration;
use tokio::sync::OnceCell;

use crate::comment::comment;
use crate::config::PoolConfig;
use crate::database::{Database, Row, Statement};
use crate::error::CatalogueError;
use crate::fault::Fault;
use crate::location::Location;
use crate::pool::PoolFigures;

/// The service's name in pipelines, metrics and settings (`service.catalogue.timeout`).
pub const SERVICE: &str = "catalogue";

/// How long an injected hang keeps its thread: its call was given up long before.
const FAULT_MAX: Duration = Duration::from_secs(60);

/// The catalogue. Clones share it.
#[derive(Clone)]
pub struct Catalogue(Arc<Shared>);

struct Shared {
    location: Location,
    database: Database,
    pipelines: Pipelines<TokioSleeper>,
    dependency: Dependency,
    migrated: OnceCell<()>,
}

/// What the settings leave open: a call is some milliseconds of work, and who waits is a person or a
/// loop that comes again.
fn with_defaults(mut config: PipelinesConfig) -> PipelinesConfig {
    let all = &mut config.services.entry(SERVICE.to_string()).or_default().all;
    if all.timeout.is_none() {
        all.timeout = Some(Duration::from_secs(3));
        all.total_timeout.get_or_insert(Duration::from_secs(10));
    }
    all.attempts.get_or_insert(3);
    let base = *all.backoff_base.get_or_insert(Duration::from_millis(100));
    // Whoever sets the base alone has not asked for waits below it.
    all.backoff_max.get_or_insert(base.max(Duration::from_secs(1)));
    all.breaker_open.get_or_insert(Duration::from_secs(5));
    config
}

impl Catalogue {
    /// Checks the limits of its calls, with what `pipelines` leaves open filled in.
    ///
    /// # Errors
    /// The first that is out of its range.
    pub fn validate(pipelines: PipelinesConfig) -> Result<(), ConfigError> {
        with_defaults(pipelines).validate()
    }

    /// A catalogue that asks its database when it is first needed. `pipelines` is the process's
    /// configuration; what it leaves open for the service `catalogue` is 3 s for an attempt, 10 s in
    /// all, 3 attempts, and a breaker that stays open for 5 s. Needs a tokio runtime.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub fn new(
        location: Location,
        pool: &PoolConfig,
        pipelines: PipelinesConfig,
    ) -> Result<Self, ConfigError> {
        pool.validate()?;
        let observers = FanOut::new(vec![Arc::new(MetricsObserver), Arc::new(TracingObserver)]);
        let pipelines = Pipelines::with(
            with_defaults(pipelines),
            Clock::system(),
            TokioSleeper,
            Arc::new(observers),
        )?;
        // Nothing that is searched needs it: health names it, and the level of service stays.
        pipelines.declare_service(SERVICE, DependencyKind::Datastore, Criticality::Informative);
        let endpoint = pipelines.endpoint(SERVICE, location.backend());
        let dependency = endpoint.dependency().clone();
        let database = Database::new(&location, pool);
        Ok(Self(Arc::new(Shared {
            location,
            database,
            pipelines,
            dependency,
            migrated: OnceCell::new(),
        })))
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.0.location
    }

    /// Sets the figures of its policies, for whoever answers a scrape.
    pub fn export_metrics(&self) {
        self.0.pipelines.export_metrics();
    }

    /// What the process depends on: breaker, figures and fault point, to be declared in its registry.
    #[must_use]
    pub fn dependency(&self) -> &Dependency {
        &self.0.dependency
    }

    /// How the pool of connections is.
    #[must_use]
    pub fn pool(&self) -> PoolFigures {
        self.0.database.figures()
    }

    /// Takes over other limits for its calls while running.
    ///
    /// # Errors
    /// What is wrong with them; nothing has changed then.
    pub fn reconfigure(&self, pipelines: PipelinesConfig) -> Result<(), ConfigError> {
        self.0.pipelines.reload(with_defaults(pipelines))
    }

    /// Brings the tables to this release's version. Every call does so first; asking for it at the
    /// start tells a lasting fault early.
    ///
    /// # Errors
    /// The database cannot be asked, or a later release has changed the tables.
    pub async fn prepare(&self) -> Result<(), CatalogueError> {
        self.0.migrated.get_or_try_init(|| self.migrate()).await.copied()
    }

    /// Asks the database for nothing.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ping(&self) -> Result<(), CatalogueError> {
        self.ask("ping", Statement::new("SELECT COUNT(*) FROM mainstay_nodes")).await.map(|_| ())
    }

    /// Ends: running calls are waited for, connections are closed.
    pub async fn close(&self) {
        self.0.database.close().await;
    }

    /// One statement, its rows.
    pub(crate) async fn ask(
        &self,
        operation: &'static str,
        statement: Statement,
    ) -> Result<Vec<Row>, CatalogueError> {
        self.prepare().await?;
        let rows = self.run(operation, vec![statement]).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Several statements as one transaction.
    pub(crate) async fn change(
        &self,
        operation: &'static str,
        statements: Vec<Statement>,
    ) -> Result<(), CatalogueError> {
        self.prepare().await?;
        self.run(operation, statements).await.map(|_| ())
    }

    /// Through the pipeline, without a look at the tables' version.
    pub(crate) async fn run(
        &self,
        operation: &'static str,
        statements: Vec<Statement>,
    ) -> Result<Vec<Vec<Row>>, CatalogueError> {
        let Shared { location, database, pipelines, dependency, .. } = &*self.0;
        let statements: Vec<Statement> =
            statements.into_iter().map(|statement| database.spell(statement)).collect();
        // Asked here: an attempt has a span of its own, also one that no request has caused.
        let within_request = !comment().is_empty();
        let attempt = |_| async {
            if dependency.faults().get().is_some() {
                let faults = dependency.faults().clone();
                // A fault may hang, and must not hang the runtime.
                let struck =
                    tokio::task::spawn_blocking(move || faults.strike_within(FAULT_MAX)).await;
                if !matches!(struck, Ok(Ok(()))) {
                    return Err(Fault::Injected);
                }
            }
            // Within the attempt's span, which is what the database works for.
            let comment = if within_request { comment() } else { String::new() };
            Box::pin(database.run(&statements, &comment)).await
        };
        // Boxed: the chain of policies around a driver's future is a type too deep for the compiler.
        let called = pipelines.call(SERVICE, location.backend(), Context::default(), attempt);
        Box::pin(called).await.map_err(|error| self.failed(operation, error))
    }

    fn failed(&self, operation: &'static str, error: Error<Fault>) -> CatalogueError {
        match error.operation() {
            Some(Fault::Row(detail)) => {
                CatalogueError::Unreadable { operation, detail: detail.clone() }
            }
            _ => CatalogueError::Unavailable {
                location: self.location().to_string(),
                operation,
                kind: error.kind(),
                detail: error.to_string(),
            },
        }
    }

    pub(crate) fn unreadable(&self, operation: &'static str, fault: &Fault) -> CatalogueError {
        CatalogueError::Unreadable { operation, detail: fault.to_string() }
    }

    /// The only number of the only row.
    pub(crate) fn first_number(
        &self,
        operation: &'static str,
        rows: Vec<Vec<Row>>,
    ) -> Result<u64, CatalogueError> {
        let row = rows.into_iter().flatten().next();
        let number = row.map_or(Ok(0), |mut row| row.number());
        number.map_err(|fault| self.unreadable(operation, &fault))
    }

    /// Each row read by `read`.
    pub(crate) fn read_all<T>(
        &self,
        operation: &'static str,
        rows: Vec<Row>,
        read: impl Fn(&mut Row) -> Result<T, Fault>,
    ) -> Result<Vec<T>, CatalogueError> {
        let each = rows.into_iter().map(|mut row| read(&mut row));
        each.collect::<Result<_, _>>().map_err(|fault| self.unreadable(operation, &fault))
    }
}
