//! What the names in rates stand for: groups of routes, and the routes that pass limits, by the operation
//! ids of the contract.

use axum::http::Method as Verb;
use mainstay_ops::admission::RateScope;

use crate::nearest::nearest;
use crate::route::ROUTES;
use crate::route_kind::RouteKind;

/// The routes that rates may name.
fn limited() -> impl Iterator<Item = &'static str> {
    let passes = |verb: &str, path| {
        let verb = Verb::from_bytes(verb.as_bytes());
        verb.is_ok_and(|verb| RouteKind::of(&verb, path).group().is_some())
    };
    ROUTES.iter().filter(move |(verb, path, ..)| passes(verb, path)).map(|(_, _, name, _)| *name)
}

/// What a name in a rate stands for: a group of routes, or one route.
pub(crate) fn rate_scope(name: &str) -> Result<RateScope, String> {
    if let Some(scope) = RateScope::of_name(name) {
        return Ok(scope);
    }
    if let Some(name) = limited().find(|known| *known == name) {
        return Ok(RateScope::Route(name));
    }
    let groups = ["search", "read", "write", "all"];
    let known = groups.into_iter().chain(limited());
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

    /// O4: no route is called as a group of them is.
    #[test]
    fn o4_a_name_stands_for_a_group_or_for_a_route() {
        assert!(limited().all(|name| RateScope::of_name(name).is_none()));
        assert_eq!(limited().count(), 12);
        assert!(rate_scope("list_keys").is_err(), "control calls pass every limit");
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
