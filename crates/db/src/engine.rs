//! [`Engine`]: what the handles, the drivers and the running queries of a collection share.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_resilience::Dependency;
use mainstay_search::bitmap::Bitmap;
use mainstay_search::documents::DocumentsSnapshot;
use mainstay_search::method::Method;
use mainstay_search::request::Stop;
use mainstay_search::view::ViewError;
use mainstay_storage::fs::FileSystem;
use mainstay_storage::log::Batch;
use mainstay_storage::{Directory, Log, LogError};

use crate::driven::{Driven, Readers, ViewKind, number_of};
use crate::embedding::Embedding;
use crate::error::DbError;
use crate::large_records::{LargeRecords, Turn};
use crate::maintenance::Maintenance;
use crate::open_view;
use crate::options::Options;
use crate::runtime::Runtime;
use crate::search_figures::SearchFigures;
use crate::set_aside::SetAside;
use crate::settings::Settings;
use crate::slot::Slot;
use crate::stopper::Stopper;

/// What the handles, the drivers and the running queries share.
pub(crate) struct Engine {
    pub(crate) folder: PathBuf,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) log: Log,
    pub(crate) slots: [Arc<Slot>; 5],
    pub(crate) methods: [Dependency; 4],
    pub(crate) set_aside: SetAside,
    pub(crate) embedding: RwLock<Arc<Embedding>>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) options: Options,
    pub(crate) stopper: Stopper,
    /// Ends merges and compactions early.
    pub(crate) stop_work: Stop,
    pub(crate) name: String,
    pub(crate) settings: RwLock<Settings>,
    pub(crate) home: Directory,
    pub(crate) current: Directory,
    pub(crate) applied: (Mutex<u64>, Condvar),
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    /// Times that background work panicked and was begun anew.
    pub(crate) restarts: AtomicU64,
    pub(crate) search_figures: SearchFigures,
}

impl Engine {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn slot(&self, kind: ViewKind) -> &Arc<Slot> {
        &self.slots[kind.index()]
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the settings, in memory only after the file is durable.
    pub(crate) fn change_settings(
        &self,
        change: impl FnOnce(&mut Settings),
    ) -> Result<(), DbError> {
        let mut settings = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = settings.clone();
        change(&mut changed);
        changed.store(&self.home)?;
        *settings = changed;
        Ok(())
    }

    pub(crate) fn embedding(&self) -> Arc<Embedding> {
        Arc::clone(&self.embedding.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_embedding(&self, embedding: Arc<Embedding>) {
        *self.embedding.write().unwrap_or_else(PoisonError::into_inner) = embedding;
    }

    /// Reads the next batch of the log, in turn with other views where it is large.
    pub(crate) fn read_in_turn<'t>(
        &self,
        turns: &'t LargeRecords,
        from_seq: u64,
        bytes_max: u64,
    ) -> Result<(Batch, Option<Turn<'t>>), LogError> {
        let is_short = self.runtime.memory_is_short();
        turns.read(&self.log, from_seq, bytes_max, is_short, &self.stopper)
    }

    /// The documents as readers see them.
    pub(crate) fn documents(&self) -> Result<Arc<DocumentsSnapshot>, DbError> {
        let published = self.slot(ViewKind::Documents).published();
        match &published.readers {
            Some(Readers::Documents(documents)) => Ok(Arc::clone(documents)),
            _ => Err(DbError::Unanswered {
                reasons: format!("the stored documents are {}", published.state),
                retry_after_ms: Some(1000),
            }),
        }
    }

    /// The living documents; none while they are unknown, so that a merge then drops nothing.
    pub(crate) fn living(&self) -> Bitmap {
        match self.documents() {
            Ok(documents) => {
                let mut living = documents.living().clone();
                // What the documents view has not seen yet may live.
                for seq in documents.through() + 1..=self.log.durable_seq() {
                    living.insert(number_of(seq));
                }
                living
            }
            Err(_) => Bitmap::full(number_of(self.log.durable_seq()) + 1),
        }
    }

    /// Passages with a refined vector, and passages in all.
    pub(crate) fn refined(&self) -> Option<(u64, u64)> {
        self.slot(ViewKind::Method(Method::Semantic)).published().refined
    }

    pub(crate) fn notify_applied(&self) {
        let (turn, wake) = &self.applied;
        *turn.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        wake.notify_all();
    }

    /// Opens a view again from its checkpoint after it panicked.
    pub(crate) fn reopen(&self, slot: &Slot) {
        let mut held = slot.held();
        held.driven = None;
        let embedding = self.embedding();
        let (fs, folder) = (&self.fs, &self.folder);
        match open_view::open_current(fs, folder, &self.current, slot.kind, &embedding, false) {
            Ok(opened) => *held = opened,
            Err(error) => {
                tracing::error!(collection = self.name, view = %slot.kind, %error, "view cannot be opened again");
            }
        }
        slot.publish(&mut held);
    }

    /// Opens a new, empty generation of a view beside the one that serves.
    pub(crate) fn open_generation(
        &self,
        kind: ViewKind,
        generation: u64,
        embedding: &Arc<Embedding>,
    ) -> Result<Box<dyn Driven>, DbError> {
        open_view::open_empty(&self.fs, &self.folder, kind, generation, embedding)
    }

    /// Makes a generation the one that counts, and removes the one before.
    pub(crate) fn commit_generation(
        &self,
        kind: ViewKind,
        generation: u64,
        old: u64,
    ) -> Result<(), DbError> {
        open_view::set_current(&self.current, kind, generation)?;
        if old != generation {
            open_view::remove_generation(&self.fs, &self.folder, kind, old);
        }
        Ok(())
    }

    pub(crate) fn now_ms(&self) -> u64 {
        now_ms()
    }
}

/// The time, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn documents_failed(error: mainstay_search::request::SearchError) -> DbError {
    DbError::View { view: "documents", source: ViewError::Failed(Box::new(error)) }
}
