//! One rate limit per key, with a hard bound on keys.

use super::turns::{TakesTurns, Turn};
use super::{Meter, RateConfig, Refusal, Rule, RuleCell, rejection};
use crate::attempt::Attempt;
use crate::bounded_map::BoundedMap;
use crate::clock::{Clock, Precision, Tick, nanos};
use crate::config_error::{ConfigError, check_range};
use crate::context::CallerKey;
use crate::event::{Event, Listeners, Observer};
use crate::human_duration::check_duration;
use crate::name::Name;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::strategy::{Describe, Part};
use crate::stripes::Events;
use crate::sync::{AtomicU64, Mutex, Ordering, OwnLine, lock};
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

/// Locks that many keys are spread over: two threads meet with a chance of 1 in 16.
const SHARDS: usize = 16;
/// Keys from which on they are spread. Fewer fall so unevenly that a part is full long before all are.
const SPREAD_FROM: u32 = 1_024;

/// What happens to a new key when the bound is reached and no key is idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhenFull {
    /// The least recently used key is forgotten. Its caller starts with a fresh limit.
    #[default]
    Forget,
    /// The new key is refused. Right where anyone can make up keys. With many keys that happens when
    /// its part is full, see [`keys_max`](KeyedConfig::keys_max).
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
    /// Keys in all, 16 to 16 777 216. Default 10 000. A limiter that is built for 1 024 or more has 16
    /// parts, into which keys fall by their hash, each with a sixteenth of the bound, rounded up: a
    /// part may be full a little before all of them are, with the default at some 9 300 keys. It keeps
    /// its parts when the bound is changed later.
    #[cfg_attr(feature = "serde", serde(default = "keys_max_default"))]
    pub keys_max: u32,
    /// A key that was not used for this long, and whose limit is whole again, is forgotten first, 1 s
    /// to 1 day. Default 10 min, at least the rate's period. While a burst drips back, or a turn that
    /// was booked ahead is not over, a key is not idle however long that takes: forgetting would give
    /// quota away.
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
/// names: a [`RateLimiter`](crate::RateLimiter) each is quicker.
///
/// In a chain the key is the call's [`caller`](crate::Context::caller), as
/// [`Context::caller_key`](crate::Context::caller_key) writes it. Calls without a caller share the
/// limit of the empty key: leaving the caller out makes nobody free.
///
/// # Parameters
/// Those of [`KeyedConfig`], with their ranges and defaults.
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

type Shard = Mutex<BoundedMap<Box<str>, Entry>>;

struct Shared {
    name: Name,
    clock: Clock,
    config: Mutex<KeyedConfig>,
    /// Copies of what every call needs of the configuration.
    rule: RuleCell,
    precise: AtomicU64,
    wait_nanos: AtomicU64,
    /// Shards in use: one, or all.
    parts: usize,
    /// Of all shards: a key is hashed once, for its shard and for its place there.
    hasher: RandomState,
    shards: [OwnLine<Shard>; SHARDS],
    refused: Events,
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
        let parts = if config.keys_max < SPREAD_FROM { 1 } else { SHARDS };
        let (keys, hasher) = (keys_of_part(&config, parts), RandomState::new());
        let shard = || Mutex::new(BoundedMap::with_hasher(keys, hasher.clone()));
        Ok(KeyedRateLimiter(Arc::new(Shared {
            name: name.into(),
            clock,
            config: Mutex::new(config),
            rule: RuleCell::new(config.rate.rule()),
            precise: AtomicU64::new(u64::from(config.rate.precision() == Precision::Precise)),
            wait_nanos: AtomicU64::new(nanos(config.rate.wait_max)),
            parts,
            shards: std::array::from_fn(|_| OwnLine(shard())),
            hasher,
            refused: Events::none(),
            listeners,
        })))
    }

    /// Takes `cost` from the limit of `key`. Allocates only for a key that is new.
    ///
    /// # Errors
    /// The refusal, with the time after which there is enough.
    pub fn try_acquire(&self, key: &str, cost: u32) -> Result<(), Rejection> {
        let (rule, now) = (self.0.rule.load(), self.0.now());
        let take = |meter: &mut Meter| meter.take_alone(&rule, u64::from(cost), now);
        match self.with_meter(key, now, take)? {
            Ok(()) => Ok(()),
            Err(refusal) => self.refuse(&rule, cost, refusal),
        }
    }

    /// Looks up the meter of `key`, or makes it, and asks it.
    ///
    /// # Errors
    /// The refusal of a new key.
    #[inline]
    fn with_meter<R>(
        &self,
        key: &str,
        now: Tick,
        ask: impl FnOnce(&mut Meter) -> R,
    ) -> Result<R, Rejection> {
        let shared = &*self.0;
        let hash = shared.hasher.hash_one(key);
        let mut shard = lock(shared.shard(hash));
        let entry = match shard.touch_hashed(hash, key) {
            Some(entry) => entry,
            None => {
                // The configuration's lock inside a shard's; nobody takes them the other way.
                let config = self.config();
                if !make_room(&mut shard, &config, now) {
                    drop(shard);
                    let part = keys_of_part(&config, shared.parts);
                    let limit = (part * shared.parts) as u64;
                    let reason = Reason::TooManyKeys { limit, part: part as u64 };
                    let kind = PolicyKind::RateLimiter;
                    return shared.refuse(Rejection::by(&shared.name, kind, reason, None));
                }
                let meter = Meter::new(config.rate.algorithm);
                shard.insert_hashed(hash, key.into(), Entry { meter, used_at: now })
            }
        };
        entry.used_at = now;
        Ok(ask(&mut entry.meter))
    }

    #[inline]
    fn refuse<R>(&self, rule: &Rule, cost: u32, refusal: Refusal) -> Result<R, Rejection> {
        self.0.refuse(rejection(&self.0.name, rule, u64::from(cost), refusal))
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
        let hash = self.0.hasher.hash_one(key);
        // Asking is no use: the order of use stays the order in which keys become idle.
        let shard = lock(self.0.shard(hash));
        shard.peek_hashed(hash, key).map_or(rule.burst, |entry| entry.meter.available(&rule, now))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Calls refused since it was built.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.count()
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
            self.0.wait_nanos.store(nanos(changed.rate.wait_max), Ordering::Relaxed);
        }
        for shard in &self.0.shards {
            lock(shard).set_capacity(keys_of_part(&changed, self.0.parts));
        }
        let name = &*self.0.name;
        self.0.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::RateLimiter });
        Ok(())
    }
}

