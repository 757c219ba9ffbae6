//! The `bm25` view: what it answers, however its documents are cut into segments, and what it survives.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use mainstay_search::analysis::{TextKind, analyze};
use mainstay_search::bitmap::Bitmap;
use mainstay_search::bm25::{B, BODY, Bm25View, K1, TITLE};
use mainstay_search::directory::Directory;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{DocNumber, Document};
use mainstay_search::request::{
    Allowed, MethodAnswer, Pattern, Request, SearchError, Stop, Text, Texts,
};
use mainstay_search::view::{Addition, View, ViewError};
use proptest::prelude::*;

/// No method under test here reads stored text.
pub(crate) struct NoTexts;

impl Texts for NoTexts {
    fn visit(
        &self,
        _: &[DocNumber],
        _: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        Ok(())
    }
}

fn ask_with(
    view: &Bm25View,
    text: &str,
    limit: usize,
    allowed: &Allowed,
    stop: &Stop,
) -> MethodAnswer {
    let request = Request {
        strict: false,
        verified_max: usize::MAX,
        text,
        pattern: Pattern::default(),
        vectors: &[],
        limit,
        allowed,
        texts: &NoTexts,
        threads: 1,
        stop,
    };
    view.searcher().search(&request).unwrap()
}

fn ask(view: &Bm25View, text: &str, limit: usize, allowed: &Allowed) -> MethodAnswer {
    ask_with(view, text, limit, allowed, &Stop::new())
}

fn everything() -> Allowed {
    Allowed::new(Bitmap::full(100_000), None)
}

fn numbers_of(answer: &MethodAnswer) -> Vec<DocNumber> {
    answer.hits.iter().map(|hit| hit.number).collect()
}

fn document(title: &str, body: &str) -> Document {
    Document { title: title.into(), body: body.into(), ..Document::default() }
}

fn additions(bodies: &[String]) -> Vec<Addition> {
    let numbered = bodies.iter().zip(0u32..);
    numbered.map(|(body, number)| Addition { number, document: document("", body) }).collect()
}

fn new_view() -> Bm25View {
    Bm25View::open(Arc::new(MemoryDirectory::new())).unwrap()
}

fn view_of(documents: &[Addition], batch: usize) -> Bm25View {
    let mut view = new_view();
    for (batch, seq) in documents.chunks(batch).zip(1..) {
        assert_eq!(view.apply(batch, seq).unwrap(), []);
    }
    view
}

fn merge_once(view: &mut Bm25View, living: &Bitmap) -> bool {
    let Some(merge) = view.plan_merge(living) else { return false };
    let merged = (merge.run)(&Stop::new()).unwrap();
    view.install(merged).unwrap();
    true
}

/// BM25F by the book: every document, in double precision.
fn by_the_book(documents: &[Addition], query: &str) -> Vec<(DocNumber, f64)> {
    /// The length that the index keeps: exact below 32, then the middle of a sixteenth of an octave.
    fn kept(length: u32) -> f64 {
        if length < 32 {
            return f64::from(length);
        }
        let step = 1u32 << (length.ilog2() - 4);
        f64::from(length / step * step + step / 2)
    }
    let mut held = Vec::new();
    for addition in documents {
        let (mut counts, mut length) = (BTreeMap::<String, f64>::new(), 0);
        for (text, field) in [(&addition.document.title, TITLE), (&addition.document.body, BODY)] {
            analyze(text, TextKind::Document, &mut |token| {
                *counts.entry(token.term.to_string()).or_default() += f64::from(field.weight);
                length += field.length_share;
            });
        }
        held.push((addition.number, counts, kept(length)));
    }
    let count = held.len() as f64;
    let average = held.iter().map(|(_, _, length)| length).sum::<f64>() / count;
    let mut terms = Vec::new();
    analyze(query, TextKind::Query, &mut |token| terms.push(token.term.to_string()));
    let mut found: Vec<(DocNumber, f64)> = Vec::new();
    for (number, counts, length) in &held {
        let mut score = 0.0;
        for term in &terms {
            let holding =
                held.iter().filter(|(_, counts, _)| counts.contains_key(term)).count() as f64;
            let idf = (1.0 + (count - holding + 0.5) / (holding + 0.5)).ln();
            if let Some(&frequency) = counts.get(term) {
                let (k1, b) = (f64::from(K1), f64::from(B));
                score += idf * frequency / (frequency + k1 * (1.0 - b + b * length / average));
            }
        }
        if score > 0.0 {
            found.push((*number, score));
        }
    }
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found
}

