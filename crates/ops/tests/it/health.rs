//! V1 and V2: states, timeouts, single flight, readiness with hysteresis, the report.

use mainstay_ops::health::{
    Check, ComponentKind, Criticality, Gate, GateConfig, Health, HealthRegistry, HealthReport,
    Observation, Pulses, ServiceInfo, Status,
};
use mainstay_ops::ticker::Ticker;
use mainstay_ops::wall_clock::ManualWallClock;
use mainstay_resilience::ManualClock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

struct World {
    clock: ManualClock,
    registry: HealthRegistry,
}

fn world() -> World {
    let clock = ManualClock::new();
    let wall = ManualWallClock::at(1_700_000_000_000);
    let gate = Gate::new(GateConfig::default(), &[]).unwrap();
    let info = ServiceInfo { version: "1".into(), ..ServiceInfo::default() };
    let registry = HealthRegistry::new(clock.clock(), wall.clock(), gate, info);
    World { clock, registry }
}

/// A dependency that hangs until it is released.
#[derive(Clone, Default)]
struct Hang {
    released: Arc<(Mutex<bool>, Condvar)>,
    entered: Arc<AtomicUsize>,
}

impl Hang {
    fn enter(&self) -> Observation {
        self.entered.fetch_add(1, Ordering::SeqCst);
        let released = self.released.0.lock().unwrap();
        drop(self.released.1.wait_while(released, |released| !*released).unwrap());
        Observation::healthy()
    }

    fn check(&self, name: &str) -> Check {
        let hang = self.clone();
        Check::new(name, ComponentKind::Datastore, move || hang.enter())
    }

    fn wait_until_entered(&self) {
        while self.entered.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    }

    fn release(&self) {
        *self.released.0.lock().unwrap() = true;
        self.released.1.notify_all();
    }
}

fn answering(name: &str, answer: impl Fn() -> Observation + Send + Sync + 'static) -> Check {
    Check::new(name, ComponentKind::Component, answer)
}

fn state(report: &HealthReport, check: &str) -> Health {
    report.checks[&format!("{check}:responseTime")][0].state
}

// V1
#[test]
fn the_state_of_the_whole_follows_from_criticality() {
    for (criticality, found, whole, http, exit) in [
        (Criticality::Critical, Observation::healthy(), Health::Healthy, 200, 0),
        (Criticality::Critical, Observation::degraded("slow"), Health::Degraded, 200, 1),
        (Criticality::Critical, Observation::unhealthy("gone"), Health::Unhealthy, 503, 2),
        (Criticality::Critical, Observation::unknown("asleep"), Health::Unknown, 503, 3),
        (Criticality::Degrades, Observation::unhealthy("gone"), Health::Degraded, 200, 1),
        (Criticality::Degrades, Observation::unknown("asleep"), Health::Degraded, 200, 1),
        (Criticality::Informative, Observation::unhealthy("gone"), Health::Healthy, 200, 0),
    ] {
        let world = world();
        let check = answering("part", move || found.clone()).criticality(criticality);
        world.registry.register(check).unwrap();
        let report = world.registry.report_fresh();
        assert_eq!(report.state, whole, "{criticality:?}");
        assert_eq!((report.http_status(), report.exit_code()), (http, exit));
    }
}

/// V2: however long a check may take, whoever waits for a fresh report has its own bound.
#[test]
fn a_fresh_report_is_given_within_its_time_although_a_check_hangs() {
    let world = world();
    let hang = Hang::default();
    world.registry.register(hang.check("slow").timeout(Duration::from_secs(60))).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(tell.send(world.registry.report_within(Duration::ZERO))));
    // The clock stands still, so that only its own bound can end it.
    let report = told.recv_timeout(Duration::from_secs(60)).expect("it waits for what hangs");
    assert_eq!(state(&report, "slow"), Health::Unknown);
    hang.release();
}

