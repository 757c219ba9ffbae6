//! O4, R8 over HTTP: rates that nodes share through the Redis of `admission.redis_url`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use mainstay_server::settings::Settings;
use mainstay_testkit::redis::Redis;
use serde_json::{Value, json};

use crate::operations::until;
use crate::{Running, indexed};

/// Searches that all nodes together may begin in an hour.
const QUOTA: usize = 60;
/// What nodes may begin beyond it: a portion is charged a moment after it is spent.
const SLACK: usize = 8;

/// One of two nodes, as its settings say.
fn node(redis: &str) -> Running {
    let flags = [
        ("admission.nodes", "2".to_string()),
        ("admission.key_rates", format!("search = {QUOTA}/h sliding_window")),
        // Its own searches would be none of the caller's.
        ("slo.probe_every", "0s".to_string()),
    ];
    let environment = [("MAINSTAY_ADMISSION_REDIS_URL".to_string(), redis.to_string())];
    let flags = flags.map(|(name, value)| (name.to_string(), value));
    let server = Running::start_with(Settings::load(None, environment, &flags).unwrap().config());
    indexed(&server);
    server
}

/// Whether one more search is begun.
fn searches(server: &Running) -> bool {
    let answer = server.post("/search", &json!({"query": "zebra"}));
    match answer.status {
        200 => {
            assert_eq!(answer.json()["results"][0]["id"], "1", "{}", answer.body);
            true
        }
        _ => {
            assert_eq!(answer.problem(), "rate_limited", "{}", answer.body);
            assert_eq!(answer.json()["policy"], "search-per-key", "{}", answer.body);
            false
        }
    }
}

/// Searches until none was begun for as long as many portions take; how many were.
fn exhaust(server: &Running) -> usize {
    let (mut begun, mut last) = (0, Instant::now());
    while last.elapsed() < Duration::from_millis(500) {
        if searches(server) {
            (begun, last) = (begun + 1, Instant::now());
        }
    }
    begun
}

/// Searches until the node's quota is in the store's hands; how many were begun.
fn until_shared(server: &Running) -> usize {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut begun = 0;
    loop {
        begun += usize::from(searches(server));
        let shown = server.get("/admin/admission").json();
        let shared = shown["shared"].as_array().unwrap();
        if shared.iter().any(|quota| quota["away"] == false) {
            return begun;
        }
        assert!(Instant::now() < deadline, "{shown:#}");
    }
}

/// Redis among the dependencies.
fn redis_of(server: &Running) -> Option<Value> {
    let shown = server.get("/admin/dependencies").json();
    let all = shown["dependencies"].as_array().unwrap().clone();
    all.into_iter().find(|it| it["name"].as_str().unwrap().starts_with("redis"))
}

fn is_well(server: &Running) {
    for path in ["/health", "/health/live", "/health/ready", "/collections/default/documents"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}

#[test]
fn o4_r8_two_servers_on_one_redis_begin_the_common_quota_together() {
    let redis = Redis::start();
    let (one, other) = (node(&redis.url()), node(&redis.url()));
    let before = until_shared(&one);
    // More than its half: what the other does not use is not lost.
    let first = before + exhaust(&one);
    assert!((QUOTA - SLACK..=QUOTA + before + SLACK).contains(&first), "{first} ({before})");
    let second = exhaust(&other);
    assert!(second <= SLACK, "the quota was spent already: {first} and {second}");
    for node in [&one, &other] {
        let redis = redis_of(node).unwrap();
        assert!(redis["calls"].as_u64() > Some(0) && redis["failures"] == 0, "{redis:#}");
        is_well(node);
    }
}

#[test]
fn o4_r8_with_garbage_instead_of_redis_each_server_goes_on_with_its_share() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n");
        }
    });
    let server = node(&format!("redis://127.0.0.1:{port}/0"));
    let begun = exhaust(&server);
    assert!((QUOTA / 2..=QUOTA / 2 + SLACK).contains(&begun), "{begun} of {QUOTA} for two nodes");
    let deadline = Instant::now() + Duration::from_secs(20);
    while redis_of(&server).is_none_or(|redis| redis["failures"] == 0) {
        assert!(Instant::now() < deadline, "it was never asked: {:#?}", redis_of(&server));
        searches(&server);
    }
    is_well(&server);
    let health = server.get("/health?fresh=true").json();
    let checks = health["checks"].as_object().unwrap();
    assert!(checks.keys().any(|name| name.starts_with("redis")), "{health:#}");
}

/// V1: a Redis that nobody has asked for a portion is probed, and the check says what was found; one
/// that is not there is no reason not to serve.
#[test]
fn v1_redis_is_probed_although_nobody_searches() {
    let redis = Redis::start();
    let there = node(&redis.url());
    let check = |server: &Running| {
        server.get("/health?fresh=true").json()["checks"]["redis:responseTime"][0].clone()
    };
    until(|| check(&there), |check| check["state"] == "healthy");
    let shown = redis_of(&there).unwrap();
    assert!(shown["calls"].as_u64() > Some(0) && shown["failures"] == 0, "{shown:#}");
    let gone = node("redis://127.0.0.1:1/0");
    let found = until(|| check(&gone), |check| check["state"] == "degraded");
    assert!(found["output"].as_str().unwrap().contains("probe"), "{found:#}");
    is_well(&gone);
    assert_eq!(gone.get("/health").json()["state"], "healthy", "searches need no Redis");
}
