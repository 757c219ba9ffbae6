//! Who may do what: keys are recognised, and each path has its scope.
//!
//! Invariants: a path that no rule names needs a key; a page of another site gets nothing without one;
//! what is refused says neither whether a key exists nor why it does not fit; a peer that presents
//! wrong keys is slowed down.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mainstay_ops::keys::{Identity, Scope};

use crate::caller::Caller;
use crate::other_site;
use crate::problem::Problem;
use crate::route_kind::RouteKind;
use crate::state::State;

/// The header that carries a key beside `Authorization`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: what load balancers ask.
    Nothing,
    /// Nothing, or a key that may read, as the settings say.
    Metrics,
    /// A key with this scope.
    Key(Scope),
}

/// What a request of this kind needs.
fn needs(kind: RouteKind) -> Needs {
    match kind {
        RouteKind::Open => Needs::Nothing,
        RouteKind::Metrics => Needs::Metrics,
        // Which documents exist is a writer's business, which collections exist is not: a model
        // may name a folder or an address.
        RouteKind::Admin | RouteKind::Manage => Needs::Key(Scope::Admin),
        RouteKind::Search | RouteKind::Read | RouteKind::Unknown => Needs::Key(Scope::Read),
        RouteKind::Write => Needs::Key(Scope::Write),
    }
}

/// The collection that a path names.
fn collection_of(path: &str) -> Option<&str> {
    let rest =
        path.strip_prefix("/collections/").or_else(|| path.strip_prefix("/admin/collections/"))?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// The key that a request presents. Of several only the first counts.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = |value: &str| {
        let (scheme, key) = value.split_once(' ')?;
        Some((scheme.eq_ignore_ascii_case("bearer"), key.len()))
    };
    if let Some(value) = text(header::AUTHORIZATION)
        && let Some((true, length)) = bearer(value)
    {
        return Some(value[value.len() - length..].trim());
    }
    text(API_KEY).map(str::trim)
}

/// Who sent a request that may pass; else what to answer.
pub(crate) fn check(
    state: &State,
    kind: RouteKind,
    peer: Option<IpAddr>,
    request: &Request,
) -> Result<Caller, Box<Response>> {
    let path = request.uri().path();
    let needs = needs(kind);
    let access = state.access();
    let required = access.requires_keys();
    let key = presented(request.headers());
    let open =
        !required || needs == Needs::Nothing || needs == Needs::Metrics && access.metrics_open;
    let local = !required && !access.never;
    let keyless = || match other_site::refusal(request.headers(), local) {
        Some(why) if needs != Needs::Nothing => Err(from_elsewhere(why)),
        _ => Ok(Caller::of_peer(peer)),
    };
    let identity = match key {
        None if open => return keyless(),
        None => return Err(unauthorised(state, peer, "missing")),
        // Without keys of ours any key is as good as none.
        Some(_) if !required => return keyless(),
        Some(key) => match access.keys.recognise(key) {
            Ok(identity) => identity,
            Err(_) if needs == Needs::Nothing => return Ok(Caller::of_peer(peer)),
            Err(refused) => return Err(unauthorised(state, peer, refused.as_str())),
        },
    };
    let scope = match needs {
        Needs::Nothing => None,
        Needs::Metrics => Some(Scope::Read),
        Needs::Key(scope) => Some(scope),
    };
    if let Some(scope) = scope.filter(|scope| !identity.has(*scope)) {
        return Err(forbidden(&identity, &format!("it has no scope {}", scope.as_str())));
    }
    if let Some(collection) = collection_of(path).filter(|name| !identity.allows(name)) {
        return Err(forbidden(&identity, &format!("it may not touch collection {collection:.64}")));
    }
    if identity.is_restricted() && path.starts_with("/admin") && collection_of(path).is_none() {
        return Err(forbidden(&identity, "it is bound to some collections"));
    }
    Ok(Caller::of_key(identity))
}

