//! [`Watch`]: waits for changes below a folder and gives them in batches.
//!
//! A batch only says that something changed; the caller walks again and compares with its
//! [`super::state::State`], so that renames, ignore files and missed events need no care here. Where
//! the system cannot watch, because its limit is reached or the file system tells nothing, a batch
//! comes at a fixed interval instead.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// A batch ends when nothing has changed for this long: an editor's or a checkout's writes are over.
const QUIET: Duration = Duration::from_millis(200);
/// A batch ends after this long even if changes go on.
const BATCH_TIME_MAX: Duration = Duration::from_secs(5);
/// Without watching, a batch comes this often: a walk over 50,000 files takes a few percent of it.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// More paths than this are not listed; the batch says that it is incomplete.
const PATHS_MAX: usize = 10_000;
/// Events that wait for their reader; when there are more, the batch is incomplete.
const EVENTS_AHEAD_MAX: usize = 10_000;

/// How changes are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The system tells.
    Watching,
    /// By walking again every [`POLL_INTERVAL`].
    Polling {
        /// Why the system cannot tell, and what to do.
        reason: String,
    },
}

/// Something changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// What changed, as far as it is known.
    pub(crate) paths: BTreeSet<PathBuf>,
    /// Whether `paths` is all of it.
    pub(crate) is_complete: bool,
}

/// Waits for changes. Dropping it ends the watching.
pub(crate) struct Watch {
    mode: Mode,
    watcher: Option<RecommendedWatcher>,
    /// The paths of one event each.
    events: Receiver<Vec<PathBuf>>,
    /// Set when the system or the queue lost events.
    has_missed: Arc<AtomicBool>,
    folders: BTreeSet<PathBuf>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, {} folders)", self.mode, self.folders.len())
    }
}

impl Watch {
    /// Watches the folders that a walk entered: ignored ones cost no watch.
    pub(crate) fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let (sender, events) = sync_channel(EVENTS_AHEAD_MAX);
        let has_missed = Arc::new(AtomicBool::new(false));
        let missed = Arc::clone(&has_missed);
        let watcher = notify::recommended_watcher(move |event| forward(&sender, &missed, event));
        let mut watch = Self {
            mode: Mode::Watching,
            watcher: None,
            events,
            has_missed,
            folders: BTreeSet::new(),
        };
        match watcher {
            Ok(watcher) => {
                watch.watcher = Some(watcher);
                watch.update(folders);
            }
            Err(error) => watch.poll(&error),
        }
        watch
    }

    /// How changes are noticed at the moment; worth telling the user when it is polling.
    pub(crate) fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Watches these folders from now on; call it with every new walk. Answers whether a folder was
    /// added: it may have changed before it was watched, so walk once more.
    pub(crate) fn update(&mut self, folders: impl IntoIterator<Item = PathBuf>) -> bool {
        let folders: BTreeSet<PathBuf> = folders.into_iter().collect();
        let Some(watcher) = &mut self.watcher else { return false };
        for gone in self.folders.difference(&folders) {
            // A folder that was removed took its watch along.
            let _ = watcher.unwatch(gone);
        }
        let mut is_added = false;
        for folder in folders.difference(&self.folders) {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => is_added = true,
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    self.poll(&error);
                    return false;
                }
            }
        }
        self.folders = folders;
        is_added
    }

    /// Waits for the next batch, at most `time_max`; `None` when nothing changed until then.
    pub(crate) fn next(&mut self, time_max: Duration) -> Option<Batch> {
        if self.watcher.is_none() {
            std::thread::sleep(time_max.min(POLL_INTERVAL));
            return (time_max >= POLL_INTERVAL).then(Batch::default);
        }
        let mut batch = Batch { is_complete: true, ..Batch::default() };
        self.take(&mut batch, time_max)?;
        let begun = Instant::now();
        while begun.elapsed() < BATCH_TIME_MAX && self.take(&mut batch, QUIET).is_some() {}
        batch.is_complete &= !self.has_missed.swap(false, Ordering::Relaxed);
        Some(batch)
    }

    fn take(&mut self, batch: &mut Batch, time_max: Duration) -> Option<()> {
        match self.events.recv_timeout(time_max) {
            Ok(paths) => {
                batch.paths.extend(paths);
                if batch.paths.len() > PATHS_MAX {
                    batch.is_complete = false;
                    batch.paths.clear();
                }
                Some(())
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.poll(&notify::Error::generic("the system's watcher ended"));
                None
            }
        }
    }

    /// Gives watching up.
    fn poll(&mut self, error: &notify::Error) {
        let seconds = POLL_INTERVAL.as_secs();
        let reason = match error.kind {
            notify::ErrorKind::MaxFilesWatch => format!(
                "the system's limit of watched folders is reached, so the folder is read every \
                 {seconds} s instead; raise fs.inotify.max_user_watches to watch it"
            ),
            _ => format!("{error}, so the folder is read every {seconds} s instead"),
        };
        self.mode = Mode::Polling { reason };
        self.watcher = None;
        self.folders.clear();
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(source) => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// An event without paths still wakes the reader, which walks again.
fn forward(
    sender: &SyncSender<Vec<PathBuf>>,
    has_missed: &AtomicBool,
    event: notify::Result<Event>,
) {
    let paths = match event {
        // Reading changes nothing; without this, indexing would wake itself.
        Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
        Ok(event) if !event.need_rescan() => event.paths,
        _ => {
            has_missed.store(true, Ordering::Relaxed);
            Vec::new()
        }
    };
    if let Err(TrySendError::Full(_)) = sender.try_send(paths) {
        has_missed.store(true, Ordering::Relaxed);
    }
}
