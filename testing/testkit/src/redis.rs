//! [`Redis`]: a real Redis for tests, on loopback, ended with the value.
//!
//! Needs `redis-server` on the path.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The password of every server.
pub const PASSWORD: &str = "s3cret";

/// A server that keeps nothing on the disk.
pub struct Redis {
    child: Child,
    port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    /// A server on a free port.
    pub fn start() -> Redis {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        Redis::start_on(free.expect("a port is free").port())
    }

    /// A server on this port, as when one comes back.
    pub fn start_on(port: u16) -> Redis {
        let mut child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .args(["--bind", "127.0.0.1", "--requirepass", PASSWORD])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let mut log = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            let read = log.read_line(&mut line).expect("its log is text");
            assert!(read > 0, "redis-server ended at once");
        }
        // Whoever writes to a closed pipe ends, so the rest is read to the end.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Redis { child, port }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, with the password.
    pub fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/0", self.port)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Lets it hang: connections are accepted by the kernel and never answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }
}
