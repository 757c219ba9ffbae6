//! The admission of one call, to be returned with its result.

use super::machine::Machine;
use super::ticket::{LazyNow, Ticket};
use crate::clock::Tick;
use crate::error_kind::{Classify, Count, ErrorKind, Verdict};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// A ticket that is settled once: by a record, or by its drop.
struct Held<M: Deref<Target = Machine>> {
    machine: M,
    ticket: Ticket,
    settled: bool,
}

impl<M: Deref<Target = Machine>> Held<M> {
    /// Inlined always: called with a permit in memory, it would wait for the permit's own stores,
    /// which doubles the cost of a success.
    #[inline(always)]
    fn settle(&mut self, count: Count, retry_after: Option<Duration>) {
        // First, so that a panicking observer does not settle the ticket twice.
        self.settled = true;
        let now = LazyNow::unread(&self.machine.clock);
        self.machine.record(self.ticket, count, retry_after, now);
    }

    #[inline]
    fn settle_at(&mut self, verdict: &Verdict, now: Tick) {
        self.settled = true;
        let now = LazyNow::at(&self.machine.clock, now);
        self.machine.record(self.ticket, verdict.count(), verdict.retry_after(), now);
    }
}

impl<M: Deref<Target = Machine>> Drop for Held<M> {
    #[inline]
    fn drop(&mut self) {
        if !self.settled {
            self.machine.abandon(self.ticket);
        }
    }
}

/// The methods that both permits share.
macro_rules! permit {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)?, $handle:ty) => {
        $(#[$doc])*
        ///
        /// Record the result of the call; the permit remembers the generation it was admitted in,
        /// and a result that comes after a transition does not count. Dropping it without a record
        /// counts by the breaker's [`DropRule`](crate::DropRule); dropping it in a panic counts as
        /// a failure.
        #[must_use = "a permit that is dropped at once counts as a cancelled call"]
        pub struct $name $(<$life>)? (Held<$handle>);

        impl $(<$life>)? $name $(<$life>)? {
            pub(crate) fn new(machine: $handle, ticket: Ticket) -> Self {
                $name(Held { machine, ticket, settled: false })
            }

            /// The dependency did well.
            #[inline(always)]
            pub fn success(mut self) {
                self.0.settle(Count::Success, None);
            }

            /// The dependency failed.
            #[inline]
            pub fn failure(mut self) {
                self.0.settle(Count::Failure, None);
            }

            /// The dependency failed and asks to be left alone for `wait`. Heeded when
            /// [`OpenFor::retry_after_max`](crate::OpenFor) is not zero.
            pub fn failure_with_retry_after(mut self, wait: Duration) {
                self.0.settle(Count::Failure, Some(wait));
            }

            /// The call says nothing about the dependency; a probe's slot is given back.
            pub fn ignore(mut self) {
                self.0.settle(Count::Ignored, None);
            }

            /// Records a [`Verdict`], an [`ErrorKind`], or the reference of a result whose error
            /// is [`Classify`].
            #[inline]
            pub fn record(mut self, outcome: impl Into<Verdict>) {
                let verdict = outcome.into();
                self.0.settle(verdict.count(), verdict.retry_after());
            }

            /// Records a verdict at a time that was read already.
            #[inline]
            #[allow(dead_code)] // Each form of the permit is used by other callers.
            pub(crate) fn record_at(mut self, verdict: &Verdict, now: Tick) {
                self.0.settle_at(verdict, now);
            }
        }

        impl $(<$life>)? fmt::Debug for $name $(<$life>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.machine.name)
            }
        }
    };
}

permit! {
    /// The admission of one call, borrowing its breaker: the cheap form.
    ///
    /// A result is recorded once, and not after its breaker is gone:
    ///
    /// ```compile_fail,E0382
    /// # use mainstay_resilience::CircuitBreaker;
    /// let breaker = CircuitBreaker::search_method("bm25");
    /// let permit = breaker.try_acquire().unwrap();
    /// permit.success();
    /// permit.failure();
    /// ```
    ///
    /// ```compile_fail,E0505
    /// # use mainstay_resilience::CircuitBreaker;
    /// let breaker = CircuitBreaker::search_method("bm25");
    /// let permit = breaker.try_acquire().unwrap();
    /// drop(breaker);
    /// permit.success();
    /// ```
    ///
    /// Dropping it at once by mistake is warned about. A lint has no error code; that nothing else is
    /// wrong with the first of the two shows the second, which differs by the name it is held by:
    ///
    /// ```compile_fail
    /// #![deny(unused_must_use)]
    /// # use mainstay_resilience::CircuitBreaker;
    /// let breaker = CircuitBreaker::search_method("bm25");
    /// breaker.try_acquire().unwrap();
    /// ```
    ///
    /// ```
    /// #![deny(unused_must_use)]
    /// # use mainstay_resilience::CircuitBreaker;
    /// let breaker = CircuitBreaker::search_method("bm25");
    /// let _permit = breaker.try_acquire().unwrap();
    /// ```
    Permit<'a>, &'a Machine
}

permit! {
    /// The admission of one call, sharing its breaker: for what outlives the borrow. Costs two
    /// atomic additions more than [`Permit`].
    OwnedPermit, Arc<Machine>
}

impl From<ErrorKind> for Verdict {
    fn from(kind: ErrorKind) -> Self {
        Verdict::failure(kind)
    }
}

impl<T, E: Classify> From<&Result<T, E>> for Verdict {
    fn from(result: &Result<T, E>) -> Self {
        Verdict::of(result)
    }
}
