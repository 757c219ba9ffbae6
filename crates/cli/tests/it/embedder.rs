//! A server whose embedding provider is another process's business: what it is told, when it is not
//! asked, and what happens when it says nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, agent};

const DIMENSION: usize = 16;
const KEY: &str = "provider-secret-4711";

/// A request as the provider saw it.
#[derive(Clone, Debug, Default)]
struct Seen {
    headers: Vec<(String, String)>,
    texts: Vec<String>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| &**value)
    }
}

/// A provider of embeddings on loopback, which answers until it is told to hang.
#[derive(Clone, Default)]
struct Provider {
    seen: Arc<Mutex<Vec<Seen>>>,
    hangs: Arc<AtomicBool>,
}

impl Provider {
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let provider = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let provider = provider.clone();
                // A client that gave up is no failure of the provider.
                std::thread::spawn(move || drop(provider.serve(stream)));
            }
        });
        url
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let (mut answers, mut requests) = (stream.try_clone()?, BufReader::new(stream));
        loop {
            let mut seen = Seen::default();
            loop {
                let mut line = String::new();
                if requests.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                if let Some((name, value)) = line.trim().split_once(": ") {
                    seen.headers.push((name.to_ascii_lowercase(), value.to_string()));
                }
            }
            let length = seen.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            requests.read_exact(&mut body)?;
            let body: Value = serde_json::from_slice(&body)?;
            let texts = body["input"].as_array().cloned().unwrap_or_default();
            seen.texts = texts.iter().filter_map(|it| Some(it.as_str()?.to_string())).collect();
            let data: Vec<Value> = seen
                .texts
                .iter()
                .enumerate()
                .map(|(index, text)| {
                    let mut vector = vec![0.1; DIMENSION];
                    text.bytes().for_each(|byte| vector[usize::from(byte) % DIMENSION] += 1.0);
                    json!({"index": index, "embedding": vector})
                })
                .collect();
            self.seen.lock().unwrap().push(seen);
            while self.hangs.load(Ordering::Relaxed) {
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            let answer = json!({ "data": data }).to_string();
            let length = answer.len();
            write!(answers, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}")?;
        }
    }

    /// The request that carried this text.
    fn asked(&self, text: &str) -> Option<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().find(|seen| seen.texts.iter().any(|it| it.contains(text))).cloned()
    }
}

fn search(server: &Server, query: &str) -> Value {
    let mut answer = agent()
        .post(format!("{}/collections/far/search", server.url))
        .header("x-correlation-id", "drill-7")
        .header("traceparent", "00-11112222333344445555666677778888-00f067aa0ba902b7-01")
        .send_json(json!({"query": query, "timeout_ms": 1000}))
        .unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    answer.body_mut().read_json().unwrap()
}

/// V5, D4, R8: the provider is told whose request it serves, is not asked while the level leaves the
/// refining model out, and when it hangs every search is answered and its breaker opens. Once it is
/// back the level is full again although nobody searches, writes or resets anything.
#[test]
fn a_provider_is_told_who_asks_is_spared_when_degraded_and_may_hang() {
    let provider = Provider::default();
    let model = format!("remote:{},hashes,{DIMENSION},PROVIDER_KEY", provider.start());
    let data = tempfile::tempdir().unwrap();
    let variables = [
        ("PROVIDER_KEY", KEY),
        ("MAINSTAY_DEPENDENCY_BREAKER_OPEN", "1s"),
        ("MAINSTAY_LEVELS_RECOVER_AFTER", "1s"),
        // The server's own searches are searches too.
        ("MAINSTAY_SLO_PROBE_EVERY", "0s"),
    ];
    let server = Server::start_with(data.path(), &[], &variables);
    let made = agent()
        .post(format!("{}/collections", server.url))
        .send_json(json!({"name": "far", "model": model}))
        .unwrap();
    assert_eq!(made.status(), 201);
    let documents =
        json!([{"id": "1", "body": "a zebra crosses"}, {"id": "2", "body": "a walrus"}]);
    let url = format!("{}/collections/far/documents", server.url);
    assert_eq!(agent().put(url).send_json(documents).unwrap().status(), 200);
    let deadline = Instant::now() + PATIENCE;
    while provider.asked("zebra crosses").is_none() {
        assert!(Instant::now() < deadline, "the documents are never embedded");
        std::thread::yield_now();
    }

    search(&server, "striped animals");
    let seen = provider.asked("striped animals").expect("queries are embedded by the provider");
    assert_eq!(seen.header("x-correlation-id"), Some("drill-7"));
    let parent = seen.header("traceparent").unwrap();
    assert!(parent.starts_with("00-11112222333344445555666677778888-"), "{parent}");
    assert!(!parent.contains("00f067aa0ba902b7"), "the caller's span is not the server's");
    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {KEY}")));

    let hold = ["level", "hold", "degraded", "--for", "1h", "--why", "a drill"];
    server.mainstay(&hold).ok();
    let answer = search(&server, "tusks of the north");
    assert_eq!((&answer["level"], &answer["complete"]), (&json!("degraded"), &json!(true)));
    assert!(provider.asked("tusks of the north").is_none(), "the refining model is left out");
    server.mainstay(&["level", "release"]).ok();

    provider.hangs.store(true, Ordering::Relaxed);
    let state = || {
        let listed = server.mainstay(&["dependencies", "--json"]).ok().json();
        let all = listed["dependencies"].as_array().unwrap().clone();
        let name = |it: &Value| it["name"].as_str().unwrap().starts_with("embedding/");
        all.into_iter().find(name).unwrap()["state"].clone()
    };
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0;
    while state() != "open" {
        assert!(Instant::now() < deadline, "the breaker of a hanging provider never opens");
        number += 1;
        let answer = search(&server, &format!("zebra number {number}"));
        assert_eq!(answer["results"][0]["id"], "1", "{answer:#}");
    }
    let told = server.mainstay(&["dependencies"]).ok().out;
    assert!(told.contains("embedding/") && !told.contains(KEY), "{told}");
    let until_level = |level: &str| {
        let deadline = Instant::now() + PATIENCE;
        while server.mainstay(&["level", "--json"]).ok().json()["standing"]["level"] != level {
            assert!(Instant::now() < deadline, "the level is never {level}");
        }
    };
    until_level("degraded");
    provider.hangs.store(false, Ordering::Relaxed);
    until_level("full");
    assert_eq!(state(), "closed");
}
