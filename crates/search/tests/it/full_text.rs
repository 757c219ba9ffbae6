//! The `tantivy` method through its contract: what is applied is found, by the whole query language.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::directory::{Directory, write_file};
use mainstay_search::document::{DocNumber, Document, Value};
use mainstay_search::full_text::FullTextView;
use mainstay_search::request::{
    Allowed, MethodAnswer, Pattern, Request, SearchError, Stop, Text, Texts,
};
use mainstay_search::view::{Addition, Searcher, View, ViewError};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_assert, prop_oneof, proptest};

/// This method reads no stored text.
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

fn ask(
    searcher: &dyn Searcher,
    text: &str,
    strict: bool,
    limit: usize,
    allowed: &Allowed,
) -> Result<MethodAnswer, SearchError> {
    searcher.search(&Request {
        text,
        pattern: Pattern::default(),
        strict,
        verified_max: usize::MAX,
        vectors: &[],
        limit,
        allowed,
        texts: &NoTexts,
        threads: 1,
        stop: &Stop::new(),
    })
}

fn addition(number: DocNumber, document: Document) -> Addition {
    Addition { number, document }
}

fn open(directory: &MemoryDirectory) -> FullTextView {
    FullTextView::open(Arc::new(directory.clone())).unwrap()
}

/// A view of documents whose number is their place.
fn view_of(documents: Vec<Document>) -> FullTextView {
    let mut view = open(&MemoryDirectory::new());
    let items: Vec<_> =
        documents.into_iter().enumerate().map(|(i, d)| addition(i as u32, d)).collect();
    assert_eq!(view.apply(&items, items.len() as u64).unwrap(), []);
    view
}

fn found(view: &FullTextView, query: &str) -> Vec<DocNumber> {
    let allowed = Allowed::new(Bitmap::full(1000), None);
    let answer = ask(view.searcher().as_ref(), query, true, 1000, &allowed).unwrap();
    assert_eq!(answer.total, answer.hits.len() as u64);
    assert!(answer.total_is_exact && answer.complete);
    let mut numbers: Vec<_> = answer.hits.iter().map(|hit| hit.number).collect();
    numbers.sort_unstable();
    numbers
}

fn library() -> FullTextView {
    let date = |at_ms| Value::Date(at_ms);
    view_of(vec![
        Document {
            id: "src/http/parse.rs".into(),
            title: "Parsing requests".into(),
            body: "fn parseHttpRequest(x: &str) { running fast }".into(),
            path: "src/http/parse.rs".into(),
            language: "Rust".into(),
            tags: vec!["code".into(), "network stack".into()],
            attributes: [
                ("price".to_string(), Value::Number(3.0)),
                ("at".to_string(), date(1_704_067_200_000)),
                ("open".to_string(), Value::Boolean(true)),
            ]
            .into(),
        },
        Document {
            id: "doc-2".into(),
            title: "The quick brown fox".into(),
            body: "A quick brown fox runs over the lazy dog. 東京タワー. Café.".into(),
            language: "en".into(),
            attributes: [
                ("price".to_string(), Value::Number(7.5)),
                ("author".to_string(), Value::String("Ann Smith".into())),
                ("open".to_string(), Value::Boolean(false)),
            ]
            .into(),
            ..Document::default()
        },
        Document {
            id: "doc-3".into(),
            body: "brown quick; parse_http_request is a function; http request".into(),
            path: "docs/quick-start.md".into(),
            tags: vec!["guide".into()],
            ..Document::default()
        },
    ])
}

