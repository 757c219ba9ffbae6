use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mainstay_db::{InjectedFault, Method};
use mainstay_server::Config;

use crate::Running;

/// O6: a request that runs when the server is told to stop gets its answer.
#[test]
fn a_running_request_is_answered_before_the_server_ends() {
    // Its own searches would meet the fault as well.
    let mut config = Config::default();
    config.operations.probe_every = Duration::ZERO;
    let mut server = Running::start_with(config);
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
    let release = std::thread::spawn(move || faults.clear());
    assert!(server.stop(), "drained in time");
    release.join().unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_stopped_server_takes_no_connections() {
    let mut server = Running::start();
    assert!(server.stop());
    assert!(TcpStream::connect(server.address).is_err());
}
