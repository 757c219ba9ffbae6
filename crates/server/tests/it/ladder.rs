//! The ladder of levels end to end (D4): each signal moves a real server, which says so on its
//! answers, in its metrics and in its log, and comes back by itself after a while.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_db::{InjectedFault, Method, Options};
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_ops::wall_clock::parse_rfc3339;
use mainstay_server::Config;
use mainstay_server::admission::{AdmissionConfig, Class, Floor, LineConfig};
use serde_json::{Value, json};

use crate::admission::begin_search;
use crate::incidents::{World, config, opened};
use crate::operations::{search, until};
use crate::{Running, telemetry};

/// Lets time pass, a step for each look, until the server stands at this level; what it shows then.
pub(crate) fn at_level(world: &World, server: &Running, level: &str, step: Duration) -> Value {
    until(
        || {
            world.pass(step);
            server.get("/admin/level").json()
        },
        |shown| shown["standing"]["level"] == level,
    )
}

/// How often any server of this process has gone there for this reason.
fn moves(server: &Running, to: &str, cause: &str) -> u64 {
    let name = format!("mainstay_level_transitions_total{{to=\"{to}\",cause=\"{cause}\"}} ");
    let metrics = server.get("/metrics").body;
    let found = metrics.lines().find_map(|line| line.strip_prefix(&name));
    found.map_or(0, |count| count.parse().unwrap())
}

/// The server has gone to `degraded` by itself: it says so everywhere, with a reason that begins so.
fn says_so(world: &World, server: &Running, from: &str, reason: &str) {
    let shown = at_level(world, server, "degraded", Duration::from_millis(250));
    assert_eq!(shown["standing"]["from"], from, "{shown:#}");
    let answer = server.get("/collections");
    assert_eq!(answer.header("x-mainstay-level"), "degraded");
    let said = answer.header("x-mainstay-level-reason");
    assert!(said.starts_with(reason), "{said}");
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains(&format!("mainstay_level_reason{{reason=\"{from}\"}} ")), "{metrics}");
    let logged = telemetry::lines().into_iter().any(|line| {
        let of = |field: &str| line["fields"][field].as_str().unwrap_or_default().to_string();
        line["message"] == "level changed"
            && of("to") == "degraded"
            && of("reason").starts_with(reason)
    });
    assert!(logged, "no line says that the level changed because {reason}");
    let events = crate::operations::audited(server, "level.change");
    let why = events[0]["why"].as_str().unwrap();
    assert!(why.starts_with(reason), "{why}");
}