#[test]
fn every_form_of_the_query_language_finds_what_it_says() {
    let view = library();
    let cases: &[(&str, &[DocNumber])] = &[
        ("fox", &[1]),
        ("FOX", &[1]),
        ("run", &[0, 1]),
        ("running", &[0, 1]),
        ("\"running\"", &[0]),
        ("cafe", &[1]),
        ("quick dog", &[1, 2]),
        ("+quick -fox", &[2]),
        ("quick AND fox", &[1]),
        ("quick AND NOT fox", &[2]),
        ("NOT fox", &[0, 2]),
        ("-fox", &[0, 2]),
        ("NOT \"東東\"", &[0, 1, 2]),
        ("quick NOT \"quick brown\"", &[2]),
        ("(quick AND guide) OR stack", &[0, 2]),
        ("\"quick brown\"", &[1]),
        ("\"brown quick\"", &[2]),
        ("\"quick fox\"", &[]),
        ("\"quick fox\"~1", &[1]),
        ("\"quick bro\"*", &[1]),
        ("parseHttpRequest", &[0, 2]),
        ("parse_http_request", &[0, 2]),
        ("\"parse http request\"", &[0, 2]),
        ("http", &[0, 2]),
        ("東京", &[1]),
        ("京東", &[]),
        ("run*", &[0, 1]),
        ("runni*", &[0]),
        ("parse_h*", &[2]),
        ("q*k", &[1, 2]),
        ("fix~1", &[1]),
        ("fix~", &[1]),
        ("fix", &[]),
        ("dxgg~2", &[1]),
        ("title:fox", &[1]),
        ("title:function", &[]),
        ("body:/fu?n(ction)?/", &[0, 2]),
        ("path:quick", &[2]),
        ("path:src", &[0]),
        ("language:rust", &[0]),
        ("language:RUST", &[0]),
        ("id:doc-2", &[1]),
        ("id:doc*", &[1, 2]),
        ("id:\"src/http/parse.rs\"", &[0]),
        ("tags:stack", &[0]),
        ("tags:\"network stack\"", &[0]),
        ("tags: IN [guide code]", &[0, 2]),
        ("attributes.price:3", &[0]),
        ("attributes.price:7.5", &[1]),
        ("attributes.price:[1 TO 5]", &[0]),
        ("attributes.price:[3 TO 7.5}", &[0]),
        ("attributes.price:>3", &[1]),
        ("attributes.price:[* TO -1]", &[]),
        ("attributes.price:[-1 TO *]", &[0, 1]),
        ("attributes.at:[2024-01-01 TO 2024-01-02}", &[0]),
        ("attributes.author:[A TO B]", &[1]),
        ("attributes.none:[1 TO 2]", &[]),
        ("title:[fow TO foz]", &[1]),
        ("id:[doc-2 TO doc-3}", &[1]),
        ("tags: IN [\"network stack\" parse_http]", &[0]),
        ("attributes.price:>=3", &[0, 1]),
        ("attributes.price: IN [3 8]", &[0]),
        ("attributes.at:[2023-12-31T00:00:00Z TO 2024-01-02T00:00:00Z]", &[0]),
        ("attributes.at:>2024-01-02T00:00:00Z", &[]),
        ("attributes.open:true", &[0]),
        ("attributes.author:smith", &[1]),
        ("attributes.author:\"ann smith\"", &[1]),
        ("attributes.price:*", &[0, 1]),
        ("title:*", &[0, 1]),
        ("language:*", &[0, 1]),
        ("tags:*", &[0, 2]),
        ("*", &[0, 1, 2]),
        ("", &[]),
        ("?!", &[]),
        ("fox^3 guide^0.5", &[1, 2]),
        ("title:(brown requests)", &[0, 1]),
        ("docs/quick-start.md", &[2]),
        ("C++ fox", &[1]),
    ];
    for (query, expected) in cases {
        assert_eq!(found(&view, query), *expected, "query {query}");
    }
}

#[test]
fn better_matches_and_weighted_words_come_first() {
    let view = library();
    let allowed = Allowed::new(Bitmap::full(10), None);
    let first = |query: &str| {
        ask(view.searcher().as_ref(), query, true, 1, &allowed).unwrap().hits[0].number
    };
    assert_eq!(first("quick"), 1, "the title counts more");
    assert_eq!(first("guide^9 fox"), 2);
    assert_eq!(first("guide fox^9"), 1);
}

