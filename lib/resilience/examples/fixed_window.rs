//! Fixed window: a quota per period that starts anew with the next period; around the boundary
//! twice the quota may pass. `cargo run -p mainstay-resilience --example fixed_window`.

use mainstay_resilience::{Algorithm, ManualClock, RateConfig, RateLimiter};
use std::error::Error;
use std::io::{Write, stdout};
use std::time::Duration;

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let config = RateConfig::new(Algorithm::FixedWindow, 5, Duration::from_secs(60));
    let limiter = RateLimiter::with_clock("plan", config, clock.clock())?;
    clock.advance(Duration::from_secs(58));
    writeln!(out, "5 per minute; a call each second from the 58th second of a minute on:")?;
    for second in 58..68 {
        let left = limiter.available();
        match limiter.try_acquire() {
            Ok(()) => writeln!(out, "  second {}: admitted, {left} were left", second % 60)?,
            Err(refused) => writeln!(out, "  second {}: {}", second % 60, refused.explain())?,
        }
        clock.advance(Duration::from_secs(1));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
