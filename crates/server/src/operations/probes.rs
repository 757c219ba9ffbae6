//! The server's searches of itself: open-loop, on a schedule that does not wait for slow answers.

use std::sync::Arc;
use std::time::Duration;

use mainstay_db::{Db, SearchRequest};
use mainstay_ops::slo::ProbeLedger;
use mainstay_resilience::{Clock, ConfigError};

/// Asks each collection for one hit. The words are those of no one's documents in particular: what
/// counts is that an answer comes.
pub(super) struct Probes {
    db: Arc<Db>,
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
        Ok(Self { db, ledger: ProbeLedger::new(clock, every, timeout)?, timeout })
    }

    pub(super) fn ledger(&self) -> ProbeLedger {
        self.ledger.clone()
    }

    /// Makes the probe that is due, if one is. A probe that hangs longer than its slot makes the
    /// next ones missed, and those count as bad.
    pub(super) fn look(&self) {
        let Some(probe) = self.ledger.due() else { return };
        probe.finish(self.all_answer());
    }

    fn all_answer(&self) -> bool {
        let request = SearchRequest {
            limit: 1,
            timeout: self.timeout,
            snippet_bytes: 0,
            ..SearchRequest::new("mainstay probe")
        };
        let unanswered = self.db.collections().into_iter().find_map(|collection| {
            let error = collection.search(&request).err()?;
            Some((collection.name().to_string(), error))
        });
        match unanswered {
            None => true,
            Some((collection, error)) => {
                tracing::warn!(collection, %error, "a probe was not answered");
                false
            }
        }
    }
}
