//! A limit shared by several instances without a remote call per request: each instance leases
//! portions of the quota from a shared store and spends them locally.
//!
//! Invariants: every portion is spent within its own validity; an instance never spends more than
//! it was granted, plus its local limit while the store is away.

use super::turns::{TakesTurns, Turn};
use super::{RateConfig, RateLimiter};
use crate::attempt::Attempt;
use crate::clock::{Clock, Precision, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::event::{Event, Listeners, Observer};
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::strategy::{Describe, Part};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A portion of a shared quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How much was granted; 0 when the quota is used up.
    pub granted: u32,
    /// How long it may be spent.
    pub valid_for: Duration,
}

/// A store that grants portions of quotas, such as a script in Redis. Implemented outside this
/// crate; `tests/it/redis_quota.rs` in its repository is one in fifty lines.
pub trait QuotaSource {
    /// What can go wrong on the way to the store.
    type Error;

    /// Asks for up to `want` of the quota `key`.
    fn lease(
        &self,
        key: &str,
        want: u32,
    ) -> impl Future<Output = Result<Lease, Self::Error>> + Send;
}

/// What an instance does while the store cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum WithoutSource {
    /// It limits by itself, to its expected share of the quota.
    LimitLocally(RateConfig),
    /// It refuses everything.
    Refuse,
}

/// The spending side of a limit that several instances share. Clones share the lease.
///
/// A background task calls [`refill`](Self::refill) whenever [`is_low`](Self::is_low) says so, or
/// on a timer; requests only ever touch local memory.
///
/// # For, and not for
/// For a quota of somebody else that all instances together must keep. Not where each instance has
/// a quota of its own: a [`RateLimiter`] is exact and asks nobody.
///
/// In a chain a call spends its [`cost`](crate::Context::cost). It waits for nobody but the local limit,
/// as long as that limit's `wait_max` says: when a lease is refilled no policy knows.
///
/// # Parameters
/// The portion, 1 to 1 000 000 000: about what an instance spends in a second. What to do without the
/// store, [`WithoutSource`]. Both are told to [`new`](Self::new) and have no default; how long a portion
/// is valid is the store's to say.
///
/// # Cost
/// One coarse clock reading and a short lock per call; one remote call per portion.
///
/// # Cancel safety
/// What was spent stays spent. Dropping the future of a refill may lose the portion that was on
/// its way; it is never spent twice.
///
/// # Source
/// Leases: Gray and Cheriton (1989), applied to quotas.
#[derive(Clone)]
pub struct LeasedLimiter(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    clock: Clock,
    purse: Mutex<Purse>,
    /// Whether the local limit asks for the precise clock: 1 or 0.
    precise: AtomicU64,
    listeners: Listeners,
}

/// A granted portion that is not spent yet.
#[derive(Clone, Copy, Debug, Default)]
struct Portion {
    left: u64,
    expires: Tick,
}

/// What may be spent: the portion before and the present one, so that a refill in time neither
/// loses what is left nor prolongs it.
#[derive(Debug)]
struct Purse {
    portions: [Portion; 2],
    /// Whether the last refill failed, or none was made.
    away: bool,
    /// What is leased at a time.
    portion: u32,
    local: Option<RateLimiter>,
}

impl Purse {
    fn left(&self, now: Tick) -> u64 {
        self.portions.iter().filter(|portion| now < portion.expires).map(|p| p.left).sum()
    }

    fn is_valid(&self, now: Tick) -> bool {
        self.portions.iter().any(|portion| now < portion.expires)
    }

    /// How long until everything that was granted has expired.
    fn valid_for(&self, now: Tick) -> Duration {
        let last = self.portions.iter().map(|portion| portion.expires).max();
        last.map_or(Duration::ZERO, |last| last.since(now))
    }

    /// Spends from what expires first.
    fn spend(&mut self, cost: u64, now: Tick) -> bool {
        if self.left(now) < cost {
            return false;
        }
        let mut owed = cost;
        for portion in self.portions.iter_mut().filter(|portion| now < portion.expires) {
            let spent = portion.left.min(owed);
            portion.left -= spent;
            owed -= spent;
        }
        true
    }

    /// Empties what has expired; how much it held.
    fn take_expired(&mut self, now: Tick) -> u64 {
        let expired = self.portions.iter_mut().filter(|portion| now >= portion.expires);
        expired.map(|portion| std::mem::take(&mut portion.left)).sum()
    }

