//! What metrics, spans and correlation cost one hybrid search: `cargo bench -p mainstay-ops --bench telemetry`.
//!
//! The work of one request is replayed without the search itself: its ids, its span, a span for
//! each of four methods, and everything that is counted. Each round does it bare, then with each
//! part, in one run; the median of the rounds is printed, and the difference to bare.

use std::hint::black_box;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mainstay_ops::correlation::{Ids, Incoming, begin};
use mainstay_ops::log_lines::LogFormat;
use mainstay_ops::meter::Meter;
use mainstay_ops::metric_table::METRICS;
use mainstay_ops::span_export::{SpanBatch, SpanSink};
use mainstay_ops::telemetry::{Telemetry, TelemetryConfig};

/// Requests in one round: a millisecond or less, so that most rounds are not interrupted by others.
const REQUESTS: u32 = 200;
/// Rounds of each part.
const ROUNDS: usize = 500;
/// Only spans of our crates are followed.
const TARGET: &str = "mainstay_server";
const METHODS: [&str; 4] = ["bm25", "tantivy", "native", "semantic"];

struct Taken;

impl SpanSink for Taken {
    fn export(&mut self, batch: &mut SpanBatch) -> Result<u64, String> {
        black_box(batch);
        Ok(0)
    }
}

fn nowhere() -> Arc<Mutex<dyn Write + Send>> {
    Arc::new(Mutex::new(std::io::sink()))
}

fn main() {
    let meter = Meter::new(METRICS);
    let bare = median(|| request(None));
    println!("bare: {:.2} us", bare.as_secs_f64() * 1e6);
    let show = |what: &str, took: Duration| {
        let more = took.saturating_sub(bare).as_secs_f64() * 1e6;
        println!("{what}: {more:.2} us more for each search");
    };
    let measured = metrics::with_local_recorder(&meter, || median(count));
    show("metrics, 13 records", measured);
    for (what, ratio, exported) in [
        ("correlation and spans, nothing exported", 0.0, false),
        ("correlation and spans, exported, none recorded", 0.0, true),
        ("correlation and spans, exported, a tenth recorded", 0.1, true),
        ("correlation and spans, exported, all recorded", 1.0, true),
    ] {
        let config = TelemetryConfig {
            log_filter: "info".into(),
            log_format: LogFormat::Json,
            log_writer: nowhere(),
            sample_ratio: ratio,
            sink: exported.then(|| Box::new(Taken) as Box<dyn SpanSink>),
        };
        let built = Telemetry::build(config);
        let (_telemetry, subscriber) = built.expect("the filter is a level");
        let both = tracing::subscriber::with_default(subscriber, || {
            let spans = median(|| request(Some("bench-1")));
            let both = metrics::with_local_recorder(&meter, || {
                median(|| {
                    request(Some("bench-1"));
                    count();
                })
            });
            (spans, both)
        });
        show(what, both.0);
        show("    and metrics", both.1);
    }
}

/// The spans of one request.
fn request(correlation: Option<&str>) {
    let Some(correlation) = correlation else { return };
    let ids = Ids::of_request(Incoming { correlation: Some(correlation), ..Incoming::default() });
    let (span, _) = begin(ids, || {
        tracing::info_span!(
            target: TARGET,
            parent: None,
            "http.request",
            "otel.name" = "POST /search",
            "otel.kind" = "server",
            "http.request.method" = "POST",
            "http.route" = "/search",
            "http.response.status_code" = tracing::field::Empty,
        )
    });
    // Polled twice by its runtime, and once on a thread that may block.
    for _ in 0..2 {
        let _inside = span.enter();
    }
    let inside = span.enter();
    for method in METHODS {
        let span =
            tracing::info_span!(target: TARGET, "search.method", method, indexed_through = 7);
        let _inside = span.enter();
    }
    drop(inside);
    span.record("http.response.status_code", 200);
    tracing::debug!(target: TARGET, method = "POST", "request answered");
}

/// What one hybrid search and its request record.
fn count() {
    metrics::gauge!("mainstay_http_requests_in_flight").increment(1.0);
    metrics::histogram!("mainstay_search_duration_seconds").record(0.004);
    metrics::counter!("mainstay_search_requests_total", "level" => "full").increment(1);
    for method in METHODS {
        metrics::counter!(
            "mainstay_method_requests_total", "method" => method, "status" => "ok"
        )
        .increment(1);
        metrics::histogram!("mainstay_method_duration_seconds", "method" => method).record(0.002);
    }
    let route = String::from("/search");
    metrics::histogram!(
        "mainstay_http_request_duration_seconds", "route" => route.clone(), "method" => "POST"
    )
    .record(0.005);
    metrics::counter!(
        "mainstay_http_requests_total",
        "route" => route, "method" => "POST", "status_class" => "2xx"
    )
    .increment(1);
    metrics::gauge!("mainstay_http_requests_in_flight").decrement(1.0);
}

fn median(mut run: impl FnMut()) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..REQUESTS {
                run();
            }
            begun.elapsed() / REQUESTS
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}
