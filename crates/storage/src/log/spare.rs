//! Room for the next segment, made before it is needed.
//!
//! Running out of space must happen here, where nothing is at stake, and never inside a commit.
//! So the next segment (`spare`) is reserved and zero-filled ahead of its use. A second such file
//! (`reserve`) is kept for essential appends and for compaction when the disk is full.
//!
//! Invariants:
//! - A prepared file has all its space, durably: it got its name after its sync. It holds zeros,
//!   or what a crash during its activation left, under a seed that is never used again.
//! - No two prepared files ever have the same name. So a power loss that keeps only some of the
//!   renames never leaves a segment and a prepared file that are the same file.
//! - A file gets a segment's name only after header and content are durable, and is appended to
//!   only after that name is.
//! - `blocked` is set exactly while ordinary appends are refused for want of a next segment. It
//!   is cleared only when both files are there again, with a margin of one more segment free.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{LogError, io_error, is_no_room};
use super::frame::HEARTBEAT_BYTES;
use super::options::{LogOptions, Mutation};
use super::record::Class;
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::fs::{FileSystem, temp_path};

const SPARE_PREFIX: &str = "spare-";
const RESERVE_PREFIX: &str = "reserve-";
const SUFFIX: &str = ".zero";

/// A file that is ready to become a segment.
#[derive(Clone, Debug)]
struct Prepared {
    path: PathBuf,
    bytes: u64,
}

/// What a prepared file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Spare,
    Reserve,
}

#[derive(Debug)]
pub(crate) struct Spares {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    options: Arc<LogOptions>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    spare: Option<Prepared>,
    reserve: Option<Prepared>,
    preparing: bool,
    blocked: Option<LogError>,
    log_bytes: u64,
    stopped: bool,
}

/// Why a segment did not come into being.
#[derive(Debug)]
pub(crate) enum ActivateError {
    /// Nothing happened; the log goes on without.
    Unavailable(LogError),
    /// It is not known what a power loss would leave: only a restart can tell.
    Fatal(LogError),
}

impl ActivateError {
    pub(crate) fn into_inner(self) -> LogError {
        match self {
            Self::Unavailable(error) | Self::Fatal(error) => error,
        }
    }
}