    /// Puts a portion beside what is left. Of three the one is given up that is spent or expires
    /// first.
    fn put(&mut self, portion: Portion, now: Tick) {
        let [first, second] = self.portions;
        let mut all = [first, second, portion];
        all.sort_by_key(|portion| (portion.left > 0 && now < portion.expires, portion.expires));
        self.portions = [all[1], all[2]];
    }
}

impl LeasedLimiter {
    /// A limiter that leases `portion` (1 to 1 000 000 000) at a time. Take about what an instance
    /// spends in one second: smaller portions are exact and ask often, larger ones the reverse.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn new(
        name: impl Into<Arc<str>>,
        portion: u32,
        without: WithoutSource,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        LeasedLimiter::build(name.into(), portion, without, clock, Listeners::default())
    }

    /// As [`new`](Self::new), telling `observer` about each refusal.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn observed(
        name: impl Into<Arc<str>>,
        portion: u32,
        without: WithoutSource,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        LeasedLimiter::build(name.into(), portion, without, clock, Listeners::one(observer))
    }

    pub(super) fn build(
        name: Arc<str>,
        portion: u32,
        without: WithoutSource,
        clock: Clock,
        listeners: Listeners,
    ) -> Result<Self, ConfigError> {
        check_range("portion", portion, 1, 1_000_000_000)?;
        let local = match without {
            WithoutSource::Refuse => None,
            WithoutSource::LimitLocally(rate) => {
                Some(RateLimiter::with_clock(Arc::clone(&name), rate, clock.clone())?)
            }
        };
        let precise = AtomicU64::new(u64::from(asks_for_precise(without)));
        let portions = [Portion::default(); 2];
        let purse = Mutex::new(Purse { portions, away: true, portion, local });
        Ok(LeasedLimiter(Arc::new(Shared { name, clock, purse, precise, listeners })))
    }

    /// Changes what is leased at a time, from the next refill on, and what is done while the store is
    /// away. What is left of the lease stays; so does what is used up of the local limit, unless it has
    /// another algorithm now, or there was none.
    ///
    /// # Errors
    /// The first value that is out of its range; then nothing changes.
    pub fn reconfigure(&self, portion: u32, without: WithoutSource) -> Result<(), ConfigError> {
        self.change(portion, without)?;
        let name = &*self.0.name;
        self.0.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::RateLimiter });
        Ok(())
    }

    /// As [`reconfigure`](Self::reconfigure), telling nobody.
    pub(super) fn change(&self, portion: u32, without: WithoutSource) -> Result<(), ConfigError> {
        let shared = &*self.0;
        check_range("portion", portion, 1, 1_000_000_000)?;
        if let WithoutSource::LimitLocally(rate) = without {
            rate.validate()?;
        }
        let mut purse = lock(&shared.purse);
        let before = purse.local.clone();
        purse.local = match (without, before) {
            (WithoutSource::Refuse, _) => None,
            (WithoutSource::LimitLocally(rate), Some(local))
                if local.config().algorithm == rate.algorithm =>
            {
                local.reconfigure(rate)?;
                Some(local)
            }
            (WithoutSource::LimitLocally(rate), _) => {
                let (name, clock) = (Arc::clone(&shared.name), shared.clock.clone());
                Some(RateLimiter::with_clock(name, rate, clock)?)
            }
        };
        purse.portion = portion;
        shared.precise.store(u64::from(asks_for_precise(without)), Ordering::Relaxed);
        Ok(())
    }

    /// How long a call in a chain may wait for the local limit.
    pub(crate) fn wait_max_alone(&self) -> Duration {
        lock(&self.0.purse).local.as_ref().map_or(Duration::ZERO, RateLimiter::wait_max)
    }

    /// The name, which is also the quota's key in the store.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Spends `cost` of the lease; of the local limit while the store is away.
    ///
    /// # Errors
    /// The refusal, when the lease is spent or has expired.
    pub fn try_acquire(&self, cost: u32) -> Result<(), Rejection> {
        self.spend(cost, self.0.clock.coarse(), (), |local| local.try_acquire_cost(cost))
    }

    /// Spends `cost` of the lease, or else asks the local limit if it is its time.
    #[inline]
    fn spend<R>(
        &self,
        cost: u32,
        now: Tick,
        spent: R,
        alone: impl FnOnce(&RateLimiter) -> Result<R, Rejection>,
    ) -> Result<R, Rejection> {
        let shared = &*self.0;
        let (away, valid_for, portion, local) = {
            let mut purse = lock(&shared.purse);
            if purse.spend(u64::from(cost), now) {
                return Ok(spent);
            }
            let valid_for = purse.is_valid(now).then(|| purse.valid_for(now));
            (purse.away, valid_for, u64::from(purse.portion), purse.local.clone())
        };
        let refused = match &local {
            Some(local) if away && valid_for.is_none() => alone(local),
            local => {
                let reason = Reason::LeaseSpent { portion };
                // When the store answers again nobody knows; when the local limit begins is known.
                let retry_after = valid_for.filter(|_| away && local.is_some());
                let name = Arc::clone(&shared.name);
                Err(Rejection::new(name, PolicyKind::RateLimiter, reason, retry_after))
            }
        };
        shared.listeners.hear_refusal(&refused);
        refused
    }

    /// What was granted and has expired unspent since this was asked last. For a store that can take
    /// it back: ask before each [`refill`](Self::refill). Without it a caller that spends slowly uses
    /// up more of the quota than it spends.
    pub fn take_expired(&self) -> u64 {
        lock(&self.0.purse).take_expired(self.0.clock.coarse())
    }

    /// Whether a quarter of the portion or less is left.
    #[must_use]
    pub fn is_low(&self) -> bool {
        let purse = lock(&self.0.purse);
        purse.left(self.0.clock.coarse()) <= u64::from(purse.portion) / 4
    }

    /// What may be spent now.
    #[must_use]
    pub fn left(&self) -> u64 {
        lock(&self.0.purse).left(self.0.clock.coarse())
    }

    /// Whether nothing of the local limit is used up or booked ahead.
    pub(super) fn is_whole_alone(&self) -> bool {
        lock(&self.0.purse).local.as_ref().is_none_or(RateLimiter::is_whole)
    }

    /// Whether the last refill failed, or none was made.
    #[must_use]
    pub fn is_away(&self) -> bool {
        lock(&self.0.purse).away
    }

    /// Asks `source` for what is missing from a portion. What is left of the lease before is spent
    /// first, and only while that lease is valid.
    ///
    /// # Errors
    /// The store's error; from then on the instance does what [`WithoutSource`] says, once the
    /// lease has expired.
    pub async fn refill<S: QuotaSource>(&self, source: &S) -> Result<(), S::Error> {
        let shared = &*self.0;
        let want = {
            let purse = lock(&shared.purse);
            let left = u32::try_from(purse.left(shared.clock.coarse())).unwrap_or(u32::MAX);
            purse.portion.saturating_sub(left)
        };
        if want == 0 {
            return Ok(());
        }
        // Counted from before the question, so that the answer's way never prolongs the lease.
        let asked = shared.clock.now();
        match source.lease(&shared.name, want).await {
            Ok(lease) => {
                let expires = asked.after(lease.valid_for);
                let portion = Portion { left: u64::from(lease.granted), expires };
                let mut purse = lock(&shared.purse);
                purse.put(portion, shared.clock.now());
                purse.away = false;
                Ok(())
            }
            Err(error) => {
                lock(&shared.purse).away = true;
                Err(error)
            }
        }
    }
}

