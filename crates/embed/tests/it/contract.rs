//! The promises of the trait `Embedder`, checked for every implementation.

use std::sync::Arc;

use mainstay_embed::{Embedder, HashModel, Kind, StaticModel, Transformer};

/// How near two vectors of the same text must be.
pub(crate) struct Tolerance(pub(crate) f32);

const EXACT: Tolerance = Tolerance(0.0);

/// Runs every promise against `model`.
pub(crate) fn check(model: &dyn Embedder, tolerance: &Tolerance) {
    every_text_gets_one_vector_of_the_promised_dimension(model);
    vectors_are_finite_and_of_length_one(model);
    a_text_without_content_gives_the_zero_vector(model);
    a_text_of_any_length_is_embedded(model);
    a_batch_gives_what_single_calls_give_in_the_same_order(model, tolerance);
    the_same_text_gives_the_same_vector_again(model, tolerance);
}

const TEXTS: &[&str] = &[
    "How is a torn tail told from damage to acknowledged data?",
    "a",
    "fn main() { println!(\"{}\", snake_case + camelCase); }",
    "Größe, naïveté, ½ ﬁ, Ωμέγα, Привет, שלום, 日本語, 한국어, ไทย, हिन्दी",
    "\u{200B}\u{FEFF}zero\u{0}width\u{FFFD} \u{202E}override\u{202C} e\u{301}\u{323}\u{10FFFF}",
    "👩🏽‍💻🏴󠁧󠁢󠁥󠁮󠁧󠁿 emoji",
    "[CLS] [SEP] [MASK] [PAD]",
    "a much longer passage that says one thing after another, and then another, so that batches \
     hold texts of very different lengths; it goes on for a while about logs, frames, segments, \
     checkpoints, snapshots, views, methods, passages and what follows from them",
];

fn every_text_gets_one_vector_of_the_promised_dimension(model: &dyn Embedder) {
    for kind in [Kind::Query, Kind::Passage] {
        let vectors = model.embed(TEXTS, kind).unwrap();
        assert_eq!(vectors.len(), TEXTS.len());
        assert_eq!(vectors.dimension(), model.identity().dimension);
        let none = model.embed(&[], kind).unwrap();
        assert_eq!((none.len(), none.dimension()), (0, model.identity().dimension));
    }
}

fn vectors_are_finite_and_of_length_one(model: &dyn Embedder) {
    for (text, vector) in TEXTS.iter().zip(model.embed(TEXTS, Kind::Passage).unwrap().iter()) {
        assert!(vector.iter().all(|number| number.is_finite()), "{text}");
        let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
        let zero = vector.iter().all(|number| *number == 0.0);
        assert!(zero || (length - 1.0).abs() < 1e-4, "{text}: length {length}");
    }
}

fn a_text_without_content_gives_the_zero_vector(model: &dyn Embedder) {
    for text in ["", " \t\n", "\u{0}\u{FEFF}"] {
        let vectors = model.embed(&[text], Kind::Passage).unwrap();
        assert!(vectors.as_slice().iter().all(|number| *number == 0.0), "{text:?}");
    }
}

fn a_text_of_any_length_is_embedded(model: &dyn Embedder) {
    let megabyte = 1 << 20;
    for unit in ["word ", "x", "é", "日", "\u{301}", " ", "[MASK]", "a_B"] {
        let text = unit.repeat(megabyte / unit.len());
        let vectors = model.embed(&[&text], Kind::Passage).unwrap();
        assert!(vectors.as_slice().iter().all(|number| number.is_finite()), "{unit:?}");
    }
}

fn a_batch_gives_what_single_calls_give_in_the_same_order(model: &dyn Embedder, by: &Tolerance) {
    let mut texts = TEXTS.to_vec();
    texts.insert(2, "");
    texts.extend(TEXTS);
    let together = model.embed(&texts, Kind::Passage).unwrap();
    for (text, vector) in texts.iter().zip(together.iter()) {
        let alone = model.embed(&[text], Kind::Passage).unwrap();
        assert_near(vector, alone.as_slice(), by, text);
    }
}

fn the_same_text_gives_the_same_vector_again(model: &dyn Embedder, by: &Tolerance) {
    for text in TEXTS {
        let first = model.embed(&[text], Kind::Query).unwrap();
        let again = model.embed(&[text], Kind::Query).unwrap();
        assert_near(first.as_slice(), again.as_slice(), by, text);
    }
}

fn assert_near(a: &[f32], b: &[f32], Tolerance(most): &Tolerance, text: &str) {
    let difference = a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(difference <= *most, "{text}: differs by {difference}");
}

#[test]
fn the_hash_model_keeps_the_contract() {
    check(&HashModel::new(32, 7), &EXACT);
}

#[test]
fn the_static_model_keeps_the_contract() {
    check(&*StaticModel::built_in().unwrap(), &EXACT);
}

#[test]
fn minilm_keeps_the_contract() {
    check(&*Transformer::built_in().unwrap(), &EXACT);
}

#[test]
fn embedders_can_be_shared_between_threads_without_a_difference() {
    let minilm: Arc<dyn Embedder> = Transformer::built_in().unwrap();
    let expected = minilm.embed(TEXTS, Kind::Passage).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(minilm.embed(TEXTS, Kind::Passage).unwrap(), expected));
        }
    });
}
