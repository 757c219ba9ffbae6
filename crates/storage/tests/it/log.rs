//! The log with its threads.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_storage::fs::RealFs;
use mainstay_storage::log::{Log, LogError, LogOptions, Record};
use mainstay_storage::sim::SimFs;

fn record(text: &str) -> Record {
    Record { kind: 7, payload: Bytes::copy_from_slice(text.as_bytes()) }
}

fn open(dir: &tempfile::TempDir) -> Log {
    Log::open(Arc::new(RealFs), &dir.path().join("log"), LogOptions::default()).unwrap().0
}

#[test]
fn appended_records_are_read_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let first = log.append(vec![record("a"), record("b")]).unwrap();
    assert_eq!((first.first_seq, first.last_seq), (1, 2));
    log.append(vec![record("c")]).unwrap();
    assert_eq!(log.wait_beyond(2, Duration::from_secs(1)), 3);
    drop(log);
    let log = open(&dir);
    let entries = log.read(1, u64::MAX).unwrap();
    let texts: Vec<&[u8]> = entries.iter().map(|entry| entry.payload.as_ref()).collect();
    assert_eq!(texts, [b"a", b"b", b"c"]);
    assert!(log.verify().unwrap().is_whole());
    assert_eq!(log.append(vec![record("d")]).unwrap().first_seq, 4);
}

#[test]
fn a_second_log_on_the_same_folder_is_refused_with_the_holders_pid() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(&dir);
    let second = Log::open(Arc::new(RealFs), &dir.path().join("log"), LogOptions::default());
    let error = second.unwrap_err();
    assert!(matches!(error, LogError::Locked(_)));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn segments_are_prepared_beside_the_commits_that_use_them() {
    let fs = SimFs::new(1);
    let options = || LogOptions { cache_bytes: 0, ..LogOptions::small() };
    let open = || Log::open(Arc::new(fs.clone()), Path::new("/log"), options()).unwrap();
    let (log, _) = open();
    let payload = "r".repeat(3000);
    for _ in 0..2000 {
        log.append(vec![record(&payload)]).unwrap();
    }
    assert_eq!(log.verify().unwrap().records, 2000);
    drop(log);
    let (log, recovery) = open();
    assert_eq!(recovery.damage, []);
    assert_eq!(recovery.unreadable, [""; 0]);
    assert_eq!(log.verify().unwrap().records, 2000);
}

#[test]
fn numbers_follow_the_order_of_submission() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let tickets: Vec<_> =
        (0..100).map(|i| log.submit(vec![record(&i.to_string())]).unwrap()).collect();
    for (ticket, seq) in tickets.into_iter().zip(1..) {
        assert_eq!(ticket.wait().unwrap().first_seq, seq);
    }
}
