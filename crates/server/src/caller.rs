//! [`Caller`]: who sent a request, for the audit trail and for flags.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// The identity that authentication attached to a request.
#[derive(Clone, Debug)]
pub(crate) struct CallerKey(pub(crate) String);

/// Who sent a request: the id of a key, or `anonymous`.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let key = parts.extensions.get::<CallerKey>();
        Ok(Self(key.map_or_else(|| "anonymous".to_string(), |key| key.0.clone())))
    }
}
