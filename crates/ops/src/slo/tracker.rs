//! The objectives of a process: counted, judged and kept.
//!
//! Invariants: an event is one addition on the path of a request and falls into the bucket of the
//! next tick; time inside never goes back, whatever the wall clock does; each piece of state is
//! replaced as a whole, and a piece that cannot be read costs its own events only.

use super::alert::{Burn, Pair, Severity, burn, pairs};
use super::heartbeat::Heartbeat;
use super::history::{Series, empty, load, save};
use super::mean_times;
use super::objective::{Indicator, Objective, SloConfig, Source};
use super::probe::ProbeLedger;
use super::report::{ObjectiveReport, SloReport, WindowReport};
use super::series::{Count, FINE_MS, FINE_SPAN_MS};
use crate::incidents::{Incidents, MeanTimeReport, Reliability, Verdict};
use crate::lock::lock;
use crate::store::{StateError, StateStore};
use crate::wall_clock::{WallClock, rfc3339};
use mainstay_resilience::{Clock, ConfigError, Tick};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How far the wall clock may run ahead of the time inside before it is followed: more is a machine
/// that slept or a clock that was set, less is drift.
const FOLLOW_AFTER_MS: u64 = 5_000;
/// The longest time ahead of the wall clock that is believed after a restart: a day. A clock that
/// was further ahead was wrong.
const AHEAD_MAX_MS: u64 = 86_400_000;
/// Rates before a crash are taken from this long before it.
const RATE_SPAN_MS: u64 = 3_600_000;

struct Tracked {
    objective: Objective,
    pairs: [Pair; 4],
    good: AtomicU64,
    bad: AtomicU64,
}

struct Kept {
    series: Vec<Series>,
    /// Chunks that changed since the last save: whether fine, and which.
    dirty: BTreeSet<(bool, u64)>,
    beat: Heartbeat,
    origin: (Tick, u64),
    saved_at_ms: u64,
    /// Whether the last save failed: one line says so, and one that it works again.
    save_fails: bool,
    damaged: u64,
    quiet_since: Vec<Option<u64>>,
    probes: Option<ProbeLedger>,
    /// The verdicts of the last tick, by name.
    verdicts: BTreeMap<String, Verdict>,
}

struct Inner {
    config: SloConfig,
    tracked: Vec<Tracked>,
    clock: Clock,
    wall: WallClock,
    store: Arc<dyn StateStore>,
    incidents: Incidents,
    kept: Mutex<Kept>,
}

/// The objectives of a process. Clones share them; call [`tick`](Self::tick) every second.
#[derive(Clone)]
pub struct Slo(Arc<Inner>);

