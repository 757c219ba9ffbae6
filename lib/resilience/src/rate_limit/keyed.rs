//! One rate limit per key, with a hard bound on keys.

use super::{Meter, RateConfig, Refusal, Rule, RuleCell, reason};
use crate::bounded_map::BoundedMap;
use crate::clock::{Clock, Precision, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::event::{Event, Listeners, Observer};
use crate::human_duration::check_duration;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

/// Locks that the keys are spread over: two threads meet with a chance of 1 in 16.
const SHARDS: usize = 16;

/// What happens to a new key when the bound is reached and no key is idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhenFull {
    /// The least recently used key is forgotten. Its caller starts with a fresh limit.
    #[default]
    Forget,
    /// The new key is refused. Right where anyone can make up keys.
    Refuse,
}

/// Everything a keyed limiter can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct KeyedConfig {
    /// The limit of each key.
    pub rate: RateConfig,
    /// Keys in all, 16 to 16 777 216; rounded up to a multiple of 16. Default 10 000.
    #[cfg_attr(feature = "serde", serde(default = "keys_max_default"))]
    pub keys_max: u32,
    /// A key that was not used for this long is forgotten first, 1 s to 1 day. Default 10 min, at
    /// least the rate's period.
    #[cfg_attr(
        feature = "serde",
        serde(default = "idle_after_default", with = "crate::serde_duration")
    )]
    pub idle_after: Duration,
    /// What happens when the bound is reached.
    #[cfg_attr(feature = "serde", serde(default))]
    pub when_full: WhenFull,
}

fn keys_max_default() -> u32 {
    10_000
}

fn idle_after_default() -> Duration {
    Duration::from_secs(600)
}

impl KeyedConfig {
    /// `rate` for each of at most 10 000 keys.
    #[must_use]
    pub fn new(rate: RateConfig) -> Self {
        KeyedConfig {
            rate,
            keys_max: keys_max_default(),
            idle_after: idle_after_default(),
            when_full: WhenFull::Forget,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.rate.validate().map_err(|error| error.within("rate"))?;
        check_range("keys_max", self.keys_max, 16, 16_777_216)?;
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        check_duration("idle_after", self.idle_after, second.max(self.rate.period), day)
    }
}

#[derive(Debug)]
struct Entry {
    meter: Meter,
    used_at: Tick,
}

/// One rate limit per key. Clones share the keys.
///
/// ```
/// use mainstay_resilience::{Algorithm, KeyedConfig, KeyedRateLimiter, RateConfig};
///
/// let rate = RateConfig::per_second(Algorithm::TokenBucket, 1);
/// let limiter = KeyedRateLimiter::new("tenant", KeyedConfig::new(rate))?;
/// assert!(limiter.try_acquire("a", 1).is_ok());
/// assert!(limiter.try_acquire("a", 1).is_err());
/// assert!(limiter.try_acquire("b", 1).is_ok());
/// assert_eq!(limiter.keys(), 2);
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # For, and not for
/// For tenants, API keys or addresses, of which there may be any number. Not for a handful of fixed
/// names: a [`RateLimiter`](crate::RateLimiter) each is quicker. Parameters: [`KeyedConfig`].
///
/// # Cost
/// A hash, one of 16 locks and what the algorithm costs; an allocation for a key that is new.
///
/// # Cancel safety
/// What was taken stays taken.
///
/// # Source
/// Least recently used first, idle keys before all others.
#[derive(Clone)]
pub struct KeyedRateLimiter(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    clock: Clock,
    config: Mutex<KeyedConfig>,
    /// Copies of what every call needs of the configuration.
    rule: RuleCell,
    precise: AtomicU64,
    seed: u64,
    shards: [Mutex<BoundedMap<Box<str>, Entry>>; SHARDS],
    refused: AtomicU64,
    listeners: Listeners,
}

impl KeyedRateLimiter {
    /// A limiter on the system's clock.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn new(name: impl Into<Arc<str>>, config: KeyedConfig) -> Result<Self, ConfigError> {
        KeyedRateLimiter::with_clock(name, config, Clock::system())
    }

