//! Feature flags: listed, evaluated, overridden, brought back.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use mainstay_ops::flags::{Definition, FlagError, FlagReport, Subject};
use serde::{Deserialize, Serialize};

use super::levels::WhyQuery;
use super::{Json, Path, Query};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::sharing;
use crate::state::State;

/// For whom a flag is evaluated.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvaluateQuery {
    /// The user or API key; nobody in particular when absent.
    user: Option<String>,
    /// The collection.
    collection: Option<String>,
}

fn refused(error: FlagError) -> Problem {
    if let FlagError::State(state) = &error
        && let Some(problem) = sharing::refusal(state)
    {
        return problem;
    }
    let (status, code) = match &error {
        FlagError::NotFound { .. } => (StatusCode::NOT_FOUND, "flag_not_found"),
        FlagError::State(_) => (StatusCode::INTERNAL_SERVER_ERROR, "state"),
        _ => (StatusCode::BAD_REQUEST, "bad_request"),
    };
    Problem::new(status, code, error.to_string())
}

/// All flags, each written as it is when it is asked for alone.
#[derive(Serialize)]
pub(crate) struct FlagList {
    flags: Vec<FlagReport>,
}

impl EvaluateQuery {
    /// Answers what `ask` does with the subject.
    fn subject<T>(&self, ask: impl FnOnce(&Subject<'_>) -> T) -> T {
        let collection = self.collection.as_deref().map(|name| ("collection", name));
        ask(&Subject { user: self.user.as_deref(), attributes: collection.as_slice() })
    }
}

fn shown(state: &State, name: &str, query: &EvaluateQuery) -> Result<Json<FlagReport>, Problem> {
    let found = query.subject(|subject| state.operations().flags.get(name, subject));
    found.map(Json).ok_or_else(|| refused(FlagError::NotFound { name: name.to_string() }))
}

/// All feature flags
#[utoipa::path(
    get, path = "/admin/flags", operation_id = "list_flags", tag = "admin", params(EvaluateQuery),
    responses(
        (status = 200, description = "Each with its definition, and what this user gets: value, variant and reason (as OpenFeature names them)", body = serde_json::Value),
        (status = "4XX", description = "The query is not understood", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    Query(query): Query<EvaluateQuery>,
) -> Json<FlagList> {
    Json(FlagList { flags: query.subject(|subject| state.operations().flags.list(subject)) })
}

/// What one user gets of a flag, and why
#[utoipa::path(
    get, path = "/admin/flags/{name}", operation_id = "evaluate_flag", tag = "admin", params(
        ("name" = String, Path, description = "The flag's name"), EvaluateQuery,
    ),
    responses(
        (status = 200, description = "Value, variant and reason (as OpenFeature names them)", body = serde_json::Value),
        (status = "4XX", description = "There is none of this name", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn evaluate(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Query(query): Query<EvaluateQuery>,
) -> Result<Json<FlagReport>, Problem> {
    shown(&state, &name, &query)
}

/// Switch a flag on or off, or give it another definition
///
/// The body is `{"enabled": true}`, or a whole definition with variants, rules and schedule.
#[utoipa::path(
    put, path = "/admin/flags/{name}", operation_id = "set_flag", tag = "admin", request_body = serde_json::Value, params(
        ("name" = String, Path, description = "The flag's name"), WhyQuery,
    ),
    responses(
        (status = 200, description = "The flag afterwards", body = serde_json::Value),
        (status = "4XX", description = "The definition is not allowed; nothing has changed", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "It could not be saved; nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn set(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<WhyQuery>,
    Json(json): Json<serde_json::Value>,
) -> Result<Json<FlagReport>, Problem> {
    let flags = state.operations().flags.clone();
    let (named, why) = (name.clone(), query.why);
    let only_switch = json.as_object().is_some_and(|fields| {
        fields.len() == 1 && fields.get("enabled").is_some_and(serde_json::Value::is_boolean)
    });
    let changed = if only_switch {
        let enabled = json["enabled"] == true;
        state.shared_change(move || flags.enable(&named, enabled, caller.name(), &why)).await?
    } else {
        let definition: Definition = serde_json::from_value(json).map_err(|e| {
            Problem::bad_request(format!("the body is no definition of a flag: {e}"))
        })?;
        state.shared_change(move || flags.set(&named, definition, caller.name(), &why)).await?
    };
    changed.map_err(refused)?;
    shown(&state, &name, &EvaluateQuery::default())
}

/// Take an override back; the flag as the program declares it counts again
#[utoipa::path(
    delete, path = "/admin/flags/{name}", operation_id = "remove_flag", tag = "admin", params(
        ("name" = String, Path, description = "The flag's name"), WhyQuery,
    ),
    responses(
        (status = 204, description = "Taken back"),
        (status = "4XX", description = "There is no override of this name", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "It could not be saved; nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn remove(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<WhyQuery>,
) -> Result<StatusCode, Problem> {
    let flags = state.operations().flags.clone();
    let removed =
        state.shared_change(move || flags.remove(&name, caller.name(), &query.why)).await?;
    removed.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}
