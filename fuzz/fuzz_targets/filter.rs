#![no_main]
use std::cell::OnceCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{Document, Value};
use mainstay_search::documents::{DocumentChange, Documents, DocumentsSnapshot, Filter};
use mainstay_search::view::Addition;

fn snapshot() -> Arc<DocumentsSnapshot> {
    let mut view = Documents::open(Arc::new(MemoryDirectory::new())).expect("opens");
    let document = |number: u32| Document {
        id: format!("d{number}"),
        path: format!("src/a{number}/[x]{number}.rs"),
        language: "rust".into(),
        tags: vec!["red".into(), format!("t{number}")],
        attributes: [
            ("price".to_string(), Value::Number(f64::from(number) - 0.5)),
            ("at".to_string(), Value::Date(1_700_000_000_000)),
            ("new".to_string(), Value::Boolean(true)),
        ]
        .into(),
        ..Document::default()
    };
    let put = |number| DocumentChange::Put(Addition { number, document: document(number) });
    view.apply(&(0..5).map(put).collect::<Vec<_>>(), 5).expect("applies");
    view.checkpoint().expect("memory does not fail");
    view.snapshot()
}

thread_local! {
    static SNAPSHOT: OnceCell<Arc<DocumentsSnapshot>> = const { OnceCell::new() };
}

// A filter is refused or finds living documents, and its negation finds the others.
fuzz_target!(|text: &str| {
    let Ok(filter) = Filter::parse(text) else { return };
    let snapshot = SNAPSHOT.with(|slot| Arc::clone(slot.get_or_init(snapshot)));
    let Ok(found) = snapshot.filter(&filter) else { return };
    let Ok(others) = snapshot.filter(&Filter::Not(Box::new(filter))) else { return };
    assert!(found.iter().chain(others.iter()).all(|number| snapshot.living().contains(number)));
    assert_eq!(found.iter().count() + others.iter().count(), 5);
});
