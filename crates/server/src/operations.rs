//! [`Operations`]: what runs beside the requests: health, levels, flags, the memory guard,
//! objectives, probes and the audit trail, composed in one place.
//!
//! Order of start: state, audit, guards, checks (asked once before the first request), tickers.
//! Order of stop: tickers, then the objectives are closed, so that the time until the next start is
//! no dead time.

mod checks;
mod flags;
mod keeping;
mod probes;
mod remedies;
mod signals;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_db::{Db, Pipelines};
use mainstay_ops::active_probe::ActiveProbes;
use mainstay_ops::admission::{Admission, Class, Floor};
use mainstay_ops::audit::Audit;
use mainstay_ops::flags::Flags;
use mainstay_ops::handles::HandlePool;
use mainstay_ops::health::{Check, Gate, GateConfig, HealthRegistry, Pulses, ServiceInfo};
use mainstay_ops::incidents::Incidents;
use mainstay_ops::keys::Keys;
use mainstay_ops::levels::{Level, Levels, LevelsConfig};
use mainstay_ops::memory::{MemoryConfig, MemoryGuard};
use mainstay_ops::slo::{Slo, SloConfig};
use mainstay_ops::store::StateStore;
use mainstay_ops::ticker::Ticker;
use mainstay_ops::wall_clock::WallClock;
use mainstay_resilience::Clock;

use crate::answers::Answers;
use crate::host::Host;
use crate::sharing::{CatalogueConfig, Sharing};

pub(crate) use flags::{method_flag, names as flag_names};

/// How often the memory is looked at: a burst of requests may fill some hundred megabytes in it.
const MEMORY_EVERY: Duration = Duration::from_millis(100);
/// How often the level of service is decided anew.
const LEVELS_EVERY: Duration = Duration::from_millis(250);
/// How often readiness and objectives are judged.
const JUDGE_EVERY: Duration = Duration::from_secs(1);
/// How often dependencies that are to be probed are looked for.
const PROBES_EVERY: Duration = Duration::from_secs(1);
/// A loop that is silent for this long hangs: a hundred times its longest turn.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How a server watches itself.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationsConfig {
    /// When it counts as ready.
    pub gate: GateConfig,
    /// How old the answer of a check may become.
    pub check_every: Duration,
    /// How long a check may take.
    pub check_timeout: Duration,
    /// How long a dependency may be idle until the server probes it; zero for ever. One whose breaker
    /// is open is probed in any case.
    pub idle_probe_every: Duration,
    /// Where the steps of the memory guard begin.
    pub memory: MemoryConfig,
    /// When the level of service moves.
    pub levels: LevelsConfig,
    /// What is promised.
    pub slo: SloConfig,
    /// How often the server searches itself; zero for never.
    pub probe_every: Duration,
    /// The time in which such a search must be answered.
    pub probe_timeout: Duration,
    /// Which catalogue it shares with other nodes.
    pub catalogue: CatalogueConfig,
}

impl Default for OperationsConfig {
    fn default() -> Self {
        Self {
            gate: GateConfig::default(),
            check_every: Duration::from_secs(5),
            check_timeout: Duration::from_secs(5),
            idle_probe_every: Duration::from_secs(30),
            memory: MemoryConfig::default(),
            levels: LevelsConfig::default(),
            slo: SloConfig::default(),
            probe_every: Duration::from_secs(10),
            probe_timeout: Duration::from_secs(2),
            catalogue: CatalogueConfig::default(),
        }
    }
}

/// Why the operations could not be started.
#[derive(Debug)]
pub struct StartFailure(String);

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartFailure {}

fn failed(what: &str) -> impl Fn(&dyn fmt::Display) -> StartFailure {
    move |why| StartFailure(format!("{what}: {why}"))
}

