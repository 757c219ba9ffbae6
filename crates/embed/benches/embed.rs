//! Passages and queries a second: `cargo bench -p mainstay-embed`.
//!
//! Throughput in "elements" is texts. The machine decides the figures; compare ratios of one run.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mainstay_embed::{
    Embedder, Kind, Pool, PoolSettings, QueryCache, StaticModel, Transformer, WordPiece,
};

/// Words of one token each, so that a text of n words has n tokens.
const WORDS: &[&str] = &[
    "search", "engine", "reads", "the", "log", "and", "writes", "each", "record", "to", "disk",
    "before", "it", "answers", "any", "client", "with", "number", "of", "last", "frame",
];

/// Different texts of `tokens` tokens, those around the text included for a transformer.
fn texts(count: usize, tokens: usize) -> Vec<String> {
    (0..count)
        .map(|text| {
            let words = (0..tokens).map(|at| WORDS[(text * 7 + at * (1 + text % 5)) % WORDS.len()]);
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn models(criterion: &mut Criterion) {
    let static_model = StaticModel::built_in().expect("the model is part of the program");
    let minilm = Transformer::built_in().expect("the model is part of the program");
    let mut group = criterion.benchmark_group("passages");
    group.sample_size(10);
    for tokens in [8, 128, 256] {
        let cases: [(&str, &dyn Embedder, usize, usize); 2] =
            [("static", &*static_model, 512, tokens), ("minilm", &*minilm, 16, tokens - 2)];
        for (name, model, count, words) in cases {
            let passages = texts(count, words);
            let passages = borrowed(&passages);
            group.throughput(Throughput::Elements(count as u64));
            group.bench_with_input(BenchmarkId::new(name, tokens), &passages, |bencher, texts| {
                bencher.iter(|| model.embed(black_box(texts), Kind::Passage).expect("embeds"));
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("query");
    group.throughput(Throughput::Elements(1));
    let query = "how does the engine read the log";
    group.bench_function("static", |bencher| {
        bencher.iter(|| static_model.embed(black_box(&[query]), Kind::Query).expect("embeds"));
    });
    group.bench_function("minilm", |bencher| {
        bencher.iter(|| minilm.embed(black_box(&[query]), Kind::Query).expect("embeds"));
    });
    let cache = QueryCache::new(1 << 20);
    cache.put(minilm.identity(), query, vec![0.0; 384].into());
    group.bench_function("cache", |bencher| {
        bencher.iter(|| cache.get(minilm.identity(), black_box(query)).expect("is there"));
    });
    group.finish();
}

fn pools(criterion: &mut Criterion) {
    let minilm: Arc<dyn Embedder> = Transformer::built_in().expect("the model is there");
    let mut group = criterion.benchmark_group("pool");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    let passages = texts(32, 126);
    group.throughput(Throughput::Elements(32));
    for workers in [1, 2] {
        let settings = PoolSettings { workers, ..PoolSettings::default() };
        let pool = Pool::start(settings).expect("starts");
        group.bench_function(BenchmarkId::new("minilm-128-workers", workers), |bencher| {
            bencher.iter(|| pool.embed_passages(&minilm, passages.clone()).expect("embeds"));
        });
    }
    group.finish();
}

fn tokens(criterion: &mut Criterion) {
    let wordpiece = WordPiece::built_in().expect("the vocabulary is part of the program");
    let mut group = criterion.benchmark_group("tokens");
    let cases = [
        ("prose", texts(1, 20_000).remove(0)),
        (
            "code",
            "fn parse_header(input: &[u8]) -> Option<Header> { self.map.get(&k)? }\n".repeat(1500),
        ),
        ("japanese", "検索エンジンはログを読み、記録をディスクに書きます。".repeat(1500)),
    ];
    for (name, text) in cases {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            let mut tokens = Vec::new();
            bencher.iter(|| {
                tokens.clear();
                wordpiece.encode(black_box(&text), usize::MAX, &mut tokens);
                tokens.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, models, pools, tokens);
criterion_main!(benches);
