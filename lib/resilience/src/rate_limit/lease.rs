//! A limit shared by several instances without a remote call per request: each instance leases a
//! portion of the quota from a shared store and spends it locally.
//!
//! Invariant: between two refills an instance spends no more than it was granted, plus its fallback
//! limit while the store is away.

use super::{RateConfig, RateLimiter};
use crate::clock::{Clock, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::rejection::{PolicyKind, Reason, Rejection};
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
/// crate.
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

/// The spending side of a shared limit. Clones share the lease.
///
/// A background task calls [`refill`](Self::refill) whenever [`is_low`](Self::is_low) says so, or
/// on a timer; requests only ever touch local memory.
#[derive(Clone)]
pub struct LeasedLimiter(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    clock: Clock,
    portion: u32,
    left: AtomicU64,
    expires: AtomicU64,
    /// Why the last refill failed matters to the caller of `refill`; here only that it did.
    away: AtomicU64,
    refill: Mutex<()>,
    local: Option<RateLimiter>,
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
        check_range("portion", portion, 1, 1_000_000_000)?;
        let name = name.into();
        let local = match without {
            WithoutSource::Refuse => None,
            WithoutSource::LimitLocally(rate) => {
                Some(RateLimiter::with_clock(Arc::clone(&name), rate, clock.clone())?)
            }
        };
        Ok(LeasedLimiter(Arc::new(Shared {
            name,
            clock,
            portion,
            left: AtomicU64::new(0),
            expires: AtomicU64::new(0),
            away: AtomicU64::new(1),
            refill: Mutex::new(()),
            local,
        })))
    }

    /// Spends `cost` of the lease; of the local limit while the store is away.
    ///
    /// # Errors
    /// The refusal, when the lease is spent or has expired.
    pub fn try_acquire(&self, cost: u32) -> Result<(), Rejection> {
        let shared = &*self.0;
        if self.is_valid() {
            let cost = u64::from(cost);
            let spend = |left: u64| left.checked_sub(cost);
            let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
            if shared.left.fetch_update(set, fetch, spend).is_ok() {
                return Ok(());
            }
        } else if shared.away.load(Ordering::Relaxed) != 0
            && let Some(local) = &shared.local
        {
            return local.try_acquire_cost(cost);
        }
        let reason =
            Reason::RateExceeded { limit: u64::from(shared.portion), period: Duration::ZERO };
        let name = Arc::clone(&shared.name);
        Err(Rejection::new(name, PolicyKind::RateLimiter, reason, None))
    }

    /// Whether a quarter of the portion or less is left.
    #[must_use]
    pub fn is_low(&self) -> bool {
        !self.is_valid() || self.left() <= u64::from(self.0.portion) / 4
    }

    /// What is left of the lease.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.0.left.load(Ordering::Acquire)
    }

    fn is_valid(&self) -> bool {
        let now = self.0.clock.coarse();
        now < Tick::from_nanos(self.0.expires.load(Ordering::Acquire))
    }

    /// Asks `source` for what is missing from a portion. What was not spent is kept only while its
    /// lease is valid.
    ///
    /// # Errors
    /// The store's error; from then on the instance does what [`WithoutSource`] says, once the
    /// lease has expired.
    pub async fn refill<S: QuotaSource>(&self, source: &S) -> Result<(), S::Error> {
        let shared = &*self.0;
        let kept = if self.is_valid() { self.left() } else { 0 };
        let want = shared.portion.saturating_sub(u32::try_from(kept).unwrap_or(u32::MAX));
        if want == 0 {
            return Ok(());
        }
        let lease = match source.lease(&shared.name, want).await {
            Ok(lease) => lease,
            Err(error) => {
                shared.away.store(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        let _one_at_a_time = lock(&shared.refill);
        if !self.is_valid() {
            shared.left.store(0, Ordering::Release);
        }
        let expires = shared.clock.now().after(lease.valid_for).as_nanos();
        shared.left.fetch_add(u64::from(lease.granted), Ordering::AcqRel);
        shared.expires.store(expires, Ordering::Release);
        shared.away.store(0, Ordering::Relaxed);
        Ok(())
    }
}

impl fmt::Debug for LeasedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeasedLimiter({}, {} left)", self.0.name, self.left())
    }
}