// V1
#[test]
fn a_hung_check_becomes_unknown_after_its_timeout_and_blocks_no_reader() {
    let world = world();
    let hang = Hang::default();
    let critical = hang.check("catalogue").criticality(Criticality::Critical);
    world.registry.register(critical.affects(&["/search"])).unwrap();
    world.registry.register(answering("other", Observation::healthy)).unwrap();
    world.registry.tick();
    hang.wait_until_entered();
    world.clock.advance(Duration::from_secs(6));
    let report = world.registry.report_fresh();
    assert_eq!(state(&report, "catalogue"), Health::Unknown);
    assert_eq!(state(&report, "other"), Health::Healthy);
    assert_eq!(report.state, Health::Unknown);
    let entry = &report.checks["catalogue:responseTime"][0];
    assert!(entry.output.contains("no answer for 6s, the limit is 5s"), "{}", entry.output);
    assert_eq!(entry.affected_endpoints, ["/search"]);
    hang.release();
}

// V1
#[test]
fn a_hung_check_is_never_asked_a_second_time_beside_itself() {
    let world = world();
    let hang = Hang::default();
    world.registry.register(hang.check("cache")).unwrap();
    for _ in 0..50 {
        world.registry.tick();
        let _ = world.registry.report();
        world.clock.advance(Duration::from_secs(60));
    }
    hang.wait_until_entered();
    assert_eq!(hang.entered.load(Ordering::SeqCst), 1);
    hang.release();
}

// V1
#[test]
fn checks_run_beside_each_other() {
    let world = world();
    let meeting = Arc::new(std::sync::Barrier::new(4));
    for n in 0..4 {
        let meeting = Arc::clone(&meeting);
        let meet = move || {
            meeting.wait();
            Observation::healthy()
        };
        world.registry.register(answering(&format!("part-{n}"), meet)).unwrap();
    }
    // Each waits for the three others: one after the other they would all hang.
    assert_eq!(world.registry.report_fresh().state, Health::Healthy);
}

// V1
#[test]
fn answers_are_cached_until_they_are_too_old() {
    let world = world();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // The second check answers only when the stale report has been read.
    let (read, was_read) = std::sync::mpsc::channel::<()>();
    let was_read = std::sync::Mutex::new(was_read);
    let count = move || {
        if counter.fetch_add(1, Ordering::SeqCst) == 1 {
            let _ = was_read.lock().map(|was_read| was_read.recv());
        }
        Observation::healthy()
    };
    world.registry.register(answering("part", count)).unwrap();
    let _ = world.registry.report_fresh();
    for _ in 0..100 {
        let _ = world.registry.report();
        world.registry.tick();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    world.clock.advance(Duration::from_secs(36));
    // Nobody asked for 3 × 10 s + 5 s: what was true then is not known now.
    let stale = world.registry.report();
    assert_eq!(state(&stale, "part"), Health::Unknown);
    drop(read);
    while asked.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
}

// V1
#[test]
fn readiness_changes_only_after_several_rounds_that_agree() {
    let gate = Gate::new(GateConfig { failures: 3, successes: 2 }, &["recovery"]).unwrap();
    assert_eq!(gate.readiness().reasons, ["waiting for recovery"]);
    assert_eq!(gate.startup().waiting_for, ["recovery"]);
    gate.done("recovery");
    assert!(gate.readiness().ready && gate.startup().started);
    let rounds = |healths: &[Health]| {
        for health in healths {
            gate.round([("log", *health)]);
        }
        gate.readiness().ready
    };
    let (good, bad) = (Health::Healthy, Health::Unhealthy);
    assert!(rounds(&[bad, bad, good, bad, bad]));
    assert!(rounds(&[good, Health::Degraded, Health::Degraded, Health::Degraded]));
    assert!(!rounds(&[bad, Health::Unknown, bad]));
    assert_eq!(gate.readiness().reasons, ["log is unhealthy"]);
    assert!(!rounds(&[good, bad, good]));
    assert!(rounds(&[good]));
    gate.drain();
    assert_eq!(gate.readiness().reasons, ["shutting down"]);
    assert!(!rounds(&[good, good, good]));
}

// V1
#[test]
fn a_hung_critical_check_makes_the_process_unready_but_never_dead() {
    let world = world();
    let pulses = Pulses::new(world.clock.clock());
    let pulse = pulses.watch("log", Duration::from_secs(30)).unwrap();
    let hang = Hang::default();
    let check = hang.check("catalogue").criticality(Criticality::Critical);
    world.registry.register(check).unwrap();
    world.registry.tick();
    hang.wait_until_entered();
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(10));
        pulse.beat();
        world.registry.tick();
    }
    assert!(!world.registry.report().ready);
    assert!(pulses.liveness().live);
    world.clock.advance(Duration::from_secs(31));
    assert_eq!(pulses.liveness().silent, ["log: silent for 31 s"]);
    drop(pulse);
    assert!(pulses.liveness().live);
    hang.release();
}

