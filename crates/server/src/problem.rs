//! [`Problem`]: every error over HTTP, as RFC 9457 problem details with a stable code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mainstay_db::DbError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error answer (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem: `urn:mainstay:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status code's own words.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// A stable name for programs, such as `collection_not_found`.
    pub code: String,
    /// What happened, which bound it passed, and what to do.
    pub detail: String,
    /// The byte of the query at which it goes wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<usize>,
    /// Each fault of an invalid document: `field: reason`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<String>,
    /// The policy that refused the request, such as `search-per-key` or `queue`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<String>,
    /// Why it did, such as `key_rate` or `queue_full`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Milliseconds after which to try again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
}

/// On an answer: admission has turned the request away on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnedAway;

/// On an answer: what its problem says, for the audit trail.
#[derive(Clone, Debug)]
pub(crate) struct Told(pub(crate) String);

impl Problem {
    /// A problem with this status, code and detail.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:mainstay:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_string(),
            status: status.as_u16(),
            code: code.to_string(),
            detail: detail.into(),
            position: None,
            errors: Vec::new(),
            policy: None,
            reason: None,
            retry_after_ms: None,
        }
    }

    /// A request that cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// There is nothing at this path.
    pub(crate) fn no_route(path: &str) -> Self {
        let detail =
            format!("there is nothing at {path:.128}; GET /openapi.json lists what there is");
        Self::new(StatusCode::NOT_FOUND, "route_not_found", detail)
    }

    /// The server is at a bound; try again.
    pub fn busy(detail: impl Into<String>, retry_after_ms: u64) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail);
        Self { retry_after_ms: Some(retry_after_ms), ..problem }
    }
}

/// How often a log on a full disk looks whether there is room again; a log whose queue is full has
/// written it by then on any disk that works.
const ROOM_CHECK_MS: u64 = 1_000;

/// The one table from errors to status codes.
fn status_of(error: &DbError) -> StatusCode {
    match error.code() {
        "collection_not_found" | "document_not_found" => StatusCode::NOT_FOUND,
        "collection_exists" => StatusCode::CONFLICT,
        "query" | "bound" | "collection_name" | "invalid_document" | "too_many_collections" => {
            StatusCode::BAD_REQUEST
        }
        "disk_full" => StatusCode::INSUFFICIENT_STORAGE,
        "write_queue_full" | "unanswered" | "collection_closed" | "data_directory_locked" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        "record_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "embedding" | "model_mismatch" => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        let status = status_of(&error);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code = error.code(), %error, "request failed");
        }
        let mut problem = Self::new(status, error.code(), error.to_string());
        match &error {
            DbError::Query { position, .. } => problem.position = *position,
            DbError::InvalidDocument(faults) => {
                problem.errors = faults.iter().map(ToString::to_string).collect();
            }
            DbError::Unanswered { retry_after_ms, .. } => problem.retry_after_ms = *retry_after_ms,
            _ => {}
        }
        if status == StatusCode::INSUFFICIENT_STORAGE || error.code() == "write_queue_full" {
            problem.retry_after_ms = Some(ROOM_CHECK_MS);
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (retry_after, refused) = (self.retry_after_ms, self.policy.is_some());
        let told = Told(format!("{}: {}", self.code, self.detail));
        let mut response = (status, axum::Json(self)).into_response();
        response.extensions_mut().insert(told);
        if refused {
            response.extensions_mut().insert(TurnedAway);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait_ms) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1000).max(1)));
        }
        response
    }
}
