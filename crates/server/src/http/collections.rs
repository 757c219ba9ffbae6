//! Collections: list, create, look at, drop.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use mainstay_db::Db;
use mainstay_ops::audit::Action;

use super::{Json, Path};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::state::{State, Work};
use crate::wire::{CollectionJson, CollectionsJson, NewCollectionJson};

/// List the collections that the caller may touch
#[utoipa::path(
    get, path = "/collections", operation_id = "list_collections", tag = "collections",
    responses((status = 200, description = "Every collection", body = CollectionsJson))
)]
pub(crate) async fn list(Shared(state): Shared<State>, caller: Caller) -> Json<CollectionsJson> {
    let collections = state.db().collections();
    let shown = collections.iter().filter(|one| caller.allows(one.name()));
    let mut broken = state.db().broken();
    broken.retain(|name, _| caller.allows(name));
    Json(CollectionsJson { collections: shown.map(|one| one.status().into()).collect(), broken })
}

/// Create a collection
#[utoipa::path(
    post, path = "/collections", operation_id = "create_collection", tag = "collections", request_body = NewCollectionJson,
    responses(
        (status = 201, description = "Created, durably", body = CollectionJson),
        (status = "4XX", description = "The name or model is refused, or taken", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The disk or a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    caller: Caller,
    Json(json): Json<NewCollectionJson>,
) -> Result<(StatusCode, Json<CollectionJson>), Problem> {
    let model = json.model.as_deref().unwrap_or("auto").parse();
    let model = model.map_err(|e| Problem::bad_request(format!("model: {e}")))?;
    let audit = state.operations().audit.clone();
    // With the work, so that a caller that goes away meanwhile leaves its entry too.
    let create = move |db: &Db| {
        let status = db.create_collection(&json.name, model)?.status();
        audit.record(Action::new(caller.name(), "collection.create", &status.name));
        Ok(status)
    };
    let status = state.blocking(Work::Write, create).await?;
    Ok((StatusCode::CREATED, Json(status.into())))
}

/// Look at a collection
#[utoipa::path(
    get, path = "/collections/{collection}", operation_id = "get_collection", tag = "collections",
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 200, description = "Its figures", body = CollectionJson),
        (status = "4XX", description = "There is none of this name", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "It is damaged", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<Json<CollectionJson>, Problem> {
    Ok(Json(state.collection(&name)?.status().into()))
}

/// Drop a collection and everything in it
#[utoipa::path(
    delete, path = "/collections/{collection}", operation_id = "drop_collection", tag = "collections",
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 204, description = "Dropped, durably"),
        (status = "4XX", description = "There is none of this name", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The disk or a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn drop(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let audit = state.operations().audit.clone();
    let drop = move |db: &Db| {
        db.drop_collection(&name)?;
        audit.record(Action::new(caller.name(), "collection.drop", &name));
        Ok(())
    };
    state.blocking(Work::Write, drop).await?;
    Ok(StatusCode::NO_CONTENT)
}
