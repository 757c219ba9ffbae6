//! O4, O5 over HTTP: what is refused, how it is said, who is not touched by it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mainstay_db::{InjectedFault, Method};
use mainstay_ops::handles::HandleClass;
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_server::admission::{AdmissionConfig, Class, Floor, LineConfig, RateRule};
use mainstay_server::memory::{MemoryConfig, MemoryGuard};
use mainstay_server::settings::Settings;
use mainstay_server::{Clock, Config};
use serde_json::{Value, json};

use crate::{Running, agent};

fn limited(rates: &str, key_rates: &str) -> Running {
    Running::start_with(Config {
        admission: AdmissionConfig {
            rates: RateRule::parse_list(rates).unwrap(),
            key_rates: RateRule::parse_list(key_rates).unwrap(),
            ..AdmissionConfig::default()
        },
        ..Config::default()
    })
}

/// One search at a time, and so many waiting.
fn narrow(queue: u32) -> Running {
    let minute = Duration::from_secs(60);
    Running::start_with(Config {
        admission: AdmissionConfig {
            law: None,
            searches_max: 1,
            line: LineConfig { length: queue, timeout: minute, target: minute },
            ..AdmissionConfig::default()
        },
        ..Config::default()
    })
}

/// A search on a connection of its own, sent and not yet answered.
pub(crate) fn begin_search(server: &Running) -> TcpStream {
    let body = br#"{"query": "x", "methods": ["bm25"], "timeout_ms": 30000}"#;
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "POST /search HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    stream
}

pub(crate) fn status_of(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_string()
}

/// Waits until the gate of searches shows what it should; a control call, so it always answers.
fn until(server: &Running, holds: impl Fn(&Value) -> bool) {
    while !holds(&server.get("/admin/admission").json()["reads"]) {
        std::thread::yield_now();
    }
}

/// O4: a rule of one route, as the settings name it, leaves the other routes of its group alone.
#[test]
fn o4_a_rate_may_name_one_route() {
    let rates =
        ("admission.rates".to_string(), "search_collection = 1/h; get_document = 1/h".into());
    let config = Settings::load(None, [], &[rates]).unwrap().config();
    let server = Running::start_with(config);
    let query = json!({"query": "x"});
    let named = || server.post("/collections/default/search", &query);
    let first = named();
    assert_eq!(
        (first.status, first.header("ratelimit-policy")),
        (200, "\"search_collection\";q=1;w=3600")
    );
    let refused = named();
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rate_limited"));
    assert_eq!(refused.json()["policy"], "search_collection");
    let other = server.post("/search", &query);
    assert_eq!((other.status, other.header("ratelimit-policy")), (200, ""));
    // A route whose path ends in whatever the document is called.
    let document = || server.get("/collections/default/documents/a/b").status;
    assert_eq!((document(), document()), (404, 429));
    assert_eq!(server.get("/collections/default").status, 200);
}

#[test]
fn o4_beyond_its_rate_a_caller_gets_429_with_what_the_limit_is_and_when_to_come_again() {
    let server = limited("read = 1000/m sliding_window", "search = 2/m fixed_window; write = 1/h");
    let search = || server.post("/search", &json!({"query": "x"}));
    let first = search();
    assert_eq!(first.status, 200);
    assert_eq!(first.header("ratelimit-policy"), "\"search-per-key\";q=2;w=60");
    let left = first.header("ratelimit");
    assert!(left.starts_with("\"search-per-key\";r=1;t="), "{left}");
    assert_eq!(search().status, 200);
    let refused = search();
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rate_limited"));
    assert!(refused.header("ratelimit").contains("r=0"));
    let json = refused.json();
    assert_eq!((&json["policy"], &json["reason"]), (&json!("search-per-key"), &json!("key_rate")));
    let wait: u64 = refused.retry_after.as_ref().unwrap().parse().unwrap();
    let wait_ms = json["retry_after_ms"].as_u64().unwrap();
    assert!((1..=60).contains(&wait) && wait_ms <= wait * 1000, "{wait} s, {wait_ms} ms");

    let broken = server.send("POST", "/search", "application/json", b"{");
    assert_eq!(broken.status, 429, "refused before the body is read");
    let listed = server.get("/collections/default/documents");
    assert_eq!(listed.status, 200, "another group");
    assert!(listed.header("ratelimit").starts_with("\"read\";r="), "{:?}", listed.headers);
    assert!(server.get("/health").header("ratelimit").is_empty());

    let document = json!({"id": "1", "body": "x"});
    assert_eq!(server.put("/collections/default/documents/1", &document).status, 200);
    assert_eq!(server.put("/collections/default/documents/1", &document).status, 429);
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("mainstay_admission_refused_total{"), "{metrics}");
    assert!(metrics.contains("reason=\"key_rate\""));
}

