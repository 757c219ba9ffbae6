//! [`Calibration`]: brings scores of the instant space onto the scale of the refining space.
//!
//! While refinement goes on, some passages have only an instant score and compete with passages that
//! have a refined one. Passages that have both, in this very query, say how the two relate: the best
//! refined ones and an even sample of the others. The line is the least-squares prediction of the
//! refined score from the instant one, so a passage stands where it is expected to stand once it is
//! refined, and a high instant score that often disappoints counts for less.

/// Fewer pairs than this say too little.
const PAIRS_MIN: usize = 32;
/// A steeper line would rest on instant scores that hardly differ.
const SLOPE_MAX: f64 = 4.0;

/// A rising line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Calibration {
    slope: f64,
    intercept: f64,
}

impl Calibration {
    /// Both scores are cosines, and the instant model is made to imitate the refining one.
    const EQUAL: Self = Self { slope: 1.0, intercept: 0.0 };

    /// From (instant, refined) scores of the same passages.
    pub(crate) fn fit(pairs: &[(f32, f32)]) -> Self {
        if pairs.len() < PAIRS_MIN {
            return Self::EQUAL;
        }
        let count = pairs.len() as f64;
        let mean = |of: fn(&(f32, f32)) -> f32| {
            pairs.iter().map(|pair| f64::from(of(pair))).sum::<f64>() / count
        };
        let (x_mean, y_mean) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let (mut spread, mut together) = (0.0, 0.0);
        for &(x, y) in pairs {
            let x = f64::from(x) - x_mean;
            spread += x * x;
            together += x * (f64::from(y) - y_mean);
        }
        let slope = together / spread;
        if !(slope > 0.0 && slope <= SLOPE_MAX) {
            return Self::EQUAL;
        }
        Self { slope, intercept: y_mean - slope * x_mean }
    }

    /// The refined score to expect.
    pub(crate) fn refined(self, instant: f32) -> f32 {
        (f64::from(instant) * self.slope + self.intercept) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_the_pairs_is_found() {
        let pairs: Vec<_> = (0..40).map(|i| i as f32 / 40.0).map(|x| (x, x * 0.5 + 0.2)).collect();
        let calibration = Calibration::fit(&pairs);
        assert!((calibration.refined(0.9) - 0.65).abs() < 1e-5);
    }

    #[test]
    fn pairs_that_say_nothing_leave_scores_as_they_are() {
        let falling: Vec<_> = (0..40).map(|i| (i as f32, -i as f32)).collect();
        let standing = [(0.5, 0.5); 40];
        let infinite = [(f32::INFINITY, 0.5); 40];
        for pairs in [&falling[..], &standing, &infinite, &falling[..5], &[]] {
            assert_eq!(Calibration::fit(pairs), Calibration::EQUAL);
        }
    }
}
