#![no_main]
use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mainstay_search::bitmap::Bitmap;
use mainstay_search::bm25::Bm25View;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::directory::{Directory, write_file};
use mainstay_search::document::{DocNumber, Document};
use mainstay_search::native::NativeView;
use mainstay_search::request::{
    Allowed, Pattern, QueryVector, Request, SearchError, Stop, Text, Texts,
};
use mainstay_search::semantic::{Options, PassageEntry, SemanticItem, SemanticView, Space, Spaces};
use mainstay_search::view::{Addition, View, ViewError};

const DOCUMENTS: u32 = 40;
const DIMENSION: usize = 16;

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

fn document(number: u32) -> Document {
    let words = ["zebra", "parse_http", "Straße", "42", "検索", "the"];
    let body = (0..30).map(|at| words[((number * 7 + at * at) % 6) as usize]).collect::<Vec<_>>();
    Document {
        id: format!("d{number}"),
        title: "Title".into(),
        body: body.join(" "),
        ..Document::default()
    }
}

fn additions() -> Vec<Addition> {
    (0..DOCUMENTS).map(|number| Addition { number, document: document(number) }).collect()
}

fn bm25(directory: &MemoryDirectory) -> Result<Bm25View, ViewError> {
    Bm25View::open(Arc::new(directory.clone()))
}

fn native(directory: &MemoryDirectory) -> Result<NativeView, ViewError> {
    NativeView::open(Arc::new(directory.clone()))
}

fn semantic(directory: &MemoryDirectory) -> Result<SemanticView, ViewError> {
    let instant = Some(Space { dimension: DIMENSION, model: "m".into() });
    let spaces = Spaces { instant, refining: None };
    SemanticView::open(Arc::new(directory.clone()), spaces, Options { graph_rows_min: 1 })
}

fn vector(number: u32) -> Vec<f32> {
    (0..DIMENSION as u32).map(|at| ((number * 31 + at * at * 17) % 23) as f32 - 11.0).collect()
}

fn semantic_items() -> Vec<SemanticItem> {
    let passage = |number| PassageEntry { range: 0..9, vector: Some(vector(number)) };
    let item = |number| SemanticItem { number, passages: vec![passage(number)], bytes_left_out: 0 };
    (0..DOCUMENTS).map(item).collect()
}

/// Applies in two parts with a checkpoint after each, so that there are files to merge.
fn fill<V: View>(mut view: V, items: &[V::Item]) {
    for (part, through) in items.chunks(items.len() / 2).zip(1..) {
        view.apply(part, through).expect("applies");
        view.checkpoint().expect("memory does not fail");
    }
    merge(&mut view).expect("what is whole merges");
}

fn merge<V: View>(view: &mut V) -> Result<(), ViewError> {
    while let Some(merge) = view.plan_merge(&Bitmap::full(DOCUMENTS)) {
        view.install((merge.run)(&Stop::new())?)?;
    }
    view.checkpoint()
}

/// Asks and merges; errors are fine, anything else is not.
fn exercise<V: View>(opened: Result<V, ViewError>) {
    let Ok(mut view) = opened else { return };
    let filter: Bitmap = (0..DOCUMENTS).filter(|number| number % 3 == 0).collect();
    for filter in [None, Some(filter)] {
        let allowed = Allowed::new(Bitmap::full(DOCUMENTS), filter);
        let request = Request {
            text: "zebra parse 検索",
            pattern: Pattern::default(),
            strict: false,
            vectors: &[QueryVector { space: 0, vector: vector(3) }],
            limit: 10,
            allowed: &allowed,
            texts: &NoTexts,
            threads: 1,
            stop: &Stop::new(),
        };
        if let Ok(answer) = view.searcher().search(&request) {
            assert!(answer.hits.len() <= 10);
            assert!(answer.hits.iter().all(|hit| allowed.contains(hit.number)));
        }
    }
    let _ = view.numbers();
    let _ = view.figures();
    let _ = merge(&mut view);
}

thread_local! {
    static WHOLE: OnceCell<[MemoryDirectory; 3]> = const { OnceCell::new() };
}

fn whole() -> [MemoryDirectory; 3] {
    let directories = [(); 3].map(|()| MemoryDirectory::new());
    fill(bm25(&directories[0]).expect("opens"), &additions());
    fill(native(&directories[1]).expect("opens"), &additions());
    fill(semantic(&directories[2]).expect("opens"), &semantic_items());
    directories
}

// The files of a view, damaged at places that the input names or cut short: opening, searching and
// merging answer or say what is wrong, and never panic.
fuzz_target!(|input: (u8, Option<u16>, Vec<(u8, u16, u8)>)| {
    let (which, cut, damage) = input;
    let which = usize::from(which) % 3;
    let damaged = MemoryDirectory::new();
    WHOLE.with(|slot| {
        let from = &slot.get_or_init(whole)[which];
        let mut names = from.list().expect("memory does not fail");
        names.sort();
        for (index, name) in names.iter().enumerate() {
            let mut bytes = from.open(name).expect("is listed").to_vec();
            for &(file, at, xor) in damage.iter().take(16) {
                if usize::from(file) % names.len() == index && !bytes.is_empty() {
                    let at = usize::from(at) % bytes.len();
                    bytes[at] ^= xor;
                }
            }
            if let Some(cut) = cut.filter(|cut| usize::from(*cut) % names.len() == index) {
                bytes.truncate(usize::from(cut) % (bytes.len() + 1));
            }
            write_file(&damaged, name, &bytes).expect("memory does not fail");
        }
    });
    match which {
        0 => exercise(bm25(&damaged)),
        1 => exercise(native(&damaged)),
        _ => exercise(semantic(&damaged)),
    }
});
