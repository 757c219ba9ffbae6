//! [`Route`]: what the table of routes says of a request, looked up once for everybody in front of the
//! handlers: its path as a label, its name in rates, what the audit trail calls it.
//!
//! The router finds the handler by itself, later; a test holds both against each other.

use axum::http::Method as Verb;

use crate::route_kind::RouteKind;

/// The path of a request that no path of ours matches; its own would be an unbounded label.
const UNMATCHED: &str = "unmatched";

/// Method, path, operation id of the contract, and what the audit trail calls the change that it makes:
/// empty for what only asks, and for the documents, which the log keeps.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Rows of one path stand together; those that are asked most stand in front, and a path without a
/// parameter stands before one whose parameter would match it too.
pub(crate) static ROUTES: [Row; 46] = [
    ("POST", "/search", "search_default", ""),
    ("POST", "/collections/{collection}/search", "search_collection", ""),
    ("PUT", "/collections/{collection}/documents", "put_documents", ""),
    ("GET", "/collections/{collection}/documents", "list_documents", ""),
    ("POST", "/collections/{collection}/documents/delete", "delete_documents", ""),
    ("GET", "/collections/{collection}/documents/{*id}", "get_document", ""),
    ("PUT", "/collections/{collection}/documents/{*id}", "put_document", ""),
    ("DELETE", "/collections/{collection}/documents/{*id}", "delete_document", ""),
    ("GET", "/health/ready", "ready", ""),
    ("GET", "/health/live", "live", ""),
    ("GET", "/health/startup", "startup", ""),
    ("GET", "/health", "health", ""),
    ("GET", "/metrics", "metrics", ""),
    ("GET", "/collections", "list_collections", ""),
    ("POST", "/collections", "create_collection", "collection.create"),
    ("GET", "/collections/{collection}", "get_collection", ""),
    ("DELETE", "/collections/{collection}", "drop_collection", "collection.drop"),
    ("POST", "/admin/collections/{collection}/verify", "verify_collection", "collection.verify"),
    ("POST", "/admin/collections/{collection}/rebuild", "rebuild_collection", "view.rebuild"),
    ("GET", "/admin/collections/{collection}/set-aside", "list_set_aside", ""),
    ("PUT", "/admin/collections/{collection}/weights", "set_weights", "collection.weights"),
    ("GET", "/admin/dependencies", "list_dependencies", ""),
    ("GET", "/admin/dependencies/{*name}", "get_dependency", ""),
    ("POST", "/admin/dependencies/{*name}", "act_on_dependency", "breaker.act"),
    ("GET", "/admin/admission", "get_admission", ""),
    ("GET", "/admin/level", "get_level", ""),
    ("PUT", "/admin/level", "hold_level", "level.hold"),
    ("DELETE", "/admin/level", "release_level", "level.release"),
    ("GET", "/admin/flags", "list_flags", ""),
    ("GET", "/admin/flags/{name}", "evaluate_flag", ""),
    ("PUT", "/admin/flags/{name}", "set_flag", "flag.set"),
    ("DELETE", "/admin/flags/{name}", "remove_flag", "flag.remove"),
    ("GET", "/admin/keys", "list_keys", ""),
    ("POST", "/admin/keys", "create_key", "key.create"),
    ("DELETE", "/admin/keys/{id}", "revoke_key", "key.revoke"),
    ("POST", "/admin/keys/{id}/rotate", "rotate_key", "key.rotate"),
    ("GET", "/admin/catalogue", "get_catalogue", ""),
    ("GET", "/admin/slo", "get_slo", ""),
    ("GET", "/admin/slo/rules", "get_slo_rules", ""),
    ("GET", "/admin/audit", "list_audit", ""),
    ("GET", "/admin/resources", "get_resources", ""),
    ("GET", "/admin/config", "get_config", ""),
    ("POST", "/admin/config/reload", "reload_config", "config.reload"),
    ("GET", "/openapi.json", "openapi", ""),
    ("GET", "/console", "console", ""),
    ("GET", "/console/{file}", "console_file", ""),
];

