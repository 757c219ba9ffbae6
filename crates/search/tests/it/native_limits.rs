//! The `native` method under damage and hostile patterns.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::directory::{Directory, write_file};
use mainstay_search::document::{DocNumber, Document};
use mainstay_search::native::{Matcher, NativeView};
use mainstay_search::request::{
    Allowed, Pattern, QUERY_BYTES_MAX, Request, SearchError, Stop, Syntax, Text, Texts,
};
use mainstay_search::view::{Addition, View, ViewError};

use crate::native::{Corpus, LITERAL, REGEX};

fn regex_error(text: &str) -> SearchError {
    Matcher::new(text, REGEX).expect_err("a hostile pattern is refused")
}

#[test]
fn patterns_that_compile_too_large_are_refused_with_the_bound() {
    for bomb in ["(a{1000}){1000}", r"\pL{500}", r"((\w{50}){50}){50}", r"(?i)(\pL{30}){30}"] {
        let error = regex_error(bomb);
        assert!(matches!(error, SearchError::Bound { .. }), "{bomb}: {error}");
        assert!(error.to_string().contains("4194304 bytes"), "{error}");
    }
}

#[test]
fn patterns_too_long_too_deep_or_with_too_many_classes_are_refused() {
    let long = regex_error(&"a".repeat(QUERY_BYTES_MAX + 1));
    assert!(matches!(&long, SearchError::Bound { message } if message.contains("16385 bytes")));
    let deep = regex_error(&format!("{}a{}", "(".repeat(1_000), ")".repeat(1_000)));
    assert!(matches!(deep, SearchError::Query { position: Some(_), .. }));
    let classes = regex_error(&r"(?i)\pL".repeat(2_000));
    assert!(matches!(&classes, SearchError::Bound { message } if message.contains("256")));
}

#[test]
fn a_syntax_error_says_where() {
    let SearchError::Query { position, message } = regex_error("foo(bar") else { panic!() };
    assert_eq!(position, Some(3));
    assert!(message.contains("unclosed group"), "{message}");
}

#[test]
fn a_pattern_that_backtracks_for_ever_elsewhere_is_linear_here() {
    let body = format!("{}\n", "a".repeat(30_000)).repeat(20);
    let corpus = Corpus::bodies(&[&body]);
    for bomb in ["(.*)*x", "(a+)+b", "(a|aa)+$b", "(.*){1,12}x"] {
        let answer = corpus.search(bomb, REGEX).unwrap();
        assert_eq!((answer.total, answer.complete), (0, true), "{bomb}");
    }
}

#[test]
fn a_literal_as_long_as_the_bound_is_found() {
    let needle: String =
        (0..QUERY_BYTES_MAX).map(|i| char::from(b'a' + (i * i % 23) as u8)).collect();
    let corpus = Corpus::bodies(&["other\n", &format!("x {needle} y\n")]);
    assert_eq!(corpus.search(&needle, LITERAL).unwrap().total, 1);
}

/// Texts that set the stop flag when the given number of documents was read.
struct StopAfter<'a> {
    body: &'a str,
    left: AtomicU64,
    stop: &'a Stop,
}

