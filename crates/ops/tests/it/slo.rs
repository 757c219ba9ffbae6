//! V6: objectives, burn rates, budgets, incidents, dead time, probes, rules.

use mainstay_ops::incidents::{
    Incidents, MeanTimeReport, MeanTimes, Verdict, mtbf_lower_factor, mtbf_upper_factor,
};
use mainstay_ops::log_lines::LogFormat;
use mainstay_ops::slo::{
    Indicator, Objective, ObjectiveReport, ProbeLedger, Severity, Slo, SloConfig, Source,
    prometheus_rules,
};
use mainstay_ops::store::{MemoryStore, StateStore};
use mainstay_ops::telemetry::{Telemetry, TelemetryConfig};
use mainstay_ops::wall_clock::ManualWallClock;
use mainstay_resilience::ManualClock;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The beginning of an hour, so that figures by the hour are round.
const BEGIN_MS: u64 = 1_700_006_400_000;
const SECOND: Duration = Duration::from_secs(1);
const FAST: Duration = Duration::from_millis(10);

fn objective(name: &str, indicator: Indicator, source: Source) -> Objective {
    Objective {
        name: name.into(),
        description: String::new(),
        indicator,
        source,
        target: 0.999,
        period_days: 30,
        events_min: 10,
    }
}

fn config() -> SloConfig {
    let answered = Indicator::Availability;
    SloConfig {
        objectives: vec![
            objective("search", answered, Source::Searches),
            objective("fast", Indicator::Latency { threshold_ms: 100 }, Source::Searches),
            objective("probes", answered, Source::Probes),
            objective("writes", answered, Source::Writes),
        ],
        ..SloConfig::default()
    }
}

/// A process that dies and starts again over the same store.
struct World {
    clock: ManualClock,
    wall: ManualWallClock,
    store: Arc<MemoryStore>,
    incidents: Incidents,
    slo: Slo,
}

fn world() -> World {
    let (clock, wall) = (ManualClock::new(), ManualWallClock::at(BEGIN_MS));
    start(clock, wall, Arc::new(MemoryStore::new()))
}

fn start(clock: ManualClock, wall: ManualWallClock, store: Arc<MemoryStore>) -> World {
    let shared = || Arc::clone(&store) as Arc<dyn StateStore>;
    let incidents = Incidents::open(shared()).unwrap();
    let slo =
        Slo::open(config(), clock.clock(), wall.clock(), shared(), incidents.clone()).unwrap();
    World { clock, wall, store, incidents, slo }
}

impl World {
    fn restart_after(self, pause: Duration) -> World {
        self.clock.advance(pause);
        self.wall.advance(pause);
        start(self.clock, self.wall, self.store)
    }

    /// Ten requests in each of so many steps of 10 s, `bad` of them failing.
    fn serve(&self, steps: u64, bad: u64) {
        for _ in 0..steps {
            for n in 0..10 {
                self.slo.request(Source::Searches, n < bad, FAST);
            }
            self.slo.tick();
            self.pass(Duration::from_secs(10));
        }
    }

    fn pass(&self, wait: Duration) {
        self.clock.advance(wait);
        self.wall.advance(wait);
    }

    fn of(&self, name: &str) -> ObjectiveReport {
        self.slo.report().objectives.into_iter().find(|o| o.name == name).unwrap()
    }
}

fn close_to(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs().max(1.0)
}

// V6
#[test]
fn the_windows_are_those_of_the_workbook_and_their_factors_are_derived() {
    let world = world();
    let windows = world.of("search").windows;
    let shown: Vec<_> = windows.iter().map(|w| (w.long_seconds, w.short_seconds)).collect();
    assert_eq!(shown, [(3_600, 300), (21_600, 1_800), (86_400, 7_200), (259_200, 21_600)]);
    for (window, factor) in windows.iter().zip([14.4, 6.0, 3.0, 1.0]) {
        assert!(close_to(window.factor, factor), "{}", window.factor);
    }
}

// V6
#[test]
fn without_events_there_is_no_ratio_instead_of_a_perfect_one() {
    let world = world();
    world.slo.tick();
    let report = world.of("search");
    assert_eq!((report.ratio, report.budget_remaining), (None, None));
    assert_eq!((report.windows[0].burn_long, report.alert), (None, None));
}

