//! `mainstay load` against a server of its own, by more clients than it can serve.

use std::cell::Cell;
use std::fs;

use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, agent};
use crate::text;

/// More clients than the server has slots and places in its queue.
const CLIENTS: &str = "1200";
/// Searches a second and seconds of one half of the load. A leak of 8 KiB for each is 47 MiB in a half.
const RATE: u64 = 1_000;
const HALF_S: u64 = 6;
/// What the second half may end above the first: what an allocator and the kernel make of the same
/// load from one time to the next.
const NOISE_BYTES: u64 = 32 << 20;
const NOISE_SHARE: f64 = 0.1;

fn resident_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// C2, in its short form: clients beyond every bound get an answer or are turned away on purpose;
/// nothing else happens to any of them, the memory stays flat under a load that stays the same, and
/// the server is well afterwards.
#[test]
fn c2_more_than_a_thousand_clients_are_answered_or_turned_away_on_purpose() {
    let data = tempfile::tempdir().unwrap();
    let narrow = ["--set", "server.searches_max=8", "--set", "admission.queue_length=16"];
    let server = Server::start_with(data.path(), &narrow, &[]);
    let documents: Vec<Value> = (0..300)
        .map(|n| json!({"id": n.to_string(), "body": format!("zebra number {n} crosses")}))
        .collect();
    let url = format!("{}/collections/default/documents", server.url);
    assert_eq!(agent().put(url).send_json(json!(documents)).unwrap().status(), 200);
    let queries = data.path().join("queries.txt");
    fs::write(&queries, "zebra crosses\nnumber\nstripes of animals\n").unwrap();
    let rejected = Cell::new(0);
    let load = |seconds: u64| {
        let (rate, duration) = (RATE.to_string(), format!("{seconds}s"));
        let load = [
            &["load", "--queries", text(&queries), "--connections", CLIENTS, "--json"][..],
            &["--rate", &rate, "--duration", &duration],
        ]
        .concat();
        let report = server.mainstay(&load).ok().json();
        let of = |name: &str| report[name].as_u64().unwrap();
        assert_eq!((of("requests"), of("failed")), (RATE * seconds, 0), "{report:#}");
        assert_eq!(of("ok") + of("rejected"), RATE * seconds);
        assert!(of("ok") > 0, "{report:#}");
        rejected.set(rejected.get() + of("rejected"));
        resident_bytes(&server)
    };
    let idle = resident_bytes(&server);
    let warm = load(HALF_S / 2);
    let (first, second) = (load(HALF_S), load(HALF_S));
    let told = format!("{idle} bytes idle, {warm} warm, then {first} and {second}");
    eprintln!("{told}");
    // Once the level is low enough, kept answers may stand in for all of them.
    assert!(rejected.get() > 0, "nobody was turned away");
    let allowed = first + (first as f64 * NOISE_SHARE) as u64 + NOISE_BYTES;
    assert!(second <= allowed, "{told}: the memory is not flat");
    assert_eq!(server.mainstay(&["search", "zebra", "--limit", "1"]).code, 0);
    // A method that came late five times in a row is left alone for half a minute.
    let begun = std::time::Instant::now();
    loop {
        let health = server.mainstay(&["health"]);
        if health.code == 0 {
            break;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "{}", health.out);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn a_curve_finds_the_capacity_and_draws_what_came_of_its_multiples() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let queries = data.path().join("queries.txt");
    fs::write(&queries, "zebra\n").unwrap();
    let drawn = data.path().join("curve.svg");
    let load = ["load", "--queries", text(&queries), "--curve", "0.2,0.4", "--duration", "1s"];
    let drawing = ["--svg", text(&drawn)];
    let told = server.mainstay(&[&load[..], &drawing].concat()).ok().out;
    assert!(told.contains("capacity") && told.lines().count() == 4, "{told}");
    let drawing = fs::read_to_string(&drawn).unwrap();
    assert!(drawing.starts_with("<svg") && drawing.contains("0.4"), "{drawing}");
    let steps = server.mainstay(&[&load[..], &["--json"]].concat()).ok().json();
    assert_eq!(steps.as_array().map(Vec::len), Some(2), "{steps}");
    let wrong = server.mainstay(&["load", "--queries", text(&queries), "--curve", "0,1"]);
    assert!(wrong.code == 2 && wrong.err.contains("above 0"), "{}", wrong.err);
}
