//! The circuit breaker: stops calling a dependency that fails, and finds out when it is back.
//!
//! For calls across a network or into a component that can hang or fail for a while. Not for
//! errors of the caller (they do not count here) and not as a rate limit.
//!
//! Cost: closed, with a time window, one coarse clock reading and one compare-and-swap per call;
//! independent of the number of calls in the window and of other threads. Open: one clock reading and
//! one addition.
//!
//! Source: Nygard, *Release It!*, 2nd edition, chapter 5; the half-open probes follow resilience4j,
//! the generations sony/gobreaker, the ramp Envoy's slow start.

mod admission;
mod baseline;
mod config;
mod machine;
mod outcome;
mod permit;
mod preset;
mod rule;
mod snapshot;
pub(crate) use crate::breaker_state as state;
mod tally;
mod ticket;
mod transition;
mod window;
mod word;

pub use config::{Adaptive, BreakerConfig, DropRule, OpenFor, Probes, Ramp, SlowCalls, Window};
pub use permit::{OwnedPermit, Permit};
pub use snapshot::BreakerSnapshot;
pub use state::State;

use crate::clock::{Clock, Tick};
use crate::config_error::ConfigError;
use crate::error::Error;
use crate::error_kind::{Classify, Verdict};
use crate::event::{Listeners, Observer};
use crate::rejection::Rejection;
use machine::Machine;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use ticket::LazyNow;

/// A circuit breaker. Clones are cheap and share the state.
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, State};
///
/// let breaker = CircuitBreaker::search_method("bm25");
/// for _ in 0..5 {
///     breaker.try_acquire()?.failure();
/// }
/// assert_eq!(breaker.state(), State::Open);
/// let refused = breaker.try_acquire().unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     "circuit_breaker bm25 refused the call: \
///      it is open (consecutive_failures, 100 % of its calls had failed)"
/// );
/// # Ok::<(), mainstay_resilience::Rejection>(())
/// ```
///
/// # Cancel safety
/// A permit that is dropped counts by the [`DropRule`]; a probe's slot is given back. A permit that
/// is leaked holds its slot until [`Probes::give_up_after`].
///
/// # For, and not for
/// For calls across a network or into a component that can hang or fail for a while. Not for errors of
/// the caller (they do not count) and not as a rate limit.
///
/// # Parameters
/// Those of [`BreakerConfig`], with their ranges and defaults.
///
/// # Cost
/// Closed with a time window: one coarse clock reading and one compare-and-swap, independent of the
/// calls in the window. Count window: a short lock. Open: one clock reading and one addition.
///
/// # Source
/// Nygard, *Release It!*, 2nd edition, chapter 5; the half-open probes follow resilience4j, the
/// generations sony/gobreaker, the ramp Envoy's slow start.
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Machine>);

impl CircuitBreaker {
    /// A breaker to be configured; see [`BreakerConfig`] for the defaults.
    pub fn builder(name: impl Into<Arc<str>>) -> BreakerBuilder {
        BreakerBuilder::new(name.into(), BreakerConfig::default())
    }

    /// The preset for a search method inside the process, [`BreakerConfig::search_method`].
    #[must_use]
    pub fn search_method(name: impl Into<Arc<str>>) -> Self {
        BreakerBuilder::new(name.into(), BreakerConfig::search_method()).build_unchecked()
    }

    /// The preset for an object store, [`BreakerConfig::object_storage`]. Take one for upload and
    /// another for download: one may fail without the other.
    #[must_use]
    pub fn object_storage(name: impl Into<Arc<str>>) -> Self {
        BreakerBuilder::new(name.into(), BreakerConfig::object_storage()).build_unchecked()
    }

    /// The preset for a service across the network, [`BreakerConfig::external_service`].
    #[must_use]
    pub fn external_service(name: impl Into<Arc<str>>) -> Self {
        BreakerBuilder::new(name.into(), BreakerConfig::external_service()).build_unchecked()
    }