// V6
#[test]
fn budget_and_burn_rates_are_what_they_are_by_hand() {
    let world = world();
    // Ten hours, a minute and a tick at a time.
    for _ in 0..600 {
        (0..60).for_each(|_| world.slo.request(Source::Searches, false, FAST));
        world.slo.tick();
        world.pass(Duration::from_secs(60));
    }
    for _ in 0..9 {
        world.slo.request(Source::Searches, true, FAST);
    }
    world.slo.tick();
    let report = world.of("search");
    assert_eq!((report.good, report.bad), (36_000, 9));
    assert!(close_to(report.ratio.unwrap(), 36_000.0 / 36_009.0));
    let budget = 1.0 - 9.0 / 36_009.0 / (1.0 - 0.999);
    assert!(close_to(report.budget_remaining.unwrap(), budget));
    // The last hour has 59 such minutes, and the slot that has just begun.
    let burn = 9.0 / (3_540.0 + 9.0) / (1.0 - 0.999);
    assert!(close_to(report.windows[0].burn_long.unwrap(), burn));
    let burn_6h = 9.0 / (21_540.0 + 9.0) / (1.0 - 0.999);
    assert!(close_to(report.exhausted_in_hours.unwrap(), budget * 720.0 / burn_6h));
}

// V6
#[test]
fn writes_burn_a_budget_of_their_own_that_leaves_the_level_alone() {
    let world = world();
    world.serve(720, 0);
    for _ in 0..60 {
        (0..10).for_each(|_| world.slo.request(Source::Writes, true, FAST));
        world.serve(1, 0);
    }
    assert_eq!((world.of("writes").bad, world.of("search").bad), (600, 0));
    assert_eq!(world.of("writes").alert, Some(Severity::Page));
    assert_eq!(world.slo.burning(), Vec::<String>::new(), "less searching saves no write");
}

// V6
#[test]
fn an_outage_pages_within_minutes_and_is_quiet_minutes_after_its_end() {
    let world = world();
    world.serve(720, 0);
    let mut steps_until_page = 0;
    while world.of("search").alert != Some(Severity::Page) {
        world.serve(1, 10);
        steps_until_page += 1;
    }
    // 1.44 % of an hour of failures, 52 s: six slots, or the seventh with what has just begun.
    assert!((5..=7).contains(&steps_until_page), "{steps_until_page}");
    world.serve(12, 10);
    let mut steps_until_quiet = 0;
    while world.of("search").alert == Some(Severity::Page) {
        world.serve(1, 0);
        steps_until_quiet += 1;
    }
    // The short window of the slower pair holds it for half an hour at most.
    assert!((29..=181).contains(&steps_until_quiet), "{steps_until_quiet}");
}

// V6
#[test]
fn a_slow_burn_is_a_ticket_and_no_page() {
    let world = world();
    // Two in a thousand for three days: twice as fast as sustainable.
    for _ in 0..3 * 288 {
        for n in 0..500 {
            world.slo.request(Source::Searches, n == 0, FAST);
        }
        world.slo.tick();
        world.pass(Duration::from_secs(300));
    }
    assert_eq!(world.of("search").alert, Some(Severity::Ticket));
}

// V6
#[test]
fn one_failure_of_few_requests_alerts_nobody() {
    let world = world();
    for n in 0..9 {
        world.slo.request(Source::Searches, n == 0, FAST);
    }
    world.slo.tick();
    assert!(world.of("search").windows[0].burn_long.unwrap() > 100.0);
    assert_eq!(world.of("search").alert, None);
    for _ in 0..20 {
        world.slo.request(Source::Searches, false, FAST);
    }
    world.slo.tick();
    assert_eq!((world.of("search").alert, world.slo.burning()), (None, vec![]), "one is no rate");
    world.slo.request(Source::Searches, true, FAST);
    world.slo.tick();
    assert_eq!(world.of("search").alert, Some(Severity::Page));
    assert_eq!(world.slo.burning(), ["search"]);
}

// V6
#[test]
fn latency_counts_slow_answers_and_leaves_failures_to_availability() {
    let world = world();
    world.slo.request(Source::Searches, false, Duration::from_millis(100));
    world.slo.request(Source::Searches, false, Duration::from_millis(101));
    world.slo.request(Source::Searches, true, FAST);
    world.slo.tick();
    assert_eq!((world.of("fast").good, world.of("fast").bad), (1, 1));
    assert_eq!((world.of("search").good, world.of("search").bad), (2, 1));
    assert_eq!(world.of("probes").ratio, None);
}