impl fmt::Debug for LeasedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeasedLimiter({}, {} left)", self.0.name, self.left())
    }
}

impl TakesTurns for LeasedLimiter {
    fn turn_of(&self, attempt: &Attempt, end: Tick) -> Result<Turn, Rejection> {
        let (cost, now) = (attempt.cost, attempt.began());
        self.spend(cost, now, Turn::Now, |local| local.turn(cost, now, end))
    }

    fn wait_max(&self) -> Duration {
        self.wait_max_alone()
    }
}

impl Describe for LeasedLimiter {
    fn part(&self) -> Part {
        let shared = &*self.0;
        let (portion, local) = {
            let purse = lock(&shared.purse);
            (purse.portion, purse.local.as_ref().map(RateLimiter::config))
        };
        let text = format!("leases of {portion}{}", without(local.as_ref()));
        Part::new(PolicyKind::RateLimiter, Arc::clone(&shared.name), text)
            .sharing(&self.0)
            .on_clock(&shared.clock)
    }

    #[inline]
    fn is_precise(&self) -> bool {
        self.0.precise.load(Ordering::Relaxed) != 0
    }
}

/// Whether a local limit asks for the precise clock.
pub(super) fn asks_for_precise(without: WithoutSource) -> bool {
    matches!(without, WithoutSource::LimitLocally(rate) if rate.precision() == Precision::Precise)
}

/// What a chain shows of a limit that stands in while the store is away.
pub(super) fn without(local: Option<&RateConfig>) -> String {
    local.map_or(String::new(), |rate| format!(", alone {}", rate.text()))
}
