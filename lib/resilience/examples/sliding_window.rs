//! Sliding window: at most the limit in any period, wherever it begins; beside a fixed window that
//! lets twice as many pass around its boundary.
//! `cargo run -p mainstay-resilience --example sliding_window`.

use mainstay_resilience::{Algorithm, ManualClock, RateConfig, RateLimiter};
use std::error::Error;
use std::io::{Write, stdout};
use std::time::Duration;

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let limiter = |algorithm| {
        RateLimiter::with_clock("quota", RateConfig::per_second(algorithm, 10), clock.clock())
    };
    let (sliding, fixed) = (limiter(Algorithm::SlidingWindow)?, limiter(Algorithm::FixedWindow)?);
    let burst = |limiter: &RateLimiter| (0..20).filter(|_| limiter.try_acquire().is_ok()).count();
    writeln!(out, "10 per second; 20 calls at 0.95 s and 20 more at 1.05 s:")?;
    clock.advance(Duration::from_millis(950));
    let before = (burst(&sliding), burst(&fixed));
    clock.advance(Duration::from_millis(100));
    let after = (burst(&sliding), burst(&fixed));
    writeln!(out, "  sliding window: {} and {} admitted", before.0, after.0)?;
    writeln!(out, "  fixed window:   {} and {} admitted", before.1, after.1)?;
    if let Err(refused) = sliding.try_acquire() {
        writeln!(out, "  {}", refused.explain())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
