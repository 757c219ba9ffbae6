//! Every pipeline to the outside, by service and endpoint, from one configuration.
//!
//! Invariants: there are never more than `pipelines_max` pipelines, those beside them that a caller
//! still holds after a reload took them out; a reload changes the policies of the pipelines that stay
//! in place, so windows, states, tokens and slots survive it; a configuration
//! that is not valid changes nothing; no lock on the state is held while policies change or tell
//! their observer, so an observer may ask the registry.

mod config;
mod environment;
#[cfg(feature = "serde")]
mod keys;

pub use config::{Overrides, PipelinesConfig, ServiceConfig};

use crate::adaptive_limit::AdaptiveLimit;
use crate::attempt::Attempt;
use crate::attempt_span;
use crate::bounded_map::BoundedMap;
use crate::breaker::{BreakerSnapshot, CircuitBreaker};
use crate::budget::RetryBudget;
use crate::bulkhead::Bulkhead;
use crate::clock::Clock;
use crate::config_error::ConfigError;
use crate::context::Context;
use crate::dependency::{Criticality, Dependency, DependencyKind};
use crate::error::Error;
use crate::error_kind::{Classify, ErrorKind, Verdict};
use crate::event::{Event, Observer};
use crate::pipeline::{Bare, Chain, Optional, Pipeline};
use crate::random::Random;
use crate::rate_limit::RateLimiter;
use crate::retry::{Retry, RetryStats};
use crate::sleeper::{NoSleeper, Sleeper};
use crate::timeout::Timeout;
use config::Settings;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// The name shared by all endpoints beyond the bound.
const OTHERS: &str = "*";

/// Dependencies, and services, that may be declared: more than one process has parts to protect.
const DECLARED_MAX: usize = 10_000;

type Head = Chain<Chain<Chain<Bare, Timeout>, Retry>, CircuitBreaker>;
type Limits =
    Chain<Chain<Chain<Head, Optional<RateLimiter>>, Optional<Bulkhead>>, Optional<AdaptiveLimit>>;
type Tail = Chain<Limits, Timeout>;

/// One endpoint: limit in all → retry → breaker → rate limit → bulkhead → adaptive limit → limit of an
/// attempt.
///
/// Left out on purpose; put them into a [`Pipeline`] around the call, or inside its operation:
///
/// - A [`Hedge`](crate::Hedge). A retry repeats what has failed; a hedge sends what is still under way a
///   second time, which only whoever makes the call can know to be harmless, and it needs a call that is
///   awaited, while an endpoint's may block. [`HedgeConfig`](crate::HedgeConfig) can be read from a file.
/// - A [`Throttle`](crate::Throttle). It sends a share of the calls to a dependency that refuses the
///   rest, where the breaker stops all of them: which of the two fits is a choice by dependency, and
///   both at once judge one trouble twice. [`ThrottleConfig`](crate::ThrottleConfig) can be read.
/// - A limit by caller ([`KeyedRateLimiter`](crate::KeyedRateLimiter)), or of a quota that instances
///   share ([`LeasedLimiter`](crate::LeasedLimiter)). An endpoint is somebody else's service and its
///   rate limit that service's; callers are limited where their requests arrive.
///   [`KeyedConfig`](crate::KeyedConfig) can be read.
/// - A [`Fallback`](crate::Fallback) and an [`AnswerCache`](crate::AnswerCache). Only whoever makes the
///   call has another answer.
pub struct Endpoint<S = NoSleeper> {
    service: Arc<str>,
    name: Arc<str>,
    dependency: Dependency,
    total: Timeout,
    retry: Retry,
    rate: Option<RateLimiter>,
    bulkhead: Option<Bulkhead>,
    adaptive: Option<AdaptiveLimit>,
    attempt: Timeout,
    pipeline: Pipeline<Tail, S>,
}

