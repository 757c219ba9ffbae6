//! `mainstay load`: searches at a steady rate, whatever the answers do.
//!
//! Open loop: every request has its time, and its latency counts from that time, so that a server
//! that stalls is not spared the requests it held up (coordinated omission).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use mainstay_db::COLLECTION_DEFAULT;
use mainstay_server::problem::Problem;
use mainstay_server::search_json::SearchRequestJson;
use serde::{Deserialize, Serialize};

use crate::data;
use crate::failure::{FOUND_FAULT, Failure};
use crate::load_client::{Client, Target};
use crate::trust::Trust;

/// Send searches to a server at a steady rate and measure the answers
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The address of the server, such as http://127.0.0.1:8080
    #[arg(long, env = "MAINSTAY_URL", hide_env_values = true)]
    url: String,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Requests a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// For how long, such as 30s, 5m
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Queries, one a line: plain text, or JSON with a field `text` or `query`
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: PathBuf,
    /// The collection
    #[arg(long, short, default_value = COLLECTION_DEFAULT)]
    collection: String,
    /// Methods to ask; all when absent
    #[arg(long, short, value_delimiter = ',')]
    method: Vec<String>,
    /// Connections, and so requests on their way at a time
    #[arg(long, default_value_t = 32)]
    pub(crate) connections: usize,
    /// Measure a curve instead: first how many searches a second the server can answer, then
    /// these multiples of it, such as 0.5,1,2,3,5, each for --duration
    #[arg(long, value_delimiter = ',', value_name = "MULTIPLES")]
    pub(crate) curve: Vec<f64>,
    /// Draw the curve into this file
    #[arg(long, value_name = "FILE", requires = "curve")]
    pub(crate) svg: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The most requests of one run: bounds the latencies that are kept.
const REQUESTS_MAX: u64 = 20_000_000;

/// Codes of answers that turn a request away on purpose; any other error is a failure.
const REJECTIONS: [&str; 2] = ["rate_limited", "overloaded"];

/// What became of the requests of one run.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) ok: u64,
    pub(crate) complete: u64,
    degraded: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
    pub(crate) rate_per_s: f64,
    /// Of all requests.
    latency_ms: Latency,
    /// Of those that were answered and not rejected.
    pub(crate) answered_ms: Latency,
    pub(crate) errors: std::collections::BTreeMap<String, u64>,
}

#[derive(Default, Serialize)]
pub(crate) struct Latency {
    mean: f64,
    pub(crate) p50: f64,
    p90: f64,
    pub(crate) p99: f64,
    p999: f64,
    max: f64,
}

enum Outcome {
    Complete,
    Degraded,
    Rejected,
    Failed(String),
}

/// When requests are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// This many a second, each due at its time however late the answers are (an open loop); its
    /// latency counts from the time at which it was due.
    Steady(f64),
    /// Each when its connection has been answered (a closed loop), until the duration is over.
    AsAnswered,
}

/// Exit code 0 when every request was answered or deliberately rejected, 1 when one failed.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let queries = queries(&arguments.queries)?;
    if !(arguments.rate.is_finite() && arguments.rate > 0.0) {
        return Err(Failure::usage("--rate must be above 0"));
    }
    let pace = Pace::Steady(arguments.rate);
    let report = measure(arguments, &queries, pace, arguments.connections)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report).map_err(|e| Failure::new(e.to_string()))?);
    } else {
        print(&report);
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FOUND_FAULT) })
}

impl Arguments {
    /// The address of a path of the server.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }
}

