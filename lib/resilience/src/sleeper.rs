//! Waiting without blocking, left to whichever runtime there is.

use std::time::Duration;

/// Makes futures that end after a while. Implemented for tokio behind the feature `tokio` and for
/// virtual time behind `testing`; a few lines for any other runtime.
pub trait Sleeper: Send + Sync {
    /// The future; dropping it cancels the wait.
    type Sleep: Future<Output = ()> + Send;

    /// A future that ends after `wait`. Created only when a wait is really needed: an operation
    /// that is ready at its first poll under a timeout costs no timer.
    fn sleep(&self, wait: Duration) -> Self::Sleep;
}

/// Stands where no runtime is known: pipelines with it run blocking only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSleeper;

/// Waits on tokio's timer. Needs a runtime with time enabled.
#[cfg(feature = "tokio")]
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioSleeper;

#[cfg(feature = "tokio")]
impl Sleeper for TokioSleeper {
    type Sleep = tokio::time::Sleep;

    fn sleep(&self, wait: Duration) -> Self::Sleep {
        tokio::time::sleep(wait)
    }
}
