//! How a log behaves.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::LogError;
use super::frame::{FRAME_ALIGN, FRAME_BYTES_CEILING, FRAME_OVERHEAD_BYTES, HEARTBEAT_BYTES};
use super::segment::SEGMENT_HEADER_BYTES;

/// Exit status of the process after a failed write or sync of the log (`EX_IOERR` of sysexits).
pub const FATAL_EXIT_STATUS: i32 = 74;

/// Called once when a write or sync of the log failed.
pub type FatalHandler = Arc<dyn Fn(&LogError) + Send + Sync>;

/// Milliseconds since 1970.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// 64 unpredictable bits.
pub type Entropy = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Settings of a log. Sizes in bytes, times in milliseconds.
#[derive(Clone)]
pub struct LogOptions {
    /// Size of a segment of a large log. Segments of a small log are as large as the log itself,
    /// so that a small collection takes little. Default 32 MiB.
    pub segment_bytes_max: u64,
    /// Size of the first segment. Default 1 MiB.
    pub segment_bytes_min: u64,
    /// Largest append, with its framing. Default 64 MiB, at most 256 MiB.
    pub frame_bytes_max: u64,
    /// Group commit gathers what waits up to this size. Default 4 MiB: beyond it a larger write
    /// no longer amortises the sync, it only delays the acknowledgement.
    pub group_bytes_max: u64,
    /// Bytes that may wait for the disk. Default 64 MiB. One append is always taken by an empty
    /// queue, whatever its size.
    pub queue_bytes_max: u64,
    /// How long an append waits for room in the queue before it is refused. Default 5 s; zero
    /// refuses at once.
    pub queue_wait_ms_max: u64,
    /// Room kept for essential appends and compaction when the disk is full; at most one segment
    /// is used. Default 32 MiB; zero keeps none.
    pub reserve_bytes: u64,
    /// Recent records kept in memory for readers. Default 16 MiB; zero keeps none.
    pub cache_bytes: u64,
    /// Longest time after the last commit until a heartbeat frame proves it durable. Default
    /// 100 ms.
    pub heartbeat_ms: u64,
    /// How long after a failure to prepare the next segment it is tried again. Default 1 s.
    pub prepare_retry_ms: u64,
    /// Size beyond which compaction begins another output file. Default 256 MiB.
    pub compacted_bytes_max: u64,
    /// A sequence number that the caller knows to be durable (from a checkpoint): a log that ends
    /// before it is damaged, not torn. Zero claims nothing.
    pub durable_seq_min: u64,
    /// The store that this log must belong to; `None` accepts what is there.
    pub store_id: Option<u128>,
    /// How much of the log is read when it is opened.
    pub check: OpenCheck,
    /// What a failed write or sync of the log does. Default: exits with [`FATAL_EXIT_STATUS`].
    /// When it returns, the log stays poisoned.
    pub on_fatal: FatalHandler,
    /// The time written into frames. Default: the system's.
    pub clock: WallClock,
    /// Seeds of segments and the id of a new store. Default: the system's.
    pub entropy: Entropy,
    /// Breaks the log on purpose, to prove that the tests notice.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

/// How much of the log is read when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenCheck {
    /// The headers of all segments and the whole of the last one: the time does not grow with
    /// the log. Damage further back is found when it is read, or by `verify`.
    Tail,
    /// Every frame.
    Full,
}

/// Known-bad variants of the log. Tests assert that each is caught.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Acknowledges before the sync.
    AcknowledgeBeforeSync,
    /// Goes on after a failed sync, trying it again.
    RetrySync,
    /// Does not sync the folder after naming a segment.
    SkipDirSync,
    /// Treats damage as a torn tail.
    TruncateOnDamage,
    /// Believes what the page cache shows and goes on behind it.
    TrustTail,
    /// Removes the inputs of a compaction before its output is durable.
    RemoveInputsEarly,
    /// Writes no heartbeats.
    SkipHeartbeat,
    /// Names a segment before its content is durable.
    SkipSegmentSync,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes_max: 32 << 20,
            segment_bytes_min: 1 << 20,
            frame_bytes_max: 64 << 20,
            group_bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            queue_wait_ms_max: 5_000,
            reserve_bytes: 32 << 20,
            cache_bytes: 16 << 20,
            heartbeat_ms: 100,
            prepare_retry_ms: 1_000,
            compacted_bytes_max: 256 << 20,
            durable_seq_min: 0,
            store_id: None,
            check: OpenCheck::Tail,
            on_fatal: Arc::new(exit_process),
            clock: Arc::new(system_time_ms),
            entropy: Arc::new(system_entropy),
            mutation: None,
        }
    }
}

impl LogOptions {
    /// Small sizes for tests: segments of 16 KiB, appends up to 8 KiB, no heartbeats of their own
    /// for a minute.
    #[doc(hidden)]
    pub fn small() -> Self {
        Self {
            segment_bytes_max: 16 << 10,
            segment_bytes_min: 16 << 10,
            frame_bytes_max: 8 << 10,
            group_bytes_max: 4 << 10,
            queue_bytes_max: 64 << 10,
            reserve_bytes: 16 << 10,
            cache_bytes: 4 << 10,
            compacted_bytes_max: 48 << 10,
            ..Self::default()
        }
    }

    /// Refuses settings that contradict each other.
    pub(super) fn check(&self) -> Result<(), LogError> {
        let smallest = (SEGMENT_HEADER_BYTES + FRAME_ALIGN + HEARTBEAT_BYTES) as u64;
        let what = if self.segment_bytes_min < smallest {
            "segment_bytes_min is too small for a header, a frame and a heartbeat"
        } else if self.segment_bytes_max < self.segment_bytes_min {
            "segment_bytes_max is below segment_bytes_min"
        } else if self.frame_bytes_max > FRAME_BYTES_CEILING as u64 {
            "frame_bytes_max is above 256 MiB"
        } else if self.frame_bytes_max < (FRAME_OVERHEAD_BYTES + FRAME_ALIGN) as u64 {
            "frame_bytes_max is too small for a frame"
        } else if self.heartbeat_ms == 0 {
            "heartbeat_ms must be at least 1"
        } else {
            return Ok(());
        };
        Err(LogError::InvalidOptions { what })
    }

    pub(super) fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("segment_bytes_max", &self.segment_bytes_max)
            .field("frame_bytes_max", &self.frame_bytes_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("reserve_bytes", &self.reserve_bytes)
            .finish_non_exhaustive()
    }
}

fn exit_process(error: &LogError) {
    tracing::error!(%error, "log write failed, exiting to recover from what is on the disk");
    eprintln!("fatal: {error}; exiting to recover from what is on the disk");
    std::process::exit(FATAL_EXIT_STATUS);
}

fn system_time_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The standard library seeds its hash maps from the system's entropy, anew for each state.
fn system_entropy() -> u64 {
    RandomState::new().build_hasher().finish()
}
