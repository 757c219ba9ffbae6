//! A full disk refuses ordinary appends with figures, and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_storage::fs::{FileSystem, RealFs};
use mainstay_storage::log::{Class, Log, LogError, LogOptions, Record, SyncLog};
use mainstay_storage::sim::{Failure, Faults, Operation, Rule, SimFs};

const SEGMENT_BYTES: u64 = 16 << 10;

fn record(bytes: usize) -> Record {
    Record { kind: 1, payload: Bytes::from(vec![b'r'; bytes]) }
}

fn open_at(fs: &Arc<dyn FileSystem>, dir: &Path) -> SyncLog {
    SyncLog::open(Arc::clone(fs), dir, LogOptions::small()).unwrap().0
}

/// Appends until the disk is full; returns how many records went in.
fn fill(log: &SyncLog) -> (u64, LogError) {
    for _ in 0..10_000 {
        let _ = log.prepare();
        if let Some(error) = log.refuses(Class::Ordinary) {
            return (log.durable_seq(), error);
        }
        match log.commit(&[&[record(1000)]], Class::Ordinary) {
            Ok(_) => {}
            Err(error) => return (log.durable_seq(), error),
        }
    }
    panic!("the disk never filled");
}

/// The whole story, on any file system with a little room.
fn runs_full_and_recovers(fs: &Arc<dyn FileSystem>, dir: &Path) {
    let log = open_at(fs, dir);
    let (filled, error) = fill(&log);
    let LogError::DiskFull { needed_bytes, .. } = &error else {
        panic!("not typed as a full disk: {error}");
    };
    assert!(*needed_bytes >= SEGMENT_BYTES, "{error}");
    assert!(error.to_string().contains("make room"), "{error}");

    // Reads go on.
    assert_eq!(log.read(1, u64::MAX).unwrap().len() as u64, filled);
    // Deletes go on, beyond the active segment into the reserve.
    for _ in 0..12 {
        log.commit(&[&[record(1000)]], Class::Essential).unwrap();
    }
    // The process can end and start again.
    log.close().unwrap();
    drop(log);
    let log = open_at(fs, dir);
    assert_eq!(log.durable_seq(), filled + 12);
    // Compaction goes on, and what it frees lifts the refusal.
    let done = log.compact(log.durable_seq(), &mut |_| false, 0).unwrap();
    assert!(done.bytes_after < done.bytes_before, "{done:?}");
    log.prepare().unwrap();
    assert!(log.refuses(Class::Ordinary).is_none());
    log.commit(&[&[record(1000)]], Class::Ordinary).unwrap();
    assert!(log.verify().unwrap().is_whole());
}

#[test]
fn a_full_simulated_disk_refuses_writes_and_resumes_after_compaction() {
    let sim = SimFs::new(5);
    sim.set_capacity(Some(12 * SEGMENT_BYTES));
    let fs: Arc<dyn FileSystem> = Arc::new(sim);
    runs_full_and_recovers(&fs, Path::new("/log"));
}

#[test]
fn writes_resume_only_with_a_margin() {
    let sim = SimFs::new(6);
    let fs: Arc<dyn FileSystem> = Arc::new(sim.clone());
    sim.set_capacity(Some(8 * SEGMENT_BYTES));
    let log = open_at(&fs, Path::new("/log"));
    fill(&log);
    let missing = SEGMENT_BYTES;
    sim.set_capacity(Some(sim.used_bytes() + missing));
    assert!(matches!(log.prepare(), Err(LogError::DiskFull { .. })), "no margin, no writes");
    sim.set_capacity(Some(sim.used_bytes() + 3 * missing));
    log.prepare().unwrap();
    log.commit(&[&[record(1000)]], Class::Ordinary).unwrap();
}

