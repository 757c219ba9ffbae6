//! D4 and D6: the ladder moves by signals and by hand, with hysteresis, and says why.

use mainstay_ops::audit::Audit;
use mainstay_ops::health::Health;
use mainstay_ops::levels::{Level, Levels, LevelsConfig, Signals};
use mainstay_ops::memory::Step;
use mainstay_ops::store::{MemoryStore, StateStore};
use mainstay_ops::wall_clock::ManualWallClock;
use mainstay_resilience::ManualClock;
use std::sync::Arc;
use std::time::Duration;

struct World {
    clock: ManualClock,
    wall: ManualWallClock,
    store: Arc<MemoryStore>,
    audit: Audit,
    levels: Levels,
}

fn world() -> World {
    let (clock, wall) = (ManualClock::new(), ManualWallClock::at(1_700_000_000_000));
    let (store, audit) = (Arc::new(MemoryStore::new()), Audit::new(wall.clock(), None));
    let levels = open(&clock, &wall, &audit, &store);
    World { clock, wall, store, audit, levels }
}

fn open(
    clock: &ManualClock,
    wall: &ManualWallClock,
    audit: &Audit,
    store: &Arc<MemoryStore>,
) -> Levels {
    let store = Arc::clone(store) as Arc<dyn StateStore>;
    let config = LevelsConfig::default();
    Levels::open(config, clock.clock(), wall.clock(), audit.clone(), store).unwrap()
}

impl World {
    /// Ticks four times a second for this long.
    fn during(&self, seconds: u64, signals: &Signals) -> Level {
        for _ in 0..seconds * 4 {
            self.clock.advance(Duration::from_millis(250));
            self.wall.advance(Duration::from_millis(250));
            self.levels.tick(signals);
        }
        self.levels.level()
    }
}

fn queue(queue_age_ms: u64) -> Signals {
    Signals { queue_age_ms, ..Signals::default() }
}

// D4
#[test]
fn each_signal_leads_to_its_level_and_its_reason() {
    let breakers = |n: usize| (0..n).map(|n| format!("b{n}")).collect::<Vec<_>>();
    for (signals, level, reason) in [
        (Signals::default(), Level::Full, "start"),
        (
            Signals { breakers_open: breakers(1), ..Signals::default() },
            Level::Degraded,
            "breakers are open: b0",
        ),
        (
            Signals { breakers_open: breakers(3), ..Signals::default() },
            Level::Minimal,
            "breakers are open: b0, b1, b2",
        ),
        (
            Signals { health: Health::Degraded, ..Signals::default() },
            Level::Degraded,
            "health is degraded",
        ),
        (
            Signals { health: Health::Unhealthy, ..Signals::default() },
            Level::Minimal,
            "health is unhealthy",
        ),
        (Signals { memory: Step::Warn, ..Signals::default() }, Level::Full, "start"),
        (
            Signals { memory: Step::Shrink, ..Signals::default() },
            Level::Degraded,
            "memory is at step shrink",
        ),
        (
            Signals { memory: Step::Emergency, ..Signals::default() },
            Level::Minimal,
            "memory is at step emergency",
        ),
        (queue(200), Level::Degraded, "requests wait for 200 ms"),
        (queue(1_000), Level::Minimal, "requests wait for 1000 ms"),
        (
            Signals { burning: vec!["search".into()], ..Signals::default() },
            Level::Degraded,
            "error budget burns: search",
        ),
        (
            Signals { read_only: Some("log damaged".into()), ..Signals::default() },
            Level::Maintenance,
            "nothing can be written: log damaged",
        ),
    ] {
        let world = world();
        assert_eq!(world.during(2, &signals), level, "{reason}");
        assert_eq!(world.levels.standing().reason, reason);
    }
}

// D4
#[test]
fn a_short_spike_moves_nothing_and_recovery_goes_one_rung_at_a_time() {
    let world = world();
    for _ in 0..20 {
        assert_eq!(world.during(1, &queue(5_000)), Level::Full);
        // One calm tick begins the count anew.
        world.levels.tick(&queue(0));
    }
    assert_eq!(world.during(2, &queue(5_000)), Level::Minimal);
    assert_eq!(world.during(29, &queue(0)), Level::Minimal);
    assert_eq!(world.during(3, &queue(0)), Level::Degraded);
    assert_eq!(world.during(27, &queue(0)), Level::Degraded);
    assert_eq!(world.during(5, &queue(0)), Level::Full);
    let history = world.levels.report().history;
    let rungs: Vec<_> = history.iter().map(|t| (t.from, t.to, t.cause)).collect();
    assert_eq!(
        rungs,
        [
            (Level::Degraded, Level::Full, "recovery"),
            (Level::Minimal, Level::Degraded, "recovery"),
            (Level::Full, Level::Minimal, "signal"),
        ]
    );
}

// D4
#[test]
fn between_the_two_thresholds_the_level_stays() {
    let world = world();
    world.during(2, &queue(250));
    // Below 200 ms, which enters, but not below 100 ms, which leaves.
    assert_eq!(world.during(300, &queue(150)), Level::Degraded);
    assert_eq!(world.levels.standing().reason, "requests wait for 150 ms");
    let burning = Signals { burning: vec!["search".into()], ..Signals::default() };
    world.during(1, &burning);
    assert_eq!(world.levels.standing().reason, "error budget burns: search", "what keeps it there");
    assert_eq!(world.during(32, &queue(99)), Level::Full);
    assert_eq!(world.during(300, &queue(150)), Level::Full);
}

