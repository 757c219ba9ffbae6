//! Dates as text: RFC 3339 and its shorter forms, to and from milliseconds since 1970.

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// A stretch of time named by a text: a moment is one millisecond long, a plain date a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first millisecond, counted from 1970-01-01T00:00:00Z.
    pub start_ms: i64,
    /// The first millisecond behind it.
    pub end_ms: i64,
}

/// Reads `2024-01`, `2024-01-31`, or a date and a time such as `2024-01-31T09:30`,
/// `2024-01-31T09:30:00.250Z` or `2024-01-31 09:30:00+01:00`. Without an offset the time is UTC.
/// Years are 0000 to 9999; leap seconds are not known.
pub fn parse(text: &str) -> Option<Span> {
    let mut input = Input(text.as_bytes());
    let year = i64::from(input.digits(4)?);
    input.byte(b"-")?;
    let month = input.digits(2).filter(|month| (1..=12).contains(month))?;
    if input.0.is_empty() {
        let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        let (start, end) = (days(year, month, 1), days(next_year, next_month, 1));
        return Some(Span { start_ms: start * DAY_MS, end_ms: end * DAY_MS });
    }
    input.byte(b"-")?;
    let day = input.digits(2).filter(|&day| (1..=month_days(year, month)).contains(&day))?;
    let midnight_ms = days(year, month, day) * DAY_MS;
    if input.0.is_empty() {
        return Some(Span { start_ms: midnight_ms, end_ms: midnight_ms + DAY_MS });
    }
    input.byte(b"Tt ")?;
    let (hour, minute) = input.hour_and_minute()?;
    let mut at_ms = midnight_ms + (hour * 60 + minute) * 60_000;
    let mut length_ms = 60_000;
    if input.byte(b":").is_some() {
        at_ms += i64::from(input.digits(2).filter(|&second| second < 60)?) * 1000;
        length_ms = 1000;
        if input.byte(b".").is_some() {
            at_ms += input.fraction_ms()?;
            length_ms = 1;
        }
    }
    at_ms -= input.offset_minutes()? * 60_000;
    input.0.is_empty().then_some(Span { start_ms: at_ms, end_ms: at_ms + length_ms })
}

/// RFC 3339 in UTC, with milliseconds where there are some: `2024-01-31T09:30:00Z`.
pub fn format(at_ms: i64) -> String {
    let (year, month, day) = date(at_ms.div_euclid(DAY_MS));
    let in_day_ms = at_ms.rem_euclid(DAY_MS);
    let (second, ms) = (in_day_ms / 1000, in_day_ms % 1000);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self, one_of: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        one_of.contains(first).then(|| self.0 = rest)?;
        Some(*first)
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))
        })
    }

    fn hour_and_minute(&mut self) -> Option<(i64, i64)> {
        let hour = self.digits(2).filter(|&hour| hour < 24)?;
        self.byte(b":")?;
        let minute = self.digits(2).filter(|&minute| minute < 60)?;
        Some((hour.into(), minute.into()))
    }

    /// At least one digit; those behind the third are dropped.
    fn fraction_ms(&mut self) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        let digit = |at: usize| digits.get(at).map_or(0, |digit| i64::from(digit - b'0'));
        (count > 0).then(|| digit(0) * 100 + digit(1) * 10 + digit(2))
    }

    /// Nothing is UTC.
    fn offset_minutes(&mut self) -> Option<i64> {
        match self.byte(b"Zz+-") {
            Some(sign @ (b'+' | b'-')) => {
                let (hours, minutes) = self.hour_and_minute()?;
                let offset = hours * 60 + minutes;
                Some(if sign == b'+' { offset } else { -offset })
            }
            _ => Some(0),
        }
    }
}

fn month_days(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, counted from March so that the leap day comes
/// last in a year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days`].
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_forms_are_read() {
        let start = |text: &str| parse(text).unwrap().start_ms;
        assert_eq!(start("1970-01-01"), 0);
        assert_eq!(start("2024-02-29"), 1_709_164_800_000);
        assert_eq!(start("2001-09-09T01:46:40Z"), 1_000_000_000_000);
        assert_eq!(start("2001-09-09 03:46:40.1239+02:00"), 1_000_000_000_123);
        assert_eq!(start("2001-09-08T20:16:40-05:30"), 1_000_000_000_000);
        assert_eq!(start("1969-12-31T23:59"), -60_000);
        let span = |text: &str| parse(text).map(|span| span.end_ms - span.start_ms);
        assert_eq!(span("2024-02"), Some(29 * DAY_MS));
        assert_eq!(span("2023-12"), Some(31 * DAY_MS));
        assert_eq!(span("2024-01-01"), Some(DAY_MS));
        assert_eq!(span("2024-01-01T00:00Z"), Some(60_000));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2024",
            "2024-13",
            "2024-00-01",
            "2023-02-29",
            "2024-01-32",
            "24-01-01",
            "2024-01-01T24:00",
            "2024-01-01T00:60",
            "2024-01-01T00:00:60Z",
            "2024-01-01T00:00:00.",
            "2024-01-01T00:00:00Zx",
            "2024-01-01T00:00+1",
            "2024-01-01x",
            "２024-01-01",
            "+024-01-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_of_ten_thousand_years_survives_its_text(
            at_ms in -62_167_219_200_000i64..253_402_300_800_000,
        ) {
            prop_assert_eq!(parse(&format(at_ms)).unwrap().start_ms, at_ms);
        }

        #[test]
        fn any_text_and_any_moment_are_bearable(text: String, at_ms: i64) {
            let _ = parse(&text);
            let _ = format(at_ms);
        }
    }
}
