//! [`Faults`]: where tests and drills make a search method fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_search::method::Method;

/// What a method shall do instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answer with an error.
    Error,
    /// Panic.
    Panic,
    /// Sleep before answering.
    Slow(Duration),
    /// Sleep until the fault is taken back.
    Hang,
}

/// The fault points of all methods. Clones share them. None is set in normal operation; asking
/// costs one uncontended lock for each method and query.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<[Point; 4]>);

#[derive(Debug, Default)]
struct Point {
    fault: Mutex<Option<Fault>>,
    struck: AtomicU64,
}

/// How often a hanging method looks whether its fault was taken back.
const HANG_POLL: Duration = Duration::from_millis(5);

impl Faults {
    /// Sets or takes back (`None`) the fault of a method.
    pub fn set(&self, method: Method, fault: Option<Fault>) {
        *self.0[method as usize].fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// The fault of a method.
    pub fn get(&self, method: Method) -> Option<Fault> {
        *self.0[method as usize].fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a fault of this method has struck; for reports of what was injected.
    pub fn struck(&self, method: Method) -> u64 {
        self.0[method as usize].struck.load(Ordering::Relaxed)
    }

    /// Does what the fault says; `Err` when the method shall answer with an error.
    pub(crate) fn strike(&self, method: Method) -> Result<(), &'static str> {
        let fault = self.get(method);
        if fault.is_some() {
            self.0[method as usize].struck.fetch_add(1, Ordering::Relaxed);
        }
        match fault {
            None => Ok(()),
            Some(Fault::Error) => Err("injected error"),
            Some(Fault::Panic) => panic!("injected panic"),
            Some(Fault::Slow(time)) => {
                std::thread::sleep(time);
                Ok(())
            }
            Some(Fault::Hang) => {
                while self.get(method) == Some(Fault::Hang) {
                    std::thread::sleep(HANG_POLL);
                }
                Ok(())
            }
        }
    }
}
