//! What goes wrong with a database (R8): the call ends in time, says what is wrong without a password,
//! and works again when the database does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mainstay_catalogue::{Catalogue, CatalogueError, Location, PoolConfig};
use mainstay_resilience::{ErrorKind, InjectedFault, PipelinesConfig, ServiceConfig};
use mainstay_testkit::postgres::{PASSWORD, Postgres};

use crate::Place;

/// Short limits, so that the tests are.
fn hurried() -> PipelinesConfig {
    let mut service = ServiceConfig::default();
    service.all.timeout = Some(Duration::from_secs(3));
    service.all.total_timeout = Some(Duration::from_secs(7));
    service.all.attempts = Some(2);
    service.all.backoff_base = Some(Duration::from_millis(10));
    service.all.breaker_open = Some(Duration::from_millis(50));
    let mut config = PipelinesConfig::default();
    config.services.insert("catalogue".to_string(), service);
    config
}

fn open(url: &str) -> Catalogue {
    let pool = PoolConfig {
        connections_min: 0,
        connections_max: 3,
        acquire_timeout: Duration::from_millis(2500),
        ..PoolConfig::default()
    };
    Catalogue::new(url.parse().unwrap(), &pool, hurried()).unwrap()
}

/// Tries until it works; the breaker needs its time.
async fn works_again(catalogue: &Catalogue) {
    let began = Instant::now();
    while let Err(error) = catalogue.ping().await {
        assert!(began.elapsed() < Duration::from_secs(60), "{error}");
    }
}