#[test]
fn o4_without_limits_no_answer_speaks_of_any() {
    let server = Running::start();
    let answer = server.post("/search", &json!({"query": "x"}));
    assert_eq!((answer.status, answer.header("ratelimit-policy")), (200, ""));
}

#[test]
fn o4_a_search_is_charged_by_what_it_asks_for() {
    let server = limited("search = 10/h by cost", "");
    let left = |body: Value| {
        let answer = server.post("/search", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = answer.header("ratelimit").to_string();
        text.split("r=").nth(1).unwrap().split(';').next().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(left(json!({"query": "x", "methods": ["bm25"]})), 9);
    assert_eq!(left(json!({"query": "x", "methods": ["native"], "regex": true})), 6);
    assert_eq!(left(json!({"query": "x"})), 1, "four methods, one of them semantic");
}

/// O5, C2: what does not fit waits, what does not fit the queue is told so, control calls pass.
#[test]
fn o5_beyond_the_queue_callers_get_503_and_control_calls_pass() {
    let server = narrow(1);
    server.break_method(Method::Bm25, InjectedFault::Hang);
    let docs = server.db.collection("default").unwrap();
    let faults = docs.dependency(Method::Bm25).faults().clone();
    let running = begin_search(&server);
    until(&server, |reads| reads["in_use"] == 1);
    let waiting = begin_search(&server);
    until(&server, |reads| reads["waiting"] == 1);
    let refused = server.send("POST", "/search", "application/json", b"{");
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    assert_eq!(refused.json()["reason"], "queue_full");
    assert!(refused.retry_after.is_some());
    for path in ["/health/live", "/metrics", "/admin/level", "/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let verified = server.post("/admin/collections/default/verify", &json!({}));
    assert_eq!(verified.status, 200);
    faults.clear();
    assert!(status_of(running).contains(" 200 "));
    assert!(status_of(waiting).contains(" 200 "), "it had its turn");
    until(&server, |reads| reads["in_use"] == 0 && reads["waiting"] == 0);
}

#[test]
fn o5_a_client_that_goes_away_leaves_the_queue_and_shutdown_serves_the_rest() {
    let mut server = narrow(8);
    server.break_method(Method::Bm25, InjectedFault::Hang);
    let docs = server.db.collection("default").unwrap();
    let faults = docs.dependency(Method::Bm25).faults().clone();
    let running = begin_search(&server);
    until(&server, |reads| reads["in_use"] == 1);
    let (gone, stays) = (begin_search(&server), begin_search(&server));
    until(&server, |reads| reads["waiting"] == 2);
    drop(gone);
    until(&server, |reads| reads["waiting"] == 1);
    let release = std::thread::spawn(move || faults.clear());
    assert!(server.stop(), "drained in time");
    release.join().unwrap();
    assert!(status_of(running).contains(" 200 "));
    assert!(status_of(stays).contains(" 200 "));
}

#[test]
fn o5_what_is_below_the_floor_is_not_begun() {
    let server = Running::start();
    server.control().admission().admit_from(Floor::Hand, Class::Interactive);
    let line = b"{\"id\": \"1\", \"body\": \"x\"}\n";
    let path = "/collections/default/documents";
    let stream = server.send("PUT", path, "application/x-ndjson", line);
    assert_eq!((stream.status, stream.json()["reason"].clone()), (503, json!("priority")));
    let search = agent().post(server.url("/search")).header("priority", "u=7");
    let search = crate::Answer::of(search.send_json(json!({"query": "x"})));
    assert_eq!(search.json()["reason"], "priority");
    assert_eq!(server.post("/search", &json!({"query": "x"})).status, 200);
    server.control().admission().admit_from(Floor::Hand, Class::Control);
    assert_eq!(server.post("/search", &json!({"query": "x"})).status, 503);
    assert_eq!(server.get("/admin/admission").json()["admits_from"], "control");
    server.control().admission().admit_from(Floor::Hand, Class::Batch);
    assert_eq!(server.send("PUT", path, "application/x-ndjson", line).status, 200);
}

#[test]
fn o5_writers_see_how_full_the_way_is() {
    let server = Running::start();
    let written = server.put("/collections/default/documents/1", &json!({"body": "x"}));
    assert_eq!(written.status, 200);
    let queue = written.header("x-mainstay-write-queue");
    assert_eq!(queue, "waiting=0, waiting-max=512, log-bytes=0, log-bytes-max=67108864");
    assert!(server.get("/metrics").body.contains("mainstay_log_queue_bytes{"));
}

/// O2: a body that would not fit is refused by what its sender declares.
#[test]
fn o2_a_body_whose_memory_is_not_there_is_refused_before_it_is_read() {
    let server = Running::start_with(Config { body_bytes_max: 1 << 30, ..Config::default() });
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "PUT /collections/default/documents HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 900000000\r\n\r\n[",
    )
    .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\"reason\":\"memory\""), "{answer}");
}

