//! A producer that is faster than its workers slows down by the queue's pressure. Run with
//! `cargo run -p mainstay-resilience --example queue_and_backpressure`.

use mainstay_resilience::{Clock, Priority, QueueConfig, WorkQueue};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = QueueConfig::default();
    config.workers = 2;
    config.capacity = 20;
    let work = |job: u32| {
        std::thread::sleep(Duration::from_millis(5));
        job * job
    };
    let (queue, workers) = WorkQueue::start("squares", config, Clock::system(), work)?;
    let mut handles = Vec::new();
    for job in 0..60 {
        let pressure = queue.pressure();
        if pressure.level > 0.5 {
            println!("job {job}: level {:.2}, the producer waits", pressure.level);
            std::thread::sleep(Duration::from_millis(15));
        }
        let priority = if job % 10 == 0 { Priority::High } else { Priority::Normal };
        match queue.submit(job, priority) {
            Ok(handle) => handles.push(handle),
            Err(refused) => println!("job {job}: {refused}"),
        }
    }
    let sum: u32 = handles.into_iter().filter_map(|handle| handle.wait().ok()).sum();
    println!("sum of what was handled: {sum}");
    drop(queue);
    workers.join();
    Ok(())
}
