//! The built-in models against the reference implementations (`models/reproduce/golden.py`).

use mainstay_embed::{Embedder, Kind, Transformer, WordPiece};
use serde_json::Value;

fn records(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn tokens_equal_those_of_the_reference_tokeniser() {
    let wordpiece = WordPiece::built_in().unwrap();
    for record in records(include_str!("fixtures/tokens.jsonl")) {
        let text = record["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(record["tokens"].clone()).unwrap();
        let mut tokens = Vec::new();
        wordpiece.encode(text, usize::MAX, &mut tokens);
        assert_eq!(tokens, expected, "{text:?}");
    }
}

/// S5. The reference has f32 weights and another runtime; int8 costs up to 0.016 of cosine.
#[test]
fn minilm_vectors_agree_with_the_reference_runtime() {
    let minilm = Transformer::built_in().unwrap();
    let records = records(include_str!("fixtures/minilm_vectors.jsonl"));
    assert_eq!(records.len(), 12);
    let mut cosines = Vec::new();
    for record in &records {
        let text = record["text"].as_str().unwrap();
        let expected: Vec<f32> = serde_json::from_value(record["vector"].clone()).unwrap();
        let vectors = minilm.embed(&[text], Kind::Passage).unwrap();
        cosines.push(cosine(vectors.get(0).unwrap(), &expected));
    }
    println!("cosines {cosines:.4?}");
    assert!(cosines.iter().all(|cosine| *cosine >= 0.98), "{cosines:?}");
    assert!(cosines.iter().sum::<f32>() / 12.0 >= 0.99, "{cosines:?}");
}
