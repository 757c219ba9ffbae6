//! The write-ahead log: what was acknowledged is durable, and what is damaged is said.
//!
//! Everything that changes a collection is a record in its log; all else can be rebuilt from it.
//! One group commit is one frame on the disk, written and synced once for all callers
//! that wait, chained by hash to the one before.
//!
//! Invariants:
//! - An append that returned [`Appended`] survives power loss. There is no weaker setting.
//! - Records are read back exactly as appended, in the order of their numbers, without gaps other
//!   than those that [`Log::compact`] was told to make.
//! - Recovery cuts only what cannot have been acknowledged. Damage to acknowledged records is
//!   reported with its exact range and makes the log read-only.
//! - A failed write or sync is never tried again: the process ends, and recovery finds out.

mod error;
mod frame;
mod options;
mod record;
mod segment;

mod cursor;

mod cache;
mod spare;
mod state;

mod writer;

mod check;
mod inventory;
mod reader;
mod recover;
mod rewrite;

mod accept;
mod compact;

mod queue;
mod sync_log;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fs::FileSystem;
use queue::{Queue, Submission, Taken};

pub use check::{AcceptedLoss, Scar, Verification};
pub use compact::Compaction;
pub use error::{Damage, LogError, Proof};
pub use options::{
    Entropy, FATAL_EXIT_STATUS, FatalHandler, LogOptions, Mutation, OpenCheck, WallClock,
};
pub use queue::Ticket;
pub use reader::Batch;
pub use record::{Appended, Class, Entry, Record, receipt_hash};
pub use recover::Recovery;
pub use sync_log::SyncLog;

/// A log that many threads append to and read from.
///
/// While one group is being synced the next gathers, so that any number of waiting writers costs
/// one sync; there is no timer to tune.
#[derive(Debug)]
pub struct Log {
    inner: Arc<SyncLog>,
    queue: Arc<Queue>,
    options: Limits,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    frame_bytes_max: u64,
    group_bytes_max: u64,
    heartbeat: Duration,
}

impl Log {
    /// Opens or creates the log in a folder of its own; see [`SyncLog::open`].
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<(Self, Recovery), LogError> {
        let queue = Arc::new(Queue::new(options.queue_bytes_max, options.queue_wait_ms_max));
        let limits = Limits {
            frame_bytes_max: options.frame_bytes_max,
            group_bytes_max: options.group_bytes_max,
            heartbeat: Duration::from_millis(options.heartbeat_ms),
        };
        let (inner, recovery) = SyncLog::open(fs, dir, options)?;
        let inner = Arc::new(inner);
        let threads = Mutex::new(vec![
            spawn("log-commit", {
                let (inner, queue) = (Arc::clone(&inner), Arc::clone(&queue));
                move || commit_groups(&inner, &queue, limits)
            })?,
            spawn("log-prepare", {
                let inner = Arc::clone(&inner);
                move || prepare_segments(&inner)
            })?,
        ]);
        Ok((Self { inner, queue, options: limits, threads }, recovery))
    }

    /// Appends records and blocks until they are durable, together with those of all other
    /// waiting callers. They are adjacent and in one frame: after a crash all are there or none.
    pub fn append(&self, records: Vec<Record>) -> Result<Appended, LogError> {
        self.submit(records)?.wait()
    }

    /// As [`Log::append`], for what must still be possible when the disk is full: deletes and
    /// whatever an orderly shutdown writes.
    pub fn append_essential(&self, records: Vec<Record>) -> Result<Appended, LogError> {
        self.submit_as(records, Class::Essential)?.wait()
    }

    /// Queues records. Their numbers follow the order of these calls, so a caller that numbers
    /// its own things under a lock submits under the same lock and waits outside.
    pub fn submit(&self, records: Vec<Record>) -> Result<Ticket, LogError> {
        self.submit_as(records, Class::Ordinary)
    }

    /// As [`Log::submit`], for a stated class.
    pub fn submit_as(&self, records: Vec<Record>, class: Class) -> Result<Ticket, LogError> {
        if records.is_empty() {
            return Err(LogError::NoRecords);
        }
        if let Some(error) = self.inner.refuses(class) {
            return Err(error);
        }
        let bytes = frame::frame_bytes(frame::records_bytes(&records)) as u64;
        if bytes > self.options.frame_bytes_max {
            let frame_bytes_max = self.options.frame_bytes_max;
            return Err(LogError::TooLarge { bytes, frame_bytes_max });
        }
        let (submission, ticket) = Submission::new(records, class, bytes);
        self.queue.push(submission)?;
        Ok(ticket)
    }

    /// Why ordinary appends are refused now, if they are: full disk, damage, failed sync.
    pub fn refuses_writes(&self) -> Option<LogError> {
        self.inner.refuses(Class::Ordinary)
    }

    /// Why every append is refused now, if it is: damage, failed sync. On a full disk removals go on.
    pub fn refuses_all(&self) -> Option<LogError> {
        self.inner.refuses(Class::Essential)
    }