#[test]
fn a_fault_in_a_query_is_named_with_its_place() {
    let view = library();
    let allowed = Allowed::new(Bitmap::full(10), None);
    let cases = [
        ("fox (dog", Some(8), "expected ')'"),
        ("title:", Some(6), "syntax error"),
        ("fox colour:red", Some(4), "no field \"colour\""),
        ("quick title.x:a", Some(6), "no field \"title.x\""),
        ("fox dog~9", Some(4), "bound is 2"),
        ("a body:/(/", Some(8), "regular expression"),
        ("[1 TO 5]", Some(0), "needs a field"),
        ("attributes:5", Some(0), "need a name"),
        ("a attributes.price:[1 TO 2024-01-01]", Some(2), "must both be"),
        ("a\"b", Some(1), "syntax error"),
    ];
    for (query, at, words) in cases {
        match ask(view.searcher().as_ref(), query, true, 5, &allowed) {
            Err(SearchError::Query { message, position }) => {
                assert!(message.contains(words), "{query}: {message}");
                assert_eq!(position, at, "{query}: {message}");
            }
            other => panic!("{query}: {other:?}"),
        }
    }
}

#[test]
fn hostile_queries_pass_a_bound_and_never_the_stack() {
    let view = library();
    let allowed = Allowed::new(Bitmap::full(10), None);
    let hostile = [
        "(".repeat(16_000),
        "NOT ".repeat(4_000),
        "-(+(".repeat(4_000),
        "a:(".repeat(5_000),
        "a ".repeat(8_000),
        format!("fox^{}", "9".repeat(400)),
        "x".repeat(17_000),
        format!("body:/{}/", "(a{1000}){1000}"),
        format!("{}~2", "y".repeat(5_000)),
        "*".repeat(3_000),
        "a*".repeat(3_000),
    ];
    for query in &hostile {
        let shown: String = query.chars().take(20).collect();
        for strict in [true, false] {
            let answer = ask(view.searcher().as_ref(), query, strict, 5, &allowed);
            if let Err(error) = answer {
                assert!(
                    matches!(error, SearchError::Query { .. } | SearchError::Bound { .. }),
                    "{shown}: {error}"
                );
            }
        }
    }
}

#[test]
fn plain_language_is_answered_where_the_strict_language_refuses_it() {
    let view = library();
    let allowed = Allowed::new(Bitmap::full(10), None);
    for (query, expected) in [
        ("what's the quick fox doing?", 1),
        ("fox: dog(", 1),
        ("how do I parse_http_request(", 0),
        ("(running fast", 0),
        ("NOT \"", 9),
    ] {
        assert!(ask(view.searcher().as_ref(), query, true, 5, &allowed).is_err(), "{query}");
        let answer = ask(view.searcher().as_ref(), query, false, 5, &allowed).unwrap();
        let first = answer.hits.first().map_or(9, |hit| hit.number);
        assert_eq!(first, expected, "{query}");
    }
    let answer = ask(view.searcher().as_ref(), "\"quick brown\"", false, 5, &allowed).unwrap();
    assert_eq!(answer.total, 1, "a query without fault keeps its meaning");
}

#[test]
fn removed_and_filtered_documents_are_not_answered_nor_counted() {
    let view = library();
    let only = |numbers: &[DocNumber], filter: Option<&[DocNumber]>| {
        let bitmap = |numbers: &[DocNumber]| numbers.iter().copied().collect::<Bitmap>();
        let allowed = Allowed::new(bitmap(numbers), filter.map(bitmap));
        let answer = ask(view.searcher().as_ref(), "quick", true, 5, &allowed).unwrap();
        assert_eq!(answer.total as usize, answer.hits.len());
        answer.hits.iter().map(|hit| hit.number).collect::<Vec<_>>()
    };
    assert_eq!(only(&[0, 1, 2], None), [1, 2]);
    assert_eq!(only(&[0, 2], None), [2]);
    assert_eq!(only(&[0, 1, 2], Some(&[1])), [1]);
    assert!(only(&[0, 2], Some(&[1])).is_empty());
}

