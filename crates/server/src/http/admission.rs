//! Which requests are begun, seen from outside.

use axum::extract::State as Shared;
use mainstay_ops::admission::Group;

use super::Json;
use crate::state::State;

/// Shared quotas that are shown.
const SHARED_SHOWN: usize = 100;

/// How full the server is, and what its rate limits have done
#[utoipa::path(
    get, path = "/admin/admission", operation_id = "get_admission", tag = "admin",
    responses((status = 200, description = "The limits now, what runs and what waits, and each rate limit", body = serde_json::Value))
)]
pub(crate) async fn get(Shared(state): Shared<State>) -> Json<serde_json::Value> {
    let admission = state.admission();
    let mut shared = admission.shared_report();
    shared.truncate(SHARED_SHOWN);
    Json(serde_json::json!({
        "admits_from": admission.admits_from(),
        "reads": admission.report(Group::Search),
        "writes": admission.report(Group::Write),
        "rates": admission.rates_report(),
        "shared": shared,
    }))
}
