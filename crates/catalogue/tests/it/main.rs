//! The catalogue over real databases: one suite for SQLite and PostgreSQL, then what goes wrong with
//! each.
#![allow(clippy::unwrap_used)]

mod contract;
mod faults;
mod pool;
mod trace;
mod upgrade;

use std::time::Duration;

use mainstay_catalogue::{Catalogue, Location, PoolConfig};
use mainstay_resilience::{PipelinesConfig, ServiceConfig};
use mainstay_testkit::postgres::Postgres;
use tempfile::TempDir;

/// A pool that leaves room for other tests on the same server, and time to a busy machine.
fn small() -> PoolConfig {
    PoolConfig {
        connections_min: 0,
        connections_max: 4,
        acquire_timeout: Duration::from_secs(60),
        ..PoolConfig::default()
    }
}

/// Limits that a busy machine stays within.
fn patient() -> PipelinesConfig {
    let mut service = ServiceConfig::default();
    service.all.timeout = Some(Duration::from_secs(60));
    let mut config = PipelinesConfig::default();
    config.services.insert("catalogue".to_string(), service);
    config
}

/// A database of one test, which several nodes can open.
struct Place {
    location: Location,
    _folder: Option<TempDir>,
}

impl Place {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { location: Location::in_folder(folder.path()), _folder: Some(folder) }
    }

    fn postgres() -> Self {
        Self::at(&Postgres::shared().database())
    }

    fn at(url: &str) -> Self {
        Self { location: url.parse().unwrap(), _folder: None }
    }

    fn open(&self) -> Catalogue {
        self.open_with(&small())
    }

    fn open_with(&self, pool: &PoolConfig) -> Catalogue {
        Catalogue::new(self.location.clone(), pool, patient()).unwrap()
    }
}
