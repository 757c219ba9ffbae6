//! The server's searches of itself: open-loop, on a schedule that does not wait for slow answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_db::{Db, SearchRequest};
use mainstay_ops::slo::ProbeLedger;
use mainstay_resilience::{Clock, ConfigError};

/// Asks one collection after the other for one hit, one at each time: the answers of all of them in
/// one would take the longer the more there are. The words are those of no one's documents in
/// particular: what counts is that an answer comes.
pub(super) struct Probes {
    db: Arc<Db>,
    /// Probes made, which says whose turn it is.
    turn: AtomicUsize,
    ledger: ProbeLedger,
    timeout: Duration,
}

impl Probes {
    pub(super) fn new(
        db: Arc<Db>,
        clock: Clock,
        every: Duration,
        timeout: Duration,
    ) -> Result<Self, ConfigError> {
        let ledger = ProbeLedger::new(clock, every, timeout)?;
        Ok(Self { db, turn: AtomicUsize::new(0), ledger, timeout })
    }

    pub(super) fn ledger(&self) -> ProbeLedger {
        self.ledger.clone()
    }

    /// Makes the probe that is due, if one is. A probe that hangs longer than its slot makes the
    /// next ones missed, and those count as bad.
    pub(super) fn look(&self) {
        let Some(probe) = self.ledger.due() else { return };
        probe.finish(self.is_answered());
    }

    /// A collection that cannot be opened answers nobody, whoever's turn it is.
    fn is_answered(&self) -> bool {
        if let Some((collection, error)) = self.db.broken().into_iter().next() {
            tracing::warn!(collection, %error, "a collection cannot be opened, so probes are bad");
            return false;
        }
        let collections = self.db.collections();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(collection) = collections.get(turn % collections.len().max(1)) else {
            return true;
        };
        let request = SearchRequest {
            limit: 1,
            timeout: self.timeout,
            snippet_bytes: 0,
            ..SearchRequest::new("mainstay probe")
        };
        match collection.search(&request) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(collection = collection.name(), %error, "a probe was not answered");
                false
            }
        }
    }
}
