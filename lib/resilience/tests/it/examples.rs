//! Every example runs, and shows what it promises.
// The `main` of an example is for the command line.
#![allow(dead_code)]

#[path = "../../examples/backpressure.rs"]
mod backpressure;
#[path = "../../examples/breaker_life.rs"]
mod breaker_life;
#[path = "../../examples/fixed_window.rs"]
mod fixed_window;
#[path = "../../examples/hedging.rs"]
mod hedging;
#[path = "../../examples/http_client.rs"]
mod http_client;
#[path = "../../examples/leaky_bucket.rs"]
mod leaky_bucket;
#[path = "../../examples/limits_by_caller.rs"]
mod limits_by_caller;
#[path = "../../examples/queue.rs"]
mod queue;
#[path = "../../examples/shared_quota.rs"]
mod shared_quota;
#[path = "../../examples/sliding_window.rs"]
mod sliding_window;
#[path = "../../examples/token_bucket.rs"]
mod token_bucket;

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

#[test]
fn c4_every_example_is_run_here() {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("examples");
    let tests = include_str!("examples.rs");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(tests.contains(&format!("shown({name}::demonstrate)")), "nothing runs {name}");
        seen += 1;
    }
    assert!(seen >= 11, "{seen}");
}

/// What an example prints.
fn shown(run: impl Fn(&mut dyn Write) -> Result<(), Box<dyn Error>>) -> String {
    let mut out = Vec::new();
    run(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Asserts that the lines of `parts` stand in `text`, in this order.
fn assert_shows(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("{part:?} is missing or out of order in\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn c4_the_token_bucket_saves_and_then_follows_its_rate() {
    let text = shown(token_bucket::demonstrate);
    assert_shows(
        &text,
        &["0 ms  admitted", "rate_limiter searches refused the call: more than 2 per 1s"],
    );
    assert_shows(&text, &["after 10 s of rest 4 are saved", "costs 3: Ok(())"]);
    assert_shows(&text, &["a cost of 9 can never fit into 4", "at 20 per second"]);
}

#[test]
fn c4_the_leaky_bucket_spaces_calls() {
    let text = shown(leaky_bucket::demonstrate);
    assert_shows(
        &text,
        &["call 1: goes in 0 ms", "call 5: goes in 1000 ms", "call 6: rate_limiter"],
    );
    assert_shows(&text, &["call 3: went after 500ms"]);
}

#[test]
fn c4_the_fixed_window_starts_anew_at_its_boundary() {
    let text = shown(fixed_window::demonstrate);
    assert_shows(
        &text,
        &["second 59: admitted, 4", "second 0: admitted, 5", "second 5: rate_limiter"],
    );
}

#[test]
fn c4_the_sliding_window_has_no_boundary() {
    let text = shown(sliding_window::demonstrate);
    assert_shows(&text, &["sliding window: 10 and 0", "fixed window:   10 and 10"]);
}

#[test]
fn c4_each_caller_has_a_limit_and_callers_have_a_bound() {
    let text = shown(limits_by_caller::demonstrate);
    assert_shows(&text, &["greedy makes 10 calls, 3 pass", "modest makes 2 calls, 2 pass"]);
    assert_shows(&text, &["greedy has 3 again", "are remembered", "the others are refused: true"]);
}

#[test]
fn c4_instances_that_share_a_quota_keep_it_together() {
    let text = shown(shared_quota::demonstrate);
    assert_shows(&text, &["round 1: 40 and 40, 80 in all", "round 2: 20 and 0, 100 in all"]);
    assert_shows(
        &text,
        &["round 3: 0 and 0, 100 in all", "without the store (Err(Connection)): 2 of 40"],
    );
}

#[test]
fn c4_the_queue_serves_by_priority_and_turn() {
    let text = shown(queue::demonstrate);
    assert_shows(&text, &["one too many: queue jobs refused the call", "the deadline has passed"]);
    assert_shows(&text, &["done in this order: first, urgent, a1, b1"]);
}

#[test]
fn c4_a_producer_that_looks_at_the_pressure_loses_nothing() {
    let text = shown(backpressure::demonstrate);
    assert_shows(&text, &["blind producer: ", "producer that looks: 60 done, 0 refused"]);
    assert!(!text.contains("blind producer: 60"), "{text}");
}

#[test]
fn c4_the_breaker_goes_through_its_whole_life() {
    let text = shown(breaker_life::demonstrate);
    assert_shows(&text, &["closed → open (consecutive_failures", "open → half_open"]);
    assert_shows(
        &text,
        &["half_open → recovering", "recovering → closed", "isolated until it is reset"],
    );
}

#[test]
fn c4_a_hedge_cuts_the_tail() {
    let text = shown(hedging::demonstrate);
    assert_shows(&text, &["without a hedge:    p99 800 ms", "hedged after 30 ms: p99  50 ms"]);
}

#[test]
fn c4_the_http_client_gets_its_answer_from_a_server_that_fails_at_first() {
    let text = shown(http_client::demonstrate);
    assert_shows(&text, &["timeout local/root", "RetryScheduled", "RetryScheduled"]);
    assert_shows(&text, &["answer: Ok(Some(\"HTTP/1.1 200 OK\"))", "succeeded_after_retry: 1"]);
}
