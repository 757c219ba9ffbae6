//! Health and metrics. Nothing here asks a dependency while the caller waits, unless told to.

use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mainstay_ops::exposition::Exposition;
use mainstay_ops::health::HealthReport;
use mainstay_ops::memory::Shrinker;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::Query;
use crate::problem::Problem;
use crate::state::State;

/// The media type of draft-inadarei-api-health-check.
const HEALTH_JSON: &str = "application/health+json";

/// How long a report waits for checks that are asked anew, however long `health.check_timeout` lets
/// them take: whoever asks for it gives up after 8 s.
const FRESH_MAX: Duration = Duration::from_secs(5);

/// How a report is made.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthQuery {
    /// Whether every check is asked anew, which takes as long as the slowest one, 5 s at most.
    #[serde(default)]
    #[param(default = false)]
    fresh: bool,
}

fn health_json(status: u16, body: &impl Serialize) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_string(body).unwrap_or_default();
    let headers = [(header::CONTENT_TYPE, HEALTH_JSON), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}

/// How the server and each of its parts are
///
/// Answers from the last results within milliseconds, whatever hangs.
#[utoipa::path(
    get, path = "/health", tag = "health", params(HealthQuery),
    responses(
        (status = 200, description = "Healthy or degraded", body = serde_json::Value, content_type = "application/health+json"),
        (status = "4XX", description = "The query is not understood", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Unhealthy or unknown", body = serde_json::Value, content_type = "application/health+json"),
    )
)]
pub(crate) async fn health(
    Shared(state): Shared<State>,
    Query(query): Query<HealthQuery>,
) -> Response {
    let registry = state.operations().health.clone();
    let report: HealthReport = if query.fresh {
        let stale = registry.clone();
        let asked = tokio::task::spawn_blocking(move || registry.report_within(FRESH_MAX)).await;
        asked.unwrap_or_else(|_| stale.report())
    } else {
        registry.report()
    };
    health_json(report.http_status(), &report)
}

/// Whether the process lives
///
/// No dependency decides it: a restart heals none.
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses(
        (status = 200, description = "It does", body = serde_json::Value, content_type = "application/health+json"),
        (status = 503, description = "A loop of the process hangs: restart it", body = serde_json::Value, content_type = "application/health+json"),
    )
)]
pub(crate) async fn live(Shared(state): Shared<State>) -> Response {
    let liveness = state.operations().pulses.liveness();
    health_json(if liveness.live { 200 } else { 503 }, &liveness)
}

/// Whether the start is over
#[utoipa::path(
    get, path = "/health/startup", tag = "health",
    responses(
        (status = 200, description = "It is", body = serde_json::Value, content_type = "application/health+json"),
        (status = 503, description = "Not yet", body = serde_json::Value, content_type = "application/health+json"),
    )
)]
pub(crate) async fn startup(Shared(state): Shared<State>) -> Response {
    let startup = state.operations().health.gate().startup();
    health_json(if startup.started { 200 } else { 503 }, &startup)
}

/// Whether requests should be sent here
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses(
        (status = 200, description = "They should", body = serde_json::Value, content_type = "application/health+json"),
        (status = 503, description = "They should not, and why", body = serde_json::Value, content_type = "application/health+json"),
    )
)]
pub(crate) async fn ready(Shared(state): Shared<State>) -> Response {
    let readiness = state.operations().health.gate().readiness();
    health_json(if readiness.ready { 200 } else { 503 }, &readiness)
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
        state.admission().show();
        crate::gauges::record(state.db());
        state.operations().sharing.catalogue().export_metrics();
        metrics::gauge!("mainstay_cache_size_bytes", "cache" => "answers")
            .set(state.answers().bytes() as f64);
        state.meter().map(|meter| meter.render(exposition)).unwrap_or_default()
    });
    let text = text.await.unwrap_or_default();
    ([(header::CONTENT_TYPE, exposition.content_type())], text).into_response()
}