// V6
#[test]
fn an_incident_is_opened_and_closed_with_the_times_of_the_trouble() {
    let world = world();
    world.serve(360, 0);
    let began_ms = BEGIN_MS + 3_600_000;
    world.serve(30, 10);
    world.serve(1_000, 0);
    let incidents = world.incidents.list();
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    assert_eq!(incidents[0].key, "slo:search");
    assert_eq!(incidents[0].began_unix_ms, began_ms);
    assert!(incidents[0].detected_unix_ms - began_ms <= 70_000);
    assert_eq!(incidents[0].lasted_ms(), Some(300_000));
    let reliability = world.slo.reliability();
    assert_eq!(reliability.mttr_minutes, Some(5.0));
    assert_eq!((reliability.incidents, reliability.open), (1, 0));
}

// V6
#[test]
fn a_restart_neither_resets_nor_inflates_the_budget() {
    let mut world = world();
    world.serve(720, 1);
    for _ in 0..5 {
        world.slo.close().unwrap();
        world = world.restart_after(Duration::from_secs(1));
    }
    let report = world.of("search");
    assert_eq!((report.good, report.bad), (6_480, 720));
    assert!(report.windows[0].burn_long.unwrap() > 90.0);
    assert_eq!(world.slo.report().dead_seconds, 0);
    assert!(close_to(world.slo.reliability().observed_hours, 7_205.0 / 3_600.0));
}

// V6
#[test]
fn dead_time_counts_as_bad_at_the_rate_of_before_and_is_an_incident() {
    let world = world();
    world.serve(361, 0);
    // A crash: nobody closes. The last save was at the last tick.
    let world = world.restart_after(Duration::from_secs(590));
    let report = world.of("search");
    // Since the last beat 600 s and the slot that had begun: 61 slots of 10 events.
    assert_eq!((report.good, report.bad), (3_610, 610));
    assert_eq!(world.slo.report().dead_seconds, 600);
    let incident = &world.incidents.list()[0];
    assert_eq!((&*incident.key, incident.lasted_ms()), ("process:dead", Some(600_000)));
    // The objective without any event before counts one for each slot.
    assert_eq!(world.of("probes").bad, 61);
}

// V6
#[test]
fn a_month_of_dead_time_is_counted_with_few_writes() {
    let world = world();
    world.serve(1, 0);
    let saves = world.store.saves();
    let store = Arc::clone(&world.store);
    let world = world.restart_after(Duration::from_secs(40 * 86_400));
    // The period but for the coarse bucket that it begins in the middle of.
    assert!(world.of("search").bad > 30 * 8_640 - 30);
    // Days, hours, incidents and the sign of life.
    assert!(store.saves() - saves <= 31 + 8 + 3, "{}", store.saves() - saves);
}

// V6
#[test]
fn time_after_an_orderly_end_is_not_dead() {
    let world = world();
    world.serve(10, 0);
    world.slo.close().unwrap();
    let world = world.restart_after(Duration::from_secs(3_600));
    assert_eq!((world.of("search").bad, world.slo.report().dead_seconds), (0, 0));
    assert!(world.incidents.list().is_empty());
    // The new run is watched again.
    let world = world.restart_after(Duration::from_secs(60));
    assert_eq!(world.slo.report().dead_seconds, 60);
}

// V6
#[test]
fn a_clock_that_is_set_back_changes_nothing() {
    let world = world();
    world.serve(360, 1);
    world.wall.set(BEGIN_MS - 86_400_000);
    world.serve(360, 1);
    assert_eq!((world.of("search").good, world.of("search").bad), (6_480, 720));
    world.slo.close().unwrap();
    // Between two runs as well: time goes on from the last sign of life.
    world.wall.set(BEGIN_MS + 3_600_000);
    let world = world.restart_after(SECOND);
    assert_eq!((world.of("search").good, world.of("search").bad), (6_480, 720));
}

// V6
#[test]
fn a_clock_that_jumps_ahead_is_followed() {
    let world = world();
    world.serve(10, 0);
    world.wall.advance(Duration::from_secs(40 * 86_400));
    world.slo.tick();
    // More than the period ago: forgotten.
    assert_eq!(world.of("search").ratio, None);
    world.serve(1, 0);
    assert_eq!(world.of("search").good, 10);
}

// V6. Bad input: a clock that goes backwards, and then far ahead, in the middle of an incident.
#[test]
fn an_incident_keeps_its_times_in_order_while_the_time_of_day_is_set() {
    let world = world();
    world.serve(360, 0);
    world.serve(15, 10);
    world.wall.set(BEGIN_MS);
    world.serve(15, 10);
    world.serve(1_000, 0);
    let incident = world.incidents.list()[0].clone();
    assert_eq!(incident.lasted_ms(), Some(300_000), "{incident:?}");
    world.serve(30, 10);
    world.wall.advance(Duration::from_secs(2 * 86_400));
    world.serve(100, 0);
    let incidents = world.incidents.list();
    assert_eq!(incidents.len(), 2);
    let (began, ended) = (incidents[0].began_unix_ms, incidents[0].ended_unix_ms.unwrap());
    assert!(began < ended && ended <= world.wall.clock().unix_ms(), "{incidents:?}");
}

