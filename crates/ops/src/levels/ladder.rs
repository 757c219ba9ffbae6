//! The ladder's state and its moves.
//!
//! Invariants: the standing that readers see changes under the lock only; every change leaves a
//! transition in the history, a metric, a log line and an audit event; a hold always ends, whatever
//! is done to the time of day: no later than it would by the process's own clock, and after a restart
//! no later than the longest hold.

use super::signals::{CAUSES, Threshold, Wish};
use super::{Effects, Level, LevelsConfig, Signals};
use crate::audit::{Action, Audit, SYSTEM};
use crate::lock::lock;
use crate::store::{StateError, StateStore, load_sealed, save_sealed};
use crate::wall_clock::{WallClock, rfc3339};
use arc_swap::ArcSwap;
use mainstay_resilience::{Clock, ConfigError, Tick};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Transitions kept for display.
const HISTORY_MAX: usize = 100;
/// The longest hold: a week. What is meant to last longer belongs into the configuration.
const HOLD_MAX: Duration = Duration::from_secs(7 * 86_400);
const PIECE: &str = "level-hold";
const KIND: [u8; 4] = *b"hold";
const VERSION: u16 = 1;

/// Where the process stands: what a request reads, once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The level.
    pub level: Level,
    /// Why.
    pub reason: String,
    /// What kind of reason it is: none, breakers, health, memory, queue, budget, log, wish or hand.
    pub from: &'static str,
    /// Since when, RFC 3339.
    pub since: String,
    /// What it means.
    pub effects: Effects,
}

/// A level held by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The level.
    pub level: Level,
    /// When it ends, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// Who holds it.
    pub who: String,
    /// Why.
    pub why: String,
}

/// One change of level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transition {
    /// The level before.
    pub from: Level,
    /// The level after.
    pub to: Level,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub time: String,
    /// `signal`, `hand` or `recovery`.
    pub cause: &'static str,
}

/// What the ladder shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelsReport {
    /// Where the process stands.
    pub standing: Standing,
    /// The hold, if there is one.
    pub held: Option<Held>,
    /// The level that the signals want, whatever is held.
    pub automatic: Level,
    /// Changes, the newest first, up to 100.
    pub history: Vec<Transition>,
}

struct Position {
    /// The level by signals alone.
    automatic: Level,
    reason: String,
    from: &'static str,
    /// Since when a worse level is wanted.
    worse_since: Option<Tick>,
    /// Since when nothing wants to stay.
    better_since: Option<Tick>,
    held: Option<Held>,
    /// The same end by the process's own clock.
    held_until: Tick,
    history: VecDeque<Transition>,
}

struct Ladder {
    config: LevelsConfig,
    clock: Clock,
    wall: WallClock,
    audit: Audit,
    store: Arc<dyn StateStore>,
    standing: ArcSwap<Standing>,
    position: Mutex<Position>,
}

/// The ladder of a process. Clones share it; call [`tick`](Self::tick) every 250 ms or so.
#[derive(Clone)]
pub struct Levels(Arc<Ladder>);

