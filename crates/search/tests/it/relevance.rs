//! Measures of relevance against values worked out by hand.

use std::collections::BTreeMap;

use mainstay_search::relevance::{Interval, Judged, paired_t_test};

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
}

fn judged(ranked: &[&str], judgements: &[(&str, f64)]) -> Judged {
    let judgements: BTreeMap<&str, f64> = judgements.iter().copied().collect();
    Judged::new(ranked, &judgements)
}

const JUDGEMENTS: [(&str, f64); 4] = [("a", 3.0), ("b", 2.0), ("c", 1.0), ("z", 0.0)];

#[test]
fn ndcg_is_the_linear_gain_by_the_best_possible() {
    let ranking = judged(&["b", "x", "a", "z"], &JUDGEMENTS);
    // (2/log2(2) + 3/log2(4)) / (3/log2(2) + 2/log2(3) + 1/log2(4)) = 3.5 / 4.761860
    near(ranking.ndcg(10), 0.735_007);
    near(ranking.ndcg(1), 2.0 / 3.0);
    near(judged(&["a", "b", "c"], &JUDGEMENTS).ndcg(10), 1.0);
    near(judged(&[], &JUDGEMENTS).ndcg(10), 0.0);
}

#[test]
fn recall_reciprocal_rank_and_average_precision_count_what_is_relevant() {
    let ranking = judged(&["x", "b", "z", "a"], &JUDGEMENTS);
    near(ranking.recall(2), 1.0 / 3.0);
    near(ranking.recall(100), 2.0 / 3.0);
    near(ranking.reciprocal_rank(10), 0.5);
    near(ranking.reciprocal_rank(1), 0.0);
    // (1/2 + 2/4 + 0) / 3
    near(ranking.average_precision(), 1.0 / 3.0);
}

#[test]
fn a_document_counts_once_and_a_query_without_relevant_documents_is_told_apart() {
    near(judged(&["a", "a", "a"], &JUDGEMENTS).recall(10), 1.0 / 3.0);
    let empty = judged(&["a"], &[("a", 0.0)]);
    assert!(!empty.has_relevant());
    near(empty.ndcg(10) + empty.recall(10) + empty.average_precision(), 0.0);
}

#[test]
fn the_paired_t_test_gives_the_p_of_the_tables() {
    // Differences 1, 2, 3, 4, 5: mean 3, error 0.7071, t = 4.2426 with 4 degrees: p = 0.013236.
    let a = [2.0, 4.0, 6.0, 8.0, 10.0];
    let b = [1.0, 2.0, 3.0, 4.0, 5.0];
    near(paired_t_test(&a, &b), 0.013_235_599);
    // t = 1 with 1 degree of freedom is the Cauchy distribution: p = 0.5.
    near(paired_t_test(&[2.0, 0.0], &[0.0, 0.0]), 0.5);
    near(paired_t_test(&a, &a), 1.0);
    near(paired_t_test(&[1.0], &[0.0]), 1.0);
    near(paired_t_test(&[1.0, 1.0], &[0.0, 0.0]), 0.0);
}

#[test]
fn the_interval_is_that_of_student() {
    // Mean 3, error 0.707107, t(4, 0.975) = 2.776445.
    let interval = Interval::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    near(interval.mean, 3.0);
    near(interval.high - 3.0, 2.776_445_1 * std::f64::consts::FRAC_1_SQRT_2);
    near(3.0 - interval.low, interval.high - 3.0);
    assert_eq!(Interval::of(&[0.5]), Interval { mean: 0.5, low: 0.5, high: 0.5 });
    assert_eq!(Interval::of(&[]), Interval::default());
}