/// Words without compound parts, the first ones far more common.
fn some_bodies(most: usize) -> impl Strategy<Value = Vec<String>> {
    let word = (0u32..8, 0u32..40).prop_map(|(level, rank)| {
        let rank = rank >> level;
        ["alpha", "beta", "gamma", "delta", "omega", "kappa", "sigma", "lambda"]
            .get(rank as usize)
            .map_or_else(
                || format!("w{}", char::from(b'a' + (rank % 26) as u8)),
                |word| word.to_string(),
            )
    });
    let body = prop::collection::vec(word, 0..70).prop_map(|words| words.join(" "));
    prop::collection::vec(body, 1..most)
}

#[test]
fn answers_the_documents_about_the_words_best_first() {
    let view = view_of(
        &additions(&[
            "the parser reads a file".into(),
            "a file of files, file by file".into(),
            "nothing of the kind".into(),
        ]),
        10,
    );
    let answer = ask(&view, "file", 10, &everything());
    assert_eq!(numbers_of(&answer), [1, 0]);
    assert_eq!((answer.total, answer.total_is_exact, answer.complete), (2, true, true));
    assert!(ask(&view, "absent", 10, &everything()).hits.is_empty());
    assert!(ask(&view, "  ?! ", 10, &everything()).hits.is_empty());
    assert_eq!(ask(&view, "file", 0, &everything()).total, 2);
}

#[test]
fn titles_tags_paths_and_definitions_are_found_too() {
    let mut view = new_view();
    let documents = [
        Document {
            body: "uses parse_url here".into(),
            language: "rust".into(),
            ..Document::default()
        },
        Document {
            body: "fn parse_url() {}".into(),
            language: "rust".into(),
            ..Document::default()
        },
        Document { tags: vec!["urgent".into()], ..Document::default() },
        Document { path: "src/network/socket.rs".into(), ..Document::default() },
    ];
    let additions: Vec<Addition> = documents
        .into_iter()
        .zip(0..)
        .map(|(document, number)| Addition { number, document })
        .collect();
    view.apply(&additions, 1).unwrap();
    assert_eq!(numbers_of(&ask(&view, "parseUrl", 10, &everything())), [1, 0]);
    assert_eq!(numbers_of(&ask(&view, "urgent", 10, &everything())), [2]);
    assert_eq!(numbers_of(&ask(&view, "network socket", 10, &everything())), [3]);
}

#[test]
fn what_is_checkpointed_is_there_after_opening_again_and_the_rest_is_not() {
    let directory = Arc::new(MemoryDirectory::new());
    let bodies: Vec<String> = (0..300).map(|i| format!("word{} common", i % 7)).collect();
    let all = additions(&bodies);
    let mut view = Bm25View::open(directory.clone()).unwrap();
    view.apply(&all[..200], 20).unwrap();
    assert!(view.figures().memory_bytes > 0);
    view.checkpoint().unwrap();
    assert_eq!(view.figures().memory_bytes, 0);
    view.apply(&all[200..], 30).unwrap();
    let before = ask(&view, "common", 500, &everything());
    assert_eq!(before.hits.len(), 300);

    let mut again = Bm25View::open(directory).unwrap();
    assert_eq!(again.through(), 20);
    assert_eq!(again.figures().documents, 200);
    again.apply(&all[200..], 30).unwrap();
    assert_eq!(ask(&again, "common", 500, &everything()), before);
    assert_eq!(again.numbers().unwrap(), Bitmap::full(300));
}

