//! The thread of one check.
//!
//! Invariants: at most one run of a check at a time, on one thread that is never replaced; the
//! slot's lock is never held while the check runs, so a reader never waits for a dependency.

use super::Health;
use super::check::{Check, Observation};
use crate::lock::lock;
use crate::wall_clock::WallClock;
use mainstay_resilience::human_duration::format as human;
use mainstay_resilience::{Clock, Tick};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Stack of a check's thread. 256 KiB: checks make one call; a TLS handshake needs about 64 KiB.
const STACK_BYTES: usize = 256 * 1024;

/// A finished run.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) observation: Observation,
    pub(super) at: Tick,
    pub(super) unix_ms: u64,
    pub(super) took: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) last: Option<Finished>,
    /// When the run in progress began.
    pub(super) running: Option<Tick>,
    /// Whether its timeout was counted already.
    timeout_counted: bool,
    wanted: bool,
    stop: bool,
    /// Runs finished since the start.
    pub(super) runs: u64,
    spawned: bool,
}

/// A check and its results. Shared by its thread and its readers.
pub(super) struct Asked {
    pub(super) check: Check,
    clock: Clock,
    wall: WallClock,
    slot: Mutex<Slot>,
    /// Signalled when a run is wanted, finished or the worker must stop.
    changed: Condvar,
}

impl Asked {
    pub(super) fn new(check: Check, clock: Clock, wall: WallClock) -> Arc<Self> {
        let slot = Mutex::new(Slot::default());
        Arc::new(Asked { check, clock, wall, slot, changed: Condvar::new() })
    }

    /// Asks for a run unless one is in progress or asked for. The thread starts at the first one.
    pub(super) fn request(self: &Arc<Self>) {
        let mut slot = lock(&self.slot);
        if slot.stop || slot.wanted || slot.running.is_some() {
            return;
        }
        slot.wanted = true;
        if !slot.spawned {
            let worker = Arc::clone(self);
            let spawned = std::thread::Builder::new()
                .name(format!("health-{}", self.check.name))
                .stack_size(STACK_BYTES)
                .spawn(move || worker.work());
            // Without a thread the check stays unknown, and the next request tries again.
            slot.spawned = spawned.is_ok();
            slot.wanted = spawned.is_ok();
        }
        self.changed.notify_all();
    }

    /// Whether the last answer is older than it may be, or there is none.
    pub(super) fn is_due(&self, now: Tick) -> bool {
        let slot = lock(&self.slot);
        let fresh = slot.last.as_ref().is_some_and(|last| now.since(last.at) < self.check.every);
        !fresh && slot.running.is_none() && !slot.wanted
    }

    /// Whether the first answer of all is still awaited, and not for too long yet.
    pub(super) fn is_first_awaited(&self, now: Tick) -> bool {
        let slot = lock(&self.slot);
        let hangs = slot.running.is_some_and(|began| now.since(began) > self.check.timeout);
        slot.last.is_none() && !hangs
    }

    /// What is known now: a run that hangs or an answer that is too old makes it unknown.
    pub(super) fn current(&self, now: Tick) -> (Observation, Option<Finished>) {
        let mut slot = lock(&self.slot);
        let hung =
            slot.running.map(|began| now.since(began)).filter(|age| *age > self.check.timeout);
        if let Some(age) = hung {
            if !slot.timeout_counted {
                slot.timeout_counted = true;
                self.count_timeout();
            }
            let limit = human(self.check.timeout);
            let age = human(Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or(0)));
            let why = format!("no answer for {age}, the limit is {limit}");
            return (Observation::unknown(why), slot.last.clone());
        }
        let Some(last) = slot.last.clone() else {
            return (Observation::unknown("not asked yet"), None);
        };
        let stale_after = self.check.every * 3 + self.check.timeout;
        if now.since(last.at) > stale_after {
            let why = format!("the last answer is older than {}", human(stale_after));
            return (Observation::unknown(why), Some(last));
        }
        (last.observation.clone(), Some(last))
    }

    /// Waits until a run that began after `runs` finished is over, or the check hangs, or `patience`
    /// since `asked` is over.
    pub(super) fn wait_beyond(&self, runs: u64, asked: Tick, patience: Duration) {
        /// The injected clock may be moved by hand, so it is looked at now and then.
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let began = self.clock.now();
        let mut slot = lock(&self.slot);
        while slot.runs <= runs && !slot.stop {
            let (since, now) = (slot.running.unwrap_or(began), self.clock.now());
            if now.since(since) > self.check.timeout || now.since(asked) >= patience {
                return;
            }
            let waited = self.changed.wait_timeout(slot, LOOK_EVERY);
            slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn runs(&self) -> u64 {
        lock(&self.slot).runs
    }

    /// Lets the thread end after the run it may be in.
    pub(super) fn stop(&self) {
        lock(&self.slot).stop = true;
        self.changed.notify_all();
    }

    fn work(&self) {
        while let Some(began) = self.next_turn() {
            let found = catch_unwind(AssertUnwindSafe(|| (self.check.run)()))
                .unwrap_or_else(|_| Observation::unhealthy("the check panicked"));
            self.finish(began, found);
        }
    }

    /// Waits for a request; nothing when the worker must stop.
    fn next_turn(&self) -> Option<Tick> {
        let mut slot = lock(&self.slot);
        while !slot.wanted && !slot.stop {
            slot = self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        if slot.stop {
            return None;
        }
        let began = self.clock.now();
        slot.wanted = false;
        slot.running = Some(began);
        slot.timeout_counted = false;
        Some(began)
    }

    fn finish(&self, began: Tick, found: Observation) {
        let at = self.clock.now();
        let took = at.since(began);
        let late = took > self.check.timeout;
        let observation = if late {
            let (took, limit) = (took.as_millis(), human(self.check.timeout));
            Observation::unknown(format!("answered after {took} ms, the limit is {limit}"))
        } else {
            found
        };
        let check = self.check.name.clone();
        metrics::histogram!("mainstay_health_check_duration_seconds", "check" => check)
            .record(took.as_secs_f64());
        self.show(observation.health);
        let mut slot = lock(&self.slot);
        if late && !slot.timeout_counted {
            self.count_timeout();
        }
        slot.running = None;
        slot.runs += 1;
        slot.last = Some(Finished { observation, at, unix_ms: self.wall.unix_ms(), took });
        drop(slot);
        self.changed.notify_all();
    }

    fn count_timeout(&self) {
        let check = self.check.name.clone();
        metrics::counter!("mainstay_health_check_timeouts_total", "check" => check).increment(1);
        self.show(Health::Unknown);
    }

    fn show(&self, health: Health) {
        let check = self.check.name.clone();
        metrics::gauge!("mainstay_health_check_state", "check" => check)
            .set(f64::from(health.as_gauge()));
    }
}
