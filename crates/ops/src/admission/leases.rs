//! [`Leases`]: portions of quotas that several nodes share, taken in the background.
//!
//! Invariants: a request only ever touches local memory; a quota is asked for at most once at a
//! time; without the store each node spends its own share, and goes back to the common quota by
//! itself. At most [`KEYS_MAX`] quotas are remembered, the least recently used half goes first.

use super::rate_rule::RateRule;
use super::redis_store::{Back, Portions, QuotaError, RedisConfig, RedisStore, SERVICE};
use crate::lock::lock;
use mainstay_resilience::{
    Clock, ConfigError, Criticality, DependencyKind, Error, LeasedLimiter, Pipelines, QuotaSource,
    RateConfig, RateLimiter, Tick, WithoutSource,
};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

/// Quotas that are remembered: a quota has some 300 bytes, so these are 6 MB.
const KEYS_MAX: usize = 20_000;
/// Portions per second that a busy node takes: few enough to be cheap, many enough to be fair.
const PORTIONS_PER_SECOND: f64 = 4.0;
/// The least portion of a quota that goes by cost: no usual request costs more.
const COST_PORTION: u32 = 32;

/// A quota is asked for at most this often: a key that floods must not flood the store.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// How a shared quota stands on this node.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SharedQuota {
    /// The policy's name and the key.
    pub name: String,
    /// Units of its portion that are left.
    pub left: u64,
    /// Whether the store did not answer when it was asked last, or was not asked yet.
    pub away: bool,
}

/// A quota's local side.
struct Quota {
    lease: LeasedLimiter,
    /// Spent while there is no portion in force.
    share: RateLimiter,
    rule: RateRule,
    portion: u32,
    /// Until when the newest portion may be spent; nanoseconds of the clock.
    valid_until: AtomicU64,
    /// What was spent of the share and is not charged to the common quota yet.
    debt: AtomicU64,
    /// The slice of the period in which the store granted the newest portion.
    slice: AtomicU64,
    /// When the store was asked last; nanoseconds of the clock.
    asked_at: AtomicU64,
    /// Whether it stands in the line of those that want a portion.
    wants: AtomicBool,
}

/// Two halves, so that forgetting the least recently used costs nothing per request.
#[derive(Default)]
struct Remembered {
    recent: HashMap<Box<str>, Arc<Quota>>,
    older: HashMap<Box<str>, Arc<Quota>>,
}

struct Shared {
    clock: Clock,
    nodes: u32,
    quotas: Mutex<Remembered>,
    line: Mutex<Line>,
    wake: Condvar,
}

#[derive(Default)]
struct Line {
    wanting: VecDeque<Arc<Quota>>,
    closed: bool,
}

/// The local side of every shared quota; ends its thread when dropped.
pub(super) struct Leases {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Leases {
    /// Starts the thread that takes portions. `nodes` share each quota while the store is away.
    pub(super) fn start(
        config: RedisConfig,
        nodes: u32,
        pipelines: &Pipelines,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        RedisConfig::check_url(&config.url)
            .map_err(|allowed| ConfigError::new("redis_url", "no address", allowed))?;
        // What it does shows; search does not get worse without it.
        let (kind, criticality) = (DependencyKind::Cache, Criticality::Informative);
        pipelines.declare_service(SERVICE, kind, criticality);
        let store = Arc::new(RedisStore::new(config, pipelines.clone()));
        store.declare_probe();
        let shared = Arc::new(Shared {
            clock,
            nodes: nodes.max(1),
            quotas: Mutex::default(),
            line: Mutex::default(),
            wake: Condvar::new(),
        });
        let background = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("shared-quotas".to_owned())
            .spawn(move || background.refill(&store))
            .map_err(|error| ConfigError::new("redis_url", error, "a thread to start"))?;
        Ok(Leases { shared, thread: Some(thread) })
    }

