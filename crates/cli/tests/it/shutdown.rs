use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::server::{PATIENCE, Server};
use crate::text;

/// A request whose body does not arrive: it runs until somebody gives it up.
fn half_a_request(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    let head = "PUT /collections/default/documents/1 HTTP/1.1\r\nHost: x\r\n\
                Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn ready(server: &Server) -> i32 {
    server.mainstay(&["health"]).code
}

/// O6: without work in hand it ends in order, and says so.
#[test]
fn a_server_without_work_ends_in_order() {
    let data = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(data.path());
        assert_eq!(ready(&server), 0);
        server.signal(signal);
        assert_eq!(server.exit_code(), Some(0));
        assert!(server.wait_for("shutting down (SIG").contains("close done"));
        server.wait_for("everything is durable");
    }
}

/// O6: what does not end in time is cut off, and the exit code says so.
#[test]
fn requests_that_do_not_end_in_time_are_cut_off_with_an_exit_code_of_their_own() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(data.path(), &["--drain-s", "1"], &[]);
    let _request = half_a_request(&server);
    server.mainstay(&["level"]).ok();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(10));
    let progress = server.wait_for("shutting down (SIGTERM)");
    assert!(progress.contains("drain failed") && progress.contains("close done"), "{progress}");
}

/// O6: a second signal ends it at once.
#[test]
fn a_second_signal_cuts_it_short() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let _request = half_a_request(&server);
    server.mainstay(&["level"]).ok();
    server.signal("TERM");
    server.wait_for("running requests are finished first");
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(11));
    server.wait_for("the log holds everything that was acknowledged");
}

/// O6: the service manager hears of each state.
#[test]
fn the_service_manager_is_told_of_every_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = |wanted: &str| {
        let mut bytes = [0; 1024];
        loop {
            let length = socket.recv(&mut bytes).unwrap_or_else(|e| panic!("no {wanted}: {e}"));
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.contains(wanted) {
                return text;
            }
        }
    };
    let data = folder.path().join("data");
    let watchdog = Duration::from_secs(2).as_micros().to_string();
    let variables = [("NOTIFY_SOCKET", text(&path)), ("WATCHDOG_USEC", watchdog.as_str())];
    let mut server = Server::start_with(&data, &[], &variables);
    told("READY=1");
    told("WATCHDOG=1");
    server.signal("HUP");
    assert!(told("RELOADING=1").contains("MONOTONIC_USEC="));
    told("READY=1");
    server.signal("TERM");
    assert!(told("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    assert_eq!(server.exit_code(), Some(0));
}
