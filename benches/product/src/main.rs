//! The whole product over made-up short documents: ingest through all four methods, restart to the
//! first answer, hybrid latency, and how long a kill costs.
//!
//! `cargo xtask bench product [--quick] [--json] [--documents N]`: a million documents, or fifty
//! thousand with `--quick`. Words follow a Zipf law over an invented vocabulary; the seed is fixed.

use std::time::{Duration, Instant};

use mainstay_db::{Collection, Db, Document, Method, Options, SearchRequest};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VOCABULARY: usize = 50_000;
const WORDS_PER_DOCUMENT: usize = 50;
const BATCH: usize = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| {
        arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)?.parse().ok())
    };
    let documents: usize =
        value("--documents").unwrap_or(if has("--quick") { 50_000 } else { 1_000_000 });
    let report = run(documents);
    if has("--json") {
        println!("{report}");
    } else {
        for (name, figure) in report.as_object().into_iter().flatten() {
            println!("{name:32} {figure}");
        }
    }
}

fn run(documents: usize) -> serde_json::Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || Db::open(folder.path(), Options::default()).expect("opens");
    let db = open();
    let docs = db.create_collection("bench", "static".parse().expect("known")).expect("creates");
    let mut words = Words::new(7);

    let begun = Instant::now();
    let mut acknowledged = Duration::ZERO;
    for start in (0..documents).step_by(BATCH) {
        let batch = (start..documents.min(start + BATCH)).map(|at| words.document(at)).collect();
        let sent = Instant::now();
        docs.put(batch).expect("stores");
        acknowledged += sent.elapsed();
    }
    let target = docs.durable_seq();
    while !docs.wait_indexed(target, &Method::ALL, Duration::from_secs(600)) {}
    let ingest = begun.elapsed();
    let views: serde_json::Map<String, serde_json::Value> = docs
        .status()
        .views
        .into_iter()
        .map(|v| (v.view.to_string(), (v.figures.disk_bytes + v.figures.memory_bytes).into()))
        .collect();
    drop(docs);
    db.close().expect("closes");

    // From the first byte read to the first fused answer.
    let begun = Instant::now();
    let db = open();
    let docs = db.collection("bench").expect("is there");
    let first = ask(&docs, &words.query());
    let restart = begun.elapsed();
    assert!(first.complete, "{:?}", first.methods);

    for _ in 0..50 {
        ask(&docs, &words.query());
    }
    let mut hybrid = Vec::new();
    let mut by_method = [const { Vec::new() }; 4];
    for _ in 0..1000 {
        let answer = ask(&docs, &words.query());
        hybrid.push(answer.duration_ms);
        for report in &answer.methods {
            by_method[report.method as usize].push(report.took_ms);
        }
    }
    let mut report = serde_json::json!({
        "documents": documents,
        "ingest_documents_per_s": (documents as f64 / ingest.as_secs_f64()).round(),
        "acknowledge_documents_per_s": (documents as f64 / acknowledged.as_secs_f64()).round(),
        "restart_to_first_answer_ms": restart.as_secs_f64() * 1000.0,
        "hybrid_p50_ms": quantile(&mut hybrid, 0.5),
        "hybrid_p99_ms": quantile(&mut hybrid, 0.99),
        "view_bytes": views,
    });
    for method in Method::ALL {
        let name = format!("{method}_p99_ms");
        report[name] = quantile(&mut by_method[method as usize], 0.99).into();
    }
    report
}

fn ask(docs: &Collection, query: &str) -> mainstay_db::SearchAnswer {
    docs.search(&SearchRequest::new(query)).expect("answers")
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (share * values.len() as f64).ceil() as usize;
    (values[at.saturating_sub(1)] * 100.0).round() / 100.0
}

/// Made-up words by a Zipf law.
struct Words {
    vocabulary: Vec<String>,
    /// Cumulative shares of the ranks.
    shares: Vec<f64>,
    state: u64,
}

impl Words {
    fn new(seed: u64) -> Self {
        let syllables = ["ka", "lo", "mi", "ren", "tas", "vo", "ud", "sel", "pir", "nan", "gor", "eth"];
        let mut words = Self { vocabulary: Vec::new(), shares: Vec::new(), state: seed };
        let mut seen = std::collections::HashSet::new();
        while words.vocabulary.len() < VOCABULARY {
            let parts = 2 + words.below(3);
            let word: String = (0..parts).map(|_| syllables[words.below(syllables.len())]).collect();
            if seen.insert(word.clone()) {
                words.vocabulary.push(word);
            } else {
                let number = words.below(VOCABULARY);
                let numbered = format!("{word}{number}");
                if seen.insert(numbered.clone()) {
                    words.vocabulary.push(numbered);
                }
            }
        }
        let mut sum = 0.0;
        for rank in 1..=VOCABULARY {
            sum += 1.0 / rank as f64;
            words.shares.push(sum);
        }
        words
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn word(&mut self) -> usize {
        let total = self.shares[VOCABULARY - 1];
        let at = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.shares.partition_point(|share| *share < at).min(VOCABULARY - 1)
    }

    fn document(&mut self, at: usize) -> Document {
        let mut body = String::with_capacity(WORDS_PER_DOCUMENT * 8);
        for _ in 0..WORDS_PER_DOCUMENT {
            let word = self.word();
            body.push_str(&self.vocabulary[word]);
            body.push(' ');
        }
        Document { id: format!("doc-{at}"), body, ..Document::default() }
    }

    /// Two or three words, as people type them: seldom the most frequent ones.
    fn query(&mut self) -> String {
        let count = 2 + self.below(2);
        let words: Vec<usize> = (0..count).map(|_| self.word().max(20)).collect();
        words.into_iter().map(|at| self.vocabulary[at].as_str()).collect::<Vec<_>>().join(" ")
    }
}
