//! [`Db`]: a data directory and its collections.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use mainstay_embed::ModelChoice;
use mainstay_resilience::Pipelines;
use mainstay_storage::fs::{self, FileSystem, LockGuard};
use mainstay_storage::{Directory, RealFs};
use serde::{Deserialize, Serialize};

use crate::background;
use crate::collection::Collection;
use crate::engine::now_ms;
use crate::error::DbError;
use crate::maintenance::Maintenance;
use crate::options::Options;
use crate::probe;
use crate::runtime::{Runtime, RuntimeFigures};
use crate::settings::{FORMAT_VERSION, Settings};
use crate::state_files::StateFiles;

/// The most collections of one data directory: each has threads and open files of its own.
pub const COLLECTIONS_MAX: usize = 128;
/// The name of a collection when nobody names one.
pub const COLLECTION_DEFAULT: &str = "default";

const FORMAT_FILE: &str = "mainstay.json";
const FORMAT_BYTES_MAX: u64 = 4 << 10;

/// An open data directory. Dropping it closes it; [`Db::close`] says how that went.
pub struct Db {
    fs: Arc<dyn FileSystem>,
    folder: PathBuf,
    options: Options,
    runtime: Arc<Runtime>,
    maintenance: Arc<Maintenance>,
    collections: RwLock<BTreeMap<String, Collection>>,
    /// Collections that could not be opened, and why; the others serve.
    broken: RwLock<BTreeMap<String, String>>,
    /// Held while collections are created or dropped.
    changing: Mutex<()>,
    /// Given back when the directory is closed.
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

#[derive(Serialize, Deserialize)]
struct Format {
    format_version: u32,
}

impl Db {
    /// Opens a data directory on the real disk, creating it where it is missing.
    pub fn open(folder: &Path, options: Options) -> Result<Self, DbError> {
        Self::open_on(Arc::new(RealFs), folder, options)
    }

    /// Opens a data directory on a given file system.
    ///
    /// A collection that cannot be opened is left out and listed by [`Db::broken`]; the others serve.
    ///
    /// # Errors
    /// [`DbError::Locked`] when somebody else has it open, [`DbError::FutureFormat`], [`DbError::Io`].
    pub fn open_on(
        fs: Arc<dyn FileSystem>,
        folder: &Path,
        options: Options,
    ) -> Result<Self, DbError> {
        options.validate()?;
        let home = Directory::open(Arc::clone(&fs), folder)
            .map_err(DbError::io("open the data directory", folder))?;
        let lock = fs.lock_exclusive(&folder.join("LOCK")).map_err(DbError::Locked)?;
        check_format(fs.as_ref(), &home)?;
        let runtime = Arc::new(Runtime::start(&options)?);
        let maintenance = Maintenance::start()
            .map_err(DbError::io("start the maintenance thread for", folder))?;
        let db = Self {
            folder: folder.to_path_buf(),
            fs,
            options,
            runtime,
            maintenance: Arc::new(maintenance),
            collections: RwLock::default(),
            broken: RwLock::default(),
            changing: Mutex::new(()),
            lock: Mutex::new(Some(lock)),
        };
        db.open_collections()?;
        Ok(db)
    }

    /// Opens the small pieces of state of a data directory alone, creating it where it is missing.
    /// The directory is locked until the guard is dropped.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_state(folder: &Path) -> Result<(StateFiles, Box<dyn LockGuard>), DbError> {
        let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
        let home = Directory::open(Arc::clone(&fs), folder)
            .map_err(DbError::io("open the data directory", folder))?;
        let lock = fs.lock_exclusive(&folder.join("LOCK")).map_err(DbError::Locked)?;
        check_format(fs.as_ref(), &home)?;
        let folder = folder.join("state");
        let files = StateFiles::open(fs, folder.clone()).map_err(DbError::io("create", folder))?;
        Ok((files, lock))
    }

    fn open_collections(&self) -> Result<(), DbError> {
        let path = self.folder.join("collections");
        fs::create_dir_durable(self.fs.as_ref(), &path).map_err(DbError::io("create", &path))?;
        let listed = self.fs.list(&path).map_err(DbError::io("list", &path))?;
        for entry in listed.into_iter().filter(|entry| entry.is_dir) {
            let name = entry.name;
            if !is_name(&name) {
                // A drop renames before it removes; what is left of one is removed now.
                if let Err(error) = self.fs.remove_dir_all(&path.join(&name)) {
                    tracing::warn!(name, %error, "left-over folder stays for now");
                }
                continue;
            }
            match self.open_collection(&name) {
                Ok(collection) => {
                    self.write_collections().insert(name, collection);
                }
                Err(error) => {
                    tracing::error!(collection = name, %error, "collection cannot be opened");
                    let mut broken = self.broken.write().unwrap_or_else(PoisonError::into_inner);
                    broken.insert(name, error.to_string());
                }
            }
        }
        Ok(())
    }

