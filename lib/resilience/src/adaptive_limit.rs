//! Adaptive concurrency limit: finds by itself how many calls a dependency bears, and under load
//! keeps its slots for what matters.
//!
//! For servers and dependencies whose capacity is unknown or changes. Not for work whose duration
//! depends on the request far more than on load (a mix of microseconds and minutes): split it into
//! one limit each.
//!
//! What counts: the round trips of successes, and timeouts and refusals for load. Fast failures
//! count for nothing: a dependency that refuses in a microsecond looks fast, not healthy.
//!
//! Cost: two compare-and-swaps, two precise clock readings and a short lock per call.

mod law;

use crate::attempt::Attempt;
use crate::breaker::DropRule;
use crate::clock::{Clock, Tick, nanos};
use crate::config_error::{ConfigError, check_range};
use crate::context::{Context, Priority};
use crate::error_kind::{ErrorKind, Verdict};
use crate::event::{Event, Listeners, Observer};
use crate::human_duration::check_duration;
use crate::name::Name;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::shares::Shares;
use crate::slots::{QueueOrder, Slots};
use crate::strategy::{BlockingNext, BlockingStrategy, Describe, Done, Next, Part, Strategy};
use crate::stripes::Events;
use crate::sync::{Mutex, lock};
use law::{Memory, Sample};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The law that a limit follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Law {
    /// One more after a good window, a share less after a bad one. It has no baseline: by default it
    /// sees overload by timeouts and refusals for load alone, and grows through slowness up to `max`;
    /// with `healthy_rtt_max` it sees that as well.
    Aimd,
    /// Estimates the queue from its baseline, the shortest round trip of ten minutes.
    Vegas,
    /// Compares the present round trip with its baseline, the long mean.
    #[default]
    Gradient2,
}

/// Everything an adaptive limit can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct AdaptiveConfig {
    /// The law. Default Gradient2.
    pub law: Law,
    /// The limit at first, `min` to `max`. Default 20.
    pub initial: u32,
    /// The lowest limit, 1 to 1 000 000. Default 5: it can never collapse to one.
    pub min: u32,
    /// The highest limit, `min` to 1 000 000. Default 1 000.
    pub max: u32,
    /// What the limit is multiplied by after overload, 0.5 to 0.99. Default 0.9.
    pub backoff: f64,
    /// Gradient2: how much longer than the long mean is still fine, 1 to 10. Default 1.5.
    pub tolerance: f64,
    /// Round trips longer than this are never taken for normal, 0 to 1 h. Default 0: unknown, and
    /// `drift_max` alone bounds the baseline.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub healthy_rtt_max: Duration,
    /// Vegas and Gradient2, without `healthy_rtt_max`: the baseline is at most this many times the best
    /// mean round trip that a `window` of the last 24 h had, 1 to 1 000. Default 3. So an incident of
    /// less than a day does not become normal, whatever it does to round trips; what lasts longer does.
    /// A dependency that is slower than that for good keeps the limit near `min` until the day is over.
    pub drift_max: f64,
    /// The limit moves at most this often, 1 ms to 1 min, and after at least 10 results. Default
    /// 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub window: Duration,
    /// How a permit that is dropped without a record counts: not at all, or as an overload, always
    /// or from a duration of 1 ms to 1 day. Default [`DropRule::Neutral`]. Under a timeout outside,
    /// a call that hangs is such a drop, and the only sign of it.
    pub on_drop: DropRule,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        AdaptiveConfig {
            law: Law::Gradient2,
            initial: 20,
            min: 5,
            max: 1_000,
            backoff: 0.9,
            tolerance: 1.5,
            healthy_rtt_max: Duration::ZERO,
            drift_max: 3.0,
            window: Duration::from_millis(100),
            on_drop: DropRule::Neutral,
        }
    }
}

