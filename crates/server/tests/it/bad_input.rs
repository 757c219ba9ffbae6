use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mainstay_server::Config;
use mainstay_server::admission::{Class, Floor};
use serde_json::json;

use crate::{Running, security};

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

/// Sends a search with one more header line as it is; the status of the answer, and its text.
fn searched_with(server: &Running, header: &[u8]) -> (u16, String) {
    let body = br#"{"query": "zebra"}"#;
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let begin = format!(
        "POST /search HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/json\r\n",
        body.len()
    );
    // What is refused in the middle of its headers may be closed before all of them are sent.
    let _ = stream.write_all(&[begin.as_bytes(), header, b"\r\n\r\n", body].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer to {}: {answer}", shown(header))), answer)
}

fn shown(header: &[u8]) -> String {
    String::from_utf8_lossy(&header[..header.len().min(60)]).into_owned()
}

/// More than all headers of a request may have, which is about 400 KiB.
const BEYOND_ANY_HEADER: usize = 1 << 20;

#[test]
fn a_malformed_priority_is_as_if_it_were_not_there() {
    let server = Running::start();
    // Batch is not begun, so what is answered was not taken for it.
    server.control().admission().admit_from(Floor::Hand, Class::Interactive);
    assert_eq!(searched_with(&server, b"Priority: u=7").0, 503, "well-formed and not urgent");
    let long = format!("Priority: u={}", "7".repeat(64 << 10));
    let beyond = format!("Priority: u={}", "7".repeat(BEYOND_ANY_HEADER));
    for (header, status) in [
        (&b"Priority: u=abc"[..], 200),
        (b"Priority: u=9", 200),
        (b"Priority: u=256", 200),
        (b"Priority: u=-1", 200),
        (b"Priority: u=", 200),
        (b"Priority: =;,,", 200),
        (b"Priority:", 200),
        (b"Priority: u=7\xff", 200),
        (b"Priority: \xf0\x9f\xa6\x93", 200),
        (long.as_bytes(), 200),
        (b"Priority: u=\x01", 400),
        (b"Priority: u=7\0", 400),
        (beyond.as_bytes(), 431),
    ] {
        let (found, answer) = searched_with(&server, header);
        assert_eq!(found, status, "{}: {answer}", shown(header));
    }
}

/// C5: what is no key lets nobody in and breaks nothing, whatever it is made of.
#[test]
fn a_malformed_key_is_answered_with_401() {
    let server = Running::start();
    let root = json!({"name": "root", "scopes": ["admin"]});
    let key = security::key_of(&security::create(&server, None, &root));
    let right = format!("X-API-Key: {key}");
    assert_eq!(searched_with(&server, right.as_bytes()).0, 200);
    let of_length = |bytes: usize| format!(" msk_{}", "m".repeat(bytes));
    let (long, beyond) = (of_length(64 << 10), of_length(BEYOND_ANY_HEADER));
    for name in ["Authorization: Bearer", "Authorization:", "X-API-Key:"] {
        for (value, status) in [
            (&b""[..], 401),
            (b" ", 401),
            (b" msk_", 401),
            (b" msk_a_b_c_d", 401),
            (b" \xff\xfe", 401),
            (b" msk_\xf0\x9f\xa6\x93_x", 401),
            (long.as_bytes(), 401),
            (b" msk_\x01", 400),
            (beyond.as_bytes(), 431),
        ] {
            let header = [name.as_bytes(), value].concat();
            let (found, answer) = searched_with(&server, &header);
            assert_eq!(found, status, "{}: {answer:.900}", shown(&header));
            let problem = answer.contains("\"code\":\"unauthorised\"");
            let challenge = answer.contains("www-authenticate: Bearer");
            assert_eq!((problem, challenge), (status == 401, status == 401), "{answer:.900}");
        }
    }
    assert_eq!(searched_with(&server, right.as_bytes()).0, 200, "who has a key is served still");
}
