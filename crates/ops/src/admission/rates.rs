//! [`Rates`]: every rate limit of a configuration, measured one after the other.
//!
//! Limits of keys come first, so that a key beyond its own limit takes nothing from what all share.
//! What was taken stays taken when a later limit refuses.

use super::leases::Leases;
use super::rate_rule::RateRule;
use super::{Class, Group, Refusal, RefusalReason};
use mainstay_resilience::{
    Algorithm, Clock, ConfigError, KeyedConfig, KeyedRateLimiter, RateLimiter, Rejection,
    human_duration,
};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// When to look for another portion of a shared quota: a background refill takes a fraction of it.
const LEASE_RETRY: Duration = Duration::from_millis(250);

/// How one policy stands towards one caller: what answers show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// The policy's name, such as `search` or `search-per-key`.
    pub name: Arc<str>,
    /// Units that a full bucket or an unused window holds.
    pub quota: u64,
    /// The time in which the limit counts.
    pub window: Duration,
    /// Units that can be taken now.
    pub remaining: u64,
    /// The time after which all of the quota is there again.
    pub reset: Duration,
}

/// What one rate limit has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RateReport {
    /// The policy's name.
    pub policy: String,
    /// Its rule, as it is written in settings.
    pub rule: String,
    /// Keys that it remembers; 0 for a limit of all callers together.
    pub keys: usize,
    /// Requests refused since it was made.
    pub refused: u64,
}

/// Who asks, for how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) group: Group,
    pub(super) route: &'a str,
    pub(super) class: Class,
    pub(super) key: &'a str,
}

/// All limits. Made anew at each change of the configuration, taking over what is used up.
#[derive(Debug, Default)]
pub(super) struct Rates {
    policies: Vec<Policy>,
}

#[derive(Debug)]
struct Policy {
    name: Arc<str>,
    rule: RateRule,
    meter: Meter,
}

#[derive(Clone, Debug)]
enum Meter {
    All(RateLimiter),
    Key(KeyedRateLimiter),
}

impl Rates {
    /// Limits by these rules; a policy of the same name and algorithm in `before` goes on.
    pub(super) fn new(
        rates: &[RateRule],
        key_rates: &[RateRule],
        keys_max: u32,
        clock: &Clock,
        before: &Rates,
    ) -> Result<Self, ConfigError> {
        let mut policies = Vec::with_capacity(rates.len() + key_rates.len());
        for (rule, per_key) in
            key_rates.iter().map(|rule| (rule, true)).chain(rates.iter().map(|rule| (rule, false)))
        {
            let name: Arc<str> = match per_key {
                true => format!("{}-per-key", rule.name()).into(),
                false => rule.name().into(),
            };
            let old = before
                .policies
                .iter()
                .find(|old| old.name == name && old.rule.rate.algorithm == rule.rate.algorithm);
            let meter = match old {
                Some(old) => old.meter.clone(),
                None => Meter::new(&name, rule, per_key, keys_max, clock)?,
            };
            meter.reconfigure(rule, keys_max)?;
            policies.push(Policy { name, rule: *rule, meter });
        }
        Ok(Rates { policies })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Takes what a request costs from every limit of its group, or, when `paid` units were taken
    /// before, what it costs more.
    pub(super) fn take(
        &self,
        asked: Asked<'_>,
        leases: Option<&Leases>,
        paid: u32,
        cost: u32,
    ) -> Result<(), Box<Refusal>> {
        for policy in
            self.policies.iter().filter(|policy| policy.rule.covers(asked.group, asked.route))
        {
            let before = if paid == 0 { 0 } else { policy.rule.units(paid) };
            let units = policy.rule.units(cost).saturating_sub(before);
            if units == 0 {
                continue;
            }
            // The common quota is the limit of all nodes; beside it only spacing is each node's own.
            if leases.is_none() || policy.rule.rate.algorithm == Algorithm::LeakyBucket {
                policy.take(asked.key, units).map_err(|no| policy.refusal(asked, &no))?;
            }
            if let Some(leases) = leases {
                let key = if policy.is_per_key() { asked.key } else { "" };
                if !leases.spend(&policy.name, &policy.rule, key, units) {
                    return Err(policy.lease_spent(asked));
                }
            }
        }
        Ok(())
    }

    /// How the limits of a route and its group stand towards a key.
    pub(super) fn states(
        &self,
        group: Group,
        route: &str,
        key: &str,
        clock: &Clock,
    ) -> impl Iterator<Item = PolicyState> {
        let covering = self.policies.iter().filter(move |policy| policy.rule.covers(group, route));
        covering.map(move |policy| policy.state(key, clock))
    }

    pub(super) fn report(&self) -> Vec<RateReport> {
        let one = |policy: &Policy| {
            let (keys, refused) = match &policy.meter {
                Meter::All(limiter) => (0, limiter.refused()),
                Meter::Key(limiter) => (limiter.keys(), limiter.refused()),
            };
            RateReport {
                policy: policy.name.to_string(),
                rule: policy.rule.to_string(),
                keys,
                refused,
            }
        };
        self.policies.iter().map(one).collect()
    }
}

impl Meter {
    fn new(
        name: &Arc<str>,
        rule: &RateRule,
        per_key: bool,
        keys_max: u32,
        clock: &Clock,
    ) -> Result<Self, ConfigError> {
        let name = Arc::clone(name);
        Ok(match per_key {
            false => Meter::All(RateLimiter::with_clock(name, rule.rate, clock.clone())?),
            true => {
                let config = keyed(rule, keys_max);
                Meter::Key(KeyedRateLimiter::with_clock(name, config, clock.clone())?)
            }
        })
    }

