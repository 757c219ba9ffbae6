#![no_main]
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{DocNumber, Document, Value};
use mainstay_search::full_text::FullTextView;
use mainstay_search::request::{Allowed, Pattern, Request, SearchError, Stop, Text, Texts};
use mainstay_search::view::{Addition, Searcher, View};

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

fn searcher() -> Arc<dyn Searcher> {
    let mut view = FullTextView::open(Arc::new(MemoryDirectory::new())).expect("opens");
    let document = |number: u32| Document {
        id: format!("d{number}"),
        title: "Zebra crossing".into(),
        body: "the quick parse_http_request zebra 42".into(),
        path: format!("src/{number}.rs"),
        language: "rust".into(),
        tags: vec!["red".into()],
        attributes: [
            ("price".to_string(), Value::Number(f64::from(number))),
            ("at".to_string(), Value::Date(1_700_000_000_000)),
            ("new".to_string(), Value::Boolean(true)),
        ]
        .into(),
    };
    let items: Vec<_> = (1..5).map(|n| Addition { number: n, document: document(n) }).collect();
    view.apply(&items, 5).expect("applies");
    view.searcher()
}

thread_local! {
    static SEARCHER: RefCell<Option<Arc<dyn Searcher>>> = const { RefCell::new(None) };
}

fuzz_target!(|input: (bool, &str)| {
    let (strict, text) = input;
    let searcher = SEARCHER.with(|slot| slot.borrow_mut().get_or_insert_with(searcher).clone());
    let allowed = Allowed::new(Bitmap::full(5), None);
    let request = Request {
        text,
        pattern: Pattern::default(),
        strict,
        vectors: &[],
        limit: 10,
        allowed: &allowed,
        texts: &NoTexts,
        threads: 1,
        stop: &Stop::new(),
    };
    if let Ok(answer) = searcher.search(&request) {
        assert!(answer.hits.len() <= 10 && answer.hits.iter().all(|hit| hit.score.is_finite()));
    }
});