// D4
#[test]
fn a_signal_that_flaps_faster_than_the_dwell_causes_one_transition() {
    let world = world();
    for _ in 0..100 {
        world.during(2, &queue(300));
        world.during(5, &queue(0));
    }
    assert_eq!(world.levels.report().history.len(), 1);
}

// D4
#[test]
fn a_level_held_by_hand_outranks_signals_until_it_expires() {
    let world = world();
    world.levels.hold(Level::Maintenance, Duration::from_secs(60), "ann", "upgrade").unwrap();
    let standing = world.levels.standing();
    assert_eq!((standing.level, &*standing.reason), (Level::Maintenance, "held by ann: upgrade"));
    assert_eq!(world.during(30, &queue(5_000)), Level::Maintenance);
    assert_eq!(world.levels.report().automatic, Level::Minimal);
    // It outlives a restart, with its end.
    let restarted = open(&world.clock, &world.wall, &world.audit, &world.store);
    assert_eq!(restarted.level(), Level::Maintenance);
    assert_eq!(world.during(31, &queue(5_000)), Level::Minimal);
    let again = open(&world.clock, &world.wall, &world.audit, &world.store);
    assert_eq!(again.level(), Level::Full);
    let actions: Vec<_> = world.audit.recent(0, 100).iter().map(|e| e.action.clone()).collect();
    assert_eq!(actions.iter().filter(|action| *action == "level.hold").count(), 1);
    assert!(actions.iter().filter(|action| *action == "level.change").count() >= 2);
}

// D4
#[test]
fn a_hold_ends_by_hand_and_cannot_last_forever() {
    let world = world();
    let forever = Duration::from_secs(8 * 86_400);
    let refused = world.levels.hold(Level::Full, forever, "ann", "").unwrap_err().to_string();
    assert_eq!(refused, "levels.hold: 8d is not allowed, use 1s to 7d");
    world.levels.hold(Level::Minimal, Duration::from_secs(600), "ann", "test").unwrap();
    world.store.fail_saves(true);
    assert!(world.levels.release("ann", "").is_err());
    assert_eq!(world.levels.level(), Level::Minimal);
    world.store.fail_saves(false);
    assert!(world.levels.release("ann", "done").unwrap());
    assert!(!world.levels.release("ann", "again").unwrap());
    assert_eq!(world.levels.level(), Level::Full);
}

// D4. Bad input: a clock that goes backwards.
#[test]
fn a_hold_ends_in_its_time_although_the_time_of_day_is_set() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let set_back = world();
    set_back.levels.hold(Level::Minimal, Duration::from_secs(60), "ann", "test").unwrap();
    set_back.wall.set(1_700_000_000_000 - 3_600_000);
    assert_eq!(set_back.during(59, &queue(0)), Level::Minimal);
    assert_eq!(set_back.during(2, &queue(0)), Level::Full, "an hour later by the time of day");

    let set_ahead = world();
    set_ahead.levels.hold(Level::Minimal, HOUR, "ann", "test").unwrap();
    set_ahead.wall.advance(24 * HOUR);
    assert_eq!(set_ahead.during(1, &queue(0)), Level::Full, "it slept, or was told the time");

    // Held by a clock that ran a year ahead, and read by one that is right.
    let restored = world();
    restored.wall.advance(365 * 24 * HOUR);
    restored.levels.hold(Level::Minimal, HOUR, "ann", "test").unwrap();
    restored.wall.set(1_700_000_000_000);
    let again = open(&restored.clock, &restored.wall, &restored.audit, &restored.store);
    assert_eq!(again.level(), Level::Minimal);
    let week_ms = 7 * 86_400_000;
    let until = again.report().held.unwrap().until_unix_ms;
    assert_eq!(until, 1_700_000_000_000 + week_ms, "no hold is longer than a week");
    restored.clock.advance(Duration::from_millis(week_ms));
    assert_eq!(again.tick(&Signals::default()), Level::Full);
}

// D4, D6
#[test]
fn a_level_says_what_it_means() {
    let world = world();
    world.during(2, &queue(5_000));
    let standing = world.levels.standing();
    assert!(standing.effects.allows_method("bm25") && !standing.effects.allows_method("semantic"));
    let json = serde_json::to_value(world.levels.report()).unwrap();
    assert_eq!(json["standing"]["level"], "minimal");
    assert_eq!(json["standing"]["effects"]["refine"], false);
    assert_eq!(json["standing"]["since"], "2023-11-14T22:13:21.250Z");
    let effects = LevelsConfig::default().effects;
    assert!(effects.full.refine && effects.full.allows_method("semantic"));
    assert!(!effects.maintenance.writes && effects.maintenance.reads);
}

// D4
#[test]
fn settings_out_of_range_are_refused() {
    let mut config = LevelsConfig { queue_minimal_ms: 100, ..LevelsConfig::default() };
    let refused = config.validate().unwrap_err().to_string();
    assert!(refused.contains("levels.queue_minimal_ms: 100 is not allowed"), "{refused}");
    config.queue_minimal_ms = 0;
    config.effects.minimal.effort = 0.0;
    assert!(config.validate().unwrap_err().to_string().contains("levels.effects.minimal.effort"));
}
