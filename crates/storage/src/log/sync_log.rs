//! The log without threads: every step happens in the caller's call.
//!
//! [`crate::log::Log`] is this with a thread that commits and one that prepares segments. Tests
//! use it directly, so that a simulation is deterministic.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::accept::accept_loss;
use super::check::{AcceptedLoss, FIRST_SEQ, Verification, check_all};
use super::compact::{Compaction, DROP_PERCENT_MIN, compact};
use super::error::{Damage, LogError, io_error};
use super::options::LogOptions;
use super::reader::{Batch, read};
use super::record::{Appended, Class, Entry, Record};
use super::recover::{Opened, Recovery, recover};
use super::spare::Spares;
use super::state::State;
use super::writer::Writer;
use crate::fs::{FileSystem, LockGuard, create_dir_durable};

const LOCK_NAME: &str = "LOCK";

/// A log that does nothing by itself.
#[derive(Debug)]
pub struct SyncLog {
    state: Arc<State>,
    /// `None` while damage keeps the log read-only, and after `close`.
    writer: Mutex<Option<Writer>>,
    /// Held while segments are being replaced.
    rewriting: Mutex<()>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

impl SyncLog {
    /// Opens or creates the log in a folder of its own, recovering from whatever ended the
    /// process before.
    ///
    /// A torn tail is cut. Damage to acknowledged records is never cut: the log is opened
    /// read-only, and [`Recovery::damage`] names the range.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<(Self, Recovery), LogError> {
        options.check()?;
        let options = Arc::new(options);
        create_dir_durable(fs.as_ref(), dir).map_err(io_error("creating", dir))?;
        let lock = fs.lock_exclusive(&dir.join(LOCK_NAME));
        let lock = lock.map_err(|error| LogError::Locked(Arc::new(error)))?;
        let spares = Spares::open(Arc::clone(&fs), dir, Arc::clone(&options))?;
        let opened = recover(fs.as_ref(), dir, &options, &spares)?;
        let state = Arc::new(State::new(fs, dir.to_owned(), options, spares));
        let recovery = opened.recovery.clone();
        let log = Self {
            state,
            writer: Mutex::new(None),
            rewriting: Mutex::new(()),
            lock: Mutex::new(Some(lock)),
        };
        log.adopt(&mut log.writer(), opened);
        Ok((log, recovery))
    }

    /// The folder.
    pub fn dir(&self) -> &PathBuf {
        &self.state.dir
    }

    /// Makes the records of several callers durable in one frame, with one sync. They get their
    /// numbers in the order given. After [`LogError::OutcomeUnknown`] only the next open tells
    /// what is there; after any other error nothing was written.
    pub fn commit(&self, groups: &[&[Record]], class: Class) -> Result<Vec<Appended>, LogError> {
        match &mut *self.writer() {
            Some(writer) => writer.commit(groups, class),
            None => Err(self.refusal()),
        }
    }

    /// Proves the last commit durable to whoever reads the log after a crash. Does nothing if
    /// that is proven already.
    pub fn heartbeat(&self) -> Result<(), LogError> {
        match &mut *self.writer() {
            Some(writer) => writer.heartbeat(),
            None => Ok(()),
        }
    }

    /// Whether [`SyncLog::heartbeat`] has something to do.
    pub fn heartbeat_due(&self) -> bool {
        self.writer().as_ref().is_some_and(Writer::heartbeat_due)
    }

    /// Makes the next segment ready. Lifts the refusal of ordinary appends when there is room
    /// again.
    pub fn prepare(&self) -> Result<(), LogError> {
        self.state.spares.prepare()
    }

    /// Why appends of a class are refused now, if they are.
    pub fn refuses(&self, class: Class) -> Option<LogError> {
        if let Err(error) = self.state.check_writable() {
            return Some(error);
        }
        match class {
            Class::Ordinary => self.state.spares.blocked(),
            Class::Essential => None,
        }
    }

    /// The last durable record; 0 in an empty log.
    pub fn durable_seq(&self) -> u64 {
        self.state.durable_seq()
    }

    /// The first record's number: 1, compacted away or not.
    pub fn first_seq(&self) -> u64 {
        FIRST_SEQ
    }

    /// Bytes of the log's frames and headers on the disk.
    pub fn bytes(&self) -> u64 {
        self.state.segments().iter().map(|segment| segment.end()).sum()
    }

    /// Durable records from `from_seq` on, about `bytes_max` of payload, at least one. Empty when
    /// nothing is there beyond; numbers that were compacted away are passed over.
    pub fn read(&self, from_seq: u64, bytes_max: u64) -> Result<Vec<Entry>, LogError> {
        self.read_batch(from_seq, bytes_max).map(|batch| batch.entries)
    }

    /// As [`SyncLog::read`], with the number to go on from.
    pub fn read_batch(&self, from_seq: u64, bytes_max: u64) -> Result<Batch, LogError> {
        read(&self.state, from_seq, bytes_max)
    }

