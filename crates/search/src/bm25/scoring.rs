//! BM25F: field weights, lengths, and the score of one term in one document.
//!
//! The form is the simple extension of BM25 to weighted fields (Robertson, Zaragoza and Taylor, "Simple
//! BM25 Extension to Multiple Weighted Fields", CIKM 2004): occurrences are added up over the fields,
//! each weighted, *before* the saturation, so that a word in title and body is not counted as two
//! independent pieces of evidence. With whole weights the sum is a whole number, so one frequency per
//! posting holds all that the exact score needs:
//!
//! ```text
//! score(q, d) = Σ idf(t) · tf / (tf + k1 · (1 − b + b · length(d) / average length))
//! idf(t)      = ln(1 + (N − df + 0.5) / (df + 0.5))
//! ```
//!
//! Scores are summed as whole numbers, scaled for each query so that its greatest possible score just
//! fits. Sums of whole numbers do not depend on the order of adding, so the pruned search answers
//! exactly what an exhaustive one would, ties included, however the segments are cut.

/// How quickly further occurrences count less; the default of Lucene and of the reference baselines.
pub const K1: f32 = 1.2;
/// How far the length of a document counts; the default of Lucene and of the reference baselines.
pub const B: f32 = 0.75;

/// What one field contributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// How many occurrences in the body one occurrence here is worth.
    pub weight: u32,
    /// How many words of the body one word here is worth in the length of the document: 0 where a
    /// longer field is not a sign of a document about more things.
    pub length_share: u32,
}

/// Titles and tags: twice the body, as is common where nothing is tuned.
pub const TITLE: Field = Field { weight: 2, length_share: 1 };
/// Names that a source file defines, on top of their occurrence in the body: the place of definition
/// comes before the places of use.
pub const SYMBOLS: Field = Field { weight: 2, length_share: 0 };
/// Parts of the path. Depth in a tree says nothing about the text, so it does not count as length.
pub const PATH: Field = Field { weight: 1, length_share: 0 };
/// The text itself: the unit of the other weights.
pub const BODY: Field = Field { weight: 1, length_share: 1 };

/// The greatest sum of scores of one query, in whole units: below the 24 bits that a 32-bit float holds
/// exactly, with one unit to spare for each of the [`super::QUERY_TERMS_MAX`] terms.
pub(super) const SCORE_SUM_MAX: f32 = (1 << 22) as f32;

/// A length in one byte: exact below 32, then in steps of a sixteenth (an error of at most 3 %), up to
/// half a million words.
pub(super) fn length_code(length: u32) -> u8 {
    if length < 32 {
        return length as u8;
    }
    let exponent = length.ilog2();
    let mantissa = length >> (exponent - 4) & 15;
    (32 + (exponent - 5) * 16 + mantissa).min(255) as u8
}

/// The length that a code stands for: the middle of its step.
pub(super) fn length_of_code(code: u8) -> u32 {
    let code = u32::from(code);
    if code < 32 {
        return code;
    }
    let shift = (code - 32) / 16 + 1;
    (((code - 32) % 16 + 16) << shift) + (1 << shift) / 2
}

/// For every length code, what a frequency is multiplied with: `1 / (k1 · (1 − b + b · length / average))`.
pub(super) struct Norms([f32; 256]);

impl Norms {
    pub(super) fn new(average_length: f32) -> Self {
        let average = average_length.max(1.0);
        let mut norms = [0.0; 256];
        for (code, norm) in (0..=255u8).zip(norms.iter_mut()) {
            *norm = 1.0 / damping(length_of_code(code), average);
        }
        Self(norms)
    }

    /// The score of a term, in whole units: at least 1, at most `weight` + 1, and never falling with a
    /// rising frequency or a falling length, in spite of rounding: each step below keeps the order
    /// (the same arrangement as in Lucene's `BM25Similarity`).
    #[inline(always)]
    pub(super) fn score(&self, weight: f32, frequency: u32, code: u8) -> u32 {
        let scaled = 1.0 + frequency as f32 * self.0[code as usize];
        (weight - weight / scaled) as i32 as u32 + 1
    }

    /// `tf / (tf + K)`: the score at a weight of one.
    pub(super) fn saturation(&self, frequency: u32, code: u8) -> f32 {
        1.0 - 1.0 / (1.0 + frequency as f32 * self.0[code as usize])
    }
}