/// What runs beside the requests.
pub(crate) struct Operations {
    pub(crate) pipelines: Pipelines,
    pub(crate) health: HealthRegistry,
    active_probes: ActiveProbes,
    pub(crate) pulses: Pulses,
    pub(crate) levels: Levels,
    pub(crate) flags: Flags,
    pub(crate) audit: Audit,
    pub(crate) memory: MemoryGuard,
    pub(crate) handles: HandlePool,
    pub(crate) slo: Slo,
    pub(crate) incidents: Incidents,
    pub(crate) keys: Keys,
    pub(crate) sharing: Arc<Sharing>,
    tickers: Mutex<Vec<Ticker>>,
}

impl Operations {
    /// Starts everything. Blocks until each check has answered once, or is late.
    pub(crate) fn start(
        db: &Arc<Db>,
        config: &OperationsConfig,
        host: &Host,
        admission: &Admission,
        address: &str,
    ) -> Result<Self, StartFailure> {
        let (clock, wall) = (host.clock.clone(), host.wall.clone());
        let files = db.state_files().map_err(|e| failed("state")(&e))?;
        let catalogue = &config.catalogue;
        let sharing = Sharing::open(catalogue, db.folder(), files.clone(), address, wall.unix_ms());
        let sharing = sharing.map_err(|e| failed("catalogue")(&e))?;
        let store: Arc<dyn StateStore> = Arc::clone(&sharing) as Arc<dyn StateStore>;
        let audit = keeping::audit(files, Some(Arc::clone(&sharing)), wall.clone());
        let flags = flags::open(Arc::clone(&store), wall.clone(), audit.clone());
        let keys = Keys::open(Arc::clone(&store), wall.clone(), audit.clone());
        let keys = keys.map_err(|e| failed("keys")(&e))?;
        let levels = Levels::open(
            config.levels.clone(),
            clock.clone(),
            wall.clone(),
            audit.clone(),
            Arc::clone(&store),
        );
        let levels = levels.map_err(|e| failed("levels")(&e))?;
        let kernel = host.kernel.clone();
        let memory =
            MemoryGuard::new(config.memory.clone(), kernel, clock.clone(), host.allocator.clone());
        let memory = memory.map_err(|e| failed("memory")(&e))?;
        let queries = Arc::new(keeping::QueryCache(Arc::clone(db)));
        memory.register("queries", queries).map_err(|e| failed("memory")(&e))?;
        let unwritten = Arc::new(keeping::Unwritten(Arc::clone(db)));
        memory.register("views", unwritten).map_err(|e| failed("memory")(&e))?;
        let incidents = keeping::incidents(&store).audited(audit.clone());
        let slo =
            Slo::open(config.slo.clone(), clock.clone(), wall.clone(), store, incidents.clone());
        let slo = slo.map_err(|e| failed("slo")(&e))?;
        let gate = Gate::new(config.gate, &["checks"]).map_err(|e| failed("health")(&e))?;
        let info = ServiceInfo {
            version: "1".to_string(),
            release_id: env!("CARGO_PKG_VERSION").to_string(),
            service_id: format!("pid {}", std::process::id()),
            description: "hybrid search for documents and code".to_string(),
        };
        let pipelines = db.pipelines().clone();
        let idle_max = config.idle_probe_every;
        let operations = Self {
            active_probes: ActiveProbes::new(pipelines.clone(), clock.clone(), idle_max),
            pipelines,
            health: HealthRegistry::new(clock.clone(), wall, gate, info),
            pulses: Pulses::new(clock.clone()),
            levels,
            flags,
            audit,
            memory,
            handles: host.handles.clone(),
            slo,
            incidents,
            keys,
            sharing,
            tickers: Mutex::default(),
        };
        operations.pipelines.declare(operations.sharing.catalogue().dependency());
        admission.guard_memory(operations.memory.budget());
        operations.watch(db, config, &clock, admission)?;
        Ok(operations)
    }

