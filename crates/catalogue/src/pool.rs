//! A pool of connections that measures how long one is waited for, and throws away a connection whose
//! call did not end.
//!
//! Invariants: a connection goes back to the pool only when the database has answered the call that
//! used it; a call that was cancelled or lost its connection closes it at once, so that a database
//! that hangs cannot hold places in the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay_resilience::CallFigures;
use serde::Serialize;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

use crate::fault::Fault;

/// The pool's name in metrics.
const POOL: &str = "catalogue";

/// How the pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PoolFigures {
    /// Connections that are open.
    pub open: u32,
    /// Connections that calls use now.
    pub in_use: u32,
    /// The bound.
    pub max: u32,
    /// Connections that were handed out since the start.
    pub acquired: u64,
    /// Calls that got none in time.
    pub timeouts: u64,
    /// Connections that were thrown away because their call did not end.
    pub discarded: u64,
    /// Half of the latest calls waited at most this long for a connection, in milliseconds.
    pub acquire_p50_ms: f64,
    /// The same for 99 of a hundred.
    pub acquire_p99_ms: f64,
}

impl PoolFigures {
    /// The share of the bound that is in use, 0 to 1.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        f64::from(self.in_use) / f64::from(self.max.max(1))
    }
}

#[derive(Debug, Default)]
struct Counts {
    acquire: CallFigures,
    discarded: AtomicU64,
}

/// The pool.
pub(crate) struct Measured<DB: Database> {
    pool: Pool<DB>,
    max: u32,
    counts: Arc<Counts>,
}

impl<DB: Database> Measured<DB> {
    pub(crate) fn new(pool: Pool<DB>) -> Self {
        let max = pool.options().get_max_connections();
        metrics::gauge!("mainstay_pool_connections_max", "pool" => POOL).set(f64::from(max));
        Self { pool, max, counts: Arc::default() }
    }

    fn in_use(&self) -> (u32, u32) {
        let open = self.pool.size();
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(open);
        (open, open.saturating_sub(idle))
    }

    fn show(&self) {
        let (open, in_use) = self.in_use();
        let gauge = |state: &'static str, count: u32| {
            metrics::gauge!("mainstay_pool_connections", "pool" => POOL, "state" => state)
                .set(f64::from(count));
        };
        gauge("in_use", in_use);
        gauge("idle", open.saturating_sub(in_use));
        metrics::gauge!("mainstay_pool_utilisation_ratio", "pool" => POOL)
            .set(f64::from(in_use) / f64::from(self.max.max(1)));
    }

    pub(crate) fn figures(&self) -> PoolFigures {
        let (open, in_use) = self.in_use();
        let acquire = self.counts.acquire.snapshot();
        let ms = |time: Option<Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        PoolFigures {
            open,
            in_use,
            max: self.max,
            acquired: acquire.calls - acquire.failures,
            timeouts: acquire.failures,
            discarded: self.counts.discarded.load(Ordering::Relaxed),
            acquire_p50_ms: ms(acquire.p50),
            acquire_p99_ms: ms(acquire.p99),
        }
    }

    /// A connection that has just answered, or is new.
    pub(crate) async fn checkout(&self) -> Result<Checkout<'_, DB>, Fault> {
        let began = Instant::now();
        let acquired = self.pool.acquire().await;
        let took = began.elapsed();
        metrics::histogram!("mainstay_pool_acquire_duration_seconds", "pool" => POOL)
            .record(took.as_secs_f64());
        match acquired {
            Ok(connection) => {
                self.counts.acquire.succeeded(took);
                self.show();
                Ok(Checkout { connection: Some(connection), pool: self, sound: false })
            }
            Err(error) => {
                self.counts.acquire.failed(took, &error);
                metrics::counter!("mainstay_pool_timeouts_total", "pool" => POOL).increment(1);
                Err(match error {
                    sqlx::Error::PoolTimedOut => {
                        Fault::NoConnection { open: self.pool.size(), bound: self.max }
                    }
                    other => Fault::Driver(other),
                })
            }
        }
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// A connection in use.
pub(crate) struct Checkout<'a, DB: Database> {
    connection: Option<PoolConnection<DB>>,
    pool: &'a Measured<DB>,
    sound: bool,
}

impl<DB: Database> Checkout<'_, DB> {
    pub(crate) fn connection(&mut self) -> Result<&mut PoolConnection<DB>, Fault> {
        self.connection.as_mut().ok_or(Fault::Driver(sqlx::Error::PoolClosed))
    }

    /// Gives it back, or throws it away when the call has shown that it is of no more use.
    pub(crate) fn finish<T>(mut self, result: &Result<T, Fault>) {
        self.sound = result.as_ref().err().is_none_or(Fault::leaves_connection_sound);
    }
}

impl<DB: Database> Drop for Checkout<'_, DB> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        // The pool asks the other side once more before it takes a connection back, and would wait
        // for ever on one that has just stopped answering: the place would stay taken.
        let bound = self.pool.pool.options().get_acquire_timeout();
        let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| self.sound);
        if let Some(runtime) = runtime {
            let back = connection.return_to_pool();
            runtime.spawn(async move { drop(tokio::time::timeout(bound, back).await) });
        } else {
            // Detached it no longer counts in the pool, and dropped it closes its socket without
            // asking the other side, which may not answer.
            drop(connection.detach());
            self.pool.counts.discarded.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("mainstay_pool_discarded_total", "pool" => POOL).increment(1);
        }
        self.pool.show();
    }
}
