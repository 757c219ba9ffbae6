//! Where tests and drills make a dependency fail, in the program as it runs in production.
//!
//! Invariant: a fault ends by itself; asking costs one relaxed load while none is set.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
#[derive(Clone, Debug, Default)]
pub struct FaultPoint(Arc<Point>);

#[derive(Debug, Default)]
struct Point {
    armed: AtomicBool,
    fault: Mutex<Option<Set>>,
    struck: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Set {
    fault: InjectedFault,
    since: Instant,
    until: Option<Instant>,
}

impl FaultPoint {
    /// One without a fault.
    #[must_use]
    pub fn new() -> Self {
        FaultPoint::default()
    }

    /// Sets a fault until it is cleared, or for this long.
    pub fn set(&self, fault: InjectedFault, lasting: Option<Duration>) {
        let since = Instant::now();
        let until = lasting.and_then(|lasting| since.checked_add(lasting));
        *self.fault() = Some(Set { fault, since, until });
        self.0.armed.store(true, Ordering::Release);
    }

    /// Takes the fault back.
    pub fn clear(&self) {
        *self.fault() = None;
        self.0.armed.store(false, Ordering::Release);
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
        if !self.0.armed.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(Set { fault, since, .. }) = self.current() else { return Ok(()) };
        self.0.struck.fetch_add(1, Ordering::Relaxed);
        match fault {
            InjectedFault::Error => Err(Injected),
            InjectedFault::Panic => panic!("injected panic"),
            InjectedFault::Slow(time) => {
                std::thread::sleep(time.min(limit));
                if time > limit { Err(Injected) } else { Ok(()) }
            }
            InjectedFault::Hang => {
                let begun = Instant::now();
                while self.get() == Some(InjectedFault::Hang) {
                    let left = limit.saturating_sub(begun.elapsed());
                    if left.is_zero() {
                        return Err(Injected);
                    }
                    std::thread::sleep(LOOK_EVERY.min(left));
                }
                Ok(())
            }
            InjectedFault::Flap(period) => {
                let period = period.as_nanos().max(1);
                let failing = (since.elapsed().as_nanos() / period).is_multiple_of(2);
                if failing { Err(Injected) } else { Ok(()) }
            }
        }
    }

    fn fault(&self) -> MutexGuard<'_, Option<Set>> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Set> {
        let set = (*self.fault())?;
        if set.until.is_some_and(|until| until <= Instant::now()) {
            self.clear();
            return None;
        }
        Some(set)
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

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
}