/// Sends searches for the duration over this many connections.
pub(crate) fn measure(
    arguments: &Arguments,
    queries: &[String],
    pace: Pace,
    connections: usize,
) -> Result<Report, Failure> {
    let total = match pace {
        Pace::Steady(rate) => (rate * arguments.duration.as_secs_f64()).ceil() as u64,
        Pace::AsAnswered => REQUESTS_MAX,
    };
    if total > REQUESTS_MAX {
        return Err(Failure::usage(format!(
            "{total} requests, the bound is {REQUESTS_MAX}; lower --rate or --duration"
        )));
    }
    let bar = Arc::new(match pace {
        Pace::Steady(_) => data::bar(total, "load", "requests"),
        Pace::AsAnswered => data::bar(0, "load", "requests"),
    });
    let target = Arc::new(Target::new(&arguments.url, "/search", &arguments.trust)?);
    let bodies: Arc<Vec<Bytes>> = Arc::new(queries.iter().map(|it| body(arguments, it)).collect());
    let next = Arc::new(AtomicU64::new(0));
    // One thread: what it takes from the machine is missing from the server beside it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
    let begun = Instant::now();
    let duration = arguments.duration;
    let outcomes = runtime.block_on(async {
        let clients = (0..connections.max(1)).map(|_| {
            let mut client = Client::new(Arc::clone(&target));
            let (next, bodies, bar) = (Arc::clone(&next), Arc::clone(&bodies), Arc::clone(&bar));
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let due = match pace {
                        Pace::Steady(rate) => begun + Duration::from_secs_f64(at as f64 / rate),
                        Pace::AsAnswered => Instant::now(),
                    };
                    if at >= total || due.duration_since(begun) >= duration {
                        return outcomes;
                    }
                    tokio::time::sleep_until(due.into()).await;
                    let body = bodies[at as usize % bodies.len()].clone();
                    let outcome = outcome(client.post(body).await);
                    outcomes.push((due.elapsed(), outcome));
                    bar.inc(1);
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        let mut outcomes = Vec::new();
        for client in clients {
            outcomes.extend(client.await.map_err(|error| Failure::new(error.to_string()))?);
        }
        Ok::<_, Failure>(outcomes)
    })?;
    bar.finish_and_clear();
    Ok(report(outcomes, begun.elapsed()))
}

fn body(arguments: &Arguments, query: &str) -> Bytes {
    let request = SearchRequestJson {
        query: query.to_string(),
        collection: Some(arguments.collection.clone()),
        methods: (!arguments.method.is_empty()).then(|| arguments.method.clone()),
        ..SearchRequestJson::default()
    };
    serde_json::to_vec(&request).unwrap_or_default().into()
}

/// Of an answer to a search, what is looked at.
#[derive(Deserialize)]
struct Seen {
    complete: bool,
}

fn outcome(answer: Result<(u16, Bytes), String>) -> Outcome {
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(error) => return Outcome::Failed(error),
    };
    if status == 200 {
        return match serde_json::from_slice::<Seen>(&body) {
            Ok(seen) if seen.complete => Outcome::Complete,
            Ok(_) => Outcome::Degraded,
            Err(error) => Outcome::Failed(format!("answer: {error}")),
        };
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if REJECTIONS.contains(&&*problem.code) => Outcome::Rejected,
        Ok(problem) => Outcome::Failed(format!("{status} {}", problem.code)),
        Err(_) => Outcome::Failed(format!("status {status}")),
    }
}

fn report(outcomes: Vec<(Duration, Outcome)>, time: Duration) -> Report {
    let mut report = Report { requests: outcomes.len() as u64, ..Report::default() };
    let (mut latencies, mut answered) = (Vec::new(), Vec::new());
    for (latency, outcome) in outcomes {
        if matches!(outcome, Outcome::Complete | Outcome::Degraded) {
            answered.push(latency.as_secs_f64() * 1000.0);
        }
        match outcome {
            Outcome::Complete => report.complete += 1,
            Outcome::Degraded => report.degraded += 1,
            Outcome::Rejected => report.rejected += 1,
            Outcome::Failed(error) => {
                report.failed += 1;
                *report.errors.entry(error).or_default() += 1;
            }
        }
        latencies.push(latency.as_secs_f64() * 1000.0);
    }
    report.ok = report.complete + report.degraded;
    report.seconds = time.as_secs_f64();
    report.rate_per_s = report.requests as f64 / report.seconds.max(1e-9);
    report.latency_ms = Latency::of(latencies);
    report.answered_ms = Latency::of(answered);
    report
}

impl Latency {
    fn of(mut latencies: Vec<f64>) -> Self {
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * latencies.len() as f64).ceil() as usize;
            latencies.get(index.saturating_sub(1)).copied().unwrap_or_default()
        };
        Latency {
            mean: latencies.iter().sum::<f64>() / latencies.len().max(1) as f64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

fn print(report: &Report) {
    let latency = &report.latency_ms;
    println!(
        "{} requests in {:.1} s ({:.1}/s): {} complete, {} degraded, {} rejected, {} failed",
        report.requests,
        report.seconds,
        report.rate_per_s,
        report.complete,
        report.degraded,
        report.rejected,
        report.failed
    );
    println!(
        "latency from each request's due time, ms: mean {:.2}  p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}",
        latency.mean, latency.p50, latency.p90, latency.p99, latency.p999, latency.max
    );
    for (error, count) in report.errors.iter().take(10) {
        println!("  {count} x {error}");
    }
}

pub(crate) fn queries(path: &PathBuf) -> Result<Vec<String>, Failure> {
    let named = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(named)?;
    let mut queries = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parsed: Option<serde_json::Value> =
            line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten();
        let field = parsed.as_ref().and_then(|v| v.get("text").or_else(|| v.get("query")));
        queries.push(field.and_then(|v| v.as_str()).unwrap_or(line).to_string());
    }
    if queries.is_empty() {
        return Err(Failure::usage(format!("{} holds no query", path.display())));
    }
    Ok(queries)
}

/// Reads `10s`, `500ms`, `5m`, `2h` or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("\"{text}\" is no time; write 10s"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        other => return Err(format!("unit \"{other}\" is unknown; known are ms, s, m, h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}
