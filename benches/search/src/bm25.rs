//! `bm25` beside tantivy: the same texts, one segment each, one thread, the ten best of each query.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_search::bitmap::Bitmap;
use mainstay_search::bm25::Bm25View;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{DocNumber, Document};
use mainstay_search::request::{Allowed, Pattern, Request, SearchError, Stop, Text, Texts};
use mainstay_search::view::{Addition, View};
use tantivy::collector::TopDocs;
use tantivy::directory::RamDirectory;
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};
use tantivy::{Index, IndexSettings, Searcher, TantivyDocument, Term};

use crate::corpus::{self, Corpus};

/// What to run.
pub struct Options {
    /// A tenth of the documents.
    pub quick: bool,
    /// Print one JSON object instead of a table.
    pub json: bool,
    /// A folder of text files as a further corpus.
    pub tree: Option<PathBuf>,
    /// How often each query is asked, of which the best time counts; 5 when not said.
    pub rounds: Option<usize>,
    /// Only the corpus of this name.
    pub only: Option<String>,
}

/// How many hits are asked for.
const LIMIT: usize = 10;
/// How many documents go into one batch of the view.
const BATCH: usize = 1000;

pub fn run(options: &Options) {
    let logged = corpus::logged_queries();
    let count = if options.quick { 100_000 } else { 1_000_000 };
    let wants = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let mut results = Vec::new();
    if wants("packages")
        && let Some(corpus) = corpus::packages()
    {
        results.push(compare(&corpus, logged.as_deref(), options));
    }
    if wants("tree")
        && let Some(folder) = &options.tree
    {
        let bytes_max = if options.quick { 64 << 20 } else { 512 << 20 };
        results.push(compare(&corpus::tree(folder, bytes_max), None, options));
    }
    if wants("synthetic") {
        let corpus = corpus::synthetic(count, logged.as_deref());
        results.push(compare(&corpus, logged.as_deref(), options));
    }
    if options.json {
        println!("{}", serde_json::json!({ "benchmark": "bm25", "corpora": results }));
    }
}

/// One engine, ready to be asked.
struct Ready<'a> {
    name: &'static str,
    index_time: Duration,
    index_bytes: u64,
    ask: Box<dyn Fn(&str) -> Vec<u32> + 'a>,
    /// The best time of each query.
    times: Vec<Duration>,
}

fn compare(corpus: &Corpus, logged: Option<&[String]>, options: &Options) -> serde_json::Value {
    let queries: Vec<String> = match logged {
        Some(logged) => logged.iter().step_by(20).map(|query| without_stop_words(query)).collect(),
        None => corpus::queries_from(&corpus.texts, 2000),
    };
    let queries: Vec<&str> =
        queries.iter().map(String::as_str).filter(|query| !query.is_empty()).collect();
    let bytes: usize = corpus.texts.iter().map(String::len).sum();
    let mut engines = [ours(&corpus.texts), tantivy(&corpus.texts)];
    let same = overlap(&engines, &queries);
    engines.iter_mut().for_each(|engine| engine.times = vec![Duration::MAX; queries.len()]);
    for _ in 0..options.rounds.unwrap_or(5) {
        for engine in &mut engines {
            // The best time of each query counts: what else runs on the machine lengthens the others.
            for (query, best) in queries.iter().zip(&mut engine.times) {
                let started = Instant::now();
                std::hint::black_box((engine.ask)(query));
                *best = started.elapsed().min(*best);
            }
        }
    }
    report(corpus, bytes, &queries, &engines, same, options)
}

fn report(
    corpus: &Corpus,
    bytes: usize,
    queries: &[&str],
    engines: &[Ready<'_>; 2],
    same: f64,
    options: &Options,
) -> serde_json::Value {
    let per_second = |engine: &Ready<'_>| {
        queries.len() as f64 / engine.times.iter().sum::<Duration>().as_secs_f64()
    };
    let mut classes = BTreeMap::new();
    for (at, query) in queries.iter().enumerate() {
        classes.entry(query.split_whitespace().count().min(5)).or_insert_with(Vec::new).push(at);
    }
    let ratio = per_second(&engines[0]) / per_second(&engines[1]);
    if !options.json {
        println!(
            "\n{}: {} texts, {:.1} MB, {} queries, {:.0} % of the ten best in common",
            corpus.name,
            corpus.texts.len(),
            bytes as f64 / 1e6,
            queries.len(),
            same * 100.0
        );
        println!("engine     queries/s   p50 us   p99 us  index s  us/text     MB/s  index/text");
        for engine in engines {
            let mut times = engine.times.clone();
            times.sort();
            let at = |part: f64| {
                times[((times.len() - 1) as f64 * part) as usize].as_nanos() as f64 / 1e3
            };
            let seconds = engine.index_time.as_secs_f64();
            println!(
                "{:<9} {:>10.0} {:>8.1} {:>8.1} {:>8.2} {:>8.1} {:>8.1} {:>11.3}",
                engine.name,
                per_second(engine),
                at(0.5),
                at(0.99),
                seconds,
                seconds * 1e6 / corpus.texts.len() as f64,
                bytes as f64 / 1e6 / seconds,
                engine.index_bytes as f64 / bytes as f64
            );
        }
        println!("queries/s ratio {ratio:.2}");
        for (words, places) in &classes {
            let mean = |engine: &Ready<'_>| {
                let sum: Duration = places.iter().map(|&at| engine.times[at]).sum();
                sum.as_nanos() as f64 / 1e3 / places.len() as f64
            };
            let (a, b) = (mean(&engines[0]), mean(&engines[1]));
            println!(
                "  {words} words: {:>5} queries, mean {a:>8.1} us against {b:>8.1} us, ratio {:.2}",
                places.len(),
                b / a
            );
        }
    }
    let of = |engine: &Ready<'_>| {
        serde_json::json!({
            "queries_per_second": per_second(engine),
            "index_seconds": engine.index_time.as_secs_f64(),
            "index_bytes": engine.index_bytes,
        })
    };
    serde_json::json!({
        "corpus": corpus.name, "texts": corpus.texts.len(), "bytes": bytes, "queries": queries.len(),
        "bm25": of(&engines[0]), "tantivy": of(&engines[1]), "queries_per_second_ratio": ratio,
    })
}

