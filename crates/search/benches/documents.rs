//! Speed of the stored documents: writing, finding, reading, filtering, opening again.
//!
//! `cargo bench -p mainstay-search --bench documents`. With `MAINSTAY_CORPUS=DIR` texts are walked
//! and compressed from the files below that folder as well; `MAINSTAY_DOCUMENTS=N` sets how many
//! short documents are generated (1,000,000). On Linux the time is that of the thread on a
//! processor, so that a busy machine measures much the same as an idle one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{DocNumber, Document, Value};
use mainstay_search::documents::{DocumentChange, Documents, DocumentsSnapshot, Filter, SortKey};
use mainstay_search::request::{Stop, Texts};
use mainstay_search::view::Addition;

const WORDS: [&str; 24] = [
    "index",
    "search",
    "document",
    "storage",
    "segment",
    "checkpoint",
    "query",
    "filter",
    "score",
    "passage",
    "vector",
    "window",
    "budget",
    "breaker",
    "retry",
    "deadline",
    "snapshot",
    "column",
    "replica",
    "frame",
    "ledger",
    "backup",
    "drill",
    "recall",
];

/// How long this thread has run on a processor; where the system does not say, the time since the
/// first call.
fn processor_time() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = spent.and_then(|line| line.split(' ').next()?.parse().ok());
    spent.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// Measures [`processor_time`].
