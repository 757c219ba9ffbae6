//! The state machine of a breaker: a lock-free path for closed and open, a lock for transitions.
//!
//! Invariants:
//! - The state word holds generation and state together; each transition raises the generation.
//!   A result counts only in the generation that its call was admitted in.
//! - The word, the tags of the tally and the history change only under `cold`, in this order:
//!   `open_until`, word, tally, history. Who counts between word and tally finds an older tag,
//!   waits for the lock once, and counts then.
//! - No user code runs under `cold`; events are built under it and emitted after it.
//! - A threshold reached without the lock is a hint: it is judged again under it, except for
//!   consecutive failures, where the counting thread itself saw the row complete.

use super::baseline::Baseline;
use super::config::{BreakerConfig, DropRule, Window};
use super::snapshot::BreakerSnapshot;
use super::state::State;
use super::tally::{Class, Counted, Counts, Tally};
use super::window::History;
use crate::clock::{Clock, Precision, Tick, nanos};
use crate::config_error::ConfigError;
use crate::error_kind::Count;
use crate::event::{Cause, Event, Listeners};
use crate::random::Random;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, OwnLine, lock};
use std::sync::Arc;
use std::time::Duration;

/// Generation and state in one atomic word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

const STATES: [State; 7] = [
    State::Closed,
    State::Open,
    State::HalfOpen,
    State::Recovering,
    State::Isolated,
    State::Disabled,
    State::ObserveOnly,
];

impl Word {
    fn new(generation: u64, state: State) -> Self {
        let code = STATES.iter().position(|s| *s == state).unwrap_or(0) as u64;
        Word(generation << 3 | code)
    }

    fn state(self) -> State {
        STATES[(self.0 & 7).min(6) as usize]
    }

    fn generation(self) -> u64 {
        self.0 >> 3
    }

    /// What the tally's counters carry.
    fn tag(self) -> u32 {
        self.generation() as u32
    }
}

/// The admission of one call: which generation admitted it, and when if anybody needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    word: Word,
    /// [`Tick::MAX`] when no rule looks at durations.
    started: Tick,
}

/// A reading of the clock that is taken when first needed and then kept.
pub(crate) struct LazyNow<'a> {
    clock: &'a Clock,
    read: Option<Tick>,
}

impl<'a> LazyNow<'a> {
    pub(crate) fn unread(clock: &'a Clock) -> Self {
        LazyNow { clock, read: None }
    }

    pub(crate) fn at(clock: &'a Clock, now: Tick) -> Self {
        LazyNow { clock, read: Some(now) }
    }

    fn get(&mut self, precision: Precision) -> Tick {
        *self.read.get_or_insert_with(|| self.clock.read(precision))
    }
}

/// The words that each call reads and that seldom change.
#[derive(Debug)]
struct Gate {
    word: AtomicU64,
    /// End of the open period; end of the pretended one while only observing.
    open_until: AtomicU64,
    /// [`NEEDS_START`], [`PRECISE`], [`BY_TIME`], [`BY_COUNT`], [`HEEDS_DROPS`], [`HEEDS_RETRY_AFTER`].
    flags: AtomicU64,
    consecutive: AtomicU64,
    failure_ppm: AtomicU64,
    slow_ppm: AtomicU64,
    min_calls: AtomicU64,
    slow_nanos: AtomicU64,
}

const NEEDS_START: u64 = 1;
const PRECISE: u64 = 2;
const BY_TIME: u64 = 4;
const BY_COUNT: u64 = 8;
const HEEDS_DROPS: u64 = 16;
const HEEDS_RETRY_AFTER: u64 = 32;
/// A rate in parts per million that no share reaches.
const PPM_OFF: u64 = u64::MAX >> 32;

/// The words that each counted call reads and writes.
#[derive(Debug)]
struct Hot {
    tally: Tally,
    slice_end: AtomicU64,
    /// Sums of the frozen slices by class, a copy for the hint.
    frozen: [AtomicU64; 4],
}

/// What peers say, see [`Machine::advise`].
#[derive(Clone, Copy, Debug)]
struct Advice {
    open_share: f64,
    until: Tick,
}

