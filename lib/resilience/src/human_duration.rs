//! Durations as people write them: `250ms`, `1.5s`, `5m`, `1h`.

use crate::config_error::ConfigError;
use std::time::Duration;

/// Units by falling length, with their nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The longest duration a configuration may hold: 365 days.
const DURATION_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Reads one number and one unit (`ns`, `us`, `ms`, `s`, `m`, `h`, `d`), at most 365 days.
///
/// # Errors
/// Names `field` when the text has no unit, no number, a negative one, or is too long.
pub fn parse(field: &str, text: &str) -> Result<Duration, ConfigError> {
    let refuse = || {
        ConfigError::new(
            field,
            format!("{text:?}"),
            "a number and a unit such as 250ms, 1.5s or 5m",
        )
    };
    let text_trimmed = text.trim();
    let split = text_trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
    let (number, unit) = text_trimmed.split_at(split);
    let number: f64 = number.parse().map_err(|_| refuse())?;
    let unit = unit.trim_start();
    let (_, unit_nanos) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
    let seconds = number * (*unit_nanos as f64) / 1e9;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err(ConfigError::new(field, format!("{text:?}"), "at most 365d")),
    }
}

/// The shortest exact form: the largest unit that divides the duration.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    // Days and hours are left out for anything that minutes show well enough.
    let unit = UNITS.iter().find(|(_, unit)| nanos.is_multiple_of(u128::from(*unit)));
    let (name, unit) = unit.copied().unwrap_or(("ns", 1));
    format!("{}{name}", nanos / u128::from(unit))
}

/// Checks that `value` lies in `[min, max]`.
pub(crate) fn check_duration(
    field: &str,
    value: std::time::Duration,
    min: std::time::Duration,
    max: std::time::Duration,
) -> Result<(), ConfigError> {
    if value >= min && value <= max {
        return Ok(());
    }
    let shown = format(value);
    let (min, max) = (format(min), format(max));
    Err(ConfigError::new(field, shown, format!("{min} to {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (text, millis) in [("250ms", 250), ("1.5s", 1_500), ("5m", 300_000), ("1 h", 3_600_000)]
        {
            let duration = parse("f", text).expect(text);
            assert_eq!(duration, Duration::from_millis(millis));
            assert_eq!(parse("f", &format(duration)).expect("own form"), duration);
        }
        assert_eq!(format(Duration::ZERO), "0s");
    }

    #[test]
    fn what_is_no_duration_is_refused_with_field_and_value() {
        for text in ["", "5", "s", "-1s", "1.2.3s", "1 fortnight", "9999999d", "NaNs"] {
            let refused = parse("open_for", text).expect_err(text).to_string();
            assert!(refused.starts_with("open_for: ") && refused.contains("use "), "{refused}");
        }
    }
}
