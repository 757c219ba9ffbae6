//! The pool of file handles: whoever opens a file or accepts a connection takes a permit first, so
//! the process meets its own limit with a clear error before the kernel's with an unclear one.
//!
//! The maximum comes from `RLIMIT_NOFILE` less a reserve for what opens handles without asking
//! (libraries, the standard streams, a core dump), and for the connections to dependencies, whose
//! libraries keep them within bounds of their own. Each [`HandleClass`] has a share that others
//! cannot take, so that a flood of connections leaves the log able to open its next segment.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_handles_in_use` | gauge | `class` |
//! | `mainstay_handles_max` | gauge | |
//! | `mainstay_handles_refused_total` | counter | `class` |

use crate::kernel_files::KernelFiles;
use mainstay_resilience::ConfigError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Taken for a process without a limit: the kernel's own default maximum (`fs.nr_open`).
const UNLIMITED_MEANS: u64 = 1 << 20;
/// The fewest handles that a pool can be divided into: fewer leave neither class one of its own.
const HANDLES_MIN: u64 = 16;
/// Bits of the packed counter for each class: more than any machine has handles.
const CLASS_BITS: u32 = 32;

/// What a handle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandleClass {
    /// Files: log segments, views, backups.
    Files = 0,
    /// Sockets: clients and dependencies.
    Connections = 1,
}

impl HandleClass {
    /// Both classes.
    pub const ALL: [HandleClass; 2] = [HandleClass::Files, HandleClass::Connections];

    /// The name used in metrics and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            HandleClass::Files => "files",
            HandleClass::Connections => "connections",
        }
    }

    const fn shift(self) -> u32 {
        self as u32 * CLASS_BITS
    }
}

/// How the process's handles are divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HandleConfig {
    /// Handles that this pool may give out, 16 or more; 0 (default) derives it from the soft limit.
    pub max: u64,
    /// Handles left to what opens them without asking, 0 to 100,000 (default 64).
    pub reserve: u64,
    /// Handles left, beyond the reserve, to connections that libraries open to dependencies within
    /// bounds of their own, 0 to 1,000,000 (default 0).
    pub dependencies: u64,
    /// Percent of the pool that only files may use, 0 to 90 (default 25).
    pub files_percent: u64,
    /// Percent of the pool that only connections may use, 0 to 90 (default 25).
    pub connections_percent: u64,
}

impl Default for HandleConfig {
    fn default() -> Self {
        HandleConfig {
            max: 0,
            reserve: 64,
            dependencies: 0,
            files_percent: 25,
            connections_percent: 25,
        }
    }
}

impl HandleConfig {
    /// # Errors
    /// The first setting out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if (1..HANDLES_MIN).contains(&self.max) {
            let allowed = format!("0, or {HANDLES_MIN} and more");
            return Err(ConfigError::new("handles.max", self.max, allowed));
        }
        if self.reserve > 100_000 {
            return Err(ConfigError::new("handles.reserve", self.reserve, "0 to 100000"));
        }
        if self.dependencies > 1_000_000 {
            let allowed = "0 to 1000000";
            return Err(ConfigError::new("handles.dependencies", self.dependencies, allowed));
        }
        for (field, percent) in [
            ("files_percent", self.files_percent),
            ("connections_percent", self.connections_percent),
        ] {
            if percent > 90 {
                return Err(ConfigError::new(format!("handles.{field}"), percent, "0 to 90"));
            }
        }
        let both = self.files_percent + self.connections_percent;
        if both > 90 {
            let allowed = "at most 90 together with files_percent";
            return Err(ConfigError::new("handles.connections_percent", both, allowed));
        }
        Ok(())
    }
}

/// The kernel's limits of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HandleLimits {
    /// Handles that it may have now; nothing without a limit.
    pub soft: Option<u64>,
    /// Handles up to which it may raise that by itself.
    pub hard: Option<u64>,
}

/// The kernel's limits of this process.
#[must_use]
pub fn limits() -> HandleLimits {
    let limit = getrlimit(Resource::Nofile);
    HandleLimits { soft: limit.current, hard: limit.maximum }
}

/// Raises the soft limit to the hard one, for a start of the process; the limits afterwards. Many
/// systems start services with 1,024, which is meant for programs that use `select`.
#[must_use]
pub fn raise_soft_limit() -> HandleLimits {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused in a sandbox: the soft limit then stays what it is, and the result says so.
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the soft limit of file handles stays as it is");
        }
    }
    limits()
}

#[derive(Debug)]
struct Pool {
    /// Handles in use, one half for each class: both are changed and compared at once.
    used: AtomicU64,
    refused: [AtomicU64; 2],
    max: u64,
    /// Handles that only this class may use, by class.
    own: [u64; 2],
}

/// The pool of a process. Clones share it.
#[derive(Clone, Debug)]
pub struct HandlePool(Arc<Pool>);

/// What the pool shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandleReport {
    /// Handles that the pool may give out.
    pub max: u64,
    /// Handles given out for files.
    pub files: u64,
    /// Handles given out for connections.
    pub connections: u64,
    /// Refusals since the start.
    pub refused: u64,
    /// Handles that the process has open, asked for or not; nothing where the kernel shows none.
    pub open: Option<u64>,
    /// The kernel's limits.
    pub limits: HandleLimits,
}

