//! An orderly end: phases in order, each with its own deadline, and never longer than all of them.
//!
//! The usual order is *not ready* (so that nobody sends more), *stop accepting*, *drain* (what was
//! begun is finished), *flush* (what is in memory gets to the disk), *close*. A phase that is late
//! or fails does not keep the next one from being tried, because flushing matters most when
//! draining went wrong. A second signal ends it at once: what was acknowledged is durable without
//! any of these phases.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | every phase was done in time |
//! | 10 | a phase was late or failed; the log says which |
//! | 11 | a second signal cut it short |
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_shutdown_phase_seconds` | gauge | `phase` |

use crate::lock::lock;
use mainstay_resilience::{Clock, ConfigError, Tick};
use serde::Serialize;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Every phase was done in time.
pub const EXIT_CLEAN: u8 = 0;
/// A phase was late or failed.
pub const EXIT_INCOMPLETE: u8 = 10;
/// A second signal cut it short.
pub const EXIT_FORCED: u8 = 11;
/// Phases of a plan: the five usual ones, with room.
const PHASES_MAX: usize = 16;
/// Default of [`Plan::new`]: what `docker stop` and Kubernetes leave room for (O6).
pub const TOTAL_DEFAULT: Duration = Duration::from_secs(30);
/// How often waiting looks at an injected clock.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How far a phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseState {
    /// Not begun.
    Waiting,
    /// In progress.
    Running,
    /// Done in time.
    Done,
    /// It returned an error or panicked.
    Failed,
    /// Its deadline passed.
    Late,
    /// Cut short or left out after a second signal.
    Skipped,
}

/// One phase, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: PhaseState,
    /// How long it took, in ms.
    pub took_ms: u64,
    /// How long it may take, in ms; longer than planned when earlier phases were quick.
    pub deadline_ms: u64,
    /// What is being waited for, or what went wrong.
    pub note: String,
}

/// How far the end is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Why the process ends; nothing while it does not.
    pub reason: Option<String>,
    /// Whether a second signal came.
    pub forced: bool,
    /// The phases, once they have begun.
    pub phases: Vec<PhaseReport>,
}

impl Progress {
    /// The exit code, as far as it can be told yet.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let bad = |phase: &PhaseReport| phase.state != PhaseState::Done;
        match (self.forced, self.phases.iter().any(bad)) {
            (true, true) => EXIT_FORCED,
            (_, false) => EXIT_CLEAN,
            (false, true) => EXIT_INCOMPLETE,
        }
    }
}

impl fmt::Display for Progress {
    /// One line: `shutting down (SIGTERM): not ready done in 2 ms, drain running for 3.1 s of 10 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(reason) = &self.reason else { return f.write_str("running") };
        write!(f, "shutting down ({reason})")?;
        for (n, phase) in self.phases.iter().enumerate() {
            let (name, took, all) = (&phase.name, phase.took_ms, phase.deadline_ms);
            f.write_str(if n == 0 { ": " } else { ", " })?;
            match phase.state {
                PhaseState::Waiting => write!(f, "{name} waits")?,
                PhaseState::Running => write!(f, "{name} running for {took} of {all} ms")?,
                PhaseState::Done => write!(f, "{name} done in {took} ms")?,
                PhaseState::Failed => write!(f, "{name} failed after {took} ms")?,
                PhaseState::Late => write!(f, "{name} not done in {all} ms")?,
                PhaseState::Skipped => write!(f, "{name} skipped")?,
            }
            if !phase.note.is_empty() {
                write!(f, " ({})", phase.note)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct State {
    reason: Option<String>,
    forced: bool,
    phases: Vec<PhaseReport>,
    /// When the running phase began.
    began: Tick,
    /// The result of the running phase, by its place.
    finished: Option<(usize, Result<(), String>)>,
}

/// The end of a process, from the first signal on. Clones share it.
#[derive(Clone)]
pub struct Shutdown {
    clock: Clock,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Shutdown {
    /// Nothing has been asked for yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Shutdown { clock, state: Arc::default() }
    }

    /// Somebody wants the process to end. The first time it begins; the second time it is forced.
    /// True when it was forced.
    pub fn request(&self, reason: &str) -> bool {
        let mut state = lock(&self.state.0);
        if state.reason.is_none() {
            tracing::info!(reason, "shutting down");
            state.reason = Some(reason.to_owned());
        } else if !state.forced {
            tracing::warn!(reason, "shutting down at once");
            state.forced = true;
        }
        let forced = state.forced;
        drop(state);
        self.state.1.notify_all();
        forced
    }

    /// Whether the process is to end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        lock(&self.state.0).reason.is_some()
    }

    /// Whether a second signal came.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        lock(&self.state.0).forced
    }

    /// Blocks until the process is to end.
    pub fn wait(&self) {
        let state = lock(&self.state.0);
        let waited = self.state.1.wait_while(state, |state| state.reason.is_none());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// How far the end is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let now = self.clock.now();
        let state = lock(&self.state.0);
        let mut phases = state.phases.clone();
        for phase in phases.iter_mut().filter(|phase| phase.state == PhaseState::Running) {
            phase.took_ms = millis(now.since(state.began));
        }
        Progress { reason: state.reason.clone(), forced: state.forced, phases }
    }

    fn update(&self, place: usize, change: impl FnOnce(&mut PhaseReport)) {
        change(&mut lock(&self.state.0).phases[place]);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a running phase knows.
#[derive(Clone)]
pub struct PhaseContext {
    shutdown: Shutdown,
    place: usize,
    until: Tick,
}

impl PhaseContext {
    /// How long the phase may still take; zero when it is late or was forced.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.shutdown.is_forced() {
            return Duration::ZERO;
        }
        self.until.since(self.shutdown.clock.now())
    }

    /// Says what is being waited for, for example `3 requests`.
    pub fn note(&self, note: impl Into<String>) {
        let note = note.into();
        self.shutdown.update(self.place, |phase| phase.note = note);
    }
}

