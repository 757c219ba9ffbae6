//! Upkeep: verify, rebuild, compact, records set aside, fusion weights.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use mainstay_db::{Db, Method, Weights};
use mainstay_ops::audit::Action;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Json, Path};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::state::{State, Work};
use crate::wire::{SetAsideJson, VerifyJson};

/// Which index to make anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RebuildJson {
    /// `bm25`, `tantivy`, `native` or `semantic`.
    pub method: String,
}

/// Fusion weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WeightsJson {
    /// bm25, tantivy, native, semantic; each 0 or more, not all 0; absent for the defaults.
    pub weights: Option<[f32; 4]>,
}

/// Compare the log, the documents and every view
#[utoipa::path(
    post, path = "/admin/collections/{collection}/verify", operation_id = "verify_collection", tag = "admin",
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 200, description = "What was found", body = VerifyJson),
        (status = "4XX", description = "There is none of this name", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The log cannot be read, or the server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn verify(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<VerifyJson>, Problem> {
    let collection = state.collection(&name)?;
    let audit = state.operations().audit.clone();
    let verify = move |_: &Db| {
        let report = collection.verify()?;
        audit.record(Action::new(caller.name(), "collection.verify", &name));
        Ok(report)
    };
    let report = state.blocking(Work::Write, verify).await?;
    Ok(Json(report.into()))
}

/// Make the index of a method anew, while the old one serves
///
/// Answers when it is done; the collection's figures show how far it is meanwhile.
#[utoipa::path(
    post, path = "/admin/collections/{collection}/rebuild", operation_id = "rebuild_collection", tag = "admin", request_body = RebuildJson,
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Unknown method, or a rebuild is running", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The rebuild failed; the old index serves on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn rebuild(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(name): Path<String>,
    Json(json): Json<RebuildJson>,
) -> Result<StatusCode, Problem> {
    let method: Method =
        json.method.parse().map_err(|e| Problem::bad_request(format!("method: {e}")))?;
    let collection = state.collection(&name)?;
    let audit = state.operations().audit.clone();
    // With the work, which goes on when its caller has gone.
    let rebuild = move |_: &Db| {
        collection.rebuild(method, &mut |_, _| {})?;
        let view = format!("{name}/{}", method.name());
        audit.record(Action::new(caller.name(), "view.rebuild", &view));
        Ok(())
    };
    state.blocking(Work::Write, rebuild).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Records that a view can never apply
#[utoipa::path(
    get, path = "/admin/collections/{collection}/set-aside", operation_id = "list_set_aside", tag = "admin",
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 200, description = "Each with its error", body = [SetAsideJson]),
        (status = "4XX", description = "There is none of this name", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn set_aside(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<Json<Vec<SetAsideJson>>, Problem> {
    let entries = state.collection(&name)?.set_aside();
    Ok(Json(entries.into_iter().map(SetAsideJson::from).collect()))
}

/// Set the fusion weights of a collection
#[utoipa::path(
    put, path = "/admin/collections/{collection}/weights", operation_id = "set_weights", tag = "admin", request_body = WeightsJson,
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 204, description = "Recorded, durably"),
        (status = "4XX", description = "The weights are refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The disk or a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn weights(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(name): Path<String>,
    Json(json): Json<WeightsJson>,
) -> Result<StatusCode, Problem> {
    let weights = json.weights.map(|[bm25, tantivy, native, semantic]| Weights {
        bm25,
        tantivy,
        native,
        semantic,
    });
    if let Some(weights) = &weights {
        weights.validate().map_err(|e| Problem::bad_request(format!("weights: {e}")))?;
    }
    let collection = state.collection(&name)?;
    let audit = state.operations().audit.clone();
    let set = move |_: &Db| {
        collection.set_weights(weights)?;
        let action = Action::new(caller.name(), "collection.weights", &name);
        audit.record(action.change((), json.weights));
        Ok(())
    };
    state.blocking(Work::Write, set).await?;
    Ok(StatusCode::NO_CONTENT)
}
