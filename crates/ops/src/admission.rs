//! Admission: which requests are begun, before any of their work is done.
//!
//! A request [arrives](Admission::arrive) with its class, its group and its key, and is refused at
//! once when its class is not begun now, a rate is used up, or the queue has no place for it. Once
//! what it asks for is known it [enters](Ticket::enter): the rest of its cost is charged, its memory
//! is reserved, and it takes a slot or waits for one. The [`Permit`] gives all of it back when it is
//! dropped, and teaches the limit how long the work took.
//!
//! | limit | what is beyond it | whose doing |
//! |---|---|---|
//! | rate of a key, of a group, of a route: [`RateRule`] | refused | the caller's: 429 |
//! | lowest class that is begun: [`Admission::admit_from`] | refused | overload: 503 |
//! | memory: [`Admission::guard_memory`] | refused | overload: 503 |
//! | requests at a time: adaptive for searches and reads, fixed for writes | waits | |
//! | requests that wait | the fattest key's newest request is refused | overload: 503 |
//! | time in the queue | refused | overload: 503 |
//!
//! Rates may be [shared](Admission::share_rates) by several nodes through Redis, by leases.
//!
//! Control calls pass every one of them and are only counted.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_admission_admitted_total` | counter | `group` |
//! | `mainstay_admission_refused_total` | counter | `group`, `reason` |
//! | `mainstay_admission_limit` | gauge: requests at a time | `gate` (`reads`, `writes`) |
//! | `mainstay_admission_in_use` | gauge | `gate` |
//! | `mainstay_admission_waiting` | gauge | `gate` |
//! | `mainstay_admission_oldest_wait_seconds` | gauge | `gate` |
//! | `mainstay_admission_pressure_ratio` | gauge: places of the queue that are taken, 0 to 1 | `gate` |
//! | `mainstay_admission_keys` | gauge: keys that a rate limit remembers | `policy` |

mod class;
mod cost;
mod counts;
mod gate;
mod leases;
mod line;
mod rate_rule;
mod rates;
mod redis_store;
mod refusal;
mod ticket;

pub use class::{Class, Group};
pub use cost::{SearchCost, write_bytes, write_units};
pub use gate::{GateReport, LineConfig};
pub use leases::SharedQuota;
pub use rate_rule::{RateRule, RateRuleFault, RateScope};
pub use rates::{PolicyState, RateReport};
pub use redis_store::RedisConfig;
pub use refusal::{Refusal, RefusalKind, RefusalReason};
pub use ticket::{Load, Permit, Ticket};

use crate::memory::Budget;
use arc_swap::{ArcSwap, ArcSwapOption};
use counts::Counts;
use gate::Gate;
use leases::Leases;
use mainstay_resilience::{AdaptiveConfig, Clock, ConfigError, Law, Pipelines};
use rates::{Asked, Rates};
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Everything that admission can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmissionConfig {
    /// Rates that all callers share, by group. Default none.
    pub rates: Vec<RateRule>,
    /// Rates of each key, by group. Default none.
    pub key_rates: Vec<RateRule>,
    /// Keys that each of those remembers, 16 to 1 000 000; then the least recently used is
    /// forgotten. Default 10 000.
    pub keys_max: u32,
    /// How the number of searches and reads at a time is found; `None` for `searches_max` always.
    /// Default Gradient2.
    pub law: Option<Law>,
    /// Searches and reads at a time at least, 1 to `searches_max`. Default 8.
    pub searches_min: u32,
    /// Searches and reads at a time at most, up to 100 000. Default 128.
    pub searches_max: u32,
    /// A search of this duration is never taken for normal, up to 1 h; 0 for unknown. Default 250 ms.
    pub latency_target: Duration,
    /// Writes at a time, 1 to 100 000. Default 64.
    pub writes_max: u32,
    /// The queue in front of searches and reads, and the one in front of writes. Default 512 places,
    /// 1 s at most, 500 ms while it stands.
    pub line: LineConfig,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        let (timeout, target) = (Duration::from_secs(1), Duration::from_millis(500));
        AdmissionConfig {
            rates: Vec::new(),
            key_rates: Vec::new(),
            keys_max: 10_000,
            law: Some(Law::Gradient2),
            searches_min: 8,
            searches_max: 128,
            latency_target: Duration::from_millis(250),
            writes_max: 64,
            line: LineConfig { length: 512, timeout, target },
        }
    }
}

impl AdmissionConfig {
    /// # Errors
    /// The first setting out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.line.validate()?;
        self.reads().validate()?;
        self.writes().validate()?;
        for rule in &self.rates {
            rule.rate.validate()?;
        }
        self.key_rates.iter().try_for_each(|rule| rates::keyed(rule, self.keys_max).validate())
    }

    fn reads(&self) -> AdaptiveConfig {
        let mut config = AdaptiveConfig::default();
        config.max = self.searches_max;
        match self.law {
            Some(law) => {
                config.law = law;
                config.min = self.searches_min.min(self.searches_max);
                config.healthy_rtt_max = self.latency_target;
                config.initial = config.initial.clamp(config.min, config.max.max(config.min));
            }
            None => (config.min, config.initial) = (self.searches_max, self.searches_max),
        }
        config
    }

    /// Writes wait for the disk together: how many do says nothing about how long they wait.
    fn writes(&self) -> AdaptiveConfig {
        let mut config = AdaptiveConfig::default();
        (config.min, config.initial, config.max) =
            (self.writes_max, self.writes_max, self.writes_max);
        config
    }
}

