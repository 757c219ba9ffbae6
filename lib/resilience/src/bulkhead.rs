//! Bulkhead: at most so many calls at a time, and at most so many waiting.
//!
//! Keeps one slow dependency from taking every thread, connection and megabyte. Set the limit to
//! what the dependency is known to bear; where that is unknown, use an
//! [`AdaptiveLimit`](crate::AdaptiveLimit).
//!
//! Cost: two compare-and-swaps per call while a slot is free; to wait a lock, under which the logarithm
//! of the calls that wait is looked at, and an allocation or two.

use crate::attempt::Attempt;
use crate::clock::Tick;
use crate::config_error::{ConfigError, check_range};
use crate::context::Priority;
use crate::event::{Event, Listeners, Observer};
use crate::human_duration::check_duration;
use crate::name::Name;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::sleeper::Sleeper;
use crate::slots::{Entered, QueueOrder, Slots, Waiter};
use crate::strategy::{BlockingNext, BlockingStrategy, Describe, Done, Next, Part, Strategy};
use crate::stripes::Events;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Everything a bulkhead can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BulkheadConfig {
    /// Calls at a time, 1 to 1 000 000. Default 64.
    pub limit: u32,
    /// Calls that may wait, 0 to 1 000 000. Default 0: what does not fit is refused at once.
    pub queue: u32,
    /// How long a call waits at most, 1 ms to 1 h, if calls may wait. Default 1 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub wait_max: Duration,
    /// Who goes first among waiting calls of one priority. Default fifo.
    pub order: QueueOrder,
}

impl Default for BulkheadConfig {
    fn default() -> Self {
        let wait_max = Duration::from_secs(1);
        BulkheadConfig { limit: 64, queue: 0, wait_max, order: QueueOrder::Fifo }
    }
}

impl BulkheadConfig {
    /// `limit` calls at a time, refusing what is more.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        BulkheadConfig { limit, ..BulkheadConfig::default() }
    }

    /// The same, letting `queue` calls wait for up to `wait_max`.
    #[must_use]
    pub fn with_queue(self, queue: u32, wait_max: Duration, order: QueueOrder) -> Self {
        BulkheadConfig { queue, wait_max, order, ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_range("limit", self.limit, 1, 1_000_000)?;
        check_range("queue", self.queue, 0, 1_000_000)?;
        let (ms, hour) = (Duration::from_millis(1), Duration::from_secs(3_600));
        check_duration("wait_max", self.wait_max, ms, hour)
    }
}

/// A limit on concurrent calls. Clones are cheap and share the slots.
///
/// ```
/// use mainstay_resilience::{Bulkhead, BulkheadConfig};
///
/// let bulkhead = Bulkhead::new("uploads", BulkheadConfig::new(2))?;
/// let first = bulkhead.try_acquire().expect("a slot is free");
/// let second = bulkhead.try_acquire().expect("a slot is free");
/// assert!(bulkhead.try_acquire().is_err());
/// drop(first);
/// assert!(bulkhead.try_acquire().is_ok());
/// # drop(second);
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # Cancel safety
/// Dropping a permit gives its slot back; dropping the future of [`acquire`](Self::acquire) leaves
/// the queue, and gives back a slot that was granted meanwhile.
///
/// # For, and not for
/// For a dependency that is known to bear so many calls at a time: one slow dependency must not take
/// every thread, connection and megabyte. Where the number is unknown, use an
/// [`AdaptiveLimit`](crate::AdaptiveLimit).
///
/// # Parameters
/// Those of [`BulkheadConfig`], with their ranges and defaults.
///
/// # Cost
/// Two compare-and-swaps while a slot is free; to wait a lock, under which the logarithm of the calls
/// that wait is looked at, and an allocation or two.
///
/// # Time
/// Awaited callers wait with the sleeper they bring. Blocked ones, of
/// [`acquire_blocking`](Self::acquire_blocking) and of chains that run blocking, wait on a condition
/// variable, which a slot that comes free must be able to end: in real time, whatever clock the chain
/// has. With a [`ManualClock`](crate::ManualClock), which does not move by that, test the awaited form.
///
/// # Source
/// Nygard, *Release It!*, 2nd edition, chapter 5.
#[derive(Clone)]
pub struct Bulkhead(Arc<Shared>);

struct Shared {
    name: Name,
    slots: Slots,
    config: Mutex<BulkheadConfig>,
    is_lifo: AtomicU64,
    queue_max: AtomicU64,
    wait_nanos: AtomicU64,
    refused: Events,
    listeners: Listeners,
}

/// A slot, given back when dropped.
#[must_use = "a permit that is dropped at once gives its slot back"]
pub struct BulkheadPermit<'a>(&'a Shared);

