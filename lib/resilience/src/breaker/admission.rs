//! Which calls a breaker lets through.

use super::machine::{Change, Cold, Effect, Machine, NEEDS_START};
use super::state::{Cause, State};
use super::ticket::{LazyNow, Ticket};
use super::word::Word;
use crate::clock::{Precision, Tick};
use crate::error_kind::Count;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::sync::{Ordering, lock};
use std::time::Duration;

/// An admission whose transitions the observer has yet to hear of. Dropped only when the observer
/// panics: no call will follow, so a probe's slot is given back, and nothing is counted.
struct Unheard<'a> {
    machine: &'a Machine,
    ticket: Ticket,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        let now = LazyNow::unread(&self.machine.clock);
        self.machine.record(self.ticket, Count::Ignored, None, now);
    }
}

impl Machine {
    /// Admits or refuses one call.
    #[inline]
    pub(crate) fn admit(&self, mut now: LazyNow<'_>) -> Result<Ticket, Rejection> {
        let word = self.word();
        if word.is_closed() {
            return Ok(self.ticket(word, &mut now));
        }
        self.admit_unless_open(word, now)
    }

    /// Refuses while open, and asks the lock about everything else.
    fn admit_unless_open(&self, word: Word, mut now: LazyNow<'_>) -> Result<Ticket, Rejection> {
        if word.state() != State::Open {
            return self.admit_carefully(now);
        }
        let until = self.gate.open_until.load(Ordering::Acquire);
        let at = now.get(Precision::Coarse);
        if at.as_nanos() < until {
            return self.reject(self.open_reason(), Some(Tick::from_nanos(until).since(at)));
        }
        self.admit_carefully(LazyNow::at(&self.clock, at))
    }

    /// Why it is open, with the figures it opened with.
    fn open_reason(&self) -> Reason {
        let opened_by = self.gate.opened_by.load(Ordering::Relaxed);
        let cause = Cause::from_code(opened_by >> 32);
        Reason::Open { cause, failed_percent: opened_by as u32 }
    }

    #[inline]
    fn ticket(&self, word: Word, now: &mut LazyNow<'_>) -> Ticket {
        let flags = self.flags();
        if flags & NEEDS_START == 0 {
            return Ticket { word, started: Tick::MAX };
        }
        Ticket { word, started: now.get(Self::precision(flags)) }
    }

    /// Admission in any state, under the lock.
    #[cold]
    fn admit_carefully(&self, mut now: LazyNow<'_>) -> Result<Ticket, Rejection> {
        let at = now.get(Self::precision(self.flags()));
        let mut cold = lock(&self.cold);
        let mut changes: [Option<Change>; 2] = [None, None];
        if self.state() == State::Open
            && at.as_nanos() >= self.gate.open_until.load(Ordering::Acquire)
        {
            let change = self.shift(&mut cold, State::HalfOpen, at, Cause::OpenPeriodOver);
            changes[0] = Some(change);
        }
        let admitted = match self.state() {
            State::HalfOpen => self.admit_probe(&mut cold, at, &mut changes[1]),
            State::Recovering => self.admit_share(&mut cold, at, &mut changes[1]),
            State::Open => Err((self.open_reason(), Some(self.open_left(at)))),
            State::Isolated => Err((Reason::Isolated, None)),
            State::ObserveOnly => {
                if at.as_nanos() < self.gate.open_until.load(Ordering::Acquire) {
                    self.would_reject.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            State::Closed | State::Disabled => Ok(()),
        };
        let ticket = self.ticket(self.word(), &mut now);
        drop(cold);
        let unheard = admitted.is_ok().then(|| Unheard { machine: self, ticket });
        changes.into_iter().flatten().for_each(|change| self.report(&Effect::Changed(change)));
        std::mem::forget(unheard);
        match admitted {
            Ok(()) => Ok(ticket),
            Err((reason, retry_after)) => self.reject(reason, retry_after),
        }
    }

    fn admit_probe(
        &self,
        cold: &mut Cold,
        now: Tick,
        change: &mut Option<Change>,
    ) -> Result<(), (Reason, Option<Duration>)> {
        let probes = cold.config.probes;
        let probation = &mut cold.probation;
        let taken = probation.under_way + probation.succeeded + probation.failed;
        if probation.under_way < probes.at_a_time() && taken < probes.count {
            probation.under_way += 1;
            probation.last_progress = now;
            return Ok(());
        }
        let standing_still = now.since(probation.last_progress);
        if standing_still >= probes.give_up_after {
            *change = Some(self.shift(cold, State::Open, now, Cause::ProbesGaveUp));
            return Err((self.open_reason(), Some(self.open_left(now))));
        }
        // At the latest then a call is judged anew; sooner if the probes succeed.
        let left = probes.give_up_after.saturating_sub(standing_still);
        Err((Reason::ProbesTaken { permitted: probes.count }, Some(left)))
    }

    fn admit_share(
        &self,
        cold: &mut Cold,
        now: Tick,
        change: &mut Option<Change>,
    ) -> Result<(), (Reason, Option<Duration>)> {
        let elapsed = now.since(cold.changed_at);
        let Some(ramp) = cold.config.ramp.filter(|ramp| elapsed < ramp.over) else {
            *change = Some(self.shift(cold, State::Closed, now, Cause::RampComplete));
            return Ok(());
        };
        let progress = elapsed.as_secs_f64() / ramp.over.as_secs_f64();
        let share = ramp.from + (1.0 - ramp.from) * progress;
        cold.ramp_credit += share;
        if cold.ramp_credit >= 1.0 {
            cold.ramp_credit -= 1.0;
            return Ok(());
        }
        Err((Reason::Recovering { admitted_percent: (share * 100.0) as u32 }, None))
    }

    pub(super) fn open_left(&self, now: Tick) -> Duration {
        Tick::from_nanos(self.gate.open_until.load(Ordering::Acquire)).since(now)
    }

    #[inline]
    fn reject<T>(&self, reason: Reason, retry_after: Option<Duration>) -> Result<T, Rejection> {
        self.rejected.happened();
        let kind = PolicyKind::CircuitBreaker;
        let refused = Err(Rejection::by(&self.name, kind, reason, retry_after));
        self.listeners.hear_refusal(&refused);
        refused
    }
}
