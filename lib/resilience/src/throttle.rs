//! Client-side throttling: when a dependency refuses much of what it is sent, send it less.
//!
//! Unlike a breaker it never stops entirely, so it needs no probes; use it where partial overload
//! is common. The probability of refusal is `max(0, (requests - k × accepts) / (requests + 1))` over
//! the last two minutes.
//!
//! Source: Google SRE book, chapter 21, "Client-side throttling".

use crate::attempt::Attempt;
use crate::clock::{Clock, Tick};
use crate::config_error::{ConfigError, check_range};
use crate::error_kind::Verdict;
use crate::event::{Event, Listeners, Observer};
use crate::human_duration::check_duration;
use crate::name::Name;
use crate::random::Random;
use crate::rejection::{PolicyKind, Reason, Rejection};
use crate::strategy::{BlockingNext, BlockingStrategy, Describe, Done, Next, Part, Strategy};
use crate::stripes::Events;
use crate::sync::{Mutex, lock};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Everything a throttle can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ThrottleConfig {
    /// Requests sent per accepted one before throttling begins, 1.01 to 10. Default 2: the
    /// dependency sees at most about twice what it accepts, and recovery is noticed quickly.
    pub k: f64,
    /// The window, 1 s to 1 h, in 12 slices. Default 2 min.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_duration"))]
    pub window: Duration,
    /// The highest probability of refusal, 0 to 0.99. Default 0.9: one call in ten always passes.
    pub refused_max: f64,
    /// Fewer requests than this in the window are never throttled, 0 to 1 000 000. Default 10; with 0
    /// the first failures of an idle client may already throttle it.
    pub requests_min: u32,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        let window = Duration::from_secs(120);
        ThrottleConfig { k: 2.0, window, refused_max: 0.9, requests_min: 10 }
    }
}

impl ThrottleConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_range("k", self.k, 1.01, 10.0)?;
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        check_duration("window", self.window, second, hour)?;
        check_range("refused_max", self.refused_max, 0.0, 0.99)?;
        // More than a window ever holds would switch the throttle off without saying so.
        check_range("requests_min", self.requests_min, 0, 1_000_000)
    }
}

const SLICES: usize = 12;

#[derive(Debug, Default)]
struct Counts {
    requests: [u64; SLICES],
    accepts: [u64; SLICES],
    epoch: u64,
    sums: (u64, u64),
}

impl Counts {
    fn slide(&mut self, window: Duration, now: Tick) {
        let slice = (crate::clock::nanos(window) / SLICES as u64).max(1);
        let epoch = now.as_nanos() / slice;
        let passed = epoch.saturating_sub(self.epoch);
        for step in 1..=passed.min(SLICES as u64) {
            let at = (self.epoch + step) as usize % SLICES;
            self.sums.0 -= std::mem::take(&mut self.requests[at]);
            self.sums.1 -= std::mem::take(&mut self.accepts[at]);
        }
        self.epoch = self.epoch.max(epoch);
    }

    /// Puts everything that is counted into the present slice of another window.
    fn restart(&mut self, window: Duration, now: Tick) {
        let (requests, accepts) = self.sums;
        let slice = (crate::clock::nanos(window) / SLICES as u64).max(1);
        let epoch = now.as_nanos() / slice;
        *self = Counts { epoch, sums: self.sums, ..Counts::default() };
        self.requests[epoch as usize % SLICES] = requests;
        self.accepts[epoch as usize % SLICES] = accepts;
    }

    fn request(&mut self) {
        self.requests[self.epoch as usize % SLICES] += 1;
        self.sums.0 += 1;
    }

    fn accept(&mut self) {
        self.accepts[self.epoch as usize % SLICES] += 1;
        self.sums.1 += 1;
    }

    fn refusal(&self, config: &ThrottleConfig) -> f64 {
        let (requests, accepts) = self.sums;
        if requests < u64::from(config.requests_min) {
            return 0.0;
        }
        let excess = requests as f64 - config.k * accepts as f64;
        (excess / (requests as f64 + 1.0)).clamp(0.0, config.refused_max)
    }
}

/// A throttle. Clones share its counts.
///
/// ```
/// use mainstay_resilience::{ErrorKind, Throttle, ThrottleConfig};
///
/// let throttle = Throttle::new("embedder", ThrottleConfig::default())?;
/// for _ in 0..100 {
///     if throttle.try_acquire().is_ok() {
///         throttle.record(ErrorKind::RateLimit);
///     }
/// }
/// assert!(throttle.refusal_probability() > 0.8);
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # For, and not for
/// For a dependency that refuses a part of what it gets: unlike a breaker it never stops entirely and
/// needs no probes. Not for one that is down: a breaker is quicker.
///
/// # Parameters
/// Those of [`ThrottleConfig`], with their ranges and defaults.
///
/// # Cost
/// Two coarse clock readings and two short locks.
///
/// # Cancel safety
/// A call that is dropped without a record counts as a request that was not accepted. There is no
/// permit and no rule on drops: the formula counts requests when they are made and answers when they
/// come, so a call that hangs under a timeout outside is seen as it is.
///
/// # Source
/// Google SRE book, chapter 21, "Client-side throttling".
#[derive(Clone)]
pub struct Throttle(Arc<Shared>);

