//! A bound on extra calls: retries, hedges and fallbacks that call out share one budget, so that a
//! failing dependency is never asked much more than a healthy one.
//!
//! Invariants:
//! - Each first call deposits `ratio` of a token, up to `capacity`; each extra call takes one. Over
//!   any stretch of time, extra calls ≤ ratio × first calls + capacity + floor × seconds + 1.
//! - The floor refills by time alone, so the budget never stays empty.
//!
//! Source: Google SRE book, chapter 22, and gRPC proposal A6; the floor is Finagle's and Envoy's.

use crate::attempt::Attempt;
use crate::clock::Clock;
use crate::config_error::{ConfigError, check_range};
use crate::sync::{AtomicU64, Ordering};
use std::fmt;
use std::sync::Arc;

/// Thousandths of a token: ratios are exact to 0.1 %.
const TOKEN: u64 = 1_000;

/// What a budget can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BudgetConfig {
    /// Extra calls per first call, 0 to 1 in steps of 0.001. Default 0.2.
    pub ratio: f64,
    /// Tokens that can be saved up for a burst, 0 to 100 000. Default 20.
    pub capacity: u32,
    /// Extra calls per second that are always allowed, 0 to 10 000. Default 1: a client with few
    /// calls can still retry.
    pub floor_per_second: u32,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        BudgetConfig { ratio: 0.2, capacity: 20, floor_per_second: 1 }
    }
}

impl BudgetConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_range("budget.ratio", self.ratio, 0.0, 1.0)?;
        check_range("budget.capacity", self.capacity, 0, 100_000)?;
        check_range("budget.floor_per_second", self.floor_per_second, 0, 10_000)?;
        if self.capacity == 0 && self.floor_per_second == 0 {
            let allowed = "1 to 100000 unless budget.floor_per_second is set";
            return Err(ConfigError::new("budget.capacity", 0, allowed));
        }
        Ok(())
    }
}

/// A budget for extra calls. Clones share it. Starts full.
///
/// # Cost
/// One compare-and-swap per first call, none while the budget is full.
///
/// ```
/// use mainstay_resilience::{BudgetConfig, RetryBudget};
///
/// let mut config = BudgetConfig::default();
/// config.ratio = 0.1;
/// config.capacity = 5;
/// config.floor_per_second = 0;
/// let budget = RetryBudget::new(config)?;
/// assert_eq!((0..100).filter(|_| budget.try_withdraw()).count(), 5);
/// (0..100).for_each(|_| budget.deposit());
/// assert_eq!(budget.balance(), 5.0);
/// # Ok::<(), mainstay_resilience::ConfigError>(())
/// ```
///
/// # For, and not for
/// For everything that adds calls: share one between the retries, hedges and calling fallbacks of a
/// dependency. Not a rate limit for first calls.
///
/// # Parameters
/// Those of [`BudgetConfig`], with their ranges and defaults.
///
/// # Cancel safety
/// A token that was taken stays taken. There is no permit and no rule on drops: a token pays for the
/// load of one more call, which the dependency had to bear even if nobody waited for its answer.
///
/// # Source
/// Google SRE book, chapter 22, and gRPC proposal A6; the floor is Finagle's and Envoy's.
#[derive(Clone)]
pub struct RetryBudget(Arc<Purse>);

struct Purse {
    clock: Clock,
    balance: AtomicU64,
    deposit: AtomicU64,
    capacity: AtomicU64,
    /// Nanoseconds between two calls of the floor; 0 is no floor.
    floor_nanos: AtomicU64,
    /// When the floor allows the next call.
    floor_next: AtomicU64,
    withdrawn: AtomicU64,
    refused: AtomicU64,
}