impl Slo {
    /// The objectives with what was saved of them. Time since the last sign of life counts as bad,
    /// unless the process ended in order.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn open(
        config: SloConfig,
        clock: Clock,
        wall: WallClock,
        store: Arc<dyn StateStore>,
        incidents: Incidents,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let tracked: Vec<Tracked> = config
            .objectives
            .iter()
            .map(|objective| Tracked {
                objective: objective.clone(),
                pairs: pairs(objective),
                good: AtomicU64::new(0),
                bad: AtomicU64::new(0),
            })
            .collect();
        let (beat, mut damaged) = match Heartbeat::load(&*store) {
            Ok(beat) => (beat, 0),
            Err(error) => {
                tracing::error!(%error, "the last sign of life could not be read");
                (None, 1)
            }
        };
        let mut series = empty(&config);
        damaged += load(&*store, &config, &mut series);
        let wall_ms = wall.unix_ms();
        // Behind the last beat the clock was set back between the runs: time goes on from the beat.
        let ahead = beat.map_or(0, |beat| beat.unix_ms.saturating_sub(wall_ms));
        let now_ms = if ahead <= AHEAD_MAX_MS { wall_ms + ahead } else { wall_ms };
        let mut kept = Kept {
            quiet_since: vec![None; series.len()],
            series,
            dirty: BTreeSet::new(),
            beat: beat.unwrap_or(Heartbeat {
                unix_ms: now_ms,
                since_unix_ms: now_ms,
                dead_ms: 0,
                clean: true,
            }),
            origin: (clock.now(), now_ms),
            saved_at_ms: now_ms,
            save_fails: false,
            damaged,
            probes: None,
            verdicts: BTreeMap::new(),
        };
        count_dead_time(&mut kept, &config, now_ms, &incidents);
        for tracked in &tracked {
            announce(&tracked.objective);
        }
        let kept = Mutex::new(kept);
        let slo = Slo(Arc::new(Inner { config, tracked, clock, wall, store, incidents, kept }));
        // From here on a crash is noticed.
        slo.save(&mut lock(&slo.0.kept), now_ms, false);
        Ok(slo)
    }

    /// Counts the slots of this schedule for the objectives that probes serve.
    pub fn follow(&self, probes: ProbeLedger) {
        lock(&self.0.kept).probes = Some(probes);
    }

    /// Counts a request for the objectives of this source: whether the process failed it, and how long
    /// it took. What the caller did wrong is no failure of the process.
    pub fn request(&self, source: Source, failed: bool, took: Duration) {
        for tracked in &self.0.tracked {
            if tracked.objective.source == source {
                tracked.count(failed, took);
            }
        }
    }

    /// Moves what was counted into its bucket, judges, opens and closes incidents, and saves when
    /// it is time.
    pub fn tick(&self) {
        let inner = &*self.0;
        let mut kept = lock(&inner.kept);
        let now_ms = self.now_ms(&mut kept);
        let (probes_good, probes_bad) = kept.probes.as_ref().map_or((0, 0), ProbeLedger::settle);
        for (n, tracked) in inner.tracked.iter().enumerate() {
            let mut count = Count {
                good: tracked.good.swap(0, Ordering::Relaxed),
                bad: tracked.bad.swap(0, Ordering::Relaxed),
            };
            if tracked.objective.source == Source::Probes {
                count.add(Count { good: probes_good, bad: probes_bad });
            }
            let name = &tracked.objective.name;
            // Also of nothing: a counter that is born with its first event hides it from who scrapes
            // it, and one that is not there reads as a process that is not.
            events(name, "good", count.good);
            events(name, "bad", count.bad);
            if count.total() > 0 {
                kept.add(n, now_ms, now_ms, count);
            }
            self.judge(&mut kept, n, now_ms);
        }
        let judged = self.mean_times(&kept, now_ms);
        mean_times::show(&judged, &mut kept.verdicts);
        if now_ms.saturating_sub(kept.saved_at_ms) >= inner.config.save_every_ms {
            self.save(&mut kept, now_ms, false);
        }
    }

    /// Saves everything and notes that the process ends in order: the time until the next start is
    /// no dead time. The last thing to call.
    ///
    /// # Errors
    /// It could not be saved; the time will then count as dead.
    pub fn close(&self) -> Result<(), StateError> {
        self.tick();
        let mut kept = lock(&self.0.kept);
        let now_ms = self.now_ms(&mut kept);
        self.try_save(&mut kept, now_ms, true)
    }

    /// Objectives whose page alert fires: a signal for the ladder of levels. A budget that is used
    /// up is none: it stays so for weeks after its cause is gone, and lower service wins none back.
    /// Nor is one of writes: no write is saved by doing less for searches.
    #[must_use]
    pub fn burning(&self) -> Vec<String> {
        let mut kept = lock(&self.0.kept);
        let now_ms = self.now_ms(&mut kept);
        let reports =
            self.0.tracked.iter().zip(&kept.series).map(|(tracked, series)| {
                (tracked.objective.source, tracked.report(series, now_ms))
            });
        let firing = reports.filter(|(source, report)| {
            *source != Source::Writes && report.alert == Some(Severity::Page)
        });
        firing.map(|(_, report)| report.name).collect()
    }

    /// What is shown of the objectives, those with the least budget first.
    #[must_use]
    pub fn report(&self) -> SloReport {
        let mut kept = lock(&self.0.kept);
        let now_ms = self.now_ms(&mut kept);
        let unsaved_ms = now_ms.saturating_sub(kept.beat.unix_ms);
        let late = unsaved_ms >= 2 * self.0.config.save_every_ms;
        SloReport {
            time: rfc3339(now_ms),
            since: rfc3339(kept.beat.since_unix_ms),
            dead_seconds: kept.beat.dead_ms / 1_000,
            damaged_pieces: kept.damaged,
            unsaved_seconds: if late { unsaved_ms / 1_000 } else { 0 },
            objectives: self.objectives(&kept, now_ms),
            mean_times: self.mean_times(&kept, now_ms),
        }
    }

    /// What the incidents say, over the time for which there are figures, of a year at most.
    #[must_use]
    pub fn reliability(&self) -> Reliability {
        let mut kept = lock(&self.0.kept);
        let now_ms = self.now_ms(&mut kept);
        self.0.incidents.reliability(kept.beat.since_unix_ms, now_ms)
    }

    fn mean_times(&self, kept: &Kept, now_ms: u64) -> Vec<MeanTimeReport> {
        let found = self.0.incidents.reliability(kept.beat.since_unix_ms, now_ms);
        self.0.config.mean_times.judge(&found)
    }

    /// Those with the least budget first.
    fn objectives(&self, kept: &Kept, now_ms: u64) -> Vec<ObjectiveReport> {
        let mut objectives: Vec<ObjectiveReport> =
            self.0.tracked.iter().zip(&kept.series).map(|(t, s)| t.report(s, now_ms)).collect();
        objectives.sort_by(|a, b| {
            let left = |o: &ObjectiveReport| o.budget_remaining.unwrap_or(f64::INFINITY);
            left(a).total_cmp(&left(b))
        });
        objectives
    }

    /// Time inside: the wall clock at the start and what passed since, and ahead with the wall
    /// clock when that jumps.
    fn now_ms(&self, kept: &mut Kept) -> u64 {
        let tick = self.0.clock.now();
        let passed = u64::try_from(tick.since(kept.origin.0).as_millis()).unwrap_or(0);
        let inside = kept.origin.1.saturating_add(passed);
        let wall_ms = self.0.wall.unix_ms();
        if wall_ms > inside.saturating_add(FOLLOW_AFTER_MS) {
            tracing::warn!(ahead_ms = wall_ms - inside, "the clock jumped ahead");
            kept.origin = (tick, wall_ms);
            return wall_ms;
        }
        inside
    }

    fn judge(&self, kept: &mut Kept, n: usize, now_ms: u64) {
        let tracked = &self.0.tracked[n];
        let report = tracked.report(&kept.series[n], now_ms);
        show(&report);
        let key = format!("slo:{}", report.name);
        let worst = tracked.pairs.iter().map(|p| p.factor).fold(f64::MAX, f64::min);
        let ratio = worst * tracked.objective.budget();
        let long_ms = tracked.pairs[1].long_ms;
        let run = || kept.series[n].fine.last_run_above(now_ms, long_ms, ratio);
        if report.alert == Some(Severity::Page) {
            let title = format!("error budget of {} burns too fast", report.name);
            let began = run().map_or(now_ms, |(began, _)| began);
            self.0.incidents.begin(&key, &title, began, now_ms);
            kept.quiet_since[n] = None;
            return;
        }
        let since = *kept.quiet_since[n].get_or_insert(now_ms);
        if now_ms.saturating_sub(since) >= self.0.config.incident_quiet_ms {
            let ended = run().map_or(since, |(_, ended)| ended.min(now_ms));
            self.0.incidents.end(&key, ended);
        }
    }

    fn save(&self, kept: &mut Kept, now_ms: u64, clean: bool) {
        // Tried again with the next save; until then the report says how much is unsaved.
        let saved = self.try_save(kept, now_ms, clean);
        let failed = std::mem::replace(&mut kept.save_fails, saved.is_err());
        match (saved, failed) {
            (Err(error), false) => {
                tracing::error!(%error, "objectives cannot be saved; it is tried on");
            }
            (Ok(()), true) => tracing::info!("objectives are saved again"),
            _ => {}
        }
    }

    fn try_save(&self, kept: &mut Kept, now_ms: u64, clean: bool) -> Result<(), StateError> {
        kept.saved_at_ms = now_ms;
        for (fine, chunk) in kept.dirty.clone() {
            save(&*self.0.store, &self.0.config, &kept.series, fine, chunk)?;
            kept.dirty.remove(&(fine, chunk));
        }
        kept.beat.unix_ms = now_ms;
        kept.beat.clean = clean;
        kept.beat.save(&*self.0.store)
    }
}

