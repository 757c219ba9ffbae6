//! [`ActiveProbes`]: asks dependencies that nobody calls whether they work.
//!
//! A breaker leaves its open state only when a call comes, and what is degraded may be why none
//! comes; a dependency that is idle may have died without anybody having seen it. So whoever declares
//! a dependency says how it is probed ([`Dependency::probe_by`]), by a call through its own pipeline,
//! and here is when:
//!
//! - its breaker's open period is over, or it is half open: whatever the settings say, or the level
//!   of service might keep away the calls that would raise it again;
//! - nobody has called it for the idle time, or ever;
//! - its last probe failed: again after 1 s, 2 s, 4 s … 30 s, until its breaker opens or it works.
//!
//! Never while its breaker is isolated: somebody wants it left alone.
//!
//! Invariants: one probe of a dependency at a time; at most [`AT_A_TIME_MAX`] threads, one for each
//! probe, so that one that hangs delays no other; nobody waits for a probe, and the end of the
//! process does not either. No span of a probe is recorded: the collector of spans is probed too.

use crate::correlation::{Ids, begin};
use crate::lock::lock;
use mainstay_resilience::{ActiveProbe, Clock, Dependency, Pipelines, State, Tick};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Probes under way at a time. Each bounds its own time to some seconds, so that even while that many
/// hang the others are a few seconds late; with one look a second that many begin in a second at most,
/// which is 1 % of a core for methods that answer within a millisecond.
const AT_A_TIME_MAX: usize = 16;
/// The wait after the first failed probe; each further one doubles it.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// The longest such wait: the shortest open period of the presets.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// What is known of a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has called it, no probe has ended: nothing is known of it.
    NotCalled,
    /// Its last probe failed, and no call has succeeded since; why it failed, without secrets.
    Failing(String),
    /// It is called, and its breaker says the rest.
    Called,
}

/// Probes dependencies. Clones share what is known.
#[derive(Clone)]
pub struct ActiveProbes(Arc<Shared>);

struct Shared {
    pipelines: Pipelines,
    clock: Clock,
    /// How long a dependency may be idle; zero for as long as it likes.
    idle_max: Duration,
    known: Mutex<HashMap<String, Known>>,
    under_way: AtomicUsize,
}

/// What was seen of one dependency.
struct Known {
    dependency: Dependency,
    calls: u64,
    succeeded: u64,
    /// When a call was seen last, or the dependency itself first.
    called: Tick,
    /// When the last probe began.
    asked: Option<Tick>,
    asking: bool,
    /// Probes that failed in a row, and what the last of them said.
    failed: u32,
    trouble: String,
}

impl ActiveProbes {
    /// Probes what `pipelines` lists and nobody has called for `idle_max`; zero: only what a breaker
    /// holds open. Nothing happens before the first [`look`](Self::look).
    #[must_use]
    pub fn new(pipelines: Pipelines, clock: Clock, idle_max: Duration) -> Self {
        let (known, under_way) = (Mutex::default(), AtomicUsize::new(0));
        ActiveProbes(Arc::new(Shared { pipelines, clock, idle_max, known, under_way }))
    }

    /// Begins every probe that is due, those first that wait longest. Does not wait for any.
    pub fn look(&self) {
        let shared = &*self.0;
        let (now, listed) = (shared.clock.now(), shared.pipelines.dependencies());
        let mut due = Vec::new();
        let mut known = lock(&shared.known);
        let mut before = std::mem::take(&mut *known);
        for dependency in listed {
            let seen = before.remove(dependency.name());
            // One of the same name may have taken the place of the one that was known.
            let seen = seen.filter(|it| it.dependency.breaker().is_same(dependency.breaker()));
            let mut it = seen.unwrap_or_else(|| Known::new(&dependency, now));
            it.notice_calls(now);
            if let Some(probe) = dependency.probe()
                && it.is_due(shared.idle_max, now)
            {
                due.push((it.asked, dependency.clone(), probe));
            }
            known.insert(dependency.name().to_string(), it);
        }
        due.sort_by_key(|(asked, _, _)| *asked);
        let room = AT_A_TIME_MAX.saturating_sub(self.under_way());
        for (_, dependency, probe) in due.into_iter().take(room) {
            if let Some(it) = known.get_mut(dependency.name()) {
                // Its end is noted under the lock that is held here.
                (it.asking, it.asked) = (self.begin(dependency, probe), Some(now));
            }
        }
    }

