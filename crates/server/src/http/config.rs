//! The settings that count, and reading them again.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Json, Query};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::state::State;

/// How settings are read again.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadQuery {
    /// Only say what would change.
    #[serde(default)]
    #[param(default = false)]
    dry_run: bool,
}

/// A setting that changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChangeJson {
    /// Its name.
    pub name: String,
    /// The value before.
    pub before: String,
    /// The value after.
    pub after: String,
    /// Where the new value comes from.
    pub origin: String,
}

/// What a reload changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReloadJson {
    /// Whether it was taken over; false for a dry run.
    pub applied: bool,
    /// Each setting that differs.
    pub changes: Vec<ChangeJson>,
}

/// Every setting with its value and where that comes from
#[utoipa::path(
    get, path = "/admin/config", operation_id = "get_config", tag = "admin",
    responses(
        (status = 200, description = "Settings by name", body = serde_json::Value),
        (status = "4XX", description = "The server was not started from settings", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(Shared(state): Shared<State>) -> Result<Json<serde_json::Value>, Problem> {
    let reloader = state.reloader().ok_or_else(none)?;
    Ok(Json(crate::settings::to_json(&reloader.current())))
}

/// Read all sources of settings again and take over what changed: all of it or nothing
#[utoipa::path(
    post, path = "/admin/config/reload", operation_id = "reload_config", tag = "admin", params(ReloadQuery),
    responses(
        (status = 200, description = "What changed", body = ReloadJson),
        (status = "4XX", description = "A source has a fault or changes what is fixed at the start; nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn reload(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<ReloadQuery>,
) -> Result<Json<ReloadJson>, Problem> {
    let reloader = state.reloader().ok_or_else(none)?;
    let who = caller.name().to_string();
    let result = state.control(move || reloader.reload(query.dry_run, &who)).await?;
    let changes = result.map_err(|faults| {
        let problem = Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "settings",
            "the settings have faults, so nothing was changed",
        );
        Problem { errors: faults, ..problem }
    })?;
    let changes = changes.into_iter().map(|change| ChangeJson {
        name: change.name,
        before: change.before,
        after: change.after,
        origin: change.origin.to_string(),
    });
    Ok(Json(ReloadJson { applied: !query.dry_run, changes: changes.collect() }))
}

fn none() -> Problem {
    let detail = "the server was not started from settings, so there are none to show or to read";
    Problem::new(StatusCode::NOT_FOUND, "no_settings", detail)
}
