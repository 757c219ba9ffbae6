//! Health and metrics.

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mainstay_ops::exposition::Exposition;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Json;
use crate::state::State;

/// How the server is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthJson {
    /// `healthy`, `degraded` or `unhealthy`.
    pub status: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: f64,
    /// Each part by name, such as `docs/bm25`, and how it is.
    pub checks: BTreeMap<String, String>,
}

/// How the server is
///
/// Asks no dependency and waits for nothing.
#[utoipa::path(
    get, path = "/health", tag = "health",
    responses(
        (status = 200, description = "Healthy or degraded", body = HealthJson),
        (status = 503, description = "Unhealthy", body = HealthJson),
    )
)]
pub(crate) async fn health(Shared(state): Shared<State>) -> (StatusCode, Json<HealthJson>) {
    let mut checks = BTreeMap::new();
    let mut worst = 0;
    for collection in state.db().collections() {
        let status = collection.status();
        let documents_fail = status
            .views
            .iter()
            .any(|view| view.view == "documents" && view.state.to_string() != "ready");
        for view in &status.views {
            let text = view.state.to_string();
            if text != "ready" {
                worst = worst.max(if documents_fail { 2 } else { 1 });
            }
            checks.insert(format!("{}/{}", status.name, view.view), text);
        }
        for method in mainstay_db::Method::ALL {
            let breaker = collection.breaker(method).state();
            if breaker != mainstay_db::BreakerState::Closed {
                worst = worst.max(1);
                checks.insert(
                    format!("{}/{method}/breaker", status.name),
                    breaker.as_str().to_string(),
                );
            }
        }
    }
    for (name, reason) in state.db().broken() {
        worst = 2;
        checks.insert(name, reason);
    }
    let (code, status) = match worst {
        0 => (StatusCode::OK, "healthy"),
        1 => (StatusCode::OK, "degraded"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    let health = HealthJson {
        status: status.to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        uptime_s: state.uptime_s(),
        checks,
    };
    (code, Json(health))
}

/// Whether the process lives
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"))
)]
pub(crate) async fn live() -> &'static str {
    "live\n"
}

/// Whether requests should be sent here
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses(
        (status = 200, description = "They should", body = String, content_type = "text/plain"),
        (status = 503, description = "The server is shutting down", body = String, content_type = "text/plain"),
    )
)]
pub(crate) async fn ready(Shared(state): Shared<State>) -> (StatusCode, &'static str) {
    if state.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// Metrics for Prometheus
///
/// The Prometheus text format, or OpenMetrics for who accepts it.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Every metric; docs/metrics.md lists them", content(
        (String = "text/plain"), (String = "application/openmetrics-text")
    )))
)]
pub(crate) async fn metrics(Shared(state): Shared<State>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let exposition = Exposition::preferred(accept.unwrap_or_default());
    // A scrape asks every collection and the kernel, so it stays off the threads that serve.
    let text = tokio::task::spawn_blocking(move || {
        crate::gauges::record(state.db());
        state.meter().map(|meter| meter.render(exposition)).unwrap_or_default()
    });
    let text = text.await.unwrap_or_default();
    ([(header::CONTENT_TYPE, exposition.content_type())], text).into_response()
}