    fn reconfigure(&self, rule: &RateRule, keys_max: u32) -> Result<(), ConfigError> {
        match self {
            Meter::All(limiter) => limiter.reconfigure(rule.rate),
            Meter::Key(limiter) => limiter.reconfigure(keyed(rule, keys_max)),
        }
    }
}

/// Keys that nobody used for ten minutes, or for one period where that is longer, go first.
pub(super) fn keyed(rule: &RateRule, keys_max: u32) -> KeyedConfig {
    let mut config = KeyedConfig::new(rule.rate);
    config.keys_max = keys_max;
    config.idle_after = config.idle_after.max(rule.rate.period);
    config
}

impl Policy {
    #[inline]
    fn take(&self, key: &str, units: u32) -> Result<(), Rejection> {
        match &self.meter {
            Meter::All(limiter) => limiter.try_acquire_cost(units),
            Meter::Key(limiter) => limiter.try_acquire(key, units),
        }
    }

    fn is_per_key(&self) -> bool {
        matches!(self.meter, Meter::Key(_))
    }

    fn available(&self, key: &str) -> u64 {
        match &self.meter {
            Meter::All(limiter) => limiter.available(),
            Meter::Key(limiter) => limiter.available(key),
        }
    }

    fn state(&self, key: &str, clock: &Clock) -> PolicyState {
        let (rate, quota) = (&self.rule.rate, self.rule.quota());
        let remaining = self.available(key).min(quota);
        let used = u32::try_from(quota - remaining).unwrap_or(u32::MAX);
        let reset = match rate.algorithm {
            Algorithm::FixedWindow => {
                let period = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX).max(1);
                Duration::from_nanos(period - clock.coarse().as_nanos() % period)
            }
            Algorithm::SlidingWindow => rate.period,
            _ => (rate.period / rate.limit.max(1)).saturating_mul(used),
        };
        PolicyState { name: Arc::clone(&self.name), quota, window: rate.period, remaining, reset }
    }

    #[cold]
    fn lease_spent(&self, asked: Asked<'_>) -> Box<Refusal> {
        let rate = &self.rule.rate;
        // Some node may give something back, or the window ends: nobody knows when, at most a period.
        let retry_after = (rate.period / rate.limit.max(1)).max(LEASE_RETRY).min(rate.period);
        Box::new(Refusal {
            reason: RefusalReason::SharedRate,
            group: asked.group,
            class: asked.class,
            policy: Arc::clone(&self.name),
            limit: u64::from(rate.limit),
            remaining: 0,
            retry_after,
            detail: format!(
                "the {} per {} that all nodes share for {} are used up; try again in {} ms",
                rate.limit,
                human_duration::format(rate.period),
                self.rule.name(),
                retry_after.as_millis().max(1),
            ),
        })
    }

    #[cold]
    fn refusal(&self, asked: Asked<'_>, rejection: &Rejection) -> Box<Refusal> {
        let rate = &self.rule.rate;
        let each = rate.period / rate.limit.max(1);
        let retry_after = rejection.retry_after().unwrap_or(each).max(Duration::from_nanos(1));
        let (reason, whose) = match self.meter {
            Meter::All(_) => (RefusalReason::Rate, "all callers together"),
            Meter::Key(_) => (RefusalReason::KeyRate, "each caller"),
        };
        let what = if self.rule.by_cost { "units of cost" } else { "requests" };
        let detail = format!(
            "{whose} may send {} {what} per {} to {}; try again in {} ms",
            rate.limit,
            human_duration::format(rate.period),
            self.rule.name(),
            retry_after.as_millis().max(1),
        );
        Box::new(Refusal {
            reason,
            group: asked.group,
            class: asked.class,
            policy: Arc::clone(&self.name),
            limit: u64::from(rate.limit),
            remaining: self.available(asked.key),
            retry_after,
            detail,
        })
    }
}
