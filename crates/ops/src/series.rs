//! [`Series`]: the figures of one metric with one set of labels, in atomics.
//!
//! A histogram's count is the sum of its buckets, so the two always agree; its sum is added after
//! the bucket and may lag by the records under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{CounterFn, GaugeFn, HistogramFn};
use rustix::time::{ClockId, clock_gettime};

use crate::correlation;
use crate::metric::MetricKind;

/// How long a bucket keeps its exemplar: a newer one says nothing more.
const EXEMPLAR_AGE_S: u64 = 1;
/// What tells that time: where there is one, the clock of the system's last tick, for a quarter of the time.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The figures of one metric with one set of labels.
#[derive(Debug)]
pub(crate) enum Series {
    /// A count.
    Counter(AtomicU64),
    /// The bits of a number.
    Gauge(AtomicU64),
    /// Observations by bucket.
    Histogram(Box<Buckets>),
}

/// Observations by bucket.
#[derive(Debug)]
pub(crate) struct Buckets {
    bounds: &'static [f64],
    /// One for each bound and one for what is beyond the last.
    counts: Box<[Count]>,
    exemplars: Box<[Mutex<Option<Exemplar>>]>,
    sum: AtomicU64,
}

/// What is touched by each observation in a bucket: together, because nothing else is in the caches.
#[derive(Debug, Default)]
struct Count {
    observations: AtomicU64,
    /// The second from which another exemplar is taken, by the clock that nobody sets.
    exemplar_due_s: AtomicU64,
}

/// An observation and the trace in which it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exemplar {
    pub(crate) trace_id: u128,
    pub(crate) value: f64,
    /// When, in seconds since 1970.
    pub(crate) at_s: f64,
}

/// What a histogram held when it was read.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Bound, observations up to it, and an exemplar of this bucket alone.
    pub(crate) buckets: Vec<(f64, u64, Option<Exemplar>)>,
    pub(crate) sum: f64,
}

impl Series {
    pub(crate) fn new(kind: MetricKind) -> Self {
        match kind {
            MetricKind::Counter => Self::Counter(AtomicU64::new(0)),
            MetricKind::Gauge => Self::Gauge(AtomicU64::new(0f64.to_bits())),
            MetricKind::Histogram(bounds) => Self::Histogram(Box::new(Buckets {
                bounds,
                counts: (0..=bounds.len()).map(|_| Count::default()).collect(),
                exemplars: (0..=bounds.len()).map(|_| Mutex::new(None)).collect(),
                sum: AtomicU64::new(0f64.to_bits()),
            })),
        }
    }

    /// Lifts a counter to `value`, if it is below.
    pub(crate) fn raise_to(&self, value: u64) {
        if let Self::Counter(count) = self {
            count.fetch_max(value, Ordering::Relaxed);
        }
    }
}

impl Buckets {
    fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let at = self.bounds.partition_point(|bound| *bound < value);
        let count = &self.counts[at];
        count.observations.fetch_add(1, Ordering::Relaxed);
        change(&self.sum, |sum| sum + value);
        if correlation::is_recorded() && count.is_exemplar_due() {
            self.keep(at, value);
        }
    }

    /// Keeps an exemplar unless somebody is at it.
    #[cold]
    fn keep(&self, at: usize, value: f64) {
        let Some(trace_id) = correlation::trace_id() else { return };
        let Ok(mut kept) = self.exemplars[at].try_lock() else { return };
        let at_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        *kept = Some(Exemplar { trace_id, value, at_s });
        self.counts[at].exemplar_due_s.store(now_s() + EXEMPLAR_AGE_S, Ordering::Relaxed);
    }

    /// What it holds.
    pub(crate) fn read(&self) -> Reading {
        let mut below = 0;
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let bucket = |((bound, count), kept): ((f64, &Count), &Mutex<Option<Exemplar>>)| {
            below += count.observations.load(Ordering::Relaxed);
            (bound, below, *kept.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let buckets = bounds.zip(&self.counts).zip(&self.exemplars).map(bucket).collect();
        Reading { buckets, sum: f64::from_bits(self.sum.load(Ordering::Relaxed)) }
    }
}

impl Count {
    fn is_exemplar_due(&self) -> bool {
        now_s() >= self.exemplar_due_s.load(Ordering::Relaxed)
    }
}

/// Seconds since some begin. Asked at every observation in a trace that is recorded, and as precise as that needs.
fn now_s() -> u64 {
    clock_gettime(CLOCK).tv_sec.unsigned_abs()
}

fn change(bits: &AtomicU64, change: impl Fn(f64) -> f64) {
    let next = |bits| Some(change(f64::from_bits(bits)).to_bits());
    // The closure never declines.
    let _ = bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        if let Self::Counter(count) = self {
            count.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn absolute(&self, value: u64) {
        self.raise_to(value);
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        if let Self::Gauge(bits) = self {
            change(bits, |now| now + value);
        }
    }

    fn decrement(&self, value: f64) {
        if let Self::Gauge(bits) = self {
            change(bits, |now| now - value);
        }
    }

    fn set(&self, value: f64) {
        if let Self::Gauge(bits) = self {
            bits.store(value.to_bits(), Ordering::Relaxed);
        }
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        if let Self::Histogram(buckets) = self {
            buckets.observe(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::{SampleRatio, Spans};

    #[test]
    fn v3_a_bucket_keeps_its_exemplar_for_a_while_and_takes_none_where_nobody_records() {
        let series = Series::new(MetricKind::Histogram(&[1.0]));
        let Series::Histogram(buckets) = &series else { panic!("a histogram") };
        let kept = |value| {
            buckets.observe(value);
            buckets.read().buckets[0].2.map(|exemplar| exemplar.value)
        };
        let inside = |ratio, value| {
            let spans = Spans::new(None, SampleRatio::new(ratio));
            let request = || tracing::info_span!(target: "mainstay_test", "request");
            tracing::subscriber::with_default(spans, || request().in_scope(|| kept(value)))
        };
        assert_eq!((kept(0.1), inside(0.0, 0.2)), (None, None));
        assert_eq!(inside(1.0, 0.3), Some(0.3));
        let count = &buckets.counts[0];
        let due_s = count.exemplar_due_s.load(Ordering::Relaxed);
        assert!((now_s()..=now_s() + EXEMPLAR_AGE_S).contains(&due_s));
        // As if no time went by, and then enough.
        count.exemplar_due_s.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(inside(1.0, 0.4), Some(0.3));
        count.exemplar_due_s.store(now_s(), Ordering::Relaxed);
        assert_eq!(inside(1.0, 0.5), Some(0.5));
        assert_eq!(buckets.read().buckets[1].1, 5);
    }
}
