//! The failure rate that is normal here, learned slice by slice.
//!
//! Source: exponentially weighted mean and variance, West, "Updating mean and variance estimates"
//! (CACM 22:9, 1979), with weight `2 / (memory + 1)`.

use super::config::Adaptive;

/// Mean and variance of the failure rate per slice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Baseline {
    mean: f64,
    variance: f64,
    slices: u32,
}

impl Baseline {
    /// Takes in the failure rate of one slice that had calls.
    pub(crate) fn learn(&mut self, config: &Adaptive, rate: f64) {
        self.slices = self.slices.saturating_add(1);
        if self.slices == 1 {
            self.mean = rate;
            return;
        }
        let weight = 2.0 / (f64::from(config.memory_slices) + 1.0);
        let distance = rate - self.mean;
        self.mean += weight * distance;
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance);
    }

    /// The threshold, once enough was learned.
    pub(crate) fn threshold(&self, config: &Adaptive) -> Option<f64> {
        (self.slices >= config.memory_slices).then(|| {
            (self.mean + config.deviations * self.variance.sqrt())
                .clamp(config.floor, config.ceiling)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b8_the_threshold_follows_history_between_floor_and_ceiling() {
        let config = Adaptive::default();
        let mut quiet = Baseline::default();
        let mut noisy = Baseline::default();
        for i in 0..200 {
            quiet.learn(&config, 0.0);
            noisy.learn(&config, if i % 2 == 0 { 0.2 } else { 0.3 });
            assert_eq!(quiet.threshold(&config).is_some(), i + 1 >= 60);
        }
        assert_eq!(quiet.threshold(&config), Some(0.1), "the floor");
        let noisy = noisy.threshold(&config).expect("enough slices");
        assert!((0.3..0.5).contains(&noisy), "{noisy}");
    }
}
