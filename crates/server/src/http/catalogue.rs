//! The catalogue: which nodes there are and what they hold.

use axum::extract::State as Shared;

use super::Json;
use crate::sharing::CatalogueReport;
use crate::state::State;

/// The catalogue, the nodes and what each of them holds
///
/// Answers without the nodes when the database does not answer, and says what is wrong.
#[utoipa::path(
    get, path = "/admin/catalogue", operation_id = "get_catalogue", tag = "admin",
    responses((status = 200, description = "Where it is, whether it answers, its connections, nodes and collections", body = serde_json::Value))
)]
pub(crate) async fn get(Shared(state): Shared<State>) -> Json<CatalogueReport> {
    Json(state.operations().sharing.show().await)
}
