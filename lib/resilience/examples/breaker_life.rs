//! A breaker from closed to open, half-open and back. Run with
//! `cargo run -p mainstay-resilience --example breaker_life`.

use mainstay_resilience::{CircuitBreaker, Event, ManualClock, OpenFor, Probes};
use std::error::Error;
use std::io::{Write, stdout};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&changes);
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("embedder")
        .open_for(OpenFor::growing(Duration::from_secs(5), Duration::from_secs(60)))
        .half_open(Probes::new(3).close_at(0.6))
        .ramp(0.25, Duration::from_secs(4))
        .clock(clock.clock())
        .observer(Arc::new(move |event: &Event<'_>| {
            if let Event::BreakerChanged { from, to, cause, error_rate, .. } = event {
                let change = format!("{from} → {to} ({cause}, error rate {error_rate:.2})");
                heard.lock().into_iter().for_each(|mut heard| heard.push(change.clone()));
            }
        }))
        .build()?;
    for second in 0..40 {
        let healthy = !(3..14).contains(&second);
        let (mut ok, mut failed, mut refused) = (0, 0, 0);
        for _ in 0..4 {
            match breaker.try_acquire() {
                Ok(permit) if healthy => {
                    permit.success();
                    ok += 1;
                }
                Ok(permit) => {
                    permit.failure();
                    failed += 1;
                }
                Err(_) => refused += 1,
            }
        }
        for change in changes.lock().map_err(|_| "poisoned")?.drain(..) {
            writeln!(out, "        {change}")?;
        }
        let state = breaker.state();
        writeln!(out, "{second:>3} s  {ok} ok, {failed} failed, {refused} refused, {state}")?;
        clock.advance(Duration::from_secs(1));
    }
    breaker.isolate();
    if let Err(refused) = breaker.try_acquire() {
        writeln!(out, "by hand: {refused}")?;
    }
    breaker.reset();
    writeln!(out, "{:#?}", breaker.snapshot())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
