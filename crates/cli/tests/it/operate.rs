//! The commands of an operator against a running server.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use serde_json::{Value, json};

use crate::server::{Server, agent};
use crate::{Ran, mainstay, text};

/// V2: exit codes for scripts: 0 healthy, 1 degraded, 3 when nobody answers.
#[test]
fn health_says_how_the_server_is_in_words_and_exit_codes() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let healthy = server.mainstay(&["health"]).ok().out;
    assert!(healthy.starts_with("healthy, ready"), "{healthy}");
    assert!(healthy.contains("search/semantic"), "{healthy}");
    assert!(!healthy.contains('\x1b'), "no colours where nobody looks");
    let verbose = server.mainstay(&["health", "--verbose"]).ok().out;
    assert!(verbose.contains("memory_max") && verbose.contains("workers"), "{verbose}");
    let json = server.mainstay(&["health", "--json"]).ok().json();
    assert_eq!((&json["status"], &json["state"]), (&json!("pass"), &json!("healthy")));

    let why = ["--why", "a drill"];
    let isolate = [&["dependencies", "isolate", "default/semantic"], &why[..]].concat();
    server.mainstay(&isolate).ok();
    let degraded = server.mainstay(&["health", "--verbose"]);
    assert_eq!(degraded.code, 1, "{}", degraded.out);
    assert!(degraded.out.contains("default: its breaker is isolated"), "{}", degraded.out);

    let nobody = mainstay(&["health", "--url", "http://127.0.0.1:9"]);
    assert_eq!(nobody.code, 3);
    assert!(nobody.out.contains("is the server running?"), "{}", nobody.out);
    let nobody = mainstay(&["health", "--json", "--url", "http://127.0.0.1:9"]);
    assert_eq!((nobody.code, nobody.json()["state"].clone()), (3, json!("unknown")));
}

/// V2: what answers and is no server of ours says nothing of how one is.
#[test]
fn health_is_unknown_when_something_else_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        }
    });
    let unknown = mainstay(&["health", "--url", &url]);
    assert_eq!(unknown.code, 3, "{}{}", unknown.out, unknown.err);
    assert!(unknown.out.contains("answered 200 and no report"), "{}", unknown.out);
}

/// V2: whoever asks how a server is does not hang with it.
#[test]
fn health_is_unknown_when_nothing_is_answered() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Connections come into the system's queue, and nobody takes them out of it.
    for verbose in [&[][..], &["--verbose"]] {
        let ask = ["health", "--timeout", "300ms", "--url", &url];
        let unknown = mainstay(&[&ask, verbose].concat());
        assert_eq!(unknown.code, 3, "{}{}", unknown.out, unknown.err);
        assert!(unknown.out.contains("no answer within 0.3 s; does the"), "{}", unknown.out);
    }
    for wrong in ["0s", "soon"] {
        assert_eq!(mainstay(&["health", "--timeout", wrong, "--url", &url]).code, 2);
    }
}