struct Shared {
    name: Name,
    clock: Clock,
    random: Random,
    state: Mutex<(ThrottleConfig, Counts)>,
    refused: Events,
    listeners: Listeners,
}

impl Throttle {
    /// A throttle on the system's clock.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn new(name: impl Into<Arc<str>>, config: ThrottleConfig) -> Result<Self, ConfigError> {
        Throttle::build(name.into(), config, Clock::system(), None, Listeners::default())
    }

    /// A throttle on `clock` with repeatable decisions.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn seeded(
        name: impl Into<Arc<str>>,
        config: ThrottleConfig,
        clock: Clock,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        Throttle::build(name.into(), config, clock, Some(seed), Listeners::default())
    }

    /// A throttle on `clock` that tells `observer` about each refusal.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn observed(
        name: impl Into<Arc<str>>,
        config: ThrottleConfig,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        Throttle::build(name.into(), config, clock, None, Listeners::one(observer))
    }

    fn build(
        name: Arc<str>,
        config: ThrottleConfig,
        clock: Clock,
        seed: Option<u64>,
        listeners: Listeners,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let state = Mutex::new((config, Counts::default()));
        let random = Random::from_seed(seed);
        let refused = Events::none();
        Ok(Throttle(Arc::new(Shared {
            name: name.into(),
            clock,
            random,
            state,
            refused,
            listeners,
        })))
    }

    /// Asks for one call. Counts it as a request, refused or not.
    ///
    /// # Errors
    /// The refusal, with its probability.
    pub fn try_acquire(&self) -> Result<(), Rejection> {
        self.admit(self.0.clock.coarse())
    }

    /// Records the result of an admitted call: a success, or any answer that does not speak against
    /// the dependency, counts as accepted.
    pub fn record(&self, outcome: impl Into<Verdict>) {
        self.settle(&outcome.into(), self.0.clock.coarse());
    }

    /// The probability now that a call is refused, 0 to 1.
    #[must_use]
    pub fn refusal_probability(&self) -> f64 {
        let (config, counts) = &mut *lock(&self.0.state);
        counts.slide(config.window, self.0.clock.coarse());
        counts.refusal(config)
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
    pub fn config(&self) -> ThrottleConfig {
        lock(&self.0.state).0
    }

    /// Changes the configuration while running. The counts are kept; with another window they
    /// count as made just now.
    ///
    /// # Errors
    /// The field that is out of range; then nothing changes.
    pub fn reconfigure(&self, config: ThrottleConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let now = self.0.clock.coarse();
        {
            let (old, counts) = &mut *lock(&self.0.state);
            counts.slide(old.window, now);
            if old.window != config.window {
                counts.restart(config.window, now);
            }
            *old = config;
        }
        let name = &*self.0.name;
        self.0.listeners.emit(|| Event::Reconfigured { name, policy: PolicyKind::Throttle });
        Ok(())
    }

    fn admit(&self, now: Tick) -> Result<(), Rejection> {
        let shared = &*self.0;
        let refusal = {
            let (config, counts) = &mut *lock(&shared.state);
            counts.slide(config.window, now);
            let refusal = counts.refusal(config);
            counts.request();
            refusal
        };
        if refusal == 0.0 || shared.random.unit() >= refusal {
            return Ok(());
        }
        shared.refused.happened();
        let reason = Reason::Throttled { refused_percent: (refusal * 100.0) as u32 };
        let rejection = Rejection::by(&shared.name, PolicyKind::Throttle, reason, None);
        shared.listeners.emit(|| Event::Rejected(&rejection));
        Err(rejection)
    }

    fn settle(&self, verdict: &Verdict, now: Tick) {
        if verdict.is_success() {
            let (config, counts) = &mut *lock(&self.0.state);
            counts.slide(config.window, now);
            counts.accept();
        }
    }
}

impl<T: Send, E: Send> Strategy<T, E> for Throttle {
    async fn execute<N: Next<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        if let Err(rejection) = self.admit(attempt.began()) {
            return Done::rejected(rejection, attempt.began());
        }
        let done = next.run(attempt).await;
        self.settle(&next.judge(&done), done.at);
        done
    }
}

impl<T, E> BlockingStrategy<T, E> for Throttle {
    fn execute_blocking<N: BlockingNext<T, E>>(&self, attempt: Attempt, next: N) -> Done<T, E> {
        if let Err(rejection) = self.admit(attempt.began()) {
            return Done::rejected(rejection, attempt.began());
        }
        let done = next.run(attempt);
        self.settle(&next.judge(&done), done.at);
        done
    }
}

impl Describe for Throttle {
    fn part(&self) -> Part {
        let text = format!("{} requests per accepted one", lock(&self.0.state).0.k);
        Part::new(PolicyKind::Throttle, self.0.name.shared(), text)
            .sharing(&self.0)
            .on_clock(&self.0.clock)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Throttle({})", self.0.name)
    }
}