#[test]
fn a_stop_that_is_set_ends_the_work_and_the_answer_says_so() {
    let view = library();
    let stop = Stop::new();
    stop.set();
    let allowed = Allowed::new(Bitmap::full(10), None);
    let request = Request {
        text: "quick",
        pattern: Pattern::default(),
        strict: true,
        verified_max: usize::MAX,
        vectors: &[],
        limit: 5,
        allowed: &allowed,
        texts: &NoTexts,
        threads: 1,
        stop: &stop,
    };
    let answer = view.searcher().search(&request).unwrap();
    assert!(!answer.complete && !answer.total_is_exact);
}

#[test]
fn equal_scores_come_in_order_of_number_and_beyond_the_bound_the_total_is_a_lower_bound() {
    let documents = (0..12_000)
        .map(|i| Document { id: format!("{i}"), body: "same words".into(), ..Document::default() })
        .collect();
    let view = view_of(documents);
    let allowed = Allowed::new(Bitmap::full(20_000), None);
    let answer = ask(view.searcher().as_ref(), "same words", true, 10, &allowed).unwrap();
    let numbers: Vec<_> = answer.hits.iter().map(|hit| hit.number).collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    assert!(answer.total >= 10_000 && answer.complete);
    assert!(!answer.total_is_exact || answer.total == 12_000);
    let exact = ask(view.searcher().as_ref(), "+same +words", true, 10, &allowed).unwrap();
    assert!(exact.total_is_exact && exact.total == 12_000);
}

#[test]
fn a_searcher_keeps_its_state_while_the_view_goes_on() {
    let mut view = library();
    let before = view.searcher();
    let document = Document { id: "new".into(), body: "quick news".into(), ..Document::default() };
    view.apply(&[addition(3, document)], 4).unwrap();
    let allowed = Allowed::new(Bitmap::full(10), None);
    let total = |searcher: &dyn Searcher| ask(searcher, "quick", true, 9, &allowed).unwrap().total;
    assert_eq!(total(before.as_ref()), 2);
    assert_eq!(total(view.searcher().as_ref()), 3);
}

#[test]
fn what_no_manifest_names_is_removed_at_opening() {
    let directory = MemoryDirectory::new();
    write_file(&directory, "00000007.idx", b"left over").unwrap();
    let view = open(&directory);
    assert!(directory.list().unwrap().is_empty());
    assert_eq!(view.through(), 0);
}

#[test]
fn a_future_manifest_is_refused_and_damage_is_named() {
    let directory = MemoryDirectory::new();
    let mut view = open(&directory);
    let document = Document { id: "a".into(), body: "word".into(), ..Document::default() };
    view.apply(&[addition(0, document)], 1).unwrap();
    view.checkpoint().unwrap();
    let manifest = directory.open("manifest").unwrap().to_vec();
    let mut future = manifest.clone();
    future[8] = 9;
    write_file(&directory, "manifest", &future).unwrap();
    let error = FullTextView::open(Arc::new(directory.clone())).err().unwrap();
    assert!(matches!(error, ViewError::FutureFormat { found: 9, .. }), "{error}");
    write_file(&directory, "manifest", &manifest).unwrap();
    for name in directory.list().unwrap() {
        let whole = directory.open(&name).unwrap().to_vec();
        write_file(&directory, &name, &whole[..whole.len() - 1]).unwrap();
        let error = FullTextView::open(Arc::new(directory.clone())).err().unwrap();
        assert!(matches!(error, ViewError::Damaged { .. }), "{name}: {error}");
        write_file(&directory, &name, &whole).unwrap();
    }
    assert_eq!(open(&directory).numbers().unwrap().len(), 1);
}