impl AdaptiveConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_range("min", self.min, 1, 1_000_000)?;
        check_range("max", self.max, self.min, 1_000_000)?;
        check_range("initial", self.initial, self.min, self.max)?;
        check_range("backoff", self.backoff, 0.5, 0.99)?;
        check_range("tolerance", self.tolerance, 1.0, 10.0)?;
        let hour = Duration::from_secs(3_600);
        check_duration("healthy_rtt_max", self.healthy_rtt_max, Duration::ZERO, hour)?;
        check_range("drift_max", self.drift_max, 1.0, 1_000.0)?;
        let (ms, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        check_duration("window", self.window, ms, minute)?;
        self.on_drop.validate()
    }
}

/// Results that a window needs before the limit moves.
const SAMPLES_MIN: u64 = 10;

/// The share of the limit, in percent, up to which each priority is admitted, least important
/// first: the last slots are kept for what matters.
const ADMITTED_PERCENT: [u64; 5] = [50, 70, 90, 97, 100];

/// From this share of the limit in use, in percent, callers are held to equal shares.
const PRESSURE_PERCENT: u64 = 75;

/// An adaptive limit. Clones share it.
///
/// ```
/// use mainstay_resilience::{AdaptiveConfig, AdaptiveLimit, Context};
///
/// let limit = AdaptiveLimit::new("opensearch", AdaptiveConfig::default())?;
/// let permit = limit.try_acquire(Context::default()).expect("20 slots are free");
/// permit.success();
/// assert_eq!(limit.limit(), 20);
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # Cancel safety
/// A permit that is dropped gives its slot back, and counts by [`AdaptiveConfig::on_drop`]; one that is
/// dropped in a panic teaches nothing, as any fast failure.
///
/// # For, and not for
/// For dependencies whose capacity is unknown or changes. Not for work whose duration depends on the
/// request far more than on load: split it into one limit each.
///
/// The baseline of [`Law::Vegas`] and [`Law::Gradient2`], what they take for a round trip without load,
/// follows the dependency up to a bound: [`healthy_rtt_max`](AdaptiveConfig::healthy_rtt_max) where it is
/// set, else [`drift_max`](AdaptiveConfig::drift_max) times the best of a day. Where round trips differ
/// more than that by what is asked, set the former.
///
/// Successes teach by their duration, timeouts and refusals for load as overload; fast failures teach
/// nothing. Priorities are admitted up to 50, 70, 90, 97 and 100 % of the limit, least important first;
/// above 75 % a caller may hold an equal share of it.
///
/// # Parameters
/// Those of [`AdaptiveConfig`], with their ranges and defaults.
///
/// # Cost
/// Two compare-and-swaps, two precise clock readings and a short lock; one more lock with a caller.
///
/// # Source
/// AIMD: Chiu and Jain (1989). Vegas: Brakmo and Peterson (1995). Gradient2: Netflix
/// concurrency-limits. The bound on the baseline: the windowed minimum of BBR, Cardwell et al. (2016).
#[derive(Clone)]
pub struct AdaptiveLimit(Arc<Shared>);

struct Shared {
    name: Name,
    clock: Clock,
    slots: Slots,
    teacher: Mutex<Teacher>,
    shares: Mutex<Shares>,
    refused: Events,
    listeners: Listeners,
}

struct Teacher {
    config: AdaptiveConfig,
    limit: f64,
    memory: Memory,
    window: WindowSum,
}

#[derive(Default)]
struct WindowSum {
    began: Tick,
    successes: u64,
    overloads: u64,
    rtt_nanos: u64,
    rtt_nanos_min: u64,
    in_flight_max: u64,
}

/// A slot with the time at which it was taken.
struct Held<S: Deref<Target = Shared>> {
    shared: S,
    began: Tick,
    caller: Option<u64>,
    in_flight: u64,
    settled: bool,
}

/// What an admitted call must remember.
struct Admitted {
    caller: Option<u64>,
    in_flight: u64,
}