fn kind(error: &CatalogueError) -> ErrorKind {
    match error {
        CatalogueError::Unavailable { kind, .. } => *kind,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_database_that_never_answers_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in silent.incoming() {
            std::thread::spawn(move || stream.unwrap().read_to_end(&mut Vec::new()));
        }
    });
    let catalogue = open(&format!("postgres://x:{PASSWORD}@{address}/x"));
    let error = catalogue.ping().await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("nobody answers"), "{error}");
    assert!(!error.to_string().contains(PASSWORD), "{error}");
    assert!(!error.is_lasting());
    assert_eq!(catalogue.pool().in_use, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_where_nothing_listens_it_says_so_and_the_breaker_opens() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let catalogue = open(&format!("postgres://x@{nobody}/x"));
    let mut rejected = false;
    for _ in 0..8 {
        let error = catalogue.ping().await.unwrap_err().to_string();
        rejected |= catalogue.dependency().breaker().snapshot().rejected > 0;
        let told = error.contains("nothing listens there") || error.contains("stopped the call");
        assert!(told || rejected, "{error}");
    }
    assert!(rejected, "calls are refused without being made");
    assert_eq!(catalogue.dependency().name(), "catalogue/postgres");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_a_wrong_password_fails_at_once_and_is_not_repeated_in_the_message() {
    let server = Postgres::shared();
    let wrong = "not-the-password-at-all";
    let catalogue = open(&server.url("postgres", wrong));
    let error = catalogue.ping().await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Authentication, "{error}");
    assert!(error.is_lasting() && !format!("{error} {error:?}").contains(wrong), "{error:?}");
    let missing = open(&server.url("no_such_database", PASSWORD)).ping().await.unwrap_err();
    assert!(missing.to_string().contains("no_such_database"), "{missing}");
    assert!(!missing.to_string().contains(PASSWORD), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_database_that_is_killed_and_comes_back_is_used_again_with_what_it_had() {
    let server = Postgres::start();
    let catalogue = open(&server.database());
    works_again(&catalogue).await;
    assert_eq!(catalogue.save_state("keys", 0, b"kept", "n1").await, Ok(1));
    server.kill();
    let error = catalogue.load_state("keys").await.unwrap_err();
    assert!(!error.is_lasting(), "{error}");
    server.run();
    works_again(&catalogue).await;
    assert_eq!(catalogue.load_state("keys").await.unwrap().unwrap().bytes, b"kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_database_that_hangs_holds_nobody_and_is_used_again_when_it_goes_on() {
    let server = Postgres::start();
    let catalogue = open(&server.database());
    works_again(&catalogue).await;
    server.pause();
    for _ in 0..2 {
        let began = Instant::now();
        assert!(catalogue.ping().await.is_err());
        assert!(began.elapsed() < Duration::from_secs(30), "limited to seven seconds in all");
    }
    // The pool learns of a connection that was thrown away a moment after its call has ended.
    let deadline = Instant::now() + Duration::from_secs(60);
    while catalogue.pool().in_use > 0 {
        assert!(Instant::now() < deadline, "a call that was given up holds a place");
        tokio::task::yield_now().await;
    }
    server.resume();
    works_again(&catalogue).await;
    let mut calls = tokio::task::JoinSet::new();
    (0..3).for_each(|_| {
        let catalogue = catalogue.clone();
        calls.spawn(async move { catalogue.ping().await });
    });
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
}

/// Passes everything on to a server but the question whether a connection is still alive.
fn deaf_to_sync(server: SocketAddr) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in door.incoming() {
            let mut client = client.unwrap();
            let mut server = TcpStream::connect(server).unwrap();
            let (mut answers, mut back) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            std::thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(read @ 1..) = client.read(&mut bytes) {
                    if bytes[..read] != *b"S\0\0\0\x04" && server.write_all(&bytes[..read]).is_err()
                    {
                        break;
                    }
                }
                server.shutdown(Shutdown::Both).ok();
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_database_that_hangs_just_as_a_connection_goes_back_holds_no_place() {
    let url = Postgres::shared().database();
    let server = url.split(['@', '/']).nth(3).unwrap();
    let door = deaf_to_sync(server.parse().unwrap()).to_string();
    let catalogue = open(&url.replace(server, &door));
    catalogue.ping().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while catalogue.pool().open > 0 {
        assert!(Instant::now() < deadline, "a connection that does not answer holds a place");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    catalogue.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_makes_it_fail_hang_and_work_again() {
    let place = Place::sqlite();
    let catalogue = Catalogue::new(place.location.clone(), &crate::small(), hurried()).unwrap();
    catalogue.ping().await.unwrap();
    let faults = catalogue.dependency().faults();
    faults.set(InjectedFault::Error, None);
    let error = catalogue.ping().await.unwrap_err().to_string();
    assert!(error.contains("injected"), "{error}");
    faults.set(InjectedFault::Hang, None);
    let error = loop {
        // The error before may have opened the breaker.
        let error = catalogue.ping().await.unwrap_err();
        if kind(&error) == ErrorKind::Timeout {
            break error;
        }
    };
    assert!(!error.is_lasting());
    faults.clear();
    works_again(&catalogue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_locked_by_another_process_is_waited_for_and_told() {
    let place = Place::sqlite();
    let catalogue = Catalogue::new(place.location.clone(), &crate::small(), hurried()).unwrap();
    catalogue.save_state("keys", 0, b"a", "n1").await.unwrap();
    let Location::Sqlite(path) = place.location.clone() else { panic!("it is a file") };
    let mut other = sqlite(&path).await;
    sqlx_execute(&mut other, "BEGIN EXCLUSIVE").await;
    assert_eq!(catalogue.load_state("keys").await.unwrap().unwrap().bytes, b"a", "readers go on");
    let error = catalogue.save_state("keys", 1, b"b", "n1").await.unwrap_err();
    assert!(!error.is_lasting(), "{error}");
    sqlx_execute(&mut other, "ROLLBACK").await;
    works_again(&catalogue).await;
    assert_eq!(catalogue.save_state("keys", 1, b"b", "n1").await, Ok(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_used_is_named() {
    let location = Location::in_folder(std::path::Path::new("/proc/no/such/folder"));
    let catalogue = Catalogue::new(location, &crate::small(), hurried()).unwrap();
    let error = catalogue.ping().await.unwrap_err().to_string();
    assert!(error.contains("/proc/no/such/folder/catalogue.sqlite"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalogue.sqlite");
    let text = "this is no database, and nobody may overwrite it ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let location = Location::in_folder(folder.path());
    let catalogue = Catalogue::new(location, &crate::small(), hurried()).unwrap();
    let error = catalogue.ping().await.unwrap_err().to_string();
    assert!(error.contains("not a database"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

async fn sqlite(path: &std::path::Path) -> sqlx::SqliteConnection {
    use sqlx::Connection;
    sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap()
}

async fn sqlx_execute(connection: &mut sqlx::SqliteConnection, sql: &str) {
    sqlx::query(sql).execute(connection).await.unwrap();
}
