//! The files of the console, as a browser loads them. They hold no data, so they need no key: their
//! scripts ask the API with the key that somebody types into the page.

use axum::extract::Path;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};

use crate::problem::Problem;

/// Name, type and text of each file. A page is its name without an ending.
const FILES: &[(&str, &str, &str)] = &[
    ("flags", HTML, include_str!("../console/flags.html")),
    ("flags.js", SCRIPT, include_str!("../console/flags.js")),
    ("editor.js", SCRIPT, include_str!("../console/editor.js")),
    ("api.js", SCRIPT, include_str!("../console/api.js")),
    ("console.css", "text/css; charset=utf-8", include_str!("../console/console.css")),
];
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A page may load the scripts and styles beside it and ask this server: nothing inline, nothing from
/// elsewhere, no text of the server turned into markup. The icon is the empty one.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

/// Sends to the first page. The address is relative: a proxy may put the server below a path.
pub(crate) async fn start() -> Redirect {
    Redirect::temporary("console/flags")
}

/// One file. Browsers ask for it each time: a page never meets the scripts of another version.
pub(crate) async fn file(Path(name): Path<String>, uri: Uri) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Problem::no_route(uri.path()).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, *text).into_response()
}