/// What lowered the level is over: it goes back, and not before half a minute has passed.
fn comes_back(world: &World, server: &Running) {
    let shown = at_level(world, server, "full", Duration::from_secs(5));
    let answer = server.get("/collections");
    assert_eq!(answer.header("x-mainstay-level"), "full");
    assert_eq!(answer.header("x-mainstay-level-reason"), "");
    let history = shown["history"].as_array().unwrap();
    let causes: Vec<_> = history.iter().map(|it| it["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["recovery", "signal"], "{shown:#}");
    let at = |n: usize| parse_rfc3339(history[n]["time"].as_str().unwrap()).unwrap();
    assert!(at(0) - at(1) >= 30_000, "{shown:#}");
}

/// D4: requests that wait.
#[test]
fn d4_the_age_of_the_queue_lowers_the_level_until_it_is_short_again() {
    telemetry::log();
    let (world, folder) = (World::new(), Arc::new(tempfile::tempdir().unwrap()));
    let minute = Duration::from_secs(60);
    let mut config = Config {
        admission: AdmissionConfig {
            law: None,
            searches_max: 1,
            line: LineConfig { length: 4, timeout: minute, target: minute },
            ..AdmissionConfig::default()
        },
        ..config("queue-age")
    };
    // How long they wait is real time; however long, it is one rung.
    config.operations.levels.queue_minimal_ms = 0;
    let server = world.start(&folder, config);
    let before = (moves(&server, "degraded", "signal"), moves(&server, "full", "recovery"));
    server.break_method(Method::Bm25, InjectedFault::Hang);
    let (running, waiting) = (begin_search(&server), begin_search(&server));
    says_so(&world, &server, "queue", "requests wait for ");
    server.mend_method(Method::Bm25);
    for stream in [running, waiting] {
        assert!(crate::admission::status_of(stream).contains(" 200 "));
    }
    comes_back(&world, &server);
    assert!(moves(&server, "degraded", "signal") > before.0);
    assert!(moves(&server, "full", "recovery") > before.1);
}

/// D4, V6: a budget that burns, and the minutes until its windows are clean.
#[test]
fn d4_an_error_budget_that_burns_lowers_the_level_until_it_stops() {
    telemetry::log();
    let (world, folder) = (World::new(), Arc::new(tempfile::tempdir().unwrap()));
    let server = world.start(&folder, config("burning-budget"));
    // Turned away by hand, so that no breaker opens: the budget alone speaks.
    server.control().admission().admit_from(Floor::Hand, Class::Control);
    for _ in 0..12 {
        assert_eq!(server.post("/search", &json!({"query": "x"})).status, 503);
    }
    says_so(&world, &server, "budget", "error budget burns: burning-budget");
    server.control().admission().admit_from(Floor::Hand, Class::Batch);
    assert_eq!(search(&server)["level"], "degraded", "what has burnt stays in its windows");
    comes_back(&world, &server);
}

/// A machine whose process uses this many bytes.
pub(crate) fn uses(kernel: &Path, bytes: u64) {
    let kib = bytes >> 10;
    let status = format!("VmRSS:\t{kib} kB\nRssAnon:\t{kib} kB\nRssShmem:\t0 kB\n");
    // Renamed into place: a guard that reads in between must not see half of it.
    let made = kernel.join("status.new");
    fs::write(&made, status).unwrap();
    fs::rename(made, kernel.join("proc/self/status")).unwrap();
}

/// D4, O2: memory that gets short.
#[test]
fn d4_the_step_of_memory_lowers_the_level_until_there_is_room() {
    telemetry::log();
    let (world, folder) = (World::new(), Arc::new(tempfile::tempdir().unwrap()));
    let kernel = tempfile::tempdir().unwrap();
    fs::create_dir_all(kernel.path().join("proc/self")).unwrap();
    uses(kernel.path(), 10 << 20);
    let mut config = config("memory-step");
    config.operations.memory.limit_bytes = 100 << 20;
    let host = mainstay_server::Host { kernel: KernelFiles::at(kernel.path()), ..world.host() };
    let db = opened(&host, folder.path(), &Options::default());
    db.create_collection("default", "static".parse().unwrap()).unwrap();
    let server = Running::start_over(Arc::clone(&folder), db, host, config, |_| {});
    assert_eq!(server.get("/admin/level").json()["standing"]["level"], "full");
    uses(kernel.path(), 81 << 20);
    says_so(&world, &server, "memory", "memory is at step shrink");
    // D5: what was reclaimed is noted once, down and up.
    let noted = |wanted: &str| {
        let steps = || json!(crate::operations::audited(&server, "memory.step"));
        until(steps, |steps| steps[0]["after"] == wanted).as_array().unwrap().len()
    };
    assert_eq!(noted("shrink"), 1);
    uses(kernel.path(), 10 << 20);
    comes_back(&world, &server);
    let steps = noted("normal");
    assert!((2..=3).contains(&steps), "{steps}: down, and up over a warning that may pass unseen");
}

/// D4: a collection that cannot be opened, until it is dropped.
#[test]
fn d4_health_lowers_the_level_until_it_is_well() {
    telemetry::log();
    let (world, folder) = (World::new(), Arc::new(tempfile::tempdir().unwrap()));
    let server = world.start(&folder, config("health"));
    assert_eq!(
        server.post("/collections", &json!({"name": "lost", "model": "static"})).status,
        201
    );
    drop(server);
    fs::write(folder.path().join("collections/lost/collection.json"), "{").unwrap();
    let server = world.start(&folder, config("health"));
    says_so(&world, &server, "health", "health is degraded");
    assert_eq!(server.delete("/collections/lost").status, 204);
    server.get("/health?fresh=true");
    comes_back(&world, &server);
}
