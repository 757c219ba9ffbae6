//! [`Sharing`]: what this node shares with others through the catalogue, and its own copy of it.
//!
//! Keys and flags are pieces of state in the data directory, and readers use those alone. With a
//! catalogue that other nodes reach, a change goes there first and counts when it is there; a loop
//! brings other nodes' changes into the data directory. So searches, and a restart, need no catalogue;
//! only changes do.
//!
//! Invariants:
//! - A change is made only on top of the newest version, and only by who was given that version to
//!   read: nobody undoes what he has not seen.
//! - A node that has never seen the catalogue's keys does not start without them: it would let in
//!   everybody, or nobody.
//! - A piece that is damaged never replaces a sound one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use mainstay_catalogue::{
    AuditRow, Catalogue, CatalogueError, CollectionReport, CollectionRow, Location, Node,
    NodeReport, PoolConfig, PoolFigures,
};
use mainstay_db::{Db, StateFiles};
use mainstay_ops::audit::AuditEvent;
use mainstay_ops::health::Observation;
use mainstay_ops::store::{MemoryStore, StateError, StateStore, load_sealed, save_sealed};
use mainstay_resilience::PipelinesConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::problem::Problem;

/// The pieces that every node has the same of, with what is written in their envelope.
const SHARED: [(&str, [u8; 4]); 2] = [("keys", *b"keys"), ("flags", *b"flag")];
/// The piece that says which versions of the shared pieces lie in the data directory.
const SEEN: (&str, [u8; 4], u16) = ("catalogue", *b"seen", 1);
/// Events of the audit trail that wait for the catalogue; the data directory has them all.
const AUDIT_WAITING_MAX: usize = 1_000;
/// Turns of the loop from one report of the collections to the next.
const REPORT_TURNS: u64 = 6;
/// Turns of the loop from one cleaning to the next.
const CLEAN_TURNS: u64 = 720;
/// When to try a change again that the catalogue did not take: its breaker tries after as long.
const AGAIN_MS: u64 = 5_000;
/// How long a node that is not heard of is listed.
const SILENT_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How long the catalogue keeps events of the audit trail.
const AUDIT_AGE_MAX: Duration = Duration::from_secs(90 * 86_400);

/// Which catalogue a node uses, and how.
#[derive(Clone, PartialEq)]
pub struct CatalogueConfig {
    /// The address of a PostgreSQL database that nodes share; `None` for a file of SQLite in the data
    /// directory.
    pub url: Option<String>,
    /// How connections are kept.
    pub pool: PoolConfig,
    /// How often other nodes' changes are looked for. Default 5 s.
    pub refresh_every: Duration,
    /// The process's limits for what is outside it.
    pub pipelines: PipelinesConfig,
}

impl Default for CatalogueConfig {
    fn default() -> Self {
        Self {
            url: None,
            pool: PoolConfig::default(),
            refresh_every: Duration::from_secs(5),
            pipelines: PipelinesConfig::default(),
        }
    }
}

/// Without the address: it may hold a password.
impl fmt::Debug for CatalogueConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = if self.url.is_some() { "shared" } else { "of its own" };
        f.debug_struct("CatalogueConfig")
            .field("catalogue", &shared)
            .field("pool", &self.pool)
            .field("refresh_every", &self.refresh_every)
            .finish_non_exhaustive()
    }
}

/// Why a node cannot use its catalogue.
#[derive(Debug)]
pub(crate) struct SharingError(String);

impl fmt::Display for SharingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SharingError {}

/// Versions of shared pieces.
#[derive(Debug, Default)]
struct Versions {
    /// Whether the shared catalogue has been seen, with or without pieces.
    bound: bool,
    /// Of what lies in the data directory.
    here: BTreeMap<String, u64>,
    /// Of what readers were last given.
    given: BTreeMap<String, u64>,
}

/// How the last turn of the loop went.
#[derive(Debug, Default)]
struct Standing {
    turns: u64,
    reached: Option<Instant>,
    trouble: Option<String>,
}