/// A slot that outlives the borrow of its bulkhead, given back when dropped.
#[must_use = "a permit that is dropped at once gives its slot back"]
pub struct OwnedBulkheadPermit(Arc<Shared>);

impl Drop for BulkheadPermit<'_> {
    fn drop(&mut self) {
        self.0.slots.give_back(self.0.order());
    }
}

impl Drop for OwnedBulkheadPermit {
    fn drop(&mut self) {
        self.0.slots.give_back(self.0.order());
    }
}

impl Bulkhead {
    /// A bulkhead.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn new(name: impl Into<Arc<str>>, config: BulkheadConfig) -> Result<Self, ConfigError> {
        Bulkhead::build(name.into(), config, Listeners::default())
    }

    /// A bulkhead that tells `observer` about each refusal.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn observed(
        name: impl Into<Arc<str>>,
        config: BulkheadConfig,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        Bulkhead::build(name.into(), config, Listeners::one(observer))
    }

    fn build(
        name: Arc<str>,
        config: BulkheadConfig,
        listeners: Listeners,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let shared = Shared {
            name: name.into(),
            slots: Slots::new(config.limit),
            config: Mutex::new(config),
            is_lifo: AtomicU64::new(0),
            queue_max: AtomicU64::new(0),
            wait_nanos: AtomicU64::new(0),
            refused: Events::none(),
            listeners,
        };
        shared.install(&config);
        Ok(Bulkhead(Arc::new(shared)))
    }

    /// Takes a slot now, never waiting.
    ///
    /// # Errors
    /// The refusal, with the calls at a time and the calls waiting.
    #[inline]
    pub fn try_acquire(&self) -> Result<BulkheadPermit<'_>, Rejection> {
        self.0.try_take()?;
        Ok(BulkheadPermit(&self.0))
    }

    /// Takes a slot now, with a permit that may outlive this handle.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_owned(&self) -> Result<OwnedBulkheadPermit, Rejection> {
        self.0.try_take()?;
        Ok(OwnedBulkheadPermit(Arc::clone(&self.0)))
    }

    /// Takes a slot, waiting for one as long as the configuration allows.
    ///
    /// # Errors
    /// The refusal, when the queue is full or the wait too long.
    pub async fn acquire(
        &self,
        sleeper: &impl Sleeper,
        priority: Priority,
    ) -> Result<BulkheadPermit<'_>, Rejection> {
        self.0.enter(sleeper, priority, self.0.wait_max()).await?;
        Ok(BulkheadPermit(&self.0))
    }

    /// Takes a slot, blocking this thread as long as the configuration allows, in real time.
    ///
    /// # Errors
    /// The refusal, when the queue is full or the wait too long.
    pub fn acquire_blocking(&self, priority: Priority) -> Result<BulkheadPermit<'_>, Rejection> {
        self.0.enter_blocking(priority, self.0.wait_max())?;
        Ok(BulkheadPermit(&self.0))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Calls under way.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.0.slots.in_use()
    }

    /// Calls waiting. Callers that can slow down should when it rises.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.0.slots.waiting()
    }

    /// Calls refused since it was built.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.count()
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> BulkheadConfig {
        *lock(&self.0.config)
    }

    /// Changes limit and queue while running. Calls under way stay; with a higher limit, waiting
    /// calls start at once.
    ///
    /// # Errors
    /// The field that is out of range; then nothing changes.
    pub fn reconfigure(&self, config: BulkheadConfig) -> Result<(), ConfigError> {
        config.validate()?;
        *lock(&self.0.config) = config;
        self.0.install(&config);
        self.0.slots.set_limit(u64::from(config.limit), config.order);
        let name = &*self.0.name;
        self.0.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::Bulkhead });
        Ok(())
    }
}

/// A place in the queue, left when dropped before it was granted.
struct Place<'a> {
    shared: &'a Shared,
    waiter: Arc<Waiter>,
    granted: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.granted {
            self.shared.slots.leave(&self.waiter, self.shared.order());
        }
    }
}

impl Shared {
    fn install(&self, config: &BulkheadConfig) {
        self.is_lifo.store(u64::from(config.order == QueueOrder::Lifo), Ordering::Relaxed);
        self.queue_max.store(u64::from(config.queue), Ordering::Relaxed);
        self.wait_nanos.store(crate::clock::nanos(config.wait_max), Ordering::Relaxed);
    }

    fn order(&self) -> QueueOrder {
        let is_lifo = self.is_lifo.load(Ordering::Relaxed) != 0;
        if is_lifo { QueueOrder::Lifo } else { QueueOrder::Fifo }
    }

    fn wait_max(&self) -> Duration {
        Duration::from_nanos(self.wait_nanos.load(Ordering::Relaxed))
    }

