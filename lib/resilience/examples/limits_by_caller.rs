//! A limit for each caller, with a hard bound on callers: who is greedy meets his own limit, and who
//! makes up names meets the bound. `cargo run -p mainstay-resilience --example limits_by_caller`.

use mainstay_resilience::{
    Algorithm, KeyedConfig, KeyedRateLimiter, ManualClock, RateConfig, WhenFull,
};
use std::error::Error;
use std::io::{Write, stdout};
use std::time::Duration;

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let mut config = KeyedConfig::new(RateConfig::per_second(Algorithm::TokenBucket, 3));
    (config.keys_max, config.when_full) = (16, WhenFull::Refuse);
    let limiter = KeyedRateLimiter::with_clock("tenant", config, clock.clock())?;
    writeln!(out, "3 per second for each of at most 16 callers:")?;
    let admitted = |caller: &str, calls: u32| {
        (0..calls).filter(|_| limiter.try_acquire(caller, 1).is_ok()).count()
    };
    writeln!(out, "  greedy makes 10 calls, {} pass", admitted("greedy", 10))?;
    writeln!(out, "  modest makes 2 calls, {} pass", admitted("modest", 2))?;
    clock.advance(Duration::from_secs(1));
    writeln!(out, "  a second later greedy has {} again", limiter.available("greedy"))?;
    let made_up: usize = (0..1_000).map(|n| admitted(&format!("made up {n}"), 1)).sum();
    writeln!(out, "1000 callers that somebody made up: {} are remembered", limiter.keys())?;
    writeln!(out, "  the others are refused: {}", made_up < 16)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
