//! What ties together everything that one request causes: its [`Ids`], known to every thread that works for
//! it.
//!
//! They are those of the span that the thread is in. So they follow a request wherever its span is entered:
//! through futures, thread pools and queues.

use crate::entered::current_span;
use crate::slab::is_marked;
use crate::spans::place_of;
use crate::trace_ids::is_lent;
pub use crate::trace_ids::{
    CORRELATION_CHARS_MAX, CORRELATION_HEADER, Ids, Incoming, TRACEPARENT_HEADER,
    TRACESTATE_HEADER, begin, is_correlation_id, new_correlation_id, random_id, traceparent,
};

/// Hands the ids of the span that this thread is in, and that span's id, to `read`.
pub fn with_current<T>(read: impl FnOnce(&Ids, u64) -> T) -> Option<T> {
    let (trace, span_id) = current_span().and_then(place_of)?;
    Some(read(&trace.ids, span_id))
}

/// Whether somebody may see a step of what this thread does: it works for no trace, begins another one,
/// or its trace is recorded.
pub(crate) fn is_followed() -> bool {
    is_lent() || current_span().is_none_or(is_marked)
}

/// The correlation id of the request that this thread works for.
#[must_use]
pub fn correlation_id() -> Option<String> {
    with_current(|ids, _| ids.correlation.clone()).filter(|id| !id.is_empty())
}

/// The trace of the request that this thread works for.
#[must_use]
pub fn trace_id() -> Option<u128> {
    with_current(|ids, _| ids.trace_id)
}

/// Whether that trace is recorded.
pub(crate) fn is_recorded() -> bool {
    current_span().is_some_and(is_marked)
}

/// The headers that go with a call to a dependency.
pub fn outgoing(visit: &mut dyn FnMut(&'static str, &str)) {
    let of = |ids: &Ids, span_id| {
        let correlation = ids.correlation.clone();
        (correlation, ids.traceparent(span_id), ids.state.clone())
    };
    let Some((correlation, traceparent, state)) = with_current(of) else { return };
    if !correlation.is_empty() {
        visit(CORRELATION_HEADER, &correlation);
    }
    visit(TRACEPARENT_HEADER, &traceparent);
    if !state.is_empty() {
        visit(TRACESTATE_HEADER, &state);
    }
}
