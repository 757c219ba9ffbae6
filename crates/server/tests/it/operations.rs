//! What an operator sees and does: health, dependencies, levels, flags, objectives, audit, settings.

use std::time::{Duration, Instant};

use mainstay_db::{Criticality, Dependency, DependencyKind, InjectedFault, Method};
use mainstay_ops::handles::{HandleClass, HandleConfig};
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_resilience::CircuitBreaker;
use mainstay_server::{Config, Host, OperationsConfig};
use serde_json::{Value, json};

use crate::{Running, with_documents};

/// Waits until what the server shows is as wanted; what it showed last when it never is.
pub(crate) fn until(mut what: impl FnMut() -> Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let shown = what();
        if wanted(&shown) {
            return shown;
        }
        assert!(Instant::now() < deadline, "never came: {shown:#}");
        std::thread::yield_now();
    }
}

pub(crate) fn search(server: &Running) -> Value {
    let answer = server.post("/search", &json!({"query": "zebra"}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

pub(crate) fn status_of(answer: &Value, method: &str) -> String {
    let methods = answer["methods"].as_array().unwrap();
    let found = methods.iter().find(|report| report["method"] == method).unwrap();
    found["status"].as_str().unwrap().to_string()
}

pub(crate) fn audited(server: &Running, action: &str) -> Vec<Value> {
    let events = server.get("/admin/audit?limit=1000").json();
    let events = events["events"].as_array().unwrap().clone();
    events.into_iter().filter(|event| event["action"] == action).collect()
}

/// V1: every dependency is checked, with figures of pools, caches and memory, and a report comes at
/// once although a dependency hangs.
#[test]
fn health_names_every_part_and_does_not_wait_for_one_that_hangs() {
    let server = with_documents();
    // The check of kept answers joins the others after the start, and may not have been asked yet.
    let health = server.get("/health?fresh=true").json();
    let checks = health["checks"].as_object().unwrap();
    for name in [
        "documents:documents",
        "log:responseTime",
        "search/bm25:responseTime",
        "search/semantic:responseTime",
        "embedding:workers",
        "cache/queries:memory",
        "cache/answers:memory",
        "disk:available",
        "memory:used",
        "handles:connections",
    ] {
        assert!(checks.contains_key(name), "{name} is not in {health:#}");
    }
    server.break_method(Method::Native, InjectedFault::Hang);
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| server.post("/search", &json!({"query": "x"})));
        let docs = server.db.collection("default").unwrap();
        let faults = docs.dependency(Method::Native).faults();
        while faults.struck() == 0 {
            std::thread::yield_now();
        }
        for path in ["/health", "/health?fresh=true", "/health/live", "/health/ready", "/metrics"] {
            assert_eq!(server.get(path).status, 200, "{path}");
        }
        faults.clear();
        hanging.join().unwrap();
    });
    assert_eq!(server.get("/health?fesh=true").problem(), "bad_request");
}

/// A check as `/health` shows it when it is asked now.
fn checked(server: &Running, name: &str) -> Value {
    let health = server.get("/health?fresh=true").json();
    health["checks"][format!("{name}:responseTime")][0].clone()
}

