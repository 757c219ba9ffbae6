//! The spans that this thread is in, by their ids.

use std::cell::Cell;

use crate::slab::SlabId;

/// Spans that one thread can be in at a time before their ids are no longer tracked; a request is
/// in four.
const DEPTH_MAX: usize = 64;

thread_local! {
    static ENTERED: Entered =
        const { Entered { depth: Cell::new(0), spans: [const { Cell::new(0) }; DEPTH_MAX] } };
}

/// The spans that a thread is in: beside each other, because they are looked at in caches that have
/// forgotten everything else.
struct Entered {
    depth: Cell<usize>,
    spans: [Cell<SlabId>; DEPTH_MAX],
}

/// This thread is in a span now.
pub(crate) fn enter(span: SlabId) {
    // A thread that ends is in none any more.
    let _ = ENTERED.try_with(|entered| {
        let depth = entered.depth.get();
        if let Some(place) = entered.spans.get(depth) {
            place.set(span);
            entered.depth.set(depth + 1);
        }
    });
}

/// This thread has left a span.
pub(crate) fn exit(span: SlabId) {
    let _ = ENTERED.try_with(|entered| match entered.depth.get().checked_sub(1) {
        Some(last) if entered.spans[last].get() == span => entered.depth.set(last),
        _ => entered.remove(span),
    });
}

impl Entered {
    /// One that is not left in the order in which it was entered, or was not tracked.
    #[cold]
    fn remove(&self, span: SlabId) {
        let depth = self.depth.get();
        let Some(at) = self.spans[..depth].iter().rposition(|it| it.get() == span) else { return };
        for later in at + 1..depth {
            self.spans[later - 1].set(self.spans[later].get());
        }
        self.depth.set(depth - 1);
    }
}

/// The span that this thread is in.
pub(crate) fn current_span() -> Option<SlabId> {
    let last = |entered: &Entered| Some(entered.spans[entered.depth.get().checked_sub(1)?].get());
    ENTERED.try_with(last).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_the_spans_it_is_in_in_whatever_order_it_leaves_them() {
        let in_order = |expected| assert_eq!(current_span(), expected);
        exit(7);
        (1..=3).for_each(enter);
        in_order(Some(3));
        exit(2);
        in_order(Some(3));
        exit(3);
        in_order(Some(1));
        // The same one may be entered several times.
        enter(1);
        exit(1);
        in_order(Some(1));
        exit(1);
        in_order(None);
        // Beyond the bound none is tracked, and none that is tracked is lost.
        (1..=DEPTH_MAX as u64 + 5).for_each(enter);
        in_order(Some(DEPTH_MAX as u64));
        (1..=DEPTH_MAX as u64 + 5).rev().for_each(exit);
        in_order(None);
    }
}
