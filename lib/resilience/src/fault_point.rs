//! Where tests and drills make a dependency fail, in the program as it runs in production.
//!
//! Invariants: a fault ends by itself; asking costs one load while none is set; `armed` changes only
//! under the fault's lock, so it always says whether a fault is set.

use crate::clock::{Clock, Tick};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

/// How often a blocked call looks whether its fault is over.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InjectedFault {
    /// It fails without being made.
    Error,
    /// Its thread panics.
    Panic,
    /// It is made after this long.
    Slow(Duration),
    /// It waits until the fault is over.
    Hang,
    /// It fails for this long, then works for this long, and so on.
    Flap(Duration),
}

/// The error of a call that a fault struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected;

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("injected error")
    }
}

impl std::error::Error for Injected {}

/// The fault point of one dependency. Clones share it.
///
/// Times pass on its clock: how long a fault lasts, when a flapping one works, and how long a call that
/// is slow or hangs is held ([`Clock::pause`]).
#[derive(Clone, Debug)]
pub struct FaultPoint(Arc<Point>);

#[derive(Debug)]
struct Point {
    clock: Clock,
    /// 1 while a fault is set, else 0.
    armed: AtomicU64,
    fault: Mutex<Option<Set>>,
    struck: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Set {
    fault: InjectedFault,
    since: Tick,
    until: Option<Tick>,
}

/// A panic leaves nothing half changed: what is behind the lock is replaced whole, and a clock is only
/// asked.
impl UnwindSafe for FaultPoint {}
impl RefUnwindSafe for FaultPoint {}

impl Default for FaultPoint {
    fn default() -> Self {
        FaultPoint::new()
    }
}

impl FaultPoint {
    /// One without a fault, on the system's clock.
    #[must_use]
    pub fn new() -> Self {
        FaultPoint::on_clock(Clock::system())
    }

    /// One without a fault, on `clock`.
    #[must_use]
    pub fn on_clock(clock: Clock) -> Self {
        FaultPoint(Arc::new(Point {
            clock,
            armed: AtomicU64::new(0),
            fault: Mutex::new(None),
            struck: AtomicU64::new(0),
        }))
    }

    /// Sets a fault until it is cleared, or for this long.
    pub fn set(&self, fault: InjectedFault, lasting: Option<Duration>) {
        let since = self.0.clock.now();
        let until = lasting.map(|lasting| since.after(lasting));
        self.0.put(&mut lock(&self.0.fault), Some(Set { fault, since, until }));
    }

    /// Takes the fault back.
    pub fn clear(&self) {
        self.0.put(&mut lock(&self.0.fault), None);
    }

    /// The fault that is set.
    #[must_use]
    pub fn get(&self) -> Option<InjectedFault> {
        self.current().map(|set| set.fault)
    }

    /// How many calls were struck since the start; for reports of what was injected.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.0.struck.load(Ordering::Relaxed)
    }

    /// Does what the fault says, on this thread; to be asked before each call.
    ///
    /// # Errors
    /// The call shall fail.
    ///
    /// # Panics
    /// When the fault says so.
    pub fn strike(&self) -> Result<(), Injected> {
        self.strike_within(Duration::MAX)
    }

    /// As [`strike`](Self::strike), for a call that is given up after `limit`: one that would hang or
    /// take longer fails then, as a call that reached its own timeout does.
    ///
    /// # Errors
    /// The call shall fail.
    ///
    /// # Panics
    /// When the fault says so.
    pub fn strike_within(&self, limit: Duration) -> Result<(), Injected> {
        if self.0.armed.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let clock = &self.0.clock;
        let Some(Set { fault, since, .. }) = self.current() else { return Ok(()) };
        self.0.struck.fetch_add(1, Ordering::Relaxed);
        match fault {
            InjectedFault::Error => Err(Injected),
            InjectedFault::Panic => panic!("injected panic"),
            InjectedFault::Slow(time) => {
                clock.pause(time.min(limit));
                if time > limit { Err(Injected) } else { Ok(()) }
            }
            InjectedFault::Hang => {
                let begun = clock.now();
                while self.get() == Some(InjectedFault::Hang) {
                    let left = limit.saturating_sub(clock.now().since(begun));
                    if left.is_zero() {
                        return Err(Injected);
                    }
                    clock.pause(LOOK_EVERY.min(left));
                }
                Ok(())
            }
            InjectedFault::Flap(period) => {
                let period = period.as_nanos().max(1);
                let passed = clock.now().since(since).as_nanos();
                let failing = (passed / period).is_multiple_of(2);
                if failing { Err(Injected) } else { Ok(()) }
            }
        }
    }

    fn current(&self) -> Option<Set> {
        let mut fault = lock(&self.0.fault);
        let is_over = |set: &Set| set.until.is_some_and(|until| until <= self.0.clock.now());
        if fault.as_ref().is_some_and(is_over) {
            self.0.put(&mut fault, None);
        }
        *fault
    }
}

impl Point {
    /// Puts `set` in the place of `fault`, whose lock is held.
    fn put(&self, fault: &mut Option<Set>, set: Option<Set>) {
        self.armed.store(u64::from(set.is_some()), Ordering::Release);
        *fault = set;
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_fault_strikes_until_it_is_cleared_or_over() {
        let point = FaultPoint::new();
        assert_eq!(point.strike(), Ok(()));
        point.set(InjectedFault::Error, None);
        assert_eq!(point.strike(), Err(Injected));
        point.clear();
        assert_eq!(point.strike(), Ok(()));
        point.set(InjectedFault::Hang, Some(Duration::ZERO));
        assert_eq!((point.strike(), point.get()), (Ok(()), None), "it is over already");
        point.set(InjectedFault::Flap(Duration::from_secs(3_600)), None);
        assert_eq!(point.strike(), Err(Injected));
        assert_eq!(point.struck(), 2);
    }

    #[test]
    fn who_hangs_goes_on_when_the_fault_is_taken_back() {
        let point = FaultPoint::new();
        point.set(InjectedFault::Hang, None);
        let hanging = point.clone();
        let call = std::thread::spawn(move || hanging.strike());
        while point.struck() == 0 {
            std::thread::yield_now();
        }
        point.clear();
        assert_eq!(call.join().ok(), Some(Ok(())));
    }

    #[test]
    fn a_fault_lasts_flaps_and_holds_calls_by_the_clock_of_its_point() {
        let manual = ManualClock::new();
        let point = FaultPoint::on_clock(manual.clock());
        let (second, began) = (Duration::from_secs(1), manual.now());
        let passed = || manual.now().since(began);
        point.set(InjectedFault::Slow(second), None);
        assert_eq!((point.strike(), passed()), (Ok(()), second));
        point.set(InjectedFault::Hang, None);
        assert_eq!((point.strike_within(second), passed()), (Err(Injected), 2 * second));
        point.set(InjectedFault::Hang, Some(second));
        assert_eq!((point.strike(), passed()), (Ok(()), 3 * second), "until it is over");
        point.set(InjectedFault::Flap(second), None);
        assert_eq!(point.strike(), Err(Injected));
        manual.advance(second);
        assert_eq!(point.strike(), Ok(()));
        point.set(InjectedFault::Error, Some(second));
        assert_eq!(point.strike(), Err(Injected));
        manual.advance(second);
        assert_eq!((point.strike(), point.get()), (Ok(()), None));
    }
}
