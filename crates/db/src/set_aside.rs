//! [`SetAside`]: records that a view can never apply, kept durably with their error.
//!
//! A record is written here, and durable, before the view goes past it: nothing is skipped in
//! silence. The dead letter queue takes this over; until then the entries are counted and listed.
//!
//! One file per entry, named by view and sequence number: whole or absent after any crash, and
//! removed one by one. The bound keeps a broken view from filling the disk: beyond it the view stops
//! instead of skipping more.

use std::io::Write;

use mainstay_storage::Directory;
use serde::{Deserialize, Serialize};

/// The most entries of one view. A view that refuses more than this is broken, not unlucky.
pub const SET_ASIDE_MAX: usize = 10_000;

/// A record that a view can never apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAsideEntry {
    /// `documents` or a method's name.
    pub view: String,
    /// The record's sequence number in the log, where it stays.
    pub seq: u64,
    /// The document's id, where the record could be read that far.
    pub id: String,
    /// Why the view refused it.
    pub error: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// All entries of one collection.
pub(crate) struct SetAside {
    directory: Directory,
    entries: std::sync::Mutex<Vec<SetAsideEntry>>,
}

impl SetAside {
    /// Reads the entries in a folder. An unreadable one is kept as an entry that says so.
    pub(crate) fn open(directory: Directory) -> std::io::Result<Self> {
        let mut entries = Vec::new();
        for name in directory.list()? {
            let bytes = directory.open_file(&name)?;
            entries.push(serde_json::from_slice(&bytes).unwrap_or_else(|e| SetAsideEntry {
                view: name.split('-').next().unwrap_or_default().to_string(),
                seq: name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default(),
                id: String::new(),
                error: format!("its note is unreadable: {e}"),
                at_ms: 0,
            }));
        }
        Ok(Self { directory, entries: std::sync::Mutex::new(entries) })
    }

    /// Records an entry; durable when it returns.
    pub(crate) fn add(&self, entry: SetAsideEntry) -> std::io::Result<()> {
        if self.of(&entry.view) >= SET_ASIDE_MAX {
            return Err(std::io::Error::other(format!(
                "view {} has set aside {SET_ASIDE_MAX} records, which is the bound; \
                 look at their errors and rebuild the view",
                entry.view
            )));
        }
        let mut file = self.directory.create(&format!("{}-{}", entry.view, entry.seq))?;
        file.write_all(&serde_json::to_vec(&entry).map_err(std::io::Error::other)?)?;
        file.finish()?;
        let mut entries = self.lock();
        entries.retain(|old| (&old.view, old.seq) != (&entry.view, entry.seq));
        entries.push(entry);
        Ok(())
    }

    /// Forgets the entries of a view, before it is rebuilt.
    pub(crate) fn clear(&self, view: &str) -> std::io::Result<()> {
        let mut entries = self.lock();
        for entry in entries.iter().filter(|entry| entry.view == view) {
            self.directory.remove(&format!("{}-{}", entry.view, entry.seq))?;
        }
        entries.retain(|entry| entry.view != view);
        self.directory.sync()
    }

    /// How many entries a view has.
    pub(crate) fn of(&self, view: &str) -> usize {
        self.lock().iter().filter(|entry| entry.view == view).count()
    }

    /// Whether a view has set this record aside.
    pub(crate) fn contains(&self, view: &str, seq: u64) -> bool {
        self.lock().iter().any(|entry| entry.view == view && entry.seq == seq)
    }

    /// Every entry.
    pub(crate) fn list(&self) -> Vec<SetAsideEntry> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SetAsideEntry>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
