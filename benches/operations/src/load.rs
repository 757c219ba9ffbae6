//! Searches at a steady rate that waits for no answer: latency counts from when a search was due.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::served::Corpus;

/// Threads that send: more than searches that can be under way within the request's timeout.
const THREADS: usize = 128;
/// The searches' own timeout.
const TIMEOUT_MS: u64 = 1_000;

/// Queries asked: none is asked twice, because answers and vectors of others are remembered, and need no
/// dependency.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// What became of the searches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    pub(crate) complete: u64,
    /// Answers of the full level of service.
    pub(crate) full: u64,
    pub(crate) failed: u64,
    took: Vec<Duration>,
}

impl Outcome {
    /// The quantile of the latencies in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len().max(1)) - 1;
        took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    }

    pub(crate) fn total(&self) -> u64 {
        self.answered + self.failed
    }
}

/// Asks for the health so often, one after the other; the longest time in milliseconds.
pub(crate) fn slowest_health(address: SocketAddr, times: u32) -> f64 {
    let agent = ureq::Agent::new_with_defaults();
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        let begun = Instant::now();
        let answer = agent.get(format!("http://{address}/health")).call();
        if answer.is_ok() || matches!(answer, Err(ureq::Error::StatusCode(503))) {
            slowest = slowest.max(begun.elapsed());
        } else {
            return f64::INFINITY;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    slowest.as_secs_f64() * 1e3
}

/// Sends searches for `lasting`; blocks until the last answer.
pub(crate) fn run(address: SocketAddr, rate: u64, lasting: Duration) -> Outcome {
    let total = (lasting.as_secs_f64() * rate as f64) as u64;
    let (next, outcome) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Outcome::default())));
    let begun = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (next, outcome) = (Arc::clone(&next), Arc::clone(&outcome));
            std::thread::spawn(move || {
                let agent = ureq::Agent::config_builder()
                    .timeout_global(Some(Duration::from_secs(10)))
                    .http_status_as_error(false)
                    .build()
                    .new_agent();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    let due = begun + Duration::from_secs_f64(number as f64 / rate as f64);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
                    let body = serde_json::json!({
                        "query": format!("{} {asked}", Corpus::Dense.query(asked)),
                        "timeout_ms": TIMEOUT_MS,
                        "lines": 0,
                    });
                    let answer = agent.post(format!("http://{address}/search")).send_json(&body);
                    let json: Result<serde_json::Value, String> =
                        answer.map_err(|error| error.to_string()).and_then(|mut answer| {
                            let (status, body) = (answer.status(), answer.body_mut());
                            let text = body.read_to_string().unwrap_or_default();
                            let json = serde_json::from_str(&text).ok().filter(|_| status == 200);
                            json.ok_or_else(|| format!("{status}: {text}"))
                        });
                    let took = due.elapsed();
                    let mut outcome = outcome.lock().unwrap_or_else(|e| e.into_inner());
                    match json {
                        Ok(json) => {
                            outcome.answered += 1;
                            outcome.complete += u64::from(json["complete"] == true);
                            outcome.full += u64::from(json["level"] == "full");
                            outcome.took.push(took);
                        }
                        Err(error) => {
                            if outcome.failed < 3 {
                                eprintln!("search {number}: {error}");
                            }
                            outcome.failed += 1;
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
    let outcome = outcome.lock().unwrap_or_else(|e| e.into_inner());
    outcome.clone()
}
