//! Leaky bucket: calls leave one after the other at an even pace, and each is told its wait.
//! `cargo run -p mainstay-resilience --example leaky_bucket`.

use mainstay_resilience::{Algorithm, ManualClock, RateConfig, RateLimiter};
use std::error::Error;
use std::io::{Write, stdout};
use std::time::Duration;

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let config = RateConfig::per_second(Algorithm::LeakyBucket, 4);
    let limiter = RateLimiter::with_clock("crawler", config, clock.clock())?;
    writeln!(out, "4 per second; six calls come at once and may wait for up to a second:")?;
    for call in 1..=6 {
        match limiter.reserve(1, Duration::from_secs(1)) {
            Ok(wait) => writeln!(out, "  call {call}: goes in {} ms", wait.as_millis())?,
            Err(refused) => writeln!(out, "  call {call}: {}", refused.explain())?,
        }
    }
    clock.advance(Duration::from_secs(2));
    let began = clock.now();
    writeln!(out, "two seconds later, blocking, three calls that wait for their turn:")?;
    for call in 1..=3 {
        limiter.acquire_blocking(1, Duration::from_secs(1))?;
        writeln!(out, "  call {call}: went after {:?}", clock.now().since(began))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