/// The route of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// What it is about.
    pub(crate) kind: RouteKind,
    /// Its path with the names of its parameters; a label.
    pub(crate) path: &'static str,
    /// What rates call it; empty where none may name it.
    pub(crate) name: &'static str,
    /// What the audit trail calls the change that it makes; empty where it makes none.
    pub(crate) change: &'static str,
    /// Its place in the table, unless the path has no such method.
    pub(crate) row: Option<usize>,
}

impl Route {
    /// The route of a request with this path.
    pub(crate) fn of(verb: &Verb, path: &str) -> Self {
        let kind = RouteKind::of(verb, path);
        let unmatched = Self { kind, path: UNMATCHED, name: "", change: "", row: None };
        let Some(first) = ROUTES.iter().position(|(_, known, ..)| matches(known, path)) else {
            return unmatched;
        };
        let known = ROUTES[first].1;
        let same = ROUTES[first..].iter().take_while(|(_, path, ..)| *path == known);
        let at = same.map(|(known, ..)| *known).position(|known| known == verb.as_str());
        let Some(row) = at.map(|at| first + at) else {
            return Self { path: known, ..unmatched };
        };
        let (_, path, name, change) = ROUTES[row];
        let name = if kind.group().is_some() { name } else { "" };
        Self { kind, path, name, change, row: Some(row) }
    }
}