/// The state of probing in one half-open generation.
#[derive(Debug, Default)]
struct Probation {
    under_way: u32,
    succeeded: u32,
    failed: u32,
    last_progress: Tick,
}

/// Everything that changes only under the lock.
#[derive(Debug)]
struct Cold {
    config: BreakerConfig,
    history: History,
    baseline: Baseline,
    advice: Option<Advice>,
    probation: Probation,
    /// What the ramp has gathered towards the next admission, 0 to 1.
    ramp_credit: f64,
    opens_in_a_row: u32,
    retry_after_until: Tick,
    changed_at: Tick,
    transitions: u64,
    /// The counts that the last closed period ended with.
    final_counts: Counts,
}

/// A transition to report once the lock is released.
struct Change {
    from: State,
    to: State,
    cause: Cause,
    generation: u64,
    error_rate: f64,
}

/// What a judgement under the lock led to.
enum Effect {
    Changed(Change),
    WouldOpen { cause: Cause, error_rate: f64 },
}

/// A breaker's shared state.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: Arc<str>,
    pub(crate) clock: Clock,
    listeners: Listeners,
    random: Random,
    gate: OwnLine<Gate>,
    hot: OwnLine<Hot>,
    rejected: OwnLine<AtomicU64>,
    would_reject: AtomicU64,
    cold: Mutex<Cold>,
}

impl Machine {
    /// Builds a machine from a configuration that was validated.
    pub(crate) fn new(
        name: Arc<str>,
        config: BreakerConfig,
        clock: Clock,
        listeners: Listeners,
        seed: Option<u64>,
    ) -> Self {
        let now = clock.now();
        let history = History::new(config.window, now);
        let machine = Machine {
            name,
            clock,
            listeners,
            random: Random::from_seed(seed),
            gate: OwnLine(Gate {
                word: AtomicU64::new(Word::new(0, State::Closed).0),
                open_until: AtomicU64::new(0),
                flags: AtomicU64::new(0),
                consecutive: AtomicU64::new(0),
                failure_ppm: AtomicU64::new(PPM_OFF),
                slow_ppm: AtomicU64::new(PPM_OFF),
                min_calls: AtomicU64::new(1),
                slow_nanos: AtomicU64::new(u64::MAX),
            }),
            hot: OwnLine(Hot {
                tally: Tally::new(0),
                slice_end: AtomicU64::new(0),
                frozen: std::array::from_fn(|_| AtomicU64::new(0)),
            }),
            rejected: OwnLine(AtomicU64::new(0)),
            would_reject: AtomicU64::new(0),
            cold: Mutex::new(Cold {
                config,
                history,
                baseline: Baseline::default(),
                advice: None,
                probation: Probation::default(),
                ramp_credit: 0.0,
                opens_in_a_row: 0,
                retry_after_until: Tick::ZERO,
                changed_at: now,
                transitions: 0,
                final_counts: Counts::default(),
            }),
        };
        machine.install(&lock(&machine.cold));
        machine
    }

    fn word(&self) -> Word {
        Word(self.gate.word.load(Ordering::Acquire))
    }

    fn flags(&self) -> u64 {
        self.gate.flags.load(Ordering::Relaxed)
    }

    fn precision(flags: u64) -> Precision {
        if flags & PRECISE == 0 { Precision::Coarse } else { Precision::Precise }
    }

    pub(crate) fn state(&self) -> State {
        self.word().state()
    }

    /// Whether some rule wants the precise clock.
    pub(crate) fn needs_precise(&self) -> bool {
        self.flags() & PRECISE != 0
    }

    /// Whether a dropped permit may count.
    pub(crate) fn heeds_drops(&self) -> bool {
        self.flags() & HEEDS_DROPS != 0
    }
}