/// V1: while the server starts, whoever waits for that hears so, and nothing else.
#[test]
fn startup_is_answered_before_the_start_is_over() {
    let data = tempfile::tempdir().unwrap();
    // A catalogue that takes connections and never answers: a node that has never seen it waits.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let catalogue = format!("postgres://ada@{}/x", hangs.local_addr().unwrap());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["serve", "--data", text(data.path()), "--listen", &address, "--model", "static"])
        .args(["--set", "catalogue.acquire_timeout=1m", "--set", "service.catalogue.timeout=1m"])
        .env("MAINSTAY_CATALOGUE_URL", &catalogue)
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    // Those that never ask keep nobody from hearing.
    let mut idle = Vec::new();
    let ask = |path: &str| agent().get(format!("http://{address}{path}")).call();
    let mut startup = loop {
        match ask("/health/startup") {
            Ok(answer) => break answer,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    };
    idle.extend((0..8).map(|_| std::net::TcpStream::connect(&address).unwrap()));
    assert_eq!(
        (startup.status().as_u16(), &startup.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    assert_eq!(startup.headers()["x-content-type-options"], "nosniff");
    let problem: Value = startup.body_mut().read_json().unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!("starting"), &json!(503)));
    for (path, status) in [("/health/ready", 503), ("/health/live", 200), ("/search", 503)] {
        assert_eq!(ask(path).unwrap().status(), status, "{path}");
    }
    let unknown = mainstay(&["health", "--url", &format!("http://{address}")]);
    assert_eq!(unknown.code, 3, "{}", unknown.out);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(idle);
}

/// V2: colours for who looks at a terminal, unless told otherwise, and for nobody else.
#[test]
fn health_is_coloured_in_a_terminal_and_not_with_no_color() {
    const GREEN: &str = "\x1b[32mhealthy";
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let shown = |mut command: Command, variables: &[(&str, &str)]| {
        let command = command.env("MAINSTAY_URL", &server.url).env("TERM", "xterm-256color");
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "MAINSTAY_DATA"] {
            command.env_remove(name);
        }
        let output = command.envs(variables.iter().copied()).output();
        output.map(Ran::of)
    };
    let plainly = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.arg("health");
        command
    };
    let in_a_terminal = || {
        let mut command = Command::new("script");
        command.args([
            "-qec",
            concat!(env!("CARGO_BIN_EXE_mainstay"), " health --verbose"),
            "/dev/null",
        ]);
        command
    };
    assert!(!shown(plainly(), &[]).unwrap().ok().out.contains('\x1b'));
    let forced = shown(plainly(), &[("CLICOLOR_FORCE", "1")]).unwrap().ok().out;
    assert!(forced.starts_with(GREEN), "{forced:?}");
    let Ok(coloured) = shown(in_a_terminal(), &[]) else {
        return eprintln!("skipped: script of util-linux is not installed");
    };
    let coloured = coloured.ok().out;
    assert!(coloured.contains(GREEN) && coloured.contains("search/semantic"), "{coloured:?}");
    let plain = shown(in_a_terminal(), &[("NO_COLOR", "1")]).unwrap().ok().out;
    assert!(plain.contains("healthy") && !plain.contains('\x1b'), "{plain:?}");

    server.mainstay(&["dependencies", "isolate", "default/semantic"]).ok();
    let degraded = shown(in_a_terminal(), &[]).unwrap();
    assert_eq!(degraded.code, 1, "{}", degraded.out);
    assert!(degraded.out.contains("\x1b[33mdegraded"), "{:?}", degraded.out);
}

