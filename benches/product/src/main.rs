//! The whole product over made-up short documents: ingest through all four methods, restart to the
//! first answer, hybrid latency, and how long a kill costs.
//!
//! `cargo xtask bench product [--quick] [--json] [--documents N] [--tree DIR]`: a million documents,
//! or fifty thousand with `--quick`. Words follow a Zipf law over the English words of the built-in
//! models' vocabulary, which lists them by frequency; with `--tree` the documents are pieces of the
//! text files of a folder instead. The seed is fixed. `--data DIR` keeps the database there, and
//! only asks when it is there already; `--settle` waits until no merge is left before it asks.

use std::path::{Path, PathBuf};
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
    let tree = arguments.iter().position(|a| a == "--tree").and_then(|at| arguments.get(at + 1));
    let mut source = match tree {
        Some(tree) => Source::pieces(Path::new(tree), documents),
        None => Source::words(),
    };
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let data = arguments.iter().position(|a| a == "--data").and_then(|at| arguments.get(at + 1));
    let folder = data.map_or(temporary.path(), Path::new);
    let report = run(folder, documents, has("--settle"), &mut source);
    if has("--json") {
        println!("{report}");
    } else {
        for (name, figure) in report.as_object().into_iter().flatten() {
            println!("{name:32} {figure}");
        }
    }
}

fn run(folder: &Path, documents: usize, settle: bool, source: &mut Source) -> serde_json::Value {
    let mut report = serde_json::json!({ "documents": documents });
    if !folder.join("bench-is-whole").exists() {
        ingest(folder, documents, source, &mut report);
        std::fs::write(folder.join("bench-is-whole"), "").expect("a marker");
    }
    let open = || Db::open(folder, Options::default()).expect("opens");

    // A view of another format is rebuilt first; that is not the restart that is measured.
    let db = open();
    let docs = db.collection("bench").expect("is there");
    while !docs.wait_indexed(docs.durable_seq(), &Method::ALL, Duration::from_secs(600)) {}
    let mut quiet = 0;
    let waited = Instant::now();
    while settle && quiet < 5 {
        quiet = if db.maintenance_pending() == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_secs(1));
    }
    if settle {
        report["settled_after_s"] = waited.elapsed().as_secs().into();
    }
    drop(docs);
    db.close().expect("closes");

    // From the first byte read to the first fused answer.
    let begun = Instant::now();
    let db = open();
    let docs = db.collection("bench").expect("is there");
    let first = ask(&docs, &source.query());
    let restart = begun.elapsed();
    assert!(first.complete, "{:?}", first.methods);

    for _ in 0..50 {
        ask(&docs, &source.query());
    }
    let mut hybrid = Vec::new();
    let mut by_method = [const { Vec::new() }; 4];
    for _ in 0..1000 {
        let answer = ask(&docs, &source.query());
        hybrid.push(answer.duration_ms);
        for report in &answer.methods {
            by_method[report.method as usize].push(report.took_ms);
        }
    }
    report["restart_to_first_answer_ms"] = (restart.as_secs_f64() * 1000.0).round().into();
    report["hybrid_p50_ms"] = quantile(&mut hybrid, 0.5).into();
    report["hybrid_p99_ms"] = quantile(&mut hybrid, 0.99).into();
    for method in Method::ALL {
        let times = &mut by_method[method as usize];
        report[format!("{method}_p50_ms")] = quantile(times, 0.5).into();
        report[format!("{method}_p99_ms")] = quantile(times, 0.99).into();
    }
    report
}

fn ingest(folder: &Path, documents: usize, source: &mut Source, report: &mut serde_json::Value) {
    let db = Db::open(folder, Options::default()).expect("opens");
    let docs = db.create_collection("bench", "static".parse().expect("known")).expect("creates");
    let begun = Instant::now();
    let mut acknowledged = Duration::ZERO;
    for start in (0..documents).step_by(BATCH) {
        let batch = (start..documents.min(start + BATCH)).map(|at| source.document(at)).collect();
        let sent = Instant::now();
        docs.put(batch).expect("stores");
        acknowledged += sent.elapsed();
    }
    let target = docs.durable_seq();
    while !docs.wait_indexed(target, &Method::ALL, Duration::from_secs(600)) {}
    let ingest = begun.elapsed();
    let per_s = |time: Duration| (documents as f64 / time.as_secs_f64()).round();
    report["ingest_documents_per_s"] = per_s(ingest).into();
    report["acknowledge_documents_per_s"] = per_s(acknowledged).into();
    report["view_bytes"] = docs
        .status()
        .views
        .into_iter()
        .map(|v| (v.view.to_string(), (v.figures.disk_bytes + v.figures.memory_bytes).into()))
        .collect::<serde_json::Map<_, serde_json::Value>>()
        .into();
    drop(docs);
    db.close().expect("closes");
}

