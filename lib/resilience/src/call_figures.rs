//! How the calls of one dependency went: how many, how long, and what the last error said.
//!
//! Invariants: recording takes no lock unless the call failed; quantiles are taken over the last
//! 4 096 to 8 192 calls and lie within 13 %.

use crate::clock::{Clock, Tick, nanos};
use crate::histogram::{BUCKETS, bucket, upper_edge};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Calls in one half: enough for a 99th percentile of forty samples.
const ROTATE_AFTER: u64 = 4_096;
/// Characters that are kept of an error.
const ERROR_CHARS_MAX: usize = 300;

/// How calls went. Clones share the figures.
#[derive(Clone, Debug)]
pub struct CallFigures(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    clock: Clock,
    /// Two halves; the one that is filled is the parity of `calls / ROTATE_AFTER`.
    halves: [Box<[AtomicU32]>; 2],
    calls: AtomicU64,
    failures: AtomicU64,
    last_error: Mutex<Option<(Tick, String)>>,
}

/// The figures at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CallSnapshot {
    /// Calls since the start.
    pub calls: u64,
    /// Failed ones among them.
    pub failures: u64,
    /// Half of the latest calls took at most this long; nothing without calls.
    pub p50: Option<Duration>,
    /// The same for 95 of a hundred.
    pub p95: Option<Duration>,
    /// The same for 99 of a hundred.
    pub p99: Option<Duration>,
    /// How long ago the last error was, and what it said.
    pub last_error: Option<(Duration, String)>,
}

/// A panic leaves nothing half changed: what is behind the lock is replaced whole, and a clock is only
/// asked.
impl UnwindSafe for CallFigures {}
impl RefUnwindSafe for CallFigures {}

impl Default for CallFigures {
    fn default() -> Self {
        CallFigures::new()
    }
}

impl CallFigures {
    /// No calls yet, on the system's clock.
    #[must_use]
    pub fn new() -> Self {
        CallFigures::on_clock(Clock::system())
    }

    /// No calls yet; `clock` says how long ago the last error was.
    #[must_use]
    pub fn on_clock(clock: Clock) -> Self {
        let half = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        CallFigures(Arc::new(Figures {
            clock,
            halves: [half(), half()],
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }))
    }

    /// A call that went well.
    pub fn succeeded(&self, took: Duration) {
        let figures = &*self.0;
        let calls = figures.calls.fetch_add(1, Ordering::Relaxed);
        let half = &figures.halves[(calls / ROTATE_AFTER % 2) as usize];
        if calls.is_multiple_of(ROTATE_AFTER) && calls > 0 {
            // Calls that are recorded meanwhile may be lost from the quantiles, not from the counts.
            half.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        half[bucket(nanos(took))].fetch_add(1, Ordering::Relaxed);
    }

    /// A call that failed, and why. Keep secrets out of `why`: it is shown.
    pub fn failed(&self, took: Duration, why: impl fmt::Display) {
        self.succeeded(took);
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        let why = why.to_string();
        let why = match why.char_indices().nth(ERROR_CHARS_MAX) {
            Some((cut, _)) => format!("{}…", &why[..cut]),
            None => why,
        };
        *last_error(&self.0) = Some((self.0.clock.now(), why));
    }

    /// Calls since the start, without the rest of a snapshot.
    pub(crate) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// Calls since the start, and failed ones among them: all that costs next to nothing to read.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.0.calls.load(Ordering::Relaxed), self.0.failures.load(Ordering::Relaxed))
    }

    /// The figures now.
    #[must_use]
    pub fn snapshot(&self) -> CallSnapshot {
        let figures = &*self.0;
        let read = |half: &[AtomicU32], at: usize| u64::from(half[at].load(Ordering::Relaxed));
        let counts: Vec<u64> = (0..BUCKETS)
            .map(|at| read(&figures.halves[0], at) + read(&figures.halves[1], at))
            .collect();
        let total: u64 = counts.iter().sum();
        let quantile = |share: f64| {
            let rank = ((total as f64 * share).ceil() as u64).max(1);
            let mut seen = 0;
            let reached = |count: &u64| {
                seen += count;
                seen >= rank
            };
            let at = counts.iter().position(reached)?;
            Some(Duration::from_nanos(upper_edge(at)))
        };
        let (p50, p95, p99) = (quantile(0.5), quantile(0.95), quantile(0.99));
        let last_error = last_error(figures).clone();
        let last_error = last_error.map(|(at, why)| (figures.clock.now().since(at), why));
        CallSnapshot {
            calls: figures.calls.load(Ordering::Relaxed),
            failures: figures.failures.load(Ordering::Relaxed),
            p50,
            p95,
            p99,
            last_error,
        }
    }
}

fn last_error(figures: &Figures) -> MutexGuard<'_, Option<(Tick, String)>> {
    figures.last_error.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn quantiles_counts_and_the_last_error_are_shown() {
        let figures = CallFigures::new();
        assert_eq!(figures.snapshot(), CallSnapshot::default());
        (1..=100u64).for_each(|ms| figures.succeeded(Duration::from_millis(ms)));
        figures.failed(Duration::from_millis(50), "x".repeat(1_000));
        let shown = figures.snapshot();
        assert_eq!((shown.calls, shown.failures), (101, 1));
        assert_eq!(figures.counts(), (101, 1));
        let ms = |quantile: Option<Duration>| quantile.map_or(0, |q| q.as_millis());
        assert!((50..=57).contains(&ms(shown.p50)), "{shown:?}");
        assert!((99..=113).contains(&ms(shown.p99)), "{shown:?}");
        assert_eq!(shown.last_error.map(|(_, why)| why.chars().count()), Some(301));
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let figures = CallFigures::new();
        (0..ROTATE_AFTER).for_each(|_| figures.succeeded(Duration::from_secs(1)));
        (0..2 * ROTATE_AFTER).for_each(|_| figures.succeeded(Duration::from_millis(1)));
        assert!(figures.snapshot().p99 < Some(Duration::from_millis(2)));
    }

    #[test]
    fn the_age_of_the_last_error_is_told_by_the_clock_it_was_made_with() {
        let clock = ManualClock::new();
        let figures = CallFigures::on_clock(clock.clock());
        figures.failed(Duration::ZERO, "down");
        clock.advance(Duration::from_secs(90));
        let expected = Some((Duration::from_secs(90), "down".to_owned()));
        assert_eq!(figures.snapshot().last_error, expected);
    }
}
