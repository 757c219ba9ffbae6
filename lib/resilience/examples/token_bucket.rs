//! Token bucket: saves up to its burst, then follows the rate; requests cost what they say, and the
//! limit changes while running. `cargo run -p mainstay-resilience --example token_bucket`.

use mainstay_resilience::{Algorithm, ManualClock, RateConfig, RateLimiter};
use std::error::Error;
use std::io::{Write, stdout};
use std::time::Duration;

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let config = RateConfig::per_second(Algorithm::TokenBucket, 2).with_burst(4);
    let limiter = RateLimiter::with_clock("searches", config, clock.clock())?;
    writeln!(out, "2 per second, up to 4 saved; a call each 200 ms:")?;
    for call in 0..10 {
        match limiter.try_acquire() {
            Ok(()) => writeln!(out, "  {:>4} ms  admitted", call * 200)?,
            Err(refused) => writeln!(out, "  {:>4} ms  {}", call * 200, refused.explain())?,
        }
        clock.advance(Duration::from_millis(200));
    }
    clock.advance(Duration::from_secs(10));
    writeln!(out, "after 10 s of rest {} are saved", limiter.available())?;
    writeln!(out, "a request that costs 3: {:?}", limiter.try_acquire_cost(3))?;
    if let Err(refused) = limiter.try_acquire_cost(9) {
        writeln!(out, "one that costs 9: {refused}")?;
    }
    limiter.reconfigure(RateConfig::per_second(Algorithm::TokenBucket, 20).with_burst(40))?;
    writeln!(out, "at 20 per second, burst 40, {} are there at once", limiter.available())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
