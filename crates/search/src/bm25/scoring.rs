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
            let length = length_of_code(code) as f32;
            *norm = 1.0 / (K1 * (1.0 - B + B * length / average));
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

/// The steps in which impacts are kept.
const IMPACT_STEPS: f32 = 255.0;

/// The greatest saturation in a block, rounded up to a byte.
pub(super) fn impact_code(saturation: f32) -> u8 {
    (saturation * IMPACT_STEPS).ceil().clamp(1.0, IMPACT_STEPS) as u8
}

/// The greatest score that a block of impact `code` can hold. `ratio` is how much longer the average
/// document is now than when the segment was written, at least 1: with an average longer by some
/// factor, no saturation grows by more than that factor.
#[inline]
pub(super) fn bound(weight: f32, code: u8, ratio: f32) -> u32 {
    let saturation = (f32::from(code) / IMPACT_STEPS * ratio * (1.0 + 1e-6)).min(1.0);
    (weight * saturation) as i32 as u32 + 2
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
        fn no_score_passes_its_bound_when_the_average_moves(
            weight in 1.0f32..4e6, frequency in 1u32..1000, code: u8,
            then in 1.0f32..5000.0, now in 1.0f32..5000.0,
        ) {
            let impact = impact_code(Norms::new(then).saturation(frequency, code));
            let score = Norms::new(now).score(weight, frequency, code);
            prop_assert!(score <= bound(weight, impact, (now / then).max(1.0)));
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
