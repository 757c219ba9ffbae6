use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use crate::{mainstay, text};

/// A server in a process of its own; killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(["serve", "--data", text(data), "--listen", "127.0.0.1:0", "--model", "static"])
            .env_remove("MODEL_PATH")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line =
            lines.find_map(|line| line.unwrap().split_once("http://").map(|(_, a)| a.to_string()));
        let address = line.unwrap().split_whitespace().next().unwrap().to_string();
        // Drained, so that the server never waits for its reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://{address}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .build()
        .new_agent()
}

/// P1: eight writers, killed in the middle, several times over; the ledger of acknowledged ids is
/// kept outside the server.
#[test]
fn a_server_killed_under_eight_writers_has_every_acknowledged_document() {
    let rounds = if std::env::var_os("MAINSTAY_LONG").is_some() { 20 } else { 3 };
    let data = tempfile::tempdir().unwrap();
    let ledger = Mutex::new(Vec::<String>::new());
    for round in 0..rounds {
        let mut server = Server::start(data.path());
        let before = ledger.lock().unwrap().len();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let (url, ledger) = (server.url.clone(), &ledger);
                scope.spawn(move || {
                    let agent = agent();
                    for i in 0.. {
                        let id = format!("{round}-{writer}-{i}");
                        let document = json!([{"id": id, "body": format!("zebra {id}")}]);
                        let sent = agent
                            .put(format!("{url}/collections/default/documents"))
                            .send_json(&document);
                        match sent {
                            Ok(answer) if answer.status() == 200 => ledger.lock().unwrap().push(id),
                            _ => return,
                        }
                    }
                });
            }
            // Killed in the middle of the work: when enough has been acknowledged.
            while ledger.lock().unwrap().len() < before + 200 {
                std::thread::yield_now();
            }
            server.child.kill().unwrap();
        });
        drop(server);
    }
    let server = Server::start(data.path());
    let agent = agent();
    for id in ledger.lock().unwrap().iter() {
        let url = format!("{}/collections/default/documents/{id}", server.url);
        assert_eq!(
            agent.get(&url).call().unwrap().status(),
            200,
            "{id} was acknowledged and is lost"
        );
    }
    drop(server);
    let verified = mainstay(&["verify", "--data", text(data.path()), "--json"]);
    assert_eq!(verified.json()[0]["clean"], true, "{}", verified.out);
}
