//! A queue with one worker: priorities, turns between callers, deadlines and a full queue.
//! `cargo run -p mainstay-resilience --example queue`.

use mainstay_resilience::{Context, Deadline, ManualClock, Priority, QueueConfig, WorkQueue};
use std::error::Error;
use std::io::{Write, stdout};
use std::sync::mpsc;
use std::time::Duration;

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let mut config = QueueConfig::default();
    (config.workers, config.capacity) = (1, 9);
    let (open, gate) = mpsc::channel::<()>();
    let (done, order) = mpsc::channel::<&str>();
    let gate = std::sync::Mutex::new(gate);
    // The worker waits at the gate once, so that everything else is queued behind the first job.
    let work = move |job: &'static str| {
        if job == "first" {
            let _ = gate.lock().map(|gate| gate.recv());
        }
        let _ = done.send(job);
    };
    let (queue, workers) = WorkQueue::start("jobs", config, clock.clock(), work)?;
    let first = queue.submit("first", Priority::Normal)?;
    while queue.pressure().depth > 0 {
        std::thread::yield_now();
    }
    let by = |caller: &str| Context::default().caller(caller);
    let soon = Context::from(Deadline::after(&clock.clock(), Duration::from_millis(10)));
    let mut handles = vec![first];
    for (job, context) in [
        ("a1", by("a")),
        ("a2", by("a")),
        ("a3", by("a")),
        ("b1", by("b")),
        ("urgent", Priority::Critical.into()),
        ("too late", soon),
        ("reindex", Priority::Background.into()),
    ] {
        handles.push(queue.submit(job, context)?);
    }
    let pressure = queue.pressure();
    writeln!(out, "{} of {} places taken", pressure.depth, pressure.capacity)?;
    if let Err(refused) = queue.submit("a4", by("a")) {
        writeln!(out, "a4: {refused}")?;
    }
    let mut more: Vec<_> = (0..2).filter_map(|_| queue.submit("more", by("c")).ok()).collect();
    if let Err(refused) = queue.submit("one too many", Priority::Critical) {
        writeln!(out, "one too many: {refused}")?;
    }
    clock.advance(Duration::from_millis(20));
    open.send(())?;
    handles.append(&mut more);
    for handle in handles {
        if let Err(refused) = handle.wait() {
            writeln!(out, "not done: {refused}")?;
        }
    }
    let order: Vec<&str> = order.try_iter().collect();
    writeln!(out, "done in this order: {}", order.join(", "))?;
    drop(queue);
    workers.join();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
