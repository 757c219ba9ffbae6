//! S6, R8: nodes that share a catalogue, and what goes on without it.

use std::time::{Duration, Instant};

use mainstay_db::{Db, Options};
use mainstay_server::{CatalogueConfig, Config, Host, OperationsConfig, PoolConfig, Server};
use mainstay_testkit::postgres::{PASSWORD, Postgres};
use serde_json::json;
use tempfile::TempDir;

use crate::security::{create, key_of, with_key};
use crate::{Running, indexed};

/// How long the catalogue is waited for, in tests where it hangs.
const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds of searches and reports without the catalogue.
const ROUNDS: u32 = 50;

/// A node that looks at the catalogue ten times a second.
pub(crate) fn sharing(url: &str) -> Config {
    let pool = PoolConfig {
        connections_min: 0,
        connections_max: 4,
        acquire_timeout: Duration::from_millis(500),
        ..PoolConfig::default()
    };
    let mut pipelines = mainstay_resilience::PipelinesConfig::default();
    let mut service = mainstay_resilience::ServiceConfig::default();
    service.all.timeout = Some(CATALOGUE_TIMEOUT);
    service.all.total_timeout = Some(CATALOGUE_TIMEOUT * 2);
    service.all.breaker_open = Some(Duration::from_millis(200));
    pipelines.services.insert("catalogue".to_string(), service);
    let refresh_every = Duration::from_millis(100);
    let catalogue = CatalogueConfig { url: Some(url.to_string()), pool, refresh_every, pipelines };
    let check_every = Duration::from_millis(100);
    let operations = OperationsConfig { catalogue, check_every, ..OperationsConfig::default() };
    Config { operations, ..Config::default() }
}

/// Waits for a state that comes by itself, and says what there was when it does not.
pub(crate) fn until(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    while let Err(there) = look() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {there}");
        std::thread::yield_now();
    }
}

fn catalogue_health(server: &Running) -> String {
    let health = server.get("/health").json();
    let checks = health["checks"].as_object().cloned().unwrap_or_default();
    let found = checks.iter().find(|(name, _)| name.starts_with("catalogue"));
    found.map_or_else(|| health.to_string(), |(_, check)| check.to_string())
}

/// S6: what one node changes counts on all of them; a wrong key stays wrong everywhere.
#[test]
fn keys_and_flags_that_one_node_changes_count_on_every_node() {
    let url = Postgres::shared().database();
    let (one, other) = (Running::start_with(sharing(&url)), Running::start_with(sharing(&url)));
    let admin = key_of(&create(&one, None, &json!({"name": "root", "scopes": ["admin"]})));
    until("the key is known elsewhere", || {
        let answer = with_key(&other, Some(&admin), "GET", "/admin/keys", None);
        (answer.status == 200 && answer.body.contains("root")).then_some(()).ok_or(answer.body)
    });
    assert_eq!(other.get("/collections").status, 401, "the door is closed there too");
    // A change on the other node is made on top of what the first has changed, at once.
    let reader = json!({"name": "reader", "scopes": ["read"]});
    let reader = key_of(&create(&other, Some(&admin), &reader));
    let writer = json!({"name": "writer", "scopes": ["write"]});
    key_of(&create(&one, Some(&admin), &writer));
    let keys = with_key(&one, Some(&admin), "GET", "/admin/keys", None).json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 3, "{keys}");
    assert_eq!(with_key(&one, Some(&reader), "GET", "/collections", None).status, 200);
    let off = json!({"enabled": false});
    let set = with_key(&one, Some(&admin), "PUT", "/admin/flags/writes", Some(&off));
    assert_eq!(set.status, 200, "{}", set.body);
    until("the flag is known elsewhere", || {
        let flag = with_key(&other, Some(&admin), "GET", "/admin/flags/writes", None);
        flag.body.contains("\"overridden\":true").then_some(()).ok_or(flag.body)
    });
    let id = reader.split('_').nth(1).unwrap();
    let gone = with_key(&other, Some(&admin), "DELETE", &format!("/admin/keys/{id}"), None);
    assert_eq!(gone.status, 204, "{}", gone.body);
    until("the key is gone elsewhere", || {
        let status = with_key(&one, Some(&reader), "GET", "/collections", None).status;
        (status == 401).then_some(()).ok_or(status.to_string())
    });
    until("both nodes are listed", || {
        let shown = with_key(&one, Some(&admin), "GET", "/admin/catalogue", None);
        assert!(!shown.body.contains(PASSWORD), "{}", shown.body);
        let json = shown.json();
        let two = json["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2);
        let both = json["collections"].as_array().is_some_and(|collections| collections.len() == 2);
        (two && both && json["reachable"] == true).then_some(()).ok_or(shown.body)
    });
}

/// R8: the database is killed. Every search is answered, keys are recognised, changes are refused and
/// say why, health names the catalogue; then it comes back and all works again by itself.
#[test]
fn searches_go_on_while_the_catalogue_is_gone_and_it_comes_back_by_itself() {
    goes_on_without(Postgres::kill, Postgres::run);
}

/// R8: the same with a database that accepts connections and never answers.
#[test]
fn searches_go_on_while_the_catalogue_hangs_and_it_comes_back_by_itself() {
    goes_on_without(Postgres::pause, Postgres::resume);
}

