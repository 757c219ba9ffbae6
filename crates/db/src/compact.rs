//! Compaction of the log: sealed segments are rewritten with only the records that still matter.
//!
//! What may go: the record of a document that no longer lives; removals of an id that lives again;
//! and, once there are many and no record of their documents is left, all other removals. What stays
//! is enough to rebuild every view, so the log remains the full source of truth. Only records that
//! every view has made durable are touched.

use std::sync::Arc;

use mainstay_search::documents::DocumentsSnapshot;
use mainstay_storage::LogError;
use mainstay_storage::log::Entry;

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
/// Removals whose ids do not live go when there is more than one for so many living documents.
const REMOVALS_ONE_IN: u64 = 4;

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
    match Pass::begin(inner)?.run() {
        Ok(dropped) => Ok(dropped),
        Err(LogError::CompactionRunning) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// What one compaction knows.
struct Pass<'a> {
    inner: &'a Engine,
    documents: Arc<DocumentsSnapshot>,
    /// Every view has made the records up to here durable.
    through: u64,
}

/// What a record is worth.
#[derive(PartialEq, Eq)]
enum Worth {
    Needed,
    Dead,
    /// The removal of an id that does not live.
    Removal,
}

impl<'a> Pass<'a> {
    fn begin(inner: &'a Engine) -> Result<Self, DbError> {
        let through =
            inner.slots.iter().map(|slot| slot.published().checkpointed).min().unwrap_or(0);
        Ok(Self { inner, documents: inner.documents()?, through })
    }

    /// Answers how many records went.
    fn run(&self) -> Result<u64, LogError> {
        let log = &self.inner.log;
        let mut removals = 0;
        let mut keep = |entry: &Entry| {
            let worth = self.worth(entry);
            removals += u64::from(worth == Worth::Removal);
            worth != Worth::Dead
        };
        let first = log.compact(self.through, &mut keep, BYTES_PER_SECOND)?;
        let mut dropped = first.records_dropped;
        if removals * REMOVALS_ONE_IN <= self.documents.count() || self.stopped() {
            return Ok(dropped);
        }
        // A removal must outlive every record of its document, or a rebuild would bring it back. So
        // all of those go first, durably, and then the removals.
        let mut keep = |entry: &Entry| self.worth(entry) != Worth::Dead;
        dropped += log.compact_fully(self.through, &mut keep, BYTES_PER_SECOND)?.records_dropped;
        if self.stopped() {
            return Ok(dropped);
        }
        let mut keep = |entry: &Entry| self.worth(entry) == Worth::Needed;
        dropped += log.compact_fully(self.through, &mut keep, BYTES_PER_SECOND)?.records_dropped;
        Ok(dropped)
    }

    fn stopped(&self) -> bool {
        self.inner.stop_work.is_set()
    }

    fn worth(&self, entry: &Entry) -> Worth {
        if entry.seq > self.documents.through() || self.stopped() {
            return Worth::Needed;
        }
        match Change::decode(entry.kind, &entry.payload) {
            Ok(Change::Put(_)) if self.documents.living().contains(number_of(entry.seq)) => {
                Worth::Needed
            }
            Ok(Change::Put(_)) => Worth::Dead,
            Ok(Change::Delete(id)) => match self.documents.number_of(&id) {
                Ok(Some(now)) if u64::from(now) > entry.seq => Worth::Dead,
                Ok(None) => Worth::Removal,
                // An earlier document under a later removal, or an index that cannot be read.
                Ok(Some(_)) | Err(_) => Worth::Needed,
            },
            // What this version cannot read is not its to throw away.
            Err(_) => Worth::Needed,
        }
    }
}