/// Who says which class is begun at least; the strictest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// The service level.
    Level = 0,
    /// A person.
    Hand = 1,
}

const FLOORS: usize = 2;

/// Decides which requests are begun. Clones share everything.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

struct Shared {
    clock: Clock,
    rates: ArcSwap<Rates>,
    reads: Arc<Gate>,
    writes: Arc<Gate>,
    floors: [AtomicU8; FLOORS],
    memory: ArcSwapOption<Budget>,
    leases: ArcSwapOption<Leases>,
    seed: RandomState,
    counts: Counts,
}

impl Admission {
    /// # Errors
    /// The first setting that is out of its range.
    pub fn new(config: &AdmissionConfig, clock: Clock) -> Result<Self, ConfigError> {
        let rates = Admission::rates(config, &clock, &Rates::default())?;
        Ok(Admission(Arc::new(Shared {
            rates: ArcSwap::from_pointee(rates),
            reads: Gate::new("reads", config.reads(), config.line, clock.clone())?,
            writes: Gate::new("writes", config.writes(), config.line, clock.clone())?,
            clock,
            floors: Default::default(),
            memory: ArcSwapOption::empty(),
            leases: ArcSwapOption::empty(),
            seed: RandomState::new(),
            counts: Counts::default(),
        })))
    }

    fn rates(
        config: &AdmissionConfig,
        clock: &Clock,
        before: &Rates,
    ) -> Result<Rates, ConfigError> {
        Rates::new(&config.rates, &config.key_rates, config.keys_max, clock, before)
    }

    /// Takes over another configuration. What is used up of a rate stays so while its algorithm
    /// does, who runs goes on, who waits goes on waiting.
    ///
    /// # Errors
    /// The first setting that is out of its range; earlier ones may have been taken over.
    pub fn reconfigure(&self, config: &AdmissionConfig) -> Result<(), ConfigError> {
        let shared = &*self.0;
        let rates = Admission::rates(config, &shared.clock, &shared.rates.load())?;
        shared.reads.reconfigure(config.reads(), config.line)?;
        shared.writes.reconfigure(config.writes(), config.line)?;
        shared.rates.store(Arc::new(rates));
        Ok(())
    }

    /// Requests below `class` are refused from now on, as far as `floor` is concerned; with
    /// [`Class::Batch`] none is.
    pub fn admit_from(&self, floor: Floor, class: Class) {
        self.0.floors[floor as usize].store(class as u8, Ordering::Relaxed);
    }

    /// The least important class that is begun now.
    #[must_use]
    pub fn admits_from(&self) -> Class {
        let strictest = self.0.floors.iter().map(|floor| floor.load(Ordering::Relaxed)).max();
        Class::from_index(strictest.unwrap_or(0))
    }

    /// Reserves the memory of each request from `budget` before it is begun, from now on.
    pub fn guard_memory(&self, budget: Budget) {
        self.0.memory.store(Some(Arc::new(budget)));
    }

    /// The first look at a request, before its body is read: takes one request's worth of its
    /// rates. Everything that follows goes through the ticket.
    ///
    /// # Errors
    /// The refusal.
    pub fn arrive(&self, class: Class, group: Group, key: &str) -> Result<Ticket, Box<Refusal>> {
        self.arrive_at("", class, group, key)
    }

    /// The same at a route that rates may name.
    ///
    /// # Errors
    /// The refusal.
    pub fn arrive_at(
        &self,
        route: &'static str,
        class: Class,
        group: Group,
        key: &str,
    ) -> Result<Ticket, Box<Refusal>> {
        if class < Class::Control {
            let asked = Asked { group, route, class, key };
            self.look(asked).inspect_err(|no| self.count(no))?;
        }
        Ok(Ticket::new(self.clone(), class, group, route, key))
    }

    /// A ticket that passes every limit.
    #[must_use]
    pub fn control(&self) -> Ticket {
        Ticket::new(self.clone(), Class::Control, Group::Read, "", "")
    }

    fn look(&self, asked: Asked<'_>) -> Result<(), Box<Refusal>> {
        let Asked { group, class, key, .. } = asked;
        let shared = &*self.0;
        if class < self.admits_from() {
            return Err(self.below_floor(class, group));
        }
        let gate = self.gate(group);
        if gate.is_closed_to(class, || shared.seed.hash_one(key)) {
            return Err(self.queued(class, group, RefusalReason::QueueFull));
        }
        let rates = shared.rates.load();
        if rates.is_empty() {
            return Ok(());
        }
        rates.take(asked, self.0.leases.load().as_deref(), 0, 1)
    }

