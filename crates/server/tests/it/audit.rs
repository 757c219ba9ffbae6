//! C5: every request that changes something leaves exactly one entry in the audit trail, with who,
//! what and what became of it, also when it was refused or failed.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use mainstay_db::Options;
use mainstay_ops::handles::HandleConfig;
use mainstay_server::settings::Settings;
use mainstay_server::{Config, Host};
use serde_json::{Value, json};

use crate::incidents::opened;
use crate::operations::until;
use crate::security::{create, key_of, with_key};
use crate::{Answer, Running, indexed};

/// A request to a route of the contract.
struct Case {
    route: (&'static str, &'static str),
    path: &'static str,
    body: Value,
    /// Action, target and outcome of its entry.
    entry: (&'static str, &'static str, &'static str),
}

fn case(
    route: (&'static str, &'static str),
    path: &'static str,
    body: Value,
    entry: (&'static str, &'static str, &'static str),
) -> Case {
    Case { route, path, body, entry }
}

/// In this order; the last ones need what the first ones made.
fn cases() -> Vec<Case> {
    let none = || Value::Null;
    let flag = || json!({"variants": {"a": 1, "b": 2}, "default": "a", "off": "b"});
    let (create, drop) = (("post", "/collections"), ("delete", "/collections/{collection}"));
    let verify = ("post", "/admin/collections/{collection}/verify");
    let rebuild = ("post", "/admin/collections/{collection}/rebuild");
    let weights = ("put", "/admin/collections/{collection}/weights");
    let act = ("post", "/admin/dependencies/{name}");
    let (hold, release) = (("put", "/admin/level"), ("delete", "/admin/level"));
    let (set, remove) = (("put", "/admin/flags/{name}"), ("delete", "/admin/flags/{name}"));
    let (key, revoke) = (("post", "/admin/keys"), ("delete", "/admin/keys/{id}"));
    let rotate = ("post", "/admin/keys/{id}/rotate");
    let reload = ("post", "/admin/config/reload");
    let held = json!({"level": "degraded", "for": "1h", "why": "a drill"});
    vec![
        case(
            create,
            "/collections",
            json!({"name": "new", "model": "static"}),
            ("collection.create", "new", "done"),
        ),
        case(
            create,
            "/collections",
            json!({"name": "new", "model": "static"}),
            ("collection.create", "collections", "refused"),
        ),
        case(
            create,
            "/collections",
            json!("no collection"),
            ("collection.create", "collections", "refused"),
        ),
        case(verify, "/admin/collections/new/verify", none(), ("collection.verify", "new", "done")),
        case(
            verify,
            "/admin/collections/none/verify",
            none(),
            ("collection.verify", "none", "refused"),
        ),
        case(
            rebuild,
            "/admin/collections/new/rebuild",
            json!({"method": "bm25"}),
            ("view.rebuild", "new/bm25", "done"),
        ),
        case(
            rebuild,
            "/admin/collections/new/rebuild",
            json!({"method": "bm52"}),
            ("view.rebuild", "new", "refused"),
        ),
        case(
            weights,
            "/admin/collections/new/weights",
            json!({"weights": null}),
            ("collection.weights", "new", "done"),
        ),
        case(
            weights,
            "/admin/collections/new/weights",
            json!({"weights": [0, 0, 0, 0]}),
            ("collection.weights", "new", "refused"),
        ),
        case(
            act,
            "/admin/dependencies/new/bm25",
            json!({"action": "reset"}),
            ("breaker.reset", "new/bm25", "done"),
        ),
        case(
            act,
            "/admin/dependencies/new/bm25",
            json!({"action": "explode"}),
            ("breaker.act", "new/bm25", "refused"),
        ),
        case(hold, "/admin/level", held, ("level.hold", "degraded", "done")),
        case(
            hold,
            "/admin/level",
            json!({"level": "best", "for": "1h", "why": ""}),
            ("level.hold", "level", "refused"),
        ),
        case(release, "/admin/level?why=over", none(), ("level.release", "degraded", "done")),
        case(release, "/admin/level", none(), ("level.release", "level", "refused")),
        case(set, "/admin/flags/shape", flag(), ("flag.set", "shape", "done")),
        case(
            set,
            "/admin/flags/shape",
            json!({"enabled": false}),
            ("flag.enable", "shape", "done"),
        ),
        case(set, "/admin/flags/shape", json!({"colour": 3}), ("flag.set", "shape", "refused")),
        case(remove, "/admin/flags/shape", none(), ("flag.remove", "shape", "done")),
        case(remove, "/admin/flags/shape", none(), ("flag.remove", "shape", "refused")),
        case(
            key,
            "/admin/keys",
            json!({"name": "r", "scopes": ["read"]}),
            ("key.create", "KEY", "done"),
        ),
        case(
            key,
            "/admin/keys",
            json!({"name": "r", "scopes": ["red"]}),
            ("key.create", "keys", "refused"),
        ),
        case(rotate, "/admin/keys/KEY/rotate", none(), ("key.rotate", "KEY", "done")),
        case(rotate, "/admin/keys/nobody/rotate", none(), ("key.rotate", "nobody", "refused")),
        case(revoke, "/admin/keys/KEY", none(), ("key.revoke", "KEY", "done")),
        case(revoke, "/admin/keys/KEY", none(), ("key.revoke", "KEY", "refused")),
        case(reload, "/admin/config/reload", none(), ("config.reload", "settings", "done")),
        case(reload, "/admin/config/reload?dry=1", none(), ("config.reload", "reload", "refused")),
        case(drop, "/collections/new", none(), ("collection.drop", "new", "done")),
        case(drop, "/collections/new", none(), ("collection.drop", "new", "refused")),
    ]
}

fn events(server: &Running, admin: &str) -> Vec<Value> {
    let shown = with_key(server, Some(admin), "GET", "/admin/audit?limit=1000", None).json();
    let events = shown["events"].as_array().unwrap().clone();
    // The level follows a hold by itself, which is an entry of its own.
    events.into_iter().filter(|event| event["action"] != "level.change").collect()
}

fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

#[test]
fn every_change_leaves_one_entry_whatever_became_of_it() {
    let server = Running::start_tuned(Config::default(), |server| {
        let read = Box::new(|| Ok(Settings::default()));
        server.reload_from(Settings::default(), read, Box::new(|_| Ok(())));
    });
    indexed(&server);
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let mut made = String::new();
    for Case { route, path, body, entry: (action, target, outcome) } in cases() {
        let before = events(&server, &admin).len();
        let (verb, path) = (route.0.to_ascii_uppercase(), path.replace("KEY", &made));
        let body = Some(&body).filter(|body| !body.is_null());
        let answer: Answer = with_key(&server, Some(&admin), &verb, &path, body);
        assert_eq!(answer.status < 300, outcome == "done", "{verb} {path}: {}", answer.body);
        if action == "key.create" && outcome == "done" {
            made = id_of(&key_of(&answer)).to_string();
        }
        let events = events(&server, &admin);
        assert_eq!(events.len(), before + 1, "{verb} {path}: {}", events[0]);
        let entry = &events[0];
        assert_eq!(entry["who"], id_of(&admin), "{verb} {path}");
        let expected = [action, &target.replace("KEY", &made), outcome];
        assert_eq!(json!([entry["action"], entry["target"], entry["outcome"]]), json!(expected));
        if outcome != "done" {
            let code = answer.problem();
            assert!(entry["why"].as_str().unwrap().starts_with(&code), "{entry} for {code}");
        }
    }
    let journal = server._folder.path().join("state/audit.ndjson");
    let kept = std::fs::read_to_string(journal).unwrap();
    assert!(kept.contains("\"refused\"") && kept.contains("\"done\""), "{kept}");
}

/// A route that is added to the contract fails here until it has cases.
#[test]
fn every_route_that_changes_something_has_a_case_that_is_done_and_one_that_is_refused() {
    let contract: Value = serde_json::from_str(&mainstay_server::openapi()).unwrap();
    for (path, item) in contract["paths"].as_object().unwrap() {
        for verb in item.as_object().unwrap().keys() {
            let is_data =
                path == "/search" || path.contains("/documents") || path.ends_with("/search");
            if verb == "get" || is_data {
                continue;
            }
            for outcome in ["done", "refused"] {
                let covered = |case: &Case| case.route == (verb, path) && case.entry.2 == outcome;
                assert!(cases().iter().any(covered), "{verb} {path} has no case that is {outcome}");
            }
        }
    }
}

/// A change that was begun and failed, and one that was not taken at the present level.
#[test]
fn a_change_that_fails_or_is_turned_away_leaves_one_entry_too() {
    let server = Running::start();
    let state = server._folder.path().join("state");
    let flags = state.join("flags");
    std::fs::create_dir_all(&flags).unwrap();
    std::fs::write(flags.join("in-the-way"), "x").unwrap();
    let of = |action: &str| -> Vec<Value> {
        let shown = server.get("/admin/audit?limit=1000").json()["events"].clone();
        let events = shown.as_array().unwrap().clone();
        events.into_iter().filter(|event| event["action"] == action).collect()
    };
    let answer = server.put("/admin/flags/method.native", &json!({"enabled": false}));
    assert!(answer.status >= 500, "{}", answer.body);
    let [failed] = &of("flag.set")[..] else { panic!("one entry: {:#?}", of("flag.set")) };
    assert_eq!((&failed["outcome"], &failed["who"]), (&json!("failed"), &json!("anonymous")));
    let hold = json!({"level": "maintenance", "for": "1h", "why": "moving"});
    assert_eq!(server.put("/admin/level", &hold).status, 200);
    let made = server.post("/collections", &json!({"name": "new", "model": "static"}));
    assert_eq!(made.problem(), "read_only");
    let [refused] = &of("collection.create")[..] else { panic!("one entry") };
    assert_eq!(refused["outcome"], "refused");
    assert!(refused["why"].as_str().unwrap().starts_with("read_only"), "{refused}");
    // Who is not let in is counted and leaves no entry, or a guesser could flush the trail.
    assert_eq!(server.delete("/admin/level").status, 200);
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    assert_eq!(server.delete("/collections/default").status, 401);
    let shown = with_key(&server, Some(&admin), "GET", "/admin/audit", None).body;
    assert!(!shown.contains("collection.drop"), "{shown}");
}

/// C5: the trail outlives a restart, also one that a crash made in the middle of a line.
#[test]
fn after_a_restart_the_trail_is_shown_as_before_and_its_numbers_go_on() {
    let mut server = Running::start();
    for enabled in [false, true] {
        let set = server.put("/admin/flags/method.native", &json!({ "enabled": enabled }));
        assert_eq!(set.status, 200, "{}", set.body);
    }
    let shown = |server: &Running| {
        let all = server.get("/admin/audit?limit=1000").json()["events"].clone();
        let all = all.as_array().unwrap().clone();
        all.into_iter().filter(|event| event["target"] == "method.native").collect::<Vec<Value>>()
    };
    let before = shown(&server);
    assert_eq!(before.len(), 2);
    server.stop();
    let folder = Arc::clone(&server._folder);
    drop(server);
    let journal = folder.path().join("state/audit.ndjson");
    let mut journal = std::fs::OpenOptions::new().append(true).open(journal).unwrap();
    journal.write_all(b"{\"number\":99,\"time\":\"20").unwrap();
    let host = Host::new(&HandleConfig::default(), None).unwrap();
    let db = opened(&host, folder.path(), &Options::default());
    let server = Running::start_over(folder, db, host, Config::default(), |_| {});
    assert_eq!(shown(&server), before);
    server.put("/admin/flags/method.native", &json!({"enabled": false}));
    let after = shown(&server);
    assert_eq!(after.len(), 3);
    assert!(after[0]["number"].as_u64() > before[0]["number"].as_u64(), "{after:#?}");
    assert!(after[0]["number"].as_u64() < Some(99), "what was cut short counts for nothing");
}

/// S6: the catalogue has a copy of every node's events.
#[test]
fn the_trail_of_every_node_is_read_from_the_catalogue() {
    let mut config = Config::default();
    config.operations.catalogue.refresh_every = Duration::from_millis(100);
    let server = Running::start_with(config);
    server.put("/admin/flags/method.native", &json!({"enabled": false}));
    let all = || server.get("/admin/audit?everywhere=true").json();
    let set = |shown: &Value| {
        let events = shown["events"].as_array().unwrap().clone();
        events.into_iter().find(|event| event["action"] == "flag.enable")
    };
    let event = set(&until(all, |shown| set(shown).is_some())).unwrap();
    let node = server.get("/admin/catalogue").json()["node"].clone();
    assert_eq!((&event["node"], &event["target"]), (&node, &json!("method.native")));
    assert!(node.as_str().is_some_and(|node| node.starts_with("node-")));
    let refused = server.get("/admin/audit?everywhere=true&before=3");
    assert_eq!(refused.problem(), "bad_request");
}

/// O6: a signal has no answer that says it was refused, so the trail does.
#[test]
fn a_reload_by_a_signal_that_is_refused_leaves_one_entry() {
    let server = Running::start_tuned(Config::default(), |server| {
        let read = Box::new(|| Err(vec!["server.listen is \"nowhere\"".to_string()]));
        server.reload_from(Settings::default(), read, Box::new(|_| Ok(())));
    });
    server.control().reload("SIGHUP").unwrap_err();
    let shown = server.get("/admin/audit").json()["events"].clone();
    let reloads = shown.as_array().unwrap().iter().filter(|it| it["action"] == "config.reload");
    let [entry] = &reloads.collect::<Vec<_>>()[..] else { panic!("one entry: {shown:#}") };
    assert_eq!((&entry["who"], &entry["outcome"]), (&json!("SIGHUP"), &json!("refused")));
    assert_eq!(entry["why"], "server.listen is \"nowhere\"");
}
