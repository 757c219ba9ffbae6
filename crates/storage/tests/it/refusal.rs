//! What the log refuses says what, where, which bound, and what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_storage::fs::FileSystem;
use mainstay_storage::log::{Class, Log, LogError, LogOptions, Record, SyncLog};
use mainstay_storage::sim::{Failure, Faults, Operation, Rule, SimFs};

const DIR: &str = "/log";
const FIRST: &str = "/log/log-0000000001-0000000001-0000.seg";

fn record(bytes: usize) -> Record {
    Record { kind: 1, payload: Bytes::from(vec![b'r'; bytes]) }
}

fn quiet() -> LogOptions {
    LogOptions { on_fatal: Arc::new(|_| {}), ..LogOptions::small() }
}

fn open(fs: &SimFs) -> Result<SyncLog, LogError> {
    SyncLog::open(Arc::new(fs.clone()), Path::new(DIR), quiet()).map(|(log, _)| log)
}

/// A log with three records, closed.
fn written() -> SimFs {
    let fs = SimFs::new(1);
    let log = open(&fs).unwrap();
    for _ in 0..3 {
        log.commit(&[&[record(100)]], Class::Ordinary).unwrap();
    }
    log.close().unwrap();
    fs
}

/// Rewrites both copies of the first segment's header.
fn edit_header(fs: &SimFs, edit: impl Fn(&mut [u8])) {
    let content = fs.content(Path::new(FIRST)).unwrap();
    let mut copy = content[..512].to_vec();
    edit(&mut copy);
    let crc = crc32c::crc32c(&copy[..508]);
    copy[508..].copy_from_slice(&crc.to_le_bytes());
    fs.damage(Path::new(FIRST), 0, &copy);
    fs.damage(Path::new(FIRST), 2048, &copy);
}

#[test]
fn a_future_format_version_is_refused_with_both_versions() {
    let fs = written();
    edit_header(&fs, |copy| copy[8] = 9);
    let before = fs.content(Path::new(FIRST));
    let error = open(&fs).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{FIRST} has format version 9, this build reads up to 1: use the newer build")
    );
    assert_eq!(fs.content(Path::new(FIRST)), before, "a refused log is left as it is");
}

