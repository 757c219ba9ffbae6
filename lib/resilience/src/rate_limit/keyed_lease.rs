//! One shared limit per key, with a hard bound on keys.

use super::{LeasedLimiter, QuotaSource, WithoutSource};
use crate::bounded_map::BoundedMap;
use crate::clock::Clock;
use crate::config_error::{ConfigError, check_range};
use crate::event::{Listeners, Observer};
use crate::rejection::Rejection;
use crate::sync::{Mutex, lock};
use std::fmt;
use std::sync::Arc;

/// One [`LeasedLimiter`] per key, the least recently used forgotten first. Clones share the keys.
///
/// The store sees the quota of a key as `name/key`. A background task calls
/// [`refill`](Self::refill) on a timer; requests only ever touch local memory.
///
/// ```
/// use mainstay_resilience::{Algorithm, Clock, KeyedLeasedLimiter, RateConfig, WithoutSource};
///
/// let alone = RateConfig::per_second(Algorithm::TokenBucket, 5);
/// let limiter = KeyedLeasedLimiter::new(
///     "search", 100, 10_000, WithoutSource::LimitLocally(alone), Clock::system(),
/// )?;
/// assert_eq!((0..10).filter(|_| limiter.try_acquire("tenant-7", 1).is_ok()).count(), 5);
/// assert_eq!(limiter.low()[0].as_ref(), "tenant-7");
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # Cost
/// One lock and one hash more than a [`LeasedLimiter`]; an allocation for a key that is new.
#[derive(Clone)]
pub struct KeyedLeasedLimiter(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    portion: u32,
    without: WithoutSource,
    clock: Clock,
    limiters: Mutex<BoundedMap<Arc<str>, LeasedLimiter>>,
    listeners: Listeners,
}

impl KeyedLeasedLimiter {
    /// A limiter that leases `portion` (1 to 1 000 000 000) for a key at a time and remembers
    /// `keys_max` (1 to 1 000 000) keys.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn new(
        name: impl Into<Arc<str>>,
        portion: u32,
        keys_max: u32,
        without: WithoutSource,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        let listeners = Listeners::default();
        KeyedLeasedLimiter::build(name.into(), [portion, keys_max], without, clock, listeners)
    }

    /// As [`new`](Self::new), telling `observer` about each refusal.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn observed(
        name: impl Into<Arc<str>>,
        portion: u32,
        keys_max: u32,
        without: WithoutSource,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        let listeners = Listeners::one(observer);
        KeyedLeasedLimiter::build(name.into(), [portion, keys_max], without, clock, listeners)
    }

    fn build(
        name: Arc<str>,
        [portion, keys_max]: [u32; 2],
        without: WithoutSource,
        clock: Clock,
        listeners: Listeners,
    ) -> Result<Self, ConfigError> {
        check_range("keys_max", keys_max, 1, 1_000_000)?;
        // The limiters of the keys are made later; what is wrong with them is told now.
        LeasedLimiter::new(Arc::clone(&name), portion, without, clock.clone())?;
        let limiters = Mutex::new(BoundedMap::new(keys_max as usize));
        let shared = Shared { name, portion, without, clock, limiters, listeners };
        Ok(KeyedLeasedLimiter(Arc::new(shared)))
    }

    /// Spends `cost` of the lease of `key`.
    ///
    /// # Errors
    /// The refusal, when the lease is spent or has expired.
    pub fn try_acquire(&self, key: &str, cost: u32) -> Result<(), Rejection> {
        self.limiter(key).try_acquire(cost)
    }

    /// What may be spent now for `key`; 0 for a key that is not remembered.
    #[must_use]
    pub fn left(&self, key: &str) -> u64 {
        lock(&self.0.limiters).touch(key).map_or(0, |limiter| limiter.left())
    }

    /// Keys remembered now, at most the bound.
    #[must_use]
    pub fn keys(&self) -> usize {
        lock(&self.0.limiters).len()
    }

    /// The keys whose lease is nearly spent, in no particular order.
    #[must_use]
    pub fn low(&self) -> Vec<Arc<str>> {
        let limiters = lock(&self.0.limiters);
        let low = limiters.iter().filter(|(_, limiter)| limiter.is_low());
        low.map(|(key, _)| Arc::clone(key)).collect()
    }

    /// Refills every key that is low, one after the other; how many were.
    ///
    /// # Errors
    /// The store's first error; the keys behind it keep what they have.
    pub async fn refill<S: QuotaSource>(&self, source: &S) -> Result<usize, S::Error> {
        let low = self.low();
        for key in &low {
            self.limiter(key).refill(source).await?;
        }
        Ok(low.len())
    }

    fn limiter(&self, key: &str) -> LeasedLimiter {
        let shared = &*self.0;
        let mut limiters = lock(&shared.limiters);
        if let Some(limiter) = limiters.touch(key) {
            return limiter.clone();
        }
        let name = format!("{}/{key}", shared.name).into();
        let (clock, listeners) = (shared.clock.clone(), shared.listeners.clone());
        let made = LeasedLimiter::build(name, shared.portion, shared.without, clock, listeners)
            .expect("the same portion and fallback were checked when this was built");
        limiters.insert(key.into(), made).clone()
    }
}

impl fmt::Debug for KeyedLeasedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedLeasedLimiter({}, {} keys)", self.0.name, self.keys())
    }
}