// V1
#[test]
fn a_panicking_check_is_unhealthy_and_asked_again() {
    let world = world();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let panicking = move || -> Observation {
        assert!(counted.fetch_add(1, Ordering::SeqCst) > 0, "first time");
        Observation::healthy()
    };
    world.registry.register(answering("part", panicking)).unwrap();
    let first = world.registry.report_fresh();
    assert_eq!(first.checks["part:responseTime"][0].output, "the check panicked");
    assert_eq!(state(&world.registry.report_fresh(), "part"), Health::Healthy);
}

// V1, V2
#[test]
fn the_report_has_the_shape_of_the_draft_and_no_secrets() {
    let world = world();
    let found = || {
        Observation::degraded("pool of postgres://app:hunter2@db/x is nearly full")
            .figure("connections_in_use", 48.0, "connections")
            .figure("memory", 1024.0, "bytes")
    };
    let check = Check::new("catalogue", ComponentKind::Datastore, found).affects(&["/admin"]);
    world.registry.register(check).unwrap();
    let report = world.registry.report_fresh();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["status"], "warn");
    assert_eq!(json["state"], "degraded");
    let entry = &json["checks"]["catalogue:responseTime"][0];
    assert_eq!(entry["componentType"], "datastore");
    assert_eq!(entry["time"], "2023-11-14T22:13:20.000Z");
    assert_eq!(entry["affectedEndpoints"][0], "/admin");
    assert_eq!(entry["observedUnit"], "ms");
    assert_eq!(json["checks"]["catalogue:connections_in_use"][0]["observedValue"], 48.0);
    assert!(!json.to_string().contains("hunter2"));
    // The command line reads what the server wrote.
    let read: HealthReport = serde_json::from_value(json).unwrap();
    assert_eq!((read.status, read.exit_code()), (Status::Warn, 1));
}

// V1
#[test]
fn settings_out_of_range_are_refused_with_name_and_range() {
    let world = world();
    let refused = |check: Check| world.registry.register(check).unwrap_err().to_string();
    let part = || answering("part", Observation::healthy);
    let slow = refused(part().timeout(Duration::from_secs(61)));
    assert_eq!(slow, "check.part.timeout: 61s is not allowed, use 1ms to 1m");
    let eager = refused(part().every(Duration::ZERO));
    assert_eq!(eager, "check.part.every: 0s is not allowed, use 100ms to 1h");
    assert!(refused(answering("no such name", Observation::healthy)).contains("check.name"));
    world.registry.register(part()).unwrap();
    assert!(refused(part()).contains("registered already"));
    for n in 1..mainstay_ops::health::CHECKS_MAX {
        world.registry.register(answering(&format!("p{n}"), Observation::healthy)).unwrap();
    }
    assert!(refused(answering("last", Observation::healthy)).contains("at most 64"));
    assert!(world.registry.remove("part") && !world.registry.remove("part"));
}

// V1
#[test]
fn a_ticker_asks_by_itself_and_ends_when_dropped() {
    let world = world();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let count = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Observation::healthy()
    };
    world.registry.register(answering("part", count)).unwrap();
    let registry = world.registry.clone();
    let driver = Ticker::start("health", Duration::from_millis(10), move || registry.tick());
    while asked.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    drop(driver);
}