/// How the catalogue is, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CatalogueReport {
    /// Where it is, without a password.
    location: String,
    /// Whether other nodes can reach it.
    shared: bool,
    /// This node's id.
    node: String,
    /// Whether it answered the last time it was asked.
    reachable: bool,
    /// What was wrong the last time; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    /// How long ago it last answered; absent when it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_ms_ago: Option<u64>,
    /// The connections.
    pool: PoolFigures,
    /// Versions of the shared pieces in this node's data directory.
    pieces: BTreeMap<String, u64>,
    /// Every node.
    nodes: Vec<Node>,
    /// What each of them holds.
    collections: Vec<CollectionRow>,
}

/// This node's part in a catalogue.
pub(crate) struct Sharing {
    catalogue: Catalogue,
    runtime: Handle,
    files: StateFiles,
    node: NodeReport,
    versions: Mutex<Versions>,
    standing: Mutex<Standing>,
    audit: Mutex<VecDeque<(u64, String)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is saved of the versions.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    node: String,
    bound: bool,
    versions: BTreeMap<String, u64>,
}

struct Pieces<'a>(&'a StateFiles);

impl StateStore for Pieces<'_> {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.load(name)
    }

    fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.save(name, bytes)
    }
}

fn read_seen(files: &StateFiles) -> Result<Option<Seen>, SharingError> {
    let (name, kind, version) = SEEN;
    let loaded = load_sealed(&Pieces(files), name, kind, version);
    let bytes = loaded.map_err(|error| SharingError(error.to_string()))?;
    let damaged = |error| SharingError(format!("state {name} is damaged ({error}); remove it"));
    bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(damaged)).transpose()
}

/// Whether the keys of a data directory belong to a catalogue that other nodes share.
pub(crate) fn is_bound(files: &StateFiles) -> Result<bool, SharingError> {
    Ok(read_seen(files)?.is_some_and(|seen| seen.bound))
}

/// An id that no other node has, from the system's random numbers.
fn fresh_id() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    format!("node-{:016x}", RandomState::new().build_hasher().finish())
}

impl Sharing {
    /// Opens the catalogue and brings the shared pieces up to date. `address` is where this node
    /// listens. Blocks; needs a tokio runtime around it.
    ///
    /// # Errors
    /// The address cannot be understood, the database is of a later release, or its keys are not
    /// known here and cannot be asked for.
    pub(crate) fn open(
        config: &CatalogueConfig,
        folder: &Path,
        files: StateFiles,
        address: &str,
        started_unix_ms: u64,
    ) -> Result<Arc<Self>, SharingError> {
        let location = match &config.url {
            Some(url) => {
                url.parse::<Location>().map_err(|error| SharingError(error.to_string()))?
            }
            None => Location::in_folder(folder),
        };
        let seen = read_seen(&files)?.unwrap_or_default();
        if !location.is_shared() && seen.bound {
            return Err(SharingError(
                "the keys of this data directory are shared through a catalogue: set catalogue.url \
                 (MAINSTAY_CATALOGUE_URL), or remove DATA/state/catalogue to keep the copies as its own"
                    .to_string(),
            ));
        }
        let catalogue = Catalogue::new(location, &config.pool, config.pipelines.clone());
        let catalogue = catalogue.map_err(|error| SharingError(format!("catalogue: {error}")))?;
        let id = if seen.node.is_empty() { fresh_id() } else { seen.node.clone() };
        let node = NodeReport {
            id,
            address: address.to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            state: "starting".to_string(),
            started_unix_ms,
        };
        let versions = Versions { bound: seen.bound, given: BTreeMap::new(), here: seen.versions };
        let sharing = Arc::new(Self {
            catalogue,
            runtime: Handle::current(),
            files,
            node,
            versions: Mutex::new(versions),
            standing: Mutex::default(),
            audit: Mutex::default(),
        });
        sharing.first_look()?;
        Ok(sharing)
    }