    /// Blocks until a record beyond `seq` is durable or the time is over; returns the last
    /// durable one.
    pub fn wait_beyond(&self, seq: u64, timeout: Duration) -> u64 {
        self.state.wait_beyond(seq, timeout)
    }

    /// Reads every frame of every segment and checks hashes, chain and numbers. Appends and reads
    /// go on meanwhile.
    pub fn verify(&self) -> Result<Verification, LogError> {
        let durable_seq = self.durable_seq();
        check_all(&self.state.dir, &self.state.segments(), durable_seq)
    }

    /// Rewrites the sealed segments that end at or before `through_seq` without the records for
    /// which `keep` is false, compressed. Kept records keep their numbers. `bytes_per_s` bounds
    /// the reading; zero does not. Appends and reads go on meanwhile; a crash at any point leaves
    /// the old files or the new one.
    ///
    /// `keep` may be asked about a record more than once and must not answer true after false.
    /// Damage in a segment ends the compaction with its range and leaves the segment as it is.
    pub fn compact(
        &self,
        through_seq: u64,
        keep: &mut dyn FnMut(&Entry) -> bool,
        bytes_per_s: u64,
    ) -> Result<Compaction, LogError> {
        self.compact_from(through_seq, keep, bytes_per_s, DROP_PERCENT_MIN)
    }

    /// As [`SyncLog::compact`], leaving no record behind for which `keep` is false: every segment
    /// that has one is rewritten, however little it saves.
    pub fn compact_fully(
        &self,
        through_seq: u64,
        keep: &mut dyn FnMut(&Entry) -> bool,
        bytes_per_s: u64,
    ) -> Result<Compaction, LogError> {
        self.compact_from(through_seq, keep, bytes_per_s, 0)
    }

    fn compact_from(
        &self,
        through_seq: u64,
        keep: &mut dyn FnMut(&Entry) -> bool,
        bytes_per_s: u64,
        drop_percent_min: u64,
    ) -> Result<Compaction, LogError> {
        let _rewriting = self.rewriting.try_lock().map_err(|_| LogError::CompactionRunning)?;
        self.state.check_writable()?;
        let through_seq = through_seq.min(self.durable_seq());
        compact(&self.state, through_seq, keep, bytes_per_s, drop_percent_min)
    }

    /// Accepts that a damaged range is lost, exactly as [`Recovery::damage`] or
    /// [`SyncLog::verify`] report it, and records that in the log. When no damage is left the log
    /// takes writes again. Returns what the log looks like then.
    pub fn accept_loss(
        &self,
        first_seq: u64,
        last_seq: u64,
    ) -> Result<(AcceptedLoss, Recovery), LogError> {
        let _rewriting = self.rewriting.try_lock().map_err(|_| LogError::CompactionRunning)?;
        let mut writer = self.writer();
        if let Err(poisoned @ LogError::Poisoned { .. }) = self.state.check_writable() {
            return Err(poisoned);
        }
        if let Some(writer) = &mut *writer {
            // Then the last commit is proven, and opening anew leaves it where readers know it.
            writer.heartbeat()?;
        }
        let accepted = accept_loss(&self.state, first_seq, last_seq)?;
        let State { fs, dir, options, spares, .. } = &*self.state;
        let opened = recover(fs.as_ref(), dir, options, spares)?;
        let recovery = opened.recovery.clone();
        self.adopt(&mut writer, opened);
        Ok((accepted, recovery))
    }

    /// The damaged ranges that keep the log read-only.
    pub fn damage(&self) -> Vec<Damage> {
        self.state.damage()
    }

    /// Proves the last commit and gives the lock back. Later calls that write are refused.
    pub fn close(&self) -> Result<(), LogError> {
        let beaten = self.heartbeat();
        *self.writer() = None;
        self.state.spares.stop();
        self.state.close();
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        beaten
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.state.is_poisoned()
    }

    pub(super) fn spares(&self) -> &Spares {
        &self.state.spares
    }

    /// Serves what recovery found.
    fn adopt(&self, writer: &mut Option<Writer>, opened: Opened) {
        let Opened { segments, position, recovery, names_end } = opened;
        let active = segments.last().cloned();
        self.state.cache.clear();
        self.state.set_segments(segments);
        self.state.set_durable_seq(recovery.durable_seq);
        self.state.set_damage(recovery.damage);
        self.state.set_names_end(names_end);
        *writer = match (active, position) {
            (Some(active), Some(at)) => Some(Writer::new(Arc::clone(&self.state), active, at)),
            _ => None,
        };
    }

    fn refusal(&self) -> LogError {
        self.state.check_writable().err().unwrap_or(LogError::Closed)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        // A panic inside a commit may leave a half-written frame behind it; the writer's position
        // then still points before it, and the next frame overwrites it.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
