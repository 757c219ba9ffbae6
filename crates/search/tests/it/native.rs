//! The `native` view against a naive scan, through batches, removals, merges, checkpoints, restarts.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{DocNumber, Document};
use mainstay_search::native::{DocumentLines, NativeView, Sizes};
use mainstay_search::request::{
    Allowed, Case, MethodAnswer, Pattern, Request, SearchError, Stop, Syntax, Text, Texts,
};
use mainstay_search::view::{Addition, Searcher, View};
use mainstay_testkit::texts::StoredTexts as Stored;
use proptest::prelude::*;

/// A view with its store and the living documents, as a database holds them.
pub(crate) struct Corpus {
    pub(crate) directory: MemoryDirectory,
    pub(crate) view: NativeView,
    pub(crate) stored: Stored,
    pub(crate) living: Bitmap,
    next: DocNumber,
    seq: u64,
}

/// So small that a few kilobytes of text go through every kind of merge.
const SMALL: Sizes = Sizes { segment_text_bytes: 20_000, inline_bytes_max: 12_000 };

impl Corpus {
    pub(crate) fn new() -> Self {
        let directory = MemoryDirectory::new();
        let view = NativeView::open_with(Arc::new(directory.clone()), SMALL).unwrap();
        let (stored, living) = (Stored::default(), Bitmap::new());
        Self { directory, view, stored, living, next: 3, seq: 0 }
    }

    pub(crate) fn add(&mut self, documents: Vec<Document>) {
        let mut items = Vec::new();
        for document in documents {
            self.living.insert(self.next);
            self.stored.0.insert(self.next, document.clone());
            items.push(Addition { number: self.next, document });
            self.next += 1 + self.next % 3;
        }
        self.seq += 1;
        assert_eq!(self.view.apply(&items, self.seq).unwrap(), []);
        assert_eq!(self.view.through(), self.seq);
    }

    pub(crate) fn bodies(bodies: &[&str]) -> Self {
        let mut corpus = Self::new();
        let document = |body: &&str| Document { body: (*body).into(), ..Document::default() };
        corpus.add(bodies.iter().map(document).collect());
        corpus
    }

    /// Runs planned merges until none is left.
    pub(crate) fn merge_all(&mut self) {
        while let Some(merge) = self.view.plan_merge(&self.living) {
            let merged = (merge.run)(&Stop::new()).unwrap();
            self.view.install(merged).unwrap();
        }
    }

    pub(crate) fn reopen(&mut self) {
        let directory = Arc::new(self.directory.clone());
        self.view = NativeView::open_with(directory, SMALL).unwrap();
    }

