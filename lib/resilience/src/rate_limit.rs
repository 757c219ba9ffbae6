//! Rate limits: how many calls, or how much cost, per time.
//!
//! What each algorithm guarantees stands at [`Algorithm`].
//!
//! Cost: a coarse clock reading and one compare-and-swap (a short lock for the windows).
//! Limits may change while running; what is used up stays used up.

mod fixed_window;
mod gcra;
mod keyed;
mod keyed_lease;
mod lease;
mod sliding_window;
mod turns;

pub use keyed::{KeyedConfig, KeyedRateLimiter, WhenFull};
pub use keyed_lease::KeyedLeasedLimiter;
pub use lease::{Lease, LeasedLimiter, QuotaSource, WithoutSource};

use crate::attempt::Attempt;
use crate::clock::{Clock, PRECISE_BELOW, Precision, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::event::{Event, Listeners, Observer};
use crate::human_duration;
use crate::human_duration::check_duration;
use crate::name::Name;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::sleeper::Sleeper;
use crate::strategy::{Describe, Part};
use crate::stripes::Events;
use crate::sync::{AtomicU64, Mutex, Ordering, OwnLine, lock};
use fixed_window::FixedWindow;
use gcra::{AtOnce, Gcra};
use sliding_window::SlidingWindow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use turns::{TakesTurns, Turn};

/// The fastest rate: the clock and the arithmetic keep it exact to 0.1 %.
const PER_SECOND_MAX: f64 = 10_000_000.0;

/// How a rate is limited.
///
/// | algorithm | for | admitted in any period | state |
/// |---|---|---|---|
/// | [`TokenBucket`](Self::TokenBucket) | bursts are fine, the average counts | ≤ limit + burst | 8 bytes |
/// | [`LeakyBucket`](Self::LeakyBucket) | even spacing; callers wait their turn | ≤ limit + 1 | 8 bytes |
/// | [`FixedWindow`](Self::FixedWindow) | quotas that are sold per minute or day | ≤ 2 × limit, across a boundary | 24 bytes |
/// | [`SlidingWindow`](Self::SlidingWindow) | hard quotas of somebody else | ≤ limit, always | 21 counters |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Algorithm {
    /// Tokens drip in at the rate and are saved up to the burst: the burst at once, then the rate.
    /// Source: GCRA, ITU-T I.371.
    TokenBucket,
    /// Calls leave at the rate, one after the other; each is told how long to wait.
    LeakyBucket,
    /// At most the limit in each period since the clock's origin. A period that begins within one of
    /// them may see up to twice the limit: all of the one before at its end, all of the next at once.
    FixedWindow,
    /// At most the limit in any period, wherever it begins. Counts in 20 slices and never errs
    /// towards more: a slice counts until all of it is over.
    SlidingWindow,
}

/// Everything a rate limiter can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct RateConfig {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Cost allowed per period, 1 to 1 000 000 000; a plain call costs 1, another what its
    /// [`Context::cost`](crate::Context::cost) says.
    pub limit: u32,
    /// The period, 1 ms to 1 day; at most 10 million per second in all.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub period: Duration,
    /// Token bucket: cost that can be saved up, 1 to 1 000 000 000. Others ignore it. 0 means
    /// `limit`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub burst: u32,
    /// In a chain: how long a call may wait for its turn, 0 to 1 h. Default 0: it is refused.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::serde_duration"))]
    pub wait_max: Duration,
}

impl RateConfig {
    /// `limit` per `period`, refusing what is more.
    #[must_use]
    pub fn new(algorithm: Algorithm, limit: u32, period: Duration) -> Self {
        RateConfig { algorithm, limit, period, burst: 0, wait_max: Duration::ZERO }
    }

    /// `limit` per second.
    #[must_use]
    pub fn per_second(algorithm: Algorithm, limit: u32) -> Self {
        RateConfig::new(algorithm, limit, Duration::from_secs(1))
    }

    /// The same with another burst.
    #[must_use]
    pub fn with_burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// The same, letting calls in a chain wait for their turn.
    #[must_use]
    pub fn with_wait_max(mut self, wait: Duration) -> Self {
        self.wait_max = wait;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (ms, day) = (Duration::from_millis(1), Duration::from_secs(86_400));
        check_range("limit", self.limit, 1, 1_000_000_000)?;
        check_duration("period", self.period, ms, day)?;
        check_range("burst", self.burst, 0, 1_000_000_000)?;
        check_duration("wait_max", self.wait_max, Duration::ZERO, Duration::from_secs(3_600))?;
        if f64::from(self.limit) / self.period.as_secs_f64() > PER_SECOND_MAX {
            let allowed = format!("at most {PER_SECOND_MAX} per second");
            return Err(ConfigError::new("limit", self.limit, allowed));
        }
        Ok(())
    }