/// The rarity of a term that `holding` of `documents` hold; positive.
pub(super) fn idf(documents: u64, holding: u64) -> f32 {
    let (documents, holding) = (documents.max(holding) as f64, holding as f64);
    (1.0 + (documents - holding + 0.5) / (holding + 0.5)).ln() as f32
}

/// The posting with the greatest saturation in a block: all that a bound needs, in two bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    /// Its frequency; 0 stands for any above 255.
    pub(super) frequency: u8,
    /// The code of its document's length.
    pub(super) code: u8,
}

impl Peak {
    pub(super) fn new(frequency: u32, code: u8) -> Self {
        Self { frequency: u8::try_from(frequency).unwrap_or(0), code }
    }
}

/// How peaks of one segment become bounds of scores.
///
/// A peak was chosen by the average length `then`, when the segment was written. While the average has
/// not changed, its score is the bound. When the average has grown by some factor since, no saturation
/// has grown by more than that factor; when it has fallen, none has grown.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    norms: &'a Norms,
    then: f32,
    growth: f32,
    is_same: bool,
}

impl<'a> Bounds<'a> {
    /// Bounds for scores by `norms`, which were made with the average length `now`.
    pub(super) fn new(norms: &'a Norms, now: f32, then: f32) -> Self {
        let (now, then) = (now.max(1.0), then.max(1.0));
        Self { norms, then, growth: (now / then).max(1.0), is_same: now == then }
    }

    /// The greatest score that a block with this peak can hold.
    #[inline]
    pub(super) fn bound(&self, weight: f32, peak: Peak) -> u32 {
        if peak.frequency == 0 {
            return weight as i32 as u32 + 2;
        }
        if self.is_same {
            return self.norms.score(weight, u32::from(peak.frequency), peak.code);
        }
        let frequency = f32::from(peak.frequency);
        let saturation = frequency / (frequency + damping(length_of_code(peak.code), self.then));
        let saturation = (saturation * self.growth * (1.0 + 1e-5)).min(1.0);
        (weight * saturation) as i32 as u32 + 2
    }
}

/// `k1 · (1 − b + b · length / average)`.
fn damping(length: u32, average: f32) -> f32 {
    K1 * (1.0 - B + B * length as f32 / average)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_keep_their_order_and_lie_within_three_percent() {
        let mut last = 0;
        for length in 0..500_000u32 {
            let code = length_code(length);
            assert!(code >= last);
            let back = length_of_code(code);
            assert!((f64::from(back) - f64::from(length)).abs() <= 0.032 * f64::from(length));
            assert_eq!(length_code(back), code);
            last = code;
        }
        assert_eq!(length_code(u32::MAX), 255);
    }

    #[test]
    fn the_score_is_the_formula() {
        let norms = Norms::new(20.0);
        let (weight, frequency, length) = (100_000.0f32, 3.0f32, 24.0f32);
        let expected = weight * frequency / (frequency + K1 * (1.0 - B + B * length / 20.0));
        assert!((norms.score(weight, 3, 24) as f32 - expected).abs() < 2.0);
    }

    proptest! {
        #[test]
        fn no_score_passes_the_bound_of_its_block_when_the_average_moves(
            weight in 1.0f32..4e6, frequency in 1u32..400, code: u8, other in 1u32..400, other_code: u8,
            then in 1.0f32..5000.0, now in prop_oneof![1.0f32..5000.0, Just(1000.0f32)],
        ) {
            let (before, norms) = (Norms::new(then), Norms::new(now));
            let bounds = Bounds::new(&norms, now, then);
            let best = if before.saturation(frequency, code) >= before.saturation(other, other_code) {
                Peak::new(frequency, code)
            } else {
                Peak::new(other, other_code)
            };
            let bound = bounds.bound(weight, best);
            prop_assert!(norms.score(weight, frequency, code) <= bound);
            prop_assert!(norms.score(weight, other, other_code) <= bound);
        }

        #[test]
        fn scores_rise_with_frequency_and_fall_with_length(
            weight in 1.0f32..4e6, frequency in 1u32..100_000, code in 0u8..255, average in 1.0f32..5000.0,
        ) {
            let norms = Norms::new(average);
            prop_assert!(norms.score(weight, frequency + 1, code) >= norms.score(weight, frequency, code));
            prop_assert!(norms.score(weight, frequency, code) >= norms.score(weight, frequency, code + 1));
        }
    }
}
