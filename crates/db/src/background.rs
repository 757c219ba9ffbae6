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
    spawn("refine", Box::new(move || crate::refine::run(&inner)))?;
    let inner = Arc::clone(&collection.inner);
    spawn("compact", Box::new(move || crate::compact::run(&inner)))
}
