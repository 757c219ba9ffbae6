//! What each level means.

use super::Level;
use mainstay_resilience::ConfigError;
use serde::{Deserialize, Serialize};

/// What is done and what is left out at one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effects {
    /// Whether the refining model takes part: better vectors for the query, milliseconds each.
    pub refine: bool,
    /// How much of the usual work is done, above 0 and up to 1: it scales the number of candidates.
    pub effort: f64,
    /// The methods that run, by name; empty means all.
    pub methods: Vec<String>,
    /// Whether an answer from the cache may be given although it is too old.
    pub stale_answers: bool,
    /// Whether reads are answered.
    pub reads: bool,
    /// Whether writes are taken.
    pub writes: bool,
}

impl Effects {
    /// Whether a method runs at this level.
    #[must_use]
    pub fn allows_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|allowed| allowed == method)
    }
}

/// The effects of all levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LevelEffects {
    /// Default: everything.
    pub full: Effects,
    /// Default: without the refining model, half the effort.
    pub degraded: Effects,
    /// Default: `bm25` alone at a quarter of the effort, answers may be stale.
    pub minimal: Effects,
    /// Default: everything but writes. With `reads = false` it is closed.
    pub maintenance: Effects,
}

impl Default for LevelEffects {
    fn default() -> Self {
        let full = Effects {
            refine: true,
            effort: 1.0,
            methods: Vec::new(),
            stale_answers: false,
            reads: true,
            writes: true,
        };
        let degraded = Effects { refine: false, effort: 0.5, ..full.clone() };
        let minimal = Effects {
            effort: 0.25,
            methods: vec!["bm25".to_owned()],
            stale_answers: true,
            ..degraded.clone()
        };
        let maintenance = Effects { writes: false, ..full.clone() };
        LevelEffects { full, degraded, minimal, maintenance }
    }
}

impl LevelEffects {
    /// The effects of one level.
    #[must_use]
    pub fn of(&self, level: Level) -> &Effects {
        match level {
            Level::Full => &self.full,
            Level::Degraded => &self.degraded,
            Level::Minimal => &self.minimal,
            Level::Maintenance => &self.maintenance,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for level in Level::ALL {
            let effort = self.of(level).effort;
            let within = effort > 0.0 && effort <= 1.0;
            if !within {
                let field = format!("levels.effects.{}.effort", level.as_str());
                return Err(ConfigError::new(field, effort, "above 0 and at most 1"));
            }
        }
        Ok(())
    }
}