// V6. Bad input: what was saved is of a time that has not come yet.
#[test]
fn state_from_the_future_is_taken_for_what_it_is_and_new_trouble_is_seen() {
    let world = world();
    world.serve(360, 0);
    world.serve(30, 10);
    world.slo.close().unwrap();
    assert_eq!(world.incidents.list()[0].lasted_ms(), None);
    world.wall.set(BEGIN_MS - 30 * 86_400_000);
    let world = world.restart_after(SECOND);
    assert_eq!(world.of("search").alert, None, "what lies in the future is not counted");
    assert_eq!(world.slo.report().dead_seconds, 0);
    world.serve(60, 0);
    assert_eq!(world.incidents.list()[0].lasted_ms(), Some(0), "ended before it began");
    world.serve(12, 10);
    let incidents = world.incidents.list();
    assert_eq!((incidents.len(), incidents[0].lasted_ms()), (2, None));
    let found = world.slo.reliability();
    assert_eq!((found.observed_hours, found.mtbf_lower_hours), (0.0, 0.0));
    let verdicts: Vec<_> = world.slo.report().mean_times.iter().map(|it| it.verdict).collect();
    assert_ne!(verdicts[0], Verdict::Met, "{verdicts:?}");
}

// V6
#[test]
fn saving_that_fails_is_said_once_and_so_is_that_it_works_again() {
    let world = world();
    let written = Arc::new(Mutex::new(Vec::<u8>::new()));
    let config = TelemetryConfig {
        log_filter: "info".into(),
        log_format: LogFormat::Json,
        log_writer: written.clone(),
        sample_ratio: 0.0,
        sink: None,
    };
    let (_telemetry, subscriber) = Telemetry::build(config).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        for fails in [false, true, true, false, false, true] {
            world.store.fail_saves(fails);
            world.serve(2, 0);
        }
    });
    let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    let count = |told: &str| written.matches(told).count();
    assert_eq!((count("cannot be saved"), count("are saved again")), (2, 1), "{written}");
}

// V6
#[test]
fn saving_that_fails_is_shown_and_made_up_for() {
    let world = world();
    world.store.fail_saves(true);
    world.serve(10, 1);
    assert_eq!(world.slo.report().unsaved_seconds, 100);
    assert!(world.slo.close().is_err());
    world.store.fail_saves(false);
    world.slo.close().unwrap();
    let world = world.restart_after(SECOND);
    assert_eq!((world.of("search").good, world.of("search").bad), (90, 10));
    assert_eq!(world.slo.report().unsaved_seconds, 0);
}

// V6
#[test]
fn a_damaged_piece_costs_its_own_events_and_is_shown() {
    let world = world();
    world.serve(10, 1);
    world.slo.close().unwrap();
    let day = BEGIN_MS / 86_400_000 % 91;
    let piece = format!("slo-day-{day}");
    let mut bytes = world.store.load(&piece).unwrap().unwrap();
    bytes[30] ^= 1;
    world.store.save(&piece, &bytes).unwrap();
    let world = world.restart_after(SECOND);
    assert_eq!(world.slo.report().damaged_pieces, 1);
    // The period's figure is gone, the last hour's is not.
    assert_eq!(world.of("search").ratio, None);
    assert!(world.of("search").windows[0].burn_long.is_some());
}

// V6
#[test]
fn events_of_many_threads_are_counted_once_each() {
    let world = world();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let slo = world.slo.clone();
            scope.spawn(move || {
                (0..5_000).for_each(|_| slo.request(Source::Searches, n == 0, FAST))
            });
        }
        (0..100).for_each(|_| world.slo.tick());
    });
    world.slo.tick();
    assert_eq!((world.of("search").good, world.of("search").bad), (15_000, 5_000));
}

/// Settles a ledger through the objective that follows it.
fn probes(world: &World) -> (u64, u64) {
    world.slo.tick();
    (world.of("probes").good, world.of("probes").bad)
}