impl AdaptiveLimit {
    /// A limit on the system's clock.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn new(name: impl Into<Arc<str>>, config: AdaptiveConfig) -> Result<Self, ConfigError> {
        AdaptiveLimit::build(name.into(), config, Clock::system(), Listeners::default())
    }

    /// A limit on `clock` that tells `observer` about refusals and moves.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn observed(
        name: impl Into<Arc<str>>,
        config: AdaptiveConfig,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        AdaptiveLimit::build(name.into(), config, clock, Listeners::one(observer))
    }

    /// A limit on `clock`.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn with_clock(
        name: impl Into<Arc<str>>,
        config: AdaptiveConfig,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        AdaptiveLimit::build(name.into(), config, clock, Listeners::default())
    }

    fn build(
        name: Arc<str>,
        config: AdaptiveConfig,
        clock: Clock,
        listeners: Listeners,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let window = WindowSum { began: clock.now(), ..WindowSum::default() };
        let (limit, memory) = (f64::from(config.initial), Memory::default());
        Ok(AdaptiveLimit(Arc::new(Shared {
            name: name.into(),
            clock,
            slots: Slots::new(config.initial),
            teacher: Mutex::new(Teacher { config, limit, memory, window }),
            shares: Mutex::new(Shares::default()),
            refused: Events::none(),
            listeners,
        })))
    }

    /// Takes a slot, if the priority and the caller's share allow it under the present load.
    ///
    /// # Errors
    /// The refusal: full, priority too low, or share exceeded.
    pub fn try_acquire(&self, context: Context) -> Result<AdaptivePermit<'_>, Rejection> {
        Ok(AdaptivePermit(self.hold(context.priority, context.caller, self.0.clock.now())?))
    }

    /// As [`try_acquire`](Self::try_acquire), with a permit that may outlive this handle.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_owned(&self, context: Context) -> Result<OwnedAdaptivePermit, Rejection> {
        let (shared, began) = (Arc::clone(&self.0), self.0.clock.now());
        let Admitted { caller, in_flight } = shared.admit(context.priority, context.caller)?;
        Ok(OwnedAdaptivePermit(Held { shared, began, caller, in_flight, settled: false }))
    }

    fn hold(
        &self,
        priority: Priority,
        caller: Option<u64>,
        began: Tick,
    ) -> Result<Held<&Shared>, Rejection> {
        let Admitted { caller, in_flight } = self.0.admit(priority, caller)?;
        Ok(Held { shared: &self.0, began, caller, in_flight, settled: false })
    }

    /// The limit now.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.slots.limit()
    }

    /// Calls under way.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.0.slots.in_use()
    }

    /// How full it is, 0 to 1 and above while a limit that fell is still exceeded. Callers that can
    /// slow down should from about 0.75.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        self.in_use() as f64 / self.limit().max(1) as f64
    }

    /// Calls refused since it was built.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.count()
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> AdaptiveConfig {
        lock(&self.0.teacher).config
    }

    /// Changes the configuration; the limit stays where it is, within the new bounds.
    ///
    /// # Errors
    /// The field that is out of range; then nothing changes.
    pub fn reconfigure(&self, config: AdaptiveConfig) -> Result<(), ConfigError> {
        config.validate()?;
        {
            let mut teacher = lock(&self.0.teacher);
            teacher.config = config;
            teacher.limit = teacher.limit.clamp(f64::from(config.min), f64::from(config.max));
            self.0.slots.set_limit(teacher.limit as u64, QueueOrder::Fifo);
        }
        let name = &*self.0.name;
        self.0.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::AdaptiveLimit });
        Ok(())
    }
}

