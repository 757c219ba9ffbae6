//! One shared limit per key, with a hard bound on keys.

use super::turns::{TakesTurns, Turn};
use super::{LeasedLimiter, QuotaSource, RateConfig, WithoutSource, lease};
use crate::attempt::Attempt;
use crate::bounded_map::BoundedMap;
use crate::clock::{Clock, Tick, nanos};
use crate::config_error::{ConfigError, check_range};
use crate::context::CallerKey;
use crate::event::{Event, Listeners, Observer};
use crate::human_duration::check_duration;
use crate::rejection::{PolicyKind, Rejection};
use crate::strategy::{Describe, Part};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a key is remembered without use, unless it is said or the local limit's period is longer.
const IDLE_AFTER: Duration = Duration::from_secs(600);

/// One [`LeasedLimiter`] per key, the least recently used forgotten first. Clones share the keys.
///
/// A key that was not used for [`idle_after`](Self::idle_after) is forgotten, so that no quota is leased
/// for callers who are gone. What was leased for it and not spent lapses. A key whose local limit is
/// not whole again stays until it is: forgetting would give quota away.
///
/// In a chain the key is the call's [`caller`](crate::Context::caller), as
/// [`Context::caller_key`](crate::Context::caller_key) writes it, the same in every instance. Calls
/// without a caller share the quota of the empty key.
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
/// # For, and not for
/// For quotas by tenant, key or address that all instances together must keep. Not where each instance
/// has a limit of its own: a [`KeyedRateLimiter`](crate::KeyedRateLimiter) is exact and asks nobody.
///
/// # Parameters
/// The portion, 1 to 1 000 000 000, that is leased for one key at a time; the keys remembered, 1 to
/// 1 000 000; what to do without the store, [`WithoutSource`]: told to [`new`](Self::new), no defaults.
/// How long an idle key is remembered, [`set_idle_after`](Self::set_idle_after), 1 s to 1 day, default
/// 10 min.
///
/// # Cancel safety
/// What was spent stays spent. Dropping the future of a refill may lose the portion that was on its
/// way; it is never spent twice.
///
/// # Source
/// Leases: Gray and Cheriton (1989), applied to quotas; the least recently used key is forgotten first.
///
/// # Cost
/// One lock and one hash more than a [`LeasedLimiter`]; an allocation for a key that is new.
#[derive(Clone)]
pub struct KeyedLeasedLimiter(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    clock: Clock,
    idle_nanos: AtomicU64,
    /// Of the local limit: how long a call in a chain may wait, and whether it asks for the precise
    /// clock.
    wait_nanos: AtomicU64,
    precise: AtomicU64,
    state: Mutex<State>,
    listeners: Listeners,
}

struct State {
    terms: Terms,
    limiters: BoundedMap<Arc<str>, Entry>,
}

/// What holds for every key.
#[derive(Clone, Copy)]
struct Terms {
    portion: u32,
    keys_max: u32,
    without: WithoutSource,
}

impl Terms {
    fn validate(&self) -> Result<(), ConfigError> {
        check_range("keys_max", self.keys_max, 1, 1_000_000)?;
        check_range("portion", self.portion, 1, 1_000_000_000)?;
        local(self.without).map_or(Ok(()), |rate| rate.validate())
    }
}

