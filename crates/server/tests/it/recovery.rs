//! What was degraded becomes whole by itself: nobody searches, writes or resets anything, and the
//! server does not search itself. Active probes alone find out that it works again (B3, D4, D5).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mainstay_db::{Dependency, InjectedFault, Method, Options, Pipelines};
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_resilience::{BreakerConfig, OpenFor, PipelinesConfig, ServiceConfig};
use mainstay_server::{Config, Host};
use serde_json::{Value, json};

use crate::incidents::{World, config, opened};
use crate::ladder::{at_level, uses};
use crate::operations::{audited, until};
use crate::{Running, indexed};

/// An open period that is over before anybody looks.
const SHORT: Duration = Duration::from_millis(1);
const DIMENSION: usize = 16;

/// Nobody calls anything by itself but what a breaker holds open.
fn quiet(name: &str) -> Config {
    let mut config = config(name);
    config.operations.idle_probe_every = Duration::ZERO;
    config
}

/// With breakers, of methods and of providers, whose open period is short.
fn start(world: &World, host: Host, config: Config) -> Running {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut breaker = BreakerConfig::search_method();
    breaker.open_for = OpenFor::fixed(SHORT);
    let mut service = ServiceConfig::default();
    (service.all.breaker_open, service.all.attempts) = (Some(SHORT), Some(1));
    let mut pipelines = PipelinesConfig::default();
    pipelines.services.insert("embedding".to_string(), service);
    let pipelines: Pipelines = Options::pipelines(pipelines).unwrap();
    let options = Options { breaker, pipelines, ..Options::default() };
    let db = opened(&host, folder.path(), &options);
    db.create_collection("default", "static".parse().unwrap()).unwrap();
    world.pass(Duration::from_secs(1));
    Running::start_over(folder, db, host, config, |_| {})
}

/// A provider of embeddings on loopback.
fn provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that gave up is no failure of the provider.
            std::thread::spawn(move || drop(embed(stream)));
        }
    });
    url
}

fn embed(stream: TcpStream) -> std::io::Result<()> {
    let (mut answers, mut requests) = (stream.try_clone()?, BufReader::new(stream));
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body)?;
        let texts = body["input"].as_array().map_or(0, Vec::len);
        let vector = vec![0.5; DIMENSION];
        let data: Vec<Value> =
            (0..texts).map(|index| json!({"index": index, "embedding": vector})).collect();
        let answer = json!({ "data": data }).to_string();
        let length = answer.len();
        write!(answers, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}")?;
    }
}

/// The one provider of embeddings among the dependencies.
fn provider_of(server: &Running) -> Dependency {
    let all = server.db.pipelines().dependencies();
    all.into_iter().find(|it| it.name().starts_with("embedding/")).unwrap()
}

/// Nobody has mended it by hand.
fn by_itself(server: &Running) {
    assert_eq!(audited(server, "breaker.reset"), [] as [Value; 0]);
    for dependency in server.db.pipelines().dependencies() {
        assert_eq!(dependency.breaker().state().as_str(), "closed", "{}", dependency.name());
    }
}

/// B3, D4: the level spares a provider that is down, so no query would ever find out that it is back.
#[test]
fn d4_a_provider_that_is_back_raises_the_level_although_nobody_asks_it() {
    for fault in [InjectedFault::Error, InjectedFault::Hang] {
        let world = World::new();
        let server = start(&world, world.host(), quiet("provider-back"));
        let model = format!("remote:{},hashes,{DIMENSION}", provider());
        // Without documents there is nothing to refine, so that queries alone ask the provider.
        let made = server.post("/collections", &json!({"name": "far", "model": model}));
        assert_eq!(made.status, 201, "{}", made.body);
        let provider = provider_of(&server);
        provider.faults().set(fault, None);
        let mut number = 0;
        let shown = until(
            || {
                number += 1;
                let asked = json!({"query": format!("zebra {number}"), "timeout_ms": 300});
                assert_eq!(server.post("/collections/far/search", &asked).status, 200);
                world.pass(Duration::from_millis(250));
                server.get("/admin/level").json()
            },
            |shown| shown["standing"]["level"] == "degraded",
        );
        let reason = format!("breakers are open: {}", provider.name());
        assert_eq!(shown["standing"]["reason"], reason);
        provider.faults().clear();
        at_level(&world, &server, "full", Duration::from_secs(5));
        by_itself(&server);
    }
}

/// B3, D4: at the minimum one method alone is asked, so no search would ever find out that the others
/// work again.
#[test]
fn d4_methods_that_work_again_raise_the_level_from_the_minimum() {
    let world = World::new();
    let server = start(&world, world.host(), quiet("methods-back"));
    indexed(&server);
    let broken = [Method::Tantivy, Method::Native, Method::Semantic];
    broken.into_iter().for_each(|method| server.break_method(method, InjectedFault::Error));
    for _ in 0..5 {
        server.post("/search", &json!({"query": "zebra"}));
    }
    let shown = at_level(&world, &server, "minimal", Duration::from_millis(250));
    assert_eq!(shown["standing"]["from"], "breakers", "{shown:#}");
    broken.into_iter().for_each(|method| server.mend_method(method));
    at_level(&world, &server, "full", Duration::from_secs(5));
    by_itself(&server);
}