struct ProcessorTime;

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        processor_time()
    }

    fn end(&self, start: Duration) -> Duration {
        processor_time() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

type Bench = Criterion<ProcessorTime>;

/// A fixed sequence that looks random.
fn mixed(seed: u32) -> u32 {
    let mut x = seed.wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b;
    x ^= x >> 15;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ x >> 13
}

/// About 50 words.
fn document(i: u32) -> Document {
    let word = |j: u32| WORDS[(mixed(i.wrapping_mul(64).wrapping_add(j)) % 24) as usize];
    let body = (0..50).map(word).collect::<Vec<_>>().join(" ");
    let pick = mixed(i);
    Document {
        id: format!("document-{i:08}"),
        title: format!("{} {} {i}", word(60), word(61)),
        body,
        path: format!("part{}/{}/{i}.{}", pick % 100, word(62), ["rs", "c", "md"][i as usize % 3]),
        language: ["rust", "c", "en"][i as usize % 3].into(),
        tags: vec![word(63).into()],
        attributes: [
            ("price".to_string(), Value::Number(f64::from(pick % 10_000) / 100.0)),
            ("since".to_string(), Value::Date(1_700_000_000_000 + i64::from(pick))),
            ("owner".to_string(), Value::String(format!("user{}", pick % 5000))),
        ]
        .into(),
    }
}

fn put(number: DocNumber, document: Document) -> DocumentChange {
    DocumentChange::Put(Addition { number, document })
}

fn merge_all(view: &mut Documents) -> Duration {
    let start = processor_time();
    while let Some(merge) = view.plan_merge() {
        let merged = (merge.run)(&Stop::new()).unwrap();
        view.install(merged).unwrap();
    }
    processor_time() - start
}

fn fill(view: &mut Documents, documents: impl Iterator<Item = Document>) -> (Duration, Duration) {
    let (mut spent, mut merging) = (Duration::ZERO, Duration::ZERO);
    let mut changes = Vec::new();
    let mut through = view.through();
    let mut flush = |view: &mut Documents, changes: &mut Vec<DocumentChange>| {
        through += changes.len() as u64;
        let start = processor_time();
        view.apply(changes, through).unwrap();
        spent += processor_time() - start;
        changes.clear();
    };
    for (number, document) in documents.enumerate() {
        changes.push(put(number as DocNumber, document));
        if changes.len() == 256 {
            flush(view, &mut changes);
            merging += merge_all(view); // another thread does this in earnest; it is timed apart
        }
    }
    flush(view, &mut changes);
    (spent, merging)
}

fn writing(c: &mut Bench) {
    let mut group = c.benchmark_group("put");
    group.sampling_mode(SamplingMode::Flat);
    for batch in [1u32, 256] {
        group.throughput(Throughput::Elements(8192));
        group.bench_function(format!("8192 documents in batches of {batch}"), |b| {
            let setup = || {
                let changes: Vec<_> = (0..8192).map(|i| put(i, document(i))).collect();
                (Documents::open(Arc::new(MemoryDirectory::new())).unwrap(), changes)
            };
            b.iter_batched(
                setup,
                |(mut view, changes)| {
                    for (at, part) in changes.chunks(batch as usize).enumerate() {
                        view.apply(part, at as u64 + 1).unwrap();
                        black_box(view.snapshot());
                    }
                    (view, changes)
                },
                BatchSize::PerIteration,
            );
        });
    }
}

fn reading(c: &mut Bench, snapshot: &DocumentsSnapshot, count: u32) {
    let mut group = c.benchmark_group("read");
    group.sampling_mode(SamplingMode::Flat);
    let mut i = 0;
    group.bench_function("number_of, an id that lives", |b| {
        b.iter(|| {
            i += 1;
            snapshot.number_of(&format!("document-{:08}", mixed(i) % count)).unwrap().unwrap()
        });
    });
    group.bench_function("number_of, an unknown id", |b| {
        b.iter(|| {
            i += 1;
            snapshot.number_of(&format!("unknown-{i:08}")).unwrap()
        });
    });
    group.bench_function("get", |b| {
        b.iter(|| {
            i += 1;
            snapshot.get(mixed(i) % count).unwrap().unwrap()
        });
    });
    group.bench_function("list 100", |b| {
        b.iter(|| {
            i += 1;
            snapshot.list(Some(&format!("document-{:08}", mixed(i) % count)), 100).unwrap()
        });
    });
}

fn selecting(c: &mut Bench, snapshot: &DocumentsSnapshot) {
    let mut group = c.benchmark_group("filter");
    group.sampling_mode(SamplingMode::Flat);
    for text in [
        "language:rust",
        "price>=10 price<20",
        "since>2023-12-01",
        "tags:segment",
        "owner:user77",
        "id:document-00000007",
        "path:part7/**",
        "path:*.rs",
        "path:part*/ledger/*.c",
        "language:rust price<50 -tags:segment,query (owner:user1 OR since<2023-11-20)",
    ] {
        let filter = Filter::parse(text).unwrap();
        group.bench_function(text, |b| b.iter(|| snapshot.filter(&filter).unwrap()));
    }
    drop(group);
    let mut group = c.benchmark_group("columns");
    group.sampling_mode(SamplingMode::Flat);
    let among = snapshot.filter(&Filter::parse("price<50").unwrap()).unwrap();
    group.bench_function("facets of language, tags, owner among half", |b| {
        b.iter(|| snapshot.facets(&among, &["language", "tags", "owner"], 10).unwrap());
    });
    for field in ["price", "title"] {
        let order = [SortKey { field: field.into(), descending: true }];
        group.bench_function(format!("first 20 of half by {field}"), |b| {
            b.iter(|| snapshot.sort(among.iter(), &order, 20).unwrap());
        });
    }
}

fn walking(c: &mut Bench, name: &str, snapshot: &DocumentsSnapshot) {
    let numbers: Vec<DocNumber> = snapshot.living().iter().collect();
    let mut bytes = 0;
    let mut newlines = 0;
    let mut walk = |count: bool| {
        let visit = &mut |_, text: mainstay_search::request::Text<'_>| {
            bytes += text.body.len() as u64;
            if count {
                newlines += text.body.bytes().filter(|&byte| byte == b'\n').count();
            }
            ControlFlow::Continue(())
        };
        snapshot.visit(&numbers, visit).unwrap();
        std::mem::take(&mut bytes)
    };
    let total = walk(false);
    let mut group = c.benchmark_group("visit");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(total));
    group.bench_function(format!("{name}, {} MB", total >> 20), |b| b.iter(|| walk(false)));
    group.bench_function(format!("{name}, reading every byte"), |b| b.iter(|| walk(true)));
}

