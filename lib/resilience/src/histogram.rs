//! A histogram of durations for one quantile: 8 buckets per doubling, so within 13 %.
//!
//! Invariants: two halves of counts, each filled with [`ROTATE_AFTER`] samples; the quantile is
//! taken over both, so it forgets in bounded time.

use crate::clock::nanos;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use std::time::Duration;

/// Samples in one half.
const ROTATE_AFTER: u64 = 1_000;
/// The quantile is computed anew after this many samples.
const REFRESH_AFTER: u64 = 32;
/// 64 doublings of 8 buckets each.
pub(crate) const BUCKETS: usize = 512;

/// Durations seen lately.
#[derive(Debug)]
pub(crate) struct Histogram {
    quantile: f64,
    counts: Mutex<Halves>,
    cached: AtomicU64,
    samples: AtomicU64,
}

#[derive(Debug)]
struct Halves {
    current: Box<[u32; BUCKETS]>,
    previous: Box<[u32; BUCKETS]>,
    in_current: u64,
    in_previous: u64,
}

impl Histogram {
    /// A histogram that is asked for `quantile`, in 0..1.
    pub(crate) fn new(quantile: f64) -> Self {
        Histogram {
            quantile,
            counts: Mutex::new(Halves {
                current: Box::new([0; BUCKETS]),
                previous: Box::new([0; BUCKETS]),
                in_current: 0,
                in_previous: 0,
            }),
            cached: AtomicU64::new(0),
            samples: AtomicU64::new(0),
        }
    }

    /// Takes in one duration.
    pub(crate) fn record(&self, duration: Duration) {
        let mut halves = lock(&self.counts);
        halves.current[bucket(nanos(duration))] += 1;
        halves.in_current += 1;
        if halves.in_current == ROTATE_AFTER {
            let Halves { current, previous, in_current, in_previous } = &mut *halves;
            std::mem::swap(current, previous);
            *in_previous = std::mem::take(in_current);
            current.fill(0);
        }
        let samples = self.samples.fetch_add(1, Ordering::Relaxed) + 1;
        if samples.is_multiple_of(REFRESH_AFTER) {
            self.cached.store(halves.quantile(self.quantile), Ordering::Relaxed);
        }
    }

    /// The quantile, once `samples_min` durations were seen.
    pub(crate) fn quantile(&self, samples_min: u64) -> Option<Duration> {
        let enough = self.samples.load(Ordering::Relaxed) >= samples_min.max(REFRESH_AFTER);
        enough.then(|| Duration::from_nanos(self.cached.load(Ordering::Relaxed)))
    }
}

impl Halves {
    /// The upper edge of the bucket that holds the quantile, in nanoseconds.
    fn quantile(&self, quantile: f64) -> u64 {
        let total = self.in_current + self.in_previous;
        let rank = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, (current, previous)) in self.current.iter().zip(self.previous.iter()).enumerate() {
            seen += u64::from(*current) + u64::from(*previous);
            if seen >= rank {
                return upper_edge(at);
            }
        }
        u64::MAX
    }
}

/// The bucket of a duration in nanoseconds.
pub(crate) fn bucket(nanos: u64) -> usize {
    if nanos < 8 {
        return nanos as usize;
    }
    let doubling = 63 - nanos.leading_zeros() as usize;
    let eighth = (nanos >> (doubling - 3)) as usize & 7;
    (doubling - 2) * 8 + eighth
}

/// The longest duration of a bucket, in nanoseconds.
pub(crate) fn upper_edge(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let (doubling, eighth) = (bucket / 8 + 2, bucket as u64 % 8);
    let width = 1u64 << (doubling - 3);
    (8 + eighth).saturating_mul(width).saturating_add(width - 1)
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_is_within_thirteen_percent_and_forgets() {
        let histogram = Histogram::new(0.95);
        assert_eq!(histogram.quantile(1), None);
        for micros in 1..=1_000u64 {
            histogram.record(Duration::from_micros(micros));
        }
        let p95 = histogram.quantile(100).expect("enough samples").as_micros();
        assert!((950..=1_080).contains(&p95), "{p95}");
        (0..2_000).for_each(|_| histogram.record(Duration::from_micros(10)));
        let p95 = histogram.quantile(100).expect("enough samples").as_micros();
        assert!((10..=12).contains(&p95), "{p95}");
    }

    #[test]
    fn every_duration_lies_within_its_bucket() {
        for nanos in (0..10_000).chain([u64::MAX / 3, u64::MAX]) {
            let at = bucket(nanos);
            assert!(at < BUCKETS && upper_edge(at) >= nanos, "{nanos}");
            assert!(upper_edge(at) as f64 <= nanos as f64 * 1.13 + 1.0, "{nanos}");
        }
    }
}