fn unauthorised(state: &State, peer: Option<IpAddr>, reason: &'static str) -> Box<Response> {
    metrics::counter!("mainstay_auth_failures_total", "reason" => reason).increment(1);
    let slowed = match (reason, peer) {
        // Who forgets the key is not guessing.
        ("missing", _) | (_, None) => None,
        (_, Some(peer)) => state.access().guessed(peer).err(),
    };
    if let Some(wait_ms) = slowed.map(|wait| wait.as_millis() as u64) {
        let detail = "too many wrong keys came from this address; try again later";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_keys", detail);
        return Box::new(Problem { retry_after_ms: Some(wait_ms), ..problem }.into_response());
    }
    let detail = match reason {
        "missing" => {
            "this needs an API key: send `Authorization: Bearer KEY`; `mainstay keys create` makes one"
        }
        _ => "the API key is not known, or its time is over",
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorised", detail);
    let mut response = problem.into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"mainstay\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    Box::new(response)
}

fn forbidden(identity: &Identity, why: &str) -> Box<Response> {
    let reason = "forbidden";
    metrics::counter!("mainstay_auth_failures_total", "reason" => reason).increment(1);
    let detail = format!("key {} may not do this: {why}", identity.id);
    Box::new(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response())
}

fn from_elsewhere(why: &str) -> Box<Response> {
    metrics::counter!("mainstay_auth_failures_total", "reason" => "other_site").increment(1);
    let detail = format!(
        "{why}, and this server has no keys by which to tell who asks: ask it at 127.0.0.1 or localhost, or make \
         a key with `mainstay keys create` and send it"
    );
    Box::new(Problem::new(StatusCode::FORBIDDEN, "other_site", detail).into_response())
}

/// Refuses a collection that a body names and the caller may not touch.
pub(crate) fn require_collection(caller: &Caller, collection: &str) -> Result<(), Problem> {
    if caller.allows(collection) {
        return Ok(());
    }
    let detail = format!("key {} may not touch collection {collection:.64}", caller.name());
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Method as Verb;

    /// C5: no path is open because somebody forgot it.
    #[test]
    fn every_path_of_the_contract_needs_a_key_but_health_and_the_contract_itself() {
        let contract: serde_json::Value =
            serde_json::from_str(&crate::routes::openapi()).unwrap_or_default();
        let paths = contract["paths"].as_object().cloned().unwrap_or_default();
        assert!(paths.len() > 20, "the contract has its paths");
        for (path, item) in paths {
            for verb in item.as_object().into_iter().flatten().map(|(verb, _)| verb) {
                let verb = verb.to_ascii_uppercase().parse::<Verb>().unwrap_or_default();
                let open = path.starts_with("/health");
                let expected = match needs(RouteKind::of(&verb, &path)) {
                    Needs::Nothing => open,
                    Needs::Metrics => path == "/metrics",
                    Needs::Key(Scope::Admin) => {
                        path.starts_with("/admin") || path.starts_with("/collections")
                    }
                    Needs::Key(_) => !open && !path.starts_with("/admin"),
                };
                assert!(expected, "{verb} {path} needs {:?}", needs(RouteKind::of(&verb, &path)));
            }
        }
        for (verb, path, expected) in [
            (Verb::POST, "/search", Needs::Key(Scope::Read)),
            (Verb::POST, "/collections/docs/search", Needs::Key(Scope::Read)),
            (Verb::PUT, "/collections/docs/documents", Needs::Key(Scope::Write)),
            (Verb::DELETE, "/collections/docs/documents/a/b", Needs::Key(Scope::Write)),
            (Verb::PUT, "/collections/docs/documents/a/search", Needs::Key(Scope::Write)),
            (Verb::POST, "/collections", Needs::Key(Scope::Admin)),
            (Verb::DELETE, "/collections/docs", Needs::Key(Scope::Admin)),
            (Verb::GET, "/healthy", Needs::Key(Scope::Read)),
            (Verb::GET, "/administration", Needs::Key(Scope::Read)),
            (Verb::GET, "/", Needs::Key(Scope::Read)),
        ] {
            assert_eq!(needs(RouteKind::of(&verb, path)), expected, "{verb} {path}");
        }
    }

    #[test]
    fn a_key_is_read_from_either_header() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(
                header::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )])
        };
        assert_eq!(presented(&headers("authorization", "bearer  msk_a_b ")), Some("msk_a_b"));
        assert_eq!(presented(&headers("x-api-key", "msk_a_b")), Some("msk_a_b"));
        assert_eq!(presented(&headers("authorization", "Basic eA==")), None);
        assert_eq!(presented(&HeaderMap::new()), None);
    }
}