    /// Spends from the quota of this policy and key; whether it may.
    pub(super) fn spend(&self, policy: &str, rule: &RateRule, key: &str, units: u32) -> bool {
        let shared = &*self.shared;
        let quota = shared.quota(policy, rule, key);
        let units = units.min(quota.portion);
        // Looked at first: a portion that comes in between must not make this request fall through.
        let expired = Tick::from_nanos(quota.valid_until.load(Ordering::Relaxed));
        let alone = quota.lease.is_away() || shared.clock.now() >= expired;
        let spent = quota.lease.try_acquire(units).is_ok();
        if quota.lease.is_low() {
            shared.want(&quota);
        }
        if spent {
            return true;
        }
        // Between two portions, and without the store, the node's own share bridges the gap.
        let may = alone && quota.share.try_acquire_cost(units).is_ok();
        if may {
            quota.debt.fetch_add(u64::from(units), Ordering::Relaxed);
        }
        may
    }

    /// How each quota stands, sorted by name.
    pub(super) fn report(&self) -> Vec<SharedQuota> {
        let remembered = lock(&self.shared.quotas);
        let all = remembered.recent.values().chain(remembered.older.values());
        let one = |quota: &Arc<Quota>| SharedQuota {
            name: quota.lease.name().to_owned(),
            left: quota.lease.left(),
            away: quota.lease.is_away(),
        };
        let mut report: Vec<SharedQuota> = all.map(one).collect();
        report.sort_by(|a, b| a.name.cmp(&b.name));
        report
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        lock(&self.shared.line).closed = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leases(for {} nodes)", self.shared.nodes)
    }
}

impl Shared {
    fn quota(&self, policy: &str, rule: &RateRule, key: &str) -> Arc<Quota> {
        let name = format!("{policy}/{key}");
        let mut remembered = lock(&self.quotas);
        let fits = |quota: &&Arc<Quota>| quota.rule == *rule;
        if let Some(quota) = remembered.recent.get(&*name).filter(fits) {
            return Arc::clone(quota);
        }
        let old = remembered.older.remove(&*name).filter(|quota| quota.rule == *rule);
        let quota = old.unwrap_or_else(|| Arc::new(self.make(&name, rule)));
        if remembered.recent.len() >= KEYS_MAX / 2 {
            remembered.older = std::mem::take(&mut remembered.recent);
        }
        remembered.recent.insert(name.into(), Arc::clone(&quota));
        quota
    }

    fn make(&self, name: &str, rule: &RateRule) -> Quota {
        let (rate, quota_max) = (&rule.rate, u32::try_from(rule.quota()).unwrap_or(u32::MAX));
        let per_second = f64::from(rate.limit) / rate.period.as_secs_f64();
        // The cast saturates.
        let portion = (per_second / PORTIONS_PER_SECOND).ceil() as u32;
        let least = if rule.by_cost { quota_max.min(COST_PORTION) } else { 1 };
        // All nodes may hold a portion at a time, and are to leave something for the next.
        let fair = rate.limit.div_ceil(self.nodes.saturating_mul(2));
        let portion = portion.min(fair).clamp(least.max(1), rate.limit.max(least));
        let mut share =
            RateConfig::new(rate.algorithm, rate.limit.div_ceil(self.nodes), rate.period);
        share.burst = rate.burst.div_ceil(self.nodes);
        let checked = "a rule that was read, and its share, are within the toolkit's ranges";
        let lease = LeasedLimiter::new(name, portion, WithoutSource::Refuse, self.clock.clone());
        Quota {
            lease: lease.expect(checked),
            share: RateLimiter::with_clock(name, share, self.clock.clone()).expect(checked),
            rule: *rule,
            portion,
            valid_until: AtomicU64::new(0),
            debt: AtomicU64::new(0),
            slice: AtomicU64::new(0),
            asked_at: AtomicU64::new(0),
            wants: AtomicBool::new(false),
        }
    }

