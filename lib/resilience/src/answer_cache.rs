//! Answers kept for when there is no better one: fresh for a while, then stale but allowed in place
//! of an error.
//!
//! Invariant: nothing of the user's runs inside the lock: keys are hashed before it, and compared, and
//! answers copied and dropped, after it. What the lock guards is hashes and counted references.
//!
//! Source: the directives `max-age` and `stale-if-error` of RFC 5861.

use crate::bounded_map::BoundedMap;
use crate::clock::{Clock, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::error_kind::Classify;
use crate::human_duration::check_duration;
use crate::sync::{Mutex, lock};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;

/// An answer, and whether it is older than it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<V> {
    /// Computed now, or within the time to live.
    Fresh(V),
    /// From the cache, past its time to live: the dependency failed or was not asked.
    Stale(V),
}

impl<V> Answer<V> {
    /// The answer itself.
    pub fn into_inner(self) -> V {
        match self {
            Answer::Fresh(value) | Answer::Stale(value) => value,
        }
    }

    /// Whether it is past its time to live; tell the caller.
    pub fn is_stale(&self) -> bool {
        matches!(self, Answer::Stale(_))
    }
}

/// What a cache of answers can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct AnswerCacheConfig {
    /// Answers kept, 1 to 1 000 000. Default 1 000.
    pub answers: u32,
    /// How long an answer is fresh, 1 ms to 1 day. Default 1 min.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub ttl: Duration,
    /// How long after that it is usable in place of an error, 0 to 30 days. Default 1 h; with 0 never.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub stale_for: Duration,
}

impl Default for AnswerCacheConfig {
    fn default() -> Self {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
        AnswerCacheConfig { answers: 1_000, ttl: minute, stale_for: hour }
    }
}

impl AnswerCacheConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let day = Duration::from_secs(86_400);
        check_range("answers", self.answers, 1, 1_000_000)?;
        check_duration("ttl", self.ttl, Duration::from_millis(1), day)?;
        check_duration("stale_for", self.stale_for, Duration::ZERO, day * 30)
    }
}

/// A bounded cache of answers by request; the least recently used goes first.
///
/// ```
/// use mainstay_resilience::{Answer, AnswerCache, ErrorKind, ManualClock};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let (ttl, stale) = (Duration::from_secs(10), Duration::from_secs(60));
/// let cache = AnswerCache::new(100, ttl, stale, clock.clock())?;
/// let fetch = |result: Result<u32, ErrorKind>| cache.run("query", || result);
/// assert_eq!(fetch(Ok(1)), Ok(Answer::Fresh(1)));
/// assert_eq!(fetch(Ok(2)), Ok(Answer::Fresh(1)), "still fresh, nothing is called");
/// clock.advance(Duration::from_secs(11));
/// assert_eq!(fetch(Err(ErrorKind::Timeout)), Ok(Answer::Stale(1)));
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(fetch(Err(ErrorKind::Timeout)), Err(ErrorKind::Timeout));
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # For, and not for
/// For answers that may be a little old. Not for answers that differ by who asks, unless the key says
/// who.
///
/// # Parameters
/// Those of [`AnswerCacheConfig`], with their ranges and defaults.
///
/// # Cost
/// A hash, a lock and a clone of the answer, which is made after the lock; an allocation to keep one.
///
/// # Cancel safety
/// A call that is dropped keeps nothing; no lock is held while the operation runs.
///
/// # Source
/// `max-age` and `stale-if-error` of RFC 5861.
pub struct AnswerCache<K, V> {
    clock: Clock,
    ttl: Duration,
    stale_for: Duration,
    hasher: RandomState,
    /// By the hash of their key: of two keys with one hash the older goes.
    answers: Mutex<BoundedMap<u64, Arc<Kept<K, V>>>>,
}

/// An answer, and since when it is kept.
struct Kept<K, V> {
    key: K,
    at: Tick,
    value: V,
}

impl<K: Hash + Eq + Clone, V: Clone> AnswerCache<K, V> {
    /// A cache of at most `answers` (1 to 1 000 000), fresh for `ttl` (1 ms to 1 day), then usable
    /// in place of an error for `stale_for` (0 to 30 days).
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn new(
        answers: u32,
        ttl: Duration,
        stale_for: Duration,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        AnswerCache::configured(AnswerCacheConfig { answers, ttl, stale_for }, clock)
    }