    #[inline]
    fn try_take(&self) -> Result<(), Rejection> {
        match self.slots.try_take(self.slots.limit()) {
            Some(_) => Ok(()),
            None => self.full(),
        }
    }

    #[inline(never)]
    fn full<T>(&self) -> Result<T, Rejection> {
        let (limit, waiting) = (self.slots.limit(), self.slots.waiting());
        self.refuse(Reason::Full { limit, waiting })
    }

    #[inline]
    fn refuse<T>(&self, reason: Reason) -> Result<T, Rejection> {
        self.refused.happened();
        let refused = Err(Rejection::by(&self.name, PolicyKind::Bulkhead, reason, None));
        self.listeners.hear_refusal(&refused);
        refused
    }

    /// A slot at once, or a place in the queue.
    fn place(&self, priority: Priority) -> Result<Option<Place<'_>>, Rejection> {
        if self.slots.try_take(self.slots.limit()).is_some() {
            return Ok(None);
        }
        let queue_max = self.queue_max.load(Ordering::Relaxed) as usize;
        if queue_max == 0 {
            return self.full();
        }
        match self.slots.enter(priority, queue_max, self.order()) {
            Entered::Taken => Ok(None),
            Entered::Queued(waiter) => Ok(Some(Place { shared: self, waiter, granted: false })),
            Entered::Full => self.full(),
        }
    }

    async fn enter(
        &self,
        sleeper: &impl Sleeper,
        priority: Priority,
        wait_max: Duration,
    ) -> Result<(), Rejection> {
        let Some(mut place) = self.place(priority)? else {
            return Ok(());
        };
        let mut timer = pin!(sleeper.sleep(wait_max));
        place.granted = poll_fn(|cx| match place.waiter.poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| false),
        })
        .await;
        self.outcome(place.granted, wait_max)
    }

    fn enter_blocking(&self, priority: Priority, wait_max: Duration) -> Result<(), Rejection> {
        let Some(mut place) = self.place(priority)? else {
            return Ok(());
        };
        place.granted = place.waiter.wait(wait_max);
        self.outcome(place.granted, wait_max)
    }

    fn outcome(&self, granted: bool, waited: Duration) -> Result<(), Rejection> {
        if granted { Ok(()) } else { self.refuse(Reason::WaitedTooLong { waited }) }
    }

    /// How long a call in a chain may wait.
    fn wait_of(&self, attempt: &Attempt) -> Duration {
        self.wait_max().min(attempt.deadline().remaining(attempt.began()))
    }
}

impl<T: Send, E: Send> Strategy<T, E> for Bulkhead {
    #[expect(clippy::manual_async_fn, reason = "an `async fn` moves its arguments once more")]
    fn execute<N: Next<T, E>>(
        &self,
        mut attempt: Attempt,
        next: N,
    ) -> impl Future<Output = Done<T, E>> + Send {
        async move {
            if self.0.slots.try_take(self.0.slots.limit()).is_none() {
                let wait = self.0.wait_of(&attempt);
                let entered = self.0.enter(next.env().sleeper(), attempt.priority(), wait).await;
                attempt.now = later(attempt.now, next.env().now());
                if let Err(rejection) = entered {
                    return Done::rejected(rejection, attempt.began());
                }
            }
            let permit = BulkheadPermit(&self.0);
            let done = next.run(attempt).await;
            drop(permit);
            done
        }
    }
}

impl<T, E> BlockingStrategy<T, E> for Bulkhead {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let mut attempt = attempt;
        if self.0.slots.try_take(self.0.slots.limit()).is_none() {
            let entered = self.0.enter_blocking(attempt.priority(), self.0.wait_of(&attempt));
            attempt.now = later(attempt.now, next.now());
            if let Err(rejection) = entered {
                return Done::rejected(rejection, attempt.began());
            }
        }
        let permit = BulkheadPermit(&self.0);
        let done = next.run(attempt);
        drop(permit);
        done
    }
}

/// The later of two readings: coarse ones may step back behind precise ones.
fn later(one: Tick, other: Tick) -> Tick {
    one.max(other)
}

impl Describe for Bulkhead {
    fn part(&self) -> Part {
        let config = self.config();
        let text = format!("{} at a time, {} waiting", config.limit, config.queue);
        Part::new(PolicyKind::Bulkhead, self.0.name.shared(), text).sharing(&self.0)
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bulkhead({}, {} of {})", self.0.name, self.in_use(), self.0.slots.limit())
    }
}

impl fmt::Debug for BulkheadPermit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BulkheadPermit({})", self.0.name)
    }
}

impl fmt::Debug for OwnedBulkheadPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedBulkheadPermit({})", self.0.name)
    }
}