/// B4, D1, D4: what an operator set outlives an orderly end and a kill.
#[test]
fn what_an_operator_set_outlives_restarts() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    server.mainstay(&["flags", "off", "method.native", "--why", "slow"]).ok();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));

    let mut server = Server::start(data.path());
    let flag = server.mainstay(&["flags", "show", "method.native", "--json"]).ok().json();
    assert_eq!((&flag["value"], &flag["overridden"]), (&json!(false), &json!(true)));
    let hold = ["level", "hold", "maintenance", "--for", "1h", "--why", "moving house"];
    let held = server.mainstay(&hold).ok().out;
    assert!(held.contains("maintenance: held by") && held.contains("takes no writes"), "{held}");
    server.child.kill().unwrap();
    server.child.wait().unwrap();

    let server = Server::start(data.path());
    let level = server.mainstay(&["level", "--json"]).ok().json();
    assert_eq!(level["standing"]["level"], "maintenance");
    server.mainstay(&["level", "release", "--why", "over"]).ok();
    let again = server.mainstay(&["level", "release"]);
    assert_eq!(again.code, 2);
    assert!(again.err.contains("no level is held by hand"), "{}", again.err);
    // V6: the time between the kill and the start is dead time, with an incident.
    let slo = server.mainstay(&["slo", "--json"]).json();
    let titles = slo["incidents"].to_string();
    assert!(slo["incidents"].as_array().is_some_and(|all| !all.is_empty()), "{slo:#}");
    assert!(titles.contains("dead") || titles.contains("not running"), "{titles}");
    // V6: MTBF above 720 h, MTTR below 15 min; one failure in its first minute is one too many.
    let judged = slo["slo"]["mean_times"].as_array().unwrap();
    let of = |at: usize| (judged[at]["name"].clone(), judged[at]["target_seconds"].clone());
    assert_eq!((of(0), of(1)), ((json!("mtbf"), json!(2_592_000)), (json!("mttr"), json!(900))));
    assert_eq!(judged[0]["verdict"], "missed", "{judged:#?}");
    let table = server.mainstay(&["slo"]);
    assert_eq!(table.code, 1, "a promise is missed: {}", table.out);
    // Each incident with its beginning, its length and its cause.
    let began = slo["incidents"][0]["began_unix_ms"].as_u64().unwrap();
    let cause = slo["incidents"][0]["key"].as_str().unwrap();
    for shown in [&mainstay_server::format_time(began), cause, "lasted"] {
        assert!(table.out.contains(shown), "{shown} is not in\n{}", table.out);
    }
    for shown in
        ["mean time between failures, at least", "720.0 h", "15.0 min", "missed", "1 failure in"]
    {
        assert!(table.out.contains(shown), "{shown} is not in\n{}", table.out);
    }
    let journal = fs::read_to_string(data.path().join("state/audit.ndjson")).unwrap();
    let actions: Vec<Value> = journal
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["action"].clone())
        .collect();
    for action in ["flag.enable", "level.hold", "level.release"] {
        assert!(actions.contains(&json!(action)), "{action} is not in {actions:?}");
    }
}

#[test]
fn dependencies_flags_objectives_and_audit_are_printed_for_people() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let body = json!({"query": "x"});
    agent().post(format!("{}/search", server.url)).send_json(&body).unwrap();
    let all = server.mainstay(&["dependencies"]).ok().out;
    assert!(all.contains("default/tantivy") && all.contains("closed"), "{all}");
    let opened = server.mainstay(&["dependencies", "force-open", "default/bm25", "--for", "1h"]);
    assert!(opened.ok().out.contains("open"));
    let reset = server.mainstay(&["dependencies", "reset", "default/bm25", "--json"]).ok().json();
    assert_eq!(reset["dependencies"][0]["state"], "closed");
    let wrong = server.mainstay(&["dependencies", "reset", "nobody"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("there is no dependency nobody"), "{}", wrong.err);
    assert!(server.mainstay(&["flags"]).ok().out.contains("search.refine"));
    const FLAG: &str = r#"{"variants": {"a": 1, "b": 2}, "default": "a", "off": "b",
        "rules": [{"when": {"collection": ["a b"]}, "variant": "b"}]}"#;
    let file = data.path().join("flag.json");
    fs::write(&file, FLAG).unwrap();
    server.mainstay(&["flags", "set", "shape", text(&file)]).ok();
    assert!(server.mainstay(&["flags", "show", "shape", "--user", "ada"]).ok().out.contains('1'));
    let of = |collection: &str| {
        let list = server.mainstay(&["flags", "list", "--collection", collection, "--json"]);
        let list = list.ok().json();
        list.as_array().unwrap().iter().find(|flag| flag["name"] == "shape").unwrap().clone()
    };
    assert_eq!((&of("a b")["value"], &of("docs")["value"]), (&json!(2), &json!(1)));
    server.mainstay(&["flags", "off", "shape"]).ok();
    let broken = server.mainstay(&["flags", "set", "shape", "/nowhere.json"]);
    assert!(broken.code == 2 && broken.err.contains("/nowhere.json"), "{}", broken.err);
    assert!(server.mainstay(&["slo"]).ok().out.contains("availability"));
    assert!(server.mainstay(&["slo", "--rules"]).ok().out.starts_with("groups:"));
    let audit = server.mainstay(&["audit"]).ok().out;
    assert!(audit.contains("breaker.force-open") && audit.contains("flag.set"), "{audit}");
}

