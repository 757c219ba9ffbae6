//! What one call carries from its admission to its result.

use super::word::Word;
use crate::clock::{Clock, Precision, Tick};

/// The admission of one call: which generation admitted it, and when if anybody needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(super) word: Word,
    /// [`Tick::MAX`] when no rule looks at durations.
    pub(super) started: Tick,
}

/// A reading of the clock that is taken when first needed and then kept.
pub(crate) struct LazyNow<'a> {
    clock: &'a Clock,
    read: Option<Tick>,
}

impl<'a> LazyNow<'a> {
    #[inline]
    pub(crate) fn unread(clock: &'a Clock) -> Self {
        LazyNow { clock, read: None }
    }

    #[inline]
    pub(crate) fn at(clock: &'a Clock, now: Tick) -> Self {
        LazyNow { clock, read: Some(now) }
    }

    #[inline]
    pub(super) fn get(&mut self, precision: Precision) -> Tick {
        *self.read.get_or_insert_with(|| self.clock.read(precision))
    }
}
