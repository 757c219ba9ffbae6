//! O1: the pool of connections.

use std::time::{Duration, Instant};

use mainstay_catalogue::{Catalogue, PoolConfig};
use mainstay_testkit::postgres::Postgres;

use crate::{Place, patient};

/// 1,200 calls at a time through at most 50 connections, or the few of SQLite: none fails, none waits
/// for ever, and every effect is there.
async fn many_at_a_time(place: &Place) -> Catalogue {
    const CALLS: u64 = 1_200;
    let pool = PoolConfig { acquire_timeout: Duration::from_secs(60), ..PoolConfig::default() };
    let catalogue = Catalogue::new(place.location.clone(), &pool, patient()).unwrap();
    catalogue.prepare().await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..CALLS {
        let catalogue = catalogue.clone();
        calls.spawn(async move {
            match call % 3 {
                0 => catalogue.load_state("keys").await.map(|_| ()),
                1 => catalogue.state_versions().await.map(|_| ()),
                _ => {
                    let name = format!("piece-{call}");
                    catalogue.save_state(&name, 0, b"x", "n1").await.map(|_| ())
                }
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(catalogue.state_versions().await.unwrap().len() as u64, CALLS / 3);
    let figures = catalogue.pool();
    assert!(figures.acquired > CALLS && figures.timeouts == 0, "{figures:?}");
    assert!(figures.open <= figures.max && figures.acquire_p99_ms > 0.0, "{figures:?}");
    assert!(figures.utilisation() <= 1.0);
    catalogue
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_more_than_a_thousand_calls_at_a_time_share_fifty_connections() {
    let catalogue = many_at_a_time(&Place::postgres()).await;
    let figures = catalogue.pool();
    assert_eq!(figures.max, 50);
    assert!(figures.open > 10, "so many calls open more than the least: {figures:?}");
    eprintln!("postgres: {figures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_more_than_a_thousand_calls_at_a_time_share_a_file() {
    let catalogue = many_at_a_time(&Place::sqlite()).await;
    eprintln!("sqlite: {:?}", catalogue.pool());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_a_call_that_gets_no_connection_says_how_many_there_are() {
    let server = Postgres::shared();
    let place = Place::at(&server.database());
    place.open().prepare().await.unwrap();
    let pool = PoolConfig {
        connections_min: 0,
        connections_max: 1,
        acquire_timeout: Duration::from_secs(1),
        ..PoolConfig::default()
    };
    let mut config = patient();
    config.services.entry("catalogue".to_string()).or_default().all.attempts = Some(1);
    let catalogue = Catalogue::new(place.location.clone(), &pool, config).unwrap();
    while catalogue.ping().await.is_err() {}
    // The table is locked by somebody else, so whoever has the only connection waits.
    let database = place_name(&place);
    let holder = std::thread::spawn(move || {
        server.sql(&database, "BEGIN; LOCK TABLE mainstay_state; SELECT pg_sleep(6); COMMIT");
    });
    // Two that ask again and again: whoever meets the lock keeps the connection from the other.
    let ask = || async {
        let mut told = Vec::new();
        while !holder.is_finished() {
            told.extend(catalogue.state_versions().await.err().map(|error| error.to_string()));
        }
        told
    };
    let (first, second) = tokio::join!(ask(), ask());
    let told = [first, second].concat();
    holder.join().unwrap();
    assert!(told.iter().any(|it| it.contains("1 are open, the bound is 1")), "{told:?}");
    assert!(catalogue.pool().timeouts > 0);
}

fn place_name(place: &Place) -> String {
    place.location.to_string().rsplit('/').next().unwrap_or_default().to_string()
}

/// A call that is given up closes its connection at once: a database that hangs holds no place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_a_call_that_is_cancelled_leaves_no_connection_behind() {
    let server = Postgres::shared();
    let place = Place::at(&server.database());
    let catalogue = place.open();
    catalogue.prepare().await.unwrap();
    let (began, begun) = std::sync::mpsc::channel();
    let database = place_name(&place);
    let holder = std::thread::spawn(move || {
        began.send(()).unwrap();
        server.sql(&database, "BEGIN; LOCK TABLE mainstay_state; SELECT pg_sleep(1); COMMIT");
    });
    begun.recv().unwrap();
    while catalogue.pool().discarded == 0 && !holder.is_finished() {
        let call = catalogue.state_versions();
        let _ = tokio::time::timeout(Duration::from_millis(50), call).await;
    }
    holder.join().unwrap();
    let figures = catalogue.pool();
    assert!(figures.discarded >= 1, "{figures:?}");
    catalogue.state_versions().await.unwrap();
    assert!(catalogue.pool().open <= 4);
}

/// A pool that must keep no connection and closes none while a test lives: both times are the longest.
fn kept_for_a_day() -> PoolConfig {
    const DAY: Duration = Duration::from_secs(86_400);
    PoolConfig { idle_timeout: DAY, lifetime_max: DAY, ..crate::small() }
}

/// Calls once, then leaves the catalogue alone until the server has no session of it any more.
async fn is_closed_by(pool: &PoolConfig) {
    let server = Postgres::shared();
    let place = Place::at(&server.database());
    let catalogue = place.open_with(pool);
    catalogue.prepare().await.unwrap();
    assert!(catalogue.pool().acquired >= 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    let sessions =
        format!("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{}'", place_name(&place));
    loop {
        let (there, here) = (server.sql("postgres", &sessions), catalogue.pool().open);
        if (there.trim(), here) == ("0", 0) {
            break;
        }
        assert!(Instant::now() < deadline, "{there} sessions, {here} open: {pool:?}");
        tokio::task::yield_now().await;
    }
    assert_eq!(catalogue.pool().discarded, 0, "the pool has closed it, no call that failed");
    catalogue.ping().await.unwrap();
    assert!(catalogue.pool().open >= 1, "the next call opens another one");
}

/// O1: after the shortest time that the pool takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_a_connection_that_nobody_uses_is_closed() {
    is_closed_by(&PoolConfig { idle_timeout: Duration::from_secs(1), ..kept_for_a_day() }).await;
}

/// O1: at the least age that the pool takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_a_connection_of_the_greatest_age_is_closed() {
    is_closed_by(&PoolConfig { lifetime_max: Duration::from_secs(1), ..kept_for_a_day() }).await;
}

/// O1: the least number of connections is open without anybody's call, also when each of them was
/// renewed for want of use; more are made while they are needed, and closed again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o1_ten_connections_are_kept_open_while_nobody_calls() {
    let server = Postgres::shared();
    let place = Place::at(&server.database());
    let pool = PoolConfig {
        idle_timeout: Duration::from_secs(1),
        acquire_timeout: Duration::from_secs(60),
        ..PoolConfig::default()
    };
    assert_eq!((pool.connections_min, pool.connections_max), (10, 50));
    let catalogue = place.open_with(&pool);
    catalogue.prepare().await.unwrap();
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{}'", place_name(&place));
    let sessions = || -> Vec<String> {
        server.sql("postgres", &sql).lines().map(|pid| pid.trim().to_string()).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let ten_beside = |old: &[String]| loop {
        let now = sessions();
        if now.len() == 10 && !now.iter().any(|pid| old.contains(pid)) {
            return now;
        }
        assert!(Instant::now() < deadline, "{now:?} beside {old:?}: {:?}", catalogue.pool());
    };
    let first = ten_beside(&[]);
    ten_beside(&first);
    while catalogue.pool().open <= 10 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..60 {
            let catalogue = catalogue.clone();
            calls.spawn(async move { catalogue.state_versions().await.map(|_| ()) });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap().unwrap();
        }
        assert!(Instant::now() < deadline, "{:?}", catalogue.pool());
    }
    ten_beside(&[]);
}
