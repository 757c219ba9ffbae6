use std::fs;
use std::path::Path;

use crate::Running;

/// The document that is checked in equals the one that the code derives. To accept a change, run
/// the tests with `MAINSTAY_UPDATE=1`.
#[test]
fn the_openapi_document_that_is_checked_in_is_the_one_that_is_served() {
    let path =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../api/openapi.json");
    let derived = mainstay_server::openapi();
    if std::env::var_os("MAINSTAY_UPDATE").is_some() {
        fs::write(&path, &derived).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(checked_in, derived, "api/openapi.json differs; run with MAINSTAY_UPDATE=1");
    let server = Running::start();
    assert_eq!(server.get("/openapi.json").body, derived);
}

#[test]
fn metrics_are_served_for_prometheus() {
    let server = Running::start();
    server.post("/search", &serde_json::json!({"query": "x"}));
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.kind.starts_with("text/plain"));
    for name in [
        "mainstay_search_requests_total",
        "mainstay_search_duration_seconds_bucket",
        "mainstay_documents",
        "mainstay_circuit_breaker_state",
        "mainstay_view_indexed_through",
    ] {
        assert!(answer.body.contains(name), "{name} is missing");
    }
}

#[test]
fn health_says_that_all_is_well() {
    let server = Running::start();
    let health = server.get("/health");
    assert_eq!((health.status, health.json()["state"].clone()), (200, "healthy".into()));
    assert_eq!(health.kind, "application/health+json");
    assert_eq!(server.get("/health/startup").status, 200);
    assert_eq!(server.get("/health/live").status, 200);
    assert_eq!(server.get("/health/ready").status, 200);
}