impl Shared {
    fn admit(&self, priority: Priority, caller: Option<u64>) -> Result<Admitted, Rejection> {
        let limit = self.slots.limit();
        let ceiling = |level: u32| (limit * ADMITTED_PERCENT[level as usize]).div_ceil(100);
        let Some(in_flight) = self.slots.try_take(ceiling(priority.level())) else {
            let in_use = self.slots.in_use();
            let admitted = Priority::ALL.iter().find(|level| ceiling(level.level()) > in_use);
            let reason = match admitted {
                Some(level) => Reason::PriorityTooLow { admitted_from: level.level() },
                None => Reason::Full { limit, waiting: 0 },
            };
            return Err(self.refuse(reason));
        };
        if let Some(caller) = caller {
            let under_pressure = in_flight * 100 > limit * PRESSURE_PERCENT;
            let taken = lock(&self.shares).take(caller, under_pressure.then_some(limit));
            if let Err(share) = taken {
                self.slots.give_back(QueueOrder::Fifo);
                return Err(self.refuse(Reason::ShareExceeded { share }));
            }
        }
        Ok(Admitted { caller, in_flight })
    }

    #[cold]
    fn refuse(&self, reason: Reason) -> Rejection {
        self.refused.happened();
        let rejection = Rejection::by(&self.name, PolicyKind::AdaptiveLimit, reason, None);
        self.listeners.emit(|| Event::Rejected(&rejection));
        rejection
    }

    /// Takes in one result; `rtt` is `None` for an overload.
    fn learn(&self, rtt: Option<Duration>, in_flight: u64, now: Tick) {
        let moved = {
            let mut teacher = lock(&self.teacher);
            teacher.window.take_in(rtt, in_flight);
            let elapsed = now.since(teacher.window.began);
            let results = teacher.window.successes + teacher.window.overloads;
            if elapsed < teacher.config.window || results < SAMPLES_MIN {
                return;
            }
            let Teacher { config, limit, memory, window } = &mut *teacher;
            let sample = window.sample();
            *window = WindowSum { began: now, ..WindowSum::default() };
            let next = memory.follow(config, *limit, &sample, elapsed);
            *limit = next.clamp(f64::from(config.min), f64::from(config.max));
            let (from, to) = (self.slots.limit(), *limit as u64);
            if from != to {
                self.slots.set_limit(to, QueueOrder::Fifo);
            }
            (from, to)
        };
        let (from, to) = moved;
        if from != to {
            let name = &*self.name;
            self.listeners.emit(|| Event::LimitChanged { name, from, to });
        }
    }
}

impl WindowSum {
    fn take_in(&mut self, rtt: Option<Duration>, in_flight: u64) {
        self.in_flight_max = self.in_flight_max.max(in_flight);
        match rtt.map(nanos) {
            Some(rtt) => {
                let first = self.successes == 0;
                self.successes += 1;
                self.rtt_nanos = self.rtt_nanos.saturating_add(rtt);
                self.rtt_nanos_min = if first { rtt } else { self.rtt_nanos_min.min(rtt) };
            }
            None => self.overloads += 1,
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            rtt_mean: self.rtt_nanos as f64 / 1e9 / self.successes.max(1) as f64,
            rtt_min: self.rtt_nanos_min as f64 / 1e9,
            successes: self.successes,
            overloads: self.overloads,
            in_flight_max: self.in_flight_max,
        }
    }
}

impl<S: Deref<Target = Shared>> Held<S> {
    fn settle(&mut self, verdict: &Verdict) {
        let now = self.shared.clock.now();
        self.learn(verdict, now);
    }

    fn learn(&mut self, verdict: &Verdict, now: Tick) {
        // First, so that an observer that panics does not make it a drop as well.
        self.settled = true;
        let overload = matches!(verdict.kind(), Some(ErrorKind::Timeout | ErrorKind::RateLimit));
        if overload {
            self.shared.learn(None, self.in_flight, now);
        } else if verdict.is_success() && verdict.kind().is_none() {
            self.shared.learn(Some(now.since(self.began)), self.in_flight, now);
        }
    }
}

