//! `mainstay eval`: relevance on test collections.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mainstay_db::fusion::{DEPTH, Fusion, TuneQuery, fuse, tune};
use mainstay_db::relevance::Judged;
use mainstay_db::{
    Collection, Db, Document, Method, MethodAnswer, Options, SearchRequest, Weights,
};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::{data, index};

/// Measure relevance on test collections
///
/// Reads docs.jsonl[.zst], queries.jsonl and qrels.tsv of each folder, indexes the documents into a
/// data directory that is removed afterwards, and asks every query of each method.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folders with docs.jsonl or docs.jsonl.zst, queries.jsonl and qrels.tsv; a folder that holds
    /// such folders stands for all of them
    #[arg(required = true, value_name = "DATASET_DIR")]
    datasets: Vec<PathBuf>,
    /// The embedding model: auto waits for the refining model
    #[arg(long, default_value = "auto")]
    model: String,
    /// Find fusion weights for each collection, with an honest estimate of what they gain
    #[arg(long)]
    tune: bool,
    /// Print the results as JSON: an array with an object for each collection
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct DocLine {
    id: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    language: String,
}

#[derive(Deserialize)]
struct QueryLine {
    id: String,
    text: String,
}

#[derive(Serialize)]
struct Row {
    system: String,
    ndcg_10: f64,
    recall_100: f64,
    mrr_10: f64,
    queries_per_s: f64,
}

#[derive(Serialize)]
struct Evaluation {
    dataset: String,
    documents: usize,
    queries: usize,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tuned: Option<TunedJson>,
}

#[derive(Serialize)]
struct TunedJson {
    weights: [f32; 4],
    before: f64,
    held_out: f64,
    gain: f64,
    gain_low: f64,
    gain_high: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let model = data::model(&arguments.model)?;
    let mut results = Vec::new();
    for folder in datasets(&arguments.datasets)? {
        let home = TemporaryFolder::new()?;
        let options = Options { refine_percent: 100, ..Options::default() };
        let db = Db::open(&home.0, options)?;
        let collection = db.create_collection("eval", model.clone())?;
        let result = evaluate(&folder, &collection, arguments)?;
        if !arguments.json {
            print(&result);
        }
        results.push(result);
        db.close()?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&results).map_err(|e| Failure::new(e.to_string()))?);
    } else if results.len() > 1 {
        print_means(&results);
    }
    Ok(ExitCode::SUCCESS)
}

/// The folders that hold a collection, in order.
fn datasets(given: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for folder in given {
        collect(folder, &mut found)
            .map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
    }
    if found.is_empty() {
        return Err(Failure::usage("no folder holds docs.jsonl, queries.jsonl and qrels.tsv"));
    }
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if folder.join("qrels.tsv").exists() && folder.join("queries.jsonl").exists() {
        found.push(folder.to_path_buf());
        return Ok(());
    }
    let mut inner: Vec<PathBuf> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    inner.sort();
    inner.iter().try_for_each(|path| collect(path, found))
}

