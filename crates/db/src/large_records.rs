//! Large records are read and applied by one view at a time.
//!
//! A view needs many times the memory of a record while it applies it, and five views would need it
//! at the same moment, whatever requests have reserved. A view that hangs cannot hold the others up
//! for ever: after [`WAIT_MAX`] they go on without their turn, because late is better than never.

use std::time::{Duration, Instant};

use mainstay_resilience::{Bulkhead, BulkheadConfig, BulkheadPermit, Priority, QueueOrder};
use mainstay_storage::log::Batch;
use mainstay_storage::{Log, LogError};

use crate::stopper::Stopper;

/// From this many bytes on a record is large; so is a batch while memory is short.
const LARGE_BYTES: usize = 4 << 20;
/// How long a view waits for its turn at most.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often a waiting view looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Views that may wait: more than any process has.
const WAITING_MAX: u32 = 1_000_000;

/// The turns of a process. Clones share them.
#[derive(Clone)]
pub(crate) struct LargeRecords(Bulkhead);

/// One view's turn; the next one follows when it is dropped.
pub(crate) type Turn<'a> = BulkheadPermit<'a>;

impl LargeRecords {
    pub(crate) fn new() -> Self {
        let config = BulkheadConfig::new(1).with_queue(WAITING_MAX, LOOK_EVERY, QueueOrder::Fifo);
        Self(Bulkhead::new("large_records", config).expect("constants within their ranges"))
    }

    /// Reads the next batch, and when there is a large record in it, with the turn for it.
    pub(crate) fn read(
        &self,
        log: &Log,
        from_seq: u64,
        bytes_max: u64,
        memory_is_short: bool,
        stopper: &Stopper,
    ) -> Result<(Batch, Option<Turn<'_>>), LogError> {
        let batch = log.read_batch(from_seq, bytes_max)?;
        if !is_large(&batch, memory_is_short) {
            return Ok((batch, None));
        }
        // Nothing is held while others have their turn.
        drop(batch);
        let turn = self.wait(|| stopper.is_set());
        Ok((log.read_batch(from_seq, bytes_max)?, turn))
    }

    fn wait(&self, is_ending: impl Fn() -> bool) -> Option<Turn<'_>> {
        let since = Instant::now();
        loop {
            if let Ok(turn) = self.0.acquire_blocking(Priority::Normal) {
                return Some(turn);
            }
            if is_ending() {
                return None;
            }
            if since.elapsed() >= WAIT_MAX {
                tracing::warn!(
                    waited_s = WAIT_MAX.as_secs(),
                    "a large record is applied without its turn: another view has not ended its own; \
                     mainstay_view_lag_records shows which"
                );
                return None;
            }
        }
    }
}

fn is_large(batch: &Batch, is_short: bool) -> bool {
    let mut sizes = batch.entries.iter().map(|entry| entry.payload.len());
    match is_short {
        true => sizes.sum::<usize>() >= LARGE_BYTES,
        false => sizes.any(|bytes| bytes >= LARGE_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use mainstay_storage::Entry;

    use super::*;

    fn batch(sizes: &[usize]) -> Batch {
        let entry = |bytes: &usize| Entry { seq: 1, kind: 1, payload: vec![0; *bytes].into() };
        Batch { entries: sizes.iter().map(entry).collect(), next_seq: 2 }
    }

    /// O2
    #[test]
    fn a_record_is_large_by_itself_and_a_batch_while_memory_is_short() {
        let half = LARGE_BYTES / 2;
        for (sizes, is_short, large) in [
            (&[][..], true, false),
            (&[half, half], false, false),
            (&[half, half], true, true),
            (&[half - 1, half], true, false),
            (&[1, LARGE_BYTES], false, true),
        ] {
            assert_eq!(is_large(&batch(sizes), is_short), large, "{sizes:?} {is_short}");
        }
    }

    /// O2, O6: one at a time; whoever is to end does not wait for its turn.
    #[test]
    fn the_next_turn_begins_when_one_ends_and_the_end_waits_for_none() {
        let records = LargeRecords::new();
        let first = records.wait(|| false).expect("nobody has a turn");
        assert!(records.wait(|| true).is_none());
        let had_turn = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| {
                let turn = records.clone().wait(|| false).is_some();
                had_turn.store(turn, Ordering::SeqCst);
            });
            while records.0.waiting() == 0 {
                std::thread::yield_now();
            }
            assert!(!had_turn.load(Ordering::SeqCst));
            drop(first);
            next.join().expect("it does not panic");
        });
        assert!(had_turn.load(Ordering::SeqCst));
    }
}
