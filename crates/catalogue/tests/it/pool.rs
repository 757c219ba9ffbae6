//! O1: the pool of connections.

use std::time::Duration;

use mainstay_catalogue::{Catalogue, PoolConfig};
use mainstay_resilience::{Overrides, PipelinesConfig, ServiceConfig};
use mainstay_testkit::postgres::Postgres;

use crate::Place;

/// Limits that a busy machine stays within.
fn patient() -> PipelinesConfig {
    let mut all = Overrides::default();
    all.timeout = Some(Duration::from_secs(60));
    let mut service = ServiceConfig::default();
    service.all = all;
    let mut config = PipelinesConfig::default();
    config.services.insert("catalogue".to_string(), service);
    config
}

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
    let pool = PoolConfig {
        connections_min: 0,
        connections_max: 1,
        acquire_timeout: Duration::from_millis(100),
        ..PoolConfig::default()
    };
    let mut config = PipelinesConfig::default();
    config.defaults.attempts = Some(1);
    let mut service = ServiceConfig::default();
    service.all.attempts = Some(1);
    config.services.insert("catalogue".to_string(), service);
    let catalogue = Catalogue::new(place.location.clone(), &pool, config).unwrap();
    catalogue.prepare().await.unwrap();
    // The table is locked by somebody else, so the only connection waits.
    let (database, mut locked) = (place_name(&place), false);
    let holder = std::thread::spawn({
        let database = database.clone();
        move || {
            server.sql(
                &database,
                "BEGIN; LOCK TABLE mainstay_state; SELECT pg_advisory_lock(1), pg_sleep(2); COMMIT",
            );
        }
    });
    let told = loop {
        let first = tokio::spawn({
            let catalogue = catalogue.clone();
            async move { catalogue.state_versions().await }
        });
        let second = catalogue.load_state("keys").await;
        let first = first.await.unwrap();
        if let Some(error) =
            [first.map(|_| ()), second.map(|_| ())].into_iter().find_map(Result::err)
        {
            locked = true;
            break error.to_string();
        }
        if holder.is_finished() {
            break String::new();
        }
    };
    holder.join().unwrap();
    assert!(locked && told.contains("the bound is 1"), "{told}");
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
