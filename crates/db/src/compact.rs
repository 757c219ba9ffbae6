//! Compaction of the log: sealed segments are rewritten with only the records that still matter.
//!
//! What may go: the record of a document that no longer lives, and removals of an id that lives
//! again. What stays is enough to rebuild every view, so the log remains the full source
//! of truth. Only records that every view has made durable are touched.

use std::sync::Arc;

use mainstay_storage::LogError;

use crate::collection::Collection;
use crate::driven::number_of;
use crate::engine::Engine;
use crate::error::DbError;
use crate::maintenance::BYTES_PER_SECOND;
use crate::record::Change;

/// Compaction begins when the log holds more than this many records for each document that lives…
const RECORDS_PER_DOCUMENT_MAX: u64 = 2;
/// …and at least this many, so that small collections are left alone.
const RECORDS_MIN: u64 = 10_000;

impl Collection {
    /// Rewrites the log without what no longer matters, now. Answers how many records went.
    pub fn compact(&self) -> Result<u64, DbError> {
        compact(&self.inner)
    }
}

/// Looks from time to time whether compaction pays, until the collection closes.
pub(crate) fn run(inner: &Arc<Engine>) {
    let interval = inner.options.compact_interval;
    if interval.is_zero() {
        return;
    }
    let mut dropped_at = 0;
    while !inner.stopper.wait(interval) {
        let Ok(documents) = inner.documents() else { continue };
        let records = inner.log.durable_seq().saturating_sub(dropped_at);
        let pays = records > RECORDS_MIN && records > RECORDS_PER_DOCUMENT_MAX * documents.count();
        if !pays {
            continue;
        }
        match compact(inner) {
            Ok(dropped) => {
                // What was dropped no longer counts against the log.
                dropped_at = inner.log.durable_seq().saturating_sub(documents.count());
                tracing::info!(collection = inner.name(), dropped, "log compacted");
            }
            Err(error) => tracing::warn!(collection = inner.name(), %error, "log not compacted"),
        }
    }
}

fn compact(inner: &Arc<Engine>) -> Result<u64, DbError> {
    let through = inner.slots.iter().map(|slot| slot.published().checkpointed).min().unwrap_or(0);
    let documents = inner.documents()?;
    let living = documents.living();
    let seen = documents.through();
    let result = inner.log.compact(
        through,
        &mut |entry| {
            if entry.seq > seen || inner.stop_work.is_set() {
                return true;
            }
            match Change::decode(entry.kind, &entry.payload) {
                Ok(Change::Put(_)) => living.contains(number_of(entry.seq)),
                // A removal must outlive every record of its document that is still in the log, and
                // segments may be left as they are: it goes only when a later document took the id.
                Ok(Change::Delete(id)) => !documents
                    .number_of(&id)
                    .is_ok_and(|now| now.is_some_and(|now| u64::from(now) > entry.seq)),
                // What this version cannot read is not its to throw away.
                Err(_) => true,
            }
        },
        BYTES_PER_SECOND,
    );
    match result {
        Ok(compaction) => Ok(compaction.records_dropped),
        Err(LogError::CompactionRunning) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