/// How an endpoint stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The service.
    pub service: Arc<str>,
    /// The endpoint; `*` stands for all beyond the bound.
    pub endpoint: Arc<str>,
    /// The breaker's state, error rate, last change and next probe.
    pub breaker: BreakerSnapshot,
    /// The retry's attempts.
    pub retry: RetryStats,
    /// Tokens left in the budget that all retries of the service share.
    pub budget: f64,
    /// What could be taken from the rate limit now, and its refusals; `None` without one.
    pub rate: Option<(u64, u64)>,
    /// Calls under way, calls waiting and refusals of the bulkhead; `None` without one.
    pub bulkhead: Option<(u64, u64, u64)>,
    /// The adaptive limit now, calls under way and its refusals; `None` without one.
    pub adaptive_limit: Option<(u64, u64, u64)>,
    /// The chain, outermost first.
    pub pipeline: String,
}

impl<S> Endpoint<S> {
    /// The breaker, for manual control.
    pub fn breaker(&self) -> &CircuitBreaker {
        self.dependency.breaker()
    }

    /// What the endpoint is to the process, with the figures of its calls.
    pub fn dependency(&self) -> &Dependency {
        &self.dependency
    }

    /// The retry, with its figures.
    pub fn retry(&self) -> &Retry {
        &self.retry
    }

    /// The rate limit, if one is configured.
    pub fn rate_limiter(&self) -> Option<&RateLimiter> {
        self.rate.as_ref()
    }

    /// The bulkhead, if one is configured.
    pub fn bulkhead(&self) -> Option<&Bulkhead> {
        self.bulkhead.as_ref()
    }

    /// The adaptive limit, if one is configured.
    pub fn adaptive_limit(&self) -> Option<&AdaptiveLimit> {
        self.adaptive.as_ref()
    }

    fn record<T, E>(
        &self,
        took: Duration,
        result: &Result<T, Error<E>>,
        judge: impl Fn(Result<&T, &E>) -> Verdict,
    ) where
        E: fmt::Display,
    {
        match result {
            Ok(value) => match judge(Ok(value)) {
                verdict if verdict.is_failure() => {
                    let kind = verdict.kind().map_or("error", ErrorKind::as_str);
                    self.dependency.figures().failed(took, format_args!("an answer of {kind}"));
                }
                _ => self.dependency.figures().succeeded(took),
            },
            // A refusal is no call: the breaker and the limits count it.
            Err(Error::Rejected(_)) => {}
            Err(error) => self.dependency.figures().failed(took, error),
        }
    }

    /// The chain.
    pub fn pipeline(&self) -> &Pipeline<impl Sized + use<S>, S> {
        &self.pipeline
    }
}

/// Pipelines by service and endpoint. Clones share them.
///
/// ```
/// use mainstay_resilience::{Context, ErrorKind, Pipelines, PipelinesConfig};
///
/// let pipelines = Pipelines::new(PipelinesConfig::default())?;
/// let answer = pipelines.run("openai", "chat.completions", Context::default(), |attempt| {
///     assert!(attempt.deadline().is_set());
///     Ok::<_, ErrorKind>("hello")
/// });
/// assert_eq!(answer, Ok("hello"));
/// assert_eq!(pipelines.list()[0].breaker.name.as_ref(), "openai/chat.completions");
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
pub struct Pipelines<S = NoSleeper>(Arc<Shared<S>>);

impl<S> Clone for Pipelines<S> {
    fn clone(&self) -> Self {
        Pipelines(Arc::clone(&self.0))
    }
}

struct Shared<S> {
    clock: Clock,
    sleeper: S,
    observer: Arc<dyn Observer>,
    /// Of everything random; `None` is unpredictable.
    seed: Option<u64>,
    state: RwLock<State<S>>,
    /// Held by the reload under way, so that two do not mix.
    reloading: Mutex<()>,
}

/// The endpoints of one service.
type ByEndpoint<S> = HashMap<Box<str>, Arc<Endpoint<S>>>;

struct State<S> {
    config: PipelinesConfig,
    endpoints: HashMap<Box<str>, ByEndpoint<S>>,
    budgets: HashMap<Box<str>, RetryBudget>,
    declared: Vec<Dependency>,
    services: BoundedMap<Box<str>, (DependencyKind, Criticality)>,
    count: usize,
}