#[test]
fn merging_files_drops_what_is_gone_and_changes_no_answer_otherwise() {
    let directory = Arc::new(MemoryDirectory::new());
    let mut view = Bm25View::open(directory.clone()).unwrap();
    let bodies: Vec<String> =
        (0..320).map(|i| format!("word{} common {}", i % 7, "x ".repeat(i % 40))).collect();
    for (batch, seq) in additions(&bodies).chunks(40).zip(1..) {
        view.apply(batch, seq).unwrap();
        view.checkpoint().unwrap();
    }
    assert_eq!(view.figures().segments, 8);
    let before = ask(&view, "word3 common", 500, &everything());
    assert!(merge_once(&mut view, &Bitmap::full(320)));
    assert_eq!(view.figures().segments, 1);
    assert_eq!(ask(&view, "word3 common", 500, &everything()), before);
    assert!(!merge_once(&mut view, &Bitmap::full(320)));

    let mut living = Bitmap::full(320);
    (0..320).filter(|number| number % 2 == 0).for_each(|number| {
        living.remove(number);
    });
    assert!(merge_once(&mut view, &living));
    assert_eq!(view.numbers().unwrap(), living);
    let answer = ask(&view, "common", 500, &Allowed::new(living.clone(), None));
    assert_eq!((answer.hits.len(), answer.total), (160, 160));
    assert!(merge_once(&mut view, &Bitmap::new()));
    assert_eq!(view.figures().segments, 0);
    assert_eq!(Bm25View::open(directory.clone()).unwrap().figures().documents, 0);
    assert_eq!(directory.list().unwrap(), ["manifest"]);
}

#[test]
fn a_merge_beside_which_the_view_goes_on_is_installed_without_losing_anything() {
    let mut view = new_view();
    let bodies: Vec<String> = (0..500).map(|i| format!("word{} common", i % 7)).collect();
    let all = additions(&bodies);
    for (batch, seq) in all[..320].chunks(40).zip(1..) {
        view.apply(batch, seq).unwrap();
        view.checkpoint().unwrap();
    }
    let merge = view.plan_merge(&Bitmap::full(320)).unwrap();
    view.apply(&all[320..400], 50).unwrap();
    view.checkpoint().unwrap();
    view.apply(&all[400..], 60).unwrap();
    let expected = ask(&view, "common word2", 500, &everything());
    let merged = (merge.run)(&Stop::new()).unwrap();
    view.install(merged).unwrap();
    assert_eq!(ask(&view, "common word2", 500, &everything()), expected);
    assert_eq!(view.figures().segments, 3);
    assert!(view.install(Box::new(7)).is_err());
}

#[test]
fn a_merge_that_is_stopped_says_so() {
    let mut view = new_view();
    for (batch, seq) in additions(&vec!["some words".to_string(); 8]).chunks(1).zip(1..) {
        view.apply(batch, seq).unwrap();
        view.checkpoint().unwrap();
    }
    let stop = Stop::new();
    stop.set();
    let error = (view.plan_merge(&Bitmap::full(8)).unwrap().run)(&stop).map(|_| ()).unwrap_err();
    assert!(
        matches!(error, ViewError::Io { source, .. } if source.kind() == std::io::ErrorKind::Interrupted)
    );
}

#[test]
fn many_small_batches_stay_few_segments() {
    let bodies: Vec<String> = (0..3000).map(|i| format!("number{i} common words")).collect();
    let view = view_of(&additions(&bodies), 1);
    assert!(view.figures().segments <= 30, "{} segments", view.figures().segments);
    assert_eq!(ask(&view, "number2718", 3, &everything()).hits[0].number, 2718);
}