// V6
#[test]
fn a_probe_that_hangs_makes_every_slot_of_its_schedule_bad() {
    let world = world();
    let ledger = ProbeLedger::new(world.clock.clock(), SECOND, 2 * SECOND).unwrap();
    world.slo.follow(ledger.clone());
    for _ in 0..10 {
        ledger.due().unwrap().finish(true);
        assert!(ledger.due().is_none());
        world.pass(SECOND);
    }
    // Undecided until their timeout is over: the last two.
    assert_eq!(probes(&world), (9, 0));
    let hung = ledger.due().unwrap();
    world.pass(Duration::from_secs(60));
    // Slots 10 to 68 were not answered in time.
    assert_eq!(probes(&world), (10, 59));
    hung.finish(true);
    ledger.due().unwrap().finish(true);
    world.pass(2 * SECOND);
    assert_eq!(probes(&world), (11, 60));
}

// V6
#[test]
fn a_late_or_failed_probe_is_bad_and_one_that_overlaps_the_next_slot_may_be_good() {
    let world = world();
    let ledger = ProbeLedger::new(world.clock.clock(), SECOND, 3 * SECOND).unwrap();
    world.slo.follow(ledger.clone());
    let first = ledger.due().unwrap();
    world.pass(SECOND);
    ledger.due().unwrap().finish(false);
    world.pass(2 * SECOND);
    // Three seconds after its slot began: just in time.
    first.finish(true);
    assert_eq!(probes(&world), (1, 0));
    world.pass(Duration::from_secs(3));
    // Slot 1 failed; slot 2 had no probe at all, nor had slot 3.
    assert_eq!(probes(&world), (1, 3));
}

// V6
#[test]
fn a_probe_that_comes_back_too_late_is_bad_even_before_its_slot_is_settled() {
    let world = world();
    let ledger = ProbeLedger::new(world.clock.clock(), SECOND, SECOND).unwrap();
    world.slo.follow(ledger.clone());
    let late = ledger.due().unwrap();
    world.pass(SECOND + Duration::from_millis(1));
    late.finish(true);
    assert_eq!(probes(&world), (0, 1));
}

// V6
#[test]
fn a_sleep_of_years_is_counted_without_going_through_it() {
    let world = world();
    let ledger = ProbeLedger::new(world.clock.clock(), SECOND / 10, SECOND / 10).unwrap();
    world.slo.follow(ledger);
    world.clock.advance(Duration::from_secs(10 * 365 * 86_400));
    assert_eq!(probes(&world).1, 3_153_600_000);
}

// V6
#[test]
fn the_bound_on_the_mean_time_between_failures_is_the_textbooks() {
    for (failures, factor) in [(0, 3.00), (1, 4.74), (2, 6.30), (3, 7.75), (4, 9.15)] {
        let found = mtbf_lower_factor(failures);
        assert!((found - factor).abs() < 0.005, "{failures}: {found}");
    }
    // For many failures the estimate and its bound come together.
    assert!((mtbf_lower_factor(100_000) / 100_000.0 - 1.0).abs() < 0.01);
}