    fn want(&self, quota: &Arc<Quota>) {
        let asked = Tick::from_nanos(quota.asked_at.load(Ordering::Relaxed));
        let soon = self.clock.now().since(asked) < ASK_EVERY;
        if !soon && !quota.wants.swap(true, Ordering::AcqRel) {
            let mut line = lock(&self.line);
            if line.wanting.len() < KEYS_MAX {
                line.wanting.push_back(Arc::clone(quota));
                self.wake.notify_one();
            } else {
                // Those before it are of keys that are forgotten by now: it asks the next time.
                quota.wants.store(false, Ordering::Release);
            }
        }
    }

    /// Takes portions for whoever wants one, until the end. The line holds each quota once, also one
    /// that is forgotten meanwhile, and at most [`KEYS_MAX`].
    fn refill(&self, store: &RedisStore) {
        loop {
            let quota = {
                let mut line = lock(&self.line);
                loop {
                    if line.closed {
                        return;
                    }
                    if let Some(quota) = line.wanting.pop_front() {
                        break quota;
                    }
                    line = self.wake.wait(line).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let asked = self.clock.now();
            quota.asked_at.store(asked.as_nanos(), Ordering::Relaxed);
            if let Err(error) = quota.refill(store, asked) {
                tracing::debug!(%error, "no portion of a shared quota");
            }
            quota.wants.store(false, Ordering::Release);
        }
    }
}

impl Quota {
    /// Gives back what expired unspent, charges what was spent without a portion, then takes one. After a long absence at most one
    /// quota is charged: what was spent before belongs to periods that are over.
    fn refill(&self, store: &RedisStore, asked: Tick) -> Result<(), Error<QuotaError>> {
        let back =
            Back { units: self.lease.take_expired(), slice: self.slice.load(Ordering::Relaxed) };
        let portions = Portions {
            store,
            rule: &self.rule,
            burst: self.rule.quota().max(u64::from(self.portion)),
            back: Mutex::new(back),
            valid_nanos: AtomicU64::new(0),
        };
        let debt = self.debt.load(Ordering::Relaxed);
        if debt > 0 {
            let charged = u32::try_from(debt.min(self.rule.quota())).unwrap_or(u32::MAX);
            if let Some(Ok(_)) = ready(portions.lease(self.lease.name(), charged)) {
                self.debt.fetch_sub(debt, Ordering::Relaxed);
            }
        }
        ready(self.lease.refill(&portions)).transpose()?;
        let valid = portions.valid_nanos.load(Ordering::Relaxed);
        self.slice.store(lock(&portions.back).slice, Ordering::Relaxed);
        if valid > 0 {
            let until = asked.after(Duration::from_nanos(valid)).as_nanos();
            self.valid_until.store(until, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Runs a future that is ready at its first poll.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// O4: more keys than are remembered, while the store hangs: neither they nor those that wait for
    /// a portion grow without bound, and each key's first request is admitted from the node's share.
    #[test]
    fn distinct_keys_beyond_the_bound_are_forgotten_also_while_the_store_hangs() {
        // Without the thread nobody takes from the line, as while it waits for the store.
        let shared = Shared {
            clock: Clock::system(),
            nodes: 2,
            quotas: Mutex::default(),
            line: Mutex::default(),
            wake: Condvar::new(),
        };
        let leases = Leases { shared: Arc::new(shared), thread: None };
        let rule = RateRule::parse_list("search = 60/h").unwrap()[0];
        let keys = 2 * KEYS_MAX + 10_000;
        for key in 0..keys {
            assert!(leases.spend("search-per-key", &rule, &format!("key-{key}"), 1), "key {key}");
        }
        let remembered = leases.report().len();
        assert!((KEYS_MAX / 2..=KEYS_MAX).contains(&remembered), "{remembered}");
        assert_eq!(lock(&leases.shared.line).wanting.len(), KEYS_MAX);
        let last = format!("search-per-key/key-{}", keys - 1);
        assert!(leases.report().iter().any(|quota| quota.name == last));
    }
}