    /// Shares every rate with the other nodes that use the same Redis, from now on. Portions are
    /// taken by a thread of its own, through the pipeline of the service `redis`; no request waits
    /// for it. While Redis is away each of `nodes` keeps to its share.
    ///
    /// # Errors
    /// The address cannot be read, or the thread cannot be started.
    pub fn share_rates(
        &self,
        config: RedisConfig,
        nodes: u32,
        pipelines: &Pipelines,
    ) -> Result<(), ConfigError> {
        let leases = Leases::start(config, nodes, pipelines, self.0.clock.clone())?;
        self.0.leases.store(Some(Arc::new(leases)));
        Ok(())
    }

    /// How this node stands towards each quota that is shared.
    #[must_use]
    pub fn shared_report(&self) -> Vec<SharedQuota> {
        self.0.leases.load().as_ref().map(|leases| leases.report()).unwrap_or_default()
    }

    /// How the limits of a group stand towards a key; empty without limits.
    #[must_use]
    pub fn policies(&self, group: Group, key: &str) -> Vec<PolicyState> {
        let mut all = Vec::new();
        self.policies_at("", group, key, |policy| all.push(policy));
        all
    }

    /// Hands on the same, with those of a route.
    pub fn policies_at(&self, route: &str, group: Group, key: &str, each: impl FnMut(PolicyState)) {
        self.0.rates.load().states(group, route, key, &self.0.clock).for_each(each);
    }

    /// How full the gate of a group is.
    #[must_use]
    pub fn report(&self, group: Group) -> GateReport {
        self.gate(group).report()
    }

    /// Each rate limit.
    #[must_use]
    pub fn rates_report(&self) -> Vec<RateReport> {
        self.0.rates.load().report()
    }

    /// Records every figure as metrics; call it when somebody asks for them.
    pub fn show(&self) {
        self.0.counts.show();
        for (name, gate) in [("reads", &self.0.reads), ("writes", &self.0.writes)] {
            let report = gate.report();
            let labels = [("gate", name)];
            metrics::gauge!("mainstay_admission_limit", &labels).set(report.limit as f64);
            metrics::gauge!("mainstay_admission_in_use", &labels).set(report.in_use as f64);
            metrics::gauge!("mainstay_admission_waiting", &labels).set(report.waiting as f64);
            let oldest = report.oldest_ms as f64 / 1e3;
            metrics::gauge!("mainstay_admission_oldest_wait_seconds", &labels).set(oldest);
            let pressure = report.waiting as f64 / report.waiting_max.max(1) as f64;
            metrics::gauge!("mainstay_admission_pressure_ratio", &labels).set(pressure);
        }
        for rate in self.rates_report() {
            metrics::gauge!("mainstay_admission_keys", "policy" => rate.policy)
                .set(rate.keys as f64);
        }
    }

    fn gate(&self, group: Group) -> &Arc<Gate> {
        match group {
            Group::Search | Group::Read => &self.0.reads,
            Group::Write => &self.0.writes,
        }
    }

    fn count(&self, refusal: &Refusal) {
        self.0.counts.refused(refusal.group, refusal.reason);
    }

    #[cold]
    fn below_floor(&self, class: Class, group: Group) -> Box<Refusal> {
        let from = self.admits_from();
        Box::new(Refusal {
            reason: RefusalReason::Priority,
            group,
            class,
            policy: "priority".into(),
            limit: 0,
            remaining: 0,
            retry_after: FLOOR_RETRY,
            detail: format!("only {from} requests are begun now, this one is {class}; try later"),
        })
    }

    /// A refusal by the queue of a group.
    #[cold]
    fn queued(&self, class: Class, group: Group, reason: RefusalReason) -> Box<Refusal> {
        let gate = self.gate(group);
        let (report, retry_after) = (gate.report(), gate.retry_after());
        let why = match reason {
            RefusalReason::QueueFull => "the queue is full and this caller has its share of it",
            RefusalReason::Displaced => "its place in the queue went to somebody with fewer",
            RefusalReason::QueueAge => "it waited too long in a queue that does not get shorter",
            _ => "no slot became free in the time that a request may wait",
        };
        let detail = format!(
            "{why}: {} requests run, which is the limit now, and {} of {} wait; try again in {} ms",
            report.in_use,
            report.waiting,
            report.waiting_max,
            retry_after.as_millis().max(1)
        );
        Box::new(Refusal {
            reason,
            group,
            class,
            policy: "queue".into(),
            limit: report.waiting_max as u64,
            remaining: report.waiting_max.saturating_sub(report.waiting) as u64,
            retry_after,
            detail,
        })
    }
}

/// When to come again after a refusal by class: levels and memory steps hold for seconds.
const FLOOR_RETRY: Duration = Duration::from_secs(2);

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admission({:?})", self.0.reads.report())
    }
}
