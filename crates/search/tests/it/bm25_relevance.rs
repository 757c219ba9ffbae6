//! Relevance of `bm25` on the test collections beside the repository, where they are present.
//!
//! `MAINSTAY_DATASETS` names another folder. The table is printed with
//! `cargo test -p mainstay-search --test it bm25_relevance -- --nocapture`.
//! With `MAINSTAY_ABLATIONS=1` it has a column for each step of the chain left out.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use mainstay_search::analysis::Chain;
use mainstay_search::bitmap::Bitmap;
use mainstay_search::bm25::Bm25View;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::Document;
use mainstay_search::request::{Allowed, Pattern, Request, Stop};
use mainstay_search::view::{Addition, View};

/// The collections, with the best nDCG@10 listed for a BM25 in their descriptions.
const BASELINES: [(&str, f64); 19] = [
    ("scifact", 0.686),
    ("cranfield", 0.359),
    ("cisi", 0.371),
    ("medline", 0.695),
    ("cosqa-dev", 0.388),
    ("conala", 0.567),
    ("mbpp", 0.570),
    ("xquad/ar", 0.889),
    ("xquad/de", 0.916),
    ("xquad/el", 0.910),
    ("xquad/en", 0.965),
    ("xquad/es", 0.949),
    ("xquad/hi", 0.779),
    ("xquad/ro", 0.920),
    ("xquad/ru", 0.872),
    ("xquad/th", 0.914),
    ("xquad/tr", 0.896),
    ("xquad/vi", 0.959),
    ("xquad/zh", 0.967),
];

/// How far below its baseline a collection may be.
const MARGIN: f64 = 0.01;

struct Collection {
    ids: Vec<String>,
    documents: Vec<Addition>,
    queries: Vec<(String, String)>,
    grades: HashMap<String, HashMap<String, f64>>,
}

fn datasets() -> Option<PathBuf> {
    let beside =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../../shared/datasets");
    let folder = std::env::var_os("MAINSTAY_DATASETS").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// A file, or the same file packed; `None` when there is no `zstd` to unpack it.
fn text_of(folder: &Path, name: &str) -> Option<String> {
    let plain = folder.join(name);
    if plain.is_file() {
        return Some(std::fs::read_to_string(plain).unwrap());
    }
    let packed = folder.join(format!("{name}.zst"));
    let mut child =
        Command::new("zstd").arg("-dcq").arg(packed).stdout(Stdio::piped()).spawn().ok()?;
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).unwrap();
    child.wait().unwrap().success().then_some(text)
}

fn rows(text: &str) -> impl Iterator<Item = HashMap<String, serde_json::Value>> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn load(folder: &Path) -> Option<Collection> {
    let (mut ids, mut documents) = (Vec::new(), Vec::new());
    for row in rows(&text_of(folder, "docs.jsonl")?) {
        let field =
            |name: &str| row.get(name).and_then(|value| value.as_str()).unwrap_or("").to_string();
        ids.push(field("id"));
        let document = Document {
            title: field("title"),
            body: field("text"),
            path: field("path"),
            language: field("language"),
            ..Document::default()
        };
        documents.push(Addition { number: documents.len() as u32, document });
    }
    let queries = rows(&text_of(folder, "queries.jsonl")?)
        .map(|row| {
            (row["id"].as_str().unwrap().to_string(), row["text"].as_str().unwrap().to_string())
        })
        .collect();
    let mut grades: HashMap<String, HashMap<String, f64>> = HashMap::new();
    for line in text_of(folder, "qrels.tsv")?.lines() {
        let mut fields = line.split('\t');
        let (query, document) = (fields.next().unwrap(), fields.next().unwrap());
        // A heading has no number here.
        if let Some(grade) = fields.next().and_then(|grade| grade.trim().parse().ok()) {
            grades.entry(query.to_string()).or_default().insert(document.to_string(), grade);
        }
    }
    Some(Collection { ids, documents, queries, grades })
}

/// The mean nDCG@10 with linear gain, as `trec_eval` has it.
fn ndcg(collection: &Collection, chain: Chain) -> f64 {
    let mut view = Bm25View::open_with(Arc::new(MemoryDirectory::new()), chain).unwrap();
    view.apply(&collection.documents, 1).unwrap();
    let searcher = view.searcher();
    let allowed = Allowed::new(Bitmap::full(collection.documents.len() as u32), None);
    let stop = Stop::new();
    let (mut sum, mut count) = (0.0, 0);
    let discounted = |gains: &mut dyn Iterator<Item = f64>| -> f64 {
        gains.take(10).zip(2u32..).map(|(gain, rank)| gain / f64::from(rank).log2()).sum()
    };
    for (id, text) in &collection.queries {
        let Some(grades) = collection.grades.get(id) else { continue };
        let request = Request {
            strict: false,
            verified_max: usize::MAX,
            text,
            pattern: Pattern::default(),
            vectors: &[],
            limit: 10,
            allowed: &allowed,
            texts: &crate::bm25::NoTexts,
            threads: 1,
            stop: &stop,
        };
        let answer = searcher.search(&request).unwrap();
        let mut gains = answer
            .hits
            .iter()
            .map(|hit| grades.get(&collection.ids[hit.number as usize]).copied().unwrap_or(0.0));
        let mut ideal: Vec<f64> = grades.values().copied().collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        let best = discounted(&mut ideal.into_iter());
        if best > 0.0 {
            sum += discounted(&mut gains) / best;
            count += 1;
        }
    }
    sum / f64::from(count)
}

#[test]
fn no_collection_falls_below_its_baseline() {
    let Some(folder) = datasets() else { return println!("no test collections here") };
    let all = Chain::DEFAULT;
    let mut chains = vec![("default", all)];
    if std::env::var_os("MAINSTAY_ABLATIONS").is_some() {
        chains.extend([
            ("no fold", Chain { fold: false, ..all }),
            ("no stem", Chain { stem: false, ..all }),
            ("no stop", Chain { stop_words: false, ..all }),
            ("no split", Chain { split: false, ..all }),
            ("no pairs", Chain { pairs: false, ..all }),
        ]);
    }
    print!("{:<12}{:>10}", "collection", "baseline");
    chains.iter().for_each(|(name, _)| print!("{name:>10}"));
    println!();
    let mut below = Vec::new();
    for (name, baseline) in BASELINES {
        let Some(collection) = load(&folder.join(name)) else { continue };
        print!("{name:<12}{baseline:>10.3}");
        for (at, (_, chain)) in chains.iter().enumerate() {
            let ndcg = ndcg(&collection, *chain);
            print!("{ndcg:>10.4}");
            if at == 0 && ndcg < baseline - MARGIN {
                below.push((name, ndcg, baseline));
            }
        }
        println!();
    }
    assert_eq!(below, []);
}