impl Spares {
    /// Adopts what an earlier process prepared.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: Arc<LogOptions>,
    ) -> Result<Self, LogError> {
        let mut state = State::default();
        for listed in fs.list(dir).map_err(io_error("listing", dir))? {
            let Some(name) = listed.name.strip_suffix(SUFFIX) else { continue };
            let path = dir.join(&listed.name);
            let bytes = fs.len(&path).map_err(io_error("measuring", &path))?;
            let slot = if name.starts_with(SPARE_PREFIX) {
                &mut state.spare
            } else if name.starts_with(RESERVE_PREFIX) {
                &mut state.reserve
            } else {
                continue;
            };
            if let Some(other) = slot.replace(Prepared { path, bytes }) {
                fs.remove_file(&other.path).map_err(io_error("removing", &other.path))?;
            }
        }
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Why ordinary appends are refused, if they are.
    pub(crate) fn blocked(&self) -> Option<LogError> {
        self.lock().blocked.clone()
    }

    /// The log's size decides how large the next segment is.
    pub(crate) fn set_log_bytes(&self, bytes: u64) {
        self.lock().log_bytes = bytes;
    }

    /// Makes what is missing of the two files. Lifts the block when both are there.
    pub(crate) fn prepare(&self) -> Result<(), LogError> {
        let mut state = self.lock();
        while state.preparing {
            state = self.wait(state);
        }
        let missing = self.missing(&state);
        if missing.is_empty() {
            state.blocked = None;
            return Ok(());
        }
        let was_blocked = state.blocked.is_some();
        state.preparing = true;
        drop(state);
        let result = self.make_all(&missing, was_blocked);
        let mut state = self.lock();
        state.preparing = false;
        self.changed.notify_all();
        match result {
            Ok(()) => {
                if state.blocked.take().is_some() {
                    tracing::info!(dir = %self.dir.display(), "log takes writes again");
                }
                Ok(())
            }
            Err(error) => {
                if state.blocked.is_none() {
                    tracing::warn!(%error, "log refuses ordinary writes");
                }
                state.blocked = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Waits until there may be something to prepare; false when there never will be again.
    pub(crate) fn wait_for_work(&self) -> bool {
        let mut state = self.lock();
        while !state.stopped && state.blocked.is_none() && self.missing(&state).is_empty() {
            state = self.wait(state);
        }
        if !state.stopped && state.blocked.is_some() {
            let retry = Duration::from_millis(self.options.prepare_retry_ms);
            let timed = self.changed.wait_timeout(state, retry);
            state = timed.unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.stopped
    }

    /// Ends [`Spares::wait_for_work`].
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Gives the reserve back to the disk, for compaction to write its output; ordinary appends
    /// are refused until it is there again. Returns whether there was one.
    pub(crate) fn release_reserve(&self) -> Result<bool, LogError> {
        let mut state = self.lock();
        let Some(reserve) = state.reserve.take() else { return Ok(false) };
        let needed_bytes = reserve.bytes;
        let available_bytes = self.fs.available_bytes(&self.dir).unwrap_or(0);
        let full = LogError::DiskFull { path: self.dir.clone(), needed_bytes, available_bytes };
        state.blocked.get_or_insert(full);
        self.changed.notify_all();
        let removed = self.fs.remove_file(&reserve.path);
        removed.map_err(io_error("removing", &reserve.path))?;
        Ok(true)
    }

    /// Turns a prepared file into a segment: header and content, sync, name, folder sync.
    pub(crate) fn activate(
        &self,
        header: SegmentHeader,
        content: &[u8],
        class: Class,
    ) -> Result<Segment, ActivateError> {
        let needed = (SEGMENT_HEADER_BYTES + content.len() + HEARTBEAT_BYTES) as u64;
        let needed = needed.max(header.file_bytes);
        let prepared = self.take(needed, class).map_err(ActivateError::Unavailable)?;
        let header = SegmentHeader { file_bytes: prepared.bytes, ..header };
        let path = header.file_name().path(&self.dir);
        let unusable = |source| {
            let _ = self.fs.remove_file(&prepared.path);
            ActivateError::Unavailable(self.unavailable(prepared.bytes, source))
        };
        let file = self.fs.open(&prepared.path).map_err(unusable)?;
        let mut block = header.encode();
        block.extend_from_slice(content);
        file.write_all_at(&block, 0).map_err(unusable)?;
        if !self.options.mutated(Mutation::SkipSegmentSync) {
            file.sync_data().map_err(unusable)?;
        }
        let fatal = |action| {
            let wrap = io_error(action, &path);
            move |source| ActivateError::Fatal(wrap(source))
        };
        self.fs.rename(&prepared.path, &path).map_err(fatal("naming"))?;
        if !self.options.mutated(Mutation::SkipDirSync) {
            self.fs.sync_dir(&self.dir).map_err(fatal("syncing the folder of"))?;
        }
        Ok(Segment::new(header, path, file))
    }

    /// Takes a prepared file of at least `needed` bytes, making one if there is none.
    fn take(&self, needed: u64, class: Class) -> Result<Prepared, LogError> {
        let mut state = self.lock();
        while state.preparing {
            state = self.wait(state);
        }
        self.changed.notify_all();
        let fits = |prepared: &mut Prepared| prepared.bytes >= needed;
        if let Some(spare) = state.spare.take_if(fits) {
            return Ok(spare);
        }
        if let (Some(error), Class::Ordinary) = (&state.blocked, class) {
            return Err(error.clone());
        }
        // Made under the lock: nobody else may prepare meanwhile, and the commit waits anyway.
        let made = match (&state.blocked, class) {
            (Some(error), _) => Err(error.clone()),
            // The reserve first: an ordinary write must not take the last room from it.
            (None, Class::Ordinary) => self
                .fill_reserve(&mut state)
                .and_then(|()| self.make(Use::Spare, needed.max(self.segment_bytes(&state)))),
            (None, Class::Essential) => {
                self.make(Use::Spare, needed.max(self.segment_bytes(&state)))
            }
        };
        made.or_else(|error| {
            state.blocked.get_or_insert_with(|| error.clone());
            let reserve =
                state.reserve.take_if(|reserve| class == Class::Essential && fits(reserve));
            reserve.ok_or(error)
        })
    }

    /// Makes the reserve if there is none.
    fn fill_reserve(&self, state: &mut State) -> Result<(), LogError> {
        if state.reserve.is_none() && self.options.reserve_bytes > 0 {
            let bytes = self.segment_bytes(state).min(self.options.reserve_bytes);
            let bytes = bytes.max(self.options.segment_bytes_min);
            state.reserve = Some(self.make(Use::Reserve, bytes)?);
        }
        Ok(())
    }

    fn missing(&self, state: &State) -> Vec<(Use, u64)> {
        let segment_bytes = self.segment_bytes(state);
        let mut missing = Vec::new();
        // The reserve first: room for deletes matters more than room for writes.
        let reserve_bytes = segment_bytes.min(self.options.reserve_bytes);
        if state.reserve.as_ref().map_or(0, |reserve| reserve.bytes) < reserve_bytes {
            missing.push((Use::Reserve, reserve_bytes.max(self.options.segment_bytes_min)));
        }
        if state.spare.is_none() {
            missing.push((Use::Spare, segment_bytes));
        }
        missing
    }

    /// A segment is as large as the log so far, within its bounds.
    fn segment_bytes(&self, state: &State) -> u64 {
        state.log_bytes.clamp(self.options.segment_bytes_min, self.options.segment_bytes_max)
    }

    fn make_all(&self, missing: &[(Use, u64)], was_blocked: bool) -> Result<(), LogError> {
        if was_blocked {
            let wanted: u64 = missing.iter().map(|(_, bytes)| bytes).sum();
            let margin = missing.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
            let needed_bytes = wanted + margin;
            let measured = self.fs.available_bytes(&self.dir);
            let available_bytes =
                measured.map_err(|source| self.unavailable(needed_bytes, source))?;
            if available_bytes < needed_bytes {
                let path = self.dir.clone();
                return Err(LogError::DiskFull { path, needed_bytes, available_bytes });
            }
        }
        for (purpose, bytes) in missing {
            let prepared = self.make(*purpose, *bytes)?;
            let mut state = self.lock();
            let replaced = match purpose {
                Use::Spare => state.spare.replace(prepared),
                Use::Reserve => state.reserve.replace(prepared),
            };
            if let Some(smaller) = replaced {
                // One that stays is removed when the log is opened the next time.
                let _ = self.fs.remove_file(&smaller.path);
            }
        }
        Ok(())
    }

    fn make(&self, purpose: Use, bytes: u64) -> Result<Prepared, LogError> {
        let prefix = match purpose {
            Use::Spare => SPARE_PREFIX,
            Use::Reserve => RESERVE_PREFIX,
        };
        let unique = (self.options.entropy)();
        let path = self.dir.join(format!("{prefix}{unique:016x}{SUFFIX}"));
        let temp = temp_path(&path);
        let made = (|| {
            let file = self.fs.create(&temp)?;
            file.allocate(bytes)?;
            file.sync_all()?;
            self.fs.rename(&temp, &path)
        })();
        match made {
            Ok(()) => Ok(Prepared { path, bytes }),
            Err(source) => {
                let _ = self.fs.remove_file(&temp);
                Err(self.unavailable(bytes, source))
            }
        }
    }

    fn unavailable(&self, needed_bytes: u64, source: std::io::Error) -> LogError {
        let path = self.dir.clone();
        if is_no_room(&source) {
            let available_bytes = self.fs.available_bytes(&self.dir).unwrap_or(0);
            return LogError::DiskFull { path, needed_bytes, available_bytes };
        }
        LogError::SegmentUnavailable { path, source: Arc::new(source) }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each field is set in one step, so a panic elsewhere leaves a valid state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