    fn watch(
        &self,
        db: &Arc<Db>,
        config: &OperationsConfig,
        clock: &Clock,
        admission: &Admission,
    ) -> Result<(), StartFailure> {
        let asked = checks::Asked {
            db: Arc::clone(db),
            memory: self.memory.clone(),
            handles: self.handles.clone(),
            audit: self.audit.clone(),
            sharing: Arc::clone(&self.sharing),
            probes: self.active_probes.clone(),
        };
        // The collector is among the pipelines by now: telemetry starts before the server.
        let collector = checks::collector(self.pipelines.clone(), self.active_probes.clone());
        for check in checks::all(asked).into_iter().chain(collector) {
            self.check(check, config)?;
        }
        let _ = self.memory.tick();
        let _ = self.health.report_fresh();
        self.health.gate().done("checks");

        let memory = self.memory.clone();
        self.every("memory", MEMORY_EVERY, move || {
            let _ = memory.tick();
        })?;
        let mut watched = signals::Watched {
            db: Arc::clone(db),
            pipelines: self.pipelines.clone(),
            health: self.health.clone(),
            memory: self.memory.clone(),
            slo: self.slo.clone(),
            admission: admission.clone(),
        };
        let (levels, admission) = (self.levels.clone(), admission.clone());
        self.every("levels", LEVELS_EVERY, move || {
            let _ = levels.tick(&watched.signals());
            // From the minimum on nothing is begun that nobody waits for.
            let minimal = levels.standing().level >= Level::Minimal;
            let from = if minimal { Class::Interactive } else { Class::Batch };
            admission.admit_from(Floor::Level, from);
        })?;
        self.probe_dependencies()?;
        self.share(db, config.catalogue.refresh_every)?;
        let (health, slo) = (self.health.clone(), self.slo.clone());
        let mut remedies =
            remedies::Remedies::new(Arc::clone(db), self.memory.clone(), self.audit.clone());
        self.every("judge", JUDGE_EVERY, move || {
            health.tick();
            slo.tick();
            remedies.look();
        })?;
        if !config.probe_every.is_zero() {
            let (every, timeout) = (config.probe_every, config.probe_timeout);
            let probes = probes::Probes::new(Arc::clone(db), clock.clone(), every, timeout);
            let probes = probes.map_err(|e| failed("slo")(&e))?;
            self.slo.follow(probes.ledger());
            // A turn takes as long as the methods that it asks, and those are dependencies.
            self.beside("probes", every.min(JUDGE_EVERY), move || probes.look())?;
        }
        Ok(())
    }

    /// Lets the memory guard shrink kept answers, and shows them among the checks.
    pub(crate) fn watch_answers(
        &self,
        answers: &Answers,
        config: &OperationsConfig,
    ) -> Result<(), StartFailure> {
        let shrinker = Arc::new(answers.clone());
        self.memory.register("answers", shrinker).map_err(|e| failed("memory")(&e))?;
        self.check(checks::kept_answers(answers.clone()), config)
    }

    /// Shows the Redis of shared rates among the checks.
    pub(crate) fn watch_redis(&self, config: &OperationsConfig) -> Result<(), StartFailure> {
        self.check(checks::redis(self.pipelines.clone(), self.active_probes.clone()), config)
    }

    fn check(&self, check: Check, config: &OperationsConfig) -> Result<(), StartFailure> {
        let check = check.every(config.check_every).timeout(config.check_timeout);
        self.health.register(check).map_err(|e| failed("health")(&e))
    }

    /// Starts the loop that probes what nobody calls. Each probe has a thread of its own; the loop
    /// waits for none.
    fn probe_dependencies(&self) -> Result<(), StartFailure> {
        let (probes, levels) = (self.active_probes.clone(), self.levels.clone());
        self.every("dependencies", PROBES_EVERY, move || {
            // Whoever maintains the server may have taken away what it depends on.
            if levels.standing().level < Level::Maintenance {
                probes.look();
            }
        })
    }

