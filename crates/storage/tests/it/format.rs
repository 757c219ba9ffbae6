//! The format on the disk, pinned by data: `tests/data/log-v1` was written once and is opened by
//! every build.
//!
//! `MAINSTAY_WRITE_FIXTURE=1` writes it anew; that is right only before a version is released.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mainstay_storage::fs::{FileSystem, RealFs};
use mainstay_storage::log::{Class, LogOptions, Record, SyncLog};
use mainstay_storage::sim::{Random, SimFs};

const DIR: &str = "/log";

fn fixture() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/data/log-v1")
}

/// Options under which the same calls write the same bytes.
fn options() -> LogOptions {
    let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
    let entropy = Arc::new(AtomicU64::new(1));
    LogOptions {
        segment_bytes_min: 8 << 10,
        segment_bytes_max: 8 << 10,
        frame_bytes_max: 4 << 10,
        reserve_bytes: 0,
        clock: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
        entropy: Arc::new(move || Random::new(entropy.fetch_add(1, Ordering::Relaxed)).next_u64()),
        ..LogOptions::small()
    }
}

fn record(number: u64) -> Record {
    let payload = format!("record {number} {}", "abc".repeat(number as usize % 50));
    Record { kind: number as u8, payload: Bytes::from(payload) }
}

fn open(fs: &SimFs) -> SyncLog {
    SyncLog::open(Arc::new(fs.clone()), Path::new(DIR), options()).unwrap().0
}

/// Writes a log with everything the format has: a compacted segment, one whose loss was accepted,
/// ordinary ones, a heartbeat.
fn write() -> SimFs {
    let fs = SimFs::new(1);
    let log = open(&fs);
    let append = |log: &SyncLog, numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            log.commit(&[&[record(number)]], Class::Ordinary).unwrap();
        }
    };
    append(&log, 1..=30);
    log.compact(16, &mut |entry| !entry.seq.is_multiple_of(3), 0).unwrap();
    log.close().unwrap();
    drop(log);
    fs.kill();
    let last = fs.files().into_iter().rfind(|path| path.extension().is_some_and(|e| e == "seg"));
    fs.flip_bit(&last.unwrap(), 4096 + 200, 1);
    let log = open(&fs);
    let damage = log.damage();
    log.accept_loss(damage[0].first_seq, damage[0].last_seq).unwrap();
    append(&log, 31..=40);
    log.close().unwrap();
    fs
}

fn segments(fs: &SimFs) -> Vec<PathBuf> {
    let files = fs.files().into_iter();
    files.filter(|path| path.extension().is_some_and(|e| e == "seg")).collect()
}

#[test]
fn version_1_is_read_by_every_build() {
    if std::env::var_os("MAINSTAY_WRITE_FIXTURE").is_some() {
        let fs = write();
        std::fs::create_dir_all(fixture()).unwrap();
        for path in segments(&fs) {
            let target = fixture().join(path.file_name().unwrap());
            std::fs::write(target, fs.content(&path).unwrap()).unwrap();
        }
    }
    let fs = SimFs::new(2);
    fs.create_dir_all(Path::new(DIR)).unwrap();
    for listed in RealFs.list(&fixture()).unwrap() {
        let content = std::fs::read(fixture().join(&listed.name)).unwrap();
        let file = fs.create(&Path::new(DIR).join(&listed.name)).unwrap();
        file.write_all_at(&content, 0).unwrap();
    }
    let log = open(&fs);
    let verified = log.verify().unwrap();
    assert!(verified.is_whole(), "{verified:?}");
    let lost = verified.accepted[0];
    assert_eq!(log.durable_seq(), 40);
    let entries = log.read(1, u64::MAX).unwrap();
    for entry in &entries {
        assert_eq!(entry.payload, record(entry.seq).payload, "record {}", entry.seq);
    }
    // Each number is there, or was compacted away, or is in the range whose loss was accepted.
    let missing: Vec<u64> =
        (1..=40).filter(|seq| !entries.iter().any(|entry| entry.seq == *seq)).collect();
    let explained = |seq: &u64| {
        (seq.is_multiple_of(3) && *seq <= 16) || (lost.first_seq..=lost.last_seq).contains(seq)
    };
    assert!(missing.iter().all(explained), "{missing:?}");
    assert!(!missing.is_empty());
    log.commit(&[&[record(41)]], Class::Ordinary).unwrap();
}

#[test]
fn ordinary_segments_are_written_as_version_1_was() {
    let fs = write();
    let mut compared = 0;
    for path in segments(&fs) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // How well LZ4 compresses may change; what may not is everything else.
        if name.ends_with("-0000.seg") {
            assert_eq!(fs.content(&path).unwrap(), std::fs::read(fixture().join(&name)).unwrap());
            compared += 1;
        }
    }
    assert!(compared >= 2, "only {compared} segments were compared");
}
