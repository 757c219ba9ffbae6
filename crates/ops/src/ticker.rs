//! A thread that does one thing at a fixed rate until it is dropped.
//!
//! Guards and registries here do their periodic work in a `tick` that anybody may call; a ticker is
//! the one who calls it in a running process.

use crate::lock::lock;
use mainstay_resilience::ConfigError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Calls a closure at a fixed rate. Dropping it waits for the call in progress.
pub struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Calls `tick` now and then every `every` (10 ms to 1 h) after the last call ended. A call
    /// that panics is logged, and the next one is made all the same.
    ///
    /// # Errors
    /// A rate out of range, or no thread to be had.
    pub fn start(
        name: &str,
        every: Duration,
        mut tick: impl FnMut() + Send + 'static,
    ) -> Result<Self, ConfigError> {
        if every < Duration::from_millis(10) || every > Duration::from_secs(3_600) {
            let shown = mainstay_resilience::human_duration::format(every);
            return Err(ConfigError::new(format!("{name}.every"), shown, "10ms to 1h"));
        }
        let stop: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let (seen, named) = (Arc::clone(&stop), name.to_owned());
        let ticking = move || {
            let mut stopped = lock(&seen.0);
            while !*stopped {
                drop(stopped);
                if catch_unwind(AssertUnwindSafe(&mut tick)).is_err() {
                    tracing::error!(ticker = named, "a tick panicked");
                }
                let waited = seen.1.wait_timeout_while(lock(&seen.0), every, |stopped| !*stopped);
                stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(ticking).map_err(|error| {
                ConfigError::new(format!("{name}.every"), error, "a machine with a free thread")
            })?;
        Ok(Ticker { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *lock(&self.stop.0) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // What a tick's panic meant was logged when it happened.
            let _ = thread.join();
        }
    }
}
