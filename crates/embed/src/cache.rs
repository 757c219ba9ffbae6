//! Vectors of queries that were asked before.
//!
//! Invariants: the bytes counted never exceed the bound after a call returns; the entry used
//! longest ago goes first; an entry of one model is never returned for another.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::ModelIdentity;

/// What an entry costs besides text and vector: two map entries and two reference counts.
const ENTRY_BYTES: usize = 160;

/// An entry over this share of the bound is not kept, so that one long query does not drive out
/// many short ones.
const ENTRY_SHARE: usize = 8;

/// A bounded cache of query vectors, safe to share between threads.
#[derive(Debug)]
pub struct QueryCache {
    entries: Mutex<Entries>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What a cache did and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheCounters {
    /// Look-ups that found a vector.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
    /// Vectors held.
    pub entries: usize,
    /// Bytes held, an estimate that counts texts, vectors and their administration.
    pub bytes: usize,
    /// The bound.
    pub bytes_max: usize,
}

#[derive(Debug)]
struct Entries {
    by_key: HashMap<Arc<Key>, Entry>,
    /// Keys by the time of their last use.
    by_use: BTreeMap<u64, Arc<Key>>,
    uses: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    sha256: Arc<str>,
    text: Box<str>,
}

#[derive(Debug)]
struct Entry {
    vector: Arc<[f32]>,
    used: u64,
}

impl QueryCache {
    /// An empty cache of at most `bytes_max` bytes; 0 keeps nothing.
    pub fn new(bytes_max: usize) -> Self {
        let entries = Entries {
            by_key: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            bytes_max,
        };
        Self { entries: Mutex::new(entries), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The vector that `model` gave for the query `text`.
    pub fn get(&self, model: &ModelIdentity, text: &str) -> Option<Arc<[f32]>> {
        let found = self.lock().get(&Key::new(model, text));
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        let result = if found.is_some() { "hit" } else { "miss" };
        metrics::counter!("mainstay_cache_requests_total", "cache" => "query_vectors", "result" => result)
            .increment(1);
        found
    }

    /// Keeps `vector` as what `model` gave for the query `text`.
    pub fn put(&self, model: &ModelIdentity, text: &str, vector: Arc<[f32]>) {
        self.lock().put(Key::new(model, text), vector);
    }

    /// Changes the bound and drops what is over it; 0 empties the cache, as under memory pressure.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        let mut entries = self.lock();
        entries.bytes_max = bytes_max;
        entries.shrink();
    }

    /// What the cache did and holds.
    pub fn counters(&self) -> CacheCounters {
        let entries = self.lock();
        CacheCounters {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: entries.by_key.len(),
            bytes: entries.bytes,
            bytes_max: entries.bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // No code that runs under the lock panics half-way through a change.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn new(model: &ModelIdentity, text: &str) -> Self {
        Self { sha256: model.sha256.as_str().into(), text: text.into() }
    }

    fn bytes(&self, vector: &[f32]) -> usize {
        self.sha256.len() + self.text.len() + size_of_val(vector) + ENTRY_BYTES
    }
}

impl Entries {
    fn get(&mut self, key: &Key) -> Option<Arc<[f32]>> {
        let entry = self.by_key.get_mut(key)?;
        if let Some(key) = self.by_use.remove(&entry.used) {
            self.uses += 1;
            entry.used = self.uses;
            self.by_use.insert(self.uses, key);
        }
        Some(Arc::clone(&entry.vector))
    }

    fn put(&mut self, key: Key, vector: Arc<[f32]>) {
        let bytes = key.bytes(&vector);
        if bytes > self.bytes_max / ENTRY_SHARE {
            return;
        }
        self.remove(&key);
        self.uses += 1;
        let key = Arc::new(key);
        self.by_use.insert(self.uses, Arc::clone(&key));
        self.by_key.insert(key, Entry { vector, used: self.uses });
        self.bytes += bytes;
        self.shrink();
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.by_key.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= key.bytes(&entry.vector);
        }
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max {
            let Some((_, key)) = self.by_use.pop_first() else { break };
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::embedder::Embedder;
    use crate::hash_model::HashModel;
    use proptest::prelude::*;

    fn model(seed: u64) -> ModelIdentity {
        HashModel::new(4, seed).identity().clone()
    }

    fn vector(number: f32) -> Arc<[f32]> {
        vec![number; 4].into()
    }

    /// Bytes of an entry with a text of one character.
    const ENTRY: usize = 64 + 1 + 16 + ENTRY_BYTES;

    #[test]
    fn the_entry_used_longest_ago_goes_first() {
        let cache = QueryCache::new(8 * ENTRY);
        let names: Vec<String> = ('a'..='i').map(String::from).collect();
        for name in &names[..8] {
            cache.put(&model(1), name, vector(1.0));
        }
        assert!(cache.get(&model(1), "a").is_some());
        cache.put(&model(1), &names[8], vector(1.0));
        assert!(cache.get(&model(1), "a").is_some());
        assert!(cache.get(&model(1), "b").is_none());
        let counters = cache.counters();
        assert_eq!((counters.hits, counters.misses, counters.entries), (2, 1, 8));
        assert_eq!(counters.bytes, 8 * ENTRY);
    }

    #[test]
    fn models_do_not_see_each_others_vectors() {
        let cache = QueryCache::new(1 << 20);
        cache.put(&model(1), "a", vector(1.0));
        assert_eq!(cache.get(&model(2), "a"), None);
        assert_eq!(cache.get(&model(1), "a"), Some(vector(1.0)));
    }

    #[test]
    fn a_text_put_twice_is_held_once_with_the_last_vector() {
        let cache = QueryCache::new(1 << 20);
        cache.put(&model(1), "a", vector(1.0));
        cache.put(&model(1), "a", vector(2.0));
        assert_eq!(cache.get(&model(1), "a"), Some(vector(2.0)));
        assert_eq!((cache.counters().entries, cache.counters().bytes), (1, ENTRY));
    }

    #[test]
    fn a_bound_of_zero_empties_the_cache_and_keeps_nothing() {
        let cache = QueryCache::new(1 << 20);
        cache.put(&model(1), "a", vector(1.0));
        cache.set_bytes_max(0);
        cache.put(&model(1), "b", vector(1.0));
        assert_eq!((cache.counters().entries, cache.counters().bytes), (0, 0));
    }

    proptest! {
        /// O2, S8: whatever is put and asked, the count is exact and below the bound.
        #[test]
        fn the_bytes_counted_are_those_held_and_within_the_bound(
            actions in proptest::collection::vec((0..3u8, "[a-z]{0,40}"), 0..200)
        ) {
            let cache = QueryCache::new(16 * ENTRY);
            for (action, text) in actions {
                match action {
                    0 => { cache.get(&model(1), &text); }
                    1 => cache.put(&model(1), &text, vector(1.0)),
                    _ => cache.set_bytes_max((text.len() + 1) * ENTRY),
                }
                let entries = cache.lock();
                let held: usize =
                    entries.by_key.iter().map(|(key, entry)| key.bytes(&entry.vector)).sum();
                prop_assert_eq!(held, entries.bytes);
                prop_assert!(entries.bytes <= entries.bytes_max);
                prop_assert_eq!(entries.by_key.len(), entries.by_use.len());
            }
        }
    }
}
