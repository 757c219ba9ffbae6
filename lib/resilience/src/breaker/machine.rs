//! The state of a breaker: a lock-free part for closed and open, a lock for transitions.
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
//! - `turning` is odd while tally and frozen sums change together; who reads both and saw it odd or
//!   changed judges under the lock instead of trusting the sum.
//! - `unclean` is zero only while the window holds no failure and no slow call. It rises after such
//!   a call was counted and before its thread judges; it falls to zero only by a compare-and-swap
//!   against the value read before the counters were found clean. So a success that finds it zero
//!   has been counted before any failure whose thread has yet to judge.

use super::baseline::Baseline;
use super::config::BreakerConfig;
use super::state::{Cause, State};
use super::tally::{Counts, Tally};
use super::window::History;
use super::word::Word;
use crate::clock::{Clock, Precision, Tick};
use crate::event::Listeners;
use crate::name::Name;
use crate::random::Random;
use crate::stripes::Events;
use crate::sync::{AtomicU64, Mutex, Ordering, OwnLine, lock};
use std::sync::Arc;

/// The words that each call reads and that seldom change.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) word: AtomicU64,
    /// End of the open period; end of the pretended one while only observing.
    pub(super) open_until: AtomicU64,
    /// The constants below, joined.
    pub(super) flags: AtomicU64,
    /// Why it opened: the cause's code above the failure rate in percent.
    pub(super) opened_by: AtomicU64,
    pub(super) consecutive: AtomicU64,
    pub(super) failure_ppm: AtomicU64,
    pub(super) slow_ppm: AtomicU64,
    pub(super) min_calls: AtomicU64,
    pub(super) slow_nanos: AtomicU64,
}

/// Somebody asks how long a call took.
pub(super) const NEEDS_START: u64 = 1;
pub(super) const PRECISE: u64 = 2;
pub(super) const BY_TIME: u64 = 4;
pub(super) const BY_COUNT: u64 = 8;
pub(super) const HEEDS_RETRY_AFTER: u64 = 32;
/// There is a rule on slow calls.
pub(super) const JUDGES_SLOW: u64 = 64;
/// A rate in parts per million that no share reaches.
pub(super) const PPM_OFF: u64 = u64::MAX >> 32;

/// The words that each counted call reads and writes.
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) tally: Tally,
    pub(super) slice_end: AtomicU64,
    /// Failures and slow calls since the window was last clean; see the invariants.
    pub(super) unclean: AtomicU64,
    /// Odd while tally and frozen sums change; see the invariants.
    pub(super) turning: AtomicU64,
    /// Sums of the frozen slices by class, a copy for the hint.
    pub(super) frozen: [AtomicU64; 4],
}

/// What peers say, see [`Machine::advise`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Advice {
    pub(super) open_share: f64,
    pub(super) until: Tick,
}

/// The state of probing in one half-open generation.
#[derive(Debug, Default)]
pub(super) struct Probation {
    pub(super) under_way: u32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
    pub(super) last_progress: Tick,
}

/// Everything that changes only under the lock.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) config: BreakerConfig,
    pub(super) history: History,
    pub(super) baseline: Baseline,
    pub(super) advice: Option<Advice>,
    pub(super) probation: Probation,
    /// What the ramp has gathered towards the next admission, 0 to 1.
    pub(super) ramp_credit: f64,
    pub(super) opens_in_a_row: u32,
    pub(super) retry_after_until: Tick,
    pub(super) changed_at: Tick,
    pub(super) transitions: u64,
    /// The counts that the last closed period ended with.
    pub(super) final_counts: Counts,
}

/// A transition to report once the lock is released.
pub(super) struct Change {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) cause: Cause,
    pub(super) generation: u64,
    pub(super) error_rate: f64,
}

/// What a judgement under the lock led to.
pub(super) enum Effect {
    Changed(Change),
    WouldOpen { cause: Cause, error_rate: f64 },
}

/// A breaker's shared state.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: Name,
    pub(crate) clock: Clock,
    pub(super) listeners: Listeners,
    pub(super) random: Random,
    pub(super) gate: OwnLine<Gate>,
    pub(super) hot: OwnLine<Hot>,
    pub(super) rejected: Events,
    pub(super) would_reject: AtomicU64,
    pub(super) cold: Mutex<Cold>,
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
            name: name.into(),
            clock,
            listeners,
            random: Random::from_seed(seed),
            gate: OwnLine(Gate {
                word: AtomicU64::new(Word::new(0, State::Closed).0),
                open_until: AtomicU64::new(0),
                flags: AtomicU64::new(0),
                opened_by: AtomicU64::new(0),
                consecutive: AtomicU64::new(0),
                failure_ppm: AtomicU64::new(PPM_OFF),
                slow_ppm: AtomicU64::new(PPM_OFF),
                min_calls: AtomicU64::new(1),
                slow_nanos: AtomicU64::new(u64::MAX),
            }),
            hot: OwnLine(Hot {
                tally: Tally::new(0),
                slice_end: AtomicU64::new(0),
                unclean: AtomicU64::new(0),
                turning: AtomicU64::new(0),
                frozen: std::array::from_fn(|_| AtomicU64::new(0)),
            }),
            rejected: Events::none(),
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

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.gate.word.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn flags(&self) -> u64 {
        self.gate.flags.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn precision(flags: u64) -> Precision {
        if flags & PRECISE == 0 { Precision::Coarse } else { Precision::Precise }
    }

    pub(crate) fn state(&self) -> State {
        self.word().state()
    }

    /// Whether some rule wants the precise clock.
    pub(crate) fn needs_precise(&self) -> bool {
        self.flags() & PRECISE != 0
    }
}
