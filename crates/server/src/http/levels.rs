//! The level of service: shown, held by hand, released.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use mainstay_ops::levels::{HoldError, Level};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Json, Query, duration};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::state::State;

/// A level to be held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldJson {
    /// `full`, `degraded`, `minimal` or `maintenance`.
    pub level: String,
    /// How long, 1 s to 7 days, such as `30m`.
    #[serde(rename = "for")]
    pub lasting: String,
    /// Why: it is shown in every answer.
    pub why: String,
}

/// Why a hold ends.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhyQuery {
    /// Why, for the audit trail.
    #[serde(default)]
    #[param(required = false)]
    pub(crate) why: String,
}

fn refused(error: HoldError) -> Problem {
    match error {
        HoldError::Config(error) => Problem::bad_request(format!("for: {error}")),
        other => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "state", other.to_string()),
    }
}

fn shown(state: &State) -> Json<serde_json::Value> {
    Json(serde_json::to_value(state.operations().levels.report()).unwrap_or_default())
}

/// The level of service, why, and how it came there
#[utoipa::path(
    get, path = "/admin/level", operation_id = "get_level", tag = "admin",
    responses((status = 200, description = "Standing, hold and history", body = serde_json::Value))
)]
pub(crate) async fn get(Shared(state): Shared<State>) -> Json<serde_json::Value> {
    shown(&state)
}

/// Hold a level by hand, for a time
#[utoipa::path(
    put, path = "/admin/level", operation_id = "hold_level", tag = "admin", request_body = HoldJson,
    responses(
        (status = 200, description = "Standing, hold and history", body = serde_json::Value),
        (status = "4XX", description = "There is no such level, or the time is out of its range", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "It could not be saved, so nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn hold(
    Shared(state): Shared<State>,
    caller: Caller,
    Json(json): Json<HoldJson>,
) -> Result<Json<serde_json::Value>, Problem> {
    let level = Level::ALL.into_iter().find(|level| level.as_str() == json.level);
    let level = level.ok_or_else(|| {
        let known = "known are full, degraded, minimal, maintenance";
        Problem::bad_request(format!("level: \"{:.32}\" is unknown; {known}", json.level))
    })?;
    let lasting = duration("for", &json.lasting)?;
    let levels = state.operations().levels.clone();
    state
        .control(move || levels.hold(level, lasting, caller.name(), &json.why))
        .await?
        .map_err(refused)?;
    Ok(shown(&state))
}

/// End a hold; the signals decide again
#[utoipa::path(
    delete, path = "/admin/level", operation_id = "release_level", tag = "admin", params(WhyQuery),
    responses(
        (status = 200, description = "Standing and history", body = serde_json::Value),
        (status = "4XX", description = "No level is held", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "It could not be saved, so it is still held", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn release(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<WhyQuery>,
) -> Result<Json<serde_json::Value>, Problem> {
    let levels = state.operations().levels.clone();
    let released = state.control(move || levels.release(caller.name(), &query.why)).await?;
    if released.map_err(refused)? {
        return Ok(shown(&state));
    }
    let detail = "no level is held by hand; PUT /admin/level holds one";
    Err(Problem::new(StatusCode::CONFLICT, "level_not_held", detail))
}
