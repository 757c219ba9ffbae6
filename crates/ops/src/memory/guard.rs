//! The guard: reads, decides on a step, and does what the step asks for.
//!
//! Invariants: a step is entered within one tick of its threshold and left one step at a time; no
//! lock is held while a cache shrinks or the allocator purges.

use super::budget::{Budget, Level};
use super::reading::{Reading, read};
use super::{MemoryConfig, Step};
use crate::kernel_files::KernelFiles;
use crate::lock::lock;
use mainstay_resilience::{Clock, ConfigError, Tick};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Caches that may be registered: one for each cache of a process, with room.
const SHRINKERS_MAX: usize = 64;
/// Share of its content that a cache keeps at the steps below rejecting.
const KEEP_AT_SHRINK: f64 = 0.5;

/// What an allocator tells about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AllocatorStats {
    /// Bytes that it holds from the kernel.
    pub committed_bytes: u64,
    /// The most that it ever held.
    pub peak_bytes: u64,
}

/// The process's allocator; the binary knows which one it is.
pub trait Allocator: Send + Sync {
    /// What it tells about itself.
    fn stats(&self) -> AllocatorStats;
    /// Gives free pages back to the kernel.
    fn purge(&self);
    /// From now on gives pages back as soon as they are free, or (false) keeps some for speed again.
    fn set_thrifty(&self, thrifty: bool);
}

/// Something that can do with less memory.
pub trait Shrinker: Send + Sync {
    /// Bytes that it holds now.
    fn bytes(&self) -> u64;
    /// Keeps about this share of its content, 0 (nothing) to 1; returns the bytes that it freed.
    fn shrink(&self, keep: f64) -> u64;
}

/// What the guard shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryReport {
    /// The present step.
    pub step: Step,
    /// The last reading; nothing where the kernel shows no figures, and then nothing is guarded.
    pub reading: Option<Reading>,
    /// Used share of the limit.
    pub ratio: Option<f64>,
    /// Bytes reserved by requests.
    pub reserved_bytes: u64,
    /// Requests refused since the start.
    pub refused: u64,
    /// Changes of step since the start.
    pub changes: u64,
    /// Bytes that each cache holds.
    pub caches: BTreeMap<String, u64>,
    /// What the allocator tells.
    pub allocator: Option<AllocatorStats>,
}

#[derive(Debug)]
struct Position {
    step: Step,
    reading: Option<Reading>,
    /// Since when the use is low enough to leave the step.
    low_since: Option<Tick>,
    reclaimed: Option<Tick>,
    changes: u64,
}

/// What is given back at one time.
struct Reclaim {
    /// The share of their content that caches keep.
    keep: f64,
    /// Whether the allocator gives back what nobody uses.
    purge: bool,
}

type Caches = BTreeMap<String, Arc<dyn Shrinker>>;

/// Watches the memory of a process. Clones share it; call [`tick`](Self::tick) every 100 ms or so.
#[derive(Clone)]
pub struct MemoryGuard {
    config: MemoryConfig,
    files: KernelFiles,
    clock: Clock,
    allocator: Option<Arc<dyn Allocator>>,
    level: Arc<Level>,
    position: Arc<Mutex<Position>>,
    caches: Arc<Mutex<Caches>>,
}

