//! C5: requests that two servers could read differently are refused, and their connection is closed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Running;

/// Sends bytes and reads until the server closes the connection or this long nothing comes.
fn send(server: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The server may close while we are still sending.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

#[test]
fn a_request_with_two_lengths_never_becomes_two_requests() {
    let server = Running::start();
    let hidden = "GET /admin/level HTTP/1.1\r\nHost: x\r\n\r\n";
    let search = "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for (name, request) in [
        (
            "two lengths",
            format!("{search}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{{}}{hidden}"),
        ),
        ("a list of lengths", format!("{search}Content-Length: 5, 6\r\n\r\n{{}}{hidden}")),
        ("a negative length", format!("{search}Content-Length: -1\r\n\r\n{hidden}")),
        ("a length with a sign", format!("{search}Content-Length: +2\r\n\r\n{{}}{hidden}")),
        ("an enormous length", format!("{search}Content-Length: 99999999999999999999\r\n\r\n{{}}")),
        (
            "an unknown coding",
            format!("{search}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a bad chunk size",
            format!("{search}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "an enormous chunk",
            format!("{search}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{{}}"),
        ),
        (
            "a folded header",
            format!("GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n{hidden}"),
        ),
        ("a space before the colon", format!("{search}Content-Length : 2\r\n\r\n{{}}{hidden}")),
        (
            "a NUL in a header",
            format!("GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n{hidden}"),
        ),
        (
            "a bare line feed in a header",
            format!("GET /health/live HTTP/1.1\r\nHost: x\nX-A: b\r\n\r{hidden}"),
        ),
        ("no request at all", "\x16\x03\x01\x02\x00\x01".to_string()),
    ] {
        let answer = send(&server, request.as_bytes());
        assert!(answers(&answer) <= 1, "{name}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 2"), "{name}: {answer}");
        assert_eq!(server.get("/health/live").status, 200, "after {name}");
    }
}

#[test]
fn both_lengths_at_once_close_the_connection() {
    let server = Running::start();
    let hidden = "GET /admin/level HTTP/1.1\r\nHost: x\r\n\r\n";
    let (length, chunked) = ("Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n");
    for (first, second) in [(length, chunked), (chunked, length)] {
        let request = format!(
            "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{first}{second}\r\n\
             d\r\n{{\"query\":\"x\"}}\r\n0\r\n\r\n{hidden}"
        );
        let answer = send(&server, request.as_bytes());
        // RFC 9112, 6.1: chunked counts, and nothing behind it may be believed.
        assert_eq!(answers(&answer), 1, "{first}{second}: {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[test]
fn headers_beyond_their_bounds_are_refused() {
    let server = Running::start();
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X-A: {}\r\n", "y".repeat(1 << 20));
    let path = "a".repeat(1 << 17);
    for request in [
        format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{long}\r\n"),
        format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        let answer = send(&server, request.as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer:.300}");
        assert_eq!(server.get("/health/live").status, 200);
    }
}