struct Entry {
    limiter: LeasedLimiter,
    used_at: Tick,
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
        let terms = Terms { portion, keys_max, without };
        terms.validate()?;
        let limiters = BoundedMap::new(keys_max as usize);
        let shared = Shared {
            name,
            clock,
            idle_nanos: AtomicU64::new(nanos(IDLE_AFTER)),
            wait_nanos: AtomicU64::new(0),
            precise: AtomicU64::new(0),
            state: Mutex::new(State { terms, limiters }),
            listeners,
        };
        shared.install(&terms);
        Ok(KeyedLeasedLimiter(Arc::new(shared)))
    }

    /// Changes portion, bound and local limit of every key; see [`LeasedLimiter::reconfigure`] for
    /// what stays. With a lower bound the least recently used keys go at once, and
    /// [`idle_after`](Self::idle_after) becomes the period of the local limit where that is longer.
    /// Takes as long as there are keys.
    ///
    /// # Errors
    /// The first value that is out of its range; then nothing changes.
    pub fn reconfigure(
        &self,
        portion: u32,
        keys_max: u32,
        without: WithoutSource,
    ) -> Result<(), ConfigError> {
        let (shared, terms) = (&*self.0, Terms { portion, keys_max, without });
        terms.validate()?;
        {
            let mut state = lock(&shared.state);
            state.terms = terms;
            shared.install(&terms);
            state.limiters.set_capacity(keys_max as usize);
            for (_, entry) in state.limiters.iter() {
                entry.limiter.change(portion, without)?;
            }
        }
        let name = &*shared.name;
        shared.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::RateLimiter });
        Ok(())
    }

    /// How long a call in a chain may wait for the local limit.
    pub(crate) fn wait_max_alone(&self) -> Duration {
        Duration::from_nanos(self.0.wait_nanos.load(Ordering::Relaxed))
    }

    /// Spends `cost` of the lease of `key`.
    ///
    /// # Errors
    /// The refusal, when the lease is spent or has expired.
    pub fn try_acquire(&self, key: &str, cost: u32) -> Result<(), Rejection> {
        self.limiter(key, self.0.clock.coarse()).try_acquire(cost)
    }

    /// How long a key is remembered without use. Default 10 min, at least the period of the local
    /// limit.
    #[must_use]
    pub fn idle_after(&self) -> Duration {
        Duration::from_nanos(self.0.idle_nanos.load(Ordering::Relaxed))
    }

    /// Changes how long a key is remembered without use: 1 s to 1 day, and at least the period of the
    /// local limit, which forgetting would renew.
    ///
    /// # Errors
    /// The value that is out of its range; then nothing changes.
    pub fn set_idle_after(&self, idle_after: Duration) -> Result<(), ConfigError> {
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        check_duration(
            "idle_after",
            idle_after,
            second.max(period(lock(&self.0.state).terms.without)),
            day,
        )?;
        self.0.idle_nanos.store(nanos(idle_after), Ordering::Relaxed);
        Ok(())
    }

    /// What may be spent now for `key`; 0 for a key that is not remembered.
    #[must_use]
    pub fn left(&self, key: &str) -> u64 {
        lock(&self.0.state).limiters.peek(key).map_or(0, |entry| entry.limiter.left())
    }

    /// Keys remembered now, at most the bound.
    #[must_use]
    pub fn keys(&self) -> usize {
        lock(&self.0.state).limiters.len()
    }

    /// The keys whose lease is nearly spent, in no particular order.
    #[must_use]
    pub fn low(&self) -> Vec<Arc<str>> {
        self.low_ones().into_iter().map(|(key, _)| key).collect()
    }

    fn low_ones(&self) -> Vec<(Arc<str>, LeasedLimiter)> {
        let now = self.0.clock.coarse();
        let mut state = lock(&self.0.state);
        self.forget_idle(&mut state.limiters, now, usize::MAX);
        let low = state.limiters.iter().filter(|(_, entry)| entry.limiter.is_low());
        low.map(|(key, entry)| (Arc::clone(key), entry.limiter.clone())).collect()
    }

    /// Refills every key that is low and not idle, one after the other; how many were. That is no use
    /// of a key: it may become idle all the same.
    ///
    /// # Errors
    /// The store's first error; the keys behind it keep what they have.
    pub async fn refill<S: QuotaSource>(&self, source: &S) -> Result<usize, S::Error> {
        let low = self.low_ones();
        for (_, limiter) in &low {
            limiter.refill(source).await?;
        }
        Ok(low.len())
    }

    /// Forgets up to `most` keys that are idle, the longest first.
    fn forget_idle(&self, limiters: &mut BoundedMap<Arc<str>, Entry>, now: Tick, most: usize) {
        let idle_after = self.idle_after();
        for _ in 0..most {
            let is_idle = |entry: &Entry| {
                now.since(entry.used_at) >= idle_after && entry.limiter.is_whole_alone()
            };
            if !limiters.oldest().is_some_and(|(_, entry)| is_idle(entry)) {
                break;
            }
            limiters.remove_oldest();
        }
    }

    fn limiter(&self, key: &str, now: Tick) -> LeasedLimiter {
        let shared = &*self.0;
        let mut state = lock(&shared.state);
        let State { terms, limiters } = &mut *state;
        if let Some(entry) = limiters.touch(key) {
            entry.used_at = now;
            return entry.limiter.clone();
        }
        // Two at a time: idle keys go faster than new ones come.
        self.forget_idle(limiters, now, 2);
        let name = format!("{}/{key}", shared.name).into();
        let (clock, listeners) = (shared.clock.clone(), shared.listeners.clone());
        let made = LeasedLimiter::build(name, terms.portion, terms.without, clock, listeners)
            .expect("the same portion and local limit were checked when they were set");
        limiters.insert(key.into(), Entry { limiter: made.clone(), used_at: now });
        made
    }
}

impl Shared {
    /// Copies what is read without the lock, and keeps the idle time above the local limit's period.
    fn install(&self, terms: &Terms) {
        let wait_max = local(terms.without).map_or(Duration::ZERO, |rate| rate.wait_max);
        self.wait_nanos.store(nanos(wait_max), Ordering::Relaxed);
        let precise = lease::asks_for_precise(terms.without);
        self.precise.store(u64::from(precise), Ordering::Relaxed);
        self.idle_nanos.fetch_max(nanos(period(terms.without)), Ordering::Relaxed);
    }
}

impl fmt::Debug for KeyedLeasedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedLeasedLimiter({}, {} keys)", self.0.name, self.keys())
    }
}

/// The local limit, if there is one.
fn local(without: WithoutSource) -> Option<RateConfig> {
    match without {
        WithoutSource::LimitLocally(rate) => Some(rate),
        WithoutSource::Refuse => None,
    }
}

/// In which time the local limit renews itself.
fn period(without: WithoutSource) -> Duration {
    local(without).map_or(Duration::ZERO, |rate| rate.period)
}

impl TakesTurns for KeyedLeasedLimiter {
    fn turn_of(&self, attempt: &Attempt, end: Tick) -> Result<Turn, Rejection> {
        let limiter = self.limiter(&CallerKey::of(attempt.caller), attempt.began());
        limiter.turn_of(attempt, end)
    }

    fn wait_max(&self) -> Duration {
        self.wait_max_alone()
    }
}

impl Describe for KeyedLeasedLimiter {
    fn part(&self) -> Part {
        let shared = &*self.0;
        let Terms { portion, keys_max, without } = lock(&shared.state).terms;
        let without = lease::without(local(without).as_ref());
        let text = format!("leases of {portion}{without} for each caller, up to {keys_max}");
        Part::new(PolicyKind::RateLimiter, Arc::clone(&shared.name), text)
            .sharing(&self.0)
            .on_clock(&shared.clock)
    }

    #[inline]
    fn is_precise(&self) -> bool {
        self.0.precise.load(Ordering::Relaxed) != 0
    }
}