    fn rule(&self) -> Rule {
        let burst = match self.algorithm {
            Algorithm::TokenBucket if self.burst > 0 => self.burst,
            Algorithm::LeakyBucket => 1,
            _ => self.limit,
        };
        Rule::new(self.limit, crate::clock::nanos(self.period), burst)
    }

    /// What a chain shows of it.
    fn text(&self) -> String {
        format!("{} per {}", self.limit, human_duration::format(self.period))
    }

    /// The coarse clock lags by up to 10 ms; that must not be more than a tenth of what the rule
    /// measures: the period, or the time in which a bucket fills.
    fn precision(&self) -> Precision {
        let rule = self.rule();
        let fill = Duration::from_nanos((rule.period / rule.limit).saturating_mul(rule.burst));
        let measured = match self.algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => fill,
            _ => self.period / sliding_window::SLICES,
        };
        if measured < PRECISE_BELOW { Precision::Precise } else { Precision::Coarse }
    }
}

/// The figures that the algorithms work with; nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    limit: u64,
    period: u64,
    burst: u64,
    /// Sixteenths of nanoseconds in which one token drips in, computed once instead of per call.
    interval: u64,
    /// Sixteenths of nanoseconds in which the burst drips in.
    depth: u64,
}

impl Rule {
    fn new(limit: u32, period: u64, burst: u32) -> Self {
        let (limit, burst) = (u64::from(limit), u64::from(burst));
        let interval = gcra::interval(limit, period);
        Rule { limit, period, burst, interval, depth: burst.saturating_mul(interval) }
    }
}

/// A rule that may change while it is read. Its figures change one after the other: a call that
/// runs meanwhile may be measured by some of the old and some of the new.
struct RuleCell {
    limit: AtomicU64,
    period: AtomicU64,
    burst: AtomicU64,
    interval: AtomicU64,
    depth: AtomicU64,
}

impl RuleCell {
    fn new(rule: Rule) -> Self {
        RuleCell {
            limit: AtomicU64::new(rule.limit),
            period: AtomicU64::new(rule.period),
            burst: AtomicU64::new(rule.burst),
            interval: AtomicU64::new(rule.interval),
            depth: AtomicU64::new(rule.depth),
        }
    }

    fn store(&self, rule: Rule) {
        self.limit.store(rule.limit, Ordering::Relaxed);
        self.period.store(rule.period, Ordering::Relaxed);
        self.burst.store(rule.burst, Ordering::Relaxed);
        self.interval.store(rule.interval, Ordering::Relaxed);
        self.depth.store(rule.depth, Ordering::Relaxed);
    }

    #[inline]
    fn load(&self) -> Rule {
        Rule {
            limit: self.limit.load(Ordering::Relaxed),
            period: self.period.load(Ordering::Relaxed),
            burst: self.burst.load(Ordering::Relaxed),
            interval: self.interval.load(Ordering::Relaxed),
            depth: self.depth.load(Ordering::Relaxed),
        }
    }
}

/// Why a meter refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Enough will be free after so many nanoseconds.
    Later(u64),
    /// It can never be admitted; the most that can.
    Never(u64),
}

/// What is used up, under one of the algorithms.
#[derive(Debug)]
enum Meter {
    Gcra(Gcra),
    Fixed(Mutex<FixedWindow>),
    Sliding(Mutex<SlidingWindow>),
}

