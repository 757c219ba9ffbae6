//! How a breaker changes its state, its slices and its configuration. Every change is made under the
//! machine's lock.

use super::config::{BreakerConfig, DropRule, Window};
use super::machine::{
    Advice, BY_COUNT, BY_TIME, Change, Cold, Effect, HEEDS_RETRY_AFTER, JUDGES_SLOW, Machine,
    NEEDS_START, PPM_OFF, PRECISE, Probation,
};
use super::snapshot::BreakerSnapshot;
use super::state::{Cause, State};
use super::window::History;
use super::word::Word;
use crate::clock::{Precision, Tick, nanos};
use crate::config_error::ConfigError;
use crate::event::Event;
use crate::rejection::PolicyKind;
use crate::sync::{Ordering, load_in_order, lock};
use std::time::Duration;

impl Machine {
    /// Enters `to` in a new generation.
    pub(super) fn shift(&self, cold: &mut Cold, to: State, now: Tick, cause: Cause) -> Change {
        let old = self.word();
        let from = old.state();
        if !matches!(from, State::Open | State::HalfOpen | State::Isolated) {
            cold.final_counts = self.counts(cold);
        }
        let error_rate = cold.final_counts.failure_rate();
        match to {
            State::Open => {
                let percent = (error_rate * 100.0).round() as u64;
                self.gate.opened_by.store(cause.code() << 32 | percent, Ordering::Relaxed);
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
        self.turn(|| {
            self.gate.word.store(word.0, Ordering::SeqCst);
            self.hot.tally.restart(word.tag());
            cold.history.clear(now);
            self.publish(cold);
        });
        cold.probation = Probation { last_progress: now, ..Probation::default() };
        cold.ramp_credit = 0.0;
        cold.changed_at = now;
        cold.transitions += 1;
        Change { from, to, cause, generation: word.generation(), error_rate }
    }

    pub(super) fn report(&self, effect: &Effect) {
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
    pub(super) fn rotate_if_due(&self, now: Tick) -> bool {
        if now.as_nanos() < self.hot.slice_end.load(Ordering::Relaxed) {
            return false;
        }
        self.rotate(&mut lock(&self.cold), now);
        true
    }

    /// Moves the counts of a slice that is over into the history.
    pub(super) fn rotate(&self, cold: &mut Cold, now: Tick) {
        if !cold.history.is_due(now) {
            return;
        }
        self.turn(|| {
            let counts = self.hot.tally.take(self.word().tag());
            cold.history.advance(counts, now);
            match cold.config.adaptive.filter(|_| counts.total() > 0) {
                Some(adaptive) => {
                    cold.baseline.learn(&adaptive, counts.failure_rate());
                    self.install(cold);
                }
                None => self.publish(cold),
            }
        });
    }

    /// Makes a change that moves counts between tally and frozen sums visible as one.
    pub(super) fn turn(&self, change: impl FnOnce()) {
        self.hot.turning.fetch_add(1, Ordering::SeqCst);
        change();
        self.hot.turning.fetch_add(1, Ordering::SeqCst);
    }

    /// Copies what the path without a lock reads of the history.
    pub(super) fn publish(&self, cold: &Cold) {
        let sums = cold.history.sums();
        for (cell, sum) in self.hot.frozen.iter().zip(sums.0) {
            cell.store(sum, Ordering::SeqCst);
        }
        let (seen, tally) = (load_in_order(&self.hot.unclean), self.hot.tally.counts());
        if seen != 0 && sums.is_clean() && tally.is_clean() {
            // Whoever counted a failure since has raised it, and then it stays.
            let (set, fetch) = (Ordering::SeqCst, Ordering::Relaxed);
            let _ = self.hot.unclean.compare_exchange(seen, 0, set, fetch);
        }
        if let History::Time(slices) = &cold.history {
            self.hot.slice_end.store(slices.slice_end(), Ordering::Relaxed);
        }
    }

    /// Copies what the path without a lock reads of the configuration.
    pub(super) fn install(&self, cold: &Cold) {
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
            // So that the figures it keeps are those of now.
            self.rotate(&mut cold, now);
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
            self.turn(|| {
                if cold.config.window != config.window {
                    let current = self.hot.tally.take(self.word().tag());
                    cold.history = cold.history.reshaped(config.window, current, now);
                }
                cold.config = config;
                self.install(&cold);
            });
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
        let mut cold = lock(&self.cold);
        self.rotate(&mut cold, now);
        let state = self.state();
        let stands_still = matches!(state, State::Open | State::HalfOpen | State::Isolated);
        let counts = if stands_still { cold.final_counts } else { self.counts(&cold) };
        BreakerSnapshot {
            name: self.name.shared(),
            state,
            generation: self.word().generation(),
            error_rate: counts.failure_rate(),
            slow_rate: counts.slow_rate(),
            calls: counts.total(),
            consecutive_failures: self.hot.tally.streak(),
            failure_rate_threshold: failure_rate(&cold),
            rejected: self.rejected.count(),
            would_reject: self.would_reject.load(Ordering::Relaxed),
            transitions: cold.transitions,
            opens_in_a_row: cold.opens_in_a_row,
            since_change: now.since(cold.changed_at),
            opened_by: (state == State::Open)
                .then(|| Cause::from_code(self.gate.opened_by.load(Ordering::Relaxed) >> 32)),
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
        flags |= JUDGES_SLOW;
        shortest = Some(slow.longer_than);
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
