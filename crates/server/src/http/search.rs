//! `POST /search`.

use axum::extract::State as Shared;
use mainstay_db::{COLLECTION_DEFAULT, Db};

use super::{Json, Path};
use crate::problem::Problem;
use crate::search_json::SearchRequestJson;
use crate::slow_search;
use crate::state::{State, Work};
use crate::wire::SearchAnswerJson;

/// Search a collection
///
/// The collection is named in the body; `default` when absent.
#[utoipa::path(
    post, path = "/search", tag = "search", request_body = SearchRequestJson,
    responses(
        (status = 200, description = "The hits, and what the answer is worth", body = SearchAnswerJson),
        (status = "4XX", description = "The request cannot be answered", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "No method answered, or the server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn search(
    Shared(state): Shared<State>,
    Json(json): Json<SearchRequestJson>,
) -> Result<Json<SearchAnswerJson>, Problem> {
    let name = json.collection.clone().unwrap_or_else(|| COLLECTION_DEFAULT.to_string());
    run(state, name, &json).await
}

/// Search this collection
#[utoipa::path(
    post, path = "/collections/{collection}/search", tag = "search", request_body = SearchRequestJson,
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 200, description = "The hits, and what the answer is worth", body = SearchAnswerJson),
        (status = "4XX", description = "The request cannot be answered", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "No method answered, or the server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn search_collection(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Json(json): Json<SearchRequestJson>,
) -> Result<Json<SearchAnswerJson>, Problem> {
    if json.collection.is_some() {
        return Err(Problem::bad_request("collection: the path names it already; leave it out"));
    }
    run(state, name, &json).await
}

async fn run(
    state: State,
    name: String,
    json: &SearchRequestJson,
) -> Result<Json<SearchAnswerJson>, Problem> {
    let request = json.request()?;
    let collection = state.collection(&name)?;
    let config = state.config();
    let search = move |_: &Db| {
        let answer = collection.search(&request)?;
        slow_search::note(&config, &name, &request, &answer);
        Ok(answer)
    };
    let answer = state.blocking(Work::Search, search).await?;
    Ok(Json(answer.into()))
}