impl Meter {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => Meter::Gcra(Gcra::default()),
            Algorithm::FixedWindow => Meter::Fixed(Mutex::new(FixedWindow::default())),
            Algorithm::SlidingWindow => Meter::Sliding(Mutex::new(SlidingWindow::default())),
        }
    }

    /// Takes `cost` now, or books it for up to `wait_max` later where the algorithm can; returns
    /// the wait. All in nanoseconds.
    #[inline]
    fn take(&self, rule: &Rule, cost: u64, now: Tick, wait_max: u64) -> Result<u64, Refusal> {
        match self {
            Meter::Gcra(gcra) => gcra.take(rule, cost, now, wait_max),
            Meter::Fixed(window) => lock(window).take(rule, cost, now).map(|()| 0),
            Meter::Sliding(window) => lock(window).take(rule, cost, now).map(|()| 0),
        }
    }

    /// Takes `cost` now, for a caller that nobody can get in the way of.
    #[inline]
    fn take_alone(&mut self, rule: &Rule, cost: u64, now: Tick) -> Result<(), Refusal> {
        match self {
            Meter::Gcra(gcra) => gcra.take_alone(rule, cost, now),
            Meter::Fixed(window) => lock(window).take(rule, cost, now),
            Meter::Sliding(window) => lock(window).take(rule, cost, now),
        }
    }

    /// What could be taken now.
    fn available(&self, rule: &Rule, now: Tick) -> u64 {
        match self {
            Meter::Gcra(gcra) => gcra.available(rule, now),
            Meter::Fixed(window) => lock(window).available(rule, now),
            Meter::Sliding(window) => lock(window).available(rule, now),
        }
    }

    /// Whether nothing is used up or booked ahead any more: a new meter would answer the same.
    fn is_whole(&self, rule: &Rule, now: Tick) -> bool {
        self.available(rule, now) >= rule.burst
    }
}

/// A rate limiter. Clones are cheap and share what is used up.
///
/// ```
/// use mainstay_resilience::{Algorithm, RateConfig, RateLimiter};
///
/// let limiter = RateLimiter::new("api", RateConfig::per_second(Algorithm::TokenBucket, 2))?;
/// assert!(limiter.try_acquire().is_ok());
/// assert!(limiter.try_acquire().is_ok());
/// let refused = limiter.try_acquire().unwrap_err();
/// assert_eq!(refused.to_string(), "rate_limiter api refused the call: more than 2 per 1s");
/// assert!(refused.retry_after().is_some());
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # Cancel safety
/// What was taken stays taken: a cancelled wait does not give its booking back. There is no permit and
/// no rule on drops: the limit is on calls that begin, whatever becomes of them.
///
/// # For, and not for
/// For a number of calls, or of cost, per time; [`Algorithm`] says which is for what. Not for a number
/// of calls at a time: that is a [`Bulkhead`](crate::Bulkhead).
///
/// # Parameters
/// Those of [`RateConfig`], with their ranges and defaults.
///
/// # Cost
/// A coarse clock reading and one compare-and-swap for the buckets, a short lock for the windows; the
/// precise clock where less than 100 ms is measured.
///
/// # Source
/// Buckets: generic cell rate algorithm, ITU-T I.371, annex A.
#[derive(Clone)]
pub struct RateLimiter(Arc<Shared>);

struct Shared {
    name: Name,
    clock: Clock,
    meter: OwnLine<Meter>,
    algorithm: Algorithm,
    rule: RuleCell,
    precise: AtomicU64,
    wait_nanos: AtomicU64,
    config: Mutex<RateConfig>,
    refused: Events,
    listeners: Listeners,
}