    fn open_collection(&self, name: &str) -> Result<Collection, DbError> {
        let collection = Collection::open(
            Arc::clone(&self.fs),
            self.folder.join("collections").join(name),
            Arc::clone(&self.runtime),
            Arc::clone(&self.maintenance),
            self.options.clone(),
        )?;
        background::start(&collection)?;
        probe::declare(&collection);
        collection.wait_replayed();
        Ok(collection)
    }

    /// Creates a collection; durable when it returns.
    pub fn create_collection(&self, name: &str, model: ModelChoice) -> Result<Collection, DbError> {
        if !is_name(name) {
            return Err(DbError::CollectionName { name: name.chars().take(80).collect() });
        }
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.read_collections();
        if known.contains_key(name) || self.broken().contains_key(name) {
            return Err(DbError::CollectionExists { name: name.to_string() });
        }
        if known.len() >= COLLECTIONS_MAX {
            return Err(DbError::TooManyCollections { collections_max: COLLECTIONS_MAX });
        }
        drop(known);
        // A model that cannot be used is the creator's mistake: better told now than by `semantic`.
        self.runtime.models(&model)?;
        let settings = Settings {
            name: name.to_string(),
            created_ms: now_ms(),
            model,
            spaces: [None, None],
            weights: None,
        };
        // The folder gets its name when its settings are in it: after a crash a collection is there
        // whole or not at all.
        let parent = self.folder.join("collections");
        let (temporary, path) = (parent.join(format!("{name}.new")), parent.join(name));
        Collection::create(&self.fs, &temporary, &settings)?;
        self.fs.rename(&temporary, &path).map_err(DbError::io("name", &path))?;
        self.fs.sync_dir(&parent).map_err(DbError::io("sync", &parent))?;
        let collection = self.open_collection(name)?;
        self.write_collections().insert(name.to_string(), collection.clone());
        Ok(collection)
    }

    /// A collection by name.
    pub fn collection(&self, name: &str) -> Result<Collection, DbError> {
        let found = self.read_collections().get(name).cloned();
        found.ok_or_else(|| match self.broken().get(name) {
            Some(reason) => DbError::Damaged {
                path: self.folder.join("collections").join(name),
                reason: reason.clone(),
            },
            None => DbError::NoCollection { name: name.chars().take(80).collect() },
        })
    }

    /// A collection by name, created with the default model where it is missing.
    pub fn collection_or_create(
        &self,
        name: &str,
        model: ModelChoice,
    ) -> Result<Collection, DbError> {
        match self.collection(name) {
            Err(DbError::NoCollection { .. }) => match self.create_collection(name, model) {
                // Somebody else was quicker.
                Err(DbError::CollectionExists { .. }) => self.collection(name),
                created => created,
            },
            found => found,
        }
    }

    /// Every collection, in order of name.
    pub fn collections(&self) -> Vec<Collection> {
        self.read_collections().values().cloned().collect()
    }

    /// Collections that could not be opened, and why.
    pub fn broken(&self) -> BTreeMap<String, String> {
        self.broken.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Drops a collection and everything in it; durable when it returns. Running queries end with
    /// an error or with what they have.
    pub fn drop_collection(&self, name: &str) -> Result<(), DbError> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.write_collections().remove(name);
        let broken =
            self.broken.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some();
        match found {
            Some(collection) => collection.close()?,
            None if broken => {}
            None => return Err(DbError::NoCollection { name: name.chars().take(80).collect() }),
        }
        let parent = self.folder.join("collections");
        let dropped = parent.join(format!("{name}.dropped"));
        let path = parent.join(name);
        self.fs.rename(&path, &dropped).map_err(DbError::io("drop", &path))?;
        self.fs.sync_dir(&parent).map_err(DbError::io("sync", &parent))?;
        self.fs.remove_dir_all(&dropped).map_err(DbError::io("remove", dropped))
    }

