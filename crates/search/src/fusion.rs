//! [`fuse`]: the answers of several methods to one list, and [`tune`]: the weights for it.
//!
//! Scores of different methods mean different things, so each list is first brought to 0..1 by its
//! own least and greatest score; a document that a list lacks has 0 there. The weighted sum of that
//! is better than rank fusion on every collection that was measured (by 0.01 to 0.03 nDCG@10), but
//! rank fusion needs no trust in scores and is there on request.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::document::DocNumber;
use crate::method::Method;
use crate::relevance::{Interval, Judged, mean_and_error};
use crate::request::MethodAnswer;

/// How many hits each method should be asked for: the last hit of a list counts as little as one
/// that is missing, so a list should be longer than the page that is shown.
pub const DEPTH: usize = 100;

/// The share of a query from which on the embedding model is trusted wholly: nine in ten English
/// questions, those of medicine too, are above 0.75, and most of them above 0.9.
pub const KNOWN_FULL: f32 = 0.9;

/// The share at which it is not trusted any more: Turkish and Vietnamese questions have 0.55 under an
/// English vocabulary, other scripts 0.
pub const KNOWN_LEAST: f32 = 0.4;

/// What is left of the weight of `semantic` then.
const TRUST_LEAST: f32 = 0.02;

/// How much each method counts. Only ratios matter; 0 leaves a method out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Of `bm25`.
    pub bm25: f32,
    /// Of `tantivy`.
    pub tantivy: f32,
    /// Of `native`.
    pub native: f32,
    /// Of `semantic`.
    pub semantic: f32,
}

impl Weights {
    /// For passages embedded by a transformer such as MiniLM: 0.4 to 0.6 between words and meaning.
    /// `tantivy` mostly repeats `bm25`, and `native` speaks only when the text stands there literally.
    pub const REFINED: Self = Self { bm25: 0.36, tantivy: 0.04, native: 0.06, semantic: 0.54 };
    /// For passages embedded by the static model: 0.6 to 0.4 between words and meaning.
    pub const INSTANT: Self = Self { bm25: 0.54, tantivy: 0.04, native: 0.06, semantic: 0.36 };

    /// The weight of one method.
    pub fn of(&self, method: Method) -> f32 {
        match method {
            Method::Bm25 => self.bm25,
            Method::Tantivy => self.tantivy,
            Method::Native => self.native,
            Method::Semantic => self.semantic,
        }
    }

    /// The same weights with one changed.
    pub fn with(mut self, method: Method, weight: f32) -> Self {
        match method {
            Method::Bm25 => self.bm25 = weight,
            Method::Tantivy => self.tantivy = weight,
            Method::Native => self.native = weight,
            Method::Semantic => self.semantic = weight,
        }
        self
    }

    /// These weights for a query of which the embedding model knows `share`, 0 to 1. At
    /// [`KNOWN_FULL`] and above `semantic` keeps its weight, below less in proportion, and at
    /// [`KNOWN_LEAST`] next to nothing: its hits come last, in case no other method has any.
    pub fn where_known(self, share: f32) -> Self {
        let trust = ((share - KNOWN_LEAST) / (KNOWN_FULL - KNOWN_LEAST)).clamp(TRUST_LEAST, 1.0);
        self.with(Method::Semantic, self.semantic * trust)
    }

    /// Checks that every weight is a finite number of 0 or more, and one is more.
    pub fn validate(&self) -> Result<(), InvalidWeights> {
        let weights = Method::ALL.map(|method| self.of(method));
        if let Some(at) = weights.iter().position(|weight| !weight.is_finite() || *weight < 0.0) {
            return Err(InvalidWeights::NotANumber {
                method: Method::ALL[at],
                weight: weights[at],
            });
        }
        if weights.iter().all(|&weight| weight == 0.0) {
            return Err(InvalidWeights::AllZero);
        }
        Ok(())
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self::REFINED
    }
}

/// Why weights are refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InvalidWeights {
    /// A weight is negative or not a finite number.
    NotANumber {
        /// Whose weight.
        method: Method,
        /// The weight.
        weight: f32,
    },
    /// No method counts.
    AllZero,
}

impl fmt::Display for InvalidWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber { method, weight } => {
                write!(f, "the weight of {method} is {weight}; use a number of 0 or more")
            }
            Self::AllZero => f.write_str("all weights are 0; give at least one method more"),
        }
    }
}

