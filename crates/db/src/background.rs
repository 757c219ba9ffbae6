//! Starting what runs behind a collection: a driver for each view, refinement, compaction.

use std::sync::{Arc, PoisonError};
use std::thread;

use crate::collection::Collection;
use crate::driver::Driver;
use crate::error::DbError;

/// The nice value of work in the background: a tenth of the processor's time beside busy searches.
#[cfg(target_os = "linux")]
const BACKGROUND_NICE: i32 = 10;

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
        yield_to_searches();
        crate::refine::run(&inner);
    };
    spawn("refine", Box::new(refine))?;
    let inner = Arc::clone(&collection.inner);
    let compact = move || {
        yield_to_searches();
        crate::compact::run(&inner);
    };
    spawn("compact", Box::new(compact))
}

/// Lowers the priority of the calling thread, so that work nobody waits for takes the processor
/// time that searches and writes leave: a merge under way cost searches a third of their speed.
pub(crate) fn yield_to_searches() {
    // Only on Linux is a nice value a thread's own; elsewhere it would slow down the whole process.
    // A refusal leaves the priority as it was, which is no fault.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, BACKGROUND_NICE);
}
