//! The contract of views, held by all four methods.
#![allow(clippy::unwrap_used)]

use mainstay_search::bm25::Bm25View;
use mainstay_search::document::{DocNumber, Document};
use mainstay_search::full_text::FullTextView;
use mainstay_search::native::{NativeView, Sizes};
use mainstay_search::request::QueryVector;
use mainstay_search::semantic::{
    INSTANT, Options, PassageEntry, SemanticItem, SemanticView, Space, Spaces,
};
use mainstay_search::view::{Addition, View};
use mainstay_testkit::view::{Subject, check};

const DIMENSION: usize = 16;

fn addition(number: DocNumber, document: &Document) -> Addition {
    Addition { number, document: document.clone() }
}

fn words<V: View<Item = Addition>>(
    open: fn(
        std::sync::Arc<dyn mainstay_search::directory::Directory>,
    ) -> Result<V, mainstay_search::view::ViewError>,
) -> Subject<V> {
    Subject { open, item: addition, vectors: |_| Vec::new(), exact: true }
}

#[test]
fn bm25_keeps_the_contract_of_views() {
    check(&words(Bm25View::open));
}

#[test]
fn tantivy_keeps_the_contract_of_views() {
    check(&words(FullTextView::open));
}

#[test]
fn native_keeps_the_contract_of_views() {
    check(&words(|directory| {
        NativeView::open_with(
            directory,
            Sizes { segment_text_bytes: 4_000, inline_bytes_max: 4_000 },
        )
    }));
}

/// A vector of unit length that depends on the text alone.
fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    for (at, byte) in text.bytes().enumerate() {
        vector[(usize::from(byte) + at) % DIMENSION] += 1.0;
    }
    let length = vector.iter().map(|x: &f32| x * x).sum::<f32>().sqrt().max(1.0);
    vector.into_iter().map(|x| x / length).collect()
}

#[test]
fn semantic_keeps_the_contract_of_views() {
    check(&Subject {
        open: |directory| {
            let instant = Some(Space { dimension: DIMENSION, model: "test".into() });
            let options = Options { graph_rows_min: 200 };
            SemanticView::open(directory, Spaces { instant, refining: None }, options)
        },
        item: |number, document| {
            let range = 0..document.body.len() as u32;
            let passages = vec![PassageEntry { range, vector: Some(vector(&document.body)) }];
            SemanticItem { number, passages, bytes_left_out: 0 }
        },
        vectors: |text| vec![QueryVector { space: INSTANT, vector: vector(text) }],
        exact: false,
    });
}
