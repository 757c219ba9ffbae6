//! What the log costs: appends with one and several writers, opening after a crash, and replay.
//!
//! `cargo bench -p mainstay-storage --bench log`. Appends measure the disk's sync, so compare
//! them only on one machine; `append/in_memory_*` shows the log's own share.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mainstay_storage::fs::RealFs;
use mainstay_storage::log::{Class, Log, LogOptions, Record, SyncLog};

const RECORD_BYTES: usize = 512;

fn record() -> Record {
    let payload: Vec<u8> = (0..RECORD_BYTES).map(|at| (at * 31) as u8).collect();
    Record { kind: 1, payload: Bytes::from(payload) }
}

fn quiet() -> LogOptions {
    LogOptions { cache_bytes: 0, ..LogOptions::default() }
}

/// Each iteration is one append by each of the writers.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.sample_size(20);
    for writers in [1_u64, 8, 64] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = Log::open(Arc::new(RealFs), &dir.path().join("log"), quiet()).expect("open").0;
        group.throughput(Throughput::Elements(writers));
        group.bench_function(format!("{writers}_writers"), |bencher| {
            bencher.iter(|| {
                let tickets: Vec<_> =
                    (0..writers).map(|_| log.submit(vec![record()]).expect("submit")).collect();
                for ticket in tickets {
                    ticket.wait().expect("append");
                }
            });
        });
    }
    // A disk in memory, whose sync costs nothing, shows the log's own share.
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
        let log = SyncLog::open(Arc::new(RealFs), &dir.path().join("log"), quiet()).expect("open");
        let groups: Vec<Vec<Record>> = (0..64).map(|_| vec![record()]).collect();
        let slices: Vec<&[Record]> = groups.iter().map(Vec::as_slice).collect();
        group.throughput(Throughput::Elements(64));
        group.bench_function("in_memory_64_writers", |bencher| {
            bencher.iter(|| log.0.commit(&slices, Class::Ordinary).expect("commit"));
        });
    }
    group.finish();
}

/// A log of about `bytes` in frames of about 64 KiB.
fn filled(dir: &Path, bytes: usize) -> u64 {
    let log = SyncLog::open(Arc::new(RealFs), dir, quiet()).expect("open").0;
    let records: Vec<Record> = (0..128).map(|_| record()).collect();
    while log.bytes() < bytes as u64 {
        log.commit(&[&records], Class::Ordinary).expect("commit");
    }
    log.close().expect("close");
    log.durable_seq()
}

const LOG_BYTES: usize = 100 << 20;

fn recovery(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("log");
    let records = filled(&path, LOG_BYTES);
    let open = || SyncLog::open(Arc::new(RealFs), &path, quiet()).expect("open").0;
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    group.bench_function("open_100_mib", |bencher| bencher.iter(|| drop(open())));
    group.throughput(Throughput::Bytes(LOG_BYTES as u64));
    group.bench_function("verify", |bencher| {
        let log = open();
        bencher.iter(|| black_box(log.verify().expect("verify")));
    });
    group.throughput(Throughput::Elements(records));
    group.bench_function("replay_records", |bencher| {
        let log = open();
        bencher.iter(|| {
            let mut from = 1;
            while from <= log.durable_seq() {
                from = black_box(log.read_batch(from, 1 << 20).expect("read")).next_seq;
            }
        });
    });
    group.finish();
}

criterion_group!(benches, append, recovery);
criterion_main!(benches);
