//! The routes that rates may name: those that pass limits, by the operation ids of the contract.

use mainstay_ops::admission::RateScope;

use crate::nearest::nearest;

/// Method, path and operation id.
const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/collections", "list_collections"),
    ("POST", "/collections", "create_collection"),
    ("GET", "/collections/{collection}", "get_collection"),
    ("DELETE", "/collections/{collection}", "drop_collection"),
    ("PUT", "/collections/{collection}/documents", "put_documents"),
    ("GET", "/collections/{collection}/documents", "list_documents"),
    ("POST", "/collections/{collection}/documents/delete", "delete_documents"),
    ("GET", "/collections/{collection}/documents/{*id}", "get_document"),
    ("PUT", "/collections/{collection}/documents/{*id}", "put_document"),
    ("DELETE", "/collections/{collection}/documents/{*id}", "delete_document"),
    ("POST", "/search", "search_default"),
    ("POST", "/collections/{collection}/search", "search_collection"),
];

/// The name of a route; empty for one that no rate may name.
pub(crate) fn route_name(verb: &str, path: &str) -> &'static str {
    let found = ROUTES.iter().find(|(known, route, _)| *known == verb && *route == path);
    found.map_or("", |(.., name)| name)
}

/// What a name in a rate stands for: a group of routes, or one route.
pub(crate) fn rate_scope(name: &str) -> Result<RateScope, String> {
    let route = || ROUTES.iter().find(|(.., known)| *known == name);
    if let Some(scope) = RateScope::of_name(name) {
        return Ok(scope);
    }
    if let Some((.., name)) = route() {
        return Ok(RateScope::Route(name));
    }
    let groups = ["search", "read", "write", "all"];
    let known = groups.into_iter().chain(ROUTES.iter().map(|(.., name)| *name));
    let hint = match nearest(name, known.map(ToString::to_string)) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => {
            "known are search, read, write, all and the operation ids of routes that pass limits"
                .to_string()
        }
    };
    Err(format!("there is no group or route {name:?}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::group;
    use crate::route_kind::RouteKind;

    /// O4: each route that passes limits can be named, as the contract calls it, and no other.
    #[test]
    fn o4_the_names_of_routes_are_the_operation_ids_of_the_contract() {
        let contract: serde_json::Value =
            serde_json::from_str(&crate::routes::openapi()).unwrap_or_default();
        let paths = contract["paths"].as_object().cloned().unwrap_or_default();
        let (mut named, mut ids) = (0, std::collections::BTreeSet::new());
        for (path, item) in paths {
            for (verb, operation) in item.as_object().into_iter().flatten() {
                let verb = verb.to_ascii_uppercase();
                let route = path.replace("/documents/{id}", "/documents/{*id}");
                let limited =
                    group(RouteKind::of(&verb.parse().unwrap_or_default(), &path)).is_some();
                let id = operation["operationId"].as_str().unwrap_or_default();
                assert!(ids.insert(id.to_string()), "{id} is the name of one operation");
                let expected = if limited { id } else { "" };
                assert_eq!(route_name(&verb, &route), expected, "{verb} {path}");
                named += usize::from(limited);
            }
        }
        assert_eq!(named, ROUTES.len(), "each name stands for one route");
        assert!(ROUTES.iter().all(|(.., name)| RateScope::of_name(name).is_none()));
    }

    #[test]
    fn o4_a_name_that_is_unknown_is_told_with_the_nearest_one() {
        assert_eq!(rate_scope("drop_collection"), Ok(RateScope::Route("drop_collection")));
        for (name, hint) in [
            ("search_colection", "did you mean search_collection?"),
            ("serch", "did you mean search?"),
            ("health", "known are search, read"),
        ] {
            let told = rate_scope(name).err().unwrap_or_default();
            assert!(told.contains(hint), "{told}");
        }
    }
}
