//! How a rate limit stands in a chain: a call takes its cost, or waits for its turn, or is refused.
//!
//! Invariants: an attempt waits no longer than the limit's own wait, counted from when it came, and
//! never beyond its deadline; what was booked is not asked for again.

use super::{KeyedLeasedLimiter, KeyedRateLimiter, LeasedLimiter, RateLimiter};
use crate::attempt::Attempt;
use crate::clock::Tick;
use crate::rejection::Rejection;
use crate::sleeper::Sleeper;
use crate::strategy::{BlockingNext, BlockingStrategy, Done, Next, Strategy};
use std::time::Duration;

/// What a waiting caller does next.
pub(super) enum Turn {
    /// It is its turn.
    Now,
    /// It has booked, and its turn comes after this wait.
    Booked(Duration),
    /// Nothing is booked; it asks again after this wait.
    Again(Duration),
}

/// A rate limit that a chain can ask for turns.
pub(super) trait TakesTurns: Send + Sync {
    /// The next turn of an attempt that waits until `end` at most.
    fn turn_of(&self, attempt: &Attempt, end: Tick) -> Result<Turn, Rejection>;

    /// How long a call in a chain may wait in all.
    fn wait_max(&self) -> Duration;
}

/// Until when an attempt may wait.
#[inline]
fn end_of_wait(limiter: &impl TakesTurns, attempt: &Attempt) -> Tick {
    attempt.began().after(limiter.wait_max()).min(attempt.deadline().tick())
}

/// Waits for the turn of `attempt`, then runs the rest of the chain.
#[inline]
#[expect(clippy::manual_async_fn, reason = "an `async fn` moves its arguments once more")]
fn execute<T: Send, E: Send, N: Next<T, E>>(
    limiter: &impl TakesTurns,
    mut attempt: Attempt,
    next: N,
) -> impl Future<Output = Done<T, E>> + Send {
    async move {
        let end = end_of_wait(limiter, &attempt);
        loop {
            match limiter.turn_of(&attempt, end) {
                Err(rejection) => return Done::rejected(rejection, attempt.began()),
                Ok(Turn::Now) => break,
                Ok(Turn::Booked(wait)) => {
                    next.env().sleeper().sleep(wait).await;
                    attempt.now = next.env().now();
                    break;
                }
                Ok(Turn::Again(wait)) => {
                    next.env().sleeper().sleep(wait).await;
                    attempt.now = next.env().now();
                }
            }
        }
        next.run(attempt).await
    }
}

/// As [`execute`], blocking.
#[inline]
fn execute_blocking<T, E, N: BlockingNext<T, E>>(
    limiter: &impl TakesTurns,
    mut attempt: Attempt,
    next: N,
) -> Done<T, E> {
    let end = end_of_wait(limiter, &attempt);
    loop {
        let (wait, is_turn) = match limiter.turn_of(&attempt, end) {
            Err(rejection) => return Done::rejected(rejection, attempt.began()),
            Ok(Turn::Now) => break,
            Ok(Turn::Booked(wait)) => (wait, true),
            Ok(Turn::Again(wait)) => (wait, false),
        };
        next.clock().pause(wait);
        attempt.now = next.now();
        if is_turn {
            break;
        }
    }
    next.run(attempt)
}

/// Lets limits that take turns stand in chains. One by one, so that each type's page says so and the
/// trait above stays inside.
macro_rules! stand_in_chains {
    ($($limit:ty),*) => {$(
        impl<T: Send, E: Send> Strategy<T, E> for $limit {
            #[inline]
            fn execute<N: Next<T, E>>(
                &self,
                attempt: Attempt,
                next: N,
            ) -> impl Future<Output = Done<T, E>> + Send {
                execute(self, attempt, next)
            }
        }

        impl<T, E> BlockingStrategy<T, E> for $limit {
            #[inline]
            fn execute_blocking<N: BlockingNext<T, E>>(
                &self,
                attempt: Attempt,
                next: N,
            ) -> Done<T, E> {
                execute_blocking(self, attempt, next)
            }
        }
    )*};
}

stand_in_chains!(RateLimiter, KeyedRateLimiter, LeasedLimiter, KeyedLeasedLimiter);