    fn first_look(&self) -> Result<(), SharingError> {
        let never_seen = self.is_shared() && !lock(&self.versions).bound;
        let looked = match self.is_shared() {
            true => self.pull().map(|_| ()),
            false => self.runtime.block_on(self.catalogue.prepare()),
        };
        let Err(error) = looked else {
            self.note(&Ok(()));
            let mut versions = lock(&self.versions);
            versions.bound = self.is_shared();
            return self.save_versions(&versions).map_err(|error| SharingError(error.to_string()));
        };
        let foreign =
            matches!(error, CatalogueError::Newer { .. } | CatalogueError::Altered { .. });
        if foreign || never_seen {
            let why = match never_seen {
                true => ": the API keys are kept there, and this node has no copy of them yet",
                false => "",
            };
            return Err(SharingError(format!("{error}{why}")));
        }
        tracing::warn!(%error, "the catalogue is not reachable; going on with what is known of it");
        self.note(&Err(error));
        Ok(())
    }

    /// The catalogue itself.
    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn is_shared(&self) -> bool {
        self.catalogue.location().is_shared()
    }

    /// Brings what others have changed into the data directory; answers which pieces readers must
    /// read again.
    pub(crate) fn pull(&self) -> Result<Vec<&'static str>, CatalogueError> {
        if !self.is_shared() {
            return Ok(Vec::new());
        }
        let there = self.runtime.block_on(self.catalogue.state_versions())?;
        let mut changed = Vec::new();
        for (name, kind) in SHARED {
            let mut versions = lock(&self.versions);
            let (found, here) = (there.get(name).copied(), versions.here.get(name).copied());
            match found {
                None => self.publish_first(name, &mut versions)?,
                Some(_) if found == here => {}
                Some(_) => self.fetch(name, kind, &mut versions)?,
            }
            if versions.here.get(name) != versions.given.get(name) {
                changed.push(name);
            }
        }
        Ok(changed)
    }

    /// Nobody has published the piece: what this node has of it becomes everybody's.
    fn publish_first(&self, name: &str, versions: &mut Versions) -> Result<(), CatalogueError> {
        let loaded = self.files.load(name).map_err(|error| local(name, &error))?;
        let Some(bytes) = loaded else { return Ok(()) };
        let saved = self.catalogue.save_state(name, 0, &bytes, &self.node.id);
        match self.runtime.block_on(saved) {
            Ok(version) => {
                tracing::info!(name, "published to the catalogue");
                versions.here.insert(name.to_string(), version);
                versions.given.insert(name.to_string(), version);
                self.save_versions(versions)
            }
            // Another node was quicker; the next turn brings its piece.
            Err(CatalogueError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn fetch(
        &self,
        name: &str,
        kind: [u8; 4],
        versions: &mut Versions,
    ) -> Result<(), CatalogueError> {
        let loaded = self.runtime.block_on(self.catalogue.load_state(name))?;
        let Some(piece) = loaded else { return Ok(()) };
        let envelope = MemoryStore::new();
        let sound = envelope.save(name, &piece.bytes).is_ok()
            && load_sealed(&envelope, name, kind, u16::MAX).is_ok();
        if !sound {
            let detail = format!("state {name}, version {} is damaged", piece.version);
            return Err(CatalogueError::Unreadable { operation: "state.load", detail });
        }
        if versions.here.get(name).is_none_or(|here| piece.version < *here)
            && self.files.load(name).is_ok_and(|there| there.is_some())
        {
            tracing::warn!(name, "what this node had is replaced by what the catalogue has");
        }
        self.files.save(name, &piece.bytes).map_err(|error| local(name, &error))?;
        versions.here.insert(name.to_string(), piece.version);
        self.save_versions(versions)
    }

    fn save_versions(&self, versions: &Versions) -> Result<(), CatalogueError> {
        let Versions { bound, here, .. } = versions;
        let seen = Seen { node: self.node.id.clone(), bound: *bound, versions: here.clone() };
        let (name, kind, version) = SEEN;
        let json = serde_json::to_vec(&seen).unwrap_or_default();
        let saved = save_sealed(&Pieces(&self.files), name, kind, version, &json);
        saved.map_err(|error| local(name, &error))
    }

    /// One turn of the loop; `changed` is told which pieces to read again. `state` is this node's
    /// level of service.
    pub(crate) fn turn(&self, db: &Db, state: &str, changed: impl Fn(&'static str)) {
        let turn = {
            let mut standing = lock(&self.standing);
            standing.turns += 1;
            standing.turns - 1
        };
        let done = self.pull().and_then(|pieces| {
            pieces.into_iter().for_each(changed);
            self.report(db, state, turn)
        });
        self.note(&done);
    }

    fn report(&self, db: &Db, state: &str, turn: u64) -> Result<(), CatalogueError> {
        let node = NodeReport { state: state.to_string(), ..self.node.clone() };
        self.runtime.block_on(self.catalogue.report_node(&node))?;
        if turn.is_multiple_of(REPORT_TURNS) {
            let statuses = db.collections().into_iter().map(|collection| collection.status());
            let reports: Vec<CollectionReport> = statuses
                .map(|status| CollectionReport {
                    settings: settings_of(&status),
                    name: status.name,
                    model: status.model,
                    created_unix_ms: status.created_ms,
                    documents: status.documents,
                })
                .collect();
            self.runtime.block_on(self.catalogue.report_collections(&node.id, &reports))?;
        }
        self.send_audit()?;
        if turn % CLEAN_TURNS == CLEAN_TURNS - 1 {
            self.runtime.block_on(self.catalogue.forget_nodes(ms(SILENT_MAX)))?;
            self.runtime.block_on(self.catalogue.forget_audit(ms(AUDIT_AGE_MAX)))?;
        }
        Ok(())
    }

    fn send_audit(&self) -> Result<(), CatalogueError> {
        let waiting: Vec<(u64, String)> = lock(&self.audit).iter().cloned().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let (node, started) = (&self.node.id, self.node.started_unix_ms);
        self.runtime.block_on(self.catalogue.keep_audit(node, started, &waiting))?;
        let last = waiting.last().map_or(0, |(number, _)| *number);
        lock(&self.audit).retain(|(number, _)| *number > last);
        Ok(())
    }

    fn note(&self, done: &Result<(), CatalogueError>) {
        let mut standing = lock(&self.standing);
        let before = standing.trouble.is_some();
        match done {
            Ok(()) => {
                standing.reached = Some(Instant::now());
                standing.trouble = None;
                if before {
                    tracing::warn!("the catalogue answers again");
                }
            }
            Err(error) => {
                if !before {
                    tracing::warn!(%error, "the catalogue does not answer; what is known of it goes on");
                }
                standing.trouble = Some(error.to_string());
            }
        }
    }

    /// For health: what the loop found, without asking anybody.
    pub(crate) fn observe(&self) -> Observation {
        let pool = self.catalogue.pool();
        let found = match &lock(&self.standing).trouble {
            Some(trouble) => Observation::unhealthy(trouble),
            None => Observation::healthy(),
        };
        found
            .figure("open", f64::from(pool.open), "connections")
            .figure("in_use", f64::from(pool.in_use), "connections")
            .figure("max", f64::from(pool.max), "connections")
            .figure("utilisation", pool.utilisation(), "ratio")
            .figure("acquire_p99", pool.acquire_p99_ms, "ms")
    }

    /// How it is, and what all nodes have reported. Asks the database.
    pub(crate) async fn show(&self) -> CatalogueReport {
        let nodes = self.catalogue.nodes().await;
        let collections = match &nodes {
            Ok(_) => self.catalogue.collections().await,
            Err(error) => Err(error.clone()),
        };
        self.note(&nodes.as_ref().map(|_| ()).map_err(Clone::clone));
        let (trouble, reached) = {
            let standing = lock(&self.standing);
            (standing.trouble.clone(), standing.reached)
        };
        CatalogueReport {
            location: self.catalogue.location().to_string(),
            shared: self.is_shared(),
            node: self.node.id.clone(),
            reachable: trouble.is_none(),
            trouble,
            answered_ms_ago: reached.map(|at| ms(at.elapsed())),
            pool: self.catalogue.pool(),
            pieces: lock(&self.versions).here.clone(),
            nodes: nodes.unwrap_or_default(),
            collections: collections.unwrap_or_default(),
        }
    }

    /// The newest events of all nodes, each with the node on which it happened. Asks the database.
    pub(crate) async fn recent_audit(&self, count: usize) -> Result<Vec<Value>, Problem> {
        let rows = self.catalogue.recent_audit(count as u64).await;
        let rows = rows.map_err(|error| problem_of(&error))?;
        let shown = |row: AuditRow| {
            let mut event: Value = serde_json::from_str(&row.event).ok()?;
            event.as_object_mut()?.insert("node".to_string(), row.node.into());
            Some(event)
        };
        Ok(rows.into_iter().filter_map(shown).collect())
    }

    /// Sends an event of the audit trail to the catalogue by and by.
    pub(crate) fn keep_audit(&self, event: &AuditEvent) {
        let Ok(json) = serde_json::to_string(event) else { return };
        let mut waiting = lock(&self.audit);
        if waiting.len() == AUDIT_WAITING_MAX {
            waiting.pop_front();
            metrics::counter!("mainstay_catalogue_audit_dropped_total").increment(1);
        }
        waiting.push_back((event.number, json));
    }
}

fn local(name: &str, error: &dyn fmt::Display) -> CatalogueError {
    let detail = format!("the copy of {name} in the data directory: {error}");
    CatalogueError::Unreadable { operation: "state.copy", detail }
}

/// What is told of a change that the catalogue did not take; nothing when it was not the catalogue.
pub(crate) fn refusal(error: &StateError) -> Option<Problem> {
    let StateError::Store { source, .. } = error else { return None };
    source.get_ref()?.downcast_ref::<CatalogueError>().map(problem_of)
}

fn problem_of(error: &CatalogueError) -> Problem {
    let (status, code) = match error {
        CatalogueError::Conflict { .. } => (StatusCode::CONFLICT, "changed_meanwhile"),
        CatalogueError::TooLarge { .. } => (StatusCode::BAD_REQUEST, "bad_request"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "catalogue_unavailable"),
    };
    let problem = Problem::new(status, code, error.to_string());
    let again = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(AGAIN_MS);
    Problem { retry_after_ms: again, ..problem }
}

fn settings_of(status: &mainstay_db::CollectionStatus) -> String {
    let spaces: Vec<String> = status.spaces.iter().map(|space| space.to_string()).collect();
    serde_json::json!({ "weights_tuned": status.weights.is_some(), "spaces": spaces }).to_string()
}

/// Keys and flags go to the catalogue first; everything is in the data directory.
impl StateStore for Sharing {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        // Under the lock, so that what is given is of the version that is noted.
        let mut versions = lock(&self.versions);
        let loaded = self.files.load(name)?;
        if let Some(here) = versions.here.get(name).copied() {
            versions.given.insert(name.to_string(), here);
        }
        Ok(loaded)
    }

    fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !self.is_shared() || !SHARED.iter().any(|(shared, _)| *shared == name) {
            return self.files.save(name, bytes);
        }
        let mut versions = lock(&self.versions);
        let expected = versions.given.get(name).copied().unwrap_or(0);
        let saved = self.catalogue.save_state(name, expected, bytes, &self.node.id);
        let version = self.runtime.block_on(saved).map_err(io::Error::other)?;
        self.files.save(name, bytes)?;
        versions.here.insert(name.to_string(), version);
        versions.given.insert(name.to_string(), version);
        self.save_versions(&versions).map_err(io::Error::other)
    }
}
