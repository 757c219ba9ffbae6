//! Objectives, incidents, the audit trail, and what the process uses of the machine.

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_ops::slo::prometheus_rules;
use serde::Deserialize;

use super::{Json, Query};
use crate::problem::Problem;
use crate::state::State;

/// Incidents shown at once.
const INCIDENTS_SHOWN: usize = 50;
/// Events of the audit trail shown when nobody says how many, and at most.
const EVENTS: (usize, usize) = (50, 1000);
/// Where alerts send people: the page of the project's documentation that has a section for each
/// objective.
const RUNBOOK: &str = "docs/operations/objectives.md";

/// Which events.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// Only events with a lower number; the newest when absent.
    #[serde(default)]
    #[param(required = false)]
    before: u64,
    /// How many, 1 to 1000; 50 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Those of all nodes that share the catalogue, each with its `node`, from the catalogue's copy of
    /// 90 days, which follows by seconds. Not together with `before`.
    #[serde(default)]
    #[param(default = false)]
    everywhere: bool,
}

/// How good the service is, against what was promised
#[utoipa::path(
    get, path = "/admin/slo", operation_id = "get_slo", tag = "admin",
    responses((status = 200, description = "Objectives with their budgets, mean times with their verdicts, reliability, the latest incidents", body = serde_json::Value))
)]
pub(crate) async fn get(Shared(state): Shared<State>) -> Json<serde_json::Value> {
    let operations = state.operations();
    let mut incidents = operations.incidents.list();
    incidents.truncate(INCIDENTS_SHOWN);
    Json(serde_json::json!({
        "slo": operations.slo.report(),
        "reliability": operations.slo.reliability(),
        "incidents": incidents,
    }))
}

/// The objectives as recording and alerting rules for Prometheus
#[utoipa::path(
    get, path = "/admin/slo/rules", operation_id = "get_slo_rules", tag = "admin",
    responses((status = 200, description = "YAML for rule_files", body = String, content_type = "application/yaml"))
)]
pub(crate) async fn rules(Shared(state): Shared<State>) -> Response {
    let config = state.config();
    let objectives = &config.operations.slo.objectives;
    let text = prometheus_rules(objectives, RUNBOOK);
    ([(header::CONTENT_TYPE, "application/yaml")], text).into_response()
}

/// Who changed what, the newest first
#[utoipa::path(
    get, path = "/admin/audit", operation_id = "list_audit", tag = "admin", params(AuditQuery),
    responses(
        (status = 200, description = "Events", body = serde_json::Value),
        (status = "4XX", description = "The query is not understood", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The catalogue does not answer", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn audit(
    Shared(state): Shared<State>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<serde_json::Value>, Problem> {
    let limit = query.limit.unwrap_or(EVENTS.0);
    if !(1..=EVENTS.1).contains(&limit) {
        let detail = format!("limit is {limit}; allowed is 1 to {}", EVENTS.1);
        return Err(Problem::bad_request(detail));
    }
    if query.everywhere {
        if query.before != 0 {
            return Err(Problem::bad_request(
                "numbers are those of one node: before goes not with everywhere".to_string(),
            ));
        }
        let events = state.operations().sharing.recent_audit(limit).await?;
        return Ok(Json(serde_json::json!({ "events": events })));
    }
    let events = state.operations().audit.recent(query.before, limit);
    let events: Vec<_> = events.iter().map(|event| &**event).collect();
    Ok(Json(serde_json::json!({ "events": events })))
}

/// Memory and file handles of the process
#[utoipa::path(
    get, path = "/admin/resources", operation_id = "get_resources", tag = "admin",
    responses((status = 200, description = "Use, limits and steps", body = serde_json::Value))
)]
pub(crate) async fn resources(Shared(state): Shared<State>) -> Json<serde_json::Value> {
    let operations = state.operations();
    Json(serde_json::json!({
        "memory": operations.memory.report(),
        "handles": operations.handles.report(&KernelFiles::default()),
    }))
}