    /// What the threads and caches that all collections share hold now.
    pub fn figures(&self) -> RuntimeFigures {
        self.runtime.figures()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the process that serves the data directory keeps small pieces of state.
    pub fn state_files(&self) -> Result<StateFiles, DbError> {
        let folder = self.folder.join("state");
        StateFiles::open(Arc::clone(&self.fs), folder.clone())
            .map_err(DbError::io("create", folder))
    }

    /// Collections that take no writes at present, and why.
    pub fn writes_refused(&self) -> BTreeMap<String, String> {
        let collections = self.collections();
        let refused = collections.iter().filter_map(|collection| {
            let error = collection.inner.log.refuses_writes()?;
            Some((collection.name().to_string(), error.to_string()))
        });
        refused.collect()
    }

    /// Whether no collection takes anything at present, not even removals, because its log is
    /// damaged. On a full disk removals go on, so that one does not count.
    pub fn is_read_only(&self) -> bool {
        let collections = self.collections();
        let refuses = |collection: &Collection| collection.inner.log.refuses_all().is_some();
        !collections.is_empty() && collections.iter().all(refuses)
    }

    /// Keeps about this share of the embedded queries, 0 to 1, and answers the bytes that were freed.
    /// The bound stays what it was.
    pub fn shrink_query_cache(&self, keep: f64) -> u64 {
        self.runtime.shrink_query_caches(keep)
    }

    /// Bytes that views hold in memory because they are not written yet.
    pub fn unwritten_bytes(&self) -> u64 {
        let of = |collection: Collection| -> u64 {
            collection.status().views.iter().map(|view| view.figures.memory_bytes).sum()
        };
        self.collections().into_iter().map(of).sum()
    }

    /// Lets views write what they hold in memory soon, and keep little in the next seconds.
    pub fn write_soon(&self, lasting: Duration) {
        self.runtime.memory_short_for(lasting);
    }

    /// The dependencies of the process, search methods among them.
    pub fn pipelines(&self) -> &Pipelines {
        &self.options.pipelines
    }

    /// How many merges are queued or under way. While it is above 0, searches share the machine with
    /// them and the indexes are not yet as quick as they will be.
    pub fn maintenance_pending(&self) -> usize {
        self.maintenance.pending()
    }

    /// Bytes that may still be written on the disk of the data directory.
    pub fn disk_available_bytes(&self) -> Result<u64, DbError> {
        self.fs
            .available_bytes(&self.folder)
            .map_err(DbError::io("look for free space at", &self.folder))
    }

    /// Closes every collection: ends background work, makes every view durable, closes the logs.
    /// Answers the first error after closing what could be closed. Closing again does nothing.
    pub fn close(&self) -> Result<(), DbError> {
        let collections = std::mem::take(&mut *self.write_collections());
        let closing: Vec<_> = collections
            .into_values()
            .map(|collection| std::thread::spawn(move || collection.close()))
            .collect();
        let mut outcome = Ok(());
        for thread in closing {
            let closed = thread
                .join()
                .unwrap_or_else(|_| Err(DbError::Internal("closing a collection panicked".into())));
            if outcome.is_ok() {
                outcome = closed;
            }
        }
        self.maintenance.close();
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        outcome
    }

    fn read_collections(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Collection>> {
        self.collections.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_collections(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Collection>> {
        self.collections.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "data directory not closed cleanly; the log will be replayed");
        }
    }
}

/// Whether this may name a collection: it names a folder too.
fn is_name(name: &str) -> bool {
    let first = name.bytes().next();
    (1..=64).contains(&name.len())
        && first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

/// Reads the format of the data directory, or records it in a new one.
fn check_format(fs: &dyn FileSystem, home: &Directory) -> Result<(), DbError> {
    let path = home.path().join(FORMAT_FILE);
    if fs.exists(&path).map_err(DbError::io("look for", &path))? {
        let bytes = fs::read(fs, &path, FORMAT_BYTES_MAX).map_err(DbError::io("read", &path))?;
        let format: Format = serde_json::from_slice(&bytes).map_err(|e| DbError::Damaged {
            path: path.clone(),
            reason: format!("{e}; it should read {{\"format_version\":{FORMAT_VERSION}}}"),
        })?;
        if format.format_version > FORMAT_VERSION {
            let found = format.format_version;
            return Err(DbError::FutureFormat { path, found, supported: FORMAT_VERSION });
        }
        return Ok(());
    }
    let foreign = home.list().map_err(DbError::io("list", home.path()))?;
    if let Some(name) = foreign.iter().find(|name| *name != "LOCK") {
        return Err(DbError::Damaged {
            path: home.path().to_path_buf(),
            reason: format!(
                "it holds {name} but no {FORMAT_FILE}, so it is no data directory; \
                 name an empty or a new folder"
            ),
        });
    }
    let json = serde_json::to_vec(&Format { format_version: FORMAT_VERSION })
        .map_err(|e| DbError::Internal(format!("the format cannot be written as JSON: {e}")))?;
    let write = || -> std::io::Result<()> {
        let mut file = home.create(FORMAT_FILE)?;
        file.write_all(&json)?;
        file.finish()
    };
    write().map_err(DbError::io("write", &path))
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_of_collections_are_plain_folder_names() {
        for good in ["a", "docs", "0", "a-b_c"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "A", "a/b", "..", "a.b", "ü", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