impl std::error::Error for InvalidWeights {}

/// How lists become one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fusion {
    /// The weighted sum of scores, each list brought to 0..1.
    #[default]
    Scores,
    /// Reciprocal rank fusion, weighted: `weight * (k + 1) / (k + rank)`, so that the first of a
    /// list gets its whole weight.
    Ranks {
        /// Greater values let lower ranks count more; 60 is [`Fusion::RANKS`].
        k: u32,
    },
}

impl Fusion {
    /// Reciprocal rank fusion with the usual k of 60.
    pub const RANKS: Self = Self::Ranks { k: 60 };
}

/// A document in the fused list, and why it stands there.
#[derive(Clone, Debug, PartialEq)]
pub struct FusedHit {
    /// The document.
    pub number: DocNumber,
    /// The sum of the contributions, 0 to 1.
    pub score: f32,
    /// What each method that found it says, in the order of [`Method::ALL`].
    pub contributions: Vec<Contribution>,
}

impl FusedHit {
    /// The passage named by the method that contributes most among those that name one.
    pub fn passage(&self) -> Option<(Method, Range<u32>)> {
        let named = self.contributions.iter().filter(|part| part.passage.is_some());
        // `max_by` takes the last of equals; reversed, the first method wins.
        let best = named.rev().max_by(|a, b| a.contribution.total_cmp(&b.contribution))?;
        Some((best.method, best.passage.clone()?))
    }
}

/// What one method adds to the score of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The method.
    pub method: Method,
    /// The place in the method's list, from 1.
    pub rank: u32,
    /// The method's own score.
    pub score: f32,
    /// That score, or its rank, brought to 0..1.
    pub normalised: f32,
    /// The weight of the method among those that answered; they sum to 1.
    pub weight: f32,
    /// `normalised * weight`.
    pub contribution: f32,
    /// The passage that the method names.
    pub passage: Option<Range<u32>>,
}

/// Fuses the answers of the methods that answered; at most `limit` hits, best first, equal scores in
/// order of number. The order of `answers` does not matter; a method named twice counts once.
///
/// Weights are shared out among the methods present, so an answer without `semantic` ranks by the
/// others alone. When all present have weight 0, they count alike.
pub fn fuse(
    answers: &[(Method, &MethodAnswer)],
    weights: &Weights,
    fusion: Fusion,
    limit: usize,
) -> Vec<FusedHit> {
    let present: BTreeMap<Method, &MethodAnswer> = answers.iter().copied().collect();
    let shares = shares(present.keys().copied(), weights);
    let mut hits: BTreeMap<DocNumber, FusedHit> = BTreeMap::new();
    for ((&method, answer), weight) in present.iter().zip(shares) {
        if weight == 0.0 {
            continue;
        }
        let normalised = normalise(answer, fusion);
        for (at, (hit, normalised)) in answer.hits.iter().zip(normalised).enumerate() {
            let contribution = Contribution {
                method,
                rank: at as u32 + 1,
                score: hit.score,
                normalised,
                weight,
                contribution: normalised * weight,
                passage: hit.passage.clone(),
            };
            let fused = hits.entry(hit.number).or_insert_with(|| FusedHit {
                number: hit.number,
                score: 0.0,
                contributions: Vec::new(),
            });
            let is_first = fused.contributions.last().is_none_or(|last| last.method != method);
            if is_first {
                fused.score += contribution.contribution;
                fused.contributions.push(contribution);
            }
        }
    }
    let mut fused: Vec<FusedHit> = hits.into_values().collect();
    fused.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.number.cmp(&b.number)));
    fused.truncate(limit);
    fused
}

fn shares(present: impl Iterator<Item = Method>, weights: &Weights) -> Vec<f32> {
    let weights: Vec<f32> = present
        .map(|method| weights.of(method))
        .map(|weight| if weight.is_finite() { weight.max(0.0) } else { 0.0 })
        .collect();
    let sum: f32 = weights.iter().sum();
    if sum > 0.0 && sum.is_finite() {
        weights.iter().map(|weight| weight / sum).collect()
    } else {
        vec![1.0 / weights.len().max(1) as f32; weights.len()]
    }
}