    /// Starts the loop that tells the catalogue of this node and brings what others have changed. Its
    /// turns take as long as a database wants, and no restart heals a database: it has no pulse.
    fn share(&self, db: &Arc<Db>, every: Duration) -> Result<(), StartFailure> {
        let (db, sharing, levels) =
            (Arc::clone(db), Arc::clone(&self.sharing), self.levels.clone());
        let (keys, flags) = (self.keys.clone(), self.flags.clone());
        let changed = move |piece: &'static str| read_again(piece, &keys, &flags);
        self.beside("catalogue", every, move || {
            sharing.turn(&db, levels.standing().level.as_str(), &changed);
        })
    }

    /// Brings what others have changed now, before a change is made on top of it. A catalogue that is
    /// gone is told by the change itself.
    pub(crate) fn catch_up(&self) {
        if let Ok(pieces) = self.sharing.pull() {
            pieces.into_iter().for_each(|piece| read_again(piece, &self.keys, &self.flags));
        }
    }

    /// Starts a loop that is watched for silence: only one that waits for nothing outside the process,
    /// and for its own disk no longer than a disk may take.
    fn every(
        &self,
        name: &str,
        every: Duration,
        mut tick: impl FnMut() + Send + 'static,
    ) -> Result<(), StartFailure> {
        let pulse = self.pulses.watch(name, SILENCE_MAX).map_err(|e| failed("pulse")(&e))?;
        self.beside(name, every, move || {
            pulse.beat();
            tick();
        })
    }

    /// Starts a loop that may be silent for as long as it likes, because it waits for a dependency.
    pub(crate) fn beside(
        &self,
        name: &str,
        every: Duration,
        tick: impl FnMut() + Send + 'static,
    ) -> Result<(), StartFailure> {
        let ticker = Ticker::start(name, every, tick);
        let ticker = ticker.map_err(|e| failed("ticker")(&e))?;
        self.tickers.lock().unwrap_or_else(PoisonError::into_inner).push(ticker);
        Ok(())
    }

    /// Ends the loops and closes the objectives. Doing it again does nothing more.
    pub(crate) fn stop(&self) {
        let tickers =
            std::mem::take(&mut *self.tickers.lock().unwrap_or_else(PoisonError::into_inner));
        drop(tickers);
        if let Err(error) = self.slo.close() {
            tracing::error!(%error, "objectives not saved; the time until the next start counts as dead");
        }
    }
}

/// Reads a piece again that another node has changed.
fn read_again(piece: &'static str, keys: &Keys, flags: &Flags) {
    let read = match piece {
        "keys" => keys.refresh().map_err(|error| error.to_string()),
        _ => flags.refresh().map_err(|error| error.to_string()),
    };
    match read {
        Ok(true) => tracing::info!(piece, "another node has changed it; taken over"),
        Ok(false) => {}
        Err(error) => {
            tracing::error!(piece, error, "what another node has changed is not taken over")
        }
    }
}

/// The audit trail alone, of a data directory that no server has open.
pub(crate) fn audit_of(files: mainstay_db::StateFiles) -> Audit {
    keeping::audit(files, None, WallClock::system())
}

/// The keys alone, with the audit trail: of the data directory, or of the catalogue
/// that it shares. Blocks; needs a tokio runtime around it.
pub(crate) fn keys_of(
    folder: &std::path::Path,
    files: mainstay_db::StateFiles,
    catalogue: &CatalogueConfig,
) -> Result<Keys, StartFailure> {
    let wall = WallClock::system();
    let audit = keeping::audit(files.clone(), None, wall.clone());
    // A data directory that shares nothing needs no catalogue to have its keys changed.
    let shared = catalogue.url.is_some()
        || crate::sharing::is_bound(&files).map_err(|e| failed("catalogue")(&e))?;
    let store: Arc<dyn StateStore> = match shared {
        false => Arc::new(keeping::Store(files)),
        true => {
            let opened = Sharing::open(catalogue, folder, files, "", wall.unix_ms());
            opened.map_err(|e| failed("catalogue")(&e))?
        }
    };
    Keys::open(store, wall, audit).map_err(|e| failed("keys")(&e))
}