#[test]
fn a_number_that_does_not_rise_is_refused_and_the_rest_applied() {
    let mut view = new_view();
    view.apply(&additions(&["one".into(), "two".into()]), 1).unwrap();
    let late = Addition { number: 1, document: document("", "three") };
    let fine = Addition { number: 2, document: document("", "four") };
    let refused = view.apply(&[late, fine], 2).unwrap();
    assert_eq!(refused.iter().map(|refused| refused.number).collect::<Vec<_>>(), [1]);
    assert_eq!(view.numbers().unwrap(), Bitmap::full(3));
    assert!(ask(&view, "three", 1, &everything()).hits.is_empty());
    assert_eq!(ask(&view, "four", 1, &everything()).hits.len(), 1);
}

#[test]
fn a_stop_that_is_set_ends_the_search_and_the_answer_says_so() {
    let bodies: Vec<String> = (0..3000).map(|i| format!("common {i}")).collect();
    let view = view_of(&additions(&bodies), 3000);
    let stop = Stop::new();
    stop.set();
    let answer = ask_with(&view, "common", 10, &everything(), &stop);
    assert!(!answer.complete && !answer.total_is_exact);
}

#[test]
fn a_query_of_thousands_of_terms_is_answered_by_its_rarest() {
    let mut bodies: Vec<String> =
        (0..400).map(|i| format!("common frequent usual w{}x", i % 200)).collect();
    bodies.push("needleword".into());
    let view = view_of(&additions(&bodies), 500);
    let query: String =
        (0..200).map(|i| format!("common w{i}x ")).collect::<String>() + "needleword";
    assert!(numbers_of(&ask(&view, &query, 400, &everything())).contains(&400));
}

#[test]
fn files_of_a_later_format_are_refused_by_version() {
    let directory = Arc::new(MemoryDirectory::new());
    let mut view = Bm25View::open(directory.clone()).unwrap();
    view.apply(&additions(&["one".into()]), 1).unwrap();
    view.checkpoint().unwrap();
    let name = directory.list().unwrap().into_iter().find(|name| name.ends_with(".bm25")).unwrap();
    let mut bytes = directory.open(&name).unwrap().to_vec();
    let version = bytes.len() - 12;
    bytes[version] = 9;
    mainstay_search::directory::write_file(directory.as_ref(), &name, &bytes).unwrap();
    let error = Bm25View::open(directory).map(|_| ()).unwrap_err();
    assert!(matches!(error, ViewError::FutureFormat { found: 9, supported: 1, .. }));
    assert!(error.to_string().contains("version 9"));
}

#[test]
fn a_missing_file_is_damage() {
    let directory = Arc::new(MemoryDirectory::new());
    let mut view = Bm25View::open(directory.clone()).unwrap();
    view.apply(&additions(&["one".into()]), 1).unwrap();
    view.checkpoint().unwrap();
    let name = directory.list().unwrap().into_iter().find(|name| name.ends_with(".bm25")).unwrap();
    directory.remove(&name).unwrap();
    assert!(matches!(Bm25View::open(directory), Err(ViewError::Damaged { .. })));
}