impl Pipelines<NoSleeper> {
    /// Blocking pipelines on the system's clock.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: PipelinesConfig) -> Result<Self, ConfigError> {
        let nobody: Arc<dyn Observer> = Arc::new(|_: &Event<'_>| ());
        Pipelines::with(config, Clock::system(), NoSleeper, nobody)
    }
}

impl<S: Clone> Pipelines<S> {
    /// Pipelines with their own clock, way to wait, and observer.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn with(
        config: PipelinesConfig,
        clock: Clock,
        sleeper: S,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        Pipelines::build(config, clock, sleeper, observer, None)
    }

    /// As [`with`](Self::with), with repeatable jitter: each endpoint has its own, by its name and
    /// `seed`, whichever is used first.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn seeded(
        config: PipelinesConfig,
        clock: Clock,
        sleeper: S,
        observer: Arc<dyn Observer>,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        Pipelines::build(config, clock, sleeper, observer, Some(seed))
    }

    fn build(
        config: PipelinesConfig,
        clock: Clock,
        sleeper: S,
        observer: Arc<dyn Observer>,
        seed: Option<u64>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let state = RwLock::new(State {
            config,
            endpoints: HashMap::new(),
            budgets: HashMap::new(),
            declared: Vec::new(),
            services: BoundedMap::new(DECLARED_MAX),
            count: 0,
        });
        let reloading = Mutex::new(());
        Ok(Pipelines(Arc::new(Shared { clock, sleeper, observer, seed, state, reloading })))
    }

    /// Runs an external operation on this thread through the pipeline of `service` and `endpoint`,
    /// which is created at its first use.
    ///
    /// # Errors
    /// The operation's own error, or what a policy made of it.
    pub fn run<T, E: Classify + fmt::Display>(
        &self,
        service: &str,
        endpoint: &str,
        context: Context,
        operation: impl Fn(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        self.run_judged(service, endpoint, context, Verdict::of_ref, operation)
    }

    /// As [`run`](Self::run), with `judge` concluding from each result: for errors that are not
    /// [`Classify`], and for results that count as failures, such as an answer of HTTP with a status.
    /// An answer that counts as a failure is among the failures of the dependency's figures too.
    ///
    /// ```
    /// use mainstay_resilience::{Context, ErrorKind, Pipelines, PipelinesConfig, Verdict};
    /// use mainstay_resilience::classify_http_status;
    /// use std::convert::Infallible;
    ///
    /// let mut config = PipelinesConfig::default();
    /// config.defaults.attempts = Some(1);
    /// let pipelines = Pipelines::new(config)?;
    /// let by_status = |answer: Result<&u16, &Infallible>| {
    ///     let status = answer.map_or(500, |status| *status);
    ///     classify_http_status(status).map_or(Verdict::success(), Verdict::failure)
    /// };
    /// let answer = pipelines.run_judged("shop", "cart", Context::default(), by_status, |_| Ok(503));
    /// assert_eq!(answer, Ok(503));
    /// assert_eq!(pipelines.list()[0].breaker.consecutive_failures, 1);
    /// # Ok::<(), mainstay_resilience::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_judged<T, E: fmt::Display>(
        &self,
        service: &str,
        endpoint: &str,
        context: Context,
        judge: impl Fn(Result<&T, &E>) -> Verdict,
        operation: impl Fn(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        let names = (service, endpoint);
        let failed = |result: &Result<T, E>| result.is_err() || judge(result.as_ref()).is_failure();
        let within = |attempt| attempt_span::run(names, attempt, &operation, failed);
        let (endpoint, began) = (self.endpoint(service, endpoint), self.0.clock.now());
        let result = endpoint.pipeline.run_judged(context, &judge, within);
        endpoint.record(self.0.clock.now().since(began), &result, &judge);
        result
    }

    /// Awaits an external operation through the pipeline of `service` and `endpoint`, which is
    /// created at its first use.
    ///
    /// # Errors
    /// The operation's own error, or what a policy made of it.
    pub async fn call<T, E, F>(
        &self,
        service: &str,
        endpoint: &str,
        context: Context,
        operation: impl Fn(Attempt) -> F + Sync,
    ) -> Result<T, Error<E>>
    where
        T: Send,
        E: Classify + fmt::Display + Send,
        S: Sleeper,
        F: Future<Output = Result<T, E>> + Send,
    {
        self.call_judged(service, endpoint, context, Verdict::of_ref, operation).await
    }

    /// As [`call`](Self::call), with `judge` concluding from each result, as in
    /// [`run_judged`](Self::run_judged).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_judged<T, E, F>(
        &self,
        service: &str,
        endpoint: &str,
        context: Context,
        judge: impl Fn(Result<&T, &E>) -> Verdict + Sync,
        operation: impl Fn(Attempt) -> F + Sync,
    ) -> Result<T, Error<E>>
    where
        T: Send,
        E: fmt::Display + Send,
        S: Sleeper,
        F: Future<Output = Result<T, E>> + Send,
    {
        let names = (service, endpoint);
        let failed = |result: &Result<T, E>| result.is_err() || judge(result.as_ref()).is_failure();
        let within = |attempt| attempt_span::call(names, attempt, &operation, failed);
        let (endpoint, began) = (self.endpoint(service, endpoint), self.0.clock.now());
        let result = endpoint.pipeline.call_judged(context, &judge, within).await;
        endpoint.record(self.0.clock.now().since(began), &result, &judge);
        result
    }

    /// The pipeline of an endpoint, created at its first use.
    #[must_use]
    pub fn endpoint(&self, service: &str, endpoint: &str) -> Arc<Endpoint<S>> {
        let shared = &*self.0;
        let found = |state: &State<S>| state.existing(service, endpoint);
        {
            let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = found(&state) {
                return found;
            }
            if state.is_full()
                && let Some(others) = state.existing(OTHERS, OTHERS)
            {
                return others;
            }
        }
        let mut state = shared.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = found(&state) {
            return found;
        }
        let (service, endpoint) =
            if state.is_full() { (OTHERS, OTHERS) } else { (service, endpoint) };
        shared.create(&mut state, service, endpoint)
    }

    /// Every endpoint used so far with its state, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<EndpointStatus> {
        let mut list: Vec<EndpointStatus> = self
            .0
            .endpoints()
            .iter()
            .map(|endpoint| EndpointStatus {
                service: Arc::clone(&endpoint.service),
                endpoint: Arc::clone(&endpoint.name),
                breaker: endpoint.breaker().snapshot(),
                retry: endpoint.retry.stats(),
                budget: endpoint.retry.budget().map_or(0.0, RetryBudget::balance),
                rate: endpoint.rate.as_ref().map(|rate| (rate.available(), rate.refused())),
                bulkhead: endpoint
                    .bulkhead
                    .as_ref()
                    .map(|slots| (slots.in_use(), slots.waiting(), slots.refused())),
                adaptive_limit: endpoint
                    .adaptive
                    .as_ref()
                    .map(|limit| (limit.limit(), limit.in_use(), limit.refused())),
                pipeline: endpoint.pipeline.describe(),
            })
            .collect();
        list.sort_by(|a, b| (&a.service, &a.endpoint).cmp(&(&b.service, &b.endpoint)));
        list
    }

    /// Lists a dependency whose calls do not go through these pipelines, such as a search method,
    /// among [`dependencies`](Self::dependencies). One of the same name takes the older one's place;
    /// beyond 10 000 the one that was declared first leaves the list.
    pub fn declare(&self, dependency: &Dependency) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        state.declared.retain(|other| other.name() != dependency.name());
        if state.declared.len() == DECLARED_MAX {
            state.declared.remove(0);
        }
        state.declared.push(dependency.clone());
    }

    /// Takes a declared dependency off the list; false when there is none of this name.
    pub fn withdraw(&self, name: &str) -> bool {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = state.declared.len();
        state.declared.retain(|other| other.name() != name);
        state.declared.len() < before
    }

    /// Says what a service is to the process, for all its endpoints that are not in use yet. Without
    /// it: something over HTTP that degrades. Beyond 10 000 services the one is forgotten that was
    /// declared, or got a new endpoint, longest ago.
    pub fn declare_service(&self, service: &str, kind: DependencyKind, criticality: Criticality) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        state.services.insert(service.into(), (kind, criticality));
    }

    /// The dependency of this name, of an endpoint (`service/endpoint`) or declared: for manual
    /// control by name. Unlike [`endpoint`](Self::endpoint) it creates none.
    #[must_use]
    pub fn dependency(&self, name: &str) -> Option<Dependency> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(declared) = state.declared.iter().find(|declared| declared.name() == name) {
            return Some(declared.clone());
        }
        let mut endpoints = state.endpoints.values().flat_map(HashMap::values);
        endpoints.find(|e| e.dependency.name() == name).map(|e| e.dependency.clone())
    }

    /// The breaker of the dependency of this name.
    #[must_use]
    pub fn breaker(&self, name: &str) -> Option<CircuitBreaker> {
        self.dependency(name).map(|dependency| dependency.breaker().clone())
    }

    /// Every dependency, of endpoints in use and declared, sorted by name.
    #[must_use]
    pub fn dependencies(&self) -> Vec<Dependency> {
        let mut all = {
            let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
            state.declared.clone()
        };
        all.extend(self.0.endpoints().iter().map(|endpoint| endpoint.dependency.clone()));
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Every breaker, of endpoints in use and declared, sorted by name.
    #[must_use]
    pub fn breakers(&self) -> Vec<CircuitBreaker> {
        self.dependencies().iter().map(|dependency| dependency.breaker().clone()).collect()
    }

    /// Who hears what the policies do; for breakers that are declared, so that it hears them too.
    #[must_use]
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.0.observer)
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> PipelinesConfig {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Takes another configuration while running. Every endpoint keeps its breaker's state and
    /// window, its tokens, slots and figures; calls under way go on as they began. Endpoints change
    /// one after the other, while calls run; an observer that hears of it may ask for lists.
    ///
    /// With a lower `pipelines_max` as many endpoints go as are too many: first those that nobody is
    /// using, and of these the ones with the fewest calls. Their state is lost, and their next calls
    /// go through the pipeline that all beyond the bound share. Calls under way end as they began.
    ///
    /// # Errors
    /// What is wrong with the configuration; then nothing changes.
    pub fn reload(&self, config: PipelinesConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let shared = &*self.0;
        let _reload = shared.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let (budgets, surplus): (Vec<RetryBudget>, _) = {
            let mut state = shared.state.write().unwrap_or_else(PoisonError::into_inner);
            // From here on new endpoints are built from it.
            state.config = config.clone();
            let surplus = state.take_surplus();
            (state.budgets.values().cloned().collect(), surplus)
        };
        // After the lock.
        drop(surplus);
        for budget in budgets {
            budget.reconfigure(config.budget)?;
        }
        let mut changed = Vec::new();
        for endpoint in shared.endpoints() {
            let settings = config.resolve(&endpoint.service, &endpoint.name)?;
            changed.push(Arc::new(shared.changed(&endpoint, settings)?));
        }
        let mut state = shared.state.write().unwrap_or_else(PoisonError::into_inner);
        for endpoint in &mut changed {
            let endpoints = state.endpoints.get_mut(&*endpoint.service);
            if let Some(slot) = endpoints.and_then(|all| all.get_mut(&*endpoint.name)) {
                // What was there before is dropped with the list, after the lock.
                std::mem::swap(slot, endpoint);
            }
        }
        drop(state);
        Ok(())
    }
}