impl HandlePool {
    /// A pool for the process's present soft limit; [raise](raise_soft_limit) it before.
    ///
    /// # Errors
    /// A setting out of its range, or a limit that leaves fewer than 16 handles beside the reserve.
    pub fn new(config: &HandleConfig) -> Result<Self, ConfigError> {
        HandlePool::with_limit(config, limits().soft)
    }

    /// A pool for this soft limit.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_limit(config: &HandleConfig, soft: Option<u64>) -> Result<Self, ConfigError> {
        config.validate()?;
        let soft = soft.unwrap_or(UNLIMITED_MEANS).min(u64::from(u32::MAX));
        let usable = soft.saturating_sub(config.reserve).saturating_sub(config.dependencies);
        let max = if config.max == 0 { usable } else { config.max };
        if max < HANDLES_MIN || max > usable {
            let allowed = format!(
                "{HANDLES_MIN} to {usable}: the soft limit is {soft}, {} are kept in reserve and {} for \
                 connections to dependencies; raise it with ulimit -n or LimitNOFILE",
                config.reserve, config.dependencies
            );
            return Err(ConfigError::new("handles.max", max, allowed));
        }
        let own = [config.files_percent, config.connections_percent].map(|p| max * p / 100);
        metrics::gauge!("mainstay_handles_max").set(max as f64);
        let (used, refused) = (AtomicU64::new(0), Default::default());
        Ok(HandlePool(Arc::new(Pool { used, refused, max, own })))
    }

    /// Takes one handle, before the file is opened or the connection accepted.
    ///
    /// # Errors
    /// The pool has none left for this class.
    pub fn try_acquire(&self, class: HandleClass) -> Result<HandlePermit, HandlesExhausted> {
        self.try_acquire_many(class, 1)
    }

    /// Takes `count` handles at once or none of them.
    ///
    /// # Errors
    /// The pool has fewer left for this class.
    pub fn try_acquire_many(
        &self,
        class: HandleClass,
        count: u32,
    ) -> Result<HandlePermit, HandlesExhausted> {
        let pool = &*self.0;
        let other = HandleClass::ALL[1 - class as usize];
        let wanted = u64::from(count);
        let mut used = pool.used.load(Ordering::Relaxed);
        loop {
            let in_use = in_use_of(used, class);
            // What the other class has for itself is kept free for it.
            let others = in_use_of(used, other).max(pool.own[other as usize]);
            let allowed = pool.max.saturating_sub(others);
            if in_use + wanted > allowed {
                return Err(self.refuse(class, wanted, in_use, allowed));
            }
            let more = used + (wanted << class.shift());
            let order = Ordering::Relaxed;
            match pool.used.compare_exchange_weak(used, more, order, order) {
                Ok(_) => break,
                Err(now) => used = now,
            }
        }
        show(class, f64::from(count));
        Ok(HandlePermit { pool: Arc::clone(&self.0), class, count: wanted })
    }

    /// Handles given out for this class.
    #[must_use]
    pub fn in_use(&self, class: HandleClass) -> u64 {
        in_use_of(self.0.used.load(Ordering::Relaxed), class)
    }

    /// What the pool shows; `files` is where the kernel's figures are read.
    #[must_use]
    pub fn report(&self, files: &KernelFiles) -> HandleReport {
        HandleReport {
            max: self.0.max,
            files: self.in_use(HandleClass::Files),
            connections: self.in_use(HandleClass::Connections),
            refused: self.0.refused.iter().map(|refused| refused.load(Ordering::Relaxed)).sum(),
            open: files.entries("proc/self/fd"),
            limits: limits(),
        }
    }

    fn refuse(&self, class: HandleClass, wanted: u64, in_use: u64, max: u64) -> HandlesExhausted {
        self.0.refused[class as usize].fetch_add(1, Ordering::Relaxed);
        metrics::counter!("mainstay_handles_refused_total", "class" => class.as_str()).increment(1);
        HandlesExhausted { class, wanted, in_use, max }
    }
}

fn in_use_of(used: u64, class: HandleClass) -> u64 {
    (used >> class.shift()) & u64::from(u32::MAX)
}

fn show(class: HandleClass, change: f64) {
    metrics::gauge!("mainstay_handles_in_use", "class" => class.as_str()).increment(change);
}

/// Handles taken from the pool; given back when it is dropped. Keep it beside the file.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct HandlePermit {
    pool: Arc<Pool>,
    class: HandleClass,
    count: u64,
}

impl Drop for HandlePermit {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.count << self.class.shift(), Ordering::Relaxed);
        show(self.class, -(self.count as f64));
    }
}

/// No handle is left for this class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HandlesExhausted {
    /// What it was for.
    pub class: HandleClass,
    /// Handles wanted.
    pub wanted: u64,
    /// Handles of this class in use.
    pub in_use: u64,
    /// Handles that this class could have now.
    pub max: u64,
}

impl fmt::Display for HandlesExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} file handles for {} are in use and {} more are wanted; close some, or raise \
             the limit with ulimit -n or LimitNOFILE",
            self.in_use,
            self.max,
            self.class.as_str(),
            self.wanted
        )
    }
}

impl std::error::Error for HandlesExhausted {}