#[test]
fn flipped_bytes_never_panic_and_verify_finds_them() {
    let directory = MemoryDirectory::new();
    let mut view = open(&directory);
    let items: Vec<_> = (0..50)
        .map(|i| {
            let body = format!("word{i} common text number {i}");
            addition(i, Document { id: format!("{i}"), body, ..Document::default() })
        })
        .collect();
    view.apply(&items, 50).unwrap();
    view.checkpoint().unwrap();
    let allowed = Allowed::new(Bitmap::full(100), None);
    for name in directory.list().unwrap() {
        let whole = directory.open(&name).unwrap().to_vec();
        for at in (0..whole.len()).step_by(1 + whole.len() / 23) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            write_file(&directory, &name, &bytes).unwrap();
            let Ok(view) = FullTextView::open(Arc::new(directory.clone())) else { continue };
            for query in ["common", "\"common text\"", "wor*", "+word3 +number", "*"] {
                let _ = ask(view.searcher().as_ref(), query, true, 5, &allowed);
            }
            let error = view.numbers().err().unwrap();
            assert!(matches!(error, ViewError::Damaged { .. }), "{name} at {at}: {error}");
        }
        write_file(&directory, &name, &whole).unwrap();
    }
}

/// What happens to a view.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of documents, each a set of words.
    Apply(Vec<Vec<usize>>),
    /// The nth living document is removed.
    Remove(usize),
    Checkpoint,
    /// The process ends without a checkpoint; the log applies the rest again.
    Crash,
    Merge,
}

const WORDS: [&str; 6] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];

fn step() -> impl Strategy<Value = Step> {
    let words = prop::collection::vec(0..WORDS.len(), 1..6);
    prop_oneof![
        6 => prop::collection::vec(words, 1..5).prop_map(Step::Apply),
        3 => (0usize..100).prop_map(Step::Remove),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        2 => Just(Step::Merge),
    ]
}

/// The log and the documents it makes, beside the view that reads it.
struct Model {
    directory: MemoryDirectory,
    view: FullTextView,
    /// Every addition ever made, by its sequence number (from 1).
    log: Vec<Addition>,
    living: BTreeMap<DocNumber, Vec<usize>>,
}

impl Model {
    fn new() -> Self {
        let directory = MemoryDirectory::new();
        let view = open(&directory);
        Self { directory, view, log: Vec::new(), living: BTreeMap::new() }
    }

