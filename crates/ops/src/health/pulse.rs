//! Liveness: loops of this process that say that they still turn.

use crate::lock::lock;
use mainstay_resilience::{Clock, ConfigError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// Loops that may be watched: one for each long-lived thread of a process, with room.
const PULSES_MAX: usize = 64;

struct Beaten {
    name: String,
    silence_max: Duration,
    last: AtomicU64,
}

/// All watched loops of a process. Clones share them.
#[derive(Clone)]
pub struct Pulses {
    clock: Clock,
    watched: Arc<Mutex<Vec<Weak<Beaten>>>>,
}

/// One loop's pulse; dropped when the loop ends as it should.
pub struct Pulse {
    clock: Clock,
    beaten: Arc<Beaten>,
}

/// Whether the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// False when a loop is silent for longer than it may be: only a restart helps.
    pub live: bool,
    /// The silent loops, with how long they are silent.
    pub silent: Vec<String>,
    /// The names of all watched loops.
    #[serde(default)]
    pub watched: Vec<String>,
}

impl Pulses {
    /// Nothing is watched yet, so the process lives.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Pulses { clock, watched: Arc::default() }
    }

    /// Watches a loop that beats at least once in `silence_max`, 1 s or more. Choose it ten times
    /// longer than the loop's longest turn: being wrong costs a restart.
    ///
    /// # Errors
    /// A shorter silence, or more than 64 loops.
    pub fn watch(&self, name: &str, silence_max: Duration) -> Result<Pulse, ConfigError> {
        if silence_max < Duration::from_secs(1) {
            let shown = mainstay_resilience::human_duration::format(silence_max);
            return Err(ConfigError::new(format!("pulse.{name}.silence_max"), shown, "1s or more"));
        }
        let mut watched = lock(&self.watched);
        watched.retain(|beaten| beaten.strong_count() > 0);
        if watched.len() >= PULSES_MAX {
            return Err(ConfigError::new("pulses", PULSES_MAX + 1, format!("up to {PULSES_MAX}")));
        }
        let last = AtomicU64::new(self.clock.coarse().as_nanos());
        let beaten = Arc::new(Beaten { name: name.to_owned(), silence_max, last });
        watched.push(Arc::downgrade(&beaten));
        Ok(Pulse { clock: self.clock.clone(), beaten })
    }

    /// Whether every watched loop still turns. Asks no dependency and waits for nobody.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        let now = self.clock.coarse();
        let (mut silent, mut watched) = (Vec::new(), Vec::new());
        for beaten in lock(&self.watched).iter().filter_map(Weak::upgrade) {
            let last = mainstay_resilience::Tick::from_nanos(beaten.last.load(Ordering::Relaxed));
            let age = now.since(last);
            if age > beaten.silence_max {
                silent.push(format!("{}: silent for {} s", beaten.name, age.as_secs()));
            }
            watched.push(beaten.name.clone());
        }
        Liveness { live: silent.is_empty(), silent, watched }
    }
}

impl Pulse {
    /// The loop turns.
    pub fn beat(&self) {
        self.beaten.last.store(self.clock.coarse().as_nanos(), Ordering::Relaxed);
    }
}