    pub(crate) fn ask<T>(
        &self,
        text: &str,
        pattern: Pattern,
        filter: Option<&Bitmap>,
        with: impl FnOnce(&Request<'_>) -> T,
    ) -> T {
        let allowed = Allowed::new(self.living.clone(), filter.cloned());
        with(&Request {
            strict: false,
            verified_max: usize::MAX,
            text,
            pattern,
            vectors: &[],
            limit: 10_000,
            allowed: &allowed,
            texts: &self.stored,
            threads: 2,
            stop: &Stop::new(),
        })
    }

    pub(crate) fn search(&self, text: &str, pattern: Pattern) -> Result<MethodAnswer, SearchError> {
        self.ask(text, pattern, None, |request| self.view.searcher().search(request))
    }

    fn enumerate(
        &self,
        text: &str,
        pattern: Pattern,
        filter: Option<&Bitmap>,
    ) -> Vec<DocumentLines> {
        let mut all = Vec::new();
        self.ask(text, pattern, filter, |request| {
            let each = &mut |found| {
                all.push(found);
                ControlFlow::Continue(())
            };
            assert!(self.view.snapshot().enumerate(request, each).unwrap().complete);
        });
        all
    }
}

pub(crate) const LITERAL: Pattern =
    Pattern { syntax: Syntax::Literal, case: Case::Sensitive, word: false };
pub(crate) const REGEX: Pattern =
    Pattern { syntax: Syntax::Regex, case: Case::Sensitive, word: false };

/// A document, whether its title matches, and its matching lines.
type Expected = (DocNumber, bool, Vec<(u32, String)>);

/// What a scan without an index finds.
fn naive(corpus: &Corpus, text: &str, pattern: Pattern, filter: Option<&Bitmap>) -> Vec<Expected> {
    let source = match pattern.syntax {
        Syntax::Literal => regex::escape(text),
        Syntax::Regex => text.to_string(),
    };
    let source =
        if pattern.word { format!(r"\b{{start-half}}(?:{source})\b{{end-half}}") } else { source };
    let regex = regex::RegexBuilder::new(&source)
        .case_insensitive(pattern.case == Case::Insensitive)
        .multi_line(true)
        .build()
        .unwrap();
    let lines = |body: &str| -> Vec<(u32, String)> {
        let lines = body.split_terminator('\n').enumerate();
        let matching = lines.filter(|(_, line)| regex.is_match(line));
        matching.map(|(i, line)| (i as u32 + 1, line.to_string())).collect()
    };
    let allowed = |number: &DocNumber| {
        corpus.living.contains(*number) && filter.is_none_or(|f| f.contains(*number))
    };
    let documents = corpus.stored.0.iter().filter(|(number, _)| allowed(number));
    documents
        .map(|(&number, document)| {
            (number, !lines(&document.title).is_empty(), lines(&document.body))
        })
        .filter(|(_, title, lines)| *title || !lines.is_empty())
        .collect()
}

fn check(corpus: &Corpus, text: &str, pattern: Pattern, filter: Option<&Bitmap>) {
    let expected = naive(corpus, text, pattern, filter);
    let found: Vec<_> = corpus
        .enumerate(text, pattern, filter)
        .iter()
        .map(|found| {
            let line = |line| found.text(line).to_string();
            let lines = found.lines.iter().map(|it| (it.line, line(it))).collect();
            (found.number, found.title, lines)
        })
        .collect();
    assert_eq!(found, expected, "{text:?} {pattern:?}");
    let answer = corpus
        .ask(text, pattern, filter, |request| corpus.view.searcher().search(request))
        .unwrap();
    assert!(answer.complete && answer.total_is_exact);
    assert_eq!(answer.total, expected.len() as u64);
    let mut numbers: Vec<_> = answer.hits.iter().map(|hit| hit.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, expected.iter().map(|found| found.0).collect::<Vec<_>>());
    let order = |hit: &mainstay_search::request::Hit| (-hit.score, hit.number);
    assert!(answer.hits.iter().all(|hit| hit.score.is_finite()));
    assert!(answer.hits.is_sorted_by(|a, b| order(a) < order(b)));
}

fn word() -> impl Strategy<Value = String> {
    let words = [
        "alpha",
        "Alphabet",
        "beta_one",
        "gamma",
        "GAMMA",
        "delta",
        "x",
        "ab",
        "the",
        "fn",
        "main()",
        "Straße",
        "STRASSE",
        "ſkin",
        "skin",
        "\u{212a}elvin",
        "kelvin",
        "日本語",
        "語",
        "éclair",
        "ÉCLAIR",
        "\t",
        "=",
        "  ",
        "0x1f",
        "foo.bar",
        "\r",
    ];
    prop::sample::select(words.to_vec()).prop_map(str::to_string)
}

fn body() -> impl Strategy<Value = String> {
    let line = || prop::collection::vec(word(), 0..6).prop_map(|words| words.join(" "));
    let short = prop::collection::vec(line(), 0..5).prop_map(|lines| lines.join("\n"));
    let long = (prop::collection::vec(line(), 2..20), 1usize..120)
        .prop_map(|(lines, times)| (lines.join("\n") + "\n").repeat(times));
    prop_oneof![4 => short, 1 => long]
}

fn document() -> impl Strategy<Value = Document> {
    (body(), prop_oneof![3 => Just(String::new()), 1 => word()])
        .prop_map(|(body, title)| Document { body, title, ..Document::default() })
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<Document>),
    Remove(u32),
    Merge,
    Checkpoint,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(document(), 0..20).prop_map(Step::Add),
        4 => any::<u32>().prop_map(Step::Remove),
        1 => Just(Step::Merge),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

fn query() -> impl Strategy<Value = (String, Syntax)> {
    let literal = prop::collection::vec(word(), 1..3).prop_map(|words| words.join(" "));
    let part = || word().prop_map(|word| regex::escape(&word[word.ceil_char_boundary(1)..]));
    let expression = prop_oneof![
        (part(), part()).prop_map(|(a, b)| format!("{a}.*{b}")),
        (part(), part()).prop_map(|(a, b)| format!("({a}|{b})")),
        part().prop_map(|a| format!("^{a}")),
        part().prop_map(|a| format!("{a}$")),
        part().prop_map(|a| format!(r"\w+{a}[a-z]?")),
        part().prop_map(|a| format!(r"(?:{a})+\s")),
        Just(r"[αa]l+pha\b".to_string()),
        Just(r"\p{Han}{2}".to_string()),
        Just("^$".to_string()),
        Just("".to_string()),
    ];
    prop_oneof![
        literal.prop_map(|text| (text, Syntax::Literal)),
        expression.prop_map(|text| (text, Syntax::Regex)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn answers_equal_a_naive_scan_through_every_change(
        steps in prop::collection::vec(step(), 1..25),
        queries in prop::collection::vec((query(), any::<bool>(), any::<bool>(), any::<bool>()), 6),
    ) {
        let mut corpus = Corpus::new();
        // What the last checkpoint holds, to go back to on a restart.
        let mut durable = 0;
        for step in steps {
            match step {
                Step::Add(documents) => corpus.add(documents),
                Step::Remove(at) => {
                    let living: Vec<_> = corpus.living.iter().collect();
                    if !living.is_empty() {
                        // A run of them, so that whole units and segments die.
                        let at = at as usize % living.len();
                        let run = &living[at..(at + 1 + at % 40).min(living.len())];
                        run.iter().for_each(|&number| { corpus.living.remove(number); });
                    }
                }
                Step::Merge => corpus.merge_all(),
                Step::Checkpoint => {
                    corpus.view.checkpoint().unwrap();
                    durable = corpus.seq;
                }
                Step::Reopen => {
                    corpus.reopen();
                    prop_assert_eq!(corpus.view.through(), durable);
                    replay(&mut corpus);
                }
            }
        }
        let held = corpus.view.numbers().unwrap();
        prop_assert!(corpus.living.iter().all(|number| held.contains(number)));
        prop_assert_eq!(corpus.view.figures().documents, held.len());
        let filter: Bitmap = (0..corpus.next).filter(|number| number % 3 != 0).collect();
        for ((text, syntax), insensitive, word, filtered) in queries {
            let case = if insensitive { Case::Insensitive } else { Case::Sensitive };
            check(&corpus, &text, Pattern { syntax, case, word }, filtered.then_some(&filter));
        }
    }
}

/// Applies again what the log holds beyond a checkpoint: everything above the view's last number.
fn replay(corpus: &mut Corpus) {
    let held = corpus.view.numbers().unwrap().iter().last();
    let items: Vec<Addition> = corpus
        .stored
        .0
        .iter()
        .filter(|(number, _)| held.is_none_or(|held| **number > held))
        .map(|(&number, document)| Addition { number, document: document.clone() })
        .collect();
    assert_eq!(corpus.view.apply(&items, corpus.seq).unwrap(), []);
}

#[test]
fn a_sentence_that_stands_nowhere_is_answered_with_nothing() {
    let corpus = Corpus::bodies(&["the scheduler balances load between runqueues\n"]);
    let answer = corpus.search("how does the scheduler balance load", Pattern::default()).unwrap();
    assert_eq!((answer.total, answer.hits.len(), answer.complete), (0, 0, true));
}

#[test]
fn a_definition_ranks_above_its_uses_and_gives_the_passage() {
    let corpus =
        Corpus::bodies(&["x = merge(a);\n", "// words\nfn merge(a: u32) {}\n", "merged\n"]);
    let answer = corpus.search("merge", Pattern::default()).unwrap();
    let numbers: Vec<_> = answer.hits.iter().map(|hit| hit.number).collect();
    assert_eq!(numbers, [4, 3, 6]);
    assert_eq!(answer.hits[0].passage, Some(9..28));
}

#[test]
fn a_match_in_the_title_alone_is_a_hit_without_passage() {
    let mut corpus = Corpus::new();
    let document =
        Document { title: "On Herring".into(), body: "fish\n".into(), ..Document::default() };
    corpus.add(vec![document]);
    let answer = corpus.search("herring", Pattern::default()).unwrap();
    assert_eq!((answer.total, answer.hits[0].passage.clone()), (1, None));
}

#[test]
fn documents_whose_numbers_do_not_rise_are_refused_by_name() {
    let mut corpus = Corpus::bodies(&["one\n"]);
    let item = Addition { number: 3, document: Document::default() };
    let refused = corpus.view.apply(&[item], 9).unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].number, corpus.view.through()), (3, 9));
}