/// Every score of the list as 0..1. A list of one score, however long, is all 1.
fn normalise(answer: &MethodAnswer, fusion: Fusion) -> Vec<f32> {
    if let Fusion::Ranks { k } = fusion {
        let k = k as f32;
        return (1..=answer.hits.len()).map(|rank| (k + 1.0) / (k + rank as f32)).collect();
    }
    let finite = |score: f32| if score.is_finite() { score } else { 0.0 };
    let scores: Vec<f32> = answer.hits.iter().map(|hit| finite(hit.score)).collect();
    let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // In 64 bits, as the distance of two 32-bit scores may be beyond 32 bits.
    let span = f64::from(greatest) - f64::from(least);
    let part = |score: f32| ((f64::from(score) - f64::from(least)) / span) as f32;
    scores.iter().map(|&score| if span > 0.0 { part(score) } else { 1.0 }).collect()
}

/// One judged query for [`tune`].
#[derive(Clone, Debug, Default)]
pub struct TuneQuery {
    /// What each method answered, to [`DEPTH`] or deeper.
    pub answers: Vec<(Method, MethodAnswer)>,
    /// The grades of the judged documents; above 0 is relevant.
    pub judgements: BTreeMap<DocNumber, f64>,
}

/// What [`tune`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// The weights to use.
    pub weights: Weights,
    /// How many queries had a relevant document and were used.
    pub queries: usize,
    /// nDCG@10 of the weights to start from.
    pub before: Interval,
    /// nDCG@10 of [`Tuned::weights`] on the queries they were chosen by: an optimistic figure.
    pub after: Interval,
    /// nDCG@10 of weights chosen by four fifths of the queries, on the other fifth: an honest one.
    pub held_out: Interval,
    /// What choosing weights gains over `start` on queries that were held out. An interval that
    /// holds 0 is noise: keep the weights you have.
    pub gain: Interval,
}

/// The steps of the grid: fine enough, as differences of 0.05 in a weight are within noise.
const GRID_STEPS: usize = 20;
/// The parts that queries are dealt into for validation.
const FOLDS: usize = 5;
/// Below this many judged queries, weights would follow single queries.
pub const TUNE_QUERIES_MIN: usize = 10;
const NDCG_AT: usize = 10;

/// Finds weights for [`Fusion::Scores`] by judged queries; `None` for fewer than
/// [`TUNE_QUERIES_MIN`] with a relevant document.
///
/// All weights on a grid over the methods present are tried. Among those not worse than the best by
/// more than the standard error of the difference, the ones nearest to `start` win, so that noise
/// does not move weights. Queries are dealt into five parts by their order: no randomness.
pub fn tune(queries: &[TuneQuery], start: &Weights) -> Option<Tuned> {
    let prepared: Vec<Prepared> = queries.iter().filter_map(Prepared::new).collect();
    if prepared.len() < TUNE_QUERIES_MIN {
        return None;
    }
    let present = Method::ALL.map(|method| prepared.iter().any(|query| query.has(method)));
    let mut grid = vec![vector(start, &present)];
    compositions(&present, 0, GRID_STEPS, &mut [0.0; 4], &mut grid);
    let table: Vec<Vec<f64>> = grid
        .iter()
        .map(|weights| prepared.iter().map(|query| query.ndcg(weights)).collect())
        .collect();
    let chosen = choose(&grid, &table, &|_| true);
    let mut held_out = vec![0.0; prepared.len()];
    for fold in 0..FOLDS {
        let chosen = choose(&grid, &table, &|query| query % FOLDS != fold);
        for query in (fold..prepared.len()).step_by(FOLDS) {
            held_out[query] = table[chosen][query];
        }
    }
    let gains: Vec<f64> =
        held_out.iter().zip(&table[0]).map(|(after, before)| after - before).collect();
    let mut weights = Weights { bm25: 0.0, tantivy: 0.0, native: 0.0, semantic: 0.0 };
    for (at, method) in Method::ALL.into_iter().enumerate() {
        weights = weights.with(method, grid[chosen][at]);
    }
    Some(Tuned {
        weights,
        queries: prepared.len(),
        before: Interval::of(&table[0]),
        after: Interval::of(&table[chosen]),
        held_out: Interval::of(&held_out),
        gain: Interval::of(&gains),
    })
}

