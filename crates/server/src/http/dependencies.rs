//! What the server depends on, and manual control of it.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use mainstay_db::Dependency;
use mainstay_ops::audit::Action;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

use super::{Json, Path, duration};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::state::State;

/// A dependency and how it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DependencyJson {
    /// Its name, such as `docs/bm25` or `embedding/api.example.org`.
    pub name: String,
    /// `component`, `datastore`, `cache` or `http`.
    pub kind: String,
    /// `critical`, `degrades` or `informative`.
    pub criticality: String,
    /// The breaker's state: `closed`, `open`, `half_open`, `recovering`, `isolated`, `disabled`,
    /// `observe_only`.
    pub state: String,
    /// The share of failures in the breaker's window; while it is open, the one it opened at.
    pub error_rate: f64,
    /// Failures in a row.
    pub consecutive_failures: u64,
    /// How long ago the state changed.
    pub changed_ms_ago: u64,
    /// How long until a call may try again; absent unless the breaker is open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_probe_ms: Option<u64>,
    /// Calls since the start.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that the breaker refused.
    pub rejected: u64,
    /// Half of the latest calls took at most this long; absent without calls.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p50_ms: Option<f64>,
    /// The same for 95 of a hundred.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p95_ms: Option<f64>,
    /// The same for 99 of a hundred.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p99_ms: Option<f64>,
    /// What the last error said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// How long ago that was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error_ms_ago: Option<u64>,
}

/// All dependencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DependenciesJson {
    /// In order of name.
    pub dependencies: Vec<DependencyJson>,
}

/// What to do with a dependency's breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DependencyActionJson {
    /// `reset` (closed, all counts forgotten), `force-open` (as if it had failed), `isolate` (held
    /// open until reset) or `disable` (calls pass uncounted until reset).
    pub action: String,
    /// How long `force-open` lasts, such as `30s`; the breaker's own time when absent.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Dependency> for DependencyJson {
    fn from(dependency: &Dependency) -> Self {
        let breaker = dependency.breaker().snapshot();
        let calls = dependency.figures().snapshot();
        let quantile = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
        let (age, error) = calls.last_error.map_or((None, None), |(age, error)| {
            (Some(ms(age)), Some(mainstay_ops::redact::redact(&error)))
        });
        Self {
            name: dependency.name().to_string(),
            kind: dependency.kind().as_str().to_string(),
            criticality: dependency.criticality().as_str().to_string(),
            state: breaker.state.as_str().to_string(),
            error_rate: breaker.error_rate,
            consecutive_failures: breaker.consecutive_failures,
            changed_ms_ago: ms(breaker.since_change),
            next_probe_ms: breaker.next_probe.map(ms),
            calls: calls.calls,
            failures: calls.failures,
            rejected: breaker.rejected,
            p50_ms: quantile(calls.p50),
            p95_ms: quantile(calls.p95),
            p99_ms: quantile(calls.p99),
            last_error: error,
            last_error_ms_ago: age,
        }
    }
}

/// What the server depends on
#[utoipa::path(
    get, path = "/admin/dependencies", operation_id = "list_dependencies", tag = "admin",
    responses((status = 200, description = "Each with its state and figures", body = DependenciesJson))
)]
pub(crate) async fn list(Shared(state): Shared<State>) -> Json<DependenciesJson> {
    let all = state.operations().pipelines.dependencies();
    Json(DependenciesJson { dependencies: all.iter().map(DependencyJson::from).collect() })
}

/// One dependency
#[utoipa::path(
    get, path = "/admin/dependencies/{name}", operation_id = "get_dependency", tag = "admin",
    params(("name" = String, Path, description = "The dependency's name, which may hold `/`")),
    responses(
        (status = 200, description = "Its state and figures", body = DependencyJson),
        (status = "4XX", description = "There is none of this name", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<Json<DependencyJson>, Problem> {
    Ok(Json(DependencyJson::from(&find(&state, &name)?)))
}

/// Open, isolate, disable or reset the breaker of a dependency
#[utoipa::path(
    post, path = "/admin/dependencies/{name}", operation_id = "act_on_dependency", tag = "admin", request_body = DependencyActionJson,
    params(("name" = String, Path, description = "The dependency's name, which may hold `/`")),
    responses(
        (status = 200, description = "Its state afterwards", body = DependencyJson),
        (status = "4XX", description = "There is none of this name, or no such action", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn act(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(name): Path<String>,
    Json(json): Json<DependencyActionJson>,
) -> Result<Json<DependencyJson>, Problem> {
    let dependency = find(&state, &name)?;
    let breaker = dependency.breaker();
    let before = breaker.state().as_str();
    let lasting = json.lasting.as_deref().map(|text| duration("for", text)).transpose()?;
    let verb = json.action.replace('_', "-");
    if lasting.is_some() && verb != "force-open" {
        return Err(Problem::bad_request("for: only force-open lasts for a time; leave it out"));
    }
    match verb.as_str() {
        "reset" => breaker.reset(),
        "force-open" => match lasting {
            Some(period) => breaker.force_open_for(period),
            None => breaker.force_open(),
        },
        "isolate" => breaker.isolate(),
        "disable" => breaker.disable(),
        _ => {
            let known = "known are reset, force-open, isolate, disable";
            let detail = format!("action: \"{:.32}\" is unknown; {known}", json.action);
            return Err(Problem::bad_request(detail));
        }
    }
    let action = Action::new(caller.name(), &format!("breaker.{verb}"), dependency.name())
        .change(before, breaker.state().as_str())
        .because(&json.why);
    state.operations().audit.record(action);
    Ok(Json(DependencyJson::from(&dependency)))
}

fn find(state: &State, name: &str) -> Result<Dependency, Problem> {
    state.operations().pipelines.dependency(name).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "dependency_not_found",
            format!("there is no dependency {name:.128}; GET /admin/dependencies lists them"),
        )
    })
}
