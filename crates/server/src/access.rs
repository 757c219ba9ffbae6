//! [`Access`]: whether requests need a key, and the keys.

use std::net::IpAddr;
use std::time::Duration;

use mainstay_ops::keys::Keys;
use mainstay_resilience::{Algorithm, KeyedConfig, KeyedRateLimiter, RateConfig};

use crate::caller::owner_of;
use crate::config::{AuthMode, Config};

/// Wrong keys that one address may present: thirty at once, then one every five seconds.
const GUESSES: (u32, Duration) = (30, Duration::from_secs(150));

/// How a server lets requests in.
pub(crate) struct Access {
    /// The keys.
    pub(crate) keys: Keys,
    /// Whether a key is needed even while there is none: so it is told, or strangers can reach the
    /// server. The last key may go, here or on another node, and must not open the door.
    pub(crate) always: bool,
    /// Whether keys are not looked at.
    pub(crate) never: bool,
    /// Whether metrics are open to everybody.
    pub(crate) metrics_open: bool,
    /// Slows down who presents wrong keys.
    guesses: KeyedRateLimiter,
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
            always: config.auth == AuthMode::Always || !loopback,
            never: config.auth == AuthMode::Never,
            metrics_open: config.metrics_open.unwrap_or(loopback),
            guesses: guesses.map_err(std::io::Error::other)?,
        })
    }

    /// Counts a wrong key; the error says how long whoever has the address must wait.
    pub(crate) fn guessed(&self, peer: IpAddr) -> Result<(), Duration> {
        let guess = self.guesses.try_acquire(&owner_of(peer), 1);
        guess.map(drop).map_err(|refused| refused.retry_after().unwrap_or(Duration::from_secs(1)))
    }

    /// Whether a request needs a key.
    pub(crate) fn requires_keys(&self) -> bool {
        !self.never && (self.always || !self.keys.is_empty())
    }

    /// Whether the only key may be revoked: without one everybody comes in who can reach the server,
    /// which is the machine itself.
    pub(crate) fn may_be_without_keys(&self) -> bool {
        self.never || !self.always
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use mainstay_ops::audit::Audit;
    use mainstay_ops::keys::{NewKey, Scope};
    use mainstay_ops::store::MemoryStore;
    use mainstay_ops::wall_clock::WallClock;

    use super::*;

    /// C5: whoever has one address of IPv6 has a whole network of them to guess from.
    #[test]
    fn guesses_are_counted_by_who_has_the_address() {
        let wall = WallClock::system();
        let keys = Keys::open(Arc::new(MemoryStore::new()), wall.clone(), Audit::new(wall, None));
        let access = Access::new(&Config::default(), keys.unwrap()).unwrap();
        let from = |last: u32| format!("2001:db8:1:2::{last:x}").parse().unwrap();
        assert!((0..GUESSES.0).all(|last| access.guessed(from(last)).is_ok()));
        assert!(access.guessed(from(0xffff)).is_err());
        for other in ["2001:db8:1:3::1", "192.0.2.7", "::ffff:192.0.2.8"] {
            assert!(access.guessed(other.parse().unwrap()).is_ok(), "{other}");
        }
    }

    /// C5: another node may have emptied the keys that nodes share.
    #[test]
    fn keys_that_are_gone_open_the_door_to_the_machine_itself_alone() {
        for (listen, auth, open) in [
            ("127.0.0.1:0", AuthMode::Auto, true),
            ("0.0.0.0:0", AuthMode::Auto, false),
            ("[::]:0", AuthMode::Auto, false),
            ("127.0.0.1:0", AuthMode::Always, false),
            ("0.0.0.0:0", AuthMode::Never, true),
        ] {
            let (store, wall) = (Arc::new(MemoryStore::new()), WallClock::system());
            let keys =
                || Keys::open(store.clone(), wall.clone(), Audit::new(wall.clone(), None)).unwrap();
            let scopes = vec![Scope::Admin];
            let new = NewKey { name: "root".into(), scopes, ..NewKey::default() };
            let id = keys().create(&new, "ada").unwrap().id;
            let config = Config { listen: listen.parse().unwrap(), auth, ..Config::default() };
            let access = Access::new(&config, keys()).unwrap();
            assert_eq!(access.requires_keys(), auth != AuthMode::Never, "{listen} {auth:?}");
            keys().revoke(&id, true, "another node").unwrap();
            assert!(access.keys.refresh().unwrap() && access.keys.is_empty());
            assert_eq!(!access.requires_keys(), open, "{listen} {auth:?}");
            assert_eq!(access.may_be_without_keys(), open, "{listen} {auth:?}");
        }
    }
}
