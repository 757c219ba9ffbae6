//! Whether a browser asks because a page of another site told it to.
//!
//! A server that asks nobody for a key is protected by who can reach it, and every page that somebody
//! on this machine opens can make the browser there reach it: by sending a request across sites, or by
//! letting a name of its own point to this machine (DNS rebinding). A request with a key is safe: no
//! page of another site has one.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, header};

/// What a browser says of who asks (W3C, "Fetch Metadata Request Headers").
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request without a key is not answered; nothing when it may be. Only where `local` is set, that
/// is where nobody but this machine is let in without a key, does the name count that it is asked by: a
/// proxy that lets people in itself may call this server anything.
pub(crate) fn refusal(headers: &HeaderMap, local: bool) -> Option<&'static str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let crosses = match text(SITE) {
        Some(site) => !matches!(site, "same-origin" | "none"),
        // A page that came without encryption from another machine; tools send no origin.
        None => local && text(header::ORIGIN).is_some_and(|from| !is_of(from, host)),
    };
    if crosses {
        return Some("a page of another site sent it");
    }
    let foreign = local && !names_this_machine(host);
    foreign.then_some("it calls this machine by a name that anybody may have given it")
}

/// Whether an origin such as `http://localhost:8080` is this host's.
fn is_of(origin: &str, host: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host))
}

/// Whether a host, with or without its port, is an address, a name without a dot, or below `localhost`:
/// no page of the internet has such a name.
fn names_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.');
    // Without reading it as an address where one look tells: no name of the internet ends in a number.
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_below = || name.to_ascii_lowercase().ends_with(".localhost");
    !name.contains('.') || is_number || name.parse::<IpAddr>().is_ok() || is_below()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(local: bool, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()));
        refusal(&headers.collect(), local).is_some()
    }

    /// C5: a page of another site has no way in through the browser of who opened it.
    #[test]
    fn c5_pages_of_other_sites_are_refused_and_tools_are_not() {
        let here = ("host", "127.0.0.1:8080");
        for (headers, expected) in [
            (&[here][..], false),
            (&[], false),
            (&[here, ("sec-fetch-site", "none")], false),
            (
                &[here, ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8080")],
                false,
            ),
            (&[here, ("sec-fetch-site", "cross-site")], true),
            (&[here, ("sec-fetch-site", "same-site")], true),
            (&[here, ("sec-fetch-site", "anything")], true),
            (&[here, ("origin", "http://127.0.0.1:8080")], false),
            (&[here, ("origin", "http://127.0.0.1:8081")], true),
            (&[here, ("origin", "https://example.com")], true),
            (&[here, ("origin", "null")], true),
        ] {
            assert_eq!(refused(true, headers), expected, "{headers:?}");
        }
        assert!(refused(false, &[here, ("sec-fetch-site", "cross-site")]));
        assert!(!refused(false, &[here, ("origin", "https://example.com")]), "a proxy's own name");
    }

    /// C5: a name of the internet may point here as well as anywhere.
    #[test]
    fn c5_names_that_anybody_may_point_here_are_refused() {
        for (host, expected) in [
            ("127.0.0.1", false),
            ("127.0.0.1:8080", false),
            ("[::1]:8080", false),
            ("localhost:8080", false),
            ("LOCALHOST", false),
            ("search.localhost:8080", false),
            ("mainstay", false),
            ("[::ffff:1.2.3.4]:8080", false),
            ("example.com", true),
            ("example.com:8080", true),
            ("1.2.3.4.com", true),
            ("127.0.0.1.example.com", true),
            ("localhost.example.com.", true),
        ] {
            assert_eq!(refused(true, &[("host", host)]), expected, "{host}");
            assert!(!refused(false, &[("host", host)]), "{host}");
        }
    }
}
