//! `POST /search`.

use std::time::Duration;

use axum::extract::State as Shared;
use mainstay_db::search_answer::MethodStatus;
use mainstay_db::{COLLECTION_DEFAULT, Method, SearchAnswer, SearchRequest, Syntax};
use mainstay_ops::admission::{Load, SearchCost};

use super::{Json, Path};
use crate::authenticate;
use crate::caller::Caller;
use crate::problem::Problem;
use crate::search_json::SearchRequestJson;
use crate::slow_search;
use crate::standing;
use crate::state::{State, Work};
use crate::wire::SearchAnswerJson;

/// Search a collection
///
/// The collection is named in the body; `default` when absent.
#[utoipa::path(
    post, path = "/search", operation_id = "search_default", tag = "search", request_body = SearchRequestJson,
    responses(
        (status = 200, description = "The hits, and what the answer is worth", body = SearchAnswerJson),
        (status = "4XX", description = "The request cannot be answered", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "No method answered, or the server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn search(
    Shared(state): Shared<State>,
    caller: Caller,
    Json(json): Json<SearchRequestJson>,
) -> Result<Json<SearchAnswerJson>, Problem> {
    let name = json.collection.clone().unwrap_or_else(|| COLLECTION_DEFAULT.to_string());
    run(state, &caller, name, &json).await
}

/// Search this collection
#[utoipa::path(
    post, path = "/collections/{collection}/search", operation_id = "search_collection", tag = "search", request_body = SearchRequestJson,
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 200, description = "The hits, and what the answer is worth", body = SearchAnswerJson),
        (status = "4XX", description = "The request cannot be answered", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "No method answered, or the server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn search_collection(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(name): Path<String>,
    Json(json): Json<SearchRequestJson>,
) -> Result<Json<SearchAnswerJson>, Problem> {
    if json.collection.is_some() {
        return Err(Problem::bad_request("collection: the path names it already; leave it out"));
    }
    run(state, &caller, name, &json).await
}

/// What is left at least for a search that waited: enough for one method to say something.
const TIMEOUT_LEFT_MIN: Duration = Duration::from_millis(5);

/// What a search costs, from what it asks for.
fn load(request: &SearchRequest) -> Load {
    let methods = request.methods();
    let cost = SearchCost {
        methods: methods.len(),
        semantic: methods.contains(&Method::Semantic),
        regex: request.pattern.syntax == Syntax::Regex && methods.contains(&Method::Native),
        hits: request.offset.saturating_add(request.limit),
        bodies: request.with_body,
    };
    Load { cost: cost.units(), bytes: cost.bytes(), patience: request.timeout }
}

async fn run(
    state: State,
    caller: &Caller,
    name: String,
    json: &SearchRequestJson,
) -> Result<Json<SearchAnswerJson>, Problem> {
    authenticate::require_collection(caller, &name)?;
    let mut request = json.request()?;
    let collection = state.collection(&name)?;
    let standing = state.operations().levels.standing();
    request.service = standing::service(state.operations(), &standing, caller, &name);
    let kept = state.answers().key(&name, json);
    if standing.effects.stale_answers
        && standing::gives_stale(state.operations(), caller)
        && let Some(answer) =
            kept.as_ref().and_then(|key| state.answers().instead(key, &standing.reason))
    {
        return Ok(Json(answer));
    }
    let in_time = |answer: &SearchAnswer| {
        answer.methods.iter().all(|method| method.status != MethodStatus::TimedOut)
    };
    // What is wrong with it is told before it waits or is charged for what it asks.
    request.validate()?;
    let (load, config) = (load(&request), state.config());
    let found = state
        .weighed(Work::Search, load, in_time, move |_, waited| {
            // The caller's time runs while it waits.
            request.timeout = request.timeout.saturating_sub(waited).max(TIMEOUT_LEFT_MIN);
            let answer = collection.search(&request)?;
            slow_search::note(&config, &name, &request, &answer);
            Ok(answer)
        })
        .await;
    match (found, kept) {
        (Ok(answer), key) => {
            let answer = SearchAnswerJson::from(answer);
            if let Some(key) = key.filter(|_| answer.complete) {
                state.answers().keep(key, &answer);
            }
            Ok(Json(answer))
        }
        (Err(problem), Some(key))
            if problem.status >= 500 && standing::gives_stale(state.operations(), caller) =>
        {
            state.answers().instead(&key, &problem.detail).map(Json).ok_or(problem)
        }
        (Err(problem), _) => Err(problem),
    }
}