// V6
#[test]
fn the_upper_bound_of_a_mean_time_is_half_of_chi_squares_fifth_percentile() {
    assert_eq!(mtbf_upper_factor(0), None);
    // Chi-square with 2, 4, 6, 10 and 20 degrees of freedom: 0.1026, 0.7107, 1.635, 3.940, 10.851.
    for (failures, factor) in [(1, 0.0513), (2, 0.3554), (3, 0.8177), (5, 1.970), (10, 5.425)] {
        let found = mtbf_upper_factor(failures).unwrap();
        assert!((found - factor).abs() < 0.001, "{failures}: {found}");
    }
    assert!((mtbf_upper_factor(100_000).unwrap() / 100_000.0 - 1.0).abs() < 0.01);
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 3_600_000;

fn incidents() -> Incidents {
    Incidents::open(Arc::new(MemoryStore::new())).unwrap()
}

// V6
#[test]
fn a_month_without_failure_shows_ten_days_and_not_a_month() {
    let incidents = incidents();
    let clean = incidents.reliability(0, 720 * HOUR_MS);
    assert_eq!((clean.mtbf_hours, clean.mttr_minutes), (None, None));
    assert_eq!((clean.mtbf_upper_hours, clean.mttr_upper_minutes), (None, None));
    assert!((clean.mtbf_lower_hours - 240.3).abs() < 0.1, "{}", clean.mtbf_lower_hours);
    for (hour, minutes) in [(1, 10), (3, 20), (5, 60)] {
        incidents.past("k", "t", hour * HOUR_MS, hour * HOUR_MS + minutes * MINUTE_MS);
    }
    incidents.begin("open", "t", 719 * HOUR_MS, 719 * HOUR_MS + 4);
    incidents.begin("open", "again", 719 * HOUR_MS + 1, 719 * HOUR_MS + 5);
    // Told by two objectives, and one failure all the same.
    incidents.past("slo:probes", "the same trouble", 5 * HOUR_MS + 30_000, 5 * HOUR_MS + 45_000);
    let some = incidents.reliability(0, 720 * HOUR_MS);
    assert_eq!((some.incidents, some.open, some.trouble_hours), (4, 1, 2.5));
    assert_eq!((some.mttr_minutes, some.mttr_median_minutes), (Some(30.0), Some(20.0)));
    assert_eq!((some.mttr_p95_minutes, some.mtbf_hours), (Some(60.0), Some(717.5 / 4.0)));
}

// V6
#[test]
fn mean_times_look_back_a_year_and_at_no_time_whose_incidents_are_forgotten() {
    const DAY_MS: u64 = 24 * HOUR_MS;
    let incidents = incidents();
    incidents.past("old", "t", DAY_MS, DAY_MS + HOUR_MS);
    incidents.past("late", "t", 300 * DAY_MS, 300 * DAY_MS + HOUR_MS);
    assert_eq!(incidents.reliability(0, 360 * DAY_MS).incidents, 2);
    let year = incidents.reliability(0, 400 * DAY_MS);
    assert_eq!((year.incidents, year.observed_hours), (1, 365.0 * 24.0));
    // 500 are kept, of the last 500 minutes; the days before would look free of failures.
    for minute in 0..600 {
        let began = 400 * DAY_MS + minute * MINUTE_MS;
        incidents.past("k", "t", began, began + 1_000);
    }
    let busy = incidents.reliability(0, 400 * DAY_MS + 600 * MINUTE_MS);
    assert!((500..=501).contains(&busy.incidents), "{}", busy.incidents);
    assert!((8.3..8.4).contains(&busy.observed_hours), "{}", busy.observed_hours);
}

// V6
#[test]
fn time_in_which_the_process_was_stopped_shows_nothing_about_it() {
    let world = world();
    world.serve(360, 0);
    world.slo.close().unwrap();
    let world = world.restart_after(Duration::from_secs(100 * 86_400));
    assert!(close_to(world.slo.reliability().observed_hours, 1.0));
    world.slo.close().unwrap();
    let world = world.restart_after(SECOND);
    assert!((world.slo.reliability().observed_hours - 1.0).abs() < 0.001);
}

fn judged(incidents: &Incidents, hours: u64, name: &str) -> MeanTimeReport {
    let found = incidents.reliability(0, hours * HOUR_MS);
    let all = MeanTimes::default().judge(&found);
    all.into_iter().find(|report| report.name == name).unwrap()
}

// V6: MTBF above 720 h.
#[test]
fn the_time_between_failures_is_known_only_when_its_bounds_say_so() {
    let quiet = incidents();
    let month = judged(&quiet, 720, "mtbf");
    assert_eq!((month.verdict, month.estimate_seconds), (Verdict::NotYetKnown, None));
    assert_eq!(
        month.why,
        "no failure in 720 h shows no more than 240 h; 1437 h more without one would show it"
    );
    assert_eq!(judged(&quiet, 2_156, "mtbf").verdict, Verdict::NotYetKnown);
    let months = judged(&quiet, 2_158, "mtbf");
    assert_eq!((months.verdict, months.target_seconds), (Verdict::Met, 720 * 3_600));
    assert_eq!(months.why, "no failure in 2158 h: the mean is at least 720 h");
    // A mean of 360 h from two failures may still be one of 720 h.
    let some = incidents();
    let fail = |hour: u64| some.past("k", "t", hour * HOUR_MS, hour * HOUR_MS + MINUTE_MS);
    fail(100);
    fail(500);
    let few = judged(&some, 720, "mtbf");
    assert_eq!(few.verdict, Verdict::NotYetKnown, "{few:?}");
    assert!(few.upper_seconds.unwrap() > 2_000.0 * 3_600.0);
    (501..505).for_each(fail);
    let many = judged(&some, 720, "mtbf");
    assert_eq!(many.verdict, Verdict::Missed, "{many:?}");
    assert_eq!(many.why, "6 failures in 720 h: the mean is at most 276 h");
}

// V6: MTTR below 15 min.
#[test]
fn the_time_to_repair_is_known_only_when_its_bounds_say_so() {
    let some = incidents();
    let none = judged(&some, 720, "mttr");
    assert_eq!((none.verdict, none.upper_seconds), (Verdict::NotYetKnown, None));
    assert_eq!(none.why, "no repair: nothing is known before one has ended");
    let repair = |hour: u64, ms: u64| some.past("k", "t", hour * HOUR_MS, hour * HOUR_MS + ms);
    repair(1, 4 * MINUTE_MS);
    let one = judged(&some, 720, "mttr");
    assert_eq!((one.verdict, one.estimate_seconds), (Verdict::NotYetKnown, Some(240.0)));
    assert_eq!(one.why, "1 repair: the mean may be anything from 80.1 s to 78.0 min");
    repair(2, 4 * MINUTE_MS);
    repair(3, 4 * MINUTE_MS);
    let three = judged(&some, 720, "mttr");
    assert_eq!(three.verdict, Verdict::Met, "{three:?}");
    assert_eq!(three.why, "3 repairs: the mean is at most 14.7 min");
    // One that does not end counts with what it has lasted.
    some.begin("open", "t", 700 * HOUR_MS, 700 * HOUR_MS);
    let lasting = judged(&some, 720, "mttr");
    assert_eq!(lasting.verdict, Verdict::Missed, "{lasting:?}");
    assert!(lasting.why.starts_with("3 repairs and 1 that lasts: the mean is at least"));
}

// V6
#[test]
fn a_mean_time_of_zero_is_not_promised_and_one_that_no_year_shows_is_refused() {
    let found = incidents().reliability(0, HOUR_MS);
    let none = MeanTimes { mtbf_min_ms: 0, mttr_max_ms: 0 };
    assert_eq!(none.judge(&found), []);
    let with = |mean_times| SloConfig { mean_times, ..SloConfig::default() }.validate();
    assert!(with(none).is_ok());
    let long = MeanTimes { mtbf_min_ms: 121 * 24 * HOUR_MS, ..none };
    assert_eq!(
        with(long).unwrap_err().to_string(),
        "slo.mean_times.mtbf_min_ms: 10454400000 is not allowed, use 0 to 10368000000"
    );
    let slow = MeanTimes { mttr_max_ms: 25 * HOUR_MS, ..none };
    assert!(with(slow).unwrap_err().to_string().contains("slo.mean_times.mttr_max_ms"));
}

// V6
#[test]
fn mean_times_are_reported_beside_the_objectives() {
    let world = world();
    world.serve(360, 0);
    world.serve(30, 10);
    world.serve(1_000, 0);
    let report = world.slo.report();
    let found: Vec<_> = report.mean_times.iter().map(|it| (&*it.name, it.verdict)).collect();
    assert_eq!(found, [("mtbf", Verdict::Missed), ("mttr", Verdict::NotYetKnown)]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["mean_times"][0]["verdict"], "missed");
    assert_eq!(json["mean_times"][1]["estimate_seconds"], 300.0);
}

// V6
#[test]
fn incidents_are_bounded_and_outlive_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let incidents = Incidents::open(Arc::clone(&store) as Arc<dyn StateStore>).unwrap();
    incidents.begin("open", "lasts", 1, 2);
    for n in 0..600 {
        incidents.past("k", "t", n, n + 1);
    }
    let again = Incidents::open(store).unwrap();
    let list = again.list();
    assert_eq!(list.len(), 500);
    assert_eq!((list[0].number, &*list[499].key), (601, "open"));
    assert!(again.end("open", 50) && !again.end("open", 50));
}

