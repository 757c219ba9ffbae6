//! A real process on the real disk, ended by SIGKILL at moments that the seed picks, with the
//! ledger of acknowledgements outside of it.
//!
//! This shows what process death does, recovery included; only the simulation shows power loss.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_storage::fs::RealFs;
use mainstay_storage::log::{Log, LogOptions, Record};
use mainstay_storage::sim::Random;

const CHILD_DIR: &str = "MAINSTAY_KILL_DIR";
const ROUNDS: u64 = 12;
const WRITERS: u64 = 3;

fn options() -> LogOptions {
    // Small segments, so that a few hundred appends cross several of them.
    LogOptions {
        segment_bytes_min: 32 << 10,
        segment_bytes_max: 64 << 10,
        reserve_bytes: 32 << 10,
        heartbeat_ms: 1,
        cache_bytes: 0,
        ..LogOptions::default()
    }
}

/// The payload that goes with an id: whoever reads it can tell whether it is whole.
fn payload(id: u64) -> Bytes {
    let mut random = Random::new(id);
    let mut payload = id.to_le_bytes().to_vec();
    payload.extend((0..random.below(600)).map(|_| random.next_u64() as u8));
    Bytes::from(payload)
}

/// Runs in a process of its own until it is killed: appends from several threads, compacts, and
/// prints each acknowledgement.
#[test]
fn child_appends_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    println!("opening");
    let log = Log::open(Arc::new(RealFs), &PathBuf::from(dir).join("log"), options()).unwrap().0;
    let round = log.durable_seq() + 1;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let log = &log;
            scope.spawn(move || {
                for count in 0.. {
                    // No two processes use the same id: the number grows with each acknowledged
                    // record, and an id of a record that was not acknowledged may come back.
                    let id = (round << 24) | (count * WRITERS + writer);
                    let record = Record { kind: 1, payload: payload(id) };
                    let appended = log.append(vec![record]).unwrap_or_else(|error| {
                        println!("\nfailed {error}");
                        std::process::exit(1)
                    });
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "\nack {} {id}", appended.first_seq).unwrap();
                    out.flush().unwrap();
                }
            });
        }
        let log = &log;
        scope.spawn(move || {
            loop {
                log.wait_beyond(log.durable_seq() + 50, std::time::Duration::from_millis(200));
                let _ = log.compact(log.durable_seq(), &mut |_| true, 0);
            }
        });
    });
}

/// Starts the child, reads its ledger and kills it after `acks_max` acknowledgements.
fn run_and_kill(dir: &Path, acks_max: u64, ledger: &mut BTreeMap<u64, u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_appends_until_killed", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acks = 0;
    let mut killed = false;
    // Also after the kill: what is in the pipe was acknowledged.
    for line in lines {
        let line = line.unwrap();
        assert!(!line.starts_with("failed"), "{line}");
        let ack = line.strip_prefix("ack ").and_then(|ack| ack.split_once(' '));
        if let Some((Ok(seq), Ok(id))) = ack.map(|(seq, id)| (seq.parse(), id.parse())) {
            ledger.insert(seq, id);
            acks += 1;
        }
        let begun = acks > 0 || line == "opening";
        if !killed && begun && acks >= acks_max {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
}

#[test]
fn everything_acknowledged_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(11);
    let mut ledger = BTreeMap::new();
    for round in 0..ROUNDS {
        // Every third process dies while it opens the log.
        let acks_max = if round % 3 == 2 { 0 } else { 1 + random.below(150) };
        run_and_kill(dir.path(), acks_max, &mut ledger);
    }
    let (log, recovery) = Log::open(Arc::new(RealFs), &dir.path().join("log"), options()).unwrap();
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    let mut found = BTreeMap::new();
    let mut from = 1;
    while from <= log.durable_seq() {
        let batch = log.read_batch(from, 1 << 20).unwrap();
        from = batch.next_seq;
        found.extend(batch.entries.into_iter().map(|entry| (entry.seq, entry.payload)));
    }
    assert_eq!(found.len() as u64, log.durable_seq(), "a number is missing");
    for (seq, stored) in &found {
        let id = u64::from_le_bytes(stored[..8].try_into().unwrap());
        assert_eq!(*stored, payload(id), "record {seq} is not what was appended");
    }
    for (seq, id) in &ledger {
        assert_eq!(found[seq], payload(*id), "acknowledged record {seq}");
    }
    assert!(ledger.len() > 100, "too few acknowledgements to mean anything: {}", ledger.len());
    assert!(log.verify().unwrap().is_whole());
}
