//! Fusion: what the sum is, and what must not change it.

use std::collections::BTreeMap;

use mainstay_search::fusion::{Fusion, InvalidWeights, TuneQuery, Weights, fuse, tune};
use mainstay_search::method::Method;
use mainstay_search::request::{Hit, MethodAnswer};
use proptest::prelude::{ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, proptest};

fn answer(hits: &[(u32, f32)]) -> MethodAnswer {
    let hits = hits.iter().map(|&(number, score)| Hit { number, score, passage: None }).collect();
    MethodAnswer { hits, total: 0, total_is_exact: true, complete: true }
}

fn scores(hits: &[mainstay_search::fusion::FusedHit]) -> Vec<(u32, f32)> {
    hits.iter().map(|hit| (hit.number, (hit.score * 1000.0).round() / 1000.0)).collect()
}

#[test]
fn scores_are_brought_to_one_scale_weighted_and_summed() {
    let words = answer(&[(1, 30.0), (2, 20.0), (3, 10.0)]);
    let meaning = answer(&[(3, 0.9), (4, 0.8), (2, 0.4)]);
    let answers = [(Method::Bm25, &words), (Method::Semantic, &meaning)];
    let fused = fuse(&answers, &Weights::REFINED, Fusion::Scores, 10);
    assert_eq!(scores(&fused), [(3, 0.6), (4, 0.48), (1, 0.4), (2, 0.2)]);
    let third = &fused[0].contributions;
    assert_eq!(third.len(), 2);
    assert_eq!((third[0].method, third[0].rank, third[0].score), (Method::Bm25, 3, 10.0));
    assert_eq!(
        (third[1].rank, third[1].normalised, third[1].contribution),
        (1, 1.0, third[1].weight)
    );
}

#[test]
fn ranks_alone_decide_in_reciprocal_rank_fusion() {
    let words = answer(&[(1, 3.0), (2, 2.9)]);
    let meaning = answer(&[(2, 900.0), (3, 1.0)]);
    let answers = [(Method::Bm25, &words), (Method::Semantic, &meaning)];
    let even = Weights { bm25: 1.0, tantivy: 0.0, native: 0.0, semantic: 1.0 };
    let fused = fuse(&answers, &even, Fusion::RANKS, 10);
    let expected = |ranks: &[f32]| ranks.iter().map(|rank| 0.5 * 61.0 / (60.0 + rank)).sum::<f32>();
    assert_eq!(fused.iter().map(|hit| hit.number).collect::<Vec<_>>(), [2, 1, 3]);
    for (hit, ranks) in fused.iter().zip([&[2.0, 1.0][..], &[1.0], &[2.0]]) {
        assert!((hit.score - expected(ranks)).abs() < 1e-6);
    }
}

#[test]
fn weights_are_shared_out_among_the_methods_that_answered() {
    let words = answer(&[(7, 2.0), (8, 1.0)]);
    let fused = fuse(&[(Method::Bm25, &words)], &Weights::REFINED, Fusion::Scores, 10);
    assert_eq!(scores(&fused), [(7, 1.0), (8, 0.0)]);
    let only_native = Weights { bm25: 0.0, tantivy: 0.0, native: 1.0, semantic: 0.0 };
    let fused = fuse(&[(Method::Bm25, &words)], &only_native, Fusion::Scores, 10);
    assert_eq!(scores(&fused), [(7, 1.0), (8, 0.0)], "all weights 0: they count alike");
    let both = [(Method::Bm25, &words), (Method::Native, &answer(&[(9, 1.0)]))];
    let fused = fuse(&both, &only_native, Fusion::Scores, 10);
    assert_eq!(scores(&fused), [(9, 1.0)], "a weight of 0 leaves a method out");
    assert!(fuse(&[], &Weights::default(), Fusion::Scores, 10).is_empty());
}

#[test]
fn equal_scores_come_in_order_of_number_and_the_limit_is_kept() {
    let words = answer(&[(9, 1.0), (4, 1.0), (6, 1.0)]);
    let fused = fuse(&[(Method::Bm25, &words)], &Weights::default(), Fusion::Scores, 2);
    assert_eq!(scores(&fused), [(4, 1.0), (6, 1.0)]);
}

#[test]
fn the_passage_is_that_of_the_method_that_contributes_most() {
    let mut words = answer(&[(1, 1.0)]);
    words.hits[0].passage = Some(0..5);
    let mut meaning = answer(&[(1, 1.0)]);
    meaning.hits[0].passage = Some(10..20);
    let answers = [(Method::Native, &words), (Method::Semantic, &meaning)];
    let fused = fuse(&answers, &Weights::REFINED, Fusion::Scores, 1);
    assert_eq!(fused[0].passage(), Some((Method::Semantic, 10..20)));
}

#[test]
fn semantic_counts_as_far_as_its_model_knows_the_query() {
    let weights = Weights::REFINED;
    assert_eq!(weights.where_known(1.0), weights);
    assert_eq!(weights.where_known(0.9), weights);
    let half = weights.where_known(0.65);
    assert!((half.semantic - weights.semantic / 2.0).abs() < 1e-6);
    assert_eq!((half.bm25, half.native), (weights.bm25, weights.native));
    let unknown = weights.where_known(0.0);
    assert!(unknown.semantic > 0.0 && unknown.semantic < 0.02);
    assert!(unknown.validate().is_ok());
}

#[test]
fn weights_that_make_no_sense_are_refused_by_name() {
    assert_eq!(Weights::REFINED.validate(), Ok(()));
    let negative = Weights::REFINED.with(Method::Native, -1.0).validate().unwrap_err();
    assert_eq!(negative, InvalidWeights::NotANumber { method: Method::Native, weight: -1.0 });
    let none = Weights { bm25: 0.0, tantivy: 0.0, native: 0.0, semantic: 0.0 };
    assert_eq!(none.validate(), Err(InvalidWeights::AllZero));
}

