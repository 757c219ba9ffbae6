//! What each rate limiter does with the same twelve calls. Run with
//! `cargo run -p mainstay-resilience --example rate_limits --features testing`.

use mainstay_resilience::{Algorithm, ManualClock, RateConfig, RateLimiter};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for algorithm in [
        Algorithm::TokenBucket,
        Algorithm::LeakyBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
    ] {
        let clock = ManualClock::new();
        let config = RateConfig::per_second(algorithm, 4);
        let limiter = RateLimiter::with_clock("demo", config, clock.clock())?;
        println!("{algorithm:?}, 4 per second, a call each 100 ms:");
        for call in 0..12 {
            match limiter.try_acquire() {
                Ok(()) => println!("  {:>4} ms  admitted", call * 100),
                Err(refused) => println!("  {:>4} ms  {}", call * 100, refused.explain()),
            }
            clock.advance(Duration::from_millis(100));
        }
        let waits: Vec<String> = (0..3)
            .map(|_| match limiter.reserve(1, Duration::from_secs(2)) {
                Ok(wait) => format!("wait {} ms", wait.as_millis()),
                Err(refused) => format!("refused, {:?}", refused.retry_after()),
            })
            .collect();
        println!("  reserve: {}", waits.join(", "));
    }
    Ok(())
}
