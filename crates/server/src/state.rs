//! [`State`]: what every handler shares, and the door to the blocking floors.

use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use mainstay_db::{Collection, Db, DbError};
use mainstay_ops::admission::{Admission, Class, Group, Load, Refusal, RefusalKind};
use mainstay_ops::meter::Meter;
use mainstay_resilience::TokioSleeper;

use crate::access::Access;
use crate::answers::Answers;
use crate::config::Config;
use crate::operations::Operations;
use crate::problem::Problem;
use crate::reload::Reloader;
use crate::ticket;
use crate::tls::Tls;
use crate::workers::Workers;

/// What every handler shares.
#[derive(Clone)]
pub(crate) struct State(Arc<Shared>);

struct Shared {
    db: Arc<Db>,
    config: RwLock<Arc<Config>>,
    admission: Admission,
    meter: Option<&'static Meter>,
    operations: Operations,
    access: Access,
    tls: OnceLock<Tls>,
    answers: Answers,
    workers: Workers,
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

/// Which bound a blocking call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Reading: searches, documents, lists.
    Search,
    /// Writing, rebuilding, verifying.
    Write,
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Work::Search => "searches",
            Work::Write => "writes",
        }
    }

    fn group(self) -> Group {
        match self {
            Work::Search => Group::Read,
            Work::Write => Group::Write,
        }
    }
}

/// Bytes that work needs which says nothing about it: one document and its answer.
const PLAIN_BYTES: u64 = 64 << 10;

impl State {
    pub(crate) fn new(
        db: Arc<Db>,
        config: Config,
        meter: Option<&'static Meter>,
        operations: Operations,
        access: Access,
        admission: Admission,
        answers: Answers,
    ) -> Self {
        Self(Arc::new(Shared {
            db,
            answers,
            operations,
            access,
            workers: Workers::new(),
            tls: OnceLock::new(),
            reloader: OnceLock::new(),
            config: RwLock::new(Arc::new(config)),
            admission,
            meter,
        }))
    }

    pub(crate) fn db(&self) -> &Arc<Db> {
        &self.0.db
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over another configuration. What runs or waits goes on.
    ///
    /// # Errors
    /// What is wrong with it; then bounds and times are as they were.
    pub(crate) fn reconfigure(&self, config: Config) -> Result<(), String> {
        self.0.admission.reconfigure(&config.admission).map_err(|error| error.to_string())?;
        *self.0.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(())
    }

    /// Decides which requests are begun.
    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub(crate) fn meter(&self) -> Option<&'static Meter> {
        self.0.meter
    }

    /// What runs beside the requests.
    pub(crate) fn operations(&self) -> &Operations {
        &self.0.operations
    }

    /// How requests are let in.
    pub(crate) fn access(&self) -> &Access {
        &self.0.access
    }

    /// Once: from now on every connection is encrypted.
    pub(crate) fn set_tls(&self, tls: Tls) {
        let _ = self.0.tls.set(tls);
    }

    /// The certificate, when connections are encrypted.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.0.tls.get()
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.0.tls.get().is_some()
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

    /// Whether it answers so.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.operations.health.gate().is_draining()
    }

    pub(crate) fn collection(&self, name: &str) -> Result<Collection, Problem> {
        Ok(self.0.db.collection(name)?)
    }

    /// Runs a control call that may touch the disk or the catalogue: outside every limit.
    pub(crate) async fn control<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        // The span goes along, so that whatever the call logs and asks names its request.
        let span = tracing::Span::current();
        let joined = tokio::task::spawn_blocking(move || span.in_scope(run)).await;
        joined
            .map_err(|error| DbError::Internal(format!("the request's work ended: {error}")).into())
    }

    /// Runs a control call that changes what nodes share, on top of what others have changed.
    pub(crate) async fn shared_change<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let state = self.clone();
        self.control(move || {
            state.operations().catch_up();
            run()
        })
        .await
    }

    /// Runs blocking work of the usual size on one of the [`Workers`].
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: Work,
        run: impl FnOnce(&Db) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, Problem> {
        let load = Load { bytes: PLAIN_BYTES, ..Load::default() };
        self.weighed(work, load, |_| true, move |db, _| run(db)).await
    }

    /// Runs blocking work on one of the [`Workers`] once it is admitted; `run` is told how long it
    /// waited. `in_time` says whether an answer had the time that it needed: what had not lowers
    /// the number of searches at a time.
    ///
    /// A caller that goes away leaves the queue; work that has begun ends by its own deadline and
    /// gives its slot back then.
    pub(crate) async fn weighed<T: Send + 'static>(
        &self,
        work: Work,
        load: Load,
        in_time: fn(&T) -> bool,
        run: impl FnOnce(&Db, Duration) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, Problem> {
        let refused = |refusal: Box<Refusal>| {
            if refusal.kind() == RefusalKind::Overloaded {
                let what = work.as_str();
                metrics::counter!("mainstay_requests_shed_total", "work" => what).increment(1);
            }
            Problem::from(&*refusal)
        };
        let ticket = match ticket::ticket() {
            Some(ticket) => ticket,
            None => {
                let arrived = self.0.admission.arrive(Class::Interactive, work.group(), "");
                Arc::new(arrived.map_err(refused)?)
            }
        };
        let permit = ticket.enter(&TokioSleeper, load).await.map_err(refused)?;
        let db = Arc::clone(&self.0.db);
        // The span goes along, so that whatever the work logs and calls names its request.
        let span = tracing::Span::current();
        let done = self.0.workers.run(move || {
            let result = span.in_scope(|| run(&db, permit.waited()));
            match &result {
                // Only searches teach: a read of one document says nothing about them.
                Ok(answer) if work == Work::Search && ticket.group() == Group::Search => {
                    if in_time(answer) { permit.success() } else { permit.overloaded() }
                }
                _ => drop(permit),
            }
            result
        });
        match done.await {
            Ok(result) => Ok(result?),
            Err(unfinished) => Err(unfinished.into()),
        }
    }
}
