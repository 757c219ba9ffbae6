//! Time of day, injected: what people read, and what is compared across restarts.
//!
//! Durations inside one run are measured with [`Clock`](mainstay_resilience::Clock), which never
//! steps; this clock may step in both directions whenever somebody sets the time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// The last millisecond that is written with four digits of a year: the end of 9999.
const UNIX_MS_MAX: u64 = 253_402_300_799_999;

/// A handle on the time of day, in milliseconds since 1970 in UTC.
#[derive(Clone, Default)]
pub struct WallClock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicU64>),
}

impl WallClock {
    /// The machine's time of day.
    #[must_use]
    pub const fn system() -> Self {
        WallClock(Source::System)
    }

    /// Milliseconds since 1970; zero when the machine's clock stands before that.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            Source::Manual(hand) => hand.load(Ordering::SeqCst),
        }
    }

    /// The same from the system's last tick: up to 10 ms old, for a quarter of the time that reading
    /// the clock takes. For what is asked many times a request.
    #[must_use]
    pub fn unix_ms_coarse(&self) -> u64 {
        #[cfg(target_os = "linux")]
        if let Source::System = self.0 {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
            let ms = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
            return u64::try_from(ms).unwrap_or(0);
        }
        self.unix_ms()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "WallClock(system)",
            Source::Manual(_) => "WallClock(manual)",
        })
    }
}

/// A time of day that moves only when told to, for tests and simulations. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualWallClock(Arc<AtomicU64>);

impl ManualWallClock {
    /// A clock that shows `unix_ms`.
    #[must_use]
    pub fn at(unix_ms: u64) -> Self {
        ManualWallClock(Arc::new(AtomicU64::new(unix_ms)))
    }

    /// Moves it forward.
    pub fn advance(&self, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(wait_ms, Ordering::SeqCst);
    }

    /// Sets it, backwards as well.
    pub fn set(&self, unix_ms: u64) {
        self.0.store(unix_ms, Ordering::SeqCst);
    }

    /// The handle to give to what is under test.
    #[must_use]
    pub fn clock(&self) -> WallClock {
        WallClock(Source::Manual(Arc::clone(&self.0)))
    }
}

/// Writes a point in time as `2026-11-21T06:22:47.250Z`; times after the year 9999 become its end.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let unix_ms = unix_ms.min(UNIX_MS_MAX);
    let (year, month, day) = civil(unix_ms / DAY_MS);
    let of_day = unix_ms % DAY_MS;
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, ms) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Reads `2026-11-21T06:22:47Z`, with an optional fraction and with `Z` or an offset such as
/// `+02:00`. Nothing when it is no such time, or lies before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2).filter(|month| (1..=12).contains(month))?;
    let day = digits(parts.next()?, 2).filter(|day| (1..=31).contains(day))?;
    if parts.next().is_some() {
        return None;
    }
    let split = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(split);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let hour = digits(parts.next()?, 2).filter(|hour| *hour < 24)?;
    let minute = digits(parts.next()?, 2).filter(|minute| *minute < 60)?;
    // A leap second is read as the second before it.
    let second = digits(parts.next()?, 2).filter(|second| *second <= 60)?.min(59);
    if parts.next().is_some() || fraction.is_empty() {
        return None;
    }
    let ms = fraction_ms(fraction)?;
    let days =
        days_since_1970(year, month, day).filter(|days| civil(*days) == (year, month, day))?;
    let of_day_ms = (hour * 3_600 + minute * 60 + second) * 1_000 + ms;
    let local = i64::try_from(days * DAY_MS + of_day_ms).ok()?;
    u64::try_from(local - offset_ms(zone)?).ok()
}

fn fraction_ms(fraction: &str) -> Option<u64> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<3}")[..3].parse().ok()
}

fn offset_ms(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        _ => (-1, &zone[1..]),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let hours = digits(hours, 2).filter(|hours| *hours < 24)?;
    let minutes = digits(minutes, 2).filter(|minutes| *minutes < 60)?;
    Some(sign * i64::try_from((hours * 60 + minutes) * 60_000).ok()?)
}

fn digits(text: &str, count: usize) -> Option<u64> {
    let fits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// Year, month and day of a day counted from 1970 (Hinnant, "chrono-compatible low-level date
/// algorithms": years that begin in March, eras of 400 years).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`], for 1970 and later.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_825_600_000, "2000-02-29T12:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (UNIX_MS_MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
            assert_eq!(parse_rfc3339(text), Some(unix_ms), "{text}");
        }
        assert_eq!(parse_rfc3339("2000-02-29T14:00:00+02:00"), Some(951_825_600_000));
        assert_eq!(parse_rfc3339("2000-02-29T07:30:00.5-04:30"), Some(951_825_600_500));
    }

    #[test]
    fn the_time_of_the_last_tick_is_that_of_the_clock() {
        let clock = WallClock::system();
        let (before, coarse) = (clock.unix_ms(), clock.unix_ms_coarse());
        assert!(coarse.abs_diff(before) < 60_000, "{coarse} and {before}");
        assert_eq!(ManualWallClock::at(7).clock().unix_ms_coarse(), 7);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T06:22:47",
            "2026-11-21T06:22:47.Z",
            "2026-11-21T06:22:47+2",
            "1969-12-31T23:59:59Z",
            "2026-11-21T06:22:4\u{e9}Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