#[test]
fn files_left_over_by_a_crash_are_removed() {
    let directory = Arc::new(MemoryDirectory::new());
    mainstay_search::directory::write_file(directory.as_ref(), "segment-0000000009.bm25", b"half")
        .unwrap();
    Bm25View::open(directory.clone()).unwrap();
    assert!(directory.list().unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_score_is_that_of_the_book(bodies in some_bodies(60), query in "(alpha|beta|gamma|omega|wj|wk)( (alpha|delta|wl|wm)){0,3}") {
        let documents = additions(&bodies);
        let view = view_of(&documents, 17);
        let found = ask(&view, &query, 1000, &everything());
        let expected = by_the_book(&documents, &query);
        prop_assert_eq!(found.hits.len(), expected.len());
        let scores: BTreeMap<DocNumber, f64> = expected.into_iter().collect();
        for hit in &found.hits {
            let expected = scores[&hit.number];
            prop_assert!((f64::from(hit.score) - expected).abs() < 1e-4 * expected.max(0.1), "{hit:?} {expected}");
        }
    }

    #[test]
    fn the_pruned_answer_is_the_head_of_the_exhaustive_one_however_segments_are_cut(
        bodies in some_bodies(700), batch in 1usize..300, checkpoints: bool,
        limit in 1usize..20, gone in prop::collection::vec(0u32..700, 0..50), filtered: bool, few: bool,
        query in "(alpha|beta|gamma|omega|wj|wk)( (alpha|beta|gamma|delta|kappa|wl|wm)){0,5}",
    ) {
        // More of the same, so that lists have several blocks.
        let bodies: Vec<String> = bodies.iter().cycle().take(bodies.len() * 4).cloned().collect();
        let documents = additions(&bodies);
        let whole = view_of(&documents, usize::MAX);
        let mut cut = view_of(&documents[..documents.len() / 2], batch);
        if checkpoints {
            cut.checkpoint().unwrap();
        }
        for part in documents[documents.len() / 2..].chunks(batch) {
            cut.apply(part, 1).unwrap();
            if checkpoints {
                cut.checkpoint().unwrap();
                merge_once(&mut cut, &Bitmap::full(100_000));
            }
        }
        let mut living = Bitmap::full(documents.len() as u32);
        for number in gone {
            living.remove(number);
        }
        let filter = filtered.then(|| (0..documents.len() as u32).filter(|n| n % if few { 97 } else { 3 } == 0).collect());
        let allowed = Allowed::new(living, filter);
        let exhaustive = ask(&whole, &query, 100_000, &allowed);
        for view in [&whole, &cut] {
            let pruned = ask(view, &query, limit, &allowed);
            let length = exhaustive.hits.len().min(limit);
            prop_assert_eq!(&pruned.hits[..], &exhaustive.hits[..length]);
            prop_assert!(pruned.complete);
            let total = exhaustive.hits.len() as u64;
            let fits = if pruned.total_is_exact { pruned.total == total } else { pruned.total <= total };
            prop_assert!(fits);
        }
        let in_order = exhaustive.hits.is_sorted_by(|a, b| {
            a.score > b.score || a.score == b.score && a.number < b.number
        });
        prop_assert!(in_order);
    }

    #[test]
    fn damaged_files_are_an_error_or_an_answer_but_never_a_panic(
        bodies in some_bodies(400), at: prop::sample::Index, byte: u8, cut: prop::sample::Index, sealed: bool,
    ) {
        let directory = Arc::new(MemoryDirectory::new());
        let mut view = Bm25View::open(directory.clone()).unwrap();
        view.apply(&additions(&bodies), 1).unwrap();
        view.checkpoint().unwrap();
        let name = directory.list().unwrap().into_iter().find(|name| name.ends_with(".bm25")).unwrap();
        let mut bytes = directory.open(&name).unwrap().to_vec();
        let position = at.index(bytes.len());
        let is_changed = bytes[position] != byte;
        bytes[position] = byte;
        if !sealed {
            bytes.truncate(cut.index(bytes.len() * 2));
        }
        mainstay_search::directory::write_file(directory.as_ref(), &name, &bytes).unwrap();
        match Bm25View::open(directory) {
            Err(error) => {
                let is_typed = matches!(error, ViewError::Damaged { .. } | ViewError::FutureFormat { .. });
                prop_assert!(is_typed);
            }
            Ok(view) => {
                prop_assert_eq!(view.verify().is_err(), is_changed);
                let searcher = view.searcher();
                for text in ["alpha beta", "gamma", "wj wk wl omega"] {
                    let request = Request { strict: false, verified_max: usize::MAX,
                        text, pattern: Pattern::default(), vectors: &[], limit: 5, allowed: &everything(),
                        texts: &NoTexts, threads: 1, stop: &Stop::new(),
                    };
                    let _ = searcher.search(&request);
                }
                let odd: Bitmap = (0..400).filter(|number| number % 2 == 1).collect();
                if let Some(merge) = view.plan_merge(&odd) {
                    let _ = (merge.run)(&Stop::new());
                }
            }
        }
    }
}