fn goes_on_without(take_away: fn(&Postgres), bring_back: fn(&Postgres)) {
    let database = Postgres::start();
    let url = database.database();
    let server = Running::start_with(sharing(&url));
    indexed(&server);
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let search = || {
        let body = json!({"query": "zebra"});
        let answer = with_key(&server, Some(&admin), "POST", "/search", Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let json = answer.json();
        assert!(json["complete"] == true && json["results"][0]["id"] == "1", "{json}");
        assert_eq!(json["level"], "full", "{json}");
    };
    search();
    take_away(&database);
    let mut searches = 0;
    until("health names the catalogue", || {
        search();
        searches += 1;
        let health = catalogue_health(&server);
        assert!(!health.contains(PASSWORD), "{health}");
        health.contains("postgres://").then_some(()).ok_or(health)
    });
    let began = Instant::now();
    for _ in 0..ROUNDS {
        search();
        assert_eq!(server.get("/health").status, 200);
        assert_eq!(server.get("/health/live").status, 200);
        assert_eq!(server.get("/health/ready").status, 200);
    }
    let took = began.elapsed();
    assert!(took < CATALOGUE_TIMEOUT * ROUNDS, "each waits for the catalogue: {took:?}");
    let change = create(&server, Some(&admin), &json!({"name": "late", "scopes": ["read"]}));
    assert_eq!(change.status, 503, "{}", change.body);
    assert!(
        change.body.contains("catalogue") && !change.body.contains(PASSWORD),
        "{}",
        change.body
    );
    let shown = with_key(&server, Some(&admin), "GET", "/admin/catalogue", None).json();
    assert_eq!(shown["reachable"], false, "{shown}");
    bring_back(&database);
    until("health is well again", || {
        search();
        let health = catalogue_health(&server);
        (!health.contains("postgres://")).then_some(()).ok_or(health)
    });
    until("changes are taken again", || {
        let change = create(&server, Some(&admin), &json!({"name": "late", "scopes": ["read"]}));
        (change.status == 201).then_some(()).ok_or(change.body)
    });
    eprintln!("{searches} searches until health named it, all answered");
}

/// V1: a restart heals no database, so however long a turn with it takes, what watches the
/// process is not told that the process hangs.
#[test]
fn the_process_lives_while_the_database_hangs() {
    let database = Postgres::start();
    let server = Running::start_with(sharing(&database.database()));
    database.pause();
    until("health names the catalogue", || {
        let health = catalogue_health(&server);
        health.contains("postgres://").then_some(()).ok_or(health)
    });
    let live = server.get("/health/live");
    assert_eq!(live.status, 200, "{}", live.body);
    assert_eq!(
        live.json()["watched"],
        json!(["memory", "levels", "dependencies", "judge"]),
        "{}",
        live.body
    );
    database.resume();
}

/// Starts a server on this folder; the error of its start, or whether it needs keys.
fn start(folder: &TempDir, config: Config) -> Result<bool, String> {
    let db = std::sync::Arc::new(Db::open(folder.path(), Options::default()).unwrap());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..config };
    let needs = runtime.block_on(async {
        let host = Host::new(&Default::default(), None).unwrap();
        let server = Server::bind(db.clone(), config, host).await.map_err(|e| e.to_string())?;
        let needs = server.requires_keys();
        server.serve(std::future::ready(())).await;
        Ok(needs)
    });
    db.close().unwrap();
    needs
}

/// A restart without the database still knows the keys; a node that never knew them does not start,
/// because it would let everybody in.
#[test]
fn a_restart_without_the_catalogue_keeps_the_door_closed() {
    mainstay_server::install_metrics().unwrap();
    let database = Postgres::start();
    let url = database.database();
    let (folder, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(start(&folder, sharing(&url)), Ok(false), "there is no key yet");
    let node = Running::start_with(sharing(&url));
    key_of(&create(&node, None, &json!({"name": "root", "scopes": ["admin"]})));
    assert_eq!(start(&folder, sharing(&url)), Ok(true), "another node's key is known at once");
    drop(node);
    database.kill();
    assert_eq!(start(&folder, sharing(&url)), Ok(true), "from its own copy");
    let refused = start(&fresh, sharing(&url)).unwrap_err();
    assert!(refused.contains("no copy of them yet") && !refused.contains(PASSWORD), "{refused}");
    let without = start(&folder, Config::default()).unwrap_err();
    assert!(without.contains("catalogue.url"), "a forgotten setting opens nothing: {without}");
    let wrong = start(&fresh, sharing("mysql://x:secret-of-it@y/z")).unwrap_err();
    assert!(wrong.contains("postgres://") && !wrong.contains("secret-of-it"), "{wrong}");
}

/// S6: without a setting the catalogue is a file of the data directory.
#[test]
fn a_node_alone_keeps_its_catalogue_in_the_data_directory() {
    let server = Running::start();
    until("it is reported", || {
        let shown = server.get("/admin/catalogue");
        let json = shown.json();
        let known = json["collections"][0]["name"] == "default" && json["shared"] == false;
        (known && json["location"].as_str().is_some_and(|it| it.ends_with("catalogue.sqlite")))
            .then_some(())
            .ok_or(shown.body)
    });
    let metrics = server.get("/metrics").body;
    for name in ["mainstay_pool_connections_max", "mainstay_pool_acquire_duration_seconds"] {
        assert!(metrics.contains(name), "{name} is not in the metrics");
    }
}