/// A query as one row of normalised scores for each document.
struct Prepared {
    rows: Vec<(DocNumber, [f32; 4])>,
    present: [bool; 4],
    judgements: BTreeMap<DocNumber, f64>,
}

impl Prepared {
    fn new(query: &TuneQuery) -> Option<Self> {
        if !query.judgements.values().any(|&grade| grade > 0.0) {
            return None;
        }
        let mut rows: BTreeMap<DocNumber, [f32; 4]> = BTreeMap::new();
        let mut present = [false; 4];
        for (method, answer) in &query.answers {
            let at = place(*method);
            present[at] = true;
            for (hit, score) in answer.hits.iter().zip(normalise(answer, Fusion::Scores)) {
                rows.entry(hit.number).or_default()[at] = score;
            }
        }
        let judgements = query.judgements.clone();
        Some(Self { rows: rows.into_iter().collect(), present, judgements })
    }

    fn has(&self, method: Method) -> bool {
        self.present[place(method)]
    }

    fn ndcg(&self, weights: &[f32; 4]) -> f64 {
        // Shares among the methods present scale all scores of a query alike: no need here.
        let score = |row: &[f32; 4]| -> f32 { row.iter().zip(weights).map(|(s, w)| s * w).sum() };
        let mut ranked: Vec<(f32, DocNumber)> =
            self.rows.iter().map(|(number, row)| (score(row), *number)).collect();
        let better =
            |a: &(f32, DocNumber), b: &(f32, DocNumber)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if ranked.len() > NDCG_AT {
            ranked.select_nth_unstable_by(NDCG_AT, better);
            ranked.truncate(NDCG_AT);
        }
        ranked.sort_by(better);
        Judged::new(ranked.iter().map(|(_, number)| number), &self.judgements).ndcg(NDCG_AT)
    }
}

fn place(method: Method) -> usize {
    match method {
        Method::Bm25 => 0,
        Method::Tantivy => 1,
        Method::Native => 2,
        Method::Semantic => 3,
    }
}

/// The weights of the methods present, summing to 1.
fn vector(weights: &Weights, present: &[bool; 4]) -> [f32; 4] {
    let methods = || Method::ALL.into_iter().filter(|&method| present[place(method)]);
    let mut vector = [0.0; 4];
    for (method, share) in methods().zip(shares(methods(), weights)) {
        vector[place(method)] = share;
    }
    vector
}

/// All ways to share `left` steps out among the methods present from `at` on.
fn compositions(
    present: &[bool; 4],
    at: usize,
    left: usize,
    weights: &mut [f32; 4],
    grid: &mut Vec<[f32; 4]>,
) {
    let Some(at) = (at..4).find(|&at| present[at]) else {
        if left == 0 {
            grid.push(*weights);
        }
        return;
    };
    let is_last = !present[at + 1..].contains(&true);
    for steps in if is_last { left..=left } else { 0..=left } {
        weights[at] = steps as f32 / GRID_STEPS as f32;
        compositions(present, at + 1, left - steps, weights, grid);
    }
    weights[at] = 0.0;
}

/// The grid point nearest to the first among those that are as good as the best, within noise.
fn choose(grid: &[[f32; 4]], table: &[Vec<f64>], uses: &dyn Fn(usize) -> bool) -> usize {
    let used = |row: &[f64]| -> Vec<f64> {
        row.iter().enumerate().filter(|&(query, _)| uses(query)).map(|(_, &value)| value).collect()
    };
    let rows: Vec<Vec<f64>> = table.iter().map(|row| used(row)).collect();
    let sums: Vec<f64> = rows.iter().map(|row| row.iter().sum()).collect();
    let best =
        (0..grid.len()).max_by(|&a, &b| sums[a].total_cmp(&sums[b]).then(b.cmp(&a))).unwrap_or(0);
    let is_as_good = |at: &usize| {
        let lost: Vec<f64> =
            rows[best].iter().zip(&rows[*at]).map(|(best, row)| best - row).collect();
        mean_and_error(&lost).is_none_or(|(mean, error)| mean <= error)
    };
    let distance =
        |at: usize| -> f32 { grid[at].iter().zip(&grid[0]).map(|(a, b)| (a - b).powi(2)).sum() };
    let near = (0..grid.len()).filter(is_as_good);
    near.min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b))).unwrap_or(best)
}
