//! [`Config`]: how a server runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mainstay_ops::admission::{AdmissionConfig, RedisConfig};

use crate::operations::OperationsConfig;

/// Rates that several nodes share.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedRates {
    /// Where they are kept.
    pub redis: RedisConfig,
    /// How many nodes share them.
    pub nodes: u32,
}

/// How a server runs. `Config::default()` listens on loopback alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The address and port; port 0 takes a free one. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Which requests are begun: rates, how many at a time, how many wait.
    pub admission: AdmissionConfig,
    /// The Redis that several nodes share their rates through. Default none.
    pub shared_rates: Option<SharedRates>,
    /// Connections that are open at a time; 16 more serve control calls alone, further ones wait in the
    /// system's queue. Default 4096.
    pub connections_max: usize,
    /// The longest body of a request that is read whole, in bytes. Streams of NDJSON may be longer:
    /// each of their lines is bounded instead. Control calls have 1 MiB at most. Default 64 MiB.
    pub body_bytes_max: usize,
    /// The time in which a request's headers must arrive. Default 10 s.
    pub header_timeout: Duration,
    /// The longest pause between two pieces of a request's body; and the time after which 1 KiB must
    /// have arrived for each second of waiting. Default 30 s.
    pub body_timeout: Duration,
    /// How long connections are still accepted at shutdown while readiness is false already. Default
    /// 0: for servers behind a load balancer, the time in which it asks a few times.
    pub drain_delay: Duration,
    /// The time that running requests get at shutdown. Default 25 s: with closing the data
    /// directory it stays within the 30 s that orchestrators grant.
    pub drain_timeout: Duration,
    /// Answers that are kept for when there is no better one. Default 1000.
    pub answers_max: u32,
    /// How old such an answer may be; zero gives none. Default 5 minutes.
    pub answers_stale_for: Duration,
    /// Whether requests need an API key. Default auto.
    pub auth: AuthMode,
    /// Whether everybody may read the metrics; `None`: where only the machine itself can reach the
    /// server.
    pub metrics_open: Option<bool>,
    /// Searches that take longer are logged with their plan; zero for none. Default 1 s.
    pub slow_search: Duration,
    /// How many characters of a slow search's text are logged. Default 0: its length alone.
    pub slow_search_text_chars: usize,
    /// How the server watches itself.
    pub operations: OperationsConfig,
}

/// Whether requests need an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Once there is one; without one the server must not be reachable from outside the machine.
    Auto,
    /// Even while there is none.
    Always,
    /// Keys are not looked at.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admission: AdmissionConfig::default(),
            shared_rates: None,
            connections_max: 4096,
            body_bytes_max: 64 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(25),
            answers_max: 1000,
            answers_stale_for: Duration::from_secs(300),
            auth: AuthMode::Auto,
            metrics_open: None,
            operations: OperationsConfig::default(),
            slow_search: Duration::from_secs(1),
            slow_search_text_chars: 0,
        }
    }
}
