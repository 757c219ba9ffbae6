//! The handlers, one file for each noun, and the extractor that they share.

pub(crate) mod admin;
pub(crate) mod admission;
mod body;
pub(crate) mod catalogue;
pub(crate) mod collections;
pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod dependencies;
pub(crate) mod documents;
pub(crate) mod flags;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod levels;
pub(crate) mod search;
pub(crate) mod slo;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use mainstay_db::DbError;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use body::{Pieces, read_body};

use crate::problem::Problem;
use crate::state::State;

/// A JSON body: read within the bounds, refused with problem details.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<State> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &State) -> Result<Self, Problem> {
        require_json(&request)?;
        let bytes = read_body(request, state).await?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| Problem::bad_request(format!("the body is not what is expected: {e}")))?;
        Ok(Self(value))
    }
}

/// About as many headers as an answer gets, so that room is made for them once.
pub(crate) const HEADERS: usize = 16;
/// About as long as a page of hits with their snippets: a buffer that grows is copied each time.
const ANSWER_BYTES: usize = 8 << 10;

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut bytes = Vec::with_capacity(ANSWER_BYTES);
        if let Err(error) = serde_json::to_writer(&mut bytes, &self.0) {
            let why = format!("the answer cannot be written: {error}");
            return Problem::from(DbError::Internal(why)).into_response();
        }
        let mut response = Response::new(Body::from(bytes));
        let headers = response.headers_mut();
        headers.reserve(HEADERS);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Query parameters, refused with problem details.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> axum::extract::FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|e| Problem::bad_request(e.body_text()))
    }
}

/// Path parameters, refused with problem details.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> axum::extract::FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|e| Problem::bad_request(e.body_text()))
    }
}

/// Reads a duration such as `30s` from the field `name`.
pub(crate) fn duration(name: &str, text: &str) -> Result<std::time::Duration, Problem> {
    mainstay_resilience::human_duration::parse(name, text)
        .map_err(|error| Problem::bad_request(error.to_string()))
}

fn content_type(request: &Request) -> &str {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or("application/json").split(';').next().unwrap_or_default().trim()
}

fn require_json(request: &Request) -> Result<(), Problem> {
    match content_type(request) {
        "application/json" => Ok(()),
        other => Err(Problem::new(
            axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!(
                "the body is {}; send application/json",
                other.chars().take(64).collect::<String>()
            ),
        )),
    }
}
