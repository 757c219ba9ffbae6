//! The audit trail of what came to nothing: changes by an administrator that were refused or failed.
//!
//! Whoever makes a change records it with what changed, where it is made, so that a caller that goes
//! away meanwhile leaves its entry too. This layer sees the others, whose handlers never began or
//! never ended: with both every request that changes something leaves one entry. Who is not let in is
//! counted and leaves none, or a guesser could push the trail out of its file.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use mainstay_ops::audit::{Action, Outcome};

use crate::caller::Caller;
use crate::problem::Told;
use crate::route::Route;
use crate::state::State;

/// A change that a request asks for.
pub(crate) struct Change {
    name: &'static str,
    target: String,
}

impl Change {
    /// What it asks for; nothing where it changes nothing.
    pub(crate) fn of(route: &Route, request: &Request) -> Option<Self> {
        let makes = !route.change.is_empty();
        makes.then(|| Self { name: route.change, target: target(route.path, request.uri().path()) })
    }

    /// What to record of it; nothing when it was made.
    pub(crate) fn came_to_nothing(self, caller: &Caller, response: &Response) -> Option<Action> {
        let outcome = outcome(response.status())?;
        let told = response.extensions().get::<Told>().map(|told| told.0.clone());
        let why = told.unwrap_or_else(|| format!("status {}", response.status().as_u16()));
        let action = Action::new(caller.name(), self.name, &self.target);
        Some(action.ended(outcome).because(&why))
    }
}

/// Records it, waiting for the disk.
pub(crate) async fn record(state: &State, action: Action) {
    let audit = state.operations().audit.clone();
    let _ = tokio::task::spawn_blocking(move || audit.record(action)).await;
}

/// What an answer says of a change; nothing when it was made.
fn outcome(status: StatusCode) -> Option<Outcome> {
    match status {
        // Turned away, or not taken now: it was not begun.
        StatusCode::SERVICE_UNAVAILABLE => Some(Outcome::Refused),
        status if status.is_server_error() => Some(Outcome::Failed),
        status if status.is_client_error() => Some(Outcome::Refused),
        _ => None,
    }
}

/// What a path names beside its route; the route's own last words when it names nothing.
fn target(route: &str, path: &str) -> String {
    let mut parts = path.split('/');
    let mut named: Vec<&str> = Vec::new();
    for part in route.split('/') {
        match part {
            _ if part.starts_with("{*") => named.extend(parts.by_ref()),
            _ if part.starts_with('{') => named.extend(parts.next()),
            _ => drop(parts.next()),
        }
    }
    match named.is_empty() {
        true => route.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default().to_string(),
        false => named.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_the_path_names() {
        for (route, path, expected) in [
            ("/collections", "/collections", "collections"),
            ("/admin/keys/{id}/rotate", "/admin/keys/ab/rotate", "ab"),
            ("/admin/dependencies/{*name}", "/admin/dependencies/a/bm25", "a/bm25"),
            ("/admin/config/reload", "/admin/config/reload", "reload"),
        ] {
            assert_eq!(target(route, path), expected);
        }
    }
}
