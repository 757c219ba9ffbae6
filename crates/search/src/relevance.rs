//! How good a ranking is: [`Judged`] and its measures, and whether a difference is more than noise.
//!
//! Measures follow trec_eval: linear gain, a document is relevant when its grade is above 0, and a
//! document that nobody judged is not relevant. A query without relevant documents measures 0
//! everywhere; leave it out of a mean ([`Judged::has_relevant`]).

use std::collections::BTreeMap;

/// One ranking with the grades of its documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The grades of the ranked documents, best rank first.
    ranked: Vec<f64>,
    /// All grades above 0 of the query, highest first.
    relevant: Vec<f64>,
}

impl Judged {
    /// Looks up every ranked document. One that is named twice counts at its first rank only.
    pub fn new<'a, K: Ord + 'a>(
        ranked: impl IntoIterator<Item = &'a K>,
        judgements: &BTreeMap<K, f64>,
    ) -> Self {
        let mut seen = std::collections::BTreeSet::new();
        let ranked = ranked
            .into_iter()
            .filter(|&document| seen.insert(document))
            .map(|document| judgements.get(document).copied().unwrap_or(0.0).max(0.0))
            .collect();
        let mut relevant: Vec<f64> =
            judgements.values().copied().filter(|&grade| grade > 0.0).collect();
        relevant.sort_by(|a, b| b.total_cmp(a));
        Self { ranked, relevant }
    }

    /// Whether anything is relevant at all.
    pub fn has_relevant(&self) -> bool {
        !self.relevant.is_empty()
    }

    /// nDCG@k: the discounted gain of the first `k` by that of the best possible `k`, 0 to 1.
    pub fn ndcg(&self, k: usize) -> f64 {
        let ideal = discounted_gain(&self.relevant, k);
        if ideal == 0.0 { 0.0 } else { discounted_gain(&self.ranked, k) / ideal }
    }

    /// Recall@k: the share of the relevant documents that are among the first `k`.
    pub fn recall(&self, k: usize) -> f64 {
        if self.relevant.is_empty() {
            return 0.0;
        }
        let found = self.ranked.iter().take(k).filter(|&&grade| grade > 0.0).count();
        found as f64 / self.relevant.len() as f64
    }

    /// MRR@k of this query: one by the rank of the first relevant document, 0 when it is not among
    /// the first `k`.
    pub fn reciprocal_rank(&self, k: usize) -> f64 {
        let first = self.ranked.iter().take(k).position(|&grade| grade > 0.0);
        first.map_or(0.0, |at| 1.0 / (at + 1) as f64)
    }

    /// Average precision over the whole ranking: the mean over all relevant documents of the
    /// precision at their ranks, 0 for those that are missing.
    pub fn average_precision(&self) -> f64 {
        if self.relevant.is_empty() {
            return 0.0;
        }
        let mut found = 0;
        let mut sum = 0.0;
        for (at, &grade) in self.ranked.iter().enumerate() {
            if grade > 0.0 {
                found += 1;
                sum += f64::from(found) / (at + 1) as f64;
            }
        }
        sum / self.relevant.len() as f64
    }
}

fn discounted_gain(grades: &[f64], k: usize) -> f64 {
    let discounted = |(at, grade): (usize, &f64)| grade / ((at + 2) as f64).log2();
    grades.iter().take(k).enumerate().map(discounted).sum()
}

/// A mean over queries with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// The mean of `values` and the interval by Student's t; no width for fewer than two values.
    pub fn of(values: &[f64]) -> Self {
        let Some((mean, error)) = mean_and_error(values) else {
            let mean = values.first().copied().unwrap_or(0.0);
            return Self { mean, low: mean, high: mean };
        };
        let half = quantile_95((values.len() - 1) as f64) * error;
        Self { mean, low: mean - half, high: mean + half }
    }
}

/// The two-sided p of a paired t-test: how likely differences as large as these are, if the two
/// systems were equally good. 1 for fewer than two pairs or when all differences are 0.
///
/// # Panics
///
/// When the lists are not of one length.
pub fn paired_t_test(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "a paired test needs the same queries in both lists");
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    match mean_and_error(&differences) {
        None => 1.0,
        Some((mean, 0.0)) => f64::from(mean == 0.0),
        Some((mean, error)) => two_sided_p(mean / error, (differences.len() - 1) as f64),
    }
}

/// The mean and its standard error; `None` for fewer than two values.
pub(crate) fn mean_and_error(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (squares / (count - 1.0) / count).sqrt()))
}

/// P(|T| > t) of Student's distribution, by the regularised incomplete beta function.
fn two_sided_p(t: f64, freedom: f64) -> f64 {
    incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5)
}

/// The t beyond which 5 % lie on both sides together, by bisection.
fn quantile_95(freedom: f64) -> f64 {
    // 12.7 is the value at one degree of freedom, the largest there is.
    let (mut low, mut high) = (0.0, 13.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if two_sided_p(middle, freedom) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// I_x(a, b) by its continued fraction (Abramowitz and Stegun 26.5.8) with Lentz's method.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return f64::from(x >= 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b);
    let nonzero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..300 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-14 {
            break;
        }
    }
    front.exp() * fraction / a
}

/// ln Γ(x) for x > 0 by Stirling's series after shifting x above 8; error below 1e-12.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 8.0 {
        shift += x.ln();
        x += 1.0;
    }
    let square = x * x;
    let series = (1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square)
        / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}