    /// Probes that have begun and not ended.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.0.under_way.load(Ordering::Acquire)
    }

    /// What is known of a dependency. Where idle ones are not probed, no probe speaks for one that may
    /// be called: its breaker does.
    #[must_use]
    pub fn standing(&self, dependency: &Dependency) -> Standing {
        let known = lock(&self.0.known);
        let seen = known.get(dependency.name());
        let seen = seen.filter(|it| it.dependency.breaker().is_same(dependency.breaker()));
        let (calls, failures) = dependency.figures().counts();
        let probed_idle = !self.0.idle_max.is_zero();
        match seen {
            Some(it) if it.is_failing(calls.saturating_sub(failures)) && probed_idle => {
                Standing::Failing(it.trouble.clone())
            }
            _ if calls == 0 => Standing::NotCalled,
            _ => Standing::Called,
        }
    }

    /// Whether there was a thread for it; if not, it is due again later.
    fn begin(&self, dependency: Dependency, probe: ActiveProbe) -> bool {
        self.0.under_way.fetch_add(1, Ordering::AcqRel);
        let mine = self.clone();
        let asking = move || mine.end(&dependency, ask(&probe));
        let begun = thread::Builder::new().name("probe".into()).spawn(asking);
        if let Err(error) = &begun {
            self.0.under_way.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "no thread for a probe");
        }
        begun.is_ok()
    }

    fn end(&self, dependency: &Dependency, result: Result<(), String>) {
        let name = dependency.name();
        let outcome = if result.is_ok() { "succeeded" } else { "failed" };
        let labels = [("name", name.to_string()), ("outcome", outcome.to_string())];
        metrics::counter!("mainstay_dependency_probes_total", &labels).increment(1);
        let mut known = lock(&self.0.known);
        let seen = known.get_mut(name);
        if let Some(it) = seen.filter(|it| it.dependency.breaker().is_same(dependency.breaker())) {
            it.asking = false;
            it.note(result);
        }
        drop(known);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One that panics has failed.
fn ask(probe: &ActiveProbe) -> Result<(), String> {
    let (unrecorded, _) = begin(Ids::unrecorded(), || tracing::info_span!("dependency.probe"));
    let asked = AssertUnwindSafe(|| unrecorded.in_scope(|| probe()));
    catch_unwind(asked).unwrap_or_else(|_| Err("the probe panicked".to_string()))
}

impl Known {
    fn new(dependency: &Dependency, now: Tick) -> Self {
        Known {
            dependency: dependency.clone(),
            calls: 0,
            succeeded: 0,
            called: now,
            asked: None,
            asking: false,
            failed: 0,
            trouble: String::new(),
        }
    }

    /// Takes note of calls that anybody has made since the last look.
    fn notice_calls(&mut self, now: Tick) {
        let (calls, failures) = self.dependency.figures().counts();
        let succeeded = calls.saturating_sub(failures);
        if calls > self.calls {
            (self.calls, self.called) = (calls, now);
        }
        if succeeded > self.succeeded {
            (self.succeeded, self.failed) = (succeeded, 0);
        }
    }

    /// Takes note of a probe's end; the calls that it made are nobody's.
    fn note(&mut self, result: Result<(), String>) {
        let (calls, failures) = self.dependency.figures().counts();
        (self.calls, self.succeeded) = (calls, calls.saturating_sub(failures));
        let Err(trouble) = result else {
            if self.failed > 0 {
                tracing::info!(dependency = self.dependency.name(), "its probe succeeds again");
            }
            self.failed = 0;
            return;
        };
        self.trouble = crate::redact::redact(&trouble);
        if self.failed == 0 {
            let (dependency, error) = (self.dependency.name(), &self.trouble);
            tracing::warn!(dependency, error, "its probe failed; it is repeated");
        }
        self.failed = self.failed.saturating_add(1);
    }

    /// Whether its last probe failed, and none of its calls, so many by now, has succeeded since.
    fn is_failing(&self, succeeded: u64) -> bool {
        self.failed > 0 && succeeded <= self.succeeded
    }

    fn is_due(&self, idle_max: Duration, now: Tick) -> bool {
        let since = |tick: Option<Tick>| tick.map_or(Duration::MAX, |tick| now.since(tick));
        let again = match self.failed {
            0 => Duration::ZERO,
            failed => AGAIN_FIRST.saturating_mul(1 << (failed - 1).min(10)).min(AGAIN_MAX),
        };
        if self.asking || since(self.asked) < again {
            return false;
        }
        let breaker = self.dependency.breaker();
        match breaker.state() {
            State::Isolated => false,
            State::HalfOpen => true,
            State::Open => breaker.snapshot().next_probe.is_some_and(|left| left.is_zero()),
            _ if idle_max.is_zero() => false,
            _ if self.failed > 0 => true,
            // Never called: at once.
            _ if self.calls == 0 => since(self.asked) >= idle_max,
            _ => now.since(self.called) >= idle_max && since(self.asked) >= idle_max,
        }
    }
}

impl std::fmt::Debug for ActiveProbes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ActiveProbes({:?} idle, {} under way)", self.0.idle_max, self.under_way())
    }
}
