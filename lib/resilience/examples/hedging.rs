//! The tail of latency with and without a hedge, in virtual time. Run with
//! `cargo run -p mainstay-resilience --example hedging --features testing`.

use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    Attempt, Bare, ErrorKind, Hedge, HedgeDelay, Pipeline, RetryBudget, Sleeper, Strategy,
};
use mainstay_resilience::{Clock, testing::VirtualSleeper};
use std::error::Error;
use std::io::{Write, stdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Latencies of a thousand calls, of which each twentieth attempt is slow; the 99th percentile.
fn tail<C: Strategy<(), ErrorKind>>(
    time: &VirtualTime,
    pipeline: &Pipeline<C, VirtualSleeper>,
) -> (Duration, u64) {
    let (clock, sleeper): (Clock, _) = (time.clock(), time.sleeper());
    let attempts = AtomicU64::new(0);
    let mut latencies: Vec<Duration> = (0..1_000)
        .map(|_| {
            let began = clock.now();
            let operation = |_: Attempt| {
                let slow = attempts.fetch_add(1, Ordering::Relaxed) % 20 == 7;
                let sleep = sleeper.sleep(Duration::from_millis(if slow { 800 } else { 20 }));
                async move {
                    sleep.await;
                    Ok(())
                }
            };
            let _ = time.block_on(pipeline.call(operation));
            clock.now().since(began)
        })
        .collect();
    latencies.sort_unstable();
    (latencies[990], attempts.into_inner())
}

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let time = VirtualTime::new();
    let plain: Pipeline<Bare, _> =
        Pipeline::builder().clock(time.clock()).sleeper(time.sleeper()).build()?;
    let (p99, attempts) = tail(&time, &plain);
    writeln!(out, "without a hedge:    p99 {:>3} ms, {attempts} attempts", p99.as_millis())?;
    let budget = RetryBudget::with_clock(Default::default(), time.clock())?;
    let hedge = Hedge::builder("reads")
        .delay(HedgeDelay::Fixed(Duration::from_millis(30)))
        .budget(&budget)
        .build()?;
    let hedged =
        Pipeline::builder().clock(time.clock()).sleeper(time.sleeper()).then(hedge).build()?;
    let (p99, attempts) = tail(&time, &hedged);
    writeln!(out, "hedged after 30 ms: p99 {:>3} ms, {attempts} attempts", p99.as_millis())?;
    writeln!(out, "{} hedges taken from the budget", budget.withdrawn())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