impl<S> State<S> {
    /// Whether the next endpoint is the one for all others.
    fn is_full(&self) -> bool {
        self.count + 1 >= self.config.pipelines_max as usize
    }

    /// Takes out the endpoints that are too many, with the budgets of services that have none left.
    fn take_surplus(&mut self) -> Vec<Arc<Endpoint<S>>> {
        let mut own: Vec<_> = self
            .endpoints
            .values()
            .flat_map(HashMap::values)
            .filter(|endpoint| (&*endpoint.service, &*endpoint.name) != (OTHERS, OTHERS))
            .map(|endpoint| {
                let (calls, is_used) =
                    (endpoint.dependency.figures().calls(), Arc::strong_count(endpoint) > 1);
                (is_used, calls, Arc::clone(&endpoint.service), Arc::clone(&endpoint.name))
            })
            .collect();
        own.sort_unstable();
        // One place is that of the endpoint for all others.
        let surplus = own.len().saturating_sub(self.config.pipelines_max as usize - 1);
        let mut taken = Vec::with_capacity(surplus);
        for (.., service, name) in own.drain(..surplus) {
            let endpoints = self.endpoints.get_mut(&*service);
            taken.extend(endpoints.and_then(|endpoints| endpoints.remove(&*name)));
        }
        self.count -= taken.len();
        self.endpoints.retain(|_, endpoints| !endpoints.is_empty());
        if !taken.is_empty() {
            let endpoints = &self.endpoints;
            self.budgets.retain(|service, _| endpoints.contains_key(service));
        }
        taken
    }