type Work = Box<dyn FnOnce(&PhaseContext) -> Result<(), String> + Send>;

struct Phase {
    name: String,
    deadline: Duration,
    work: Work,
}

/// The phases of an end.
pub struct Plan {
    total: Duration,
    phases: Vec<Phase>,
}

impl Plan {
    /// A plan without phases that may take this long as a whole, usually [`TOTAL_DEFAULT`].
    #[must_use]
    pub fn new(total: Duration) -> Self {
        Plan { total, phases: Vec::new() }
    }

    /// Adds a phase behind those that are there, which gets at least this long: what earlier phases
    /// leave of theirs is added, so that the whole takes no longer. `work` runs on a thread of its
    /// own, which is left behind when the deadline passes.
    ///
    /// # Errors
    /// More than 16 phases, or deadlines that take longer together than the whole may: then the
    /// last ones could not be relied on.
    pub fn phase(
        mut self,
        name: &str,
        deadline: Duration,
        work: impl FnOnce(&PhaseContext) -> Result<(), String> + Send + 'static,
    ) -> Result<Self, ConfigError> {
        let show = mainstay_resilience::human_duration::format;
        let planned: Duration = self.phases.iter().map(|phase| phase.deadline).sum();
        let left = self.total.saturating_sub(planned);
        if deadline.is_zero() || deadline > left {
            let allowed = format!(
                "above 0s and at most {}, what is left of {}",
                show(left),
                show(self.total)
            );
            return Err(ConfigError::new(format!("shutdown.{name}"), show(deadline), allowed));
        }
        if self.phases.len() >= PHASES_MAX {
            let allowed = format!("up to {PHASES_MAX}");
            return Err(ConfigError::new("shutdown.phases", PHASES_MAX + 1, allowed));
        }
        self.phases.push(Phase { name: name.to_owned(), deadline, work: Box::new(work) });
        Ok(self)
    }

    /// Runs the phases, one after the other, and says how it went. Does not wait for a
    /// [request](Shutdown::request): call it once there was one.
    pub fn run(self, shutdown: &Shutdown) -> Progress {
        let waiting = |phase: &Phase| PhaseReport {
            name: phase.name.clone(),
            state: PhaseState::Waiting,
            took_ms: 0,
            deadline_ms: millis(phase.deadline),
            note: String::new(),
        };
        lock(&shutdown.state.0).phases = self.phases.iter().map(waiting).collect();
        let mut until = shutdown.clock.now();
        for (place, phase) in self.phases.into_iter().enumerate() {
            until = until.after(phase.deadline);
            if shutdown.is_forced() {
                shutdown.update(place, |phase| phase.state = PhaseState::Skipped);
            } else {
                run_phase(shutdown, place, phase, until);
            }
        }
        let progress = shutdown.progress();
        tracing::info!(exit_code = progress.exit_code(), "{progress}");
        progress
    }
}

fn run_phase(shutdown: &Shutdown, place: usize, phase: Phase, until: Tick) {
    let began = shutdown.clock.now();
    let context = PhaseContext { shutdown: shutdown.clone(), place, until };
    {
        let mut state = lock(&shutdown.state.0);
        (state.began, state.finished) = (began, None);
        state.phases[place].state = PhaseState::Running;
        state.phases[place].deadline_ms = millis(until.since(began));
    }
    let work = phase.work;
    let working = move || {
        let result = catch_unwind(AssertUnwindSafe(|| work(&context)))
            .unwrap_or_else(|_| Err("it panicked".to_owned()));
        lock(&context.shutdown.state.0).finished = Some((place, result));
        context.shutdown.state.1.notify_all();
    };
    let spawned = std::thread::Builder::new().name(format!("stop-{}", phase.name)).spawn(working);
    let result = match spawned {
        Ok(_left_behind_when_late) => await_phase(shutdown, place, until),
        Err(error) => Some(Err(format!("no thread for it: {error}"))),
    };
    let took = shutdown.clock.now().since(began);
    let forced = shutdown.is_forced();
    shutdown.update(place, |report| {
        report.took_ms = millis(took);
        report.state = match result {
            Some(Ok(())) => PhaseState::Done,
            Some(Err(error)) => {
                report.note = crate::redact::redact(&error);
                PhaseState::Failed
            }
            None if forced => PhaseState::Skipped,
            None => PhaseState::Late,
        };
    });
    metrics::gauge!("mainstay_shutdown_phase_seconds", "phase" => phase.name)
        .set(took.as_secs_f64());
}

/// The phase's result; nothing when its deadline passed or a second signal came before.
fn await_phase(shutdown: &Shutdown, place: usize, until: Tick) -> Option<Result<(), String>> {
    let mut state = lock(&shutdown.state.0);
    loop {
        // A phase that was left behind may report long after its turn: that is not this one's.
        if let Some((finished, result)) = state.finished.take()
            && finished == place
        {
            return Some(result);
        }
        if state.forced || shutdown.clock.now() >= until {
            return None;
        }
        let waited = shutdown.state.1.wait_timeout(state, LOOK_EVERY);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