/// Each slot of dead time counts as many bad events as a slot had before, and one at least.
fn count_dead_time(kept: &mut Kept, config: &SloConfig, now_ms: u64, incidents: &Incidents) {
    let beat = kept.beat;
    let dead_ms = now_ms.saturating_sub(beat.unix_ms);
    if beat.clean {
        return incidents.stopped(beat.unix_ms, now_ms);
    }
    if dead_ms == 0 {
        return;
    }
    kept.beat.dead_ms = beat.dead_ms.saturating_add(dead_ms);
    incidents.past("process:dead", "the process was dead", beat.unix_ms, now_ms);
    for (n, objective) in config.objectives.iter().enumerate() {
        let before = kept.series[n].fine.sum(beat.unix_ms, RATE_SPAN_MS).total();
        let each = Count { good: 0, bad: (before * FINE_MS / RATE_SPAN_MS).max(1) };
        let period_ms = u64::from(objective.period_days) * 86_400_000;
        let first = beat.unix_ms.max(now_ms.saturating_sub(period_ms)) / FINE_MS;
        for slot in first..=now_ms / FINE_MS {
            kept.add(n, (slot * FINE_MS).clamp(beat.unix_ms, now_ms), now_ms, each);
        }
    }
}

impl Kept {
    fn add(&mut self, n: usize, unix_ms: u64, now_ms: u64, count: Count) {
        // Fine buckets that nobody sums any more are neither filled nor saved: a long dead time
        // would rewrite the same few pieces thousands of times.
        let recent = now_ms.saturating_sub(unix_ms) <= FINE_SPAN_MS;
        for fine in [true, false].into_iter().filter(|fine| !fine || recent) {
            let tier = self.series[n].tier_mut(fine);
            tier.add(unix_ms, count);
            let chunk = tier.chunk_of(unix_ms);
            self.dirty.insert((fine, chunk));
        }
    }
}

