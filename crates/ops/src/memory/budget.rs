//! Memory that requests reserve before they begin.
//!
//! Invariant: what is reserved is the sum of all living reservations. The use that is read off
//! already holds part of them, so the sum errs on the side of refusing.

use super::{MemoryConfig, Step};
use mainstay_resilience::Priority;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What readers of the guard see without a lock.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) used: AtomicU64,
    pub(super) limit: AtomicU64,
    pub(super) step: AtomicU8,
    pub(super) reserved: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Whether work was refused for want of room since the guard looked last.
    pub(super) wanted: AtomicBool,
    config: MemoryConfig,
}

impl Level {
    /// Before the first reading there is no limit: a guard that cannot see must not refuse.
    pub(super) fn new(config: MemoryConfig) -> Self {
        Level {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            step: AtomicU8::new(0),
            reserved: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            config,
        }
    }

    pub(super) fn step(&self) -> Step {
        Step::from_index(self.step.load(Ordering::Relaxed))
    }

    /// Up to which share of the limit work of this priority may fill the memory.
    fn ceiling(&self, priority: Priority) -> f64 {
        match priority {
            Priority::Background => self.config.warn,
            Priority::Low => self.config.shrink,
            Priority::Normal => self.config.reject,
            Priority::High => self.config.emergency,
            Priority::Critical => f64::INFINITY,
        }
    }

    fn room(&self, priority: Priority, reserved: u64) -> u64 {
        // The cast saturates: infinity and "no limit" become the largest number.
        let ceiling = (self.limit.load(Ordering::Relaxed) as f64 * self.ceiling(priority)) as u64;
        ceiling.saturating_sub(self.used.load(Ordering::Relaxed)).saturating_sub(reserved)
    }

    /// Takes `bytes` for work that has `held` already.
    fn take(&self, held: u64, bytes: u64, priority: Priority) -> Result<(), MemoryRefused> {
        let refuse = |available_bytes| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("mainstay_memory_refused_total", "priority" => priority.as_str())
                .increment(1);
            let step = self.step();
            MemoryRefused { wanted_bytes: bytes, available_bytes, step, priority }
        };
        let control = priority == Priority::Critical;
        if held.saturating_add(bytes) > self.config.request_bytes_max && !control {
            return Err(refuse(self.config.request_bytes_max));
        }
        if priority < self.step().admits_from() {
            return Err(refuse(0));
        }
        let mut reserved = self.reserved.load(Ordering::Relaxed);
        loop {
            let room = self.room(priority, reserved);
            if bytes > room {
                self.wanted.store(true, Ordering::Relaxed);
                return Err(refuse(room));
            }
            let more = reserved.saturating_add(bytes);
            let order = Ordering::Relaxed;
            match self.reserved.compare_exchange_weak(reserved, more, order, order) {
                Ok(_) => return Ok(()),
                Err(now) => reserved = now,
            }
        }
    }
}

/// Hands out reservations. Clones share the memory.
#[derive(Clone, Debug)]
pub struct Budget(pub(super) Arc<Level>);

impl Budget {
    /// Reserves `bytes` for work of this priority, before it begins. The more important the work,
    /// the nearer to the limit it may go; control calls always pass and are counted.
    ///
    /// # Errors
    /// The step refuses work of this priority, there is no room for it, or one request wants more
    /// than one request may have.
    pub fn try_reserve(
        &self,
        bytes: u64,
        priority: Priority,
    ) -> Result<Reservation, MemoryRefused> {
        self.0.take(0, bytes, priority)?;
        Ok(Reservation { level: Arc::clone(&self.0), bytes, priority })
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.0.reserved.load(Ordering::Relaxed)
    }

    /// The guard's present step.
    #[must_use]
    pub fn step(&self) -> Step {
        self.0.step()
    }
}

/// Memory reserved for one piece of work; given back when it is dropped.
#[derive(Debug)]
#[must_use = "a reservation that is dropped reserves nothing"]
pub struct Reservation {
    level: Arc<Level>,
    bytes: u64,
    priority: Priority,
}

impl Reservation {
    /// Reserves `more` bytes beside those that it has.
    ///
    /// # Errors
    /// As for [`Budget::try_reserve`]; what was reserved stays reserved.
    pub fn grow(&mut self, more: u64) -> Result<(), MemoryRefused> {
        self.level.take(self.bytes, more, self.priority)?;
        self.bytes += more;
        Ok(())
    }

    /// Bytes reserved.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.level.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Work that was refused because of its memory, before it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryRefused {
    /// Bytes that it wanted.
    pub wanted_bytes: u64,
    /// Bytes that work of this priority could have had.
    pub available_bytes: u64,
    /// The step at that moment.
    pub step: Step,
    /// Its priority.
    pub priority: Priority,
}

impl fmt::Display for MemoryRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes of memory are needed and {} are free for {} priority at step {}; ask for \
             less or try again later",
            self.wanted_bytes,
            self.available_bytes,
            self.priority.as_str(),
            self.step.as_str()
        )
    }
}

impl std::error::Error for MemoryRefused {}
