use std::sync::Mutex;

use serde_json::json;

use crate::server::{Server, agent};
use crate::{mainstay, text};

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