/// A guard that sees a small machine with nothing in use.
fn small_memory(limit_bytes: u64) -> MemoryGuard {
    let kernel = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(kernel.path().join("proc/self")).unwrap();
    let status = "VmRSS:\t0 kB\nRssAnon:\t0 kB\nRssShmem:\t0 kB\n";
    std::fs::write(kernel.path().join("proc/self/status"), status).unwrap();
    let config = MemoryConfig { limit_bytes, ..MemoryConfig::default() };
    let files = KernelFiles::at(kernel.path());
    let guard = MemoryGuard::new(config, files, Clock::system(), None).unwrap();
    guard.tick();
    guard
}

/// Sends a request whose body may be refused in the middle; the answer.
fn send_raw(server: &Running, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "{head}\r\nHost: x\r\nConnection: close\r\n").unwrap();
    // The server may close while we are still sending.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// O2: a body whose length nobody declares counts as it arrives, read whole or in lines: it is
/// refused before its end, and everything is given back.
#[test]
fn o2_memory_is_reserved_as_an_undeclared_body_arrives_and_given_back() {
    let body_timeout = Duration::from_secs(10);
    let server = Running::start_with(Config { body_timeout, ..Config::default() });
    let guard = small_memory(32 << 20);
    server.control().admission().guard_memory(guard.budget());
    let put = "PUT /collections/default/documents HTTP/1.1\r\nTransfer-Encoding: chunked";
    let text = "x".repeat(12 << 20);
    for kind in ["application/json", "application/x-ndjson"] {
        let head = format!("{put}\r\nContent-Type: {kind}");
        // A chunk that does not end, of a body that does not end.
        let endless = format!("\r\n{:x}\r\n{{\"id\": \"1\", \"body\": \"{text}", 64 << 20);
        let answer = send_raw(&server, &head, endless.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 503"), "{kind}: {answer:.500}");
        assert!(answer.contains("\"reason\":\"memory\""), "{kind}: {answer}");
        until_given_back(&guard);
        let small = "\r\nb\r\n{\"id\": \"2\"}\r\n0\r\n\r\n";
        let answer = send_raw(&server, &head, small.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{kind}: {answer:.500}");
    }
    until_given_back(&guard);
    let shown = server.get("/admin/resources").json();
    assert_eq!(shown["memory"]["reserved_bytes"], 0, "{shown:#}");
}

/// An answer may be there a moment before its request's future is dropped.
fn until_given_back(guard: &MemoryGuard) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while guard.budget().reserved_bytes() > 0 {
        assert!(Instant::now() < deadline, "{} bytes", guard.budget().reserved_bytes());
        std::thread::yield_now();
    }
}

/// O2: the memory of a body is that of its write, too: nothing is counted twice, so that whoever was
/// let in with a body is not turned away when all of it has come.
#[test]
fn o2_a_write_whose_body_fits_is_stored() {
    let server = Running::start();
    // Room for five times the body: four copies are reserved, as in all of its life.
    let guard = small_memory(64 << 20);
    server.control().admission().guard_memory(guard.budget());
    let text = "x".repeat((64 << 20) * 85 / 100 / 5);
    let one = format!("{{\"id\": \"1\", \"body\": \"{text}\"}}");
    let json = "application/json";
    for (path, body) in [
        ("/collections/default/documents/1", one.clone()),
        ("/collections/default/documents", one.clone()),
        ("/collections/default/documents", format!("[{one}]")),
    ] {
        let answer = server.send("PUT", path, json, body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {:.500}", answer.body);
        until_given_back(&guard);
    }
}

/// O2: a long stream is written in parts and never holds more than one of them.
#[test]
fn o2_a_stream_longer_than_the_memory_is_written_in_parts() {
    let server = Running::start();
    let guard = small_memory(64 << 20);
    server.control().admission().guard_memory(guard.budget());
    let text = "x".repeat(100 << 10);
    let lines = (0..600).map(|id| format!("{{\"id\": \"{id}\", \"body\": \"{text}\"}}\n"));
    let body: String = lines.collect();
    let path = "/collections/default/documents";
    let answer = server.send("PUT", path, "application/x-ndjson", body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["stored"], 600);
    until_given_back(&guard);
}

/// O2: control calls pass the limits, so their bodies are short.
#[test]
fn o2_a_control_call_with_a_long_body_is_refused() {
    let server = Running::start();
    let body = format!("{{\"enabled\": true{}}}", " ".repeat(1 << 20));
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    let answer = send_raw(
        &server,
        "PUT /admin/flags/writes HTTP/1.1\r\nContent-Type: application/json",
        format!("{length}{body}").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:.500}");
    assert!(answer.contains("1048576"), "{answer}");
}

/// O2: a body that always sends one more byte before its pause is over does not hold its place.
#[test]
fn o2_a_body_that_trickles_is_given_up() {
    let body_timeout = Duration::from_millis(500);
    let server = Running::start_with(Config { body_timeout, ..Config::default() });
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(
        stream,
        "POST /search HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 200\r\n\r\n",
    )
    .unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut answer = String::new();
    for _ in 0..200 {
        // What is not answered in the read's timeout is gone on with.
        if stream.write_all(b"x").is_err() || stream.read_to_string(&mut answer).is_ok() {
            break;
        }
    }
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("bytes of the body arrived in a second"), "{answer}");
}

/// O5: clients that hold every connection keep nobody from asking how the server is.
#[test]
fn o5_with_every_connection_held_control_calls_pass_and_others_are_told() {
    let server = Running::start_with(Config { connections_max: 1, ..Config::default() });
    let slow = half_a_write(&server);
    let control = |path: &str| {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{path}");
    };
    for path in ["/health/live", "/health/ready", "/metrics", "/admin/resources"] {
        control(path);
    }
    let refused = server.post("/search", &json!({"query": "x"}));
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    assert_eq!(refused.header("connection"), "close");
    assert!(refused.retry_after.is_some());
    // Nor do more of them: those beyond the bound are given up soon.
    let more: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    control("/health/live");
    drop((slow, more));
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.post("/search", &json!({"query": "x"})).status != 200 {
        assert!(Instant::now() < deadline, "the place was not given back");
    }
}

/// O3: without a file handle for it a connection is told so, in the clear, and is served again once
/// there is one.
#[test]
fn o3_a_connection_without_a_handle_is_told_so_and_control_calls_pass() {
    let server = Running::start();
    let mut held = Vec::new();
    while let Ok(permit) = server.handles.try_acquire(HandleClass::Connections) {
        held.push(permit);
    }
    assert_eq!(server.get("/health/live").status, 200);
    let refused = server.post("/search", &json!({"query": "x"}));
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    // As many as may be without a handle: requests that are begun and do not end.
    let mut slow: Vec<TcpStream> = (0..16).map(|_| half_a_control_call(&server)).collect();
    let mut refused = server.get("/health/live");
    // One of them met a place that an earlier request had not given back yet.
    while refused.status == 200 && slow.len() < 20 {
        slow.push(half_a_control_call(&server));
        refused = server.get("/health/live");
    }
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    assert_eq!((refused.header("connection"), refused.header("retry-after")), ("close", "1"));
    let detail = refused.json()["detail"].as_str().unwrap().to_string();
    assert!(detail.contains("file handles for connections"), "{detail}");
    // Written by hand, and yet as every answer.
    assert_eq!(refused.header("x-mainstay-level"), "full");
    assert_eq!(refused.header("x-content-type-options"), "nosniff");
    for name in ["x-correlation-id", "traceparent", "content-security-policy"] {
        assert_ne!(refused.header(name), "", "{name}");
    }
    drop((held, slow));
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.post("/search", &json!({"query": "x"})).status != 200 {
        assert!(Instant::now() < deadline, "the handles were not given back");
    }
}

/// A write whose body does not come.
fn half_a_write(server: &Running) -> TcpStream {
    half(server, "PUT /collections/default/documents")
}

/// A control call whose body does not come.
fn half_a_control_call(server: &Running) -> TcpStream {
    half(server, "PUT /admin/flags/writes")
}

fn half(server: &Running, what: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!("{what} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    stream.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).unwrap();
    stream
}

/// C3: a thousand clients at once; each is answered or told to come again.
#[test]
fn c3_o5_a_thousand_clients_at_once_are_all_answered() {
    let server = Running::start_with(Config {
        admission: AdmissionConfig {
            line: LineConfig { length: 200, ..AdmissionConfig::default().line },
            ..AdmissionConfig::default()
        },
        ..Config::default()
    });
    let streams: Vec<TcpStream> = (0..1_000).map(|_| begin_search(&server)).collect();
    let statuses: Vec<String> = streams.into_iter().map(status_of).collect();
    let of = |status: &str| statuses.iter().filter(|line| line.contains(status)).count();
    let (ok, shed) = (of(" 200 "), of(" 503 "));
    assert_eq!(ok + shed, 1_000, "{statuses:?}");
    assert!(ok > 0);
    until(&server, |reads| reads["in_use"] == 0 && reads["waiting"] == 0);
}
