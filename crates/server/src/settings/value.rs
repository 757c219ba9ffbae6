//! [`Kind`] and [`Value`]: what a setting may hold, read from text and written back.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use mainstay_ops::admission::{RateRule, RateRuleFault, RedisConfig};
use mainstay_ops::redact::{REDACTED, redact};
use mainstay_resilience::human_duration;

use crate::limited_routes::rate_scope;
use crate::otlp_headers::OtlpHeaders;

const UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// The type of a setting, with its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// An address that may hold a password, which is never shown.
    Secret,
    /// Yes or no.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An address and port.
    Address,
    /// A number of things.
    Count(u64, u64),
    /// A number of bytes: plain, or with KiB, MiB, GiB or TiB.
    Bytes(u64, u64),
    /// A share of a hundred.
    Percent(u64, u64),
    /// A number with a fraction.
    Number(f64, f64),
    /// A time with its unit.
    Duration(Duration, Duration),
    /// Rate limits, or `none`.
    Rates,
    /// The address of a Redis, or empty; its password is never shown.
    RedisUrl,
    /// Headers whose values are never shown.
    Headers,
}

/// The value of a setting. It is shown without passwords; what uses it takes the field.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Of [`Kind::Text`], [`Kind::Choice`] and [`Kind::Rates`].
    Text(String),
    /// Of [`Kind::Secret`].
    Secret(String),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Address`].
    Address(SocketAddr),
    /// Of [`Kind::Count`] and [`Kind::Percent`].
    Count(u64),
    /// Of [`Kind::Bytes`].
    Bytes(u64),
    /// Of [`Kind::Number`].
    Number(f64),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of [`Kind::Headers`].
    Headers(OtlpHeaders),
}

impl Kind {
    /// Reads a value; the error says what is allowed.
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let allowed = || self.to_string();
        let within = |number: Option<u64>, min: u64, max: u64| {
            number.filter(|number| (min..=max).contains(number)).ok_or_else(allowed)
        };
        match *self {
            Self::Text => Ok(Value::Text(text.to_string())),
            Self::Secret => Ok(Value::Secret(text.to_string())),
            Self::Bool => text.parse().map(Value::Bool).map_err(|_| allowed()),
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_string())),
            Self::Choice(_) => Err(allowed()),
            Self::Address => text.parse().map(Value::Address).map_err(|_| allowed()),
            Self::Count(min, max) | Self::Percent(min, max) => {
                within(text.parse().ok(), min, max).map(Value::Count)
            }
            Self::Bytes(min, max) => within(bytes(text), min, max).map(Value::Bytes),
            Self::Number(min, max) => {
                let number = text.parse::<f64>().ok();
                let within = number.filter(|number| (min..=max).contains(number));
                within.map(Value::Number).ok_or_else(allowed)
            }
            Self::Duration(min, max) => match human_duration::parse("", text) {
                Ok(duration) if (min..=max).contains(&duration) => Ok(Value::Duration(duration)),
                Ok(_) => Err(allowed()),
                Err(_) => Err("a number and a unit such as 250ms, 1.5s or 5m".to_string()),
            },
            Self::RedisUrl if text.is_empty() => Ok(Value::Secret(String::new())),
            Self::RedisUrl => {
                RedisConfig::check_url(text).map(|()| Value::Secret(text.to_string()))
            }
            Self::Headers => match OtlpHeaders::parse(text) {
                Ok(headers) => Ok(Value::Headers(headers)),
                Err(fault) => Err(format!("{self}: {fault}")),
            },
            Self::Rates => match rates(text) {
                Ok(rules) if rules.is_empty() => Ok(Value::Text("none".to_string())),
                Ok(rules) => Ok(Value::Text(RateRule::format_list(&rules))),
                Err(fault) => Err(format!("{self}: {fault}")),
            },
        }
    }
}

impl Kind {
    /// Whether all of a value is a secret, and not a password within it.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Self::Headers)
    }

    /// What a source has written, as it may be shown.
    pub(super) fn shown(&self, text: &str) -> String {
        if self.is_secret() { REDACTED.to_string() } else { redact(text) }
    }
}

/// Rate limits as they are written in settings.
pub(super) fn rates(text: &str) -> Result<Vec<RateRule>, RateRuleFault> {
    if text == "none" { Ok(Vec::new()) } else { RateRule::parse_list_of(text, rate_scope) }
}

fn bytes(text: &str) -> Option<u64> {
    for (name, unit) in UNITS {
        if let Some(number) = text.strip_suffix(name) {
            return number.trim().parse::<u64>().ok()?.checked_mul(unit);
        }
    }
    text.parse().ok()
}

fn format_bytes(number: u64) -> String {
    match UNITS.iter().find(|(_, unit)| number >= *unit && number.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", number / unit),
        None => number.to_string(),
    }
}

/// What is allowed.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Text => f.write_str("text"),
            Self::Secret => f.write_str("an address; its password is not shown"),
            Self::Bool => f.write_str("true or false"),
            Self::Choice(words) => f.write_str(&words.join(", ")),
            Self::Address => f.write_str("an address and port such as 127.0.0.1:8080"),
            Self::Count(min, max) | Self::Percent(min, max) => write!(f, "{min} to {max}"),
            Self::Bytes(min, max) => write!(f, "{} to {}", format_bytes(min), format_bytes(max)),
            Self::Number(min, max) => write!(f, "{min} to {max}"),
            Self::Duration(min, max) => {
                write!(f, "{} to {}", human_duration::format(min), human_duration::format(max))
            }
            Self::RedisUrl => f.write_str("empty, or an address such as redis://127.0.0.1:6379/0"),
            Self::Headers => f.write_str("headers such as name=value,name=value; not shown"),
            Self::Rates => f.write_str("none, or rates such as search = 100/s burst 200"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Any text may turn out to be an address with a password in it.
            Self::Text(text) | Self::Secret(text) => f.write_str(&redact(text)),
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Count(number) => write!(f, "{number}"),
            Self::Bytes(number) => f.write_str(&format_bytes(*number)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Duration(duration) => f.write_str(&human_duration::format(*duration)),
            Self::Headers(headers) => write!(f, "{headers}"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_as_they_are_written() {
        for (kind, text) in [
            (Kind::Text, "auto"),
            (Kind::Bool, "false"),
            (Kind::Choice(&["auto", "never"]), "never"),
            (Kind::Address, "127.0.0.1:8080"),
            (Kind::RedisUrl, ""),
            (Kind::RedisUrl, "redis://127.0.0.1:6379/0"),
            (Kind::Rates, "none"),
            (Kind::Rates, "search_collection = 10/1s token_bucket"),
            (Kind::Rates, "search = 5/1s leaky_bucket; all = 9/1m burst 20 token_bucket"),
            (Kind::Count(0, 9), "7"),
            (Kind::Bytes(0, u64::MAX), "64MiB"),
            (Kind::Bytes(0, u64::MAX), "1000"),
            (Kind::Number(0.5, 1.0), "0.999"),
            (Kind::Duration(Duration::ZERO, Duration::from_secs(99)), "1500ms"),
        ] {
            let value = kind.parse(text);
            assert_eq!(value.map(|value| value.to_string()), Ok(text.to_string()), "{kind:?}");
        }
        let secret =
            Kind::RedisUrl.parse("redis://user:s3cret@127.0.0.1/0").unwrap_or(Value::Count(0));
        assert!(secret.to_string().contains("127.0.0.1") && !secret.to_string().contains("s3cret"));
        assert_eq!(
            Kind::Bytes(0, u64::MAX).parse("99999999999TiB"),
            Err("0 to 18446744073709551615".into())
        );
    }
}