impl Levels {
    /// A ladder at full service, or at the level that was held when the process ended.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn open(
        config: LevelsConfig,
        clock: Clock,
        wall: WallClock,
        audit: Audit,
        store: Arc<dyn StateStore>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let standing = Standing {
            level: Level::Full,
            reason: "start".to_owned(),
            from: "none",
            since: rfc3339(wall.unix_ms()),
            effects: config.effects.full.clone(),
        };
        let held = saved_hold(&*store, wall.unix_ms());
        let left_ms = held.as_ref().map_or(0, |it| it.until_unix_ms.saturating_sub(wall.unix_ms()));
        let position = Position {
            automatic: Level::Full,
            reason: "start".to_owned(),
            from: "none",
            worse_since: None,
            better_since: None,
            held,
            held_until: clock.now().after(Duration::from_millis(left_ms)),
            history: VecDeque::new(),
        };
        let standing = ArcSwap::from_pointee(standing);
        let position = Mutex::new(position);
        let levels =
            Levels(Arc::new(Ladder { config, clock, wall, audit, store, standing, position }));
        let mut position = lock(&levels.0.position);
        levels.publish(&mut position, "hand", SYSTEM);
        drop(position);
        metrics::gauge!("mainstay_level").set(f64::from(levels.level() as u8));
        Ok(levels)
    }

    /// The level now.
    #[must_use]
    pub fn level(&self) -> Level {
        self.0.standing.load().level
    }

    /// Level, reason and effects now; cheap enough for every request.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.0.standing.load_full()
    }

    /// Moves the ladder by what the signals say.
    pub fn tick(&self, signals: &Signals) -> Level {
        let ladder = &*self.0;
        let now = ladder.clock.now();
        let Wish { level: enter, from, reason: why } =
            signals.wanted(&ladder.config, Threshold::Enter);
        let stay = signals.wanted(&ladder.config, Threshold::Stay);
        let mut position = lock(&ladder.position);
        let mut cause = "signal";
        if enter > position.automatic {
            position.better_since = None;
            let since = *position.worse_since.get_or_insert(now);
            if now.since(since) >= Duration::from_millis(ladder.config.worsen_after_ms) {
                position.automatic = enter;
                (position.from, position.reason) = (from, why);
                position.worse_since = None;
            }
        } else {
            position.worse_since = None;
            if stay.level < position.automatic {
                let since = *position.better_since.get_or_insert(now);
                if now.since(since) >= Duration::from_millis(ladder.config.recover_after_ms) {
                    let to = position.automatic.better();
                    position.automatic = to;
                    position.reason = format!("recovering: {why}");
                    if to == Level::Full {
                        position.from = "none";
                    }
                    position.better_since = Some(now);
                    cause = "recovery";
                }
            } else {
                position.better_since = None;
                // What keeps it there may be something else than what brought it there.
                if stay.level > Level::Full {
                    (position.from, position.reason) = (stay.from, stay.reason);
                }
            }
        }
        // The time of day counts as well: a machine that slept has no clock that went on.
        let wall_ms = ladder.wall.unix_ms();
        let ends = |held: &Held| held.until_unix_ms <= wall_ms || position.held_until <= now;
        if position.held.as_ref().is_some_and(ends) {
            position.held = None;
            self.forget_hold();
            cause = "hand";
        }
        self.publish(&mut position, cause, SYSTEM);
        self.level()
    }

    /// Holds a level whatever the signals say, for 1 s to 7 days. It outlives a restart.
    ///
    /// # Errors
    /// A time out of its range, or the hold could not be saved; nothing has changed then.
    pub fn hold(
        &self,
        level: Level,
        lasting: Duration,
        who: &str,
        why: &str,
    ) -> Result<(), HoldError> {
        if lasting < Duration::from_secs(1) || lasting > HOLD_MAX {
            let shown = mainstay_resilience::human_duration::format(lasting);
            return Err(HoldError::Config(ConfigError::new("levels.hold", shown, "1s to 7d")));
        }
        let lasting_ms = u64::try_from(lasting.as_millis()).unwrap_or(0);
        let until_unix_ms = self.0.wall.unix_ms().saturating_add(lasting_ms);
        let held = Held { level, until_unix_ms, who: who.to_owned(), why: why.to_owned() };
        let mut position = lock(&self.0.position);
        self.save_hold(Some(&held))?;
        let action = Action::new(who, "level.hold", level.as_str());
        self.0.audit.record(action.change(&position.held, &held).because(why));
        position.held = Some(held);
        position.held_until = self.0.clock.now().after(lasting);
        self.publish(&mut position, "hand", who);
        Ok(())
    }

    /// Ends a hold; the signals decide again. False when there is none.
    ///
    /// # Errors
    /// It could not be saved; the level is still held then.
    pub fn release(&self, who: &str, why: &str) -> Result<bool, HoldError> {
        let mut position = lock(&self.0.position);
        if position.held.is_none() {
            return Ok(false);
        }
        self.save_hold(None)?;
        let held = position.held.take();
        let action = Action::new(who, "level.release", self.level().as_str());
        self.0.audit.record(action.change(held, ()).because(why));
        self.publish(&mut position, "hand", who);
        Ok(true)
    }

    /// What the ladder shows.
    #[must_use]
    pub fn report(&self) -> LevelsReport {
        let position = lock(&self.0.position);
        LevelsReport {
            standing: (*self.standing()).clone(),
            held: position.held.clone(),
            automatic: position.automatic,
            history: position.history.iter().rev().cloned().collect(),
        }
    }

    /// Makes the position visible when it changed the level or its reason.
    fn publish(&self, position: &mut Position, cause: &'static str, who: &str) {
        let ladder = &*self.0;
        let (to, from, reason) = match &position.held {
            Some(held) => (held.level, "hand", format!("held by {}: {}", held.who, held.why)),
            None => (position.automatic, position.from, position.reason.clone()),
        };
        let before = self.standing();
        if before.level == to && before.reason == reason {
            return;
        }
        let time = rfc3339(ladder.wall.unix_ms());
        let effects = ladder.config.effects.of(to).clone();
        let same = before.level == to;
        let since = if same { before.since.clone() } else { time.clone() };
        let standing = Standing { level: to, reason: reason.clone(), from, since, effects };
        ladder.standing.store(Arc::new(standing));
        for cause in CAUSES {
            let holds = f64::from(u8::from(cause == from));
            metrics::gauge!("mainstay_level_reason", "reason" => cause).set(holds);
        }
        if same {
            return;
        }
        let from = before.level;
        metrics::gauge!("mainstay_level").set(f64::from(to as u8));
        metrics::counter!(
            "mainstay_level_transitions_total", "to" => to.as_str(), "cause" => cause
        )
        .increment(1);
        tracing::warn!(from = from.as_str(), to = to.as_str(), reason, cause, "level changed");
        let action = Action::new(who, "level.change", to.as_str());
        ladder.audit.record(action.change(from, to).because(&reason));
        if position.history.len() == HISTORY_MAX {
            position.history.pop_front();
        }
        position.history.push_back(Transition { from, to, reason, time, cause });
    }

    /// A hold that is over by time is over even when that cannot be saved: its end is saved in it.
    fn forget_hold(&self) {
        if let Err(error) = self.save_hold(None) {
            tracing::warn!(%error, "the end of a level's hold could not be saved");
        }
    }

    fn save_hold(&self, held: Option<&Held>) -> Result<(), HoldError> {
        let json = serde_json::to_vec(&held)
            .map_err(|_| StateError::Damaged { name: PIECE.to_owned(), what: "not writable" });
        let saved =
            save_sealed(&*self.0.store, PIECE, KIND, VERSION, &json.map_err(HoldError::State)?);
        saved.map_err(HoldError::State)
    }
}

/// A hold that cannot be read holds nothing: the signals decide, and the log says so. One that ends
/// later than any can was saved by a clock that ran ahead.
fn saved_hold(store: &dyn StateStore, now_unix_ms: u64) -> Option<Held> {
    let read = load_sealed(store, PIECE, KIND, VERSION);
    let bytes = read
        .inspect_err(|error| tracing::error!(%error, "a level's hold could not be read"))
        .ok()
        .flatten()?;
    let mut held = serde_json::from_slice::<Option<Held>>(&bytes).ok().flatten()?;
    let longest_ms = u64::try_from(HOLD_MAX.as_millis()).unwrap_or(u64::MAX);
    held.until_unix_ms = held.until_unix_ms.min(now_unix_ms.saturating_add(longest_ms));
    Some(held)
}

/// Why a level was not held or released.
#[derive(Debug)]
#[non_exhaustive]
pub enum HoldError {
    /// The time is out of its range.
    Config(ConfigError),
    /// It could not be saved.
    State(StateError),
}

impl std::fmt::Display for HoldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HoldError::Config(error) => write!(f, "{error}"),
            HoldError::State(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for HoldError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HoldError::Config(error) => Some(error),
            HoldError::State(error) => Some(error),
        }
    }
}