#[test]
fn a_log_opens_on_a_full_disk_also_with_a_torn_tail() {
    for seed in 0..50 {
        let sim = SimFs::new(seed);
        let fs: Arc<dyn FileSystem> = Arc::new(sim.clone());
        let options =
            LogOptions { reserve_bytes: 0, on_fatal: Arc::new(|_| {}), ..LogOptions::small() };
        let open = || SyncLog::open(Arc::clone(&fs), Path::new("/log"), options.clone());
        let (log, _) = open().unwrap();
        log.commit(&[&[record(3000)]], Class::Ordinary).unwrap();
        sim.set_capacity(Some(sim.used_bytes()));
        // The power goes off in the sync of the second commit.
        sim.cut_power_at(Some(sim.operations() + 2));
        assert!(log.commit(&[&[record(3000)]], Class::Ordinary).is_err());
        drop(log);
        sim.crash();
        let (log, recovery) = open().unwrap();
        assert!(recovery.damage.is_empty(), "{recovery:?}");
        let entries = log.read(1, u64::MAX).unwrap();
        assert!((1..=2).contains(&entries.len()), "seed {seed}: {recovery:?}");
        log.commit(&[&[record(3000)]], Class::Essential).unwrap();
        drop(log);
        sim.crash();
        let (log, recovery) = open().unwrap();
        assert_eq!(log.durable_seq(), entries.len() as u64 + 1, "{recovery:?}");
    }
}

#[test]
fn another_failure_to_prepare_is_named_as_what_it_is_and_heals() {
    let sim = SimFs::new(7);
    let fs: Arc<dyn FileSystem> = Arc::new(sim.clone());
    let log = open_at(&fs, Path::new("/log"));
    let rule = Rule { on: Some(Operation::Allocate), skip: 0, times: 1, failure: Failure::Io };
    sim.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    let error = log.prepare().unwrap_err();
    assert!(matches!(error, LogError::SegmentUnavailable { .. }), "{error}");
    assert!(log.refuses(Class::Ordinary).is_some());
    log.prepare().unwrap();
    assert!(log.refuses(Class::Ordinary).is_none());
}

#[test]
fn the_threaded_log_refuses_and_resumes_by_itself() {
    let sim = SimFs::new(8);
    sim.set_capacity(Some(8 * SEGMENT_BYTES));
    let options = LogOptions { prepare_retry_ms: 1, ..LogOptions::small() };
    let log = Log::open(Arc::new(sim.clone()), Path::new("/log"), options).unwrap().0;
    let error = loop {
        if let Err(error) = log.append(vec![record(1000)]) {
            break error;
        }
    };
    assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
    log.append_essential(vec![record(1000)]).unwrap();
    sim.set_capacity(None);
    while log.refuses_writes().is_some() {
        std::thread::yield_now();
    }
    log.append(vec![record(1000)]).unwrap();
}

const CHILD_DIR: &str = "MAINSTAY_DISK_FULL_DIR";

/// Runs in a process of its own, in a small file system or under a file size limit.
#[test]
fn child_on_a_small_disk() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    runs_full_and_recovers(&fs, &PathBuf::from(dir).join("log"));
}

#[test]
fn a_full_real_file_system_refuses_writes_and_resumes_after_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let mount = format!(
        "mount -t tmpfs -o size=256k tmpfs {0} && exec \"$0\" --exact \
         disk_full::child_on_a_small_disk",
        dir.path().display()
    );
    let probe = format!("mount -t tmpfs -o size=256k tmpfs {}", dir.path().display());
    let unshare = |script: &str| -> io::Result<std::process::Output> {
        Command::new("unshare")
            .args(["-rm", "sh", "-c", script])
            .arg(std::env::current_exe()?)
            .env(CHILD_DIR, dir.path())
            .output()
    };
    let possible = unshare(&probe).is_ok_and(|output| output.status.success());
    if !possible {
        assert!(std::env::var_os("DEMAND_MOUNT").is_none(), "mounting a tmpfs is not possible");
        eprintln!("SKIPPED: a full tmpfs cannot be tried, no user namespace may mount here");
        return;
    }
    let output = unshare(&mount).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_file_size_limit_is_a_full_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let log = open_at(&fs, &dir.path().join("log"));
    log.close().unwrap();
    drop(log);
    // The limit is below a segment: the next one cannot be made, the one there goes on.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact disk_full::child_under_a_limit";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Runs in a process of its own, under a file size limit.
#[test]
fn child_under_a_limit() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let log = open_at(&fs, &PathBuf::from(dir).join("log"));
    let error = log.prepare().unwrap_err();
    assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
    assert_eq!(log.read(1, 100).unwrap().len(), 0);
}