    fn existing(&self, service: &str, endpoint: &str) -> Option<Arc<Endpoint<S>>> {
        self.endpoints.get(service)?.get(endpoint).map(Arc::clone)
    }
}

impl<S: Clone> Shared<S> {
    fn endpoints(&self) -> Vec<Arc<Endpoint<S>>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.endpoints.values().flat_map(HashMap::values).cloned().collect()
    }

    fn create(&self, state: &mut State<S>, service: &str, endpoint: &str) -> Arc<Endpoint<S>> {
        if let Some(existing) = state.existing(service, endpoint) {
            return existing;
        }
        let built = state
            .config
            .resolve(service, endpoint)
            .and_then(|settings| self.build(state, service, endpoint, settings))
            .expect("every level of a validated configuration resolves, for any endpoint");
        let built = Arc::new(built);
        state.count += 1;
        let endpoints = state.endpoints.entry(service.into()).or_default();
        endpoints.insert(endpoint.into(), Arc::clone(&built));
        built
    }

    fn build(
        &self,
        state: &mut State<S>,
        service: &str,
        endpoint: &str,
        settings: Settings,
    ) -> Result<Endpoint<S>, ConfigError> {
        let budget = match state.budgets.get(service) {
            Some(budget) => budget.clone(),
            None => {
                let made = RetryBudget::with_clock(state.config.budget, self.clock.clone())?;
                state.budgets.insert(service.into(), made.clone());
                made
            }
        };
        let name: Arc<str> = format!("{service}/{endpoint}").into();
        let observer = || Arc::clone(&self.observer);
        let mut retry = Retry::builder(Arc::clone(&name))
            .config(settings.retry.clone())
            .budget(&budget)
            .observer(observer());
        let mut breaker = CircuitBreaker::builder(Arc::clone(&name))
            .config(settings.breaker.clone())
            .clock(self.clock.clone())
            .observer(observer());
        if let Some(seed) = self.seed.map(|seed| Random::seed_of(&name, seed)) {
            retry = retry.seed(seed);
            breaker = breaker.seed(seed);
        }
        let (retry, breaker) = (retry.build()?, breaker.build()?);
        let (kind, criticality) = state.services.touch(service).copied().unwrap_or_default();
        let dependency = Dependency::new(breaker, kind, criticality);
        let total = Timeout::total(Arc::clone(&name), settings.total_timeout)?;
        let attempt = Timeout::per_attempt(Arc::clone(&name), settings.timeout)?;
        let names = (Arc::from(service), Arc::from(endpoint));
        let (total, attempt) = (total.with_observer(observer()), attempt.with_observer(observer()));
        self.assemble(
            names,
            settings,
            Parts { total, retry, dependency, rate: None, bulkhead: None, adaptive: None, attempt },
        )
    }

    /// The endpoint under other settings, with the state of the one before.
    fn changed(
        &self,
        endpoint: &Endpoint<S>,
        settings: Settings,
    ) -> Result<Endpoint<S>, ConfigError> {
        endpoint.total.set_limit(settings.total_timeout)?;
        endpoint.attempt.set_limit(settings.timeout)?;
        endpoint.retry.reconfigure(settings.retry.clone())?;
        endpoint.breaker().reconfigure(settings.breaker.clone())?;
        let parts = Parts {
            total: endpoint.total.clone(),
            retry: endpoint.retry.clone(),
            dependency: endpoint.dependency.clone(),
            rate: endpoint.rate.clone(),
            bulkhead: endpoint.bulkhead.clone(),
            adaptive: endpoint.adaptive.clone(),
            attempt: endpoint.attempt.clone(),
        };
        let names = (Arc::clone(&endpoint.service), Arc::clone(&endpoint.name));
        self.assemble(names, settings, parts)
    }

    fn assemble(
        &self,
        (service, name): (Arc<str>, Arc<str>),
        settings: Settings,
        parts: Parts,
    ) -> Result<Endpoint<S>, ConfigError> {
        let full = parts.dependency.name();
        let rate = match (settings.rate, parts.rate) {
            (Some(config), Some(rate)) if rate.config().algorithm == config.algorithm => {
                rate.reconfigure(config)?;
                Some(rate)
            }
            (Some(config), _) => {
                let (clock, observer) = (self.clock.clone(), Arc::clone(&self.observer));
                Some(RateLimiter::observed(full, config, clock, observer)?)
            }
            (None, _) => None,
        };
        let bulkhead = match (settings.bulkhead, parts.bulkhead) {
            (Some(config), Some(bulkhead)) => {
                bulkhead.reconfigure(config)?;
                Some(bulkhead)
            }
            (Some(config), None) => {
                Some(Bulkhead::observed(full, config, Arc::clone(&self.observer))?)
            }
            (None, _) => None,
        };
        let adaptive = match (settings.adaptive_limit, parts.adaptive) {
            (Some(config), Some(limit)) => {
                limit.reconfigure(config)?;
                Some(limit)
            }
            (Some(config), None) => {
                let (clock, observer) = (self.clock.clone(), Arc::clone(&self.observer));
                Some(AdaptiveLimit::observed(full, config, clock, observer)?)
            }
            (None, _) => None,
        };
        let pipeline = Pipeline::builder()
            .clock(self.clock.clone())
            .wait_with(self.sleeper.clone())
            .then(parts.total.clone())
            .then(parts.retry.clone())
            .then(parts.dependency.breaker().clone())
            .then_if(rate.clone())
            .then_if(bulkhead.clone())
            .then_if(adaptive.clone())
            .then(parts.attempt.clone())
            .build()
            .expect("the chain of an endpoint is in order, and all on one clock");
        let Parts { total, retry, dependency, attempt, .. } = parts;
        Ok(Endpoint {
            service,
            name,
            dependency,
            total,
            retry,
            rate,
            bulkhead,
            adaptive,
            attempt,
            pipeline,
        })
    }
}