    /// A limiter on `clock`.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn with_clock(
        name: impl Into<Arc<str>>,
        config: KeyedConfig,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        KeyedRateLimiter::build(name.into(), config, clock, Listeners::default())
    }

    /// A limiter that tells `observer` about each refusal.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn observed(
        name: impl Into<Arc<str>>,
        config: KeyedConfig,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        KeyedRateLimiter::build(name.into(), config, clock, Listeners::one(observer))
    }

    fn build(
        name: Arc<str>,
        config: KeyedConfig,
        clock: Clock,
        listeners: Listeners,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let keys = keys_of_shard(&config);
        Ok(KeyedRateLimiter(Arc::new(Shared {
            name,
            clock,
            config: Mutex::new(config),
            rule: RuleCell::new(config.rate.rule()),
            precise: AtomicU64::new(u64::from(config.rate.precision() == Precision::Precise)),
            seed: RandomState::new().hash_one(0),
            shards: std::array::from_fn(|_| Mutex::new(BoundedMap::new(keys))),
            refused: AtomicU64::new(0),
            listeners,
        })))
    }

    /// Takes `cost` from the limit of `key`. Allocates only for a key that is new.
    ///
    /// # Errors
    /// The refusal, with the time after which there is enough.
    pub fn try_acquire(&self, key: &str, cost: u32) -> Result<(), Rejection> {
        let shared = &*self.0;
        let (rule, now) = (shared.rule.load(), shared.now());
        let mut shard = lock(shared.shard(key));
        let entry = match shard.touch(key) {
            Some(entry) => entry,
            None => {
                // The configuration's lock inside a shard's; nobody takes them the other way.
                let config = self.config();
                if !make_room(&mut shard, &config, now) {
                    drop(shard);
                    let limit = u64::from(config.keys_max);
                    return Err(shared.refuse(Reason::TooManyKeys { limit }, None));
                }
                let meter = Meter::new(config.rate.algorithm);
                shard.insert(key.into(), Entry { meter, used_at: now })
            }
        };
        entry.used_at = now;
        let taken = entry.meter.take(&rule, u64::from(cost), now, 0);
        drop(shard);
        taken.map(drop).map_err(|refusal| self.refuse(&rule, cost, refusal))
    }

    fn refuse(&self, rule: &Rule, cost: u32, refusal: Refusal) -> Rejection {
        let (reason, retry_after) = reason(rule, u64::from(cost), refusal);
        self.0.refuse(reason, retry_after)
    }

    /// Keys remembered now, at most the bound.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// What `key` could take now; the whole limit for a key that is not remembered.
    #[must_use]
    pub fn available(&self, key: &str) -> u64 {
        let (rule, now) = (self.0.rule.load(), self.0.now());
        let mut shard = lock(self.0.shard(key));
        shard.touch(key).map_or(rule.burst, |entry| entry.meter.available(&rule, now))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Calls refused since it was built.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> KeyedConfig {
        *lock(&self.0.config)
    }

    /// Changes the limit of every key while running; what is used up stays so. A window moves over
    /// to another period at the key's next use.
    ///
    /// # Errors
    /// The field that is out of range, or another algorithm; then nothing changes.
    pub fn set_rate(&self, rate: RateConfig) -> Result<(), ConfigError> {
        self.reconfigure(KeyedConfig { rate, ..self.config() })
    }

    /// Changes everything but the algorithm while running. What is used up stays so; with a lower
    /// bound the least recently used keys go at once.
    ///
    /// # Errors
    /// The field that is out of range, or another algorithm; then nothing changes.
    pub fn reconfigure(&self, changed: KeyedConfig) -> Result<(), ConfigError> {
        changed.validate()?;
        {
            let mut config = lock(&self.0.config);
            if changed.rate.algorithm != config.rate.algorithm {
                let allowed = format!("{:?}, which it was built with", config.rate.algorithm);
                let value = format!("{:?}", changed.rate.algorithm);
                return Err(ConfigError::new("rate.algorithm", value, allowed));
            }
            *config = changed;
            self.0.rule.store(changed.rate.rule());
            let precise = changed.rate.precision() == Precision::Precise;
            self.0.precise.store(u64::from(precise), Ordering::Relaxed);
        }
        for shard in &self.0.shards {
            lock(shard).set_capacity(keys_of_shard(&changed));
        }
        let name = &*self.0.name;
        self.0.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::RateLimiter });
        Ok(())
    }
}

fn keys_of_shard(config: &KeyedConfig) -> usize {
    (config.keys_max as usize).div_ceil(SHARDS)
}

/// Makes room for one more key; `false` when the new key is to be refused.
fn make_room(shard: &mut BoundedMap<Box<str>, Entry>, config: &KeyedConfig, now: Tick) -> bool {
    // Two at a time: idle keys go faster than new ones come.
    for _ in 0..2 {
        let oldest = shard.oldest().map(|(_, entry)| entry.used_at);
        if oldest.is_none_or(|used| now.since(used) < config.idle_after) {
            break;
        }
        shard.remove_oldest();
    }
    !shard.is_full() || config.when_full == WhenFull::Forget
}

impl Shared {
    fn now(&self) -> Tick {
        let precise = self.precise.load(Ordering::Relaxed) != 0;
        self.clock.read(if precise { Precision::Precise } else { Precision::Coarse })
    }

    /// The shard of a key, by a seeded FNV-1a: quick, and guessing keys of one shard wins nothing
    /// but that shard's places. The map inside hashes anew, against collisions.
    fn shard(&self, key: &str) -> &Mutex<BoundedMap<Box<str>, Entry>> {
        let hash = key
            .bytes()
            .fold(self.seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        // The last byte has reached few bits of the sum; a multiplication spreads it over the top.
        let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 60) as usize % SHARDS]
    }

    #[cold]
    fn refuse(&self, reason: Reason, retry_after: Option<Duration>) -> Rejection {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let name = Arc::clone(&self.name);
        let rejection = Rejection::new(name, PolicyKind::RateLimiter, reason, retry_after);
        self.listeners.emit(|| Event::Rejected(&rejection));
        rejection
    }
}

impl fmt::Debug for KeyedRateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedRateLimiter({})", self.0.name)
    }
}
