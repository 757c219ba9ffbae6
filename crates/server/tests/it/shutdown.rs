use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mainstay_db::{InjectedFault, Method};
use mainstay_resilience::FaultPoint;
use mainstay_server::Config;

use crate::Running;

/// Long enough to be asked in on a busy machine.
const DELAY: Duration = Duration::from_secs(5);

/// Its own searches would meet the faults as well.
fn without_probes(mut config: Config) -> Running {
    config.operations.probe_every = Duration::ZERO;
    config.operations.idle_probe_every = Duration::ZERO;
    Running::start_with(config)
}

/// A search that runs until its fault is cleared, on a connection that would be kept.
fn hanging_search(server: &Running) -> (TcpStream, FaultPoint) {
    server.break_method(Method::Bm25, InjectedFault::Hang);
    let docs = server.db.collection("default").unwrap();
    let faults = docs.dependency(Method::Bm25).faults().clone();
    let body = br#"{"query": "x", "timeout_ms": 20000}"#;
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    while faults.struck() == 0 {
        std::thread::yield_now();
    }
    (stream, faults)
}

/// O6: a request that runs when the server is told to stop gets its answer.
#[test]
fn a_running_request_is_answered_before_the_server_ends() {
    let mut server = without_probes(Config::default());
    let (mut stream, faults) = hanging_search(&server);
    let release = std::thread::spawn(move || faults.clear());
    assert!(server.stop(), "drained in time");
    release.join().unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// O6: a load balancer that asks on a new connection hears that it is not ready before the door
/// closes, and nobody is sent away meanwhile.
#[test]
fn o6_new_connections_hear_that_it_is_not_ready_while_running_requests_are_answered() {
    let mut server = without_probes(Config { drain_delay: DELAY, ..Config::default() });
    let (mut running, faults) = hanging_search(&server);
    assert_eq!(server.get("/health/ready").status, 200);
    server.begin_stop();
    let ready = loop {
        let ready = server.get("/health/ready");
        if ready.status != 200 {
            break ready;
        }
    };
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert!(ready.body.contains("shutting down"), "{}", ready.body);
    assert_eq!(server.get("/health/live").status, 200);
    let late = server.get("/collections");
    assert_eq!((late.status, late.header("connection")), (200, "close"));
    faults.clear();
    let mut answer = String::new();
    running.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(server.stop(), "drained in time");
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn a_stopped_server_takes_no_connections() {
    let mut server = Running::start();
    assert!(server.stop());
    assert!(TcpStream::connect(server.address).is_err());
}