impl MemoryGuard {
    /// A guard that has not looked yet and refuses nothing.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(
        config: MemoryConfig,
        files: KernelFiles,
        clock: Clock,
        allocator: Option<Arc<dyn Allocator>>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let position = Position {
            step: Step::Normal,
            reading: None,
            low_since: None,
            reclaimed: None,
            changes: 0,
        };
        let level = Arc::new(Level::new(config.clone()));
        let (position, caches) = (Arc::new(Mutex::new(position)), Arc::default());
        Ok(MemoryGuard { config, files, clock, allocator, level, position, caches })
    }

    /// Registers a cache, or replaces the one of this name.
    ///
    /// # Errors
    /// There are 64 already.
    pub fn register(&self, name: &str, cache: Arc<dyn Shrinker>) -> Result<(), ConfigError> {
        let mut caches = lock(&self.caches);
        if caches.len() >= SHRINKERS_MAX && !caches.contains_key(name) {
            let allowed = format!("up to {SHRINKERS_MAX}");
            return Err(ConfigError::new("memory.caches", SHRINKERS_MAX + 1, allowed));
        }
        caches.insert(name.to_owned(), cache);
        Ok(())
    }

    /// Hands out reservations.
    #[must_use]
    pub fn budget(&self) -> Budget {
        Budget(Arc::clone(&self.level))
    }

    /// The present step.
    #[must_use]
    pub fn step(&self) -> Step {
        self.level.step()
    }

    /// Looks, moves the step, and reclaims memory when the step asks for it.
    pub fn tick(&self) -> Step {
        let reading = read(&self.files, self.config.limit_bytes);
        let now = self.clock.now();
        let (step, reclaim) = self.decide(reading, now);
        if let Some(reclaim) = reclaim {
            self.reclaim(step, &reclaim);
        }
        self.show();
        step
    }

    /// What the guard shows.
    #[must_use]
    pub fn report(&self) -> MemoryReport {
        let caches = lock(&self.caches).clone();
        let position = lock(&self.position);
        MemoryReport {
            step: position.step,
            reading: position.reading,
            ratio: position.reading.map(|reading| reading.ratio()),
            reserved_bytes: self.level.reserved.load(Ordering::Relaxed),
            refused: self.level.refused.load(Ordering::Relaxed),
            changes: position.changes,
            caches: caches.iter().map(|(name, cache)| (name.clone(), cache.bytes())).collect(),
            allocator: self.allocator.as_ref().map(|allocator| allocator.stats()),
        }
    }

    /// The step now, and what is to be reclaimed.
    fn decide(&self, reading: Option<Reading>, now: Tick) -> (Step, Option<Reclaim>) {
        let mut position = lock(&self.position);
        let before = position.step;
        position.reading = reading;
        // Without figures nothing is known to be wrong: the guard opens rather than refusing all.
        let ratio = reading.map_or(0.0, |reading| reading.ratio());
        let reached = self.reached(ratio, reading.and_then(|reading| reading.stalled));
        if reached > position.step {
            position.step = reached;
            position.low_since = None;
        } else if position.step > Step::Normal {
            self.maybe_leave(&mut position, ratio, reached, now);
        }
        if position.step != before {
            position.changes += 1;
            if let Some(allocator) = &self.allocator {
                allocator.set_thrifty(position.step > Step::Normal);
            }
            let (from, to) = (before.as_str(), position.step.as_str());
            tracing::warn!(from, to, ratio, "memory step changed");
        }
        let since =
            |last: Tick| now.since(last) >= Duration::from_millis(self.config.reclaim_every_ms);
        // On the way down nothing more is taken from the caches: only above the threshold itself. Work
        // that was refused asks for what the allocator holds and nobody uses.
        let wanted = self.level.wanted.load(Ordering::Relaxed);
        let due = position.reclaimed.is_none_or(since) && (wanted || reached >= Step::Shrink);
        let reclaim = due.then_some(Reclaim {
            keep: match position.step {
                _ if reached < Step::Shrink => 1.0,
                step if step >= Step::Reject => 0.0,
                _ => KEEP_AT_SHRINK,
            },
            purge: wanted || position.step >= Step::Return,
        });
        if due {
            position.reclaimed = Some(now);
            self.level.wanted.store(false, Ordering::Relaxed);
        }
        self.level.step.store(position.step as u8, Ordering::Relaxed);
        if let Some(reading) = reading {
            self.level.used.store(reading.used_bytes, Ordering::Relaxed);
            self.level.limit.store(reading.limit_bytes, Ordering::Relaxed);
        }
        (position.step, reclaim)
    }

    /// The highest step whose threshold is reached. Stalls lead to shrinking and no further: the
    /// machine's figure may be somebody else's doing.
    fn reached(&self, ratio: f64, stalled: Option<f64>) -> Step {
        let by_use = Step::ALL.into_iter().rev().find(|step| ratio >= self.config.threshold(*step));
        let stalls = self.config.stall > 0.0 && stalled.is_some_and(|s| s >= self.config.stall);
        let by_stalls = if stalls { Step::Shrink } else { Step::Normal };
        by_use.unwrap_or(Step::Normal).max(by_stalls)
    }

    /// Leaves one step when the use stayed low enough for long enough.
    fn maybe_leave(&self, position: &mut Position, ratio: f64, reached: Step, now: Tick) {
        let exit = self.config.threshold(position.step) - self.config.margin;
        if ratio >= exit || reached >= position.step {
            position.low_since = None;
            return;
        }
        let since = *position.low_since.get_or_insert(now);
        if now.since(since) >= Duration::from_millis(self.config.hold_ms) {
            position.step = Step::from_index((position.step as u8).saturating_sub(1));
            position.low_since = Some(now);
        }
    }

    fn reclaim(&self, step: Step, wanted: &Reclaim) {
        let shrinking = wanted.keep < 1.0;
        let caches = if shrinking { lock(&self.caches).clone() } else { Caches::new() };
        let mut freed_bytes = 0u64;
        for (name, cache) in caches {
            let freed = cache.shrink(wanted.keep);
            freed_bytes = freed_bytes.saturating_add(freed);
            metrics::counter!("mainstay_memory_shrunk_bytes_total", "cache" => name)
                .increment(freed);
        }
        let purge = self.allocator.as_ref().filter(|_| wanted.purge);
        if let Some(allocator) = purge {
            allocator.purge();
            metrics::counter!("mainstay_memory_purges_total").increment(1);
        }
        let (step, purged) = (step.as_str(), purge.is_some());
        tracing::info!(step, freed_bytes, purged, "reclaimed memory");
    }

    fn show(&self) {
        let position = lock(&self.position);
        let reserved = self.level.reserved.load(Ordering::Relaxed);
        metrics::gauge!("mainstay_memory_step").set(f64::from(position.step as u8));
        metrics::gauge!("mainstay_memory_reserved_bytes").set(reserved as f64);
        if let Some(reading) = position.reading {
            metrics::gauge!("mainstay_memory_used_bytes").set(reading.used_bytes as f64);
            metrics::gauge!("mainstay_memory_limit_bytes").set(reading.limit_bytes as f64);
            let stalled = reading.stalled.unwrap_or(0.0);
            metrics::gauge!("mainstay_memory_pressure_ratio").set(stalled);
        }
    }
}
