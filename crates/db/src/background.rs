//! Starting what runs behind a collection: a driver for each view, refinement, compaction.

use std::sync::{Arc, PoisonError};
use std::thread;

use crate::collection::Collection;
use crate::driver::Driver;
use crate::error::DbError;

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
        crate::refine::run(&inner);
    };
    spawn("refine", Box::new(refine))?;
    let inner = Arc::clone(&collection.inner);
    let compact = move || {
        crate::priority::yield_to_searches();
        crate::compact::run(&inner);
    };
    spawn("compact", Box::new(compact))
}
