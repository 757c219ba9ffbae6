//! C5: a secret in the address of a model is shown nowhere, by whatever way it came in.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::server::{Server, agent};
use crate::{Ran, mainstay, text, write};

const SECRET: &str = "hunter2";

fn hides(what: &str, shown: &str) {
    assert!(!shown.contains(SECRET), "{what}: {shown}");
}

fn ran(what: &str, ran: &Ran) {
    hides(what, &ran.out);
    hides(what, &ran.err);
}

fn ask(server: &Server, verb: &str, path: &str, body: &Value) -> (u16, String) {
    let request = ureq::http::Request::builder()
        .method(verb)
        .uri(format!("{}{path}", server.url))
        .header("content-type", "application/json")
        .body(if body.is_null() { String::new() } else { body.to_string() })
        .unwrap();
    let mut answer = agent().run(request).unwrap();
    let mut shown = format!("{:?}\n", answer.headers());
    shown.push_str(&answer.body_mut().read_to_string().unwrap());
    hides(&format!("{verb} {path}"), &shown);
    (answer.status().as_u16(), shown)
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A collection may be there already, its settings written by hand or by another release.
#[test]
fn a_collection_whose_model_holds_a_password_shows_it_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start(&data);
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    let settings = data.join("collections/default/collection.json");
    let model = format!("remote:http://u:{SECRET}@127.0.0.1:9/v1,m,8");
    let read = || -> Value { serde_json::from_slice(&fs::read(&settings).unwrap()).unwrap() };
    let mut edited = read();
    edited["model"] = json!(model);
    write(&data, "collections/default/collection.json", &edited.to_string());

    let server = Server::start(&data);
    let none = Value::Null;
    for path in [
        "/collections",
        "/collections/default",
        "/health?fresh=true",
        "/admin/dependencies",
        "/admin/config",
        "/admin/catalogue",
        "/admin/resources",
        "/admin/collections/default/set-aside",
        "/metrics",
    ] {
        assert!(ask(&server, "GET", path, &none).0 < 400 || path.starts_with("/health"), "{path}");
    }
    let listed = ask(&server, "GET", "/collections", &none).1;
    assert!(listed.contains("remote:http://[redacted]@127.0.0.1:9/v1,m,8"), "{listed}");
    ask(&server, "PUT", "/collections/default/documents/1", &json!({"body": "a zebra"}));
    ask(&server, "POST", "/search", &json!({"query": "zebra", "methods": ["semantic"]}));
    ask(&server, "POST", "/admin/collections/default/verify", &none);
    let rebuild = json!({"method": "semantic"});
    ask(&server, "POST", "/admin/collections/default/rebuild", &rebuild);
    let weights = json!({"weights": [1.0, 1.0, 1.0, 0.5]});
    assert_eq!(ask(&server, "PUT", "/admin/collections/default/weights", &weights).0, 204);
    assert_eq!(read()["model"], json!(model), "what is not shown is kept");

    for command in [
        &["health", "--verbose"][..],
        &["dependencies"],
        &["audit", "--json"],
        &["slo"],
        &["config", "show"],
        &["rebuild", "--method", "semantic"],
        &["search", "zebra"],
    ] {
        ran(&command.join(" "), &server.mainstay(command));
    }
    hides("the command line", &server.command_line());
    hides("metrics", &ask(&server, "GET", "/metrics", &none).1);
    hides("the log", &server.said());
    for path in files(&data).into_iter().filter(|path| *path != settings) {
        hides(text(&path), &String::from_utf8_lossy(&fs::read(&path).unwrap()));
    }
}

/// A model that holds a secret is refused wherever it may be named, and the refusal does not show it.
#[test]
fn a_model_that_holds_a_secret_is_refused_without_showing_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data);
    let other = folder.path().join("other");
    for model in [
        format!("remote:http://u:{SECRET}@127.0.0.1:9/v1,m,8"),
        format!("remote:http://127.0.0.1:9/v1?key={SECRET},m,8"),
        format!("remote:http://u:{SECRET}@127.0.0.1:9/v1,m"),
        format!("http://u:{SECRET}@127.0.0.1:9/v1"),
        format!("remote:http://u:{SECRET}[@127.0.0.1:9/v1,m,8"),
    ] {
        let made = ask(&server, "POST", "/collections", &json!({"name": "far", "model": model}));
        assert!((400..500).contains(&made.0), "{model}: {}", made.1);
        for command in [
            &["serve", "--data", text(&other), "--listen", "127.0.0.1:0", "--model", &model][..],
            &["index", text(folder.path()), "--data", text(&other), "--model", &model],
            &["eval", text(folder.path()), "--model", &model],
        ] {
            let refused = mainstay(command);
            assert_eq!(refused.code, 2, "{}{}", refused.out, refused.err);
            ran(command[0], &refused);
        }
        let file = folder.path().join("m.toml");
        fs::write(&file, format!("[semantic]\nmodel = {model:?}\n")).unwrap();
        let refused = mainstay(&["config", "check", text(&file)]);
        assert_eq!(refused.code, 2, "{}{}", refused.out, refused.err);
        ran("config check", &refused);
    }
    hides("the audit trail", &ask(&server, "GET", "/admin/audit", &Value::Null).1);
    hides("metrics", &ask(&server, "GET", "/metrics", &Value::Null).1);
    hides("the log", &server.said());
}

/// The address of a server may hold one too.
#[test]
fn a_password_in_the_address_of_a_server_is_shown_by_no_command() {
    let folder = tempfile::tempdir().unwrap();
    let queries = folder.path().join("queries");
    fs::write(&queries, "x\n").unwrap();
    let url = format!("http://u:{SECRET}@127.0.0.1:9");
    for command in [
        &["health"][..],
        &["health", "--json"],
        &["level"],
        &["search", "x"],
        &["rebuild", "--method", "bm25"],
        &["load", "--queries", text(&queries), "--rate", "1", "--duration", "1s"],
        &["health", "--help"],
        &["search", "--help"],
        &["load", "--help"],
        &["keys", "--help"],
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(command)
            .env("MAINSTAY_URL", &url)
            .env_remove("MAINSTAY_DATA")
            .output();
        ran(&command.join(" "), &Ran::of(output.unwrap()));
    }
}