impl<S: Deref<Target = Shared>> Held<S> {
    /// Counts a permit that was dropped without a record.
    #[cold]
    fn abandoned(&self) {
        if std::thread::panicking() || crate::losers::are_dropped() {
            return;
        }
        let rule = lock(&self.shared.teacher).config.on_drop;
        let after = match rule {
            DropRule::Neutral => return,
            DropRule::Failure => Duration::ZERO,
            DropRule::TimeoutAfter(limit) => limit,
        };
        let now = self.shared.clock.now();
        if now.since(self.began) >= after {
            self.shared.learn(None, self.in_flight, now);
        }
    }
}

impl<S: Deref<Target = Shared>> Drop for Held<S> {
    fn drop(&mut self) {
        if let Some(caller) = self.caller {
            lock(&self.shared.shares).give_back(caller);
        }
        self.shared.slots.give_back(QueueOrder::Fifo);
        // After the slot, which is given back also if an observer panics.
        if !self.settled {
            self.abandoned();
        }
    }
}

/// The methods that both permits share.
macro_rules! permit {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)?, $handle:ty) => {
        $(#[$doc])*
        ///
        /// Record the result of the call. Dropping it without a record counts by
        /// [`AdaptiveConfig::on_drop`].
        #[must_use = "a permit that is dropped at once gives its slot back"]
        pub struct $name $(<$life>)? (Held<$handle>);

        impl $(<$life>)? $name $(<$life>)? {
            /// The call succeeded; its duration counts.
            pub fn success(mut self) {
                self.0.settle(&Verdict::success());
            }

            /// The call timed out or was refused for load: the limit may be too high.
            pub fn overloaded(mut self) {
                self.0.settle(&Verdict::failure(ErrorKind::Timeout));
            }

            /// The call says nothing about load, for example a fast failure.
            pub fn ignore(mut self) {
                self.0.settled = true;
            }

            /// Records a verdict: successes by their duration, timeouts and rate limits as
            /// overload, everything else not at all.
            pub fn record(mut self, outcome: impl Into<Verdict>) {
                self.0.settle(&outcome.into());
            }
        }

        impl $(<$life>)? fmt::Debug for $name $(<$life>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.shared.name)
            }
        }
    };
}

permit! {
    /// A slot, borrowing its limit; given back when dropped.
    AdaptivePermit<'a>, &'a Shared
}

permit! {
    /// A slot that outlives the borrow of its limit; given back when dropped.
    OwnedAdaptivePermit, Arc<Shared>
}

impl<T: Send, E: Send> Strategy<T, E> for AdaptiveLimit {
    async fn execute<N: Next<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let mut permit = match self.hold(attempt.priority, attempt.caller, attempt.began()) {
            Ok(permit) => permit,
            Err(rejection) => return Done::rejected(rejection, attempt.began()),
        };
        let done = next.run(attempt).await;
        permit.learn(&next.judge(&done), done.at);
        done
    }
}

impl<T, E> BlockingStrategy<T, E> for AdaptiveLimit {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        let mut permit = match self.hold(attempt.priority, attempt.caller, attempt.began()) {
            Ok(permit) => permit,
            Err(rejection) => return Done::rejected(rejection, attempt.began()),
        };
        let done = next.run(attempt);
        permit.learn(&next.judge(&done), done.at);
        done
    }
}

impl Describe for AdaptiveLimit {
    fn part(&self) -> Part {
        let config = lock(&self.0.teacher).config;
        let text = format!("{:?}, {} to {} at a time", config.law, config.min, config.max);
        Part::new(PolicyKind::AdaptiveLimit, self.0.name.shared(), text)
            .sharing(&self.0)
            .on_clock(&self.0.clock)
            .precise(true)
            .counting_drops(config.on_drop)
    }
}

impl fmt::Debug for AdaptiveLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdaptiveLimit({}, {} of {})", self.0.name, self.in_use(), self.limit())
    }
}