/// Admission.
impl Machine {
    /// Admits or refuses one call.
    #[inline]
    pub(crate) fn admit(&self, mut now: LazyNow<'_>) -> Result<Ticket, Rejection> {
        let word = self.word();
        match word.state() {
            State::Closed | State::Disabled => Ok(self.ticket(word, &mut now)),
            State::Open => {
                let until = self.gate.open_until.load(Ordering::Acquire);
                let now = now.get(Precision::Coarse);
                if now.as_nanos() < until {
                    return Err(self.reject(Reason::Open, Some(Tick::from_nanos(until).since(now))));
                }
                self.admit_carefully(LazyNow::at(&self.clock, now))
            }
            _ => self.admit_carefully(now),
        }
    }

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
            State::Open => Err((Reason::Open, Some(self.open_left(at)))),
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
        changes.into_iter().flatten().for_each(|change| self.report(&Effect::Changed(change)));
        match admitted {
            Ok(()) => Ok(ticket),
            Err((reason, retry_after)) => Err(self.reject(reason, retry_after)),
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
        if now.since(probation.last_progress) >= probes.give_up_after {
            *change = Some(self.shift(cold, State::Open, now, Cause::ProbesGaveUp));
            return Err((Reason::Open, Some(self.open_left(now))));
        }
        Err((Reason::ProbesTaken { permitted: probes.count }, None))
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

    fn open_left(&self, now: Tick) -> Duration {
        Tick::from_nanos(self.gate.open_until.load(Ordering::Acquire)).since(now)
    }

    fn reject(&self, reason: Reason, retry_after: Option<Duration>) -> Rejection {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        let name = Arc::clone(&self.name);
        let rejection = Rejection::new(name, PolicyKind::CircuitBreaker, reason, retry_after);
        self.listeners.emit(|| Event::Rejected(&rejection));
        rejection
    }
}

/// Results.
impl Machine {
    /// Counts the result of an admitted call.
    #[inline]
    pub(crate) fn record(
        &self,
        ticket: Ticket,
        count: Count,
        retry_after: Option<Duration>,
        mut now: LazyNow<'_>,
    ) {
        let state = ticket.word.state();
        if state == State::Disabled || self.word() != ticket.word {
            return;
        }
        let slow = ticket.started != Tick::MAX && count != Count::Ignored && {
            let elapsed = now.get(Self::precision(self.flags())).since(ticket.started);
            nanos(elapsed) >= self.gate.slow_nanos.load(Ordering::Relaxed)
        };
        if let Some(wait) = retry_after
            && count == Count::Failure
            && self.flags() & HEEDS_RETRY_AFTER != 0
        {
            let at = now.get(Precision::Coarse);
            let mut cold = lock(&self.cold);
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
        let limit = self.gate.consecutive.load(Ordering::Relaxed);
        let mut streak = 0;
        if limit != 0 {
            let tally = &self.hot.tally;
            let counted = if failed {
                self.until_on_time(|| tally.lengthen_streak(word.tag()))
            } else {
                self.until_on_time(|| tally.end_streak(word.tag()))
            };
            match counted {
                Some(after) => streak = after,
                None => return,
            }
        }
        let row_complete = limit != 0 && streak >= limit;
        let flags = self.flags();
        let class = Class::new(failed, slow);
        if flags & BY_TIME != 0 {
            let at = now.get(Precision::Coarse);
            let rotated = self.rotate_if_due(at);
            if self.until_on_time(|| self.hot.tally.add(word.tag(), class)).is_none() {
                return;
            }
            if row_complete || rotated || self.rates_reached(class) {
                self.judge(word, streak, at);
            }
        } else if flags & BY_COUNT != 0 {
            self.count_in_ring(word, class, streak, now);
        } else if row_complete {
            let at = now.get(Precision::Coarse);
            self.judge(word, streak, at);
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

    /// Whether the rates may have reached a threshold. May err towards yes.
    fn rates_reached(&self, class: Class) -> bool {
        let mut counts = self.hot.tally.counts();
        let frozen = Counts(std::array::from_fn(|i| self.hot.frozen[i].load(Ordering::Relaxed)));
        counts.add(frozen);
        if class == Class::Ok && counts.0[1..] == [0, 0, 0] {
            return false;
        }
        self.rate_cause(&counts).is_some()
    }

    fn rate_cause(&self, counts: &Counts) -> Option<Cause> {
        let total = counts.total();
        if total < self.gate.min_calls.load(Ordering::Relaxed) {
            return None;
        }
        // Counts stay below 2^39 (120 slices of 2^32), so the products fit 64 bits.
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
    fn counts(&self, cold: &Cold) -> Counts {
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
            self.hot.tally.restart(self.word().tag());
            cold.history.clear(now);
            self.publish(cold);
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

/// Transitions and time.
impl Machine {
    /// Enters `to` in a new generation.
    fn shift(&self, cold: &mut Cold, to: State, now: Tick, cause: Cause) -> Change {
        let old = self.word();
        let from = old.state();
        if !matches!(from, State::Open | State::HalfOpen | State::Isolated) {
            cold.final_counts = self.counts(cold);
        }
        match to {
            State::Open => {
                let unit = self.random.unit();
                let period = cold.config.open_for.period(cold.opens_in_a_row, unit);
                let until = now.after(period).max(cold.retry_after_until);
                cold.opens_in_a_row = cold.opens_in_a_row.saturating_add(1);
                self.gate.open_until.store(until.as_nanos(), Ordering::Release);
            }
            State::Closed => cold.opens_in_a_row = 0,
            State::ObserveOnly => self.gate.open_until.store(0, Ordering::Release),
            _ => {}
        }
        cold.retry_after_until = Tick::ZERO;
        let word = Word::new(old.generation().wrapping_add(1), to);
        self.gate.word.store(word.0, Ordering::SeqCst);
        self.hot.tally.restart(word.tag());
        cold.history.clear(now);
        cold.probation = Probation { last_progress: now, ..Probation::default() };
        cold.ramp_credit = 0.0;
        cold.changed_at = now;
        cold.transitions += 1;
        self.publish(cold);
        let error_rate = cold.final_counts.failure_rate();
        Change { from, to, cause, generation: word.generation(), error_rate }
    }

    fn report(&self, effect: &Effect) {
        let name = &*self.name;
        self.listeners.emit(|| match *effect {
            Effect::Changed(Change { from, to, cause, generation, error_rate }) => {
                Event::BreakerChanged { name, from, to, cause, generation, error_rate }
            }
            Effect::WouldOpen { cause, error_rate } => {
                Event::BreakerWouldOpen { name, cause, error_rate }
            }
        });
    }

    #[inline]
    fn rotate_if_due(&self, now: Tick) -> bool {
        if now.as_nanos() < self.hot.slice_end.load(Ordering::Relaxed) {
            return false;
        }
        self.rotate(&mut lock(&self.cold), now);
        true
    }

    /// Moves the counts of a slice that is over into the history.
    fn rotate(&self, cold: &mut Cold, now: Tick) {
        let word = self.word();
        let Cold { history: History::Time(slices), config, baseline, .. } = cold else {
            return;
        };
        if !slices.is_due(now) {
            return;
        }
        let counts = self.hot.tally.take(word.tag());
        slices.advance(counts, now);
        let learns = config.adaptive.filter(|_| counts.total() > 0);
        if let Some(adaptive) = &learns {
            baseline.learn(adaptive, counts.failure_rate());
            self.install(cold);
        } else {
            self.publish(cold);
        }
    }

    /// Copies what the path without a lock reads of the history.
    fn publish(&self, cold: &Cold) {
        let sums = cold.history.sums();
        for (cell, sum) in self.hot.frozen.iter().zip(sums.0) {
            cell.store(sum, Ordering::Relaxed);
        }
        if let History::Time(slices) = &cold.history {
            self.hot.slice_end.store(slices.slice_end(), Ordering::Relaxed);
        }
    }

    /// Copies what the path without a lock reads of the configuration.
    fn install(&self, cold: &Cold) {
        let config = &cold.config;
        let gate = &*self.gate;
        // Half of the fleet open lowers the thresholds by a quarter, all of it by half.
        let tighten = cold.advice.map_or(1.0, |advice| 1.0 - advice.open_share / 2.0);
        let consecutive = (f64::from(config.consecutive_failures) * tighten).ceil();
        gate.consecutive.store(consecutive as u64, Ordering::Relaxed);
        let ppm = |rate: f64| ((rate * tighten * 1e6).round() as u64).max(1);
        let failure_ppm = failure_rate(cold).map_or(PPM_OFF, ppm);
        gate.failure_ppm.store(failure_ppm, Ordering::Relaxed);
        let slow = config.slow_calls;
        gate.slow_ppm.store(slow.map_or(PPM_OFF, |slow| ppm(slow.rate)), Ordering::Relaxed);
        gate.slow_nanos
            .store(slow.map_or(u64::MAX, |slow| nanos(slow.longer_than)), Ordering::Relaxed);
        gate.min_calls.store(u64::from(config.min_calls), Ordering::Relaxed);
        gate.flags.store(flags_of(config), Ordering::Relaxed);
        self.publish(cold);
    }

    /// Enters `to` because somebody asked.
    pub(crate) fn command(&self, to: State, open_for: Option<Duration>) {
        let now = self.clock.now();
        let change = {
            let mut cold = lock(&self.cold);
            let change = self.shift(&mut cold, to, now, Cause::ByHand);
            if let Some(period) = open_for {
                self.gate.open_until.store(now.after(period).as_nanos(), Ordering::Release);
            }
            change
        };
        self.report(&Effect::Changed(change));
    }

    /// Takes another configuration, keeping state and window.
    pub(crate) fn reconfigure(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let now = self.clock.now();
        {
            let mut cold = lock(&self.cold);
            self.rotate(&mut cold, now);
            if cold.config.window != config.window {
                let current = self.hot.tally.take(self.word().tag());
                cold.history = cold.history.reshaped(config.window, current, now);
            }
            cold.config = config;
            self.install(&cold);
        }
        let name = &*self.name;
        self.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::CircuitBreaker });
        Ok(())
    }

    /// Tightens the thresholds for `ttl` by what peers see.
    pub(crate) fn advise(&self, open_share: f64, ttl: Duration) {
        let now = self.clock.coarse();
        let mut cold = lock(&self.cold);
        let open_share = if open_share.is_nan() { 0.0 } else { open_share.clamp(0.0, 1.0) };
        cold.advice = (open_share > 0.0).then(|| Advice { open_share, until: now.after(ttl) });
        self.install(&cold);
    }

    pub(crate) fn config(&self) -> BreakerConfig {
        lock(&self.cold).config.clone()
    }

    pub(crate) fn snapshot(&self) -> BreakerSnapshot {
        let now = self.clock.now();
        let mut cold: MutexGuard<'_, Cold> = lock(&self.cold);
        self.rotate(&mut cold, now);
        let state = self.state();
        let stands_still = matches!(state, State::Open | State::HalfOpen | State::Isolated);
        let counts = if stands_still { cold.final_counts } else { self.counts(&cold) };
        BreakerSnapshot {
            name: Arc::clone(&self.name),
            state,
            generation: self.word().generation(),
            error_rate: counts.failure_rate(),
            slow_rate: counts.slow_rate(),
            calls: counts.total(),
            consecutive_failures: self.hot.tally.streak(),
            failure_rate_threshold: failure_rate(&cold),
            rejected: self.rejected.load(Ordering::Relaxed),
            would_reject: self.would_reject.load(Ordering::Relaxed),
            transitions: cold.transitions,
            opens_in_a_row: cold.opens_in_a_row,
            since_change: now.since(cold.changed_at),
            next_probe: (state == State::Open).then(|| self.open_left(now)),
        }
    }
}

/// The threshold of the failure rate: learned if there is enough history, else configured.
fn failure_rate(cold: &Cold) -> Option<f64> {
    let learned = cold.config.adaptive.as_ref().and_then(|config| cold.baseline.threshold(config));
    learned.or(cold.config.failure_rate)
}

fn flags_of(config: &BreakerConfig) -> u64 {
    let mut flags = match config.window {
        Window::None => 0,
        Window::Count { .. } => BY_COUNT,
        Window::Time { .. } => BY_TIME,
    };
    let mut shortest = None;
    if let Some(slow) = config.slow_calls {
        shortest = Some(slow.longer_than);
    }
    if config.on_drop != DropRule::Neutral {
        flags |= HEEDS_DROPS;
    }
    if let DropRule::TimeoutAfter(limit) = config.on_drop {
        shortest = Some(shortest.map_or(limit, |other| limit.min(other)));
    }
    if let Some(shortest) = shortest {
        flags |= NEEDS_START;
        if Precision::for_duration(shortest) == Precision::Precise {
            flags |= PRECISE;
        }
    }
    if !config.open_for.retry_after_max.is_zero() {
        flags |= HEEDS_RETRY_AFTER;
    }
    flags
}