impl Texts for StopAfter<'_> {
    fn visit(
        &self,
        numbers: &[DocNumber],
        visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        for &number in numbers {
            if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.stop.set();
            }
            let text = Text { title: "", path: "", language: "", body: self.body };
            if visit(number, text).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn a_set_stop_ends_the_search_with_what_it_has() {
    let bodies = vec!["some needle\n"; 500];
    let corpus = Corpus::bodies(&bodies);
    for (after, threads) in [(1, 1), (100, 1), (100, 3)] {
        let stop = Stop::new();
        let texts = StopAfter { body: bodies[0], left: AtomicU64::new(after), stop: &stop };
        let allowed = Allowed::new(corpus.living.clone(), None);
        let request = Request {
            strict: false,
            verified_max: usize::MAX,
            text: "e n", // Too short for a selective plan, so every document is read.
            pattern: Pattern::default(),
            vectors: &[],
            limit: 5,
            allowed: &allowed,
            texts: &texts,
            threads,
            stop: &stop,
        };
        let answer = corpus.view.searcher().search(&request).unwrap();
        assert!(!answer.complete && !answer.total_is_exact);
        assert!(answer.total < 500 && answer.hits.len() <= 5);
    }
}

fn checkpointed() -> MemoryDirectory {
    let directory = MemoryDirectory::new();
    let mut view = NativeView::open(Arc::new(directory.clone())).unwrap();
    let items: Vec<Addition> = (0..300)
        .map(|number| {
            let body = format!("line {number}\nneedle {}\n", number % 7).repeat(30);
            Addition { number, document: Document { body, ..Document::default() } }
        })
        .collect();
    view.apply(&items, 5).unwrap();
    view.checkpoint().unwrap();
    directory
}

fn copy_with(
    directory: &MemoryDirectory,
    file: &str,
    change: impl Fn(&mut Vec<u8>),
) -> MemoryDirectory {
    let copy = MemoryDirectory::new();
    for name in directory.list().unwrap() {
        let mut contents = directory.open(&name).unwrap().to_vec();
        if name == file {
            change(&mut contents);
        }
        write_file(&copy, &name, &contents).unwrap();
    }
    copy
}

struct Needles;

impl Texts for Needles {
    fn visit(
        &self,
        numbers: &[DocNumber],
        visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        for &number in numbers {
            let text = Text { title: "", path: "", language: "", body: "needle 3\n" };
            if visit(number, text).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn ask(view: &NativeView, text: &str) -> Result<u64, SearchError> {
    let allowed = Allowed::new(Bitmap::full(300), None);
    let request = Request {
        strict: false,
        verified_max: usize::MAX,
        text,
        pattern: Pattern { syntax: Syntax::Regex, ..LITERAL },
        vectors: &[],
        limit: 5,
        allowed: &allowed,
        texts: &Needles,
        threads: 1,
        stop: &Stop::new(),
    };
    view.searcher().search(&request).map(|answer| answer.total)
}

#[test]
fn damage_anywhere_is_noticed_when_opening_or_asking_and_never_panics() {
    let directory = checkpointed();
    for name in directory.list().unwrap() {
        let length = directory.open(&name).unwrap().len();
        let step = (length / 400).max(1);
        for at in (0..length).step_by(step) {
            let damaged = copy_with(&directory, &name, |bytes| bytes[at] ^= 0x10);
            match NativeView::open(Arc::new(damaged)) {
                // Damage in a posting list shows when a query needs that list, and only then.
                Ok(mut view) => {
                    let all = ["line", "needle", "[0-9][0-9][0-9]", "ne.*(dle|ine) [0-9]{1,3}"];
                    for text in all {
                        match ask(&view, text) {
                            Ok(_) | Err(SearchError::Damaged { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    view.checkpoint().unwrap();
                }
                Err(ViewError::Damaged { file, .. } | ViewError::FutureFormat { file, .. }) => {
                    assert_eq!(file, name);
                }
                Err(other) => panic!("{other}"),
            }
            let cut = copy_with(&directory, &name, |bytes| bytes.truncate(at));
            assert!(matches!(NativeView::open(Arc::new(cut)), Err(ViewError::Damaged { .. })));
        }
    }
}

#[test]
fn a_damaged_posting_list_is_named_by_the_query_that_needs_it() {
    let directory = checkpointed();
    let segment =
        directory.list().unwrap().into_iter().find(|name| name.starts_with("seg")).unwrap();
    let damaged = copy_with(&directory, &segment, |bytes| bytes[16..64].fill(0xff));
    let view = NativeView::open(Arc::new(damaged)).unwrap();
    // The list of the least trigram comes first; other lists are whole.
    let damaged = ask(&view, " 10");
    assert!(matches!(&damaged, Err(SearchError::Damaged { file, .. }) if *file == segment));
    assert_eq!(ask(&view, "needle").unwrap(), 300);
}

#[test]
fn a_damaged_signature_is_named_by_the_query_that_needs_it() {
    let directory = checkpointed();
    let segment =
        directory.list().unwrap().into_iter().find(|name| name.starts_with("seg")).unwrap();
    // The signatures end where the table begins: footer fields 0 and 1 give their place.
    let damaged = copy_with(&directory, &segment, |bytes| {
        let field = |at: usize| {
            let footer = bytes.len() - 56;
            u64::from_le_bytes(bytes[footer + at..][..8].try_into().unwrap()) as usize
        };
        let first = 16 + field(0);
        assert!(field(8) > 0, "short documents are signed");
        bytes[first] ^= 1;
    });
    let view = NativeView::open(Arc::new(damaged)).unwrap();
    let answer = ask(&view, "needle");
    assert!(matches!(&answer, Err(SearchError::Damaged { file, .. }) if *file == segment));
}

#[test]
fn a_segment_of_the_earlier_format_asks_for_a_rebuild() {
    let directory = checkpointed();
    let segment =
        directory.list().unwrap().into_iter().find(|name| name.starts_with("seg")).unwrap();
    let earlier = copy_with(&directory, &segment, |bytes| bytes[8] = 1);
    let opened = NativeView::open(Arc::new(earlier)).err().unwrap();
    assert!(matches!(&opened, ViewError::Damaged { reason, .. } if reason.contains("format 1")));
}

#[test]
fn a_missing_segment_and_a_future_format_are_told_apart() {
    let directory = checkpointed();
    let segment =
        directory.list().unwrap().into_iter().find(|name| name.starts_with("seg")).unwrap();
    let future = copy_with(&directory, &segment, |bytes| bytes[8] = 7);
    let opened = NativeView::open(Arc::new(future)).err();
    assert!(matches!(opened, Some(ViewError::FutureFormat { found: 7, supported: 2, .. })));
    directory.remove(&segment).unwrap();
    let opened = NativeView::open(Arc::new(directory)).err();
    assert!(matches!(opened, Some(ViewError::Damaged { file, .. }) if file == segment));
}

#[test]
fn files_that_no_manifest_names_are_removed_on_opening() {
    let directory = checkpointed();
    write_file(&directory, "segment-00000099", b"left by a crash").unwrap();
    let before = directory.list().unwrap().len();
    NativeView::open(Arc::new(directory.clone())).unwrap();
    assert_eq!(directory.list().unwrap().len(), before - 1);
}

#[test]
fn a_stopped_merge_is_interrupted_and_leaves_the_view_as_it_was() {
    let mut corpus = Corpus::new();
    for batch in 0..12 {
        let body = |i: u32| {
            (0..900)
                .map(|j| format!("{:x}\n", (i * 7919 + j).wrapping_mul(2_654_435_761)))
                .collect::<String>()
        };
        let documents =
            (0..4).map(|i| Document { body: body(batch * 4 + i), ..Document::default() });
        corpus.add(documents.collect());
    }
    let merge = corpus.view.plan_merge(&corpus.living).expect("enough segments for a merge");
    let stop = Stop::new();
    stop.set();
    let Err(ViewError::Io { source, .. }) = (merge.run)(&stop) else { panic!("not interrupted") };
    assert_eq!(source.kind(), std::io::ErrorKind::Interrupted);
    let before = corpus.view.figures();
    corpus.merge_all();
    let after = corpus.view.figures();
    assert!(after.segments < before.segments && after.documents == before.documents);
}
