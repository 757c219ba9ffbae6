//! What stands in front of a handler costs: admission, keys, levels, metrics, traces, correlation.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use tower::ServiceExt;

use crate::served::{self, query};

/// Rounds of each kind, taken in turn, so that what the machine does otherwise meets both alike.
const ROUNDS: usize = 15;

/// Measures and prints a table.
pub(crate) fn run(seconds: u64) -> Result<(), String> {
    let served = served::start("static", &[])?;
    let [bare, layered] = served.routers.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let slice = Duration::from_secs_f64(seconds as f64 / (2 * ROUNDS) as f64);
    let list = |_: u64| {
        Request::get("/collections/default/documents/1").body(Body::empty()).unwrap_or_default()
    };
    let search = |number: u64| {
        let body = serde_json::json!({"query": query(number), "lines": 0}).to_string();
        Request::post("/search")
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap_or_default()
    };
    println!("| what | without µs | with µs | difference µs (quartiles) | difference |");
    println!("|---|---|---|---|---|");
    for (name, make) in [
        ("reading a document", &list as &(dyn Fn(u64) -> Request<Body> + Sync)),
        ("a hybrid search", &search),
    ] {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS as u64 {
            let seed = round * 1_000_000;
            let without = runtime.block_on(mean_us(&bare, make, slice, seed));
            let with = runtime.block_on(mean_us(&layered, make, slice, seed));
            rounds.push((without, with, with - without));
        }
        let median = |of: &dyn Fn(&(f64, f64, f64)) -> f64, share: f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[((all.len() - 1) as f64 * share) as usize]
        };
        let without = median(&|round| round.0, 0.5);
        let difference = median(&|round| round.2, 0.5);
        println!(
            "| {name} | {without:.1} | {:.1} | {difference:.1} ({:.1} to {:.1}) | {:.1} % |",
            median(&|round| round.1, 0.5),
            median(&|round| round.2, 0.25),
            median(&|round| round.2, 0.75),
            100.0 * difference / without,
        );
    }
    Ok(())
}

/// Requests one after the other for this long; the mean of one in microseconds.
async fn mean_us(
    router: &Router,
    make: &(dyn Fn(u64) -> Request<Body> + Sync),
    lasting: Duration,
    seed: u64,
) -> f64 {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < lasting {
        let answer = router.clone().oneshot(make(seed + count)).await;
        assert!(answer.is_ok_and(|answer| answer.status() == 200), "every request is answered");
        count += 1;
    }
    begun.elapsed().as_secs_f64() * 1e6 / count.max(1) as f64
}
