//! A map with a hard bound on its keys: the least recently used goes first.
//!
//! Invariants: `index` and `slots` hold the same keys, the index by their hash; the list from `newest`
//! to `oldest` holds each used slot once; `slots` never grows beyond `capacity`. Two keys of one hash
//! never stand together: the older one goes. Of a million keys, 64 bits of a seeded SipHash make that
//! happen with a chance of 3 in 10^8, and nobody who does not know the seed can bring it about.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

const NONE: u32 = u32::MAX;

/// Passes a hash on as it is.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not reached: the keys of the index are of one integer type.
        self.0 = bytes.iter().fold(self.0, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    hash: u64,
    newer: u32,
    older: u32,
}

/// A map of at most `capacity` keys in order of use.
#[derive(Debug)]
pub(crate) struct BoundedMap<K, V> {
    hasher: RandomState,
    index: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    slots: Vec<Slot<K, V>>,
    newest: u32,
    oldest: u32,
    capacity: usize,
}

impl<K: Hash + Eq, V> BoundedMap<K, V> {
    /// A map of at most `capacity` keys, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        BoundedMap::with_hasher(capacity, RandomState::new())
    }

    /// The same, for a caller that hashes its keys with `hasher`.
    pub(crate) fn with_hasher(capacity: usize, hasher: RandomState) -> Self {
        let capacity = capacity.clamp(1, NONE as usize - 1);
        BoundedMap {
            hasher,
            index: HashMap::default(),
            slots: Vec::new(),
            newest: NONE,
            oldest: NONE,
            capacity,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() >= self.capacity
    }

    /// Changes the bound, at least one; what is beyond it goes, the least recently used first.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.clamp(1, NONE as usize - 1);
        while self.slots.len() > self.capacity {
            self.remove_oldest();
        }
    }

    /// The value of `key`, which becomes the most recently used.
    pub(crate) fn touch<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.touch_hashed(self.hasher.hash_one(key), key)
    }

    /// As [`touch`](Self::touch), with the key's hash.
    #[inline]
    pub(crate) fn touch_hashed<Q>(&mut self, hash: u64, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let at = self.find(hash, key)?;
        self.make_newest(at);
        Some(&mut self.slots[at as usize].value)
    }

    /// The value of the key with this hash; its place in the order of use stays.
    pub(crate) fn peek_hashed<Q>(&self, hash: u64, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.find(hash, key).map(|at| &self.slots[at as usize].value)
    }

    /// The value of `key`; its place in the order of use stays.
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.peek_hashed(self.hasher.hash_one(key), key)
    }

    #[inline]
    fn find<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let at = *self.index.get(&hash)?;
        (self.slots[at as usize].key.borrow() == key).then_some(at)
    }

    #[inline]
    fn make_newest(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    /// Every entry, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().map(|slot| (&slot.key, &slot.value))
    }

    /// The least recently used entry.
    pub(crate) fn oldest(&self) -> Option<(&K, &V)> {
        let slot = self.slots.get(self.oldest as usize)?;
        Some((&slot.key, &slot.value))
    }

    /// Puts `key` in, in the place of the least recently used if the map is full.
    pub(crate) fn insert(&mut self, key: K, value: V) -> &mut V {
        self.insert_hashed(self.hasher.hash_one(&key), key, value)
    }

    /// As [`insert`](Self::insert), with the key's hash.
    pub(crate) fn insert_hashed(&mut self, hash: u64, key: K, value: V) -> &mut V {
        if let Some(at) = self.find(hash, &key) {
            self.slots[at as usize].value = value;
            self.make_newest(at);
            return &mut self.slots[at as usize].value;
        }
        if let Some(&namesake) = self.index.get(&hash) {
            self.remove_at(namesake);
        }
        if self.is_full() {
            self.remove_at(self.oldest);
        }
        let at = self.slots.len() as u32;
        self.index.insert(hash, at);
        self.slots.push(Slot { key, value, hash, newer: NONE, older: NONE });
        self.link_newest(at);
        &mut self.slots[at as usize].value
    }

    pub(crate) fn remove_oldest(&mut self) -> Option<V> {
        (self.oldest != NONE).then(|| self.remove_at(self.oldest))
    }

    /// Takes `key` out, whose hash is `hash`.
    pub(crate) fn remove_hashed<Q>(&mut self, hash: u64, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let at = self.find(hash, key)?;
        Some(self.remove_at(at))
    }

    fn remove_at(&mut self, at: u32) -> V {
        self.unlink(at);
        let removed = self.slots.swap_remove(at as usize);
        self.index.remove(&removed.hash);
        // The last slot moved into the gap; everything that pointed at it follows.
        let moved_from = self.slots.len() as u32;
        if let Some(moved) = self.slots.get(at as usize) {
            let (newer, older) = (moved.newer, moved.older);
            self.index.insert(moved.hash, at);
            match newer {
                NONE => self.newest = at,
                newer => self.slots[newer as usize].older = at,
            }
            match older {
                NONE => self.oldest = at,
                older => self.slots[older as usize].newer = at,
            }
            debug_assert_ne!(moved_from, at);
        }
        removed.value
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = {
            let slot = &self.slots[at as usize];
            (slot.newer, slot.older)
        };
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let older = self.newest;
        let slot = &mut self.slots[at as usize];
        slot.newer = NONE;
        slot.older = older;
        match older {
            NONE => self.oldest = at,
            older => self.slots[older as usize].newer = at,
        }
        self.newest = at;
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;
    use crate::random::Random;

    /// The slow, obvious form: a vector, most recently used last.
    #[derive(Default)]
    struct Model(Vec<(u64, u64)>);

    impl Model {
        fn touch(&mut self, key: u64) -> Option<u64> {
            let at = self.0.iter().position(|(k, _)| *k == key)?;
            let entry = self.0.remove(at);
            self.0.push(entry);
            Some(entry.1)
        }

        fn insert(&mut self, key: u64, value: u64, capacity: usize) {
            if self.touch(key).is_some() {
                self.0.pop();
            } else if self.0.len() == capacity {
                self.0.remove(0);
            }
            self.0.push((key, value));
        }
    }

    #[test]
    fn of_two_keys_of_one_hash_the_older_goes() {
        let mut map = BoundedMap::new(8);
        map.insert_hashed(7, "old", 1);
        map.insert_hashed(9, "other", 2);
        assert_eq!(map.touch_hashed(7, "new"), None);
        map.insert_hashed(7, "new", 3);
        assert_eq!(map.touch_hashed(7, "old"), None);
        assert_eq!(map.touch_hashed(7, "new").copied(), Some(3));
        assert_eq!(map.touch_hashed(9, "other").copied(), Some(2));
        assert_eq!(map.len(), 2);
    }

    #[cfg(not(resilience_loom))]
    #[test]
    fn it_keeps_what_a_vector_in_order_of_use_keeps() {
        let random = Random::seeded(5);
        let (mut map, mut model) = (BoundedMap::new(8), Model::default());
        for step in 0..20_000u64 {
            let key = random.next() % 16;
            match random.next() % 4 {
                0 => assert_eq!(map.touch(&key).copied(), model.touch(key)),
                1 => {
                    let at = model.0.iter().position(|(k, _)| *k == key);
                    let hash = map.hasher.hash_one(key);
                    assert_eq!(map.remove_hashed(hash, &key), at.map(|at| model.0.remove(at).1));
                }
                _ => {
                    map.insert(key, step);
                    model.insert(key, step, 8);
                }
            }
            assert_eq!(map.len(), model.0.len());
            assert_eq!(map.oldest().map(|(k, v)| (*k, *v)), model.0.first().copied());
        }
    }
}
