//! What moves the ladder.

use super::{Level, LevelEffects};
use crate::health::Health;
use crate::memory::Step;
use mainstay_resilience::ConfigError;
use serde::{Deserialize, Serialize};

/// When the ladder moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LevelsConfig {
    /// How long a signal must want a worse level, in ms, 0 to 600,000 (default 1,000).
    pub worsen_after_ms: u64,
    /// How long no signal may want to stay, for each rung, in ms, 0 to 3,600,000 (default 30,000).
    pub recover_after_ms: u64,
    /// Open breakers that degrade, 1 or more (default 1); 0 ignores breakers.
    pub breakers_degraded: usize,
    /// Open breakers that leave the minimum (default 3); 0 never.
    pub breakers_minimal: usize,
    /// Age of the oldest waiting request that degrades, in ms (default 200); 0 ignores it.
    pub queue_degraded_ms: u64,
    /// Age that leaves the minimum, in ms (default 1,000); 0 never.
    pub queue_minimal_ms: u64,
    /// Share of those ages below which the level is left, 0 to 1 (default 0.5).
    pub queue_recover: f64,
    /// What each level means.
    pub effects: LevelEffects,
}

impl Default for LevelsConfig {
    fn default() -> Self {
        LevelsConfig {
            worsen_after_ms: 1_000,
            recover_after_ms: 30_000,
            breakers_degraded: 1,
            breakers_minimal: 3,
            queue_degraded_ms: 200,
            queue_minimal_ms: 1_000,
            queue_recover: 0.5,
            effects: LevelEffects::default(),
        }
    }
}

impl LevelsConfig {
    /// # Errors
    /// The first setting out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, value: &dyn std::fmt::Display, allowed: &str| {
            Err(ConfigError::new(format!("levels.{field}"), value, allowed))
        };
        if self.worsen_after_ms > 600_000 {
            return refuse("worsen_after_ms", &self.worsen_after_ms, "0 to 600000");
        }
        if self.recover_after_ms > 3_600_000 {
            return refuse("recover_after_ms", &self.recover_after_ms, "0 to 3600000");
        }
        if !(0.0..=1.0).contains(&self.queue_recover) {
            return refuse("queue_recover", &self.queue_recover, "0 to 1");
        }
        if self.breakers_minimal != 0 && self.breakers_minimal < self.breakers_degraded {
            let allowed = format!("0, or {} (breakers_degraded) or more", self.breakers_degraded);
            return refuse("breakers_minimal", &self.breakers_minimal, &allowed);
        }
        if self.queue_minimal_ms != 0 && self.queue_minimal_ms < self.queue_degraded_ms {
            let allowed = format!("0, or {} (queue_degraded_ms) or more", self.queue_degraded_ms);
            return refuse("queue_minimal_ms", &self.queue_minimal_ms, &allowed);
        }
        self.effects.validate()
    }
}

/// How things stand, as whoever composes the process reads it off. The default is all well.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Names of open breakers.
    pub breakers_open: Vec<String>,
    /// The whole's health.
    pub health: Health,
    /// The memory guard's step.
    pub memory: Step,
    /// Age of the oldest waiting request, in ms.
    pub queue_age_ms: u64,
    /// Objectives whose budget burns so fast that somebody is paged.
    pub burning: Vec<String>,
    /// Why nothing can be written, when that is so.
    pub read_only: Option<String>,
}

impl Default for Signals {
    fn default() -> Self {
        Signals {
            breakers_open: Vec::new(),
            health: Health::Healthy,
            memory: Step::Normal,
            queue_age_ms: 0,
            burning: Vec::new(),
            read_only: None,
        }
    }
}

/// Which threshold counts: the one to get worse, or the lower one to stay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threshold {
    Enter,
    Stay,
}

/// What a level may come from, as the metric of reasons names it.
pub(super) const CAUSES: [&str; 8] =
    ["none", "breakers", "health", "memory", "queue", "budget", "log", "hand"];

/// A level that a signal wants.
pub(super) struct Wish {
    pub(super) level: Level,
    /// One of [`CAUSES`].
    pub(super) from: &'static str,
    pub(super) reason: String,
}

impl Signals {
    /// The worst level that a signal wants, with its reason; full when none wants anything.
    pub(super) fn wanted(&self, config: &LevelsConfig, threshold: Threshold) -> Wish {
        let reason = "all signals are well".to_owned();
        let mut worst = Wish { level: Level::Full, from: "none", reason };
        let mut want = |level: Level, from: &'static str, reason: String| {
            if level > worst.level {
                worst = Wish { level, from, reason };
            }
        };
        if let Some(why) = &self.read_only {
            want(Level::Maintenance, "log", format!("nothing can be written: {why}"));
        }
        let memory = match self.memory {
            Step::Normal | Step::Warn => Level::Full,
            Step::Shrink | Step::Return => Level::Degraded,
            Step::Reject | Step::Emergency => Level::Minimal,
        };
        want(memory, "memory", format!("memory is at step {}", self.memory.as_str()));
        let health = match self.health {
            Health::Healthy => Level::Full,
            Health::Degraded | Health::Unknown => Level::Degraded,
            Health::Unhealthy => Level::Minimal,
        };
        want(health, "health", format!("health is {}", self.health.as_str()));
        let (open, names) = (self.breakers_open.len(), self.breakers_open.join(", "));
        let count = |least: usize| least > 0 && open >= least;
        let breakers = rung(count(config.breakers_degraded), count(config.breakers_minimal));
        want(breakers, "breakers", format!("breakers are open: {names}"));
        let share = if threshold == Threshold::Enter { 1.0 } else { config.queue_recover };
        let age = |least_ms: u64| {
            least_ms > 0 && self.queue_age_ms as f64 >= (least_ms as f64 * share).max(1.0)
        };
        let queue = rung(age(config.queue_degraded_ms), age(config.queue_minimal_ms));
        want(queue, "queue", format!("requests wait for {} ms", self.queue_age_ms));
        if !self.burning.is_empty() {
            let reason = format!("error budget burns: {}", self.burning.join(", "));
            want(Level::Degraded, "budget", reason);
        }
        worst
    }
}

fn rung(degraded: bool, minimal: bool) -> Level {
    match (degraded, minimal) {
        (_, true) => Level::Minimal,
        (true, false) => Level::Degraded,
        (false, false) => Level::Full,
    }
}
