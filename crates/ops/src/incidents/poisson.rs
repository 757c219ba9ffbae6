//! The factors between observed time and the bounds of a mean time.

/// The risk that one bound is wrong: one in twenty.
const RISK: f64 = 0.05;

/// By what the observed time is divided for a lower bound on the mean time between failures that
/// holds with 95 % confidence, after this many failures: the mean of the Poisson distribution that
/// shows so few failures or fewer once in twenty times (half the 95th percentile of chi-square with
/// `2 × failures + 2` degrees of freedom; NIST/SEMATECH e-Handbook, section 8.4.5.1).
#[must_use]
pub fn mtbf_lower_factor(failures: usize) -> f64 {
    mean_that_shows(failures, RISK)
}

/// The same for an upper bound: the mean that shows so many failures or more once in twenty times
/// (half the 5th percentile of chi-square with `2 × failures` degrees of freedom). Nothing without a
/// failure, because then no mean is too long.
#[must_use]
pub fn mtbf_upper_factor(failures: usize) -> Option<f64> {
    Some(mean_that_shows(failures.checked_sub(1)?, 1.0 - RISK))
}

/// The mean of the Poisson distribution that shows `failures` or less with this probability.
fn mean_that_shows(failures: usize, probability: f64) -> f64 {
    let failures = failures.min(1_000_000);
    // Both means lie within six deviations of the number of failures.
    let (mut low, mut high) = (0.0, failures as f64 + 6.0 * (failures as f64 + 3.0).sqrt());
    // Eighty halvings of so short an interval are beyond what a float can tell apart.
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if at_most(failures, middle) > probability { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// How likely a Poisson distribution of this mean shows `count` or less. Summed from the largest
/// term down, in logarithms, so that nothing under- or overflows.
fn at_most(count: usize, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 1.0;
    }
    // From here on the terms rise and then fall; what is left out is below a float's last digit.
    let largest = (mean.floor() as usize).min(count);
    let log_term = largest as f64 * mean.ln() - mean - ln_factorial(largest);
    let (mut term, mut sum) = (1.0, 0.0);
    for k in (0..=largest).rev() {
        sum += term;
        term *= k as f64 / mean;
        if term < sum * 1e-17 {
            break;
        }
    }
    let mut term = 1.0;
    for k in largest + 1..=count {
        term *= mean / k as f64;
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    (log_term + f64::ln(sum)).exp()
}

fn ln_factorial(n: usize) -> f64 {
    if n < 128 {
        return (2..=n).map(|k| (k as f64).ln()).sum();
    }
    // Stirling's series; from 128 on its error is below 1e-12.
    let n = n as f64;
    n * n.ln() - n + 0.5 * (2.0 * std::f64::consts::PI * n).ln() + 1.0 / (12.0 * n)
        - 1.0 / (360.0 * n * n * n)
}
