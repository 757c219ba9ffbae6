//! Incidents end to end (V6): searches fail, the budget burns, an incident opens; they work again, and
//! it closes with its duration.
//!
//! Time is a test's own: windows of minutes pass at once. Nothing else than the objective's name
//! tells the metrics of servers apart that share a process, so each test takes one of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_db::{Db, DbError, InjectedFault, Method, Options};
use mainstay_ops::handles::HandleConfig;
use mainstay_ops::slo::{Indicator, Objective, SloConfig, Source};
use mainstay_ops::wall_clock::ManualWallClock;
use mainstay_resilience::{BreakerConfig, ManualClock, OpenFor};
use mainstay_server::admission::{Class, Floor};
use mainstay_server::settings::Settings;
use mainstay_server::{Config, Host};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::operations::{audited, until};
use crate::{Running, indexed, telemetry};

/// The beginning of an hour.
const BEGIN_MS: u64 = 1_700_006_400_000;

/// The time of a server, which moves only when told to.
pub(crate) struct World {
    clock: ManualClock,
    wall: ManualWallClock,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { clock: ManualClock::new(), wall: ManualWallClock::at(BEGIN_MS) }
    }

    pub(crate) fn host(&self) -> Host {
        let host = Host::new(&HandleConfig::default(), None).unwrap();
        Host { clock: self.clock.clock(), wall: self.wall.clock(), ..host }
    }

    pub(crate) fn pass(&self, wait: Duration) {
        self.clock.advance(wait);
        self.wall.advance(wait);
    }

    /// Over a data directory; breakers let a probe through at once.
    pub(crate) fn start(&self, folder: &Arc<TempDir>, config: Config) -> Running {
        let host = self.host();
        let mut breaker = BreakerConfig::search_method();
        breaker.open_for = OpenFor::fixed(Duration::from_millis(1));
        let options = Options { breaker, ..Options::default() };
        let db = opened(&host, folder.path(), &options);
        if db.collections().is_empty() {
            db.create_collection("default", "static".parse().unwrap()).unwrap();
        }
        Running::start_over(Arc::clone(folder), db, host, config, |_| {})
    }
}

/// The data directory; what ran over it before may give it back a moment after its end.
pub(crate) fn opened(host: &Host, folder: &Path, options: &Options) -> Db {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match Db::open_on(host.file_system(), folder, options.clone()) {
            Ok(db) => return db,
            Err(error @ DbError::Locked(_)) => assert!(Instant::now() < deadline, "{error}"),
            Err(error) => panic!("{error}"),
        }
        std::thread::yield_now();
    }
}

/// One objective of this name, over a week, and no searches of the server's own.
pub(crate) fn config(objective: &str) -> Config {
    let mut config = Config::default();
    config.operations.probe_every = Duration::ZERO;
    // A test's time runs ahead of the checks, which are asked in real time.
    config.operations.check_every = Duration::from_secs(3_600);
    config.operations.slo = SloConfig {
        objectives: vec![Objective {
            name: objective.to_string(),
            description: "searches are answered".to_string(),
            indicator: Indicator::Availability,
            source: Source::Searches,
            target: 0.999,
            period_days: 7,
            events_min: 10,
        }],
        incident_quiet_ms: 60_000,
        ..SloConfig::default()
    };
    config
}

/// What the objective shows once so many events are in its buckets.
fn settled(server: &Running, good: u64, bad: u64) -> Value {
    let shown = until(
        || server.get("/admin/slo").json(),
        |shown| {
            let objective = &shown["slo"]["objectives"][0];
            objective["good"].as_u64() >= Some(good) && objective["bad"].as_u64() >= Some(bad)
        },
    );
    let objective = &shown["slo"]["objectives"][0];
    assert_eq!((&objective["good"], &objective["bad"]), (&json!(good), &json!(bad)));
    shown
}

fn ask(server: &Running) -> u16 {
    server.post("/search", &json!({"query": "zebra", "strict": true})).status
}

