//! [`PoolConfig`]: how many connections there are and how long each is kept.

use std::time::Duration;

use mainstay_resilience::{ConfigError, human_duration};

const DAY: Duration = Duration::from_secs(86_400);

/// How connections to PostgreSQL are kept. SQLite has few of its own: more would only wait for each
/// other's locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections that are kept open even when nobody needs them, 0 to `connections_max`.
    /// Default 10.
    pub connections_min: u32,
    /// Connections at a time, 1 to 1000; further calls wait. Default 50.
    pub connections_max: u32,
    /// How long a call waits for a connection, 10 ms to 5 min. Default 2 s, so that a retry still
    /// fits into the limit of a call.
    pub acquire_timeout: Duration,
    /// After which time without use a connection is closed, 1 s to a day; of the `connections_min`
    /// another one is made at once. Default 10 min.
    pub idle_timeout: Duration,
    /// The age at which a connection is closed, 1 s to a day: servers behind a name change. Default
    /// 30 min.
    pub lifetime_max: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections_min: 10,
            connections_max: 50,
            acquire_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(600),
            lifetime_max: Duration::from_secs(1800),
        }
    }
}

impl PoolConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=1000).contains(&self.connections_max) {
            return Err(ConfigError::new("connections_max", self.connections_max, "1 to 1000"));
        }
        if self.connections_min > self.connections_max {
            let allowed = format!("0 to connections_max, which is {}", self.connections_max);
            return Err(ConfigError::new("connections_min", self.connections_min, allowed));
        }
        let second = Duration::from_secs(1);
        let (ms10, min5) = (Duration::from_millis(10), Duration::from_secs(300));
        for (name, value, low, high) in [
            ("acquire_timeout", self.acquire_timeout, ms10, min5),
            ("idle_timeout", self.idle_timeout, second, DAY),
            ("lifetime_max", self.lifetime_max, second, DAY),
        ] {
            if !(low..=high).contains(&value) {
                let (low, high) = (human_duration::format(low), human_duration::format(high));
                let allowed = format!("{low} to {high}");
                return Err(ConfigError::new(name, human_duration::format(value), allowed));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_out_of_its_range_is_refused_by_name() {
        assert_eq!(PoolConfig::default().validate(), Ok(()));
        for (name, config) in [
            ("connections_max", PoolConfig { connections_max: 0, ..PoolConfig::default() }),
            ("connections_min", PoolConfig { connections_min: 51, ..PoolConfig::default() }),
            ("idle_timeout", PoolConfig { idle_timeout: Duration::ZERO, ..PoolConfig::default() }),
        ] {
            let refused = config.validate().map_err(|error| error.to_string());
            assert!(refused.clone().is_err_and(|told| told.contains(name)), "{refused:?}");
        }
    }
}
