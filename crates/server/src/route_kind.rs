//! [`RouteKind`]: what a request is about, said once for those who let it in, limit it or refuse it.

use axum::http::Method as Verb;
use mainstay_ops::admission::Group;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// Health, the contract and the console's pages, which hold no data: what load balancers and new
    /// users ask.
    Open,
    /// Metrics.
    Metrics,
    /// Administration.
    Admin,
    /// A search.
    Search,
    /// Reading documents, listing collections.
    Read,
    /// Storing and removing documents.
    Write,
    /// Creating and dropping collections.
    Manage,
    /// Nothing that there is.
    Unknown,
}

impl RouteKind {
    /// What a request to this path is about. A document's id may look like another route
    /// (`/collections/a/documents/x/search`), so every part of the path counts.
    pub(crate) fn of(verb: &Verb, path: &str) -> Self {
        let reads = verb == Verb::GET || verb == Verb::HEAD;
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        match (parts.next().unwrap_or_default(), parts.next(), parts.next(), parts.next()) {
            ("health" | "console", ..) | ("openapi.json", None, ..) => Self::Open,
            ("metrics", None, ..) => Self::Metrics,
            ("admin", ..) => Self::Admin,
            ("search", None, ..) => Self::Search,
            ("collections", Some(_), Some("search"), None) if !reads => Self::Search,
            ("collections", ..) if reads => Self::Read,
            ("collections", Some(_), Some("documents"), _) => Self::Write,
            ("collections", ..) => Self::Manage,
            _ => Self::Unknown,
        }
    }

    /// What it counts as where it is limited; nothing for control calls.
    pub(crate) fn group(self) -> Option<Group> {
        match self {
            Self::Search => Some(Group::Search),
            Self::Read => Some(Group::Read),
            Self::Write | Self::Manage => Some(Group::Write),
            Self::Open | Self::Metrics | Self::Admin | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_path_counts() {
        for (verb, path, expected) in [
            (Verb::POST, "/search", RouteKind::Search),
            (Verb::POST, "/collections/a/search", RouteKind::Search),
            (Verb::GET, "/collections/a/search", RouteKind::Read),
            (Verb::GET, "/collections", RouteKind::Read),
            (Verb::GET, "/collections/a/documents/x/search", RouteKind::Read),
            (Verb::PUT, "/collections/a/documents/x/search", RouteKind::Write),
            (Verb::POST, "/collections/a/documents/search", RouteKind::Write),
            (Verb::POST, "/collections/a/documents/delete", RouteKind::Write),
            (Verb::POST, "/collections/a/search/x", RouteKind::Manage),
            (Verb::DELETE, "/collections/a", RouteKind::Manage),
            (Verb::POST, "/collections", RouteKind::Manage),
            (Verb::POST, "/admin/collections/a/verify", RouteKind::Admin),
            (Verb::GET, "/administration", RouteKind::Unknown),
            (Verb::GET, "/health", RouteKind::Open),
            (Verb::GET, "/health/live", RouteKind::Open),
            (Verb::GET, "/healthy", RouteKind::Unknown),
            (Verb::GET, "/console/flags", RouteKind::Open),
            (Verb::GET, "/consoles", RouteKind::Unknown),
            (Verb::GET, "/metrics", RouteKind::Metrics),
            (Verb::GET, "/metrics/x", RouteKind::Unknown),
            (Verb::GET, "/searching", RouteKind::Unknown),
            (Verb::GET, "/", RouteKind::Unknown),
            (Verb::GET, "", RouteKind::Unknown),
        ] {
            assert_eq!(RouteKind::of(&verb, path), expected, "{verb} {path}");
        }
    }

    #[test]
    fn o5_routes_fall_into_groups_and_control_calls_into_none() {
        for (verb, path, expected) in [
            (Verb::POST, "/search", Some(Group::Search)),
            (Verb::POST, "/collections/a/search", Some(Group::Search)),
            (Verb::GET, "/collections", Some(Group::Read)),
            (Verb::GET, "/collections/a/documents/x/search", Some(Group::Read)),
            (Verb::PUT, "/collections/a/documents/x/search", Some(Group::Write)),
            (Verb::POST, "/collections/a/documents/delete", Some(Group::Write)),
            (Verb::DELETE, "/collections/a", Some(Group::Write)),
            (Verb::POST, "/admin/collections/a/verify", None),
            (Verb::GET, "/health", None),
            (Verb::GET, "/metrics", None),
            (Verb::GET, "/searching", None),
        ] {
            assert_eq!(RouteKind::of(&verb, path).group(), expected, "{verb} {path}");
        }
    }
}
