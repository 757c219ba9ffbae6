//! What an operation is told about the attempt it makes.

use crate::clock::Tick;
use crate::context::{Context, Priority};
use crate::deadline::Deadline;
use crate::error_kind::ErrorKind;

/// One attempt of an operation: its number, its deadline, why it is made.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub(crate) number: u32,
    pub(crate) hedge: u32,
    pub(crate) deadline: Deadline,
    pub(crate) previous: Option<ErrorKind>,
    pub(crate) priority: Priority,
    pub(crate) caller: Option<u64>,
    pub(crate) cost: u32,
    pub(crate) now: Tick,
    pub(crate) deposits: Deposits,
    /// Whether a timeout further out drops awaited work at the deadline.
    pub(crate) watched: bool,
}

/// The budgets that this call has filled already, so that a call through several policies that share
/// one fills it once. Two, the most that a chain has a use for: one of the dependency, one of whoever
/// stands in for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deposits([usize; 2]);

impl Deposits {
    /// Remembers the budget at `address`; whether it is new.
    fn add(&mut self, address: usize) -> bool {
        let [newest, older] = self.0;
        let is_new = newest != address && older != address;
        if is_new {
            self.0 = [address, newest];
        }
        is_new
    }
}

impl Attempt {
    pub(crate) fn first(now: Tick, context: Context) -> Self {
        Attempt {
            number: 1,
            hedge: 0,
            deadline: context.deadline,
            previous: None,
            priority: context.priority,
            caller: context.caller,
            cost: context.cost,
            now,
            deposits: Deposits::default(),
            watched: false,
        }
    }

    /// Whether nothing is left of its deadline when it begins.
    #[inline]
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.has_passed(self.now)
    }

    /// The deadline at which nobody further out drops awaited work, if there is one.
    #[inline]
    pub(crate) fn own_deadline(&self) -> Deadline {
        if self.watched { Deadline::NEVER } else { self.deadline }
    }

    /// Whether this is the first call that `budget`, known by its address, hears of: no retry, no
    /// hedge, and no policy further out has told it.
    #[inline]
    pub(crate) fn is_new_to(&mut self, budget: usize) -> bool {
        self.number == 1 && self.hedge == 0 && self.deposits.add(budget)
    }

    /// Its number, from 1. Send it along (`retry-attempt`), so that the callee can tell retries.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// 0 for the original, from 1 for hedges that run beside it.
    #[must_use]
    pub fn hedge(&self) -> u32 {
        self.hedge
    }

    /// By when it must be done; pass it on to whatever the operation calls.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Why the attempt before failed; `None` for the first.
    #[must_use]
    pub fn previous(&self) -> Option<ErrorKind> {
        self.previous
    }

    /// How important the call is; pass it on.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// What it costs a rate limit, at least 1.
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Tick {
        self.now
    }
}
