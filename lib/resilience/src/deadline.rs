//! One end of time for a call and everything below it.

use crate::clock::{Clock, Tick, nanos};
use std::time::Duration;

/// The moment by which a call must be done. Copy it downwards; [`earlier`](Self::earlier) joins two.
///
/// Pass it on with [`remaining_ms`](Self::remaining_ms) or [`grpc_timeout`](Self::grpc_timeout): a
/// duration travels, a point in time does not, because the clocks of two machines differ.
///
/// ```
/// use mainstay_resilience::{Deadline, ManualClock};
/// use std::time::Duration;
///
/// let manual = ManualClock::new();
/// let clock = manual.clock();
/// let deadline = Deadline::after(&clock, Duration::from_millis(800));
/// manual.advance(Duration::from_millis(300));
/// assert_eq!(deadline.remaining(clock.now()), Duration::from_millis(500));
/// assert_eq!(deadline.grpc_timeout(clock.now()).as_deref(), Some("500000u"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Tick);

impl Deadline {
    /// No deadline.
    pub const NEVER: Deadline = Deadline(Tick::MAX);

    /// The deadline at `tick`.
    #[must_use]
    pub const fn at(tick: Tick) -> Self {
        Deadline(tick)
    }

    /// The deadline `wait` from now.
    #[must_use]
    pub fn after(clock: &Clock, wait: Duration) -> Self {
        Deadline(clock.now().after(wait))
    }

    /// When it is; [`Tick::MAX`] for never.
    #[must_use]
    pub const fn tick(self) -> Tick {
        self.0
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(self) -> bool {
        self != Deadline::NEVER
    }

    /// What is left at `now`; zero when it has passed, [`Duration::MAX`] when there is none.
    #[must_use]
    pub fn remaining(self, now: Tick) -> Duration {
        if self.is_set() { self.0.since(now) } else { Duration::MAX }
    }

    /// Whether nothing is left at `now`.
    #[must_use]
    pub fn has_passed(self, now: Tick) -> bool {
        self.is_set() && now >= self.0
    }

    /// The earlier of the two.
    #[must_use]
    pub fn earlier(self, other: Deadline) -> Self {
        self.min(other)
    }

    /// What is left in whole milliseconds, rounded down, for a header such as `x-timeout-ms`;
    /// `None` when there is no deadline.
    #[must_use]
    pub fn remaining_ms(self, now: Tick) -> Option<u64> {
        self.is_set().then(|| nanos(self.remaining(now)) / 1_000_000)
    }

    /// What is left as the value of the `grpc-timeout` header: at most 8 digits and a unit.
    ///
    /// Source: gRPC over HTTP/2, "Requests".
    #[must_use]
    pub fn grpc_timeout(self, now: Tick) -> Option<String> {
        const DIGITS_MAX: u64 = 99_999_999;
        let left = nanos(self.remaining(now));
        let units = [("n", 1), ("u", 1_000), ("m", 1_000_000), ("S", 1_000_000_000)];
        self.is_set().then(|| {
            let fits = units.iter().find(|(_, unit)| left / unit <= DIGITS_MAX);
            let (name, unit) = fits.copied().unwrap_or(("S", 1_000_000_000));
            format!("{}{name}", (left / unit).min(DIGITS_MAX))
        })
    }

    /// Reads a `grpc-timeout` value; `None` when it is malformed, which a server should refuse.
    #[must_use]
    pub fn from_grpc_timeout(now: Tick, value: &str) -> Option<Self> {
        let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let unit_nanos: u64 = match unit {
            "n" => 1,
            "u" => 1_000,
            "m" => 1_000_000,
            "S" => 1_000_000_000,
            "M" => 60_000_000_000,
            "H" => 3_600_000_000_000,
            _ => return None,
        };
        let amount: u64 = digits.parse().ok()?;
        Some(Deadline(now.after(Duration::from_nanos(amount.saturating_mul(unit_nanos)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_back_within_its_unit() {
        let now = Tick::from_nanos(1_000);
        for millis in [0u64, 1, 250, 99_999, 86_400_000] {
            let deadline = Deadline::at(now.after(Duration::from_millis(millis)));
            let text = deadline.grpc_timeout(now).expect("it is set");
            assert_eq!(Deadline::from_grpc_timeout(now, &text), Some(deadline), "{text}");
        }
        for broken in ["", "5", "S", "123456789S", "-1S", "1x", "é"] {
            assert_eq!(Deadline::from_grpc_timeout(now, broken), None, "{broken}");
        }
        assert_eq!(Deadline::NEVER.grpc_timeout(now), None);
    }
}