    /// Bytes that wait for the disk, and that may wait: what tells writers to slow down.
    pub fn queued_bytes(&self) -> (u64, u64) {
        self.queue.depth()
    }

    /// The last durable record; 0 in an empty log.
    pub fn durable_seq(&self) -> u64 {
        self.inner.durable_seq()
    }

    /// The first record's number: 1, compacted away or not.
    pub fn first_seq(&self) -> u64 {
        self.inner.first_seq()
    }

    /// Bytes of the log on the disk, without what is reserved ahead.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    /// See [`SyncLog::read`].
    pub fn read(&self, from_seq: u64, bytes_max: u64) -> Result<Vec<Entry>, LogError> {
        self.inner.read(from_seq, bytes_max)
    }

    /// See [`SyncLog::read_batch`].
    pub fn read_batch(&self, from_seq: u64, bytes_max: u64) -> Result<Batch, LogError> {
        self.inner.read_batch(from_seq, bytes_max)
    }

    /// Blocks until a record beyond `seq` is durable or the time is over; returns the last
    /// durable one. Also returns early when the log is closed or poisoned.
    pub fn wait_beyond(&self, seq: u64, timeout: Duration) -> u64 {
        self.inner.wait_beyond(seq, timeout)
    }

    /// See [`SyncLog::compact`].
    pub fn compact(
        &self,
        through_seq: u64,
        keep: &mut dyn FnMut(&Entry) -> bool,
        bytes_per_s: u64,
    ) -> Result<Compaction, LogError> {
        self.inner.compact(through_seq, keep, bytes_per_s)
    }

    /// See [`SyncLog::compact_fully`].
    pub fn compact_fully(
        &self,
        through_seq: u64,
        keep: &mut dyn FnMut(&Entry) -> bool,
        bytes_per_s: u64,
    ) -> Result<Compaction, LogError> {
        self.inner.compact_fully(through_seq, keep, bytes_per_s)
    }

    /// See [`SyncLog::accept_loss`].
    pub fn accept_loss(
        &self,
        first_seq: u64,
        last_seq: u64,
    ) -> Result<(AcceptedLoss, Recovery), LogError> {
        self.inner.accept_loss(first_seq, last_seq)
    }

    /// See [`SyncLog::verify`].
    pub fn verify(&self) -> Result<Verification, LogError> {
        self.inner.verify()
    }

    /// The damaged ranges that keep the log read-only.
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.damage()
    }

    /// Takes no more appends, commits those that wait, proves the last one durable and gives the
    /// folder back. Dropping the log does the same and hides the error.
    pub fn close(&self) -> Result<(), LogError> {
        self.queue.close();
        self.inner.spares().stop();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic of the thread was printed where it happened; closing goes on.
            let _ = thread.join();
        }
        self.inner.close()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(error::io_error("starting thread", Path::new(name)))
}

/// The commit thread: one frame after the other, a heartbeat when nothing follows.
fn commit_groups(log: &SyncLog, queue: &Queue, limits: Limits) {
    loop {
        let timeout = log.heartbeat_due().then_some(limits.heartbeat);
        match queue.take(limits.group_bytes_max.min(limits.frame_bytes_max), timeout) {
            Taken::Group(group) => commit_group(log, group),
            Taken::Idle => {
                // A failed heartbeat poisons the log, which every later call reports.
                let _ = log.heartbeat();
            }
            Taken::Closed => return,
        }
    }
}

/// Commits a group. When the disk is full its essential part goes on alone.
fn commit_group(log: &SyncLog, group: Vec<Submission>) {
    let (essential, ordinary): (Vec<_>, Vec<_>) =
        group.iter().partition(|submission| submission.class == Class::Essential);
    let class = if ordinary.is_empty() { Class::Essential } else { Class::Ordinary };
    let mixed = !essential.is_empty() && !ordinary.is_empty();
    let records: Vec<&[Record]> = group.iter().map(|s| s.records.as_slice()).collect();
    match log.commit(&records, class) {
        Ok(appended) => {
            for (submission, appended) in group.into_iter().zip(appended) {
                submission.answer(Ok(appended));
            }
        }
        Err(error @ (LogError::DiskFull { .. } | LogError::SegmentUnavailable { .. })) if mixed => {
            let (essential, ordinary): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|submission| submission.class == Class::Essential);
            for submission in ordinary {
                submission.answer(Err(error.clone()));
            }
            commit_group(log, essential);
        }
        Err(error) => {
            for submission in group {
                submission.answer(Err(error.clone()));
            }
        }
    }
}

/// The preparing thread: keeps the next segment ready, and tries again while the disk is full.
fn prepare_segments(log: &SyncLog) {
    while log.spares().wait_for_work() && !log.is_poisoned() {
        // The error is kept as the reason for which appends are refused.
        let _ = log.prepare();
    }
}