// V6
#[test]
fn the_rules_hold_the_same_bounds_as_the_process() {
    let rules = prometheus_rules(&config().objectives[..1], "https://example.org/slo");
    for line in [
        "  - name: mainstay-slo-search",
        "      - record: mainstay:slo_error_ratio:rate300s",
        "        expr: sum(rate(mainstay_slo_events_total{slo=\"search\",result=\"bad\"}[300s])) / \
         sum(rate(mainstay_slo_events_total{slo=\"search\"}[300s]))",
        "      - record: mainstay:slo_error_ratio:rate2592000s",
        "      - alert: MainstayBudgetBurnPage",
        "        expr: (mainstay:slo_error_ratio:rate3600s{slo=\"search\"} > 0.01440000 and \
         mainstay:slo_error_ratio:rate300s{slo=\"search\"} > 0.01440000 and \
         sum by (slo) (increase(mainstay_slo_events_total{slo=\"search\"}[3600s])) >= 10 and \
         sum by (slo) (increase(mainstay_slo_events_total{slo=\"search\",result=\"bad\"}[3600s])) \
         >= 2) or \
         (mainstay:slo_error_ratio:rate21600s{slo=\"search\"} > 0.00600000 and \
         mainstay:slo_error_ratio:rate1800s{slo=\"search\"} > 0.00600000 and \
         sum by (slo) (increase(mainstay_slo_events_total{slo=\"search\"}[21600s])) >= 10 and \
         sum by (slo) (increase(mainstay_slo_events_total{slo=\"search\",result=\"bad\"}[21600s])) \
         >= 2)",
        "        expr: absent(mainstay_slo_events_total{slo=\"search\"})",
        "          runbook_url: \"https://example.org/slo#search\"",
        "          runbook_url: \"https://example.org/slo#when-nothing-is-known\"",
        "        expr: mainstay_mean_time_verdict{verdict=\"missed\"} == 1",
        "          summary: \"the promised {{ $labels.mean_time }} is missed\"",
    ] {
        assert!(rules.lines().any(|found| found == line), "{line}\n{rules}");
    }
}

