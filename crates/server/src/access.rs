//! [`Access`]: whether requests need a key, and the keys.

use std::time::Duration;

use mainstay_ops::keys::Keys;
use mainstay_resilience::{Algorithm, KeyedConfig, KeyedRateLimiter, RateConfig};

use crate::config::{AuthMode, Config};

/// Wrong keys that one address may present: thirty at once, then one every five seconds.
const GUESSES: (u32, Duration) = (30, Duration::from_secs(150));

/// How a server lets requests in.
pub(crate) struct Access {
    /// The keys.
    pub(crate) keys: Keys,
    /// Whether a key is needed even while there is none.
    pub(crate) always: bool,
    /// Whether keys are not looked at.
    pub(crate) never: bool,
    /// Whether metrics are open to everybody.
    pub(crate) metrics_open: bool,
    /// Slows down who presents wrong keys.
    pub(crate) guesses: KeyedRateLimiter,
}

impl Access {
    /// Refuses to open the door to a network by accident.
    pub(crate) fn new(config: &Config, keys: Keys) -> std::io::Result<Self> {
        let loopback = config.listen.ip().is_loopback();
        if config.auth == AuthMode::Auto && keys.is_empty() && !loopback {
            return Err(std::io::Error::other(format!(
                "{} can be reached from other machines and there is no API key; make one with \
             `mainstay keys create NAME --scope admin --data DIR`, or listen on 127.0.0.1, or let \
             everybody in with --set auth.mode=never",
                config.listen
            )));
        }
        let (count, period) = GUESSES;
        let rate = RateConfig::new(Algorithm::TokenBucket, count, period);
        let guesses = KeyedRateLimiter::new("wrong-keys", KeyedConfig::new(rate));
        Ok(Self {
            keys,
            always: config.auth == AuthMode::Always,
            never: config.auth == AuthMode::Never,
            metrics_open: config.metrics_open.unwrap_or(loopback),
            guesses: guesses.map_err(std::io::Error::other)?,
        })
    }

    /// Whether a request needs a key.
    pub(crate) fn requires_keys(&self) -> bool {
        !self.never && (self.always || !self.keys.is_empty())
    }
}
