//! The table of routes, and the OpenAPI document that is derived from it.

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use utoipa::OpenApi;

use crate::http::{
    admin, admission, catalogue, collections, config, console, dependencies, documents, flags,
    health, keys, levels, search, slo,
};
use crate::problem::Problem;
use crate::state::State;

/// Every path with its handlers, without what stands in front of them.
pub(crate) fn routes(state: State) -> Router {
    handlers().with_state(state)
}

/// Every path, its methods and handlers.
fn handlers() -> Router<State> {
    Router::new()
        .route("/search", post(search::search))
        .route("/collections", get(collections::list).post(collections::create))
        .route("/collections/{collection}", get(collections::get).delete(collections::drop))
        .route("/collections/{collection}/search", post(search::search_collection))
        .route("/collections/{collection}/documents", get(documents::list).put(documents::put))
        .route("/collections/{collection}/documents/delete", post(documents::delete_many))
        .route(
            "/collections/{collection}/documents/{*id}",
            get(documents::get_one).put(documents::put_one).delete(documents::delete_one),
        )
        .route("/admin/collections/{collection}/verify", post(admin::verify))
        .route("/admin/collections/{collection}/rebuild", post(admin::rebuild))
        .route("/admin/collections/{collection}/set-aside", get(admin::set_aside))
        .route("/admin/collections/{collection}/weights", put(admin::weights))
        .route("/admin/dependencies", get(dependencies::list))
        .route("/admin/dependencies/{*name}", get(dependencies::get).post(dependencies::act))
        .route("/admin/admission", get(admission::get))
        .route("/admin/level", get(levels::get).put(levels::hold).delete(levels::release))
        .route("/admin/flags", get(flags::list))
        .route("/admin/flags/{name}", get(flags::evaluate).put(flags::set).delete(flags::remove))
        .route("/admin/keys", get(keys::list).post(keys::create))
        .route("/admin/keys/{id}", axum::routing::delete(keys::revoke))
        .route("/admin/keys/{id}/rotate", post(keys::rotate))
        .route("/admin/catalogue", get(catalogue::get))
        .route("/admin/slo", get(slo::get))
        .route("/admin/slo/rules", get(slo::rules))
        .route("/admin/audit", get(slo::audit))
        .route("/admin/resources", get(slo::resources))
        .route("/admin/config", get(config::get))
        .route("/admin/config/reload", post(config::reload))
        .route("/health", get(health::health))
        .route("/health/startup", get(health::startup))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi_json))
        .route("/console", get(console::start))
        .route("/console/{file}", get(console::file))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// The contract of this server.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mainstay",
        description = "Hybrid search for documents and code that degrades instead of failing",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        search::search,
        search::search_collection,
        collections::list,
        collections::create,
        collections::get,
        collections::drop,
        documents::list,
        documents::put,
        documents::delete_many,
        documents::get_one,
        documents::put_one,
        documents::delete_one,
        admin::verify,
        admin::rebuild,
        admin::set_aside,
        admin::weights,
        dependencies::list,
        dependencies::get,
        dependencies::act,
        admission::get,
        levels::get,
        levels::hold,
        levels::release,
        keys::list,
        keys::create,
        keys::rotate,
        keys::revoke,
        flags::list,
        flags::evaluate,
        flags::set,
        flags::remove,
        catalogue::get,
        slo::get,
        slo::rules,
        slo::audit,
        slo::resources,
        config::get,
        config::reload,
        health::health,
        health::live,
        health::startup,
        health::ready,
        health::metrics,
    )
)]
struct Contract;

/// The OpenAPI document as JSON; checked in as `api/openapi.json`.
pub fn openapi() -> String {
    let mut text = Contract::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

async fn openapi_json() -> impl IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], openapi())
}

async fn not_found(uri: axum::http::Uri) -> Problem {
    Problem::no_route(uri.path())
}

async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let path: String = uri.path().chars().take(128).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{path} does not answer to {method}; GET /openapi.json lists what it answers to"),
    )
}
