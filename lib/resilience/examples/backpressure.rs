//! A producer that is three times faster than its worker sees the pressure and slows down; one
//! that does not look is refused. In virtual time.
//! `cargo run -p mainstay-resilience --example backpressure --features testing`.

use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{Bulkhead, BulkheadConfig, Priority, QueueOrder, Sleeper};
use std::error::Error;
use std::io::{Write, stdout};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const WORK: Duration = Duration::from_millis(30);
const PACE: Duration = Duration::from_millis(10);

/// Sixty jobs through a bulkhead of one; how many were done, refused, and how long it took.
fn produce(looks: bool) -> Result<(u32, u32, Duration), Box<dyn Error>> {
    let time = VirtualTime::new();
    let config = BulkheadConfig::new(1).with_queue(10, Duration::from_secs(1), QueueOrder::Fifo);
    let bulkhead = &Bulkhead::new("indexer", config)?;
    let (done, sleeper, began) = (&AtomicU32::new(0), &time.sleeper(), time.clock().now());
    let submitted = &std::sync::Mutex::new(std::collections::VecDeque::new());
    let producer = async {
        for job in 0..60u32 {
            while looks && bulkhead.waiting() > 5 {
                sleeper.sleep(PACE).await;
            }
            submitted.lock().map_err(|_| "poisoned")?.push_back(job);
            sleeper.sleep(PACE).await;
        }
        Ok::<(), &str>(())
    };
    // Each job waits for its slot in a task of its own; tasks start as the producer submits.
    let jobs = (0..60u32).map(|job| async move {
        while submitted.lock().map_or(true, |jobs| !jobs.contains(&job)) {
            sleeper.sleep(Duration::from_millis(1)).await;
        }
        if let Ok(permit) = bulkhead.acquire(sleeper, Priority::Normal).await {
            sleeper.sleep(WORK).await;
            drop(permit);
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = vec![Box::pin(async {
        let _ = producer.await;
    })];
    tasks.extend(jobs.map(|job| Box::pin(job) as std::pin::Pin<Box<dyn Future<Output = ()>>>));
    time.run_all(tasks);
    let done = done.load(Ordering::Relaxed);
    Ok((done, bulkhead.refused() as u32, time.clock().now().since(began)))
}

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    writeln!(out, "60 jobs of 30 ms for one worker, one submitted each 10 ms, 10 may wait:")?;
    for (who, looks) in [("blind producer", false), ("producer that looks", true)] {
        let (done, refused, took) = produce(looks)?;
        writeln!(out, "  {who}: {done} done, {refused} refused, {:.1} s", took.as_secs_f64())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