impl Tracked {
    fn count(&self, failed: bool, took: Duration) {
        let good = match self.objective.indicator {
            Indicator::Availability => !failed,
            Indicator::Latency { .. } if failed => return,
            Indicator::Latency { threshold_ms } => took <= Duration::from_millis(threshold_ms),
        };
        let side = if good { &self.good } else { &self.bad };
        side.fetch_add(1, Ordering::Relaxed);
    }

    fn report(&self, series: &Series, now_ms: u64) -> ObjectiveReport {
        let objective = &self.objective;
        let period_ms = u64::from(objective.period_days) * 86_400_000;
        let count = series.coarse.sum(now_ms, period_ms);
        let ratio = count.error_ratio();
        let burns: Vec<(Pair, Burn)> = self
            .pairs
            .iter()
            .map(|pair| (*pair, burn(objective, pair, now_ms, &series.fine, &series.coarse)))
            .collect();
        let budget_remaining = ratio.map(|ratio| 1.0 - ratio / objective.budget());
        let pace = burns.get(1).and_then(|(_, burn)| burn.long).filter(|burn| *burn > 0.0);
        let period_hours = period_ms as f64 / 3_600_000.0;
        let left = budget_remaining.map(|left| left.max(0.0) * period_hours);
        let windows = burns.iter().map(|(pair, burn)| WindowReport {
            severity: pair.severity,
            long_seconds: pair.long_ms / 1_000,
            short_seconds: pair.short_ms / 1_000,
            factor: pair.factor,
            burn_long: burn.long,
            burn_short: burn.short,
            firing: burn.firing,
        });
        ObjectiveReport {
            name: objective.name.clone(),
            description: objective.description.clone(),
            indicator: objective.indicator,
            source: objective.source,
            target: objective.target,
            period_days: objective.period_days,
            good: count.good,
            bad: count.bad,
            ratio: ratio.map(|ratio| 1.0 - ratio),
            budget_remaining,
            exhausted_in_hours: left.zip(pace).map(|(left, pace)| left / pace),
            alert: burns.iter().filter(|(_, b)| b.firing).map(|(pair, _)| pair.severity).max(),
            windows: windows.collect(),
        }
    }
}

/// Counters that exist from the start, so that the first failure is a rise from 0.
fn announce(objective: &Objective) {
    events(&objective.name, "good", 0);
    events(&objective.name, "bad", 0);
    metrics::gauge!("mainstay_slo_objective_ratio", "slo" => objective.name.clone())
        .set(objective.target);
}

fn events(slo: &str, result: &'static str, count: u64) {
    metrics::counter!("mainstay_slo_events_total", "slo" => slo.to_owned(), "result" => result)
        .increment(count);
}

fn show(report: &ObjectiveReport) {
    let slo = || report.name.clone();
    if let Some(left) = report.budget_remaining {
        metrics::gauge!("mainstay_slo_budget_remaining_ratio", "slo" => slo()).set(left);
    }
    for window in &report.windows {
        let rate = window.burn_long.unwrap_or(0.0);
        let label = format!("{}s", window.long_seconds);
        metrics::gauge!("mainstay_slo_burn_rate", "slo" => slo(), "window" => label).set(rate);
    }
    for severity in [Severity::Ticket, Severity::Page] {
        let firing = report.windows.iter().any(|w| w.firing && w.severity == severity);
        metrics::gauge!("mainstay_slo_alert", "slo" => slo(), "severity" => severity.as_str())
            .set(f64::from(u8::from(firing)));
    }
}
