//! Starting what runs behind a collection: a driver for each view, refinement, compaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use crate::collection::Collection;
use crate::driver::Driver;
use crate::error::DbError;
use crate::stopper::Stopper;

/// How long a piece of work that panicked rests before it begins anew.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Starts a collection's threads; they end when it is closed.
pub(crate) fn start(collection: &Collection) -> Result<(), DbError> {
    let mut threads = collection.inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
    let mut spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name.to_string()).spawn(run);
        thread
            .map(|thread| threads.push(thread))
            .map_err(DbError::io("start a thread for", &collection.inner.folder))
    };
    for slot in &collection.inner.slots {
        let driver = Driver::new(Arc::clone(&collection.inner), Arc::clone(slot));
        spawn(slot.kind.name(), Box::new(move || driver.run()))?;
    }
    let inner = Arc::clone(&collection.inner);
    let refine = move || {
        crate::priority::yield_to_searches();
        supervise("refine", RESTART_AFTER, &inner.stopper, &inner.restarts, || {
            crate::refine::run(&inner)
        });
    };
    spawn("refine", Box::new(refine))?;
    let inner = Arc::clone(&collection.inner);
    let compact = move || {
        crate::priority::yield_to_searches();
        supervise("compact", RESTART_AFTER, &inner.stopper, &inner.restarts, || {
            crate::compact::run(&inner)
        });
    };
    spawn("compact", Box::new(compact))
}

/// Runs work that ends when it is asked to; when it panics instead, it is counted and begun anew, so
/// that one bad record does not end compaction until the next start of the process.
fn supervise(
    name: &str,
    rest: Duration,
    stopper: &Stopper,
    restarts: &AtomicU64,
    mut work: impl FnMut(),
) {
    while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
        restarts.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("mainstay_worker_restarts_total", "worker" => name.to_string())
            .increment(1);
        tracing::error!(worker = name, "background work panicked; it begins anew");
        if stopper.wait(rest) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D5: dead background work is begun anew until it ends as it should, or the end is asked for.
    #[test]
    fn work_that_panics_begins_anew_until_it_ends() {
        let (stopper, restarts) = (Stopper::default(), AtomicU64::new(0));
        let mut runs = 0;
        supervise("test", Duration::ZERO, &stopper, &restarts, || {
            runs += 1;
            assert!(runs > 3, "one of three injected panics");
        });
        assert_eq!((runs, restarts.load(Ordering::Relaxed)), (4, 3));
        stopper.stop();
        supervise("test", Duration::MAX, &stopper, &restarts, || panic!("injected"));
        assert_eq!(restarts.load(Ordering::Relaxed), 4);
    }
}
