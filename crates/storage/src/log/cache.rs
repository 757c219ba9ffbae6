//! The newest records in memory, so that views that keep up never read the disk.
//!
//! Invariant: what is cached is one unbroken range that ends at the newest durable record.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::frame::RECORD_HEADER_BYTES;
use super::record::Entry;

#[derive(Debug)]
pub(crate) struct Cache {
    bytes_max: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl Cache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    /// Adds durable records, in order; the oldest make room.
    pub(crate) fn push(&self, entries: impl Iterator<Item = Entry>) {
        if self.bytes_max == 0 {
            return;
        }
        let mut inner = self.lock();
        for entry in entries {
            inner.bytes += cost(&entry);
            inner.entries.push_back(entry);
        }
        while inner.bytes > self.bytes_max
            && let Some(oldest) = inner.entries.pop_front()
        {
            inner.bytes -= cost(&oldest);
        }
    }

    /// Records from `from_seq` on, about `bytes_max` of them; `None` if they are not all here.
    pub(crate) fn read(&self, from_seq: u64, bytes_max: u64) -> Option<Vec<Entry>> {
        let inner = self.lock();
        let first = inner.entries.front()?.seq;
        let at = usize::try_from(from_seq.checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in inner.entries.range(at.min(inner.entries.len())..) {
            if bytes >= bytes_max && !found.is_empty() {
                break;
            }
            bytes += entry.payload.len() as u64;
            found.push(entry.clone());
        }
        Some(found)
    }

    /// Forgets everything: the log was rewritten.
    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Entries are pushed and popped whole, so a panic elsewhere leaves a valid cache.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(entry: &Entry) -> u64 {
    (entry.payload.len() + RECORD_HEADER_BYTES + size_of::<Entry>()) as u64
}