fn ask(docs: &Collection, query: &str) -> mainstay_db::SearchAnswer {
    docs.search(&SearchRequest::new(query)).expect("answers")
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (share * values.len() as f64).ceil() as usize;
    (values[at.saturating_sub(1)] * 100.0).round() / 100.0
}

/// Where the documents and the queries come from.
struct Source {
    text: Text,
    random: Random,
}

enum Text {
    /// Words by rank, and the cumulative shares of the ranks by Zipf's law.
    Words(Vec<String>, Vec<f64>),
    /// Pieces of real text.
    Pieces(Vec<String>),
}

impl Source {
    /// Sentences of words by Zipf's law.
    fn words() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/vocab.txt");
        let listed = std::fs::read_to_string(path).expect("the vocabulary is in the tree");
        let plain = |word: &&str| word.len() > 1 && word.bytes().all(|b| b.is_ascii_lowercase());
        let mut words: Vec<String> = listed.lines().filter(plain).map(String::from).collect();
        let stems = words.len();
        let endings: Vec<&str> =
            listed.lines().filter_map(|line| line.strip_prefix("##")).collect();
        let mut random = Random(3);
        while words.len() < VOCABULARY {
            // Rare words: a stem and one of the commoner endings.
            let ending = endings[random.below(1000)];
            words.push(format!("{}{ending}", words[random.below(stems)]));
        }
        let mut sum = 0.0;
        let shares = (1..=words.len()).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        let shares = shares.collect();
        Self { text: Text::Words(words, shares), random: Random(7) }
    }

    /// The files below `tree`, cut after every [`WORDS_PER_DOCUMENT`] words.
    fn pieces(tree: &Path, wanted: usize) -> Self {
        let mut files = Vec::new();
        collect(tree, &mut files);
        files.sort();
        let mut pieces = Vec::new();
        for file in files {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let (mut start, mut words, mut inside) = (0, 0, false);
            for (at, byte) in text.bytes().enumerate() {
                let blank = byte.is_ascii_whitespace();
                words += usize::from(inside && blank);
                inside = !blank;
                if blank && words == WORDS_PER_DOCUMENT {
                    pieces.push(text[start..at].to_string());
                    (start, words) = (at, 0);
                }
            }
            if pieces.len() >= wanted {
                break;
            }
        }
        assert!(pieces.len() >= wanted, "the tree gives only {} documents", pieces.len());
        Self { text: Text::Pieces(pieces), random: Random(7) }
    }

    fn document(&mut self, at: usize) -> Document {
        let body = match &self.text {
            Text::Pieces(pieces) => pieces[at].clone(),
            Text::Words(words, shares) => {
                let mut body = String::with_capacity(WORDS_PER_DOCUMENT * 8);
                for _ in 0..WORDS_PER_DOCUMENT {
                    body.push_str(&words[self.random.rank(shares)]);
                    body.push(' ');
                }
                body
            }
        };
        Document { id: format!("doc-{at}"), body, ..Document::default() }
    }

    /// Two or three words, as people type them: seldom the most frequent ones; from real text, half
    /// of the time words that follow each other.
    fn query(&mut self) -> String {
        let count = 2 + self.random.below(2);
        match &self.text {
            Text::Words(words, shares) => {
                let ranks: Vec<usize> =
                    (0..count).map(|_| self.random.rank(shares).max(20)).collect();
                ranks.into_iter().map(|at| words[at].as_str()).collect::<Vec<_>>().join(" ")
            }
            Text::Pieces(pieces) => {
                let phrase = self.random.below(2) == 0;
                let mut words = Vec::new();
                while words.len() < count {
                    let piece = &pieces[self.random.below(pieces.len())];
                    let plain = |word: &&str| {
                        word.len() > 3 && word.bytes().all(|b| b.is_ascii_alphabetic())
                    };
                    let found: Vec<&str> = piece.split_whitespace().filter(plain).collect();
                    let wanted = if phrase { count } else { 1 };
                    if found.len() >= wanted {
                        let at = self.random.below(found.len() - wanted + 1);
                        words.extend_from_slice(&found[at..at + wanted]);
                    }
                }
                words.join(" ")
            }
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder").flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn rank(&mut self, shares: &[f64]) -> usize {
        let total = shares[shares.len() - 1];
        let at = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * total;
        shares.partition_point(|share| *share < at).min(shares.len() - 1)
    }
}