/// O6: settings are read again by API, all of them or none, with a diff; R6 too.
#[test]
fn settings_are_read_again_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[dependency]\ntimeout = \"7s\"\n");
    let data = folder.path().join("data");
    let server = Server::start_with(&data, &["--config", text(&file)], &[("HTTP_RETRIES", "4")]);
    let config = |server: &Server| -> Value {
        let url = format!("{}/admin/config", server.url);
        agent().get(url).call().unwrap().body_mut().read_json().unwrap()
    };
    let before = config(&server);
    assert_eq!(before["dependency.timeout"]["value"], "7s");
    assert_eq!(before["dependency.attempts"]["value"], "4");
    assert_eq!(before["dependency.attempts"]["origin"], "HTTP_RETRIES");
    write("[dependency]\ntimeout = \"8s\"\n[service.openai]\nattempts = 2\n");
    let dry = server.mainstay(&["config", "reload", "--dry-run"]).ok().out;
    assert_eq!(
        dry.trim(),
        "dependency.timeout would be 8s (was 7s)\nservice.openai.attempts would be 2 (was not set)"
    );
    assert_eq!(config(&server)["dependency.timeout"]["value"], "7s");
    let done = server.mainstay(&["config", "reload"]).ok().out;
    assert_eq!(
        done.trim(),
        "dependency.timeout is now 8s (was 7s)\nservice.openai.attempts is now 2 (was not set)"
    );
    let after = config(&server);
    assert_eq!(after["dependency.timeout"]["value"], "8s");
    assert_eq!(after["service.openai.attempts"]["value"], "2");
    write("[dependency]\ntimeout = \"8s\"\n[service.openai]\nattempts = 4\n");
    let done = server.mainstay(&["config", "reload"]).ok().out;
    assert_eq!(done.trim(), "service.openai.attempts is now 4 (was 2)");
    assert!(server.mainstay(&["audit", "--json"]).ok().out.contains("service.openai.attempts"));
    write("[dependency]\ntimeout = \"9s\"\n[memory]\nwarn_percent = 50\n");
    let refused = server.mainstay(&["config", "reload"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("memory.warn_percent needs a restart"), "{}", refused.err);
    write("[dependency]\ntimeout = \"soon\"\n");
    let refused = server.mainstay(&["config", "reload"]);
    assert!(refused.err.contains("m.toml:2: dependency.timeout is \"soon\""), "{}", refused.err);
    assert_eq!(config(&server)["dependency.timeout"]["value"], "8s");
    assert!(server.mainstay(&["audit"]).ok().out.contains("config.reload"));
}

