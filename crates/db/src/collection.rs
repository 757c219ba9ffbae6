//! [`Collection`]: one log, five views, and what users do with them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_embed::ModelIdentity;
use mainstay_resilience::{CircuitBreaker, Dependency};
use mainstay_search::document::{Document, Invalid};
use mainstay_search::fusion::Weights;
use mainstay_search::method::Method;
use mainstay_search::request::Stop;
use mainstay_search::view::ViewFigures;
use mainstay_storage::fs::FileSystem;
use mainstay_storage::log::{Class, Recovery};
use mainstay_storage::{Directory, Log, LogOptions, Record};

use crate::driven::ViewKind;
use crate::embedding::Embedding;
use crate::engine::{Engine, documents_failed};
use crate::error::DbError;
use crate::open_view;
use crate::options::Options;
use crate::record::{Change, SEQ_MAX};
use crate::runtime::Runtime;
use crate::search_figures::SearchFigures;
use crate::set_aside::{SetAside, SetAsideEntry};
use crate::settings::Settings;
use crate::slot::{Slot, ViewState};
use crate::stopper::Stopper;

/// How long a write waits, after it is durable, for the documents view to show it. The view applies
/// a batch in microseconds; when it cannot, the write is acknowledged all the same.
const VISIBLE_WAIT: Duration = Duration::from_secs(1);
/// How long opening waits for the documents view to replay what it had not made durable: a minute's
/// writes at most, at over a million records a second. Beyond it something is wrong, and serving
/// what is there is better than nothing.
const REPLAY_WAIT: Duration = Duration::from_secs(60);
/// How often that wait looks whether the view is still well.
const REPLAY_STEP: Duration = Duration::from_millis(50);
/// Bytes of records handed to the log at once, so that one bulk request shares frames with others.
const SUBMIT_BYTES_MAX: usize = 4 << 20;

/// A collection of documents. Clones are handles to the same collection.
#[derive(Clone)]
pub struct Collection {
    pub(crate) inner: Arc<Engine>,
}

/// What became of a bulk write.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The log's sequence number of the last record of this write; everything up to it is durable.
    /// 0 when nothing was written.
    pub seq: u64,
    /// For each document in order: stored, or why not.
    pub documents: Vec<Result<(), Vec<Invalid>>>,
}

/// The figures of one view.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewStatus {
    /// `documents` or a method's name.
    pub view: &'static str,
    /// What it can do.
    pub state: ViewState,
    /// Up to where readers see the log.
    pub indexed_through: u64,
    /// Up to where it is durable by itself; a restart replays what is beyond.
    pub checkpointed_through: u64,
    /// What it costs.
    pub figures: ViewFigures,
    /// Records that it can never apply.
    pub set_aside: usize,
    /// How often it was made anew by itself since the collection was opened, and why the last time.
    pub mended: (u64, String),
}

/// The figures of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionStatus {
    /// Its name.
    pub name: String,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// Documents that live.
    pub documents: u64,
    /// The last durable sequence number.
    pub durable_seq: u64,
    /// Bytes of its log on disk.
    pub log_bytes: u64,
    /// Whether the log takes no ordinary writes at present, as on a full disk.
    pub log_refuses_writes: bool,
    /// Bytes of writes that wait for the disk, and that may wait.
    pub log_queued_bytes: (u64, u64),
    /// The embedding model that was chosen.
    pub model: String,
    /// The models that make the vectors.
    pub spaces: Vec<ModelIdentity>,
    /// Passages with a refined vector, and passages in all; `None` without a refining model.
    pub refined: Option<(u64, u64)>,
    /// Each view.
    pub views: Vec<ViewStatus>,
    /// Fusion weights tuned for this collection.
    pub weights: Option<Weights>,
    /// Times that refinement, compaction or the driver of a view panicked and was begun anew.
    pub worker_restarts: u64,
}

impl Collection {
    /// Bytes of writes that wait for the disk, and that may wait.
    pub fn queued_bytes(&self) -> (u64, u64) {
        self.inner.log.queued_bytes()
    }

    /// Creates a collection's folder with its settings. It is then opened like any other.
    pub(crate) fn create(
        fs: &Arc<dyn FileSystem>,
        folder: &Path,
        settings: &Settings,
    ) -> Result<(), DbError> {
        let home =
            Directory::open(Arc::clone(fs), folder).map_err(DbError::io("create", folder))?;
        settings.store(&home)
    }

