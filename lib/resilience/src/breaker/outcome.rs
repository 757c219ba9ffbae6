//! What a breaker makes of the results of calls.

use super::config::DropRule;
use super::machine::{
    BY_COUNT, BY_TIME, Change, Cold, Effect, HEEDS_RETRY_AFTER, JUDGES_SLOW, Machine, PPM_OFF,
};
use super::state::{Cause, State};
use super::tally::{Class, Counted, Counts};
use super::ticket::{LazyNow, Ticket};
use super::window::History;
use super::word::Word;
use crate::clock::{Precision, Tick, nanos};
use crate::error_kind::Count;
use crate::sync::{Ordering, load_in_order, lock};
use std::time::Duration;

impl Machine {
    /// Counts the result of an admitted call. Always inlined, as is the plain success: that a call
    /// succeeded is known where it is recorded, and everything else is out of line.
    #[inline(always)]
    pub(crate) fn record(
        &self,
        ticket: Ticket,
        count: Count,
        retry_after: Option<Duration>,
        mut now: LazyNow<'_>,
    ) {
        if count != Count::Success || !self.count_plainly(ticket.word, &mut now) {
            self.record_carefully(ticket, count, retry_after, now);
        }
    }

    /// Counts a success while all is well, which is nearly always; `false`, with nothing counted,
    /// when it is not as plain as that.
    #[inline(always)]
    fn count_plainly(&self, word: Word, now: &mut LazyNow<'_>) -> bool {
        let (hot, flags) = (&*self.hot, self.flags());
        if !word.is_closed() || self.word() != word || !hot.tally.has_no_streak(word.tag()) {
            return false;
        }
        match flags & (BY_TIME | BY_COUNT | JUDGES_SLOW) {
            0 => true,
            BY_TIME => {
                let at = now.get(Self::precision(flags));
                if at.as_nanos() >= hot.slice_end.load(Ordering::Relaxed)
                    || !matches!(hot.tally.add(word.tag(), Class::Ok), Counted::Done(_))
                {
                    return false;
                }
                if load_in_order(&hot.unclean) != 0 {
                    self.judge_if_reached(word, 0, at);
                }
                true
            }
            _ => false,
        }
    }

    #[inline(never)]
    fn record_carefully(
        &self,
        ticket: Ticket,
        count: Count,
        retry_after: Option<Duration>,
        mut now: LazyNow<'_>,
    ) {
        let (state, flags) = (ticket.word.state(), self.flags());
        if state == State::Disabled || self.word() != ticket.word {
            return;
        }
        let timed = flags & JUDGES_SLOW != 0 && ticket.started != Tick::MAX;
        let slow = timed && count != Count::Ignored && {
            let elapsed = now.get(Self::precision(flags)).since(ticket.started);
            nanos(elapsed) >= self.gate.slow_nanos.load(Ordering::Relaxed)
        };
        if let Some(wait) = retry_after
            && count == Count::Failure
            && self.flags() & HEEDS_RETRY_AFTER != 0
        {
            let at = now.get(Precision::Coarse);
            let mut cold = lock(&self.cold);
            // Looked at once more under the lock: what a call of the generation before was asked is
            // no matter of this one.
            if self.word() != ticket.word {
                return;
            }
            let wait = wait.min(cold.config.open_for.retry_after_max);
            cold.retry_after_until = cold.retry_after_until.max(at.after(wait));
        }
        match (state, count) {
            (State::HalfOpen, _) => self.settle(ticket.word, count, slow, now),
            (_, Count::Ignored) => {}
            (_, Count::Success) => self.count(ticket.word, false, slow, now),
            (_, Count::Failure) => self.count(ticket.word, true, slow, now),
        }
    }

    /// Counts a permit that was dropped without a record.
    #[cold]
    pub(crate) fn abandon(&self, ticket: Ticket) {
        let mut now = LazyNow::unread(&self.clock);
        let rule = lock(&self.cold).config.on_drop;
        let failed = std::thread::panicking()
            || match rule {
                _ if crate::losers::are_dropped() => false,
                DropRule::Neutral => false,
                DropRule::Failure => true,
                DropRule::TimeoutAfter(limit) => {
                    ticket.started != Tick::MAX
                        && now.get(Self::precision(self.flags())).since(ticket.started) >= limit
                }
            };
        let count = if failed { Count::Failure } else { Count::Ignored };
        self.record(ticket, count, None, now);
    }

    fn count(&self, word: Word, failed: bool, slow: bool, mut now: LazyNow<'_>) {
        let (hot, tag, flags) = (&*self.hot, word.tag(), self.flags());
        let streak = if failed {
            self.until_on_time(|| hot.tally.lengthen_streak(tag))
        } else {
            self.until_on_time(|| hot.tally.end_streak(tag))
        };
        let Some(streak) = streak else { return };
        let limit = self.gate.consecutive.load(Ordering::Relaxed);
        let row_complete = limit != 0 && streak >= limit;
        let class = Class::new(failed, slow);
        if flags & BY_COUNT != 0 {
            return self.count_in_ring(word, class, streak, now);
        }
        if flags & BY_TIME == 0 {
            if row_complete {
                self.judge(word, streak, now.get(Precision::Coarse));
            }
            return;
        }
        let at = now.get(Self::precision(flags));
        let rotated = self.rotate_if_due(at);
        if self.until_on_time(|| hot.tally.add(tag, class)).is_none() {
            return;
        }
        if class != Class::Ok {
            hot.unclean.fetch_add(1, Ordering::SeqCst);
        }
        if row_complete || rotated {
            self.judge(word, streak, at);
        } else {
            self.judge_if_reached(word, streak, at);
        }
    }