/// C5: keys made before the first start, used from the environment, changed while the server runs.
#[test]
fn keys_are_made_offline_and_changed_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let exposed = ["serve", "--data", text(&data), "--listen", "0.0.0.0:0", "--model", "static"];
    let refused = mainstay(&exposed);
    assert_eq!(refused.code, 3);
    assert!(refused.err.contains("mainstay keys create"), "{}", refused.err);

    let offline =
        |arguments: &[&str]| mainstay(&[&["keys", "--data", text(&data)], arguments].concat());
    let wrong = offline(&["create", "dashboard", "--scope", "read"]);
    assert!(wrong.code == 2 && wrong.err.contains("the first key must have"), "{}", wrong.err);
    let made = offline(&["create", "root", "--scope", "admin"]).ok();
    let admin = made.out.trim().to_string();
    assert!(admin.starts_with("msk_") && made.err.contains("the only time"), "{}", made.err);
    assert!(offline(&["list"]).ok().out.contains("root"));

    let server = Server::start(&data);
    server.wait_for("every request needs an API key");
    let busy = offline(&["list"]);
    assert!(busy.code == 3 && busy.err.contains("--url"), "{}", busy.err);
    let without = server.mainstay(&["level"]);
    assert!(without.code == 2 && without.err.contains("this needs an API key"), "{}", without.err);
    server.mainstay(&["health"]).ok();
    let with = |arguments: &[&str]| server.mainstay_as(&admin, arguments);
    with(&["level"]).ok();
    assert!(server.mainstay(&["search", "x"]).err.contains("this needs an API key"));
    assert_eq!(with(&["search", "x"]).code, 1, "the key is good, and nothing is found");
    let queries = folder.path().join("queries");
    fs::write(&queries, "x\n").unwrap();
    let load = ["load", "--queries", text(&queries), "--rate", "50", "--duration", "1s", "--json"];
    assert_eq!(with(&load).ok().json()["complete"], 50);
    let reader = with(&["keys", "create", "r", "--scope", "read", "--json"]).ok().json();
    let id = reader["id"].as_str().unwrap();
    let rotated = with(&["keys", "rotate", id, "--overlap", "0s"]).ok().out;
    assert!(rotated.starts_with(&format!("msk_{id}_")) && reader["key"] != rotated.trim());
    with(&["keys", "revoke", id]).ok();
    let listed = with(&["keys", "list", "--json"]).ok().json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1);
    let gone = with(&["keys", "revoke", id]);
    assert!(gone.code == 2 && gone.err.contains("there is no key"), "{}", gone.err);
    // No secret in what the server says, in its audit trail, or in its list of processes.
    let secret = admin.rsplit('_').next().unwrap();
    let journal = fs::read_to_string(data.join("state/audit.ndjson")).unwrap();
    let keys = fs::read(data.join("state/keys")).unwrap();
    assert!(!journal.contains(secret) && !String::from_utf8_lossy(&keys).contains(secret));
    assert!(server.command_line().contains("serve"), "{}", server.command_line());
    assert!(!server.command_line().contains(secret) && !server.said().contains(secret));
}

/// C5: passwords of addresses work from the environment and are seen nowhere.
#[test]
fn passwords_in_settings_are_shown_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("m.toml"));
    let address = "http://ada:hunter2@127.0.0.1:9";
    let setting = format!("telemetry.endpoint={address}");
    let refused = mainstay(&["serve", "--data", text(&data), "--set", &setting]);
    assert!(refused.code == 2 && refused.err.contains("list of processes"), "{}", refused.err);
    assert!(refused.err.contains("MAINSTAY_TELEMETRY_ENDPOINT") && !refused.err.contains("hunter"));
    fs::write(&file, "[admission]\nredis_url = \"redis://:hunter2@127.0.0.1:9\"\n").unwrap();
    let variables = [("MAINSTAY_TELEMETRY_ENDPOINT", address)];
    let server = Server::start_with(&data, &["--config", text(&file)], &variables);
    let config = server.mainstay(&["health", "--verbose"]).out;
    let shown = agent().get(format!("{}/admin/config", server.url)).call().unwrap();
    let shown = shown.into_body().read_to_string().unwrap();
    assert!(shown.contains("[redacted]@127.0.0.1:9"), "{shown}");
    fs::write(&file, "[admission]\nredis_url = \"redis://:hunter2@127.0.0.1:7\"\n").unwrap();
    let reload = server.mainstay(&["config", "reload"]);
    assert!(reload.code == 2 && reload.err.contains("needs a restart"), "{}", reload.err);
    let audit = server.mainstay(&["audit", "--json"]).out;
    for seen in [server.command_line(), server.said(), config, shown, reload.err, audit] {
        assert!(!seen.contains("hunter2"), "{seen}");
    }
}