fn command(server: &Running, dependency: &str, command: &Value) {
    let answer = server.post(&format!("/admin/dependencies/{dependency}"), command);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// A server with two providers of embeddings where nobody listens, and nobody asks: there are no
/// documents to embed and no queries. Their names as well.
fn with_two_providers(idle_probe_every: Duration) -> (Running, [String; 2]) {
    let operations = OperationsConfig {
        probe_every: Duration::ZERO,
        idle_probe_every,
        ..OperationsConfig::default()
    };
    let server = Running::start_with(Config { operations, ..Config::default() });
    for (collection, port) in [("far", 1), ("farther", 2)] {
        let model = format!("remote:http://127.0.0.1:{port}/v1,hashes,16");
        let made = server.post("/collections", &json!({"name": collection, "model": model}));
        assert_eq!(made.status, 201, "{}", made.body);
    }
    let all = server.db.pipelines().dependencies();
    let names = all.iter().map(|it| it.name().to_string());
    let providers: Vec<String> = names.filter(|name| name.starts_with("embedding/")).collect();
    (server, providers.try_into().unwrap())
}

/// V1: that nobody has called it and nothing has failed does not make a provider healthy; a probe finds
/// out, and a provider that is not there is no reason not to serve.
#[test]
fn v1_a_provider_that_is_not_there_is_seen_although_nobody_calls_it() {
    let (server, providers) = with_two_providers(Duration::from_secs(30));
    let check = until(|| checked(&server, "embedding"), |check| check["state"] == "unhealthy");
    let output = check["output"].as_str().unwrap();
    assert!(providers.iter().all(|name| output.contains(name)), "{check:#}");
    for path in ["/health", "/health/startup", "/health/ready", "/health/live"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let probed = |outcome: &str| {
        let name = &providers[0];
        let labels = format!("name=\"{name}\",outcome=\"{outcome}\"");
        server.get("/metrics").body.contains(&format!("probes_total{{{labels}}}"))
    };
    assert!(probed("failed") && !probed("succeeded"));
}

/// V1, B4: a provider that is not called is no healthy one, whatever the reason that its breaker has;
/// health says of it what the level of service says.
#[test]
fn v1_a_provider_that_is_isolated_or_held_open_is_seen_by_health() {
    let (server, [one, other]) = with_two_providers(Duration::ZERO);
    let (one, other) = (&*one, &*other);
    let unknown = checked(&server, "embedding");
    assert_eq!(unknown["state"], "unknown");
    assert_eq!(unknown["output"], format!("not called yet: {one}, {other}"));
    for (action, state) in [
        (json!({"action": "isolate"}), "isolated"),
        (json!({"action": "force-open", "for": "1h"}), "open"),
    ] {
        command(&server, one, &action);
        let check = checked(&server, "embedding");
        assert_eq!(check["state"], "degraded", "the other one is called: {check:#}");
        assert_eq!(check["output"], format!("{one}: its breaker is {state}"));
        command(&server, other, &action);
        assert_eq!(checked(&server, "embedding")["state"], "unhealthy");
        until(
            || server.get("/admin/level").json(),
            |shown| shown["standing"]["reason"].as_str().is_some_and(|it| it.contains(one)),
        );
        for provider in [one, other] {
            command(&server, provider, &json!({"action": "reset"}));
        }
        assert_eq!(checked(&server, "embedding")["state"], "unknown");
    }
    // What is switched off is called, so nothing is wrong with it.
    command(&server, one, &json!({"action": "disable"}));
    assert_eq!(checked(&server, "embedding")["state"], "unknown");
    for provider in [one, other] {
        let provider = server.db.pipelines().dependency(provider).unwrap();
        provider.figures().succeeded(Duration::from_millis(1));
    }
    assert_eq!(checked(&server, "embedding")["state"], "healthy");
}

/// V1: whoever declares a dependency finds it in `/health`, with its weight, although nobody has
/// written a check for it.
#[test]
fn v1_every_declared_dependency_is_in_health_without_a_check_of_its_own() {
    let server = with_documents();
    let declare = |name: &str, weight| {
        let breaker = CircuitBreaker::external_service(name);
        let declared = Dependency::new(breaker, DependencyKind::Http, weight);
        server.db.pipelines().declare(&declared);
        declared
    };
    for (weight, state, whole) in [
        (Criticality::Informative, "degraded", "healthy"),
        (Criticality::Degrades, "degraded", "degraded"),
        (Criticality::Critical, "unhealthy", "unhealthy"),
    ] {
        let name = format!("dependencies/{}", weight.as_str());
        assert_eq!(checked(&server, &name)["state"], "healthy");
        let health = server.get("/health?fresh=true").json();
        assert_eq!(health["checks"][format!("{name}:count")][0]["observedValue"], 0.0);
        let extra = declare(&format!("extra/{}", weight.as_str()), weight);
        let _beside_it = declare(&format!("beside/{}", weight.as_str()), weight);
        let health = server.get("/health?fresh=true").json();
        assert_eq!(health["state"], "healthy", "{health:#}");
        let listed = &health["checks"][format!("{name}:{}", extra.name())][0];
        assert_eq!(listed["observedValue"], 0.0, "{health:#}");
        extra.breaker().isolate();
        let check = checked(&server, &name);
        assert_eq!((&check["state"], &check["criticality"]), (&json!(state), &json!(weight)));
        assert_eq!(check["output"], format!("{}: its breaker is isolated", extra.name()));
        assert_eq!(server.get("/health?fresh=true").json()["state"], whole);
        extra.breaker().reset();
        assert_eq!(server.get("/health?fresh=true").json()["state"], "healthy");
    }
}

/// V1: the server searches itself, and none of its searches comes back. No loop that waits for a
/// method decides whether the process lives.
#[test]
fn the_process_lives_while_every_method_hangs() {
    let operations = OperationsConfig {
        probe_every: Duration::from_millis(100),
        probe_timeout: Duration::from_secs(6),
        ..OperationsConfig::default()
    };
    let server = Running::start_with(Config { operations, ..Config::default() });
    let methods = Method::ALL;
    methods.into_iter().for_each(|method| server.break_method(method, InjectedFault::Hang));
    let docs = server.db.collection("default").unwrap();
    until(
        || json!(methods.map(|method| docs.dependency(method).faults().struck())),
        |struck| !struck.as_array().unwrap().contains(&json!(0)),
    );
    let live = server.get("/health/live");
    assert_eq!(live.status, 200, "{}", live.body);
    assert_eq!(
        live.json()["watched"],
        json!(["memory", "levels", "dependencies", "judge"]),
        "{}",
        live.body
    );
    methods.into_iter().for_each(|method| server.mend_method(method));
}

/// B3, B4, B7: breakers are listed with state, error rate, last change and next probe, and moved by
/// hand; each move is audited and shown by the metrics.
#[test]
fn breakers_are_listed_and_moved_by_hand() {
    let server = with_documents();
    search(&server);
    let all = server.get("/admin/dependencies").json();
    let names: Vec<_> =
        all["dependencies"].as_array().unwrap().iter().map(|d| d["name"].clone()).collect();
    let methods = ["default/bm25", "default/native", "default/semantic", "default/tantivy"];
    assert_eq!(names, [&["catalogue/sqlite"], &methods[..]].concat());
    let path = "/admin/dependencies/default/semantic";
    let one = server.get(path).json();
    assert_eq!((one["state"].clone(), one["error_rate"].clone()), (json!("closed"), json!(0.0)));
    assert!(one["p99_ms"].is_number() && one["calls"].as_u64() >= Some(1), "{one:#}");

    let opened = server.post(path, &json!({"action": "force-open", "for": "1h", "why": "drill"}));
    let opened = opened.json();
    assert_eq!(opened["state"], "open");
    assert!(opened["next_probe_ms"].as_u64() > Some(3_000_000), "{opened:#}");
    assert_eq!(status_of(&search(&server), "semantic"), "skipped");
    // Servers of other tests share the receiver, so only that it is there can be told.
    let gauge = "mainstay_circuit_breaker_state{name=\"default/semantic\"}";
    assert!(server.get("/metrics").body.contains(gauge));
    for (action, state) in [("isolate", "isolated"), ("disable", "disabled"), ("reset", "closed")] {
        assert_eq!(server.post(path, &json!({"action": action})).json()["state"], state);
    }
    assert_eq!(status_of(&search(&server), "semantic"), "ok");
    let [event] = &audited(&server, "breaker.force-open")[..] else { panic!("one event") };
    assert_eq!(
        (&event["target"], &event["before"], &event["after"], &event["why"]),
        (&json!("default/semantic"), &json!("closed"), &json!("open"), &json!("drill"))
    );
    for wrong in [
        json!({"action": "explode"}),
        json!({"action": "reset", "for": "1s"}),
        json!({"action": "force-open", "for": "soon"}),
    ] {
        assert_eq!(server.post(path, &wrong).problem(), "bad_request", "{wrong}");
    }
    let nobody = server.post("/admin/dependencies/nobody", &json!({"action": "reset"}));
    assert_eq!(nobody.problem(), "dependency_not_found");
}

/// D4, D6: what each level leaves out, and that every answer carries level and reason.
#[test]
fn each_level_has_its_effect_on_searches_and_writes() {
    let server = with_documents();
    let hold = |level: &str| {
        let body = json!({"level": level, "for": "1h", "why": "a drill"});
        assert_eq!(server.put("/admin/level", &body).status, 200);
    };
    let put = || server.put("/collections/default/documents/9", &json!({"body": "new"}));
    hold("degraded");
    let answer = search(&server);
    assert_eq!((&answer["level"], &answer["complete"]), (&json!("degraded"), &json!(true)));
    assert_eq!(answer["reason"], "held by anonymous: a drill");
    for path in ["/health", "/collections/nowhere"] {
        let headers = server.get(path).headers;
        assert_eq!(headers["x-mainstay-level"], "degraded", "{path}");
        assert_eq!(headers["x-mainstay-level-reason"], "held by anonymous: a drill", "{path}");
    }
    hold("minimal");
    // Not asked before, so nothing is kept that could stand in.
    let answer = server.post("/search", &json!({"query": "zebra", "limit": 9})).json();
    assert_eq!((&answer["level"], &answer["complete"]), (&json!("minimal"), &json!(false)));
    assert_eq!(status_of(&answer, "bm25"), "ok");
    for method in ["tantivy", "native", "semantic"] {
        assert_eq!(status_of(&answer, method), "skipped");
    }
    assert_eq!(answer["results"][0]["id"], "1");
    assert_eq!(put().status, 200);
    hold("maintenance");
    assert_eq!(put().problem(), "read_only");
    assert_eq!(server.delete("/collections/default/documents/9").problem(), "read_only");
    assert!(put().retry_after.is_some());
    assert_eq!(search(&server)["level"], "maintenance");
    let shown = server.get("/admin/level").json();
    assert_eq!(shown["standing"]["level"], "maintenance");
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("\nmainstay_level ") && metrics.contains("mainstay_level_reason{"));
    assert_eq!(server.delete("/admin/level?why=over").status, 200);
    assert_eq!(server.delete("/admin/level").problem(), "level_not_held");
    let full = put();
    assert_eq!((full.status, full.headers.get("x-mainstay-level-reason")), (200, None));
    assert_eq!(audited(&server, "level.hold").len(), 3);
    for wrong in [
        json!({"level": "best", "for": "1h", "why": ""}),
        json!({"level": "full", "for": "1 h 3", "why": ""}),
        json!({"level": "full", "for": "30d", "why": ""}),
    ] {
        assert_eq!(server.put("/admin/level", &wrong).problem(), "bad_request", "{wrong}");
    }
}

/// D4: at `degraded` a method contributes half of its candidates, at `minimal` a quarter.
#[test]
fn each_level_looks_at_its_share_of_the_candidates() {
    let server = Running::start();
    let document =
        |n: u32| json!({"id": n.to_string(), "body": format!("zebra {n}"), "language": "en"});
    let documents: Vec<Value> = (0..150).map(document).collect();
    let seq = server.put("/collections/default/documents", &json!(documents)).json()["seq"].clone();
    let docs = server.db.collection("default").unwrap();
    assert!(docs.wait_indexed(seq.as_u64().unwrap(), &Method::ALL, Duration::from_secs(60)));
    // A facet that every document has counts the candidates. Each time another page, so that no
    // kept answer stands in.
    let candidates = |method: &str, limit: usize| {
        let asked =
            json!({"query": "zebra", "methods": [method], "limit": limit, "facets": ["language"]});
        let answer = server.post("/search", &asked).json();
        assert_eq!(answer["results"].as_array().map(Vec::len), Some(limit), "{answer:#}");
        answer["facets"]["language"][0]["count"].clone()
    };
    let hold = |level: &str| {
        let body = json!({"level": level, "for": "1h", "why": "a drill"});
        assert_eq!(server.put("/admin/level", &body).status, 200);
    };
    assert_eq!((candidates("semantic", 10), candidates("bm25", 10)), (json!(100), json!(100)));
    hold("degraded");
    assert_eq!((candidates("semantic", 9), candidates("bm25", 9)), (json!(50), json!(50)));
    hold("minimal");
    assert_eq!(candidates("bm25", 8), 25);
    assert_eq!(candidates("bm25", 30), 30, "as many as are asked for at least");
}

/// D4, O5: at `minimal` nothing is begun that nobody waits for, whether the level is held by hand or
/// moved there by itself; who is turned away hears why and when to come again.
#[test]
fn d4_at_the_minimum_work_in_bulk_is_turned_away() {
    let mut operations = OperationsConfig::default();
    (operations.levels.worsen_after_ms, operations.levels.recover_after_ms) = (0, 0);
    let server = Running::start_with(Config { operations, ..Config::default() });
    crate::indexed(&server);
    let line = b"{\"id\": \"2\", \"body\": \"a walrus\"}\n";
    let documents = "/collections/default/documents";
    let stream = || server.send("PUT", documents, "application/x-ndjson", line);
    let urgency = |urgency: u8| {
        let search = crate::agent().post(server.url("/search"));
        let search = search.header("priority", format!("u={urgency}"));
        crate::Answer::of(search.send_json(json!({"query": "zebra"})))
    };
    let level = || server.get("/admin/level").json();
    let is_minimal_until = |over: &dyn Fn()| {
        // The floor follows the level within a turn of the loop.
        until(|| json!(stream().status), |status| status == 503);
        for refused in [stream(), urgency(5), urgency(6), urgency(7)] {
            assert_eq!((refused.status, refused.problem()), (503, "overloaded".to_string()));
            assert_eq!(refused.json()["reason"], "priority", "{}", refused.body);
            let seconds = refused.retry_after.unwrap();
            assert!(seconds.parse::<u64>().unwrap() >= 1, "{seconds}");
        }
        assert_eq!((urgency(4).status, urgency(0).status), (200, 200), "somebody waits for these");
        assert_eq!(server.put(documents, &json!([{"id": "3", "body": "x"}])).status, 200);
        over();
        until(|| json!(stream().status), |status| status == 200);
        assert_eq!(urgency(7).status, 200);
    };
    let body = json!({"level": "minimal", "for": "1h", "why": "a drill"});
    assert_eq!(server.put("/admin/level", &body).status, 200);
    is_minimal_until(&|| assert_eq!(server.delete("/admin/level").status, 200));

    let methods = ["default/native", "default/semantic", "default/tantivy"];
    let all = |action: &str| {
        methods.iter().for_each(|it| command(&server, it, &json!({"action": action})));
    };
    all("isolate");
    let shown = until(level, |shown| shown["standing"]["level"] == "minimal");
    assert_eq!(shown["standing"]["from"], "breakers", "{shown:#}");
    is_minimal_until(&|| all("reset"));
}

/// D4, D5: the level follows the breakers by itself, and what mended itself is in the audit trail.
#[test]
fn open_breakers_lower_the_level_and_their_recovery_is_noted() {
    let server = with_documents();
    server.break_method(Method::Semantic, InjectedFault::Error);
    for _ in 0..5 {
        search(&server);
    }
    let shown = until(
        || server.get("/admin/level").json(),
        |shown| shown["standing"]["level"] == "degraded",
    );
    assert_eq!(shown["standing"]["reason"], "breakers are open: semantic");
    assert_eq!(search(&server)["level"], "degraded");
    let opened = until(
        || json!(audited(&server, "breaker.change")),
        |events| events.as_array().is_some_and(|events| !events.is_empty()),
    );
    assert_eq!(
        (&opened[0]["after"], &opened[0]["why"]),
        (&json!("open"), &json!("injected error"))
    );
    server.db.collection("default").unwrap().dependency(Method::Semantic).faults().clear();
    server.post("/admin/dependencies/default/semantic", &json!({"action": "reset"}));
    until(|| json!(audited(&server, "breaker.change")), |events| events[0]["after"] == "closed");
}

/// D2, D4: a level that leaves out all that still works would turn less service into none, so the
/// other methods are the alternative.
#[test]
fn the_minimum_asks_the_others_when_its_own_method_is_broken() {
    let server = with_documents();
    let body = json!({"level": "minimal", "for": "1h", "why": "drill"});
    server.put("/admin/level", &body);
    server.post("/admin/dependencies/default/bm25", &json!({"action": "isolate"}));
    let answer = server.post("/search", &json!({"query": "zebra", "limit": 8})).json();
    assert_eq!(status_of(&answer, "bm25"), "skipped");
    assert_eq!(status_of(&answer, "tantivy"), "ok");
    assert_eq!(answer["results"][0]["id"], "1");
}

/// D2, D4: at the least service a kept answer is given without any work, unless its flag is off; what
/// was not kept is asked anew, of the lexical method.
#[test]
fn d4_the_minimum_gives_kept_answers() {
    let server = with_documents();
    let full = search(&server);
    assert_eq!((&full["complete"], &full["age_ms"]), (&json!(true), &Value::Null));
    let body = json!({"level": "minimal", "for": "1h", "why": "drill"});
    server.put("/admin/level", &body);
    let kept = search(&server);
    assert_eq!((&kept["level"], &kept["complete"]), (&json!("minimal"), &json!(false)));
    assert!(kept["age_ms"].is_number(), "{kept:#}");
    let reason = kept["reason"].as_str().unwrap();
    assert!(reason.starts_with("a kept answer: ") && reason.contains("drill"), "{reason}");
    assert_eq!(kept["results"], full["results"]);
    let strict = server.post("/search", &json!({"query": "zebra", "limit": 8, "strict": true}));
    assert_eq!(strict.json()["age_ms"], Value::Null, "{}", strict.body);
    let other = server.post("/search", &json!({"query": "zebra", "limit": 7})).json();
    assert_eq!((&other["age_ms"], status_of(&other, "bm25")), (&Value::Null, "ok".into()));
    server.put("/admin/flags/search.stale-answers", &json!({"enabled": false}));
    let asked = search(&server);
    assert_eq!((&asked["age_ms"], status_of(&asked, "bm25")), (&Value::Null, "ok".into()));
}

/// D2: with every method broken a kept answer stands in, and says so; strict callers get the error.
#[test]
fn a_kept_answer_stands_in_when_nothing_answers() {
    let server = with_documents();
    assert_eq!(search(&server)["complete"], true);
    for method in Method::ALL {
        server.break_method(method, InjectedFault::Error);
    }
    let answer = search(&server);
    assert_eq!((&answer["complete"], &answer["level"]), (&json!(false), &json!("minimal")));
    assert!(answer["age_ms"].is_number());
    assert!(
        answer["reason"].as_str().unwrap().starts_with("a kept answer: no answer: bm25 failed"),
        "{answer:#}"
    );
    assert_eq!(answer["results"][0]["id"], "1");
    let strict = server.post("/search", &json!({"query": "zebra", "strict": true}));
    assert_eq!(strict.problem(), "unanswered");
    let other = server.post("/search", &json!({"query": "never asked before"}));
    assert_eq!(other.problem(), "unanswered");
    server.put("/admin/flags/search.stale-answers", &json!({"enabled": false}));
    assert_eq!(server.post("/search", &json!({"query": "zebra"})).problem(), "unanswered");
}

/// D1: flags change what happens at once, for a share of users, and are audited.
#[test]
fn flags_switch_methods_and_are_evaluated_for_users() {
    let server = with_documents();
    let off = server.put("/admin/flags/method.native?why=slow", &json!({"enabled": false}));
    assert_eq!(off.json()["value"], false);
    let answer = search(&server);
    assert_eq!(status_of(&answer, "native"), "skipped");
    assert_eq!(answer["reason"], "switched off by method.native");
    assert_eq!(server.delete("/admin/flags/method.native").status, 204);
    assert_eq!(status_of(&search(&server), "native"), "ok");

    let share = json!({
        "variants": {"on": true, "off": false}, "default": "off", "off": "off",
        "rules": [{"when": {"user": ["ada"]}, "variant": "on"}, {"percent": 30.0, "variant": "on"}],
    });
    assert_eq!(server.put("/admin/flags/experiment", &share).status, 200);
    let of = |user: &str| server.get(&format!("/admin/flags/experiment?user={user}")).json();
    assert_eq!(
        (of("ada")["value"].clone(), of("ada")["reason"].clone()),
        (json!(true), json!("TARGETING_MATCH"))
    );
    let on = (0..300).filter(|user| of(&format!("user-{user}"))["value"] == true).count();
    assert!((60..120).contains(&on), "{on} of 300 at 30 %");
    let events = audited(&server, "flag.set");
    assert_eq!(events.len(), 1);
    for (path, body, problem) in [
        ("/admin/flags/nothing", json!({"enabled": true}), "flag_not_found"),
        (
            "/admin/flags/method.bm25",
            json!({"variants": {"a": 1}, "default": "a", "off": "a"}),
            "bad_request",
        ),
        ("/admin/flags/x", json!({"variants": {}, "default": "a", "off": "a"}), "bad_request"),
        ("/admin/flags/x", json!([]), "bad_request"),
    ] {
        assert_eq!(server.put(path, &body).problem(), problem, "{path} {body}");
    }
    server.put("/admin/flags/writes", &json!({"enabled": false}));
    let put = server.put("/collections/default/documents/9", &json!({"body": "new"}));
    assert_eq!(put.problem(), "read_only");
    let removed = server.delete("/collections/default/documents/1");
    assert_eq!(removed.status, 204, "removing makes room");
}

/// V6: objectives count requests, and are given out as rules for Prometheus.
#[test]
fn objectives_are_counted_and_given_out_as_rules() {
    let server = with_documents();
    search(&server);
    for method in Method::ALL {
        server.break_method(method, InjectedFault::Error);
    }
    assert_eq!(server.post("/search", &json!({"query": "no answer"})).status, 503);
    assert_eq!(server.post("/search", &json!({"limit": 0, "query": "x"})).status, 400);
    let shown = until(
        || server.get("/admin/slo").json(),
        |shown| {
            let objectives = shown["slo"]["objectives"].as_array().unwrap();
            let found = objectives.iter().find(|o| o["name"] == "availability").unwrap();
            found["bad"] == 1 && found["good"].as_u64() >= Some(2)
        },
    );
    assert!(shown["reliability"]["mtbf_lower_hours"].is_number(), "{shown:#}");
    let writes = |shown: &Value| {
        let objectives = shown["slo"]["objectives"].as_array().unwrap();
        objectives.iter().find(|o| o["name"] == "writes").unwrap().clone()
    };
    let stored = writes(&shown)["good"].as_u64().unwrap();
    // Writes have a budget of their own: one that is not taken, one that is, one that is wrong.
    server.put("/admin/flags/writes", &json!({"enabled": false}));
    assert_eq!(server.put("/collections/default/documents/9", &json!({"body": "new"})).status, 503);
    server.delete("/admin/flags/writes");
    assert_eq!(server.put("/collections/default/documents/9", &json!({"body": "new"})).status, 200);
    assert_eq!(server.put("/collections/default/documents/9", &json!({"colour": 1})).status, 400);
    until(
        || server.get("/admin/slo").json(),
        |shown| {
            let found = writes(shown);
            // Those that `with_documents` stored are among them.
            found["bad"] == 1 && found["good"] == stored + 2
        },
    );
    let rules = server.get("/admin/slo/rules");
    assert_eq!(rules.kind, "application/yaml");
    assert!(
        rules.body.contains("MainstayBudgetBurnPage")
            && rules.body.contains("mainstay_slo_events_total")
    );
    let page = include_str!("../../../../docs/operations/objectives.md");
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: Vec<_> = headings.map(|it| it.to_lowercase().replace(' ', "-")).collect();
    for line in rules.body.lines().filter(|line| line.contains("runbook_url: ")) {
        let section = line.split_once("docs/operations/objectives.md#").unwrap().1;
        let section = section.trim_matches('"').to_string();
        assert!(sections.contains(&section), "the page lacks {section}");
    }
}

/// O2, B3, D4: at the last step of memory what embeds is isolated, the level is minimal and says
/// why, searches are turned away on purpose, and control calls pass.
#[test]
fn at_the_last_step_of_memory_what_embeds_is_isolated() {
    let kernel = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(kernel.path().join("proc/self")).unwrap();
    crate::ladder::uses(kernel.path(), 95 << 20);
    let mut config = Config::default();
    config.operations.memory.limit_bytes = 100 << 20;
    let host = Host::new(&HandleConfig::default(), None).unwrap();
    let host = Host { kernel: KernelFiles::at(kernel.path()), ..host };
    let fs = host.file_system();
    let server = Running::start_hosted(host, fs, config, |_| {});
    let shown = until(
        || server.get("/admin/level").json(),
        |shown| shown["standing"]["level"] == "minimal",
    );
    assert_eq!(shown["standing"]["reason"], "memory is at step emergency");
    assert_eq!(shown["standing"]["from"], "memory");
    let path = "/admin/dependencies/default/semantic";
    until(|| server.get(path).json(), |shown| shown["state"] == "isolated");
    let [event] = &audited(&server, "breaker.isolate")[..] else { panic!("one event") };
    assert_eq!(
        (&event["target"], &event["who"], &event["why"]),
        (&json!("default/semantic"), &json!("system"), &json!("memory is at step emergency"))
    );
    assert_eq!(server.get("/admin/dependencies/default/bm25").json()["state"], "closed");
    let refused = server.post("/search", &json!({"query": "zebra"}));
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    assert_eq!(refused.json()["reason"], "memory");
}

/// V5: whoever changes or drops what others search is in the audit trail.
#[test]
fn what_is_done_to_collections_is_in_the_audit_trail() {
    let server = with_documents();
    assert_eq!(server.post("/collections", &json!({"name": "a", "model": "static"})).status, 201);
    let admin = |verb: &str| format!("/admin/collections/a/{verb}");
    assert_eq!(server.put(&admin("weights"), &json!({"weights": [1, 1, 2, 1]})).status, 204);
    assert_eq!(server.post(&admin("rebuild"), &json!({"method": "bm25"})).status, 204);
    assert_eq!(server.post(&admin("verify"), &json!({})).status, 200);
    assert_eq!(server.delete("/collections/a").status, 204);
    for (action, target) in [
        ("collection.create", "a"),
        ("collection.weights", "a"),
        ("view.rebuild", "a/bm25"),
        ("collection.verify", "a"),
        ("collection.drop", "a"),
    ] {
        let [event] = &audited(&server, action)[..] else { panic!("one event of {action}") };
        assert_eq!((&event["target"], &event["who"]), (&json!(target), &json!("anonymous")));
    }
}

/// O3: connections and files draw on the pool, and it is shown.
#[test]
fn the_handle_pool_counts_connections_and_files() {
    let server = with_documents();
    let shown = server.get("/admin/resources").json();
    assert!(shown["handles"]["connections"].as_u64() >= Some(1), "{shown:#}");
    // The lock of the data directory and the log of the collection at least.
    assert!(shown["handles"]["files"].as_u64() >= Some(2), "{shown:#}");
    assert!(shown["handles"]["max"].as_u64() > Some(100));
    assert_eq!(shown["memory"]["step"], "normal");
}

/// O3: what needs one more file than there are handles is refused and says what to do; reads go on,
/// and writes go on once there are handles again.
#[test]
fn o3_without_a_handle_for_a_file_the_error_is_clear_and_writes_recover() {
    let server = with_documents();
    let mut held = Vec::new();
    while let Ok(permit) = server.handles.try_acquire(HandleClass::Files) {
        held.push(permit);
    }
    let create =
        |name: &str| server.post("/collections", &json!({"name": name, "model": "static"}));
    let refused = create("more");
    assert!(refused.status >= 500, "{}", refused.body);
    let detail = refused.json()["detail"].as_str().unwrap().to_string();
    assert!(detail.contains("file handles for files") && detail.contains("ulimit -n"), "{detail}");
    search(&server);
    drop(held);
    assert_eq!(create("more").status, 201);
    for collection in ["default", "more"] {
        let path = format!("/collections/{collection}/documents/9");
        let answer = server.put(&path, &json!({"body": "new"}));
        assert_eq!(answer.status, 200, "{collection}: {}", answer.body);
    }
}

#[test]
fn a_server_without_sources_of_settings_says_so() {
    let server = Running::start();
    assert_eq!(server.get("/admin/config").problem(), "no_settings");
    assert_eq!(server.post("/admin/config/reload", &json!({})).problem(), "no_settings");
    assert_eq!(server.get("/admin/audit?limit=0").problem(), "bad_request");
}
