//! recall@10 of `semantic` against exact 32-bit scores: at least 0.95, as promised in
//! `docs/design/vector-index.md`, on seeded clusters and on real texts.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::request::{Allowed, QueryVector};
use mainstay_search::semantic::{
    INSTANT, Options, PassageEntry, SemanticItem, SemanticView, Space, Spaces,
};
use mainstay_search::view::View;

use crate::semantic::{Dice, ask, dot, merge_all, request, unit};

const LIMIT: usize = 10;
const RECALL_MIN: f64 = 0.95;

/// Vectors around centres, one centre for each hundred.
fn clustered(seed: u64, dimension: usize, count: usize) -> Vec<Vec<f32>> {
    let mut dice = Dice(seed);
    let centres: Vec<_> = (0..count.div_ceil(100)).map(|_| dice.direction(dimension)).collect();
    let mut around = || {
        let noise = dice.direction(dimension);
        let centre = &centres[dice.below(centres.len())];
        unit(noise.iter().zip(centre).map(|(n, c)| n * 0.8 + c).collect())
    };
    (0..count).map(|_| around()).collect()
}

/// A checkpointed and merged view of the vectors, one passage a document.
fn view(vectors: &[Vec<f32>], graph_rows_min: usize) -> SemanticView {
    let dimension = vectors[0].len();
    let spaces = Spaces { instant: Some(Space { dimension, model: "m".into() }), refining: None };
    let directory = Arc::new(MemoryDirectory::new());
    let mut view = SemanticView::open(directory, spaces, Options { graph_rows_min }).unwrap();
    let item = |(number, vector): (usize, &Vec<f32>)| SemanticItem {
        number: number as u32,
        passages: vec![PassageEntry { range: 0..1, vector: Some(vector.clone()) }],
        bytes_left_out: 0,
    };
    let items: Vec<_> = vectors.iter().enumerate().map(item).collect();
    for part in items.chunks(items.len().div_ceil(8)) {
        view.apply(part, 1).unwrap();
        view.checkpoint().unwrap();
    }
    merge_all(&mut view, &Bitmap::full(vectors.len() as u32));
    assert_eq!(view.figures().segments, 1);
    view
}

/// The share of the exact ten nearest allowed vectors that the view answers.
fn recall(
    view: &SemanticView,
    vectors: &[Vec<f32>],
    queries: &[Vec<f32>],
    filter: Option<Bitmap>,
) -> f64 {
    let allowed = Allowed::new(Bitmap::full(vectors.len() as u32), filter);
    let mut right = 0;
    for vector in queries {
        let mut exact: Vec<_> =
            allowed.iter().map(|n| (dot(vector, &vectors[n as usize]), n)).collect();
        exact.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        exact.truncate(LIMIT);
        let query = [QueryVector { space: INSTANT, vector: vector.clone() }];
        let hits = ask(view, &query, LIMIT, &allowed).hits;
        right += exact.iter().filter(|(_, n)| hits.iter().any(|hit| hit.number == *n)).count();
    }
    right as f64 / (queries.len() * LIMIT) as f64
}

fn every(step: usize, count: usize) -> Bitmap {
    (0..count as u32).step_by(step).collect()
}

/// Checks a set of vectors by scan and by graph, unfiltered and under filters of every strength.
fn check(vectors: &[Vec<f32>], queries: &[Vec<f32>]) {
    for (way, graph_rows_min) in [("scan", usize::MAX), ("graph", 1)] {
        let view = view(vectors, graph_rows_min);
        for step in [1, 2, 3, 10, 100] {
            let filter = (step > 1).then(|| every(step, vectors.len()));
            let recall = recall(&view, vectors, queries, filter);
            println!("{way}, 1 in {step} allowed: recall@10 {recall:.4}");
            assert!(recall >= RECALL_MIN, "{way}, 1 in {step} allowed: recall@10 {recall}");
        }
    }
}

#[test]
fn recall_at_10_is_at_least_95_percent_on_clusters() {
    let mut vectors = clustered(42, 384, 6_100);
    let queries = vectors.split_off(6_000);
    check(&vectors, &queries);
}

#[test]
fn recall_at_10_is_at_least_95_percent_on_real_texts_where_they_are_at_hand() {
    let shared = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../../shared");
    let Some(mut vectors) = embedded_texts(&shared, 6_100) else {
        println!("no texts in {}", shared.display());
        return;
    };
    let queries = vectors.split_off(6_000);
    check(&vectors, &queries);
}

#[test]
fn the_exact_probe_measures_the_recall_of_a_snapshot() {
    let mut vectors = clustered(7, 64, 3_050);
    let queries = vectors.split_off(3_000);
    let view = view(&vectors, 1);
    let snapshot = view.snapshot();
    let allowed = Allowed::new(Bitmap::full(3_000), None);
    for vector in queries {
        let query = [QueryVector { space: INSTANT, vector: vector.clone() }];
        let exact = request(&query, LIMIT, &allowed, |r| snapshot.exact(r).unwrap());
        let best = vectors.iter().map(|v| dot(v, &vector)).fold(f32::MIN, f32::max);
        assert!((exact.hits[0].score - best).abs() < 0.02);
        assert!(exact.complete && exact.hits.len() == LIMIT);
    }
}

#[test]
fn the_same_vectors_give_the_same_graph() {
    let vectors = clustered(3, 48, 1_000);
    let hits = |view: &SemanticView| {
        let query = [QueryVector { space: INSTANT, vector: vectors[17].clone() }];
        ask(view, &query, 100, &Allowed::new(Bitmap::full(1_000), None)).hits
    };
    let (one, other) = (view(&vectors, 1), view(&vectors, 1));
    assert_eq!(hits(&one), hits(&other));
    assert_eq!(one.figures(), other.figures());
}

/// Windows of twelve words of open texts as the static table embeds their words.
fn embedded_texts(shared: &Path, count: usize) -> Option<Vec<Vec<f32>>> {
    let vocabulary = fs::read_to_string(shared.join("models/vocab.txt")).ok()?;
    let vocabulary: HashMap<_, _> = vocabulary.lines().zip(0usize..).collect();
    let bytes = fs::read(shared.join("models/static-256/model.safetensors")).ok()?;
    let header = u64::from_le_bytes(*bytes.first_chunk()?) as usize;
    let (scales, rows) = bytes[8 + header..].split_at(vocabulary.len() * 4);
    let embed = |words: &[&str]| -> Vec<f32> {
        let mut sum = vec![1e-6f32; 256];
        for &token in words.iter().filter_map(|word| vocabulary.get(word)) {
            let scale = f32::from_le_bytes(*scales[token * 4..].first_chunk().unwrap());
            let row = &rows[token * 256..(token + 1) * 256];
            sum.iter_mut().zip(row).for_each(|(s, &r)| *s += f32::from(r.cast_signed()) * scale);
        }
        unit(sum)
    };
    let mut vectors = Vec::new();
    for name in ["cosqa-dev", "cisi", "cranfield", "medline"] {
        let text = fs::read_to_string(shared.join(format!("datasets/{name}/docs.jsonl"))).ok()?;
        let text = text.to_lowercase();
        let words: Vec<_> =
            text.split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() > 1).collect();
        vectors.extend(words.chunks(12).map(embed));
    }
    // Evenly from all of them, in an order that mixes them.
    let step = vectors.len() / count;
    let mut dice = Dice(5);
    let mut chosen: Vec<_> = vectors.into_iter().step_by(step).take(count).collect();
    for at in (1..chosen.len()).rev() {
        chosen.swap(at, dice.below(at + 1));
    }
    Some(chosen)
}