    /// Repeats a count that came before the tally of its generation was ready; `None` if stale.
    fn until_on_time(&self, count: impl Fn() -> Counted) -> Option<u64> {
        loop {
            match count() {
                Counted::Done(after) => return Some(after),
                Counted::Stale => return None,
                // The transition holds the lock until the tally is ready.
                Counted::Early => drop(lock(&self.cold)),
            }
        }
    }

    fn count_in_ring(&self, word: Word, class: Class, streak: u64, mut now: LazyNow<'_>) {
        let effect = {
            let mut cold = lock(&self.cold);
            if self.word() != word {
                return;
            }
            if let History::Count(ring) = &mut cold.history {
                ring.push(class);
            }
            match self.cause(&cold, streak) {
                Some(cause) => {
                    let at = now.get(Precision::Coarse);
                    self.open(&mut cold, at, cause, streak)
                }
                None => None,
            }
        };
        effect.iter().for_each(|effect| self.report(effect));
    }

    /// Judges if the rates may have reached a threshold, without the lock when they have not.
    #[inline(never)]
    fn judge_if_reached(&self, word: Word, streak: u64, now: Tick) {
        let hot = &*self.hot;
        let turn = load_in_order(&hot.turning);
        let mut counts = hot.tally.counts();
        counts.add(Counts(std::array::from_fn(|i| load_in_order(&hot.frozen[i]))));
        let torn = !turn.is_multiple_of(2) || load_in_order(&hot.turning) != turn;
        if torn || self.rate_cause(&counts).is_some() {
            self.judge(word, streak, now);
        }
    }

    fn rate_cause(&self, counts: &Counts) -> Option<Cause> {
        let total = counts.total();
        if total < self.gate.min_calls.load(Ordering::Relaxed) {
            return None;
        }
        // Counts stay below 2^43 (120 slices of 11 counters of 2^32), so the products fit 64 bits.
        let reaches =
            |part: u64, ppm: u64| part > 0 && ppm != PPM_OFF && part * 1_000_000 >= ppm * total;
        if reaches(counts.failed(), self.gate.failure_ppm.load(Ordering::Relaxed)) {
            return Some(Cause::FailureRate);
        }
        reaches(counts.slow(), self.gate.slow_ppm.load(Ordering::Relaxed))
            .then_some(Cause::SlowCallRate)
    }

    fn cause(&self, cold: &Cold, streak: u64) -> Option<Cause> {
        let limit = self.gate.consecutive.load(Ordering::Relaxed);
        if limit != 0 && streak >= limit {
            return Some(Cause::ConsecutiveFailures);
        }
        self.rate_cause(&self.counts(cold))
    }

    /// The counts of the whole window.
    pub(super) fn counts(&self, cold: &Cold) -> Counts {
        let mut counts = cold.history.sums();
        if matches!(cold.history, History::Time(_)) {
            counts.add(self.hot.tally.counts());
        }
        counts
    }

    /// Decides under the lock whether to open.
    #[cold]
    fn judge(&self, word: Word, streak: u64, now: Tick) {
        let effect = {
            let mut cold = lock(&self.cold);
            if self.word() != word {
                return;
            }
            self.rotate(&mut cold, now);
            match self.cause(&cold, streak) {
                Some(cause) => self.open(&mut cold, now, cause, streak),
                None => None,
            }
        };
        effect.iter().for_each(|effect| self.report(effect));
    }

    /// Opens for `cause`, unless the cause was advice that has expired.
    fn open(&self, cold: &mut Cold, now: Tick, cause: Cause, streak: u64) -> Option<Effect> {
        let mut cause = cause;
        if cold.advice.is_some_and(|advice| now >= advice.until) {
            cold.advice = None;
            self.install(cold);
            cause = self.cause(cold, streak)?;
        }
        if self.state() == State::ObserveOnly {
            let error_rate = self.counts(cold).failure_rate();
            let period = cold.config.open_for.period(0, self.random.unit());
            self.gate.open_until.store(now.after(period).as_nanos(), Ordering::Release);
            self.turn(|| {
                self.hot.tally.restart(self.word().tag());
                cold.history.clear(now);
                self.publish(cold);
            });
            return Some(Effect::WouldOpen { cause, error_rate });
        }
        Some(Effect::Changed(self.shift(cold, State::Open, now, cause)))
    }

    /// Counts the result of a probe.
    #[cold]
    fn settle(&self, word: Word, count: Count, slow: bool, mut now: LazyNow<'_>) {
        let at = now.get(Precision::Coarse);
        let change = {
            let mut cold = lock(&self.cold);
            if self.word() != word {
                return;
            }
            self.settle_probe(&mut cold, count, slow, at)
        };
        change.into_iter().for_each(|change| self.report(&Effect::Changed(change)));
    }

    fn settle_probe(&self, cold: &mut Cold, count: Count, slow: bool, at: Tick) -> Option<Change> {
        let probes = cold.config.probes;
        let ramp = cold.config.ramp.is_some();
        let probation = &mut cold.probation;
        probation.under_way = probation.under_way.saturating_sub(1);
        probation.last_progress = at;
        match count {
            Count::Ignored => return None,
            Count::Success if !slow => probation.succeeded += 1,
            Count::Success | Count::Failure => probation.failed += 1,
        }
        if probation.failed > probes.count - probes.needed() {
            return Some(self.shift(cold, State::Open, at, Cause::ProbesFailed));
        }
        if probation.succeeded >= probes.needed() {
            let to = if ramp { State::Recovering } else { State::Closed };
            return Some(self.shift(cold, to, at, Cause::ProbesSucceeded));
        }
        None
    }
}