#[test]
fn a_snapshot_does_not_see_what_is_applied_later() {
    let mut corpus = Corpus::bodies(&["needle\n"]);
    let before = corpus.view.searcher();
    corpus.add(vec![Document { body: "needle\n".into(), ..Document::default() }]);
    let total = |searcher: Arc<dyn Searcher>| {
        corpus.ask("needle", LITERAL, None, |request| searcher.search(request)).unwrap().total
    };
    assert_eq!(total(before), 1);
    assert_eq!(total(corpus.view.searcher()), 2);
}

#[test]
fn a_ranked_search_for_what_stands_everywhere_ends_early_and_says_so() {
    let corpus = Corpus::bodies(&vec!["needle\n"; 2_500]);
    let search = |limit| {
        corpus.ask("needle", LITERAL, None, |request| {
            corpus
                .view
                .searcher()
                .search(&Request { strict: false, limit, ..request.clone() })
                .unwrap()
        })
    };
    let answer = search(5);
    assert_eq!((answer.total, answer.total_is_exact, answer.complete), (2_000, false, true));
    assert_eq!(answer.hits.len(), 5);
    let answer = search(1_000);
    assert_eq!((answer.total, answer.total_is_exact, answer.complete), (2_500, true, true));
    assert_eq!(corpus.enumerate("needle", LITERAL, None).len(), 2_500);
}

