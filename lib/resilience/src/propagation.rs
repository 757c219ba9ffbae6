//! Headers that go with every call to the outside: whose work it is, in logs and traces.
//!
//! The program says once where they come from; whatever calls a dependency asks for them. Without a
//! source there are none.

use std::sync::OnceLock;

/// Hands each header, a lower-case name and its value, to the visitor.
pub type HeaderSource = fn(&mut dyn FnMut(&'static str, &str));

static SOURCE: OnceLock<HeaderSource> = OnceLock::new();

/// Takes the headers from `source` for the rest of the process; the first source stays.
pub fn set_header_source(source: HeaderSource) {
    // A second source is refused by design.
    let _ = SOURCE.set(source);
}

/// Hands the headers for a call that this thread makes now to `visit`.
///
/// ```
/// use mainstay_resilience::{propagated_headers, set_header_source};
///
/// set_header_source(|visit| visit("x-correlation-id", "550e8400"));
/// let mut sent = Vec::new();
/// propagated_headers(&mut |name, value| sent.push(format!("{name}: {value}")));
/// assert_eq!(sent, ["x-correlation-id: 550e8400"]);
/// ```
pub fn propagated_headers(visit: &mut dyn FnMut(&'static str, &str)) {
    if let Some(source) = SOURCE.get() {
        source(visit);
    }
}
