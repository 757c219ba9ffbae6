//! Headers that go with every call to the outside: whose work it is, in logs and traces.
//!
//! The program says once where they come from; whatever calls a dependency asks for them. Without a
//! source there are none.
//!
//! This is the one thing here that belongs to the process and not to a value that somebody holds. The
//! source is a fact about the program, in which thread- or task-local place its request stands, as the
//! recorder of `metrics` and the subscriber of `tracing` are; and who asks for it, a client's transport
//! or a database driver, is called from where no policy and no pipeline can be handed through.

use std::sync::OnceLock;

/// Hands each header, a lower-case name and its value, to the visitor.
pub type HeaderSource = fn(&mut dyn FnMut(&'static str, &str));

static SOURCE: OnceLock<HeaderSource> = OnceLock::new();

/// Takes the headers from `source` for the rest of the process; the first source stays, so that no
/// library can take it from the program. For `main`; the only setting here that is the process's and
/// not a value's, since a client's transport or a database driver asks for the headers from where no
/// pipeline can be handed to it.
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