impl RateLimiter {
    /// A limiter on the system's clock.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn new(name: impl Into<Arc<str>>, config: RateConfig) -> Result<Self, ConfigError> {
        RateLimiter::with_clock(name, config, Clock::system())
    }

    /// A limiter on `clock`.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn with_clock(
        name: impl Into<Arc<str>>,
        config: RateConfig,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        RateLimiter::build(name.into(), config, clock, Listeners::default())
    }

    /// A limiter that tells `observer` about each refusal.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn observed(
        name: impl Into<Arc<str>>,
        config: RateConfig,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        RateLimiter::build(name.into(), config, clock, Listeners::one(observer))
    }

    fn build(
        name: Arc<str>,
        config: RateConfig,
        clock: Clock,
        listeners: Listeners,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let shared = Shared {
            name: name.into(),
            clock,
            meter: OwnLine(Meter::new(config.algorithm)),
            algorithm: config.algorithm,
            rule: RuleCell::new(config.rule()),
            precise: AtomicU64::new(0),
            wait_nanos: AtomicU64::new(0),
            config: Mutex::new(config),
            refused: Events::none(),
            listeners,
        };
        shared.install(&config);
        Ok(RateLimiter(Arc::new(shared)))
    }

    /// Takes one call's worth now.
    ///
    /// # Errors
    /// The refusal, with the time after which there is enough.
    #[inline]
    pub fn try_acquire(&self) -> Result<(), Rejection> {
        self.try_acquire_cost(1)
    }

    /// Takes `cost` now; a cost of 0 is free.
    ///
    /// # Errors
    /// The refusal, with the time after which there is enough; never, if it can never be.
    #[inline]
    pub fn try_acquire_cost(&self, cost: u32) -> Result<(), Rejection> {
        self.take_at(cost, self.0.now())
    }

    /// Takes `cost` now, at a time that was read already.
    #[inline]
    fn take_at(&self, cost: u32, now: Tick) -> Result<(), Rejection> {
        let shared = &*self.0;
        // A bucket that has enough is nearly every call; everything else is out of line.
        let seen = match &*shared.meter {
            Meter::Gcra(bucket) => bucket.take_at_once(&shared.rule, u64::from(cost), now),
            _ => AtOnce::Unknown,
        };
        match seen {
            AtOnce::Taken => Ok(()),
            seen => self.take_otherwise(cost, now, seen),
        }
    }

    #[inline(never)]
    fn take_otherwise(&self, cost: u32, now: Tick, seen: AtOnce) -> Result<(), Rejection> {
        match seen {
            AtOnce::Later(wait) => self.0.refuse_for(wait),
            _ => self.take_carefully(cost, now),
        }
    }

    #[inline(never)]
    fn take_carefully(&self, cost: u32, now: Tick) -> Result<(), Rejection> {
        let (shared, cost) = (&*self.0, u64::from(cost));
        let rule = shared.rule.load();
        match shared.meter.take(&rule, cost, now, 0) {
            Ok(_) => Ok(()),
            Err(refusal) => shared.refuse(&rule, cost, refusal),
        }
    }

    /// Books `cost` and says how long to wait before using it, at most `wait_max`. The buckets book
    /// ahead; the windows only admit what fits now.
    ///
    /// # Errors
    /// The refusal; nothing is booked.
    pub fn reserve(&self, cost: u32, wait_max: Duration) -> Result<Duration, Rejection> {
        self.take(cost, self.0.now(), wait_max)
    }

    /// Takes `cost`, blocking this thread until it is its turn, for at most `wait_max` in all.
    ///
    /// # Errors
    /// The refusal, when the turn would come later than that.
    pub fn acquire_blocking(&self, cost: u32, wait_max: Duration) -> Result<(), Rejection> {
        let begin = self.0.now();
        let mut now = begin;
        loop {
            match self.turn(cost, now, begin.after(wait_max))? {
                Turn::Now => return Ok(()),
                Turn::Booked(wait) => {
                    self.0.clock.pause(wait);
                    return Ok(());
                }
                Turn::Again(wait) => self.0.clock.pause(wait),
            }
            now = self.0.now();
        }
    }

    /// Takes `cost`, waiting until it is its turn, for at most `wait_max` in all.
    ///
    /// # Errors
    /// The refusal, when the turn would come later than that.
    pub async fn acquire(
        &self,
        sleeper: &impl Sleeper,
        cost: u32,
        wait_max: Duration,
    ) -> Result<(), Rejection> {
        let begin = self.0.now();
        let mut now = begin;
        loop {
            match self.turn(cost, now, begin.after(wait_max))? {
                Turn::Now => return Ok(()),
                Turn::Booked(wait) => {
                    sleeper.sleep(wait).await;
                    return Ok(());
                }
                Turn::Again(wait) => sleeper.sleep(wait).await,
            }
            now = self.0.now();
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> RateConfig {
        *lock(&self.0.config)
    }

    /// Changes limit, period, burst and wait while running. What is used up stays so: a bucket keeps
    /// the time until it is full again, a fixed window the count of the window under way, a sliding
    /// window its count, which with another period counts as used just now.
    ///
    /// # Errors
    /// The field that is out of range, or another algorithm; then nothing changes.
    pub fn reconfigure(&self, config: RateConfig) -> Result<(), ConfigError> {
        config.validate()?;
        if config.algorithm != self.0.algorithm {
            let allowed = format!("{:?}, which it was built with", self.0.algorithm);
            return Err(ConfigError::new("algorithm", format!("{:?}", config.algorithm), allowed));
        }
        *lock(&self.0.config) = config;
        self.0.install(&config);
        // Looking moves a window over to the new rule now instead of at the next call.
        let _ = self.available();
        let name = &*self.0.name;
        self.0.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::RateLimiter });
        Ok(())
    }

    /// What could be taken now.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.0.meter.available(&self.0.rule.load(), self.0.now())
    }

    /// Whether nothing is used up or booked ahead any more.
    fn is_whole(&self) -> bool {
        self.0.meter.is_whole(&self.0.rule.load(), self.0.now())
    }

    /// Calls refused since it was built.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.count()
    }

    #[inline]
    fn take(&self, cost: u32, now: Tick, wait_max: Duration) -> Result<Duration, Rejection> {
        let rule = self.0.rule.load();
        match self.0.meter.take(&rule, u64::from(cost), now, crate::clock::nanos(wait_max)) {
            Ok(wait) => Ok(Duration::from_nanos(wait)),
            Err(refusal) => self.0.refuse(&rule, u64::from(cost), refusal),
        }
    }

    /// The next turn of a caller that waits until `end` at most.
    #[inline]
    fn turn(&self, cost: u32, now: Tick, end: Tick) -> Result<Turn, Rejection> {
        if let Meter::Gcra(bucket) = &*self.0.meter
            && let AtOnce::Taken = bucket.take_at_once(&self.0.rule, u64::from(cost), now)
        {
            return Ok(Turn::Now);
        }
        self.turn_carefully(cost, now, end)
    }

    #[inline(never)]
    fn turn_carefully(&self, cost: u32, now: Tick, end: Tick) -> Result<Turn, Rejection> {
        match self.take(cost, now, end.since(now)) {
            Ok(Duration::ZERO) => Ok(Turn::Now),
            Ok(wait) => Ok(Turn::Booked(wait)),
            Err(rejection) => match rejection.retry_after() {
                Some(wait) if now.after(wait) <= end => Ok(Turn::Again(wait)),
                _ => Err(rejection),
            },
        }
    }
}