/// Good and bad events in a minute, and whether they are enough to alert.
const FEW_AND_ENOUGH: [(u64, u64, bool); 4] =
    [(19, 1, false), (0, 1, false), (7, 2, false), (8, 2, true)];

// V6
#[test]
fn the_process_needs_ten_events_and_two_bad_ones_to_alert() {
    for (good, bad, alerts) in FEW_AND_ENOUGH {
        let world = world();
        (0..good + bad).for_each(|n| world.slo.request(Source::Searches, n < bad, FAST));
        world.slo.tick();
        let alert = world.of("search").alert;
        assert_eq!(alert, alerts.then_some(Severity::Page), "{good} good, {bad} bad");
    }
}

// V6
#[test]
fn prometheus_needs_as_many_events_as_the_process_to_alert() {
    let folder = tempfile::tempdir().unwrap();
    let rules = prometheus_rules(&config().objectives[..1], "https://example.org/slo");
    std::fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    let mut cases = String::from("rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n");
    for (good, bad, alerts) in FEW_AND_ENOUGH {
        cases += &format!(
            "- name: {good} good, {bad} bad\n  interval: 1m\n  input_series:\n\
             {}{}  alert_rule_test:\n{}{}",
            scraped("good", good),
            scraped("bad", bad),
            expected("Page", "page", alerts),
            expected("Ticket", "ticket", alerts),
        );
    }
    let file = folder.path().join("cases.yaml");
    std::fs::write(&file, cases).unwrap();
    let told = std::process::Command::new("promtool")
        .args(["test", "rules"])
        .arg(&file)
        .output()
        .expect("`cargo xtask test` installs promtool");
    let words = [told.stdout, told.stderr].concat();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&words));
}

/// A counter as it is scraped once a minute: five times 0, and from then on `count`.
fn scraped(result: &str, count: u64) -> String {
    let series = format!("mainstay_slo_events_total{{slo=\"search\",result=\"{result}\"}}");
    format!("  - series: '{series}'\n    values: '0+0x4 {count}+0x5'\n")
}

/// What promtool expects of an alert in the eighth minute.
fn expected(name: &str, severity: &str, alerts: bool) -> String {
    let firing = format!(
        "    - exp_labels: {{ slo: search, severity: {severity} }}\n      exp_annotations:\n        \
         summary: the error budget of search burns too fast\n        \
         runbook_url: https://example.org/slo#search\n"
    );
    format!(
        "  - eval_time: 8m\n    alertname: MainstayBudgetBurn{name}\n    exp_alerts:{}",
        if alerts { format!("\n{firing}") } else { " []\n".to_owned() }
    )
}

// V6
#[test]
fn objectives_out_of_range_are_refused_with_name_field_and_range() {
    let refused = |change: &dyn Fn(&mut Objective)| {
        let mut config = config();
        change(&mut config.objectives[1]);
        config.validate().unwrap_err().to_string()
    };
    assert_eq!(
        refused(&|o| o.target = 1.0),
        "slo.fast.target: 1 is not allowed, use 0.5 to 0.99999"
    );
    assert!(refused(&|o| o.target = f64::NAN).contains("NaN"));
    assert!(refused(&|o| o.period_days = 0).contains("slo.fast.period_days: 0"));
    assert!(refused(&|o| o.name = "search".into()).contains("each name once"));
    assert!(refused(&|o| o.name = "A\"b".into()).contains("slo.name"));
    let zero = Indicator::Latency { threshold_ms: 0 };
    assert!(refused(&|o| o.indicator = zero).contains("slo.fast.threshold_ms: 0"));
    assert!(SloConfig::default().validate().is_ok());
}