/// The policies of an endpoint before they are put together.
struct Parts {
    total: Timeout,
    retry: Retry,
    dependency: Dependency,
    rate: Option<RateLimiter>,
    bulkhead: Option<Bulkhead>,
    adaptive: Option<AdaptiveLimit>,
    attempt: Timeout,
}

impl<S> fmt::Debug for Pipelines<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Pipelines({})", state.count)
    }
}

impl<S> fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}/{})", self.service, self.name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::sync::mpsc;

    #[test]
    fn beyond_the_bound_an_endpoint_is_found_while_others_read() {
        let config = PipelinesConfig { pipelines_max: 2, ..PipelinesConfig::default() };
        let pipelines = Pipelines::new(config).unwrap();
        let _ = (pipelines.endpoint("s", "a"), pipelines.endpoint("s", "b"));
        let (tell, told) = mpsc::channel();
        let other = pipelines.clone();
        let reader = pipelines.0.state.read().unwrap();
        let asking = std::thread::spawn(move || tell.send(other.endpoint("s", "c").name.clone()));
        // Far longer than it takes; a writer would wait for the reader above for ever.
        let found = told.recv_timeout(Duration::from_secs(10));
        drop(reader);
        assert_eq!(found.as_deref(), Ok(OTHERS));
        asking.join().unwrap().unwrap();
    }
}