fn list() -> impl Strategy<Value = Vec<(u32, f32)>> {
    prop::collection::btree_map(0u32..20, 0.0f32..100.0, 0..15).prop_map(|map| {
        let mut hits: Vec<_> = map.into_iter().collect();
        hits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        hits
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_order_of_answers_does_not_matter(lists in prop::array::uniform4(list()), turn in 0usize..4) {
        let answers = lists.map(|list| answer(&list));
        let mut pairs: Vec<_> = Method::ALL.into_iter().zip(&answers).collect();
        for fusion in [Fusion::Scores, Fusion::RANKS] {
            let straight = fuse(&pairs, &Weights::REFINED, fusion, 100);
            pairs.rotate_left(turn);
            prop_assert_eq!(&fuse(&pairs, &Weights::REFINED, fusion, 100), &straight);
            for hit in &straight {
                let sum: f32 = hit.contributions.iter().map(|part| part.contribution).sum();
                prop_assert_eq!(sum, hit.score);
                prop_assert!((0.0..=1.0001).contains(&hit.score));
            }
        }
    }

    #[test]
    fn a_better_score_in_one_list_never_costs_a_rank(
        first in list(), second in list(), pick in 0usize..15, more in 0.0f32..150.0,
    ) {
        if let Some(&(number, _)) = first.get(pick) {
            let rank = |first: &[(u32, f32)], fusion| {
                let (a, b) = (answer(first), answer(&second));
                let answers = [(Method::Bm25, &a), (Method::Semantic, &b)];
                let fused = fuse(&answers, &Weights::REFINED, fusion, 100);
                fused.iter().position(|hit| hit.number == number).unwrap()
            };
            let mut raised = first.clone();
            raised[pick].1 += more;
            raised.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            prop_assert!(rank(&raised, Fusion::RANKS) <= rank(&first, Fusion::RANKS));
            prop_assert!(rank(&raised, Fusion::Scores) <= rank(&first, Fusion::Scores));
        }
    }

    #[test]
    fn scores_that_are_no_numbers_do_no_harm(bits in prop::collection::vec(0u32.., 0..9)) {
        let hits: Vec<_> = bits.iter().enumerate().map(|(i, &b)| (i as u32, f32::from_bits(b))).collect();
        let odd = answer(&hits);
        let fused = fuse(&[(Method::Bm25, &odd)], &Weights::default(), Fusion::Scores, 9);
        prop_assert!(fused.iter().all(|hit| (0.0..=1.0).contains(&hit.score)));
    }
}

/// Queries whose relevant document one method puts first and the other last, with some disagreement.
fn judged_queries(count: u32, good: Method, bad: Method, wrong_every: u32) -> Vec<TuneQuery> {
    (0..count)
        .map(|i| {
            let first = answer(&[(i, 9.0), (1000 + i, 5.0), (2000 + i, 1.0)]);
            let last = answer(&[(1000 + i, 9.0), (2000 + i, 8.0), (i, 1.0)]);
            let is_wrong = wrong_every > 0 && i % wrong_every == 0;
            let (of_good, of_bad) = if is_wrong { (last, first) } else { (first, last) };
            let judgements: BTreeMap<u32, f64> = [(i, 1.0)].into();
            TuneQuery { answers: vec![(good, of_good), (bad, of_bad)], judgements }
        })
        .collect()
}

#[test]
fn tuning_finds_the_better_method_and_proves_it_on_queries_held_out() {
    let queries = judged_queries(60, Method::Semantic, Method::Bm25, 10);
    let start = Weights::REFINED.with(Method::Bm25, 0.9).with(Method::Semantic, 0.1);
    let tuned = tune(&queries, &start).unwrap();
    assert_eq!(tuned.queries, 60);
    assert!(tuned.weights.semantic > 0.5, "{tuned:?}");
    assert!(tuned.gain.low > 0.0, "{tuned:?}");
    assert!(tuned.held_out.mean > tuned.before.mean + 0.2, "{tuned:?}");
    assert_eq!(tuned.weights.native + tuned.weights.tantivy, 0.0, "they did not answer");
}

#[test]
fn noise_does_not_move_the_weights() {
    // Two methods that put ten documents in an order of their own, by a generator of Lehmer.
    let mut state = 42u64;
    let mut ranking = |_| {
        let mut keyed: Vec<(u64, u32)> = (0..10)
            .map(|number| {
                state = state * 48_271 % 0x7fff_ffff;
                (state, number)
            })
            .collect();
        keyed.sort_unstable();
        let hits: Vec<_> = keyed.iter().zip(0u8..).map(|(k, i)| (k.1, -f32::from(i))).collect();
        answer(&hits)
    };
    let queries: Vec<TuneQuery> = (0..80)
        .map(|_| TuneQuery {
            answers: [Method::Bm25, Method::Semantic].map(|m| (m, ranking(m))).into(),
            judgements: [(0, 1.0)].into(),
        })
        .collect();
    let even = Weights { bm25: 0.5, tantivy: 0.0, native: 0.0, semantic: 0.5 };
    let tuned = tune(&queries, &even).unwrap();
    assert!(tuned.gain.low <= 0.0 && tuned.gain.high >= 0.0, "{tuned:?}");
    assert!((tuned.weights.bm25 - 0.5).abs() < 0.2, "{tuned:?}");
    assert_eq!(tune(&queries[..9], &even), None, "too few queries");
}