/// B4: what is forced open for a time ends with that time.
#[test]
fn b4_what_is_forced_open_for_a_time_closes_by_itself() {
    let world = World::new();
    let mut config = quiet("forced-open");
    config.operations.levels.worsen_after_ms = 0;
    let server = start(&world, world.host(), config);
    let path = "/admin/dependencies/default/tantivy";
    let forced = server.post(path, &json!({"action": "force-open", "for": "3s", "why": "a drill"}));
    assert_eq!(forced.json()["state"], "open", "{}", forced.body);
    at_level(&world, &server, "degraded", Duration::from_millis(250));
    at_level(&world, &server, "full", Duration::from_secs(5));
    by_itself(&server);
}

/// D4: whoever maintains the server may have taken away what it depends on; nothing is probed before
/// the maintenance is over.
#[test]
fn d4_nothing_is_probed_during_maintenance() {
    let world = World::new();
    let server = start(&world, world.host(), quiet("maintained"));
    let hold = json!({"level": "maintenance", "for": "1h", "why": "a drill"});
    assert_eq!(server.put("/admin/level", &hold).status, 200);
    let docs = server.db.collection("default").unwrap();
    let [one, other] = [Method::Tantivy, Method::Bm25].map(|method| docs.breaker(method));
    // The loop that notes openings turns as often as the one that probes: twice by then.
    for (breaker, noted) in [(one, 1), (other, 2)] {
        breaker.force_open_for(SHORT);
        until(|| json!(audited(&server, "breaker.change").len()), |events| events == &json!(noted));
    }
    assert_eq!([one, other].map(|breaker| breaker.state().as_str()), ["open"; 2]);
    assert_eq!(server.delete("/admin/level?why=over").status, 200);
    at_level(&world, &server, "full", Duration::from_secs(5));
    until(|| json!(one.state().as_str()), |state| state == "closed");
    until(|| json!(other.state().as_str()), |state| state == "closed");
}

/// O2, D5: memory is at its last step for longer than any open period. What embeds stays away until
/// there is room, and then all of it comes back, also what was half open when it began.
#[test]
fn o2_what_embeds_is_isolated_until_there_is_room_and_then_all_of_it_is_back() {
    let world = World::new();
    let kernel = tempfile::tempdir().unwrap();
    fs::create_dir_all(kernel.path().join("proc/self")).unwrap();
    uses(kernel.path(), 10 << 20);
    let mut config = config("emergency");
    config.operations.memory.limit_bytes = 100 << 20;
    config.operations.idle_probe_every = Duration::from_secs(1);
    let host = Host { kernel: KernelFiles::at(kernel.path()), ..world.host() };
    let server = start(&world, host, config);
    let model = format!("remote:{},hashes,{DIMENSION}", provider());
    let made = server.post("/collections", &json!({"name": "far", "model": model}));
    assert_eq!(made.status, 201, "{}", made.body);
    let (far, provider) = (server.db.collection("far").unwrap(), provider_of(&server));
    let docs = server.db.collection("default").unwrap();
    let embeds = [docs.dependency(Method::Semantic), far.dependency(Method::Semantic), &provider];
    // Somebody's call is under way as a probe, and takes its time.
    let half_open = embeds[1].breaker();
    half_open.force_open_for(SHORT);
    let held = loop {
        match half_open.try_acquire_owned() {
            Ok(permit) => break permit,
            Err(_) => std::thread::yield_now(),
        }
    };
    assert_eq!(half_open.state().as_str(), "half_open");
    uses(kernel.path(), 95 << 20);
    let isolated = || json!(embeds.map(|it| it.breaker().state().as_str()));
    until(
        || {
            world.pass(Duration::from_millis(250));
            isolated()
        },
        |states| states == &json!(vec!["isolated"; 3]),
    );
    let calls = || docs.dependency(Method::Bm25).figures().counts().0;
    let before = calls();
    until(
        || {
            world.pass(Duration::from_secs(10));
            assert_eq!(isolated(), json!(vec!["isolated"; 3]), "as long as there is no room");
            json!(calls())
        },
        |calls| calls.as_u64() >= Some(before + 3),
    );
    held.success();
    uses(kernel.path(), 10 << 20);
    until(
        || {
            world.pass(Duration::from_secs(1));
            isolated()
        },
        |states| states == &json!(vec!["closed"; 3]),
    );
    for (action, before, after) in
        [("breaker.isolate", "closed", "isolated"), ("breaker.reset", "isolated", "closed")]
    {
        let events = audited(&server, action);
        let of = |name: &str| events.iter().filter(|it| it["target"] == name).collect::<Vec<_>>();
        for dependency in embeds {
            let [event] = &of(dependency.name())[..] else { panic!("one {action}: {events:#?}") };
            assert_eq!((&event["who"], &event["after"]), (&json!("system"), &json!(after)));
            let was_half_open = action == "breaker.isolate" && dependency.name() == "far/semantic";
            let before = if was_half_open { "half_open" } else { before };
            assert_eq!(event["before"], before, "{event:#}");
        }
    }
}
