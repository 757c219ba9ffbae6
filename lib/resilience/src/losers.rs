//! The attempts of a race that lost, and how their permits count: not at all.
//!
//! A loser was cancelled because another attempt was quicker, which says nothing against the
//! dependency, whatever a breaker's rule on dropped calls is. A breaker's permit lies somewhere inside
//! the loser's future and knows nothing of the race; so the thread that drops the loser says so while
//! it does.

use std::cell::Cell;

thread_local! {
    static DROPPING: Cell<bool> = const { Cell::new(false) };
}

/// Ends the drop also when a loser panics.
struct Ended(bool);

impl Drop for Ended {
    fn drop(&mut self) {
        DROPPING.set(self.0);
    }
}

/// Runs `drop_losers`; permits dropped meanwhile on this thread are neutral.
pub(crate) fn neutrally(drop_losers: impl FnOnce()) {
    let _ended = Ended(DROPPING.replace(true));
    drop_losers();
}

/// Whether losers of a race are being dropped on this thread.
pub(crate) fn are_dropped() -> bool {
    DROPPING.get()
}