/// What blocks would cost raw and compressed, at several sizes.
fn codecs(c: &mut Bench, texts: &[String]) {
    let all: Vec<u8> = texts.iter().flat_map(|text| text.bytes()).take(256 << 20).collect();
    let mut group = c.benchmark_group("codec");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(all.len() as u64));
    for kib in [16, 64, 256] {
        let blocks: Vec<_> = all.chunks(kib << 10).collect();
        let packed: Vec<_> = blocks.iter().map(|block| lz4_flex::block::compress(block)).collect();
        let stored: usize = packed.iter().map(Vec::len).sum();
        let ratio = stored as f64 / all.len() as f64;
        let mut buffer = vec![0; kib << 10];
        group.bench_function(format!("lz4 {kib} KiB, stored {ratio:.3}"), |b| {
            b.iter(|| {
                for (block, packed) in blocks.iter().zip(&packed) {
                    black_box(xxhash_rust::xxh3::xxh3_64(packed));
                    let out = &mut buffer[..block.len()];
                    lz4_flex::block::decompress_into(packed, out).unwrap();
                    black_box(std::str::from_utf8(black_box(out)).is_ok());
                }
            });
        });
    }
    group.bench_function("raw 64 KiB", |b| {
        b.iter(|| {
            for block in all.chunks(64 << 10) {
                black_box(xxhash_rust::xxh3::xxh3_64(block));
                black_box(std::str::from_utf8(black_box(block)).is_ok());
            }
        });
    });
}

fn files_below(folder: &Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            files_below(&entry.path(), out);
        } else if kind.is_file()
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            out.push(text);
        }
    }
}

fn corpus(c: &mut Bench) {
    let Ok(folder) = std::env::var("MAINSTAY_CORPUS") else { return };
    let mut texts = Vec::new();
    files_below(Path::new(&folder), &mut texts);
    codecs(c, &texts);
    let mut view = Documents::open(Arc::new(MemoryDirectory::new())).unwrap();
    let bytes: usize = texts.iter().map(String::len).sum();
    let count = texts.len();
    let (spent, merging) = fill(
        &mut view,
        texts.into_iter().enumerate().map(|(i, body)| Document {
            id: i.to_string(),
            body,
            language: "c".into(),
            ..Document::default()
        }),
    );
    view.checkpoint().unwrap();
    let figures = view.figures();
    println!(
        "corpus: {count} files, {} MB, put in {spent:.1?}, merged in {merging:.1?}, stored {:.3}",
        bytes >> 20,
        figures.disk_bytes as f64 / bytes as f64
    );
    walking(c, "corpus", &view.snapshot());
}

fn stored(c: &mut Bench) {
    let count: u32 =
        std::env::var("MAINSTAY_DOCUMENTS").map_or(1_000_000, |count| count.parse().unwrap());
    let directory = Arc::new(MemoryDirectory::new());
    let mut view = Documents::open(directory.clone()).unwrap();
    let (spent, merging) = fill(&mut view, (0..count).map(document));
    view.checkpoint().unwrap();
    println!(
        "{count} documents: {:.2} µs each to put, merged in {merging:.1?}, {:?}",
        spent.as_secs_f64() * 1e6 / f64::from(count),
        view.figures()
    );
    let snapshot = view.snapshot();
    c.bench_function("open again", |b| {
        b.iter(|| {
            let view = Documents::open(directory.clone()).unwrap();
            view.snapshot().get_by_id("document-00000007").unwrap().unwrap()
        });
    });
    reading(c, &snapshot, count);
    selecting(c, &snapshot);
    walking(c, "50-word documents", &snapshot);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(ProcessorTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(3));
    targets = writing, stored, corpus
}
criterion_main!(benches);
