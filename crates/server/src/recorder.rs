//! The receiver of metrics that every floor records through the façade.

use std::sync::{Mutex, OnceLock, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
/// Held while a receiver is installed: two callers at once must not both try.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Bounds of duration histograms, in seconds.
const BUCKETS_S: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Receives metrics from now on; once in a process, a second call changes nothing.
///
/// # Errors
/// Another library has installed a receiver.
pub fn install() -> Result<(), BuildError> {
    let _turn = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_string()), BUCKETS_S)?
        .install_recorder()?;
    // It was empty under the lock.
    let _ = HANDLE.set(handle);
    Ok(())
}

/// The receiver's handle, when one is installed.
pub(crate) fn handle() -> Option<PrometheusHandle> {
    HANDLE.get().cloned()
}