/// How many of the ten best are the same, on average: the engines cut words in different ways, so not
/// all, but it shows that both do the same work.
fn overlap(engines: &[Ready<'_>; 2], queries: &[&str]) -> f64 {
    let (mut common, mut all) = (0, 0);
    for query in queries.iter().take(300) {
        let (a, b) = ((engines[0].ask)(query), (engines[1].ask)(query));
        common += a.iter().filter(|number| b.contains(number)).count();
        all += a.len().max(b.len());
    }
    f64::from(common as u32) / f64::from(all.max(1) as u32)
}

/// Both engines get the same words: what one would leave out of a query, the other does not see.
fn without_stop_words(query: &str) -> String {
    const STOP: &str = " a an and are as at be but by did do does for how if in into is it no not of \
        on or such that the their then there these they this to was what when which who why will with s ";
    let words = query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty() && !STOP.contains(&format!(" {} ", word.to_lowercase())));
    words.collect::<Vec<_>>().join(" ")
}

struct NoTexts;

impl Texts for NoTexts {
    fn visit(
        &self,
        _: &[DocNumber],
        _: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        Ok(())
    }
}

fn ours(texts: &[String]) -> Ready<'_> {
    let mut view = Bm25View::open(Arc::new(MemoryDirectory::new())).expect("an empty directory");
    let (mut index_time, mut number) = (Duration::ZERO, 0);
    for batch in texts.chunks(BATCH) {
        // What the log's driver hands over is not part of indexing.
        let additions: Vec<Addition> = batch
            .iter()
            .map(|text| {
                number += 1;
                let document = Document { body: text.clone(), ..Document::default() };
                Addition { number: number - 1, document }
            })
            .collect();
        let started = Instant::now();
        view.apply(&additions, u64::from(number)).expect("memory only");
        index_time += started.elapsed();
    }
    let started = Instant::now();
    view.checkpoint().expect("memory only");
    index_time += started.elapsed();
    let figures = view.figures();
    assert_eq!(figures.segments, 1);
    let searcher = view.searcher();
    let allowed = Allowed::new(Bitmap::full(number), None);
    let ask = move |query: &str| {
        let request = Request { strict: false, verified_max: usize::MAX,
            text: query,
            pattern: Pattern::default(),
            vectors: &[],
            limit: LIMIT,
            allowed: &allowed,
            texts: &NoTexts,
            threads: 1,
            stop: &Stop::new(),
        };
        let answer = searcher.search(&request).expect("a sound index");
        answer.hits.iter().map(|hit| hit.number).collect()
    };
    Ready {
        name: "bm25",
        index_time,
        index_bytes: figures.disk_bytes,
        ask: Box::new(ask),
        times: Vec::new(),
    }
}

fn tantivy(texts: &[String]) -> Ready<'_> {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("words")
        .set_index_option(IndexRecordOption::WithFreqs);
    let body = schema.add_text_field("body", TextOptions::default().set_indexing_options(indexing));
    let directory = RamDirectory::create();
    let index = Index::create(directory.clone(), schema.build(), IndexSettings::default());
    let index = index.expect("an empty directory");
    let stop_words = StopWordFilter::new(Language::English).expect("English is known");
    let analyzer = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(128))
        .filter(LowerCaser)
        .filter(stop_words)
        .filter(Stemmer::new(Language::English))
        .build();
    index.tokenizers().register("words", analyzer.clone());
    let started = Instant::now();
    let mut writer = index.writer_with_num_threads(1, 512 << 20).expect("enough memory");
    for text in texts {
        let mut document = TantivyDocument::default();
        document.add_text(body, text);
        writer.add_document(document).expect("memory only");
    }
    writer.commit().expect("memory only");
    let segments = index.searchable_segment_ids().expect("a sound index");
    if segments.len() > 1 {
        writer.merge(&segments).wait().expect("memory only");
    }
    writer.wait_merging_threads().expect("memory only");
    let index_time = started.elapsed();
    let searcher = index.reader().expect("a sound index").searcher();
    assert_eq!(searcher.segment_readers().len(), 1);
    let index_bytes = searcher.space_usage().expect("a sound index").total().get_bytes();
    let ask = move |query: &str| ask_tantivy(&searcher, body, &mut analyzer.clone(), query);
    Ready { name: "tantivy", index_time, index_bytes, ask: Box::new(ask), times: Vec::new() }
}

fn ask_tantivy(
    searcher: &Searcher,
    body: Field,
    analyzer: &mut TextAnalyzer,
    query: &str,
) -> Vec<u32> {
    let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    let mut tokens = analyzer.token_stream(query);
    while let Some(token) = tokens.next() {
        let term = Term::from_field_text(body, &token.text);
        clauses.push((Occur::Should, Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))));
    }
    let query = BooleanQuery::new(clauses);
    let top = searcher.search(&query, &TopDocs::with_limit(LIMIT).order_by_score());
    let top = top.expect("a sound index");
    top.into_iter().map(|(_, address)| address.doc_id).collect()
}