    /// Opens a collection: log first, then each view from its checkpoint. Readers may ask at once;
    /// [`crate::background::start`] then brings the views up to the log's end.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        folder: PathBuf,
        runtime: Arc<Runtime>,
        maintenance: Arc<crate::maintenance::Maintenance>,
        options: Options,
    ) -> Result<Self, DbError> {
        let directory = |part: &str| {
            let path = folder.join(part);
            Directory::open(Arc::clone(&fs), &path).map_err(DbError::io("open", path))
        };
        let home = directory("")?;
        let mut settings = Settings::load(fs.as_ref(), &folder)?;
        let embedding = Arc::new(Embedding::open(&runtime, &settings));
        if settings.spaces == [None, None] && embedding.fault.is_none() {
            settings.spaces = embedding.identities();
            settings.store(&home)?;
        }
        let set_aside = SetAside::open(directory("set-aside")?)
            .map_err(DbError::io("open", folder.join("set-aside")))?;
        let current = directory("current")?;
        let log_path = folder.join("log");
        let is_new = !fs.exists(&log_path).map_err(DbError::io("look for", &log_path))?;
        let mut slots = Vec::new();
        // What a view has made durable proves that the log held it: a log that ends earlier is
        // damaged, not torn.
        let mut durable_seq_min = 0;
        for kind in ViewKind::ALL {
            let held = open_view::open_current(&fs, &folder, &current, kind, &embedding, is_new)?;
            durable_seq_min = durable_seq_min.max(held.checkpointed);
            slots.push(Arc::new(Slot::new(kind, held)));
        }
        let log_options = LogOptions { durable_seq_min, ..options.log.clone() };
        let (log, recovery) = Log::open(Arc::clone(&fs), &log_path, log_options)?;
        tell(&settings.name, &recovery);
        let slots = slots.try_into().map_err(|_| DbError::Internal("five views".into()))?;
        let methods = Method::ALL.map(|method| options.declare(&settings.name, method));
        let inner = Arc::new(Engine {
            name: settings.name.clone(),
            folder,
            fs,
            log,
            slots,
            methods,
            set_aside,
            embedding: RwLock::new(embedding),
            runtime,
            maintenance,
            options,
            stopper: Stopper::default(),
            stop_work: Stop::new(),
            settings: RwLock::new(settings),
            home,
            current,
            applied: (Mutex::new(0), Condvar::new()),
            threads: Mutex::new(Vec::new()),
            restarts: AtomicU64::new(0),
            search_figures: SearchFigures::default(),
        });
        Ok(Self { inner })
    }

    /// Stops the background work, makes every view durable, closes the log. Running queries end in
    /// their own time; later calls get [`DbError::Closed`].
    pub(crate) fn close(&self) -> Result<(), DbError> {
        self.inner.stopper.stop();
        self.inner.stop_work.set();
        for method in &self.inner.methods {
            self.inner.options.pipelines.withdraw(method.name());
        }
        let threads =
            std::mem::take(&mut *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // The driver catches panics; one that got through was printed by the panic hook.
            let _ = thread.join();
        }
        self.inner.log.close().map_err(DbError::Log)
    }

    /// What users call the collection.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// Stores documents; one whose id lives is replaced. Valid ones are stored even when others are
    /// not. Durable, and visible to [`Collection::get`], on return; each method follows within
    /// milliseconds and says in every answer how far it is.
    pub fn put(&self, documents: Vec<Document>) -> Result<Written, DbError> {
        let mut changes = Vec::with_capacity(documents.len());
        let mut outcomes = Vec::with_capacity(documents.len());
        for document in documents {
            let outcome = document.validate();
            if outcome.is_ok() {
                changes.push(Change::Put(document));
            }
            outcomes.push(outcome);
        }
        let seq = self.write(changes, Class::Ordinary)?;
        Ok(Written { seq, documents: outcomes })
    }

    /// Stores one document. See [`Collection::put`].
    pub fn put_one(&self, document: Document) -> Result<u64, DbError> {
        document.validate().map_err(DbError::InvalidDocument)?;
        self.write(vec![Change::Put(document)], Class::Ordinary)
    }

    /// Removes documents by id; answers which of them lived. Durable on return.
    pub fn delete(&self, ids: &[String]) -> Result<Vec<bool>, DbError> {
        let documents = self.inner.documents()?;
        let lived: Vec<bool> = ids
            .iter()
            .map(|id| documents.number_of(id).map(|found| found.is_some()))
            .collect::<Result<_, _>>()
            .map_err(documents_failed)?;
        // A write of the same id may be durable and not yet visible: removing an id that does not
        // live costs one small record, leaving one that does would lose the removal.
        let changes = ids.iter().filter(|id| !id.is_empty()).cloned().map(Change::Delete).collect();
        // Removals go on when the disk is full: they are how room is made.
        self.write(changes, Class::Essential)?;
        Ok(lived)
    }

    fn write(&self, changes: Vec<Change>, class: Class) -> Result<u64, DbError> {
        if changes.is_empty() {
            return Ok(0);
        }
        let begun = Instant::now();
        let puts = changes.iter().filter(|change| matches!(change, Change::Put(_))).count();
        let deletes = changes.len() - puts;
        let result = self.append(changes, class);
        metrics::histogram!("mainstay_write_duration_seconds").record(begun.elapsed());
        match &result {
            Ok(_) => {
                let done = |operation, count: usize| {
                    metrics::counter!("mainstay_index_operations_total", "operation" => operation)
                        .increment(count as u64);
                };
                done("put", puts);
                done("delete", deletes);
            }
            Err(error) => {
                metrics::counter!("mainstay_index_errors_total", "code" => error.code())
                    .increment(1);
            }
        }
        result
    }

    fn append(&self, changes: Vec<Change>, class: Class) -> Result<u64, DbError> {
        let inner = &self.inner;
        if inner.stopper.is_set() {
            return Err(DbError::Closed { name: inner.name.clone() });
        }
        if inner.log.durable_seq() + changes.len() as u64 > SEQ_MAX {
            return Err(DbError::Bound {
                message: format!(
                    "collection \"{}\" has used up its {SEQ_MAX} document numbers; \
                     index its documents into a new collection",
                    inner.name
                ),
            });
        }
        let mut tickets = Vec::new();
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for change in changes {
            let (kind, payload) = change.encode();
            batch_bytes += payload.len();
            batch.push(Record { kind, payload: Bytes::from(payload) });
            if batch_bytes >= SUBMIT_BYTES_MAX {
                tickets.push(inner.log.submit_as(std::mem::take(&mut batch), class)?);
                batch_bytes = 0;
            }
        }
        if !batch.is_empty() {
            tickets.push(inner.log.submit_as(batch, class)?);
        }
        let mut seq = 0;
        for ticket in tickets {
            seq = ticket.wait()?.last_seq;
        }
        self.wait_applied(seq, &[ViewKind::Documents], VISIBLE_WAIT);
        Ok(seq)
    }

    /// Waits until `methods` have indexed everything up to `seq`; answers whether they have.
    pub fn wait_indexed(&self, seq: u64, methods: &[Method], timeout: Duration) -> bool {
        // Without the stored documents no method can be asked.
        let mut kinds = vec![ViewKind::Documents];
        kinds.extend(methods.iter().copied().map(ViewKind::Method));
        self.wait_applied(seq, &kinds, timeout)
    }

    /// Waits until the stored documents show everything that was acknowledged before the restart:
    /// an acknowledged document must not be said to be missing. A view that is being rebuilt is not
    /// waited for; it answers with an error that says so.
    pub(crate) fn wait_replayed(&self) {
        let documents = self.inner.slot(ViewKind::Documents);
        let target = self.inner.log.durable_seq();
        let begun = Instant::now();
        while documents.published().readers.is_some()
            && documents.published().state == ViewState::Ready
            && begun.elapsed() < REPLAY_WAIT
            && !self.wait_applied(target, &[ViewKind::Documents], REPLAY_STEP)
        {}
    }

    fn wait_applied(&self, seq: u64, kinds: &[ViewKind], timeout: Duration) -> bool {
        let inner = &self.inner;
        let there = || kinds.iter().all(|kind| inner.slot(*kind).published().through >= seq);
        let deadline = Instant::now() + timeout;
        let (turn, wake) = &inner.applied;
        let mut guard = turn.lock().unwrap_or_else(PoisonError::into_inner);
        while !there() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || inner.stopper.is_set() {
                return there();
            }
            (guard, _) = wake.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// One document.
    pub fn get(&self, id: &str) -> Result<Document, DbError> {
        let documents = self.inner.documents()?;
        let found = documents.get_by_id(id).map_err(documents_failed)?;
        found.ok_or_else(|| DbError::NoDocument { id: id.chars().take(128).collect() })
    }

    /// Documents in order of id, beginning after `after`; at most `limit`.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Document>, DbError> {
        let documents = self.inner.documents()?;
        let mut page = Vec::new();
        for (_, number) in documents.list(after, limit).map_err(documents_failed)? {
            page.extend(documents.get(number).map_err(documents_failed)?);
        }
        Ok(page)
    }

    /// The ids of all living documents, in order. Reads the whole id table.
    pub fn ids(&self) -> Result<Vec<String>, DbError> {
        let documents = self.inner.documents()?;
        let all = documents.list(None, usize::MAX).map_err(documents_failed)?;
        Ok(all.into_iter().map(|(id, _)| id).collect())
    }

    /// The last durable sequence number.
    pub fn durable_seq(&self) -> u64 {
        self.inner.log.durable_seq()
    }

    /// The collection's figures.
    pub fn status(&self) -> CollectionStatus {
        let inner = &self.inner;
        let settings = inner.settings();
        let views = inner.slots.iter().map(|slot| {
            let published = slot.published();
            ViewStatus {
                view: slot.kind.name(),
                state: published.state.clone(),
                indexed_through: published.through,
                checkpointed_through: published.checkpointed,
                figures: published.figures,
                set_aside: inner.set_aside.of(slot.kind.name()),
                mended: published.mended.clone(),
            }
        });
        CollectionStatus {
            views: views.collect(),
            documents: inner.documents().map(|documents| documents.count()).unwrap_or_default(),
            durable_seq: inner.log.durable_seq(),
            log_bytes: inner.log.bytes(),
            log_refuses_writes: inner.log.refuses_writes().is_some(),
            log_queued_bytes: inner.log.queued_bytes(),
            model: settings.model.to_string(),
            refined: inner.refined(),
            name: settings.name,
            created_ms: settings.created_ms,
            spaces: settings.spaces.into_iter().flatten().collect(),
            weights: settings.weights,
            worker_restarts: inner.restarts.load(Ordering::Relaxed),
        }
    }

    /// Records that a view can never apply, of all views.
    pub fn set_aside(&self) -> Vec<SetAsideEntry> {
        self.inner.set_aside.list()
    }

    /// Records fusion weights for this collection; `None` goes back to the defaults.
    pub fn set_weights(&self, weights: Option<Weights>) -> Result<(), DbError> {
        self.inner.change_settings(|settings| settings.weights = weights)
    }

    /// Makes every view durable now, so that a restart replays nothing.
    pub fn checkpoint(&self) -> Result<(), DbError> {
        for slot in &self.inner.slots {
            let mut held = slot.held();
            slot.checkpoint(&mut held)
                .map_err(|source| DbError::View { view: slot.kind.name(), source })?;
        }
        Ok(())
    }

    /// The breaker of a method, for those who list, reset or isolate it.
    pub fn breaker(&self, method: Method) -> &CircuitBreaker {
        self.dependency(method).breaker()
    }

    /// A method as a dependency: its breaker, the figures of its calls, its fault point.
    pub fn dependency(&self, method: Method) -> &Dependency {
        &self.inner.methods[method as usize]
    }
}
/// One line about how a log was found. What there is none of is left out.
fn tell(collection: &str, found: &Recovery) {
    let some = |count: usize| (count > 0).then_some(count);
    tracing::info!(
        collection,
        created = found.created.then_some(true),
        segments = found.segments,
        last_seq = found.durable_seq,
        torn_bytes = (found.torn_bytes > 0).then_some(found.torn_bytes),
        copied_records = (found.copied_records > 0).then_some(found.copied_records),
        damaged_places = some(found.damage.len()),
        scars = some(found.scars.len()),
        accepted_losses = some(found.accepted.len()),
        headers_rebuilt = some(found.headers_rebuilt.len()),
        unreadable_files = some(found.unreadable.len()),
        "log opened"
    );
}