/// C5: the only key of a server that strangers can reach is not revoked, there or on the disk.
#[test]
fn the_only_key_of_a_server_that_strangers_reach_stays() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let offline =
        |arguments: &[&str]| mainstay(&[&["keys", "--data", text(&data)], arguments].concat());
    let admin = offline(&["create", "root", "--scope", "admin"]).ok().out.trim().to_string();
    let id = admin.split('_').nth(1).unwrap();
    let mut server = Server::start_on(&data, &["--listen", "0.0.0.0:0"], &[]);
    let revoke = ["keys", "revoke", id];
    let refused = server.mainstay_as(&admin, &revoke);
    assert!(refused.code == 2 && refused.err.contains("is the last one"), "{}", refused.err);
    assert!(server.mainstay(&["level"]).err.contains("this needs an API key"));
    server.mainstay_as(&admin, &["level"]).ok();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    let refused = offline(&["--set", "server.listen=0.0.0.0:8080", "revoke", id]);
    assert!(refused.code == 2 && refused.err.contains("is the last one"), "{}", refused.err);
    offline(&["revoke", id]).ok();
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = |settings: &[&str]| {
        let begin =
            ["serve", "--data", text(&data), "--listen", "127.0.0.1:0", "--model", "static"];
        mainstay(&[&begin, settings].concat())
    };
    let half = start(&["--set", "tls.key=/nowhere/key.pem"]);
    assert!(half.code == 2 && half.err.contains("go together"), "{}", half.err);
    let pair = ["--set", "tls.key=/nowhere/key.pem", "--set", "tls.certificate=/nowhere/c.pem"];
    let missing = start(&pair);
    assert!(missing.code == 2 && missing.err.contains("/nowhere/c.pem"), "{}", missing.err);
}

/// V6: Prometheus' own checker takes the rules.
#[test]
fn the_rules_are_sound_for_prometheus() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let rules = server.mainstay(&["slo", "--rules"]).ok().out;
    let file = data.path().join("rules.yaml");
    fs::write(&file, &rules).unwrap();
    let checked = std::process::Command::new("promtool")
        .args(["check", "rules", text(&file)])
        .output()
        .expect("`cargo xtask test` installs promtool");
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{told}{}", String::from_utf8_lossy(&checked.stderr));
    assert!(told.contains("rules found"), "{told}");
}

/// D5: a damaged index is found, made anew while the others answer, and noted.
#[test]
fn a_damaged_index_is_mended_by_itself_and_noted() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let documents: Vec<Value> = (0..200)
        .map(|n| json!({"id": n.to_string(), "body": format!("zebra number {n} crosses")}))
        .collect();
    let url = format!("{}/collections/default/documents", server.url);
    agent().put(url).send_json(json!(documents)).unwrap();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    let views = data.path().join("collections/default/views");
    let bm25 = fs::read_dir(&views)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("bm25-"))
        .unwrap();
    for entry in fs::read_dir(&bm25).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes.iter_mut().skip(middle).take(16).for_each(|byte| *byte ^= 0xa5);
        fs::write(&path, bytes).unwrap();
    }
    let server = Server::start(data.path());
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    let mended = loop {
        let audit = server.mainstay(&["audit", "-n", "1000", "--json"]).ok().out;
        if let Some(line) = audit.lines().find(|line| line.contains("view.mend")) {
            break serde_json::from_str::<Value>(line).unwrap();
        }
        assert!(std::time::Instant::now() < deadline, "never mended: {audit}");
    };
    assert_eq!((&mended["who"], &mended["target"]), (&json!("system"), &json!("default/bm25")));
    let body = json!({"query": "zebra", "methods": ["bm25"]});
    let mut answer = agent().post(format!("{}/search", server.url)).send_json(&body).unwrap();
    let found: Value = answer.body_mut().read_json().unwrap();
    assert_eq!((&found["complete"], &found["total"]), (&json!(true), &json!(200)));
}