fn evaluate(
    folder: &Path,
    collection: &Collection,
    arguments: &Arguments,
) -> Result<Evaluation, Failure> {
    let documents = read_documents(folder)?;
    let queries: Vec<QueryLine> =
        lines(&read_text(&folder.join("queries.jsonl"))?, "queries.jsonl")?;
    let judgements = read_judgements(&folder.join("qrels.tsv"))?;
    let count = documents.len();
    for batch in documents.chunks(1000) {
        collection.put(batch.to_vec())?;
    }
    data::wait_indexed(collection, "indexing");
    index::wait_refined(collection);
    let judged: Vec<&QueryLine> =
        queries.iter().filter(|q| judgements.contains_key(&q.id)).collect();
    let bar = data::bar(judged.len() as u64, "asking", "queries");
    let mut asked = Vec::new();
    for query in &judged {
        asked.push(Asked::new(collection, &query.text, &judgements[&query.id])?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let weights = match arguments.model.as_str() {
        "static" => Weights::INSTANT,
        _ => Weights::REFINED,
    };
    let mut rows: Vec<Row> = Method::ALL
        .iter()
        .map(|m| row(&asked, &[*m], &weights, Fusion::Scores, m.name()))
        .collect();
    for (at, one) in Method::ALL.iter().enumerate() {
        for other in &Method::ALL[at + 1..] {
            let name = format!("{one}+{other}");
            rows.push(row(&asked, &[*one, *other], &weights, Fusion::Scores, &name));
        }
    }
    rows.push(row(&asked, &Method::ALL, &weights, Fusion::Scores, "fusion"));
    rows.push(row(&asked, &Method::ALL, &weights, Fusion::RANKS, "fusion rrf"));
    let tuned = if arguments.tune { tuned(&asked, &weights) } else { None };
    let dataset = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = folder.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let dataset = if parent == "datasets" { dataset } else { format!("{parent}/{dataset}") };
    Ok(Evaluation { dataset, documents: count, queries: judged.len(), rows, tuned })
}

/// One query with what each method answered by itself.
struct Asked {
    answers: Vec<(Method, MethodAnswer)>,
    ids: BTreeMap<u32, String>,
    took: Vec<(Method, Duration)>,
    all_took: Duration,
    known_share: f32,
    judgements: BTreeMap<String, f64>,
}

impl Asked {
    fn new(
        collection: &Collection,
        text: &str,
        judgements: &BTreeMap<String, f64>,
    ) -> Result<Self, Failure> {
        // Each method alone first, so that its time is its own.
        let mut took = Vec::new();
        for method in Method::ALL {
            let mut request = request(text);
            request.methods = vec![method];
            // A text may be no valid query of a method by itself; it then finds nothing.
            match collection.ranked_lists(&request) {
                Ok(ranked) => took.extend(ranked.took),
                Err(mainstay_db::DbError::Query { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let begun = Instant::now();
        let ranked = collection.ranked_lists(&request(text))?;
        Ok(Self {
            answers: ranked.lists,
            ids: ranked.ids,
            took,
            all_took: begun.elapsed(),
            known_share: ranked.known_share,
            judgements: judgements.clone(),
        })
    }
}

fn request(text: &str) -> SearchRequest {
    let end = text.floor_char_boundary(4096);
    let mut request = SearchRequest::new(&text[..end]);
    request.limit = DEPTH;
    request.timeout = Duration::from_secs(20);
    request
}

fn row(asked: &[Asked], methods: &[Method], weights: &Weights, fusion: Fusion, name: &str) -> Row {
    let mut sums = [0.0; 3];
    let mut seconds = 0.0;
    for query in asked {
        let lists: Vec<(Method, &MethodAnswer)> = query
            .answers
            .iter()
            .filter(|(method, _)| methods.contains(method))
            .map(|(method, answer)| (*method, answer))
            .collect();
        let fused = fuse(&lists, &weights.where_known(query.known_share), fusion, DEPTH);
        let ranked: Vec<&String> =
            fused.iter().filter_map(|hit| query.ids.get(&hit.number)).collect();
        let judged = Judged::new(ranked, &query.judgements);
        sums[0] += judged.ndcg(10);
        sums[1] += judged.recall(100);
        sums[2] += judged.reciprocal_rank(10);
        seconds += if methods.len() == Method::ALL.len() {
            query.all_took.as_secs_f64()
        } else {
            let took = query.took.iter().filter(|(method, _)| methods.contains(method));
            took.map(|(_, time)| time.as_secs_f64()).sum::<f64>()
        };
    }
    let count = asked.len().max(1) as f64;
    Row {
        system: name.to_string(),
        ndcg_10: sums[0] / count,
        recall_100: sums[1] / count,
        mrr_10: sums[2] / count,
        queries_per_s: if seconds > 0.0 { asked.len() as f64 / seconds } else { 0.0 },
    }
}

fn tuned(asked: &[Asked], start: &Weights) -> Option<TunedJson> {
    let queries: Vec<TuneQuery> = asked
        .iter()
        .map(|query| TuneQuery {
            answers: query.answers.clone(),
            judgements: query
                .ids
                .iter()
                .filter_map(|(number, id)| Some((*number, *query.judgements.get(id)?)))
                .collect(),
        })
        .collect();
    let tuned = tune(&queries, start)?;
    let w = tuned.weights;
    Some(TunedJson {
        weights: [w.bm25, w.tantivy, w.native, w.semantic],
        before: tuned.before.mean,
        held_out: tuned.held_out.mean,
        gain: tuned.gain.mean,
        gain_low: tuned.gain.low,
        gain_high: tuned.gain.high,
    })
}

fn print(result: &Evaluation) {
    println!("\n{}: {} documents, {} queries", result.dataset, result.documents, result.queries);
    println!(
        "  {:18} {:>8} {:>11} {:>8} {:>11}",
        "system", "nDCG@10", "Recall@100", "MRR@10", "queries/s"
    );
    for row in &result.rows {
        println!(
            "  {:18} {:8.3} {:11.3} {:8.3} {:11.0}",
            row.system, row.ndcg_10, row.recall_100, row.mrr_10, row.queries_per_s
        );
    }
    if let Some(tuned) = &result.tuned {
        println!(
            "  tuned weights {:?}: nDCG@10 {:.3} before, {:.3} on held-out queries, gain {:+.3} ({:+.3} to {:+.3})",
            tuned.weights,
            tuned.before,
            tuned.held_out,
            tuned.gain,
            tuned.gain_low,
            tuned.gain_high
        );
    }
}

fn print_means(results: &[Evaluation]) {
    println!("\nmean of {} collections", results.len());
    for at in 0..results[0].rows.len() {
        let mean = |figure: &dyn Fn(&Row) -> f64| {
            results.iter().map(|result| figure(&result.rows[at])).sum::<f64>()
                / results.len() as f64
        };
        println!(
            "  {:18} {:8.3} {:11.3} {:8.3}",
            results[0].rows[at].system,
            mean(&|row| row.ndcg_10),
            mean(&|row| row.recall_100),
            mean(&|row| row.mrr_10)
        );
    }
}

fn read_documents(folder: &Path) -> Result<Vec<Document>, Failure> {
    let plain = folder.join("docs.jsonl");
    let text = if plain.exists() {
        read_text(&plain)?
    } else {
        let path = folder.join("docs.jsonl.zst");
        let named = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", path.display()));
        let file = std::fs::File::open(&path).map_err(|e| named(&e))?;
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(file).map_err(|e| named(&e))?;
        let mut text = String::new();
        decoder.read_to_string(&mut text).map_err(|e| named(&e))?;
        text
    };
    let documents: Vec<DocLine> = lines(&text, "docs.jsonl")?;
    let document = |line: DocLine| Document {
        id: line.id,
        title: line.title,
        body: line.text,
        path: line.path,
        language: line.language,
        ..Document::default()
    };
    Ok(documents.into_iter().map(document).collect())
}

fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

fn lines<T: for<'a> Deserialize<'a>>(text: &str, name: &str) -> Result<Vec<T>, Failure> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            serde_json::from_str(line)
                .map_err(|e| Failure::new(format!("{name}: line {}: {e}", at + 1)))
        })
        .collect()
}

/// Query id, document id and grade, tab-separated.
fn read_judgements(path: &Path) -> Result<BTreeMap<String, BTreeMap<String, f64>>, Failure> {
    let mut judgements: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for (at, line) in read_text(path)?.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let (query, document, grade) = match fields[..] {
            [query, document, grade] => (query, document, grade),
            // The form of TREC has a column that nobody uses.
            [query, _, document, grade] => (query, document, grade),
            _ => continue,
        };
        let Ok(grade) = grade.trim().parse::<f64>() else {
            if at == 0 {
                continue;
            }
            return Err(Failure::new(format!(
                "{}: line {}: \"{grade}\" is no grade",
                path.display(),
                at + 1
            )));
        };
        judgements.entry(query.into()).or_default().insert(document.into(), grade);
    }
    judgements.retain(|_, grades| grades.values().any(|grade| *grade > 0.0));
    Ok(judgements)
}

/// A folder that is removed when the evaluation ends.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> std::io::Result<Self> {
        let name = format!("mainstay-eval-{}-{:?}", std::process::id(), Instant::now());
        let name: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What stays behind in the temporary folder is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
