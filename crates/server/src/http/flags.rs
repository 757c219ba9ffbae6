//! Feature flags: listed, evaluated, overridden, brought back.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use mainstay_ops::flags::{Definition, FlagError, FlagValue, Subject};
use serde::Deserialize;

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

fn shown(state: &State, name: &str) -> Result<Json<serde_json::Value>, Problem> {
    let flags = state.operations().flags.list();
    let found = flags.into_iter().find(|flag| flag.name == name);
    let flag = found.ok_or_else(|| refused(FlagError::NotFound { name: name.to_string() }))?;
    Ok(Json(serde_json::to_value(flag).unwrap_or_default()))
}

/// All feature flags
#[utoipa::path(
    get, path = "/admin/flags", operation_id = "list_flags", tag = "admin",
    responses((status = 200, description = "Each with its definition and what nobody in particular gets", body = serde_json::Value))
)]
pub(crate) async fn list(Shared(state): Shared<State>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "flags": state.operations().flags.list() }))
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
) -> Result<Json<serde_json::Value>, Problem> {
    let Json(mut flag) = shown(&state, &name)?;
    let flags = &state.operations().flags;
    let collection = query.collection.unwrap_or_default();
    let attributes = [("collection", collection.as_str())];
    let subject = Subject { user: query.user.as_deref(), attributes: &attributes };
    let variants = flag["definition"]["variants"].clone();
    let of = |value: Option<&serde_json::Value>| value.cloned();
    let kind = variants.as_object().and_then(|variants| of(variants.values().next()));
    let evaluated = match kind.and_then(|value| serde_json::from_value::<FlagValue>(value).ok()) {
        Some(FlagValue::Bool(_)) => serde_json::to_value(flags.bool(&name, false, &subject)),
        Some(FlagValue::Int(_)) => serde_json::to_value(flags.int(&name, 0, &subject)),
        Some(FlagValue::Float(_)) => serde_json::to_value(flags.float(&name, 0.0, &subject)),
        _ => {
            let found = flags.string(&name, "", &subject);
            Ok(serde_json::json!({
                "value": &*found.value,
                "variant": found.variant.as_deref(),
                "reason": found.reason,
                "error": found.error,
            }))
        }
    };
    if let (Ok(serde_json::Value::Object(evaluated)), Some(flag)) =
        (evaluated, flag.as_object_mut())
    {
        flag.extend(evaluated);
    }
    Ok(Json(flag))
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
) -> Result<Json<serde_json::Value>, Problem> {
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
    shown(&state, &name)
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