#[test]
fn another_stores_segment_is_refused() {
    let fs = written();
    let other = SimFs::new(2);
    SyncLog::open(Arc::new(other.clone()), Path::new(DIR), quiet()).unwrap();
    let foreign = other.content(Path::new(FIRST)).unwrap();
    let second = PathBuf::from("/log/log-0000000002-0000000002-0000.seg");
    let mut copy = foreign[..512].to_vec();
    copy[32..40].copy_from_slice(&2_u64.to_le_bytes());
    copy[40..48].copy_from_slice(&2_u64.to_le_bytes());
    let crc = crc32c::crc32c(&copy[..508]);
    copy[508..].copy_from_slice(&crc.to_le_bytes());
    fs.create(&second).unwrap().write_all_at(&copy, 0).unwrap();
    fs.damage(&second, 4095, &[0]);
    let error = open(&fs).unwrap_err();
    assert!(matches!(error, LogError::ForeignSegment { .. }), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
}

#[test]
fn a_lost_header_is_rebuilt_from_its_copy_or_its_frames() {
    let fs = written();
    fs.damage(Path::new(FIRST), 0, &[0xff; 512]);
    assert_eq!(open(&fs).unwrap().read(1, u64::MAX).unwrap().len(), 3);
    fs.kill();
    fs.damage(Path::new(FIRST), 2048, &[0xff; 512]);
    let options = LogOptions { store_id: Some(7), ..quiet() };
    let (log, recovery) = SyncLog::open(Arc::new(fs.clone()), Path::new(DIR), options).unwrap();
    assert_eq!(recovery.headers_rebuilt.len(), 1);
    assert_eq!(log.read(1, u64::MAX).unwrap().len(), 3);
}

#[test]
fn an_unreadable_sector_fails_the_open_and_changes_nothing() {
    let fs = written();
    let before = fs.content(Path::new(FIRST));
    let rule = Rule { on: Some(Operation::Read), skip: 1, times: 9, failure: Failure::Io };
    fs.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    let error = open(&fs).unwrap_err();
    assert!(matches!(error, LogError::Io { action: "reading", .. }), "{error}");
    fs.kill();
    fs.set_faults(Faults::default());
    assert_eq!(fs.content(Path::new(FIRST)), before);
    assert_eq!(open(&fs).unwrap().durable_seq(), 3);
}

#[test]
fn an_append_beyond_the_frame_limit_is_refused_with_the_figures() {
    let fs = SimFs::new(3);
    let log = Log::open(Arc::new(fs), Path::new(DIR), quiet()).unwrap().0;
    let error = log.append(vec![record(9000)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an append of 9216 bytes exceeds the frame limit of 8192: split it"
    );
    assert!(matches!(log.append(Vec::new()), Err(LogError::NoRecords)));
    log.append(vec![record(8000)]).unwrap();
}

#[test]
fn contradicting_options_are_refused() {
    let refused = |options: LogOptions| {
        let error = SyncLog::open(Arc::new(SimFs::new(4)), Path::new(DIR), options).unwrap_err();
        matches!(error, LogError::InvalidOptions { .. })
    };
    assert!(refused(LogOptions { segment_bytes_min: 4096, ..quiet() }));
    assert!(refused(LogOptions { segment_bytes_max: 8192, ..quiet() }));
    assert!(refused(LogOptions { frame_bytes_max: 100, ..quiet() }));
    assert!(refused(LogOptions { frame_bytes_max: 1 << 30, ..quiet() }));
    assert!(refused(LogOptions { heartbeat_ms: 0, ..quiet() }));
}

#[test]
fn a_loss_is_accepted_only_for_the_exact_range() {
    let fs = written();
    // The second of the three frames.
    fs.flip_bit(Path::new(FIRST), 4096 + 512 + 120, 3);
    let log = open(&fs).unwrap();
    let damage = log.damage();
    assert_eq!((damage[0].first_seq, damage[0].last_seq), (2, 2));
    assert!(matches!(log.accept_loss(1, 3), Err(LogError::NotDamaged { .. })));
    assert!(matches!(log.accept_loss(1, 1), Err(LogError::NotDamaged { .. })));
    let (accepted, recovery) = log.accept_loss(2, 2).unwrap();
    assert_eq!((accepted.first_seq, accepted.last_seq), (2, 2));
    assert!(recovery.damage.is_empty());
    let seqs: Vec<u64> = log.read(1, u64::MAX).unwrap().iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [1, 3]);
    log.commit(&[&[record(1)]], Class::Ordinary).unwrap();
    assert_eq!(log.verify().unwrap().accepted.len(), 1);
}

#[test]
fn a_failed_sync_poisons_the_log_and_runs_the_fatal_handler_once() {
    let fs = SimFs::new(5);
    let calls = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let options = LogOptions {
        on_fatal: Arc::new(move |_| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }),
        ..quiet()
    };
    let log = Log::open(Arc::new(fs.clone()), Path::new(DIR), options).unwrap().0;
    log.append(vec![record(1)]).unwrap();
    let rule = Rule { on: Some(Operation::Sync), skip: 0, times: u64::MAX, failure: Failure::Io };
    fs.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    let error = log.append(vec![record(2)]).unwrap_err();
    assert!(
        matches!(error, LogError::OutcomeUnknown { .. } | LogError::Poisoned { .. }),
        "{error}"
    );
    fs.set_faults(Faults::default());
    let later = log.append(vec![record(3)]).unwrap_err();
    assert!(matches!(later, LogError::Poisoned { .. }), "never tried again: {later}");
    assert_eq!(log.read(1, u64::MAX).unwrap().len(), 1, "reads go on");
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
}
