use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_server::Config;
use mainstay_testkit::file_system::SimFs;
use serde_json::json;

use crate::Running;

/// Room for the first segment of the log and little else.
const ROOM_BYTES: u64 = 96 << 20;

/// P1: nothing acknowledged is lost, reads and deletes go on, and writes come back with the room.
#[test]
fn a_full_disk_refuses_writes_with_figures_while_everything_else_goes_on() {
    let disk = SimFs::new(11);
    let mut server = Running::start_on(Arc::new(disk.clone()), Config::default());
    disk.set_capacity(Some(disk.used_bytes() + ROOM_BYTES));
    let filler = "walrus ".repeat(100_000);
    let put = |server: &Running, id: &str| {
        server.put(
            &format!("/collections/default/documents/{id}"),
            &json!({"body": format!("zebra {id} {filler}")}),
        )
    };
    let mut acknowledged = Vec::new();
    let refused = loop {
        let id = acknowledged.len().to_string();
        let answer = put(&server, &id);
        match answer.status {
            200 | 201 => acknowledged.push(id),
            _ => break answer,
        }
        assert!(acknowledged.len() < 1_000, "the disk never filled");
    };
    assert_eq!(refused.status, 507, "{}", refused.body);
    assert_eq!(refused.problem(), "disk_full");
    let detail = refused.json()["detail"].as_str().unwrap().to_string();
    assert!(detail.contains("make room") && detail.contains("bytes"), "{detail}");

    for id in &acknowledged {
        let answer = server.get(&format!("/collections/default/documents/{id}"));
        assert_eq!(answer.status, 200, "{id}: {}", answer.body);
    }
    let found = server.post("/search", &json!({"query": "zebra 0"}));
    assert_eq!(found.status, 200, "{}", found.body);
    assert_eq!(server.delete("/collections/default/documents/0").status, 204, "deletes go on");

    disk.set_capacity(None);
    let id = acknowledged.len().to_string();
    // The log looks for room every second, as the refusal says.
    assert_eq!(refused.retry_after.as_deref(), Some("1"));
    let patience = Instant::now() + Duration::from_secs(30);
    let mut answer = put(&server, &id);
    while answer.status == 507 && Instant::now() < patience {
        answer = put(&server, &id);
    }
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(server.stop());
}
