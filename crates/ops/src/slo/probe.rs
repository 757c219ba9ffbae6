//! Probes in an open loop: they are due on a schedule, whether or not the last one came back.
//!
//! A closed loop waits for a slow answer and asks less while things are bad; here each slot of the
//! schedule ends good or bad, and a slot in which no probe could be made is bad.

use crate::lock::lock;
use mainstay_resilience::{Clock, ConfigError, Tick};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Slots that may be open at once: timeout ÷ interval, and one.
const OPEN_MAX: u64 = 64;

#[derive(Debug)]
struct Schedule {
    began: Tick,
    /// The first slot that is not decided.
    undecided: u64,
    /// Whether the probes of the slots from there on came back well.
    results: VecDeque<Option<bool>>,
    /// The next slot in which a probe is to be made.
    next: u64,
}

/// The slots of a schedule. Clones share them.
#[derive(Clone, Debug)]
pub struct ProbeLedger {
    clock: Clock,
    every: Duration,
    timeout: Duration,
    schedule: Arc<Mutex<Schedule>>,
}

/// A probe that is to be made now.
#[derive(Debug)]
#[must_use = "a probe whose result is not recorded counts as bad"]
pub struct Probing {
    ledger: ProbeLedger,
    slot: u64,
}

impl ProbeLedger {
    /// A slot every `every` (100 ms to 10 min), beginning now; its probe is good when it comes back
    /// well within `timeout` after the slot began (10 ms to 60 times `every`).
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(clock: Clock, every: Duration, timeout: Duration) -> Result<Self, ConfigError> {
        ProbeLedger::validate(every, timeout)?;
        let began = clock.now();
        let schedule = Schedule { began, undecided: 0, results: VecDeque::new(), next: 0 };
        Ok(ProbeLedger { clock, every, timeout, schedule: Arc::new(Mutex::new(schedule)) })
    }

    /// Checks what [`new`](Self::new) takes.
    ///
    /// # Errors
    /// The first that is out of its range.
    pub fn validate(every: Duration, timeout: Duration) -> Result<(), ConfigError> {
        let show = mainstay_resilience::human_duration::format;
        if every < Duration::from_millis(100) || every > Duration::from_secs(600) {
            return Err(ConfigError::new("slo.probe_every", show(every), "100ms to 10m"));
        }
        if timeout < Duration::from_millis(10) || timeout > every * 60 {
            let allowed = format!("10ms to {}", show(every * 60));
            return Err(ConfigError::new("slo.probe_timeout", show(timeout), allowed));
        }
        Ok(())
    }

    /// The probe that is due, at most one for each slot. Slots that are past are not made up for.
    pub fn due(&self) -> Option<Probing> {
        let mut schedule = lock(&self.schedule);
        let slot = self.slot_at(&schedule, self.clock.now());
        if slot < schedule.next {
            return None;
        }
        schedule.next = slot + 1;
        Some(Probing { ledger: self.clone(), slot })
    }

    /// Good and bad slots that are over since the last call.
    pub(super) fn settle(&self) -> (u64, u64) {
        let now = self.clock.now();
        let mut schedule = lock(&self.schedule);
        let age = now.since(schedule.began);
        // A slot is over when its timeout is: those that began more than the timeout ago.
        let over = match age.checked_sub(self.timeout) {
            Some(age) => self.slots_in(age) + 1,
            None => 0,
        };
        let (mut good, mut bad) = (0, 0);
        // A machine that slept for years must not be counted slot by slot.
        let skipped =
            over.saturating_sub(schedule.undecided).saturating_sub(schedule.results.len() as u64);
        while schedule.undecided < over {
            let Some(result) = schedule.results.pop_front() else { break };
            schedule.undecided += 1;
            if result == Some(true) { good += 1 } else { bad += 1 }
        }
        if schedule.undecided < over {
            schedule.undecided += skipped;
            bad += skipped;
        }
        (good, bad)
    }

    fn record(&self, slot: u64, good: bool) {
        let now = self.clock.now();
        let mut schedule = lock(&self.schedule);
        let began = self.began(&schedule, slot);
        let Some(place) = slot.checked_sub(schedule.undecided).filter(|p| *p < OPEN_MAX) else {
            return;
        };
        let place = usize::try_from(place).unwrap_or(0);
        if schedule.results.len() <= place {
            schedule.results.resize(place + 1, None);
        }
        schedule.results[place] = Some(good && now.since(began) <= self.timeout);
    }

    fn began(&self, schedule: &Schedule, slot: u64) -> Tick {
        let every = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        schedule.began.after(Duration::from_nanos(every.saturating_mul(slot)))
    }

    fn slot_at(&self, schedule: &Schedule, now: Tick) -> u64 {
        self.slots_in(now.since(schedule.began))
    }

    fn slots_in(&self, age: Duration) -> u64 {
        u64::try_from(age.as_nanos() / self.every.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Probing {
    /// The probe came back; late, it counts as bad however it went.
    pub fn finish(self, good: bool) {
        self.ledger.record(self.slot, good);
    }
}