/// V6: burn rate, alert, incident, log, metric, audit trail; over restarts, and without anybody's
/// help.
#[test]
fn an_incident_opens_when_searches_fail_and_closes_with_its_duration_over_restarts() {
    telemetry::log();
    let (world, folder) = (World::new(), Arc::new(tempfile::tempdir().unwrap()));
    let name = "opens-and-closes";
    let server = world.start(&folder, config(name));
    indexed(&server);
    for _ in 0..5 {
        assert_eq!(ask(&server), 200);
    }
    let calm = settled(&server, 5, 0);
    assert_eq!(
        (&calm["incidents"], &calm["slo"]["objectives"][0]["alert"]),
        (&json!([]), &Value::Null)
    );

    world.pass(Duration::from_secs(600));
    Method::ALL.into_iter().for_each(|method| server.break_method(method, InjectedFault::Error));
    for _ in 0..12 {
        assert_eq!(ask(&server), 503);
    }
    settled(&server, 5, 12);
    // The next tick judges what this one counted at the latest.
    let shown = until(|| server.get("/admin/slo").json(), |shown| shown["incidents"] != json!([]));
    assert_eq!(shown["slo"]["objectives"][0]["alert"], "page");
    let incident = &shown["incidents"][0];
    assert_eq!((&incident["number"], &incident["key"]), (&json!(1), &json!(format!("slo:{name}"))));
    assert_eq!(incident["ended_unix_ms"], Value::Null);
    assert_eq!(incident["began_unix_ms"], json!(BEGIN_MS + 600_000));
    let metrics = server.get("/metrics").body;
    let alert = format!("mainstay_slo_alert{{slo=\"{name}\",severity=\"page\"}} 1");
    assert!(metrics.contains(&alert), "{metrics}");
    assert!(
        metrics.contains("mainstay_incidents_total ")
            && metrics.contains("mainstay_incidents_open ")
    );
    let [opened] = &audited(&server, "incident.open")[..] else { panic!("one event") };
    assert_eq!((&opened["target"], &opened["who"]), (&incident["key"], &json!("system")));

    // Half a minute later it still fails, then it works again.
    world.pass(Duration::from_secs(30));
    assert_eq!(ask(&server), 503);
    let bad = settled(&server, 5, 13)["slo"]["objectives"][0]["bad"].as_u64().unwrap();
    Method::ALL.into_iter().for_each(|method| server.mend_method(method));
    let mut failed = 0;
    while ask(&server) != 200 {
        failed += 1;
        assert!(failed < 100, "the breakers never close");
    }
    settled(&server, 6, bad + failed);
    drop(server);

    // The windows outlive the process: it burns still, and the incident is the same one.
    let server = world.start(&folder, config(name));
    let shown = settled(&server, 6, bad + failed);
    assert_eq!(shown["slo"]["objectives"][0]["alert"], "page");
    assert_eq!(
        (&shown["incidents"][0]["number"], &shown["incidents"][0]["ended_unix_ms"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(shown["reliability"]["open"], 1);

    // The short window of the slower pair: 30 minutes of 30 days are 7 of a week.
    world.pass(Duration::from_secs(480));
    until(
        || server.get("/admin/slo").json(),
        |shown| shown["slo"]["objectives"][0]["alert"] == "ticket",
    );
    // A tick begins the quiet; what is shown may be ahead of it.
    let closed = until(
        || {
            world.pass(Duration::from_secs(1));
            server.get("/admin/slo").json()
        },
        |shown| shown["incidents"][0]["ended_unix_ms"] != Value::Null,
    );
    // From the slot of 10 s in which it began to the end of the last one with a failure.
    let incident = &closed["incidents"][0];
    assert_eq!(incident["ended_unix_ms"], json!(BEGIN_MS + 640_000), "{incident:#}");
    assert_eq!(
        (&closed["reliability"]["open"], &closed["reliability"]["incidents"]),
        (&json!(0), &json!(1))
    );
    let mttr = &closed["slo"]["mean_times"][1];
    assert_eq!((&mttr["name"], &mttr["estimate_seconds"]), (&json!("mttr"), &json!(40.0)));
    assert_eq!(mttr["verdict"], "met", "{mttr:#}");
    let [ended] = &audited(&server, "incident.close")[..] else { panic!("one event") };
    assert_eq!((&ended["target"], &ended["why"]), (&incident["key"], &json!("it lasted 40 s")));
    for (message, field) in [("incident opened", Value::Null), ("incident closed", json!(40_000))] {
        let of_it = |line: &&Value| {
            line["message"] == message && line["fields"]["key"] == format!("slo:{name}")
        };
        let lines = telemetry::lines();
        let found = lines.iter().find(of_it).unwrap_or_else(|| panic!("no line {message}"));
        assert_eq!(found["fields"]["lasted_ms"], field);
    }
    drop(server);

    let server = world.start(&folder, config(name));
    let again = server.get("/admin/slo").json();
    assert_eq!(&again["incidents"][0], incident);
    assert_eq!(again["incidents"].as_array().unwrap().len(), 1);
}

/// V6: what is shed is no answer to who asked; who goes beyond a rate chose to.
#[test]
fn every_503_counts_as_bad_and_a_429_as_nothing() {
    let (world, folder) = (World::new(), Arc::new(tempfile::tempdir().unwrap()));
    let name = "turned-away";
    let rates = ("admission.rates".to_string(), "search_collection = 1/h".to_string());
    let admission = Settings::load(None, [], &[rates]).unwrap().config().admission;
    let server = world.start(&folder, Config { admission, ..config(name) });
    indexed(&server);
    // Who scrapes it can tell a server that nobody has asked from one that is away.
    let none = format!("mainstay_slo_events_total{{slo=\"{name}\",result=\"bad\"}} 0");
    until(|| json!(server.get("/metrics").body.contains(&none)), |there| there == &json!(true));
    let limited = || server.post("/collections/default/search", &json!({"query": "zebra"})).status;
    assert_eq!([limited(), limited(), limited(), limited()], [200, 429, 429, 429]);
    server.control().admission().admit_from(Floor::Hand, Class::Control);
    let shed = server.post("/search", &json!({"query": "zebra"}));
    assert_eq!((shed.status, shed.json()["reason"].clone()), (503, json!("priority")));
    server.control().admission().admit_from(Floor::Hand, Class::Batch);
    Method::ALL.into_iter().for_each(|method| server.break_method(method, InjectedFault::Error));
    assert_eq!(ask(&server), 503, "a failure");
    // One good, one shed, one failed; what was counted of the others would be here by now.
    settled(&server, 1, 2);
}

/// V6: MTBF above 720 h and MTTR below 15 min are shown with a verdict, as metrics as well.
#[test]
fn mean_times_are_shown_with_a_verdict_and_why() {
    let (world, folder) = (World::new(), Arc::new(tempfile::tempdir().unwrap()));
    let server = world.start(&folder, config("mean-times"));
    let shown = server.get("/admin/slo").json();
    let mtbf = &shown["slo"]["mean_times"][0];
    assert_eq!((&mtbf["name"], &mtbf["target_seconds"]), (&json!("mtbf"), &json!(720 * 3_600)));
    assert_eq!(mtbf["verdict"], "not_yet_known");
    world.pass(Duration::from_secs(2_200 * 3_600));
    let shown = server.get("/admin/slo").json();
    let mtbf = &shown["slo"]["mean_times"][0];
    assert_eq!(mtbf["verdict"], "met", "{mtbf:#}");
    assert_eq!(mtbf["why"], "no failure in 2200 h: the mean is at least 734 h");
    let metrics = server.get("/metrics").body;
    for sample in [
        "mainstay_mean_time_seconds{mean_time=\"mtbf\",figure=\"objective\"} 2592000.0",
        "mainstay_mean_time_seconds{mean_time=\"mttr\",figure=\"objective\"} 900.0",
        "mainstay_mean_time_verdict{mean_time=\"mtbf\",verdict=\"missed\"} ",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in\n{metrics}");
    }
    drop(server);
    let mut without = config("mean-times");
    without.operations.slo.mean_times.mtbf_min_ms = 0;
    without.operations.slo.mean_times.mttr_max_ms = 0;
    let server = world.start(&folder, without);
    assert_eq!(server.get("/admin/slo").json()["slo"]["mean_times"], json!([]));
}
