//! The audit trail of what came to nothing: changes by an administrator that were refused or failed.
//!
//! Whoever makes a change records it with what changed, where it is made, so that a caller that goes
//! away meanwhile leaves its entry too. This layer sees the others, whose handlers never began or
//! never ended: with both every request that changes something leaves one entry. Who is not let in is
//! counted and leaves none, or a guesser could push the trail out of its file.

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::response::Response;
use mainstay_ops::audit::{Action, Outcome};

use crate::caller::Caller;
use crate::problem::Told;
use crate::state::State;

/// Routes by which an administrator changes something, with what the audit trail calls it. What
/// only asks, and the documents, which the log keeps, are not among them.
pub(crate) const ACTIONS: &[(&str, &str, &str)] = &[
    ("POST", "/collections", "collection.create"),
    ("DELETE", "/collections/{collection}", "collection.drop"),
    ("POST", "/admin/collections/{collection}/verify", "collection.verify"),
    ("POST", "/admin/collections/{collection}/rebuild", "view.rebuild"),
    ("PUT", "/admin/collections/{collection}/weights", "collection.weights"),
    ("POST", "/admin/dependencies/{*name}", "breaker.act"),
    ("PUT", "/admin/level", "level.hold"),
    ("DELETE", "/admin/level", "level.release"),
    ("PUT", "/admin/flags/{name}", "flag.set"),
    ("DELETE", "/admin/flags/{name}", "flag.remove"),
    ("POST", "/admin/keys", "key.create"),
    ("DELETE", "/admin/keys/{id}", "key.revoke"),
    ("POST", "/admin/keys/{id}/rotate", "key.rotate"),
    ("POST", "/admin/config/reload", "config.reload"),
];

/// A change that a request asks for.
pub(crate) struct Change {
    name: &'static str,
    target: String,
}

impl Change {
    /// What it asks for; nothing where it changes nothing.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let verb = request.method().as_str();
        let known = ACTIONS.iter().find(|(known, path, _)| verb == *known && route == Some(*path));
        known.map(|(_, path, name)| Self { name, target: target(path, request.uri().path()) })
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
    use crate::route_kind::RouteKind;
    use axum::http::Method as Verb;

    /// C5: no change is missing from the audit trail because somebody forgot its route.
    #[test]
    fn every_route_of_the_contract_that_changes_something_has_a_name_in_the_audit_trail() {
        let contract: serde_json::Value =
            serde_json::from_str(&crate::routes::openapi()).unwrap_or_default();
        let paths = contract["paths"].as_object().cloned().unwrap_or_default();
        let mut changes = 0;
        for (path, item) in paths {
            for verb in item.as_object().into_iter().flatten().map(|(verb, _)| verb) {
                let verb = verb.to_ascii_uppercase();
                let method: Verb = verb.parse().unwrap_or_default();
                let kind = RouteKind::of(&method, &path);
                let asks = matches!(method, Verb::GET | Verb::HEAD);
                let known = ACTIONS
                    .iter()
                    .any(|(known, route, _)| *known == verb && route.replace("{*", "{") == path);
                let expected = !asks && matches!(kind, RouteKind::Admin | RouteKind::Manage);
                assert_eq!(known, expected, "{verb} {path}");
                changes += usize::from(known);
            }
        }
        assert_eq!(changes, ACTIONS.len(), "each name stands for a route");
    }

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