impl RetryBudget {
    /// A budget on the system's clock.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn new(config: BudgetConfig) -> Result<Self, ConfigError> {
        RetryBudget::with_clock(config, Clock::system())
    }

    /// A budget on `clock`.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn with_clock(config: BudgetConfig, clock: Clock) -> Result<Self, ConfigError> {
        config.validate()?;
        let purse = Purse {
            clock,
            balance: AtomicU64::new(u64::from(config.capacity) * TOKEN),
            deposit: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
            floor_nanos: AtomicU64::new(0),
            floor_next: AtomicU64::new(0),
            withdrawn: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        purse.install(&config);
        Ok(RetryBudget(Arc::new(purse)))
    }

    /// Changes the configuration, keeping the balance up to the new capacity.
    ///
    /// # Errors
    /// The first field that is out of its range; then nothing changes.
    pub fn reconfigure(&self, config: BudgetConfig) -> Result<(), ConfigError> {
        config.validate()?;
        self.0.install(&config);
        Ok(())
    }

    /// Counts one first call.
    pub fn deposit(&self) {
        let purse = &*self.0;
        let (deposit, capacity) =
            (purse.deposit.load(Ordering::Relaxed), purse.capacity.load(Ordering::Relaxed));
        let mut balance = purse.balance.load(Ordering::Relaxed);
        while balance < capacity {
            let after = (balance + deposit).min(capacity);
            match purse.balance.compare_exchange_weak(
                balance,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => balance = now,
            }
        }
    }

    /// Counts one first call, once however many policies of its chain share this budget.
    #[inline]
    pub(crate) fn deposit_once(&self, attempt: &mut Attempt) {
        if attempt.is_new_to(Arc::as_ptr(&self.0) as usize) {
            self.deposit();
        }
    }

    /// Asks for one extra call.
    #[must_use]
    pub fn try_withdraw(&self) -> bool {
        self.try_withdraw_cost(1.0)
    }

    /// Asks for one extra call that costs `tokens`, for example 2 after a timeout, which burdened
    /// the dependency more than a refusal. Less than 0.001 costs 0.001.
    #[must_use]
    pub fn try_withdraw_cost(&self, tokens: f64) -> bool {
        let purse = &*self.0;
        let cost = ((tokens * TOKEN as f64) as u64).max(1);
        let allowed = purse.take(cost) || purse.take_floor();
        let counter = if allowed { &purse.withdrawn } else { &purse.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        allowed
    }

    /// Tokens left, the floor not counted.
    #[must_use]
    pub fn balance(&self) -> f64 {
        self.0.balance.load(Ordering::Relaxed) as f64 / TOKEN as f64
    }

    /// Extra calls allowed since the budget was made.
    #[must_use]
    pub fn withdrawn(&self) -> u64 {
        self.0.withdrawn.load(Ordering::Relaxed)
    }

    /// Extra calls refused since the budget was made.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

impl Purse {
    fn install(&self, config: &BudgetConfig) {
        let capacity = u64::from(config.capacity) * TOKEN;
        self.deposit.store((config.ratio * TOKEN as f64).round() as u64, Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
        let floor = u64::from(config.floor_per_second);
        self.floor_nanos.store(1_000_000_000u64.checked_div(floor).unwrap_or(0), Ordering::Relaxed);
        self.balance.fetch_min(capacity, Ordering::Relaxed);
    }

    fn take(&self, cost: u64) -> bool {
        let mut balance = self.balance.load(Ordering::Relaxed);
        while balance >= cost {
            match self.balance.compare_exchange_weak(
                balance,
                balance - cost,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => balance = now,
            }
        }
        false
    }

    fn take_floor(&self) -> bool {
        let interval = self.floor_nanos.load(Ordering::Relaxed);
        if interval == 0 {
            return false;
        }
        let now = self.clock.coarse().as_nanos();
        let mut next = self.floor_next.load(Ordering::Relaxed);
        while now >= next {
            match self.floor_next.compare_exchange_weak(
                next,
                now + interval,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(seen) => next = seen,
            }
        }
        false
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryBudget({} tokens)", self.balance())
    }
}