    /// A cache as configured, on `clock`.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn configured(config: AnswerCacheConfig, clock: Clock) -> Result<Self, ConfigError> {
        config.validate()?;
        let AnswerCacheConfig { answers, ttl, stale_for } = config;
        let answers = Mutex::new(BoundedMap::new(answers as usize));
        Ok(AnswerCache { clock, ttl, stale_for, hasher: RandomState::new(), answers })
    }

    /// The fresh answer if there is one, else what `operation` computes, else the stale answer. A
    /// caller's mistake (not found, permission denied) is an answer and is never replaced.
    ///
    /// # Errors
    /// The operation's error, when it is the caller's mistake or there is not even a stale answer.
    pub fn run<E: Classify>(
        &self,
        key: K,
        operation: impl FnOnce() -> Result<V, E>,
    ) -> Result<Answer<V>, E> {
        match self.fresh(&key) {
            Some(value) => Ok(Answer::Fresh(value)),
            None => self.settle(key, operation()),
        }
    }

    /// As [`run`](Self::run), awaiting the operation. No lock is held meanwhile.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn call<E: Classify, F: Future<Output = Result<V, E>>>(
        &self,
        key: K,
        operation: impl FnOnce() -> F,
    ) -> Result<Answer<V>, E> {
        match self.fresh(&key) {
            Some(value) => Ok(Answer::Fresh(value)),
            None => self.settle(key, operation().await),
        }
    }

    /// The answer within its time to live.
    pub fn fresh(&self, key: &K) -> Option<V> {
        self.younger_than(key, self.ttl)
    }

    /// The answer, fresh or stale, for use in a [`Fallback`](crate::Fallback).
    pub fn stale(&self, key: &K) -> Option<V> {
        self.younger_than(key, self.ttl + self.stale_for)
    }

    /// Keeps an answer.
    pub fn insert(&self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        let kept = Arc::new(Kept { key, at: self.clock.coarse(), value });
        let displaced = {
            let mut answers = lock(&self.answers);
            let displaced = answers.remove_hashed(hash, &hash);
            let displaced = match displaced {
                None if answers.is_full() => answers.remove_oldest(),
                displaced => displaced,
            };
            answers.insert_hashed(hash, hash, kept);
            displaced
        };
        drop(displaced);
    }

    /// Answers that are kept, those included whose time is over and that nobody has asked for since.
    pub fn len(&self) -> usize {
        lock(&self.answers).len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but the `answers` that were used last, as when memory is short; answers how many
    /// were forgotten.
    pub fn keep_newest(&self, answers: usize) -> usize {
        let mut forgotten = 0;
        loop {
            // One at a time: an answer is dropped outside the lock.
            let oldest = {
                let mut kept = lock(&self.answers);
                if kept.len() > answers { kept.remove_oldest() } else { None }
            };
            if oldest.is_none() {
                return forgotten;
            }
            drop(oldest);
            forgotten += 1;
        }
    }

    fn younger_than(&self, key: &K, age_max: Duration) -> Option<V> {
        let now = self.clock.coarse();
        let hash = self.hasher.hash_one(key);
        let kept = Arc::clone(lock(&self.answers).touch_hashed(hash, &hash)?);
        if kept.key != *key {
            return None;
        }
        let age = now.since(kept.at);
        if age <= age_max {
            return Some(kept.value.clone());
        }
        if age > self.ttl + self.stale_for {
            self.forget(hash, &kept);
        }
        None
    }

    /// Forgets what is of no use any more, unless another answer has taken its place.
    fn forget(&self, hash: u64, old: &Arc<Kept<K, V>>) {
        let forgotten = {
            let mut answers = lock(&self.answers);
            let is_same = answers.touch_hashed(hash, &hash).is_some_and(|at| Arc::ptr_eq(at, old));
            if is_same { answers.remove_hashed(hash, &hash) } else { None }
        };
        drop(forgotten);
    }

    fn settle<E: Classify>(&self, key: K, result: Result<V, E>) -> Result<Answer<V>, E> {
        match result {
            Ok(value) => {
                self.insert(key, value.clone());
                Ok(Answer::Fresh(value))
            }
            // As for a fallback: the dependency gave its answer, and the answer is no.
            Err(error) if error.verdict().is_success() => Err(error),
            Err(error) => self.stale(&key).map(Answer::Stale).ok_or(error),
        }
    }
}

impl<K, V> fmt::Debug for AnswerCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerCache(ttl {:?}, stale for {:?})", self.ttl, self.stale_for)
    }
}
