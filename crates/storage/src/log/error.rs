//! What can go wrong with the log, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::LockError;

/// An error of the log. Cheap to clone: one failed commit answers many waiting threads.
#[derive(Clone, Debug)]
pub enum LogError {
    /// A call to the file system failed; nothing acknowledged is touched by it.
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process has the log open.
    Locked(Arc<LockError>),
    /// A file was written by a later version of Mainstay.
    FutureVersion {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this build reads.
        supported: u32,
    },
    /// A segment belongs to another log.
    ForeignSegment {
        /// The segment file.
        path: PathBuf,
        /// The store it names.
        found: u128,
        /// The store that was opened.
        expected: u128,
    },
    /// Acknowledged records cannot be read.
    Damaged(Damage),
    /// Opened read-only because acknowledged records are damaged: `accept_loss` or a repaired
    /// file makes the log writable again.
    ReadOnly {
        /// The first of the damaged ranges.
        damage: Damage,
        /// How many ranges are damaged.
        ranges: usize,
    },
    /// There is no room to prepare the next segment. Reads, essential appends and compaction go
    /// on; ordinary appends resume by themselves when there is room again.
    DiskFull {
        /// The log's folder.
        path: PathBuf,
        /// Bytes that the next segment, the reserve and the margin need.
        needed_bytes: u64,
        /// Bytes that are free.
        available_bytes: u64,
    },
    /// The next segment cannot be prepared for another reason than room.
    SegmentUnavailable {
        /// The log's folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// More is waiting than the queue holds, for longer than the caller is asked to wait.
    QueueFull {
        /// Bytes waiting.
        queued_bytes: u64,
        /// Bytes that may wait.
        queued_bytes_max: u64,
        /// How long the caller waited.
        waited_ms: u64,
    },
    /// One append is larger than a frame may be.
    TooLarge {
        /// Bytes of the append with its framing.
        bytes: u64,
        /// Bytes that a frame may have.
        frame_bytes_max: u64,
    },
    /// An append of no records.
    NoRecords,
    /// A write or sync failed under this append: whether it survives is decided at the next open.
    OutcomeUnknown {
        /// What failed.
        reason: Arc<str>,
    },
    /// A write or sync failed earlier; the process must restart to learn what is on the disk.
    Poisoned {
        /// What failed.
        reason: Arc<str>,
    },
    /// The log was closed.
    Closed,
    /// A read from before the first record.
    BeforeFirst {
        /// The number asked for.
        seq: u64,
        /// The first there is.
        first_seq: u64,
    },
    /// `accept_loss` named a range that is not, or not exactly, damaged.
    NotDamaged {
        /// First sequence number named.
        first_seq: u64,
        /// Last sequence number named.
        last_seq: u64,
    },
    /// A compaction is running already.
    CompactionRunning,
    /// The options contradict each other.
    InvalidOptions {
        /// What is wrong.
        what: &'static str,
    },
}

/// A range of acknowledged records that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First sequence number lost.
    pub first_seq: u64,
    /// Last sequence number lost.
    pub last_seq: u64,
    /// The file in which they were, or its folder where the file is missing.
    pub path: PathBuf,
    /// Where in the file the damage begins.
    pub offset: u64,
    /// How it is known that the records had been acknowledged.
    pub proof: Proof,
}

/// Why missing records must have been there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A later frame in the same segment is whole: it was written after these were durable.
    LaterFrame,
    /// A later segment begins beyond them.
    LaterSegment,
    /// The caller had read them before (`durable_seq_min` of the options).
    Caller,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = match self.proof {
            Proof::LaterFrame => "a later frame is whole",
            Proof::LaterSegment => "a later segment continues behind them",
            Proof::Caller => "a checkpoint had read them",
        };
        write!(
            f,
            "records {} to {} of {} are damaged from byte {} on (they had been acknowledged: \
             {proof})",
            self.first_seq,
            self.last_seq,
            self.path.display(),
            self.offset
        )
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(f, "{action} {}: {source}", path.display())
            }
            Self::Locked(source) => source.fmt(f),
            Self::FutureVersion { path, found, supported } => write!(
                f,
                "{} has format version {found}, this build reads up to {supported}: use the \
                 newer build",
                path.display()
            ),
            Self::ForeignSegment { path, found, expected } => write!(
                f,
                "{} belongs to store {found:032x}, not to {expected:032x}: move it away",
                path.display()
            ),
            Self::Damaged(damage) => write!(
                f,
                "{damage}: restore them from a backup or accept the loss of exactly this range"
            ),
            Self::ReadOnly { damage, ranges } => write!(
                f,
                "the log is read-only, {ranges} range(s) are damaged, first: {damage}; restore \
                 from a backup or accept the loss"
            ),
            Self::DiskFull { path, needed_bytes, available_bytes } => write!(
                f,
                "no room for the next log segment in {}: {needed_bytes} bytes needed, \
                 {available_bytes} free; make room, writes then resume by themselves",
                path.display()
            ),
            Self::SegmentUnavailable { path, source } => write!(
                f,
                "cannot prepare the next log segment in {}: {source}; writes resume by \
                 themselves when it can be prepared",
                path.display()
            ),
            Self::QueueFull { queued_bytes, queued_bytes_max, waited_ms } => write!(
                f,
                "{queued_bytes} bytes wait for the disk, at most {queued_bytes_max} may, and \
                 waiting {waited_ms} ms did not help: send less or later"
            ),
            Self::TooLarge { bytes, frame_bytes_max } => write!(
                f,
                "an append of {bytes} bytes exceeds the frame limit of {frame_bytes_max}: split it"
            ),
            Self::NoRecords => write!(f, "an append needs at least one record"),
            Self::OutcomeUnknown { reason } => write!(
                f,
                "whether this append is durable is unknown until the next start: {reason}"
            ),
            Self::Poisoned { reason } => {
                write!(f, "the log takes no writes until the process restarts: {reason}")
            }
            Self::Closed => write!(f, "the log is closed"),
            Self::BeforeFirst { seq, first_seq } => {
                write!(f, "record {seq} is before the first one, {first_seq}")
            }
            Self::NotDamaged { first_seq, last_seq } => write!(
                f,
                "records {first_seq} to {last_seq} are not a damaged range: name one exactly as \
                 reported"
            ),
            Self::CompactionRunning => write!(f, "a compaction is running already"),
            Self::InvalidOptions { what } => write!(f, "log options: {what}"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::SegmentUnavailable { source, .. } => Some(source),
            Self::Locked(source) => Some(source),
            _ => None,
        }
    }
}

/// Adds what was tried on what to an error of the file system.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io { action, path: path.to_owned(), source: Arc::new(source) }
}

/// Whether an error means that there is no room, by disk or by quota or by limit.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