    fn bitmap(&self) -> Bitmap {
        self.living.keys().copied().collect()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Apply(documents) => {
                let first = self.log.len();
                for words in documents {
                    let number = self.log.len() as u32;
                    let body: Vec<_> = words.iter().map(|&word| WORDS[word]).collect();
                    let body = body.join(" ");
                    let document =
                        Document { id: format!("{number}"), body, ..Document::default() };
                    self.log.push(addition(number, document));
                    self.living.insert(number, words);
                }
                let through = self.log.len() as u64;
                assert!(self.view.apply(&self.log[first..], through).unwrap().is_empty());
            }
            Step::Remove(n) => {
                let number = self.living.keys().nth(n % self.living.len().max(1)).copied();
                number.map(|number| self.living.remove(&number));
            }
            Step::Checkpoint => {
                let through = self.view.through();
                self.view.checkpoint().unwrap();
                assert_eq!(open(&self.directory).through(), through);
                self.view = open(&self.directory);
            }
            Step::Crash => {
                self.view = open(&self.directory);
                let from = self.view.through() as usize;
                self.view.apply(&self.log[from..], self.log.len() as u64).unwrap();
            }
            Step::Merge => {
                while let Some(merge) = self.view.plan_merge(&self.bitmap()) {
                    let merged = (merge.run)(&Stop::new()).unwrap();
                    self.view.install(merged).unwrap();
                }
            }
        }
    }

    fn check(&self) {
        let allowed = Allowed::new(self.bitmap(), None);
        let searcher = self.view.searcher();
        let matching = |test: &dyn Fn(&[usize]) -> bool| -> Vec<DocNumber> {
            self.living.iter().filter(|(_, words)| test(words)).map(|(&number, _)| number).collect()
        };
        let answer = |query: &str| {
            let answer = ask(searcher.as_ref(), query, true, 1000, &allowed).unwrap();
            let mut numbers: Vec<_> = answer.hits.iter().map(|hit| hit.number).collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(answer("alpha"), matching(&|w| w.contains(&0)));
        assert_eq!(answer("+beta -gamma"), matching(&|w| w.contains(&1) && !w.contains(&2)));
        assert_eq!(answer("\"delta epsilon\""), matching(&|w| w.windows(2).any(|p| p == [3, 4])));
        assert_eq!(answer("*"), matching(&|_| true));
        let held = self.view.numbers().unwrap();
        assert!(self.living.keys().all(|&number| held.contains(number)));
        assert_eq!(self.view.figures().documents, held.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn after_any_steps_the_view_answers_what_the_model_holds(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.take(step);
            model.check();
        }
    }
}

static LIBRARY: LazyLock<Arc<dyn Searcher>> = LazyLock::new(|| library().searcher());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_query_panics(text in r#"([a-c]{0,3}|[ ():"'*~^+\-\[\]{}/\\<>!?.]|AND |OR |NOT |IN |TO |title:|attributes\.x:|[0-9]|é|東){0,24}"#) {
        let allowed = Allowed::new(Bitmap::full(10), None);
        for strict in [true, false] {
            match ask(LIBRARY.as_ref(), &text, strict, 5, &allowed) {
                Ok(answer) => prop_assert!(answer.hits.iter().all(|hit| hit.score.is_finite())),
                Err(SearchError::Query { position, .. }) => {
                    prop_assert!(strict && position.is_none_or(|at| at <= text.len()));
                }
                Err(SearchError::Bound { .. }) => prop_assert!(strict),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}

#[test]
fn merges_drop_removed_documents_and_their_files() {
    let directory = MemoryDirectory::new();
    let mut view = open(&directory);
    for number in 0..20 {
        let body = format!("word {number}");
        let document = Document { id: format!("{number}"), body, ..Document::default() };
        view.apply(&[addition(number, document)], u64::from(number) + 1).unwrap();
        view.checkpoint().unwrap();
    }
    let living: Bitmap = (10..20).collect();
    while let Some(merge) = view.plan_merge(&living) {
        assert!(merge.bytes > 0);
        let merged = (merge.run)(&Stop::new()).unwrap();
        view.install(merged).unwrap();
    }
    view.checkpoint().unwrap();
    assert!(view.figures().segments < 8, "{:?}", view.figures());
    assert!(view.figures().documents < 15, "{:?}", view.figures());
    let files = directory.list().unwrap().len() as u64;
    assert_eq!(files, view.figures().segments * 6 + 1);
}

#[test]
fn a_merge_that_is_stopped_leaves_no_file_and_the_view_as_it_was() {
    let directory = MemoryDirectory::new();
    let mut view = open(&directory);
    for number in 0..8 {
        let document =
            Document { id: format!("{number}"), body: "word".into(), ..Document::default() };
        view.apply(&[addition(number, document)], u64::from(number) + 1).unwrap();
        view.checkpoint().unwrap();
    }
    let before = directory.list().unwrap();
    let stop = Stop::new();
    stop.set();
    let merge = view.plan_merge(&Bitmap::full(8)).unwrap();
    let error = (merge.run)(&stop).err().unwrap();
    assert!(
        matches!(&error, ViewError::Io { source, .. } if source.kind() == std::io::ErrorKind::Interrupted),
        "{error}"
    );
    assert_eq!(directory.list().unwrap(), before);
    assert_eq!(found(&view, "word").len(), 8);
}