    /// Asks for one call.
    ///
    /// # Errors
    /// The refusal, with the time after which to try again. Nothing was allocated for it.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        let ticket = self.0.admit(LazyNow::unread(&self.0.clock))?;
        Ok(Permit::new(&self.0, ticket))
    }

    /// Asks for one call, with a permit that may outlive this handle.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    #[inline]
    pub fn try_acquire_owned(&self) -> Result<OwnedPermit, Rejection> {
        let ticket = self.0.admit(LazyNow::unread(&self.0.clock))?;
        Ok(OwnedPermit::new(Arc::clone(&self.0), ticket))
    }

    /// Asks for one call at a time that was read already.
    #[inline]
    pub(crate) fn try_acquire_at(&self, now: Tick) -> Result<Permit<'_>, Rejection> {
        let ticket = self.0.admit(LazyNow::at(&self.0.clock, now))?;
        Ok(Permit::new(&self.0, ticket))
    }

    /// Runs `operation` on this thread if the breaker admits it, and records its result.
    ///
    /// A panic counts as a failure and unwinds on.
    ///
    /// # Errors
    /// The operation's own error, or the refusal.
    pub fn run<T, E: Classify>(
        &self,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        self.run_judged(Verdict::of_ref, operation)
    }

    /// As [`run`](Self::run), with `judge` deciding from the whole result whether it counts.
    ///
    /// # Errors
    /// The operation's own error, or the refusal.
    pub fn run_judged<T, E>(
        &self,
        judge: impl FnOnce(Result<&T, &E>) -> Verdict,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        let permit = self.try_acquire().map_err(Error::Rejected)?;
        let result = operation();
        permit.record(judge(result.as_ref()));
        result.map_err(Error::Operation)
    }

    /// Awaits `operation` if the breaker admits it, and records its result. The operation is not
    /// even created when the breaker refuses.
    ///
    /// # Cancel safety
    /// Dropping the future drops the operation, and counts by the [`DropRule`].
    ///
    /// # Errors
    /// The operation's own error, or the refusal.
    pub async fn call<T, E: Classify, F: Future<Output = Result<T, E>>>(
        &self,
        operation: impl FnOnce() -> F,
    ) -> Result<T, Error<E>> {
        self.call_judged(Verdict::of_ref, operation).await
    }

    /// As [`call`](Self::call), with `judge` deciding from the whole result whether it counts.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// The operation's own error, or the refusal.
    pub async fn call_judged<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        judge: impl FnOnce(Result<&T, &E>) -> Verdict,
        operation: impl FnOnce() -> F,
    ) -> Result<T, Error<E>> {
        let permit = self.try_acquire().map_err(Error::Rejected)?;
        let result = operation().await;
        permit.record(judge(result.as_ref()));
        result.map_err(Error::Operation)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The state now. Reading it changes nothing: an open breaker stays open until a call comes.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state()
    }

    /// State, error rate, last change, next probe and counts.
    #[must_use]
    pub fn snapshot(&self) -> BreakerSnapshot {
        self.0.snapshot()
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> BreakerConfig {
        self.0.config()
    }

    /// Closes with an empty window, from any state.
    pub fn reset(&self) {
        self.0.command(State::Closed, None);
    }

    /// Opens now, as if it had tripped: after the configured open period it probes and recovers by
    /// itself. For emergencies such as memory pressure.
    pub fn force_open(&self) {
        self.0.command(State::Open, None);
    }

    /// Opens now for `period`, then probes.
    pub fn force_open_for(&self, period: Duration) {
        self.0.command(State::Open, Some(period));
    }

    /// Refuses every call until [`reset`](Self::reset).
    pub fn isolate(&self) {
        self.0.command(State::Isolated, None);
    }

    /// Admits every call and counts nothing until [`reset`](Self::reset).
    pub fn disable(&self) {
        self.0.command(State::Disabled, None);
    }

    /// Dry run until [`reset`](Self::reset): admits every call, counts, and only reports when it
    /// would have opened; [`BreakerSnapshot::would_reject`] counts the calls that an open period
    /// would have refused.
    pub fn observe_only(&self) {
        self.0.command(State::ObserveOnly, None);
    }

    /// Changes the configuration while running. State, counts and a time window's slices (by age)
    /// or a count window's latest calls are kept; calls that end during the change may be missing
    /// from the window. An open period under way keeps its end.
    ///
    /// # Errors
    /// The field that is out of range; then nothing changes.
    pub fn reconfigure(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        self.0.reconfigure(config)
    }

    /// Tells what other instances see: the share of them (0 to 1) whose breaker for the same
    /// dependency is open. For `ttl` the thresholds shrink by half of that share. Advice never
    /// opens a breaker by itself, so one instance with a broken network cannot stop the others.
    ///
    /// Call it from a background task that reads the shared store; no request ever does.
    pub fn advise(&self, open_share: f64, ttl: Duration) {
        self.0.advise(open_share, ttl);
    }

    /// Whether the two handles share one state.
    #[must_use]
    pub fn is_same(&self, other: &CircuitBreaker) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn needs_precise(&self) -> bool {
        self.0.needs_precise()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn shared(&self) -> &Arc<impl Sized + use<>> {
        &self.0
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CircuitBreaker({}, {})", self.name(), self.state())
    }
}

/// Builds a [`CircuitBreaker`]; each value is checked by [`build`](Self::build).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct BreakerBuilder {
    name: Arc<str>,
    config: BreakerConfig,
    clock: Clock,
    listeners: Listeners,
    seed: Option<u64>,
}