impl Shared {
    fn install(&self, config: &RateConfig) {
        self.rule.store(config.rule());
        let precise = config.precision() == Precision::Precise;
        self.precise.store(u64::from(precise), Ordering::Relaxed);
        self.wait_nanos.store(crate::clock::nanos(config.wait_max), Ordering::Relaxed);
    }

    #[inline]
    fn now(&self) -> Tick {
        let precise = self.precise.load(Ordering::Relaxed) != 0;
        self.clock.read(if precise { Precision::Precise } else { Precision::Coarse })
    }

    /// Refuses a call for which there is enough after so many nanoseconds. On its own, because a
    /// refusal is then made where it is returned, and one that is moved waits for its own stores.
    #[inline(never)]
    fn refuse_for(&self, wait: u64) -> Result<(), Rejection> {
        self.refused.happened();
        let (limit, period) = (&self.rule.limit, &self.rule.period);
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let refused = Err(Rejection::rate_exceeded(&self.name, read(limit), read(period), wait));
        self.listeners.hear_refusal(&refused);
        refused
    }

    #[inline]
    fn refuse<T>(&self, rule: &Rule, cost: u64, refusal: Refusal) -> Result<T, Rejection> {
        self.refused.happened();
        let refused = Err(rejection(&self.name, rule, cost, refusal));
        self.listeners.hear_refusal(&refused);
        refused
    }
}

#[inline]
fn rejection(name: &Name, rule: &Rule, cost: u64, refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::Later(wait) => Rejection::rate_exceeded(name, rule.limit, rule.period, wait),
        Refusal::Never(limit) => {
            let reason = Reason::CostAboveLimit { cost, limit };
            Rejection::by(name, PolicyKind::RateLimiter, reason, None)
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RateLimiter({})", self.0.name)
    }
}

impl TakesTurns for RateLimiter {
    #[inline]
    fn turn_of(&self, attempt: &Attempt, end: Tick) -> Result<Turn, Rejection> {
        self.turn(attempt.cost, attempt.began(), end)
    }

    #[inline]
    fn wait_max(&self) -> Duration {
        Duration::from_nanos(self.0.wait_nanos.load(Ordering::Relaxed))
    }
}

impl Describe for RateLimiter {
    fn part(&self) -> Part {
        let config = self.config();
        Part::new(PolicyKind::RateLimiter, self.0.name.shared(), config.text())
            .sharing(&self.0)
            .on_clock(&self.0.clock)
    }

    #[inline]
    fn is_precise(&self) -> bool {
        self.0.precise.load(Ordering::Relaxed) != 0
    }
}