fn keys_of_part(config: &KeyedConfig, parts: usize) -> usize {
    (config.keys_max as usize).div_ceil(parts)
}

/// Makes room for one more key; `false` when the new key is to be refused.
fn make_room(shard: &mut BoundedMap<Box<str>, Entry>, config: &KeyedConfig, now: Tick) -> bool {
    let rule = config.rate.rule();
    let is_idle = |entry: &Entry| {
        now.since(entry.used_at) >= config.idle_after && entry.meter.is_whole(&rule, now)
    };
    // Two at a time: idle keys go faster than new ones come.
    for _ in 0..2 {
        if !shard.oldest().is_some_and(|(_, entry)| is_idle(entry)) {
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

    /// The shard of a key with this hash. The map inside looks at the lowest and the highest bits.
    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> 40) as usize % self.parts]
    }

    #[inline]
    fn refuse<R>(&self, rejection: Rejection) -> Result<R, Rejection> {
        self.refused.happened();
        let refused = Err(rejection);
        self.listeners.hear_refusal(&refused);
        refused
    }
}

impl fmt::Debug for KeyedRateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedRateLimiter({})", self.0.name)
    }
}

impl TakesTurns for KeyedRateLimiter {
    fn turn_of(&self, attempt: &Attempt, end: Tick) -> Result<Turn, Rejection> {
        let (key, now, cost) = (CallerKey::of(attempt.caller), attempt.began(), attempt.cost);
        let rule = self.0.rule.load();
        let wait_max = nanos(end.since(now));
        let take = |meter: &mut Meter| meter.take(&rule, u64::from(cost), now, wait_max);
        match self.with_meter(&key, now, take)? {
            Ok(0) => Ok(Turn::Now),
            Ok(wait) => Ok(Turn::Booked(Duration::from_nanos(wait))),
            // A window books nothing; who may wait long enough asks again.
            Err(Refusal::Later(wait)) if now.after(Duration::from_nanos(wait)) <= end => {
                Ok(Turn::Again(Duration::from_nanos(wait)))
            }
            Err(refusal) => self.refuse(&rule, cost, refusal),
        }
    }

    fn wait_max(&self) -> Duration {
        Duration::from_nanos(self.0.wait_nanos.load(Ordering::Relaxed))
    }
}

impl Describe for KeyedRateLimiter {
    fn part(&self) -> Part {
        let config = self.config();
        let text = format!("{} for each caller, up to {}", config.rate.text(), config.keys_max);
        Part::new(PolicyKind::RateLimiter, self.0.name.shared(), text)
            .sharing(&self.0)
            .on_clock(&self.0.clock)
            .precise(config.rate.precision() == Precision::Precise)
    }
}