/// D4: at maintenance the server may be closed altogether, but for who looks after it.
#[test]
fn a_server_may_be_closed_at_maintenance() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--set", "levels.maintenance_reads=false"], &[]);
    let search = || {
        let url = format!("{}/search", server.url);
        let mut answer = agent().post(url).send_json(json!({"query": "x"})).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json::<Value>().unwrap())
    };
    assert_eq!(search().0, 200);
    server.mainstay(&["level", "hold", "maintenance", "--for", "1h", "--why", "moving"]).ok();
    let (status, problem) = search();
    assert_eq!((status, &problem["code"]), (503, &json!("closed")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("moving"), "{problem}");
    let status =
        |path: &str| agent().get(format!("{}{path}", server.url)).call().unwrap().status().as_u16();
    assert_eq!(status("/collections/default/documents"), 503);
    for path in ["/health/live", "/health", "/admin/level", "/admin/config", "/metrics"] {
        assert_eq!(status(path), 200, "{path}");
    }
    server.mainstay(&["level", "release", "--why", "over"]).ok();
}

/// D4, P1: without a log that takes anything the level says so; what is stored is found all the same.
#[test]
fn a_server_whose_logs_are_damaged_is_at_maintenance_and_answers_searches() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    for id in ["1", "2", "3"] {
        let url = format!("{}/collections/default/documents/{id}", server.url);
        let stored = agent().put(url).send_json(json!({"body": format!("zebra {id}")})).unwrap();
        assert_eq!(stored.status(), 200);
    }
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    let log = fs::read_dir(data.path().join("collections/default/log")).unwrap();
    let mut paths = log.map(|entry| entry.unwrap().path());
    let segment = paths.find(|path| path.extension().is_some_and(|ext| ext == "seg")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(5).position(|window| window == b"zebra").unwrap();
    bytes[at] ^= 0xa5;
    fs::write(&segment, bytes).unwrap();

    let server = Server::start(data.path());
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    let standing = loop {
        let level = server.mainstay(&["level", "--json"]).ok().json();
        if level["standing"]["level"] == "maintenance" {
            break level["standing"].clone();
        }
        assert!(std::time::Instant::now() < deadline, "never at maintenance: {level}");
    };
    assert_eq!(standing["reason"], "nothing can be written: every log is damaged");
    let write = agent().put(format!("{}/collections/default/documents/4", server.url));
    let mut refused = write.send_json(json!({"body": "x"})).unwrap();
    let problem: Value = refused.body_mut().read_json().unwrap();
    assert_eq!((refused.status().as_u16(), &problem["code"]), (503, &json!("read_only")));
    let body = json!({"query": "zebra", "methods": ["bm25"]});
    let mut found = agent().post(format!("{}/search", server.url)).send_json(&body).unwrap();
    assert_eq!(found.body_mut().read_json::<Value>().unwrap()["total"], 3);
}

/// V1, V2: without its documents a server is unhealthy and soon not ready, and lives all the same.
#[test]
fn a_server_without_its_documents_is_unhealthy_and_not_ready_and_lives() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    fs::write(data.path().join("collections/default/collection.json"), "{").unwrap();
    let server = Server::start(data.path());
    let health = server.mainstay(&["health"]);
    assert_eq!(health.code, 2, "{}{}", health.out, health.err);
    assert!(health.out.contains("default:"), "{}", health.out);
    let status =
        |path: &str| agent().get(format!("{}{path}", server.url)).call().unwrap().status().as_u16();
    assert_eq!((status("/health"), status("/health/live")), (503, 200));
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    while status("/health/ready") != 503 {
        assert!(std::time::Instant::now() < deadline, "readiness never closed");
    }
    let other = json!({"name": "other", "model": "static"});
    let made = agent().post(format!("{}/collections", server.url)).send_json(&other).unwrap();
    assert_eq!(made.status(), 201);
    while status("/health/ready") != 200 {
        assert!(std::time::Instant::now() < deadline, "readiness never opened again");
    }
}