/// Whether a path is one of the kind that `known` stands for: `{name}` is any part of it, `{*name}` is all
/// that is left. Neither is empty at the end of a path; the router takes an empty part within it.
fn matches(known: &str, path: &str) -> bool {
    let Some(parameter) = known.find('{') else { return known == path };
    let (before, rest) = known.split_at(parameter);
    let Some(given) = path.strip_prefix(before) else { return false };
    let (name, rest) = rest.split_once('}').unwrap_or((rest, ""));
    let end = if name.starts_with("{*") { None } else { given.find('/') };
    let (value, given) = given.split_at(end.unwrap_or(given.len()));
    (!value.is_empty() || !rest.is_empty()) && matches(rest, given)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::extract::{MatchedPath, Request};
    use axum::middleware::{Next, from_fn};
    use axum::response::{IntoResponse, Response};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use tower::ServiceExt;

    /// Every operation of the contract, with `{*` where the router has it.
    fn contract() -> Vec<(Verb, String, String)> {
        let contract: serde_json::Value =
            serde_json::from_str(&crate::routes::openapi()).unwrap_or_default();
        let paths = contract["paths"].as_object().cloned().unwrap_or_default();
        let mut all = Vec::new();
        for (path, item) in paths {
            for (verb, operation) in item.as_object().into_iter().flatten() {
                let id = operation["operationId"].as_str().unwrap_or_default().to_string();
                all.push((verb.to_ascii_uppercase().parse().unwrap(), path.clone(), id));
            }
        }
        all
    }

    /// O4 and C5: what rates and the audit trail call a route is what the contract calls it, and nothing
    /// that changes something is missing there because somebody forgot it.
    #[test]
    fn every_operation_of_the_contract_is_a_row_and_every_row_an_operation() {
        let mut ids = BTreeSet::new();
        for (verb, path, id) in contract() {
            assert!(ids.insert(id.clone()), "{id} is the name of one operation");
            let route = Route::of(&verb, &path);
            let row = ROUTES[route.row.unwrap_or_else(|| panic!("{verb} {path} has no row"))];
            assert_eq!((row.0, row.1.replace("{*", "{").as_str()), (verb.as_str(), &*path));
            assert_eq!(row.2, id, "{verb} {path}");
            let limited = route.kind.group().is_some();
            assert_eq!(route.name, if limited { &id } else { "" }, "{verb} {path}");
            let asks = matches!(verb, Verb::GET | Verb::HEAD);
            let changes = !asks && matches!(route.kind, RouteKind::Admin | RouteKind::Manage);
            assert_eq!(!route.change.is_empty(), changes, "{verb} {path}");
        }
        assert!(ids.len() > 40);
        let others = ["openapi", "console", "console_file"];
        for (verb, path, id, change) in ROUTES {
            assert!(ids.contains(id) || others.contains(&id), "{verb} {path}: {id}");
            assert!(change.is_empty() || ids.contains(id), "{change} is of the contract");
        }
        assert_eq!(ROUTES.len(), ids.len() + others.len());
    }

    /// The router with every handler replaced by what path it matched.
    fn told() -> Router {
        async fn tell(matched: Option<MatchedPath>, _: Request, _: Next) -> Response {
            matched.map_or("unmatched".into(), |it| it.as_str().to_string()).into_response()
        }
        let mut router = Router::new();
        let paths: BTreeSet<&str> = ROUTES.iter().map(|(_, path, ..)| *path).collect();
        for path in paths {
            router = router.route(path, axum::routing::get(|| async {}));
        }
        router.fallback(|| async {}).layer(from_fn(tell))
    }

    async fn ask(router: Router, verb: Verb, path: &str) -> String {
        let request = axum::http::Request::builder().method(verb).uri(path);
        let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let body = to_bytes(answer.into_body(), 4096).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn part() -> impl Strategy<Value = String> {
        let known: Vec<&str> = ROUTES.iter().flat_map(|(_, path, ..)| path.split('/')).collect();
        prop_oneof![
            8 => prop::sample::select(known).prop_map(|part| part.replace(['{', '}', '*'], "")),
            1 => Just(String::new()),
            2 => "[a-z0-9.~%2F-]{1,6}".prop_map(|part| part.replace('%', "%41")),
        ]
    }

    fn found_alike(path: &str) -> (String, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let matched = runtime.block_on(ask(told(), Verb::GET, path));
        (Route::of(&Verb::GET, path).path.to_string(), matched)
    }

    #[test]
    fn an_empty_part_is_taken_as_the_router_takes_it() {
        for path in [
            "/admin/keys//rotate",
            "/admin/keys/",
            "/collections//documents",
            "/collections//documents/x",
            "/collections/",
            "/collections/a/documents/",
            "/collections/a/documents//",
            "/collections/a/documents//x",
            "/console/",
            "/search/",
            "//search",
            "/",
        ] {
            let (ours, theirs) = found_alike(path);
            assert_eq!(ours, theirs, "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn the_table_finds_the_path_that_the_router_finds(parts in prop::collection::vec(part(), 0..6)) {
            let path = format!("/{}", parts.join("/"));
            let (ours, theirs) = found_alike(&path);
            prop_assert_eq!(ours, theirs, "{}", path);
        }
    }

    /// No path of the router that answers is missing.
    #[test]
    fn every_path_of_the_router_has_a_row() {
        let source = include_str!("routes.rs");
        let named = source.split(".route(").skip(1).filter_map(|rest| rest.split('"').nth(1));
        let routed: BTreeSet<&str> = named.collect();
        assert_eq!(routed, ROUTES.iter().map(|(_, path, ..)| *path).collect());
    }

    #[test]
    fn a_method_that_a_path_does_not_have_has_no_row() {
        for (verb, path, row) in [
            (Verb::POST, "/search", true),
            (Verb::GET, "/search", false),
            (Verb::HEAD, "/health", false),
            (Verb::GET, "/collections/a/documents/delete", false),
            (Verb::DELETE, "/collections/a/documents/delete/x", true),
            (Verb::GET, "/collections/a/documents/", false),
            (Verb::GET, "/", false),
        ] {
            assert_eq!(Route::of(&verb, path).row.is_some(), row, "{verb} {path}");
        }
        assert_eq!(Route::of(&Verb::GET, "/search").path, "/search");
        assert_eq!(Route::of(&Verb::GET, "/nothing").path, UNMATCHED);
    }
}
