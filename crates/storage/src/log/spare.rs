//! Room for the next segment, made before it is needed.
//!
//! Running out of space must happen here, where nothing is at stake, and never inside a commit.
//! So the next segment (`spare`) is reserved and zero-filled ahead of its use. A second such file
//! (`reserve`) is kept for essential appends and for compaction when the disk is full.
//!
//! Invariants:
//! - A file under one of the two names has all its space, as zeros, durably: it got the name
//!   after its sync.
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

const SPARE_NAME: &str = "spare.zero";
const RESERVE_NAME: &str = "reserve.zero";

#[derive(Debug)]
pub(crate) struct Spares {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    options: Arc<LogOptions>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Sizes of the files that are there, in bytes.
#[derive(Debug, Default)]
struct State {
    spare: Option<u64>,
    reserve: Option<u64>,
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
        for (name, slot) in [(SPARE_NAME, &mut state.spare), (RESERVE_NAME, &mut state.reserve)] {
            let path = dir.join(name);
            if fs.exists(&path).map_err(io_error("looking for", &path))? {
                *slot = Some(fs.len(&path).map_err(io_error("measuring", &path))?);
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
        let Some(needed_bytes) = state.reserve.take() else { return Ok(false) };
        let available_bytes = self.fs.available_bytes(&self.dir).unwrap_or(0);
        let full = LogError::DiskFull { path: self.dir.clone(), needed_bytes, available_bytes };
        state.blocked.get_or_insert(full);
        self.changed.notify_all();
        let path = self.dir.join(RESERVE_NAME);
        self.fs.remove_file(&path).map_err(io_error("removing", &path))?;
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
        let (prepared, file_bytes) =
            self.take(needed, class).map_err(ActivateError::Unavailable)?;
        let header = SegmentHeader { file_bytes, ..header };
        let path = header.file_name().path(&self.dir);
        let unusable = |source| {
            let _ = self.fs.remove_file(&prepared);
            ActivateError::Unavailable(self.unavailable(file_bytes, source))
        };
        let file = self.fs.open(&prepared).map_err(unusable)?;
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
        self.fs.rename(&prepared, &path).map_err(fatal("naming"))?;
        if !self.options.mutated(Mutation::SkipDirSync) {
            self.fs.sync_dir(&self.dir).map_err(fatal("syncing the folder of"))?;
        }
        Ok(Segment::new(header, path, file))
    }

    /// Takes a prepared file of at least `needed` bytes, making one if there is none.
    fn take(&self, needed: u64, class: Class) -> Result<(PathBuf, u64), LogError> {
        let mut state = self.lock();
        while state.preparing {
            state = self.wait(state);
        }
        if let Some(bytes) = state.spare.take_if(|bytes| *bytes >= needed) {
            self.changed.notify_all();
            return Ok((self.dir.join(SPARE_NAME), bytes));
        }
        let blocked = state.blocked.clone();
        if let (Some(error), Class::Ordinary) = (&blocked, class) {
            return Err(error.clone());
        }
        // Made under the lock: nobody else may prepare meanwhile, and the commit waits anyway.
        let made = match blocked {
            Some(error) => Err(error),
            None => {
                let bytes = needed.max(self.segment_bytes(&state));
                self.make(SPARE_NAME, bytes).map(|()| bytes)
            }
        };
        match made {
            Ok(bytes) => {
                state.spare = None;
                self.changed.notify_all();
                Ok((self.dir.join(SPARE_NAME), bytes))
            }
            Err(error) => {
                state.blocked = Some(error.clone());
                self.changed.notify_all();
                match state.reserve.take_if(|bytes| *bytes >= needed) {
                    Some(bytes) if class == Class::Essential => {
                        Ok((self.dir.join(RESERVE_NAME), bytes))
                    }
                    kept => {
                        state.reserve = state.reserve.or(kept);
                        Err(error)
                    }
                }
            }
        }
    }

    fn missing(&self, state: &State) -> Vec<(&'static str, u64)> {
        let segment_bytes = self.segment_bytes(state);
        let mut missing = Vec::new();
        // The reserve first: room for deletes matters more than room for writes.
        let reserve_bytes = segment_bytes.min(self.options.reserve_bytes);
        if state.reserve.unwrap_or(0) < reserve_bytes {
            missing.push((RESERVE_NAME, reserve_bytes.max(self.options.segment_bytes_min)));
        }
        if state.spare.is_none() {
            missing.push((SPARE_NAME, segment_bytes));
        }
        missing
    }

    /// A segment is as large as the log so far, within its bounds.
    fn segment_bytes(&self, state: &State) -> u64 {
        state.log_bytes.clamp(self.options.segment_bytes_min, self.options.segment_bytes_max)
    }

    fn make_all(&self, missing: &[(&'static str, u64)], was_blocked: bool) -> Result<(), LogError> {
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
        for (name, bytes) in missing {
            self.make(name, *bytes)?;
            let mut state = self.lock();
            match *name {
                RESERVE_NAME => state.reserve = Some(*bytes),
                _ => state.spare = Some(*bytes),
            }
        }
        Ok(())
    }

    fn make(&self, name: &str, bytes: u64) -> Result<(), LogError> {
        let path = self.dir.join(name);
        let temp = temp_path(&path);
        let made = (|| {
            let file = self.fs.create(&temp)?;
            file.allocate(bytes)?;
            file.sync_all()?;
            self.fs.rename(&temp, &path)
        })();
        made.map_err(|source| {
            let _ = self.fs.remove_file(&temp);
            self.unavailable(bytes, source)
        })
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
