//! Seeded randomness for jitter: SplitMix64, small enough to sit beside the state it serves.
//!
//! Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
//! Not for secrets.

use crate::sync::{AtomicU64, Ordering};
use std::hash::{BuildHasher, Hasher, RandomState};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of numbers that many threads may draw from without a lock.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Random(AtomicU64::new(seed))
    }

    /// A stream that differs from process to process, so that replicas do not move in step.
    pub(crate) fn unpredictable() -> Self {
        Random::seeded(RandomState::new().build_hasher().finish())
    }

    /// `seed` if given, else an unpredictable stream.
    pub(crate) fn from_seed(seed: Option<u64>) -> Self {
        seed.map_or_else(Random::unpredictable, Random::seeded)
    }

    /// The seed of what is called `name`, among others that have their randomness from `seed` too.
    pub(crate) fn seed_of(name: &str, seed: u64) -> u64 {
        name.bytes().fold(seed, |seed, byte| Random::seeded(seed ^ u64::from(byte)).next())
    }

    pub(crate) fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[0, 1)`.
    pub(crate) fn unit(&self) -> f64 {
        // 53 bits: all that a double can hold.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        for _ in 0..100 {
            assert_eq!(a.next(), b.next());
        }
    }

    #[test]
    fn units_fill_the_interval_evenly() {
        let random = Random::seeded(11);
        let mut tenths = [0u32; 10];
        for _ in 0..10_000 {
            let unit = random.unit();
            assert!((0.0..1.0).contains(&unit));
            tenths[(unit * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|&n| (850..1150).contains(&n)), "{tenths:?}");
    }
}
