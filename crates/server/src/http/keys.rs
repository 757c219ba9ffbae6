//! API keys: made, listed, rotated, revoked.

use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use mainstay_ops::keys::{FreshKey, KeyError, KeyReport, NewKey, OVERLAP_MAX, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Json, Path, Query, duration};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::sharing;
use crate::state::State;

/// How long an old secret goes on working when nobody says how long.
const OVERLAP_DEFAULT: Duration = Duration::from_secs(86_400);

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeyJson {
    /// Whose it is, 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `read`, `write`, `admin`; at least one.
    #[schema(min_items = 1, max_items = 3)]
    scopes: Vec<String>,
    /// The collections that it may touch; all when absent.
    #[serde(default)]
    #[schema(max_items = 128)]
    collections: Vec<String>,
    /// After which time it ends, such as `90d`; never when absent.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    lasting: Option<String>,
}

/// A key that was just made: the only time that it can be seen.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FreshKeyJson {
    /// Its id.
    id: String,
    /// The whole key.
    key: String,
}

/// How a key is rotated.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateQuery {
    /// How long the old secret goes on working, 0s to 30d; a day when absent.
    overlap: Option<String>,
}

impl From<FreshKey> for FreshKeyJson {
    fn from(fresh: FreshKey) -> Self {
        Self { id: fresh.id, key: fresh.key }
    }
}

/// A scope by name.
fn scope(name: &str) -> Result<Scope, Problem> {
    Scope::ALL.into_iter().find(|scope| scope.as_str() == name).ok_or_else(|| {
        let known = "known are read, write, admin";
        Problem::bad_request(format!("scopes: \"{name:.32}\" is unknown; {known}"))
    })
}

fn refused(error: KeyError) -> Problem {
    if let KeyError::State(state) = &error
        && let Some(problem) = sharing::refusal(state)
    {
        return problem;
    }
    let (status, code) = match &error {
        KeyError::Config(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        KeyError::NotFound { .. } => (StatusCode::NOT_FOUND, "key_not_found"),
        KeyError::LastAdmin { .. } => (StatusCode::CONFLICT, "last_admin_key"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "state"),
    };
    Problem::new(status, code, error.to_string())
}

/// All API keys, without their secrets
#[utoipa::path(
    get, path = "/admin/keys", operation_id = "list_keys", tag = "admin",
    responses((status = 200, description = "Each with its scopes, times and last use", body = serde_json::Value))
)]
pub(crate) async fn list(Shared(state): Shared<State>) -> Json<serde_json::Value> {
    let keys: Vec<KeyReport> = state.access().keys.list();
    Json(serde_json::json!({ "keys": keys }))
}

/// Make an API key
///
/// The answer is the only place where its secret is ever shown. The first key must be one of scope
/// `admin`: from then on every request needs a key.
#[utoipa::path(
    post, path = "/admin/keys", operation_id = "create_key", tag = "admin", request_body = NewKeyJson,
    responses(
        (status = 201, description = "The key, once", body = FreshKeyJson),
        (status = "4XX", description = "A property is out of its range", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "It could not be saved, so there is no key", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    caller: Caller,
    Json(json): Json<NewKeyJson>,
) -> Result<(StatusCode, Json<FreshKeyJson>), Problem> {
    let keys = state.access().keys.clone();
    let scopes: Vec<Scope> =
        json.scopes.iter().map(|name| scope(name)).collect::<Result<_, _>>()?;
    let administers = scopes.contains(&Scope::Admin) && json.collections.is_empty();
    if keys.is_empty() && !administers {
        let detail = "scopes: the first key must have admin for all collections, or nobody could make another one";
        return Err(Problem::bad_request(detail));
    }
    let lasting = json.lasting.as_deref().map(|text| duration("for", text)).transpose()?;
    let new = NewKey { name: json.name, scopes, collections: json.collections, lasting };
    let made = state.shared_change(move || keys.create(&new, caller.name())).await?;
    Ok((StatusCode::CREATED, Json(made.map_err(refused)?.into())))
}

/// Give an API key a new secret
#[utoipa::path(
    post, path = "/admin/keys/{id}/rotate", operation_id = "rotate_key", tag = "admin", params(
        ("id" = String, Path, description = "The key's id"), RotateQuery,
    ),
    responses(
        (status = 200, description = "The key with its new secret, once", body = FreshKeyJson),
        (status = "4XX", description = "There is no such key, or the time is out of its range", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "It could not be saved, so nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn rotate(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<RotateQuery>,
) -> Result<Json<FreshKeyJson>, Problem> {
    let overlap = query.overlap.as_deref().map(|text| duration("overlap", text)).transpose()?;
    let overlap = overlap.unwrap_or(OVERLAP_DEFAULT.min(OVERLAP_MAX));
    let keys = state.access().keys.clone();
    let made = state.shared_change(move || keys.rotate(&id, overlap, caller.name())).await?;
    Ok(Json(made.map_err(refused)?.into()))
}

/// End an API key at once
///
/// The last key that may administer everything stays, unless it is the only key and the server can be
/// reached from its own machine alone.
#[utoipa::path(
    delete, path = "/admin/keys/{id}", operation_id = "revoke_key", tag = "admin",
    params(("id" = String, Path, description = "The key's id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "There is no such key, or it is the last one that may administer everything", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "It could not be saved, so it still works", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn revoke(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let keys = state.access().keys.clone();
    let may_be_last = state.access().may_be_without_keys();
    let revoke = move || keys.revoke(&id, may_be_last, caller.name());
    state.shared_change(revoke).await?.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}
