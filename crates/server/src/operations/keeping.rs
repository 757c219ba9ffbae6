//! Where operations keep their state: the database's folder of small pieces, behind their traits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mainstay_db::{Db, StateFiles};
use mainstay_ops::audit::{Audit, AuditEvent, AuditSink};
use mainstay_ops::incidents::Incidents;
use mainstay_ops::memory::Shrinker;
use mainstay_ops::store::{MemoryStore, StateStore};
use mainstay_ops::wall_clock::WallClock;

use crate::sharing::Sharing;

/// The journal that holds the audit trail, one JSON object a line.
const AUDIT: &str = "audit.ndjson";
/// What is read of it at the start: as many events as are shown, at twice their usual length.
const AUDIT_TAIL_BYTES: u64 = 1 << 20;

/// Pieces of state as files.
pub(super) struct Store(pub(super) StateFiles);

impl StateStore for Store {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.load(name)
    }

    fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.save(name, bytes)
    }
}

/// The audit trail of a data directory, going on where the last run has ended. What cannot be read
/// of that, such as a line that a crash cut short, holds up nobody: the file keeps it.
pub(super) fn audit(files: StateFiles, sharing: Option<Arc<Sharing>>, wall: WallClock) -> Audit {
    let lines = files.last_lines(AUDIT, AUDIT_TAIL_BYTES).unwrap_or_else(|error| {
        tracing::error!(%error, "the audit trail of the last run is not shown");
        Vec::new()
    });
    let earlier = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Audit::new(wall, Some(Box::new(Journal(files, sharing)))).going_on_from(earlier)
}

/// The audit trail as a file, and by and by in the catalogue.
struct Journal(StateFiles, Option<Arc<Sharing>>);

impl AuditSink for Journal {
    fn keep(&self, event: &AuditEvent) -> io::Result<()> {
        self.0.append(AUDIT, &serde_json::to_string(event)?)?;
        if let Some(sharing) = &self.1 {
            sharing.keep_audit(event);
        }
        Ok(())
    }
}

/// The cache of embedded queries, as the memory guard sees it.
pub(super) struct QueryCache(pub(super) Arc<Db>);

impl Shrinker for QueryCache {
    fn bytes(&self) -> u64 {
        self.0.figures().query_cache.bytes as u64
    }

    fn shrink(&self, keep: f64) -> u64 {
        self.0.shrink_query_cache(keep)
    }
}

/// What views hold in memory, as the memory guard sees it.
pub(super) struct Unwritten(pub(super) Arc<Db>);

/// How long views keep little in memory after they were asked to.
const SHORT_FOR: Duration = Duration::from_secs(5);

impl Shrinker for Unwritten {
    fn bytes(&self) -> u64 {
        self.0.unwritten_bytes()
    }

    /// Writing takes its time, so nothing is free yet when this returns.
    fn shrink(&self, _keep: f64) -> u64 {
        self.0.write_soon(SHORT_FOR);
        0
    }
}

/// Incidents that were saved; none, and a note in the log, when they cannot be read.
pub(super) fn incidents(store: &Arc<dyn StateStore>) -> Incidents {
    Incidents::open(Arc::clone(store)).unwrap_or_else(|error| {
        tracing::error!(%error, "incidents are kept in memory only");
        Incidents::open(Arc::new(MemoryStore::new())).expect("an empty store can be read")
    })
}