/// Stored text that counts what is read.
struct Counted<'a>(&'a Stored, AtomicUsize);

impl Texts for Counted<'_> {
    fn visit(
        &self,
        numbers: &[DocNumber],
        visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        self.1.fetch_add(numbers.len(), Ordering::Relaxed);
        self.0.visit(numbers, visit)
    }
}

#[test]
fn short_documents_that_lack_the_literal_are_hardly_ever_read() {
    let words = ["in", "by", "we", "on", "at", "no", "so", "up", "go", "he", "it", "me"];
    let mut state = 1u64;
    let mut body = |_| {
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            words[(state >> 33) as usize % words.len()]
        };
        (0..12).map(|_| word()).collect::<Vec<_>>().join(" ")
    };
    let bodies: Vec<String> = (0..600).map(&mut body).collect();
    let mut corpus = Corpus::bodies(&bodies.iter().map(String::as_str).collect::<Vec<_>>());
    for merged in [false, true] {
        if merged {
            corpus.view.checkpoint().unwrap();
            corpus.merge_all();
        }
        for (literal, slack) in [("in by we on", 10), ("he it me no so", 4)] {
            let counted = Counted(&corpus.stored, AtomicUsize::new(0));
            let answer = corpus.ask(literal, LITERAL, None, |request| {
                let request = Request { texts: &counted, ..request.clone() };
                corpus.view.searcher().search(&request).unwrap()
            });
            let truth = bodies.iter().filter(|body| body.contains(literal)).count();
            assert_eq!(answer.total as usize, truth);
            let read = counted.1.into_inner();
            assert!(read <= truth + slack, "{read} texts were read for {truth} matches");
        }
    }
}

#[test]
fn a_bound_on_verified_texts_leaves_out_the_last_and_says_so() {
    let long = "filler line\n".repeat(1_000) + "needle\n";
    let corpus = Corpus::bodies(&["needle\n", "needle a\n", &long, "needle b\n"]);
    let search = |verified_max, pattern| {
        corpus.ask("needle", pattern, None, |request| {
            let request = Request { verified_max, ..request.clone() };
            corpus.view.searcher().search(&request).unwrap()
        })
    };
    for (max, total) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 4)] {
        let answer = search(max, LITERAL);
        assert_eq!((answer.total, answer.total_is_exact, answer.complete), (total, max >= 4, true));
    }
    assert_eq!(search(1, REGEX).total, 4, "a regular expression is always searched to the end");
}

#[test]
fn small_segments_between_large_ones_are_merged_too() {
    let mut corpus = Corpus::new();
    let lines = |from: u32, to: u32| -> Vec<Document> {
        let line = |i: u32| format!("{:x}\n", i.wrapping_mul(2_654_435_761));
        let body = |i: u32| (i * 50..i * 50 + 50).map(line).collect();
        (from..to).map(|i| Document { body: body(i), ..Document::default() }).collect()
    };
    for pair in 0..20 {
        corpus.add(lines(pair * 40, pair * 40 + 39));
        corpus.add(lines(pair * 40 + 39, pair * 40 + 40));
    }
    assert!(corpus.view.figures().segments >= 40);
    corpus.merge_all();
    assert!(corpus.view.figures().segments < 10, "{:?}", corpus.view.figures());
    check(&corpus, "9e3779b1", LITERAL, None);
}
