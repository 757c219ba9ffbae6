//! [`Config`]: how a server runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How a server runs. `Config::default()` listens on loopback alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The address and port; port 0 takes a free one. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Searches and reads that run at a time; more are told to come again. Default 128.
    pub searches_max: usize,
    /// Writes that run at a time; more are told to come again. Default 64.
    pub writes_max: usize,
    /// Connections that are open at a time; more wait in the system's queue. Default 4096.
    pub connections_max: usize,
    /// The longest body of a request that is read whole, in bytes. Streams of NDJSON may be longer:
    /// each of their lines is bounded instead. Default 64 MiB.
    pub body_bytes_max: usize,
    /// The time in which a request's headers must arrive. Default 10 s.
    pub header_timeout: Duration,
    /// The longest pause between two pieces of a request's body. Default 30 s.
    pub body_timeout: Duration,
    /// The time that running requests get at shutdown. Default 25 s: with closing the data
    /// directory it stays within the 30 s that orchestrators grant.
    pub drain_timeout: Duration,
    /// Searches that take longer are logged with their plan; zero for none. Default 1 s.
    pub slow_search: Duration,
    /// How many characters of a slow search's text are logged. Default 0: its length alone.
    pub slow_search_text_chars: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            searches_max: 128,
            writes_max: 64,
            connections_max: 4096,
            body_bytes_max: 64 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(25),
            slow_search: Duration::from_secs(1),
            slow_search_text_chars: 0,
        }
    }
}
