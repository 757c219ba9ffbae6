use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mainstay_server::Config;
use serde_json::json;

use crate::Running;

#[test]
fn every_malformed_body_is_a_problem_with_a_clear_detail() {
    let server = Running::start();
    for (body, kind, status) in [
        (&b"{"[..], "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{\"query\": 7}", "application/json", 400),
        (b"{\"query\": \"x\", \"querry\": 1}", "application/json", 400),
        (b"{\"query\": \"x\", \"limit\": -1}", "application/json", 400),
        (b"{\"query\": \"x\", \"limit\": 100000}", "application/json", 400),
        (b"{\"query\": \"x\", \"timeout_ms\": 0}", "application/json", 400),
        (b"{\"query\": \"x\", \"weights\": [0, 0, 0, 0]}", "application/json", 400),
        (b"{\"query\": \"\xff\"}", "application/json", 400),
        (b"query=x", "application/x-www-form-urlencoded", 415),
    ] {
        let answer = server.send("POST", "/search", kind, body);
        assert_eq!(answer.status, status, "{}: {}", String::from_utf8_lossy(body), answer.body);
        answer.problem();
    }
}

#[test]
fn a_query_of_ten_megabytes_is_refused_with_its_bound() {
    let server = Running::start();
    let answer = server.post("/search", &json!({"query": "x".repeat(10 << 20)}));
    assert_eq!(answer.status, 400);
    assert!(answer.json()["detail"].as_str().unwrap().contains("16384"));
}

#[test]
fn a_body_beyond_its_bound_is_refused() {
    let server = Running::start_with(Config { body_bytes_max: 1000, ..Config::default() });
    let answer = server.post("/search", &json!({"query": "x".repeat(2000)}));
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
}

#[test]
fn unknown_paths_and_methods_are_problems_too() {
    let server = Running::start();
    assert_eq!(server.get("/nowhere").problem(), "route_not_found");
    assert_eq!(server.get("/search").problem(), "method_not_allowed");
    assert_eq!(server.get("/collections/default/documents?limit=0").problem(), "bad_request");
    assert_eq!(server.get("/collections/default/documents?limt=1").problem(), "bad_request");
}

#[test]
fn a_document_that_breaks_its_bounds_is_told_every_fault() {
    let server = Running::start();
    let document = json!({"id": "1", "tags": [""], "attributes": {"at": {"date": "tomorrow"}}});
    let answer = server.put("/collections/default/documents/1", &document);
    assert_eq!(answer.status, 400);
    assert!(answer.json()["detail"].as_str().unwrap().contains("tomorrow"));
    let document = json!({"id": "1", "title": "x".repeat(5000), "tags": [""]});
    let answer = server.put("/collections/default/documents/1", &document);
    assert_eq!(answer.problem(), "invalid_document");
    assert_eq!(answer.json()["errors"].as_array().unwrap().len(), 2);
}

#[test]
fn a_client_that_never_finishes_its_headers_is_given_up() {
    let server = Running::start_with(Config {
        header_timeout: Duration::from_millis(200),
        ..Config::default()
    });
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"POST /search HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut rest = Vec::new();
    // The server closes; waiting for ever would fail by the read timeout.
    stream.read_to_end(&mut rest).unwrap();
}
