//! What a caller says about one call: by when, how important, on whose behalf, at which cost.

use crate::deadline::Deadline;
use std::fmt;
use std::ops::Deref;

/// How important a call is. Under load the least important are refused first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Priority {
    /// May wait for hours: compaction, re-indexing.
    Background = 0,
    /// May be dropped: prefetching, speculative work.
    Low = 1,
    /// A user waits for it.
    #[default]
    Normal = 2,
    /// A user waits for it and pays for it.
    High = 3,
    /// Must pass while anything passes: health checks, administration.
    Critical = 4,
}

impl Priority {
    /// All levels, least important first.
    pub const ALL: [Priority; 5] =
        [Priority::Background, Priority::Low, Priority::Normal, Priority::High, Priority::Critical];

    /// The level as a number, 0 (least important) to 4.
    #[must_use]
    pub const fn level(self) -> u32 {
        self as u32
    }

    /// The name used in configuration and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Background => "background",
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
            Priority::Critical => "critical",
        }
    }
}

/// What a caller says about one call. A [`Deadline`] alone is a context too.
///
/// A [`Pipeline`](crate::Pipeline) keeps the deadline whatever stands in its chain: a call that comes
/// after it is refused, no further attempt begins after it, waits end with it, and awaited work is
/// dropped at it. Blocking work under way cannot be stopped; it is told the deadline
/// ([`Attempt::deadline`](crate::Attempt::deadline)) and must heed it. A policy that is used alone is
/// told no deadline and keeps none.
///
/// ```
/// use mainstay_resilience::{Clock, Context, Deadline, Priority};
/// use std::time::Duration;
///
/// let deadline = Deadline::after(&Clock::system(), Duration::from_millis(800));
/// let context = Context::within(deadline).priority(Priority::High).caller("tenant-7");
/// # let _ = context;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub(crate) deadline: Deadline,
    pub(crate) priority: Priority,
    pub(crate) caller: Option<u64>,
    /// At least 1.
    pub(crate) cost: u32,
}

impl Default for Context {
    fn default() -> Self {
        Context::within(Deadline::NEVER)
    }
}

impl Context {
    /// A call of normal priority that must be done by `deadline`.
    #[must_use]
    pub const fn within(deadline: Deadline) -> Self {
        Context { deadline, priority: Priority::Normal, caller: None, cost: 1 }
    }

    /// The same with this priority.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The same on behalf of `caller`, a tenant or an API key, for fair shares. Only a hash is
    /// kept; two callers with one hash share their share.
    #[must_use]
    pub fn caller(mut self, caller: &str) -> Self {
        // FNV-1a: fixed, so that the same caller is the same in every process.
        let hash = caller.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.caller = Some(hash);
        self
    }

    /// The same at this cost, for the rate limits in the chain: tokens of a request, documents of a
    /// batch. Default 1; 0 means 1, since no call is free. Whatever makes another attempt inside the
    /// chain pays it again to each rate limit further in.
    ///
    /// ```
    /// use mainstay_resilience::{Algorithm, Context, ErrorKind, Pipeline, RateConfig, RateLimiter};
    ///
    /// let tokens = RateLimiter::new("tokens", RateConfig::per_second(Algorithm::TokenBucket, 100))?;
    /// let pipeline = Pipeline::builder().then(tokens.clone()).build().expect("one policy");
    /// let answer = pipeline.run_within(Context::default().cost(60), |_| Ok::<_, ErrorKind>("hello"));
    /// assert_eq!((answer, tokens.available()), (Ok("hello"), 40));
    /// # Ok::<(), mainstay_resilience::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn cost(mut self, cost: u32) -> Self {
        self.cost = if cost == 0 { 1 } else { cost };
        self
    }

    /// The key under which a keyed limiter in a chain counts this call: for looking at its limit, or
    /// for taking from it outside the chain.
    ///
    /// ```
    /// use mainstay_resilience::{Algorithm, Context, KeyedConfig, KeyedRateLimiter, RateConfig};
    ///
    /// let rate = RateConfig::per_second(Algorithm::TokenBucket, 5);
    /// let limiter = KeyedRateLimiter::new("tenant", KeyedConfig::new(rate))?;
    /// let context = Context::default().caller("tenant-7");
    /// limiter.try_acquire(&context.caller_key(), 2).expect("five are free");
    /// assert_eq!(limiter.available(&context.caller_key()), 3);
    /// # Ok::<(), mainstay_resilience::ConfigError>(())
    /// ```
    #[must_use]
    pub fn caller_key(&self) -> CallerKey {
        CallerKey::of(self.caller)
    }
}

/// Hexadecimal digits of a caller's hash.
const KEY_DIGITS: usize = 16;

/// A caller as a key: the 16 hexadecimal digits of its hash, the same in every process; empty without
/// a caller, so that all calls without one are counted together. Text on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerKey {
    digits: [u8; KEY_DIGITS],
    len: usize,
}

impl CallerKey {
    pub(crate) fn of(caller: Option<u64>) -> Self {
        let Some(hash) = caller else {
            return CallerKey { digits: [0; KEY_DIGITS], len: 0 };
        };
        let digit = |at: usize| b"0123456789abcdef"[(hash >> (60 - 4 * at)) as usize & 15];
        CallerKey { digits: std::array::from_fn(digit), len: KEY_DIGITS }
    }
}

impl Deref for CallerKey {
    type Target = str;

    fn deref(&self) -> &str {
        // Digits only, so it is always text.
        std::str::from_utf8(&self.digits[..self.len]).unwrap_or_default()
    }
}

impl fmt::Display for CallerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for CallerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallerKey({self})")
    }
}

impl From<Deadline> for Context {
    fn from(deadline: Deadline) -> Self {
        Context::within(deadline)
    }
}

impl From<Priority> for Context {
    fn from(priority: Priority) -> Self {
        Context::default().priority(priority)
    }
}