impl BreakerBuilder {
    fn new(name: Arc<str>, config: BreakerConfig) -> Self {
        BreakerBuilder {
            name,
            config,
            clock: Clock::system(),
            listeners: Listeners::default(),
            seed: None,
        }
    }

    /// Takes a whole configuration, such as a preset or one read from a file.
    pub fn config(mut self, config: BreakerConfig) -> Self {
        self.config = config;
        self
    }

    /// Opens after this many failures in a row; 0 switches the rule off.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.config.consecutive_failures = failures;
        self
    }

    /// Takes the rates over this window. [`Window::None`] also switches off the rules on rates.
    pub fn window(mut self, window: Window) -> Self {
        if window == Window::None {
            self.config.failure_rate = None;
            self.config.slow_calls = None;
        }
        self.config.window = window;
        self
    }

    /// Opens at this share of failures, above 0 to 1.
    pub fn failure_rate(mut self, rate: f64) -> Self {
        self.config.failure_rate = Some(rate);
        self
    }

    /// Switches the rule on the failure rate off.
    pub fn no_failure_rate(mut self) -> Self {
        self.config.failure_rate = None;
        self
    }

    /// Opens at `rate` (above 0 to 1) of calls that take `longer_than` or more.
    pub fn slow_calls(mut self, rate: f64, longer_than: Duration) -> Self {
        self.config.slow_calls = Some(SlowCalls { rate, longer_than });
        self
    }

    /// Judges rates once the window holds this many calls.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.config.min_calls = calls;
        self
    }

    /// How long to stay open.
    pub fn open_for(mut self, open_for: OpenFor) -> Self {
        self.config.open_for = open_for;
        self
    }

    /// How to probe.
    pub fn half_open(mut self, probes: Probes) -> Self {
        self.config.probes = probes;
        self
    }

    /// After successful probes, admits the share `from` at first and all calls after `over`.
    pub fn ramp(mut self, from: f64, over: Duration) -> Self {
        self.config.ramp = Some(Ramp { from, over });
        self
    }

    /// How dropped permits count.
    pub fn on_drop(mut self, rule: DropRule) -> Self {
        self.config.on_drop = rule;
        self
    }

    /// Learns the failure rate's threshold from history.
    pub fn adaptive(mut self, adaptive: Adaptive) -> Self {
        self.config.adaptive = Some(adaptive);
        self
    }

    /// Takes the time from `clock`.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Tells `observer` what the breaker does.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.listeners = Listeners::one(observer);
        self
    }

    /// Makes the jitter of open periods repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks the configuration and builds the breaker.
    ///
    /// # Errors
    /// The first field that is out of its range, with the range.
    pub fn build(self) -> Result<CircuitBreaker, ConfigError> {
        self.config.validate()?;
        Ok(self.build_unchecked())
    }

    fn build_unchecked(self) -> CircuitBreaker {
        let machine = Machine::new(self.name, self.config, self.clock, self.listeners, self.seed);
        CircuitBreaker(Arc::new(machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_every_preset_is_a_valid_configuration() {
        for config in [
            BreakerConfig::default(),
            BreakerConfig::search_method(),
            BreakerConfig::object_storage(),
            BreakerConfig::external_service(),
        ] {
            assert_eq!(config.validate(), Ok(()));
        }
    }
}
