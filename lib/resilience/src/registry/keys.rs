//! The keys of a configuration file: what each allows, and what a format's reader says of one that it
//! cannot read, told as every other refusal is: key, value, allowed values.
//!
//! The ranges are those that `validate` of each policy checks; `tests/it/config_file.rs` holds the two
//! together, and fails for a key that has no row here.

use crate::config_error::ConfigError;
use serde_path_to_error::{Path, Segment};
use std::fmt::Display;

/// What a key holds.
#[derive(Clone, Copy)]
enum Kind {
    Duration,
    Whole,
    Number,
    /// Other keys.
    Table,
    /// One of a few names.
    Name,
}

use Kind::{Duration, Name, Number, Table, Whole};

/// Keys of a level (`defaults`, `all` of a service, an endpoint) and of the whole, with their ranges.
const KEYS: &[(&str, Kind, &str)] = &[
    ("timeout", Duration, "1ms to 1d"),
    ("total_timeout", Duration, "1ms to 1d"),
    ("attempts", Whole, "1 to 100"),
    ("backoff_base", Duration, "1ms to 1h"),
    ("backoff_max", Duration, "backoff_base to 1h"),
    ("backoff_factor", Number, "1 to 100"),
    ("jitter", Name, "none, full, equal, decorrelated, or proportional with 0 to 1"),
    ("jitter.proportional", Number, "0 to 1"),
    ("retry_after_max", Duration, "0s to 1h"),
    ("attempt_time_min", Duration, "0s to 1h"),
    ("timeout_cost", Number, "0.001 to 100"),
    ("breaker", Table, ""),
    ("breaker.consecutive_failures", Whole, "0 to 4294967295"),
    ("breaker.window", Table, "of kind none, count or time"),
    ("breaker.window.kind", Name, "none, count or time"),
    ("breaker.window.calls", Whole, "1 to 1048576"),
    ("breaker.window.length", Duration, "10ms to 1d"),
    ("breaker.window.slices", Whole, "2 to 120"),
    ("breaker.failure_rate", Number, "above 0 and at most 1"),
    ("breaker.slow_calls", Table, ""),
    ("breaker.slow_calls.rate", Number, "above 0 and at most 1"),
    ("breaker.slow_calls.longer_than", Duration, "1ms to 1d"),
    ("breaker.min_calls", Whole, "1 to 1048576"),
    ("breaker.open_for", Table, ""),
    ("breaker.open_for.first", Duration, "1ms to 1d"),
    ("breaker.open_for.factor", Number, "1 to 10"),
    ("breaker.open_for.max", Duration, "first to 1d"),
    ("breaker.open_for.jitter", Number, "0 to 1"),
    ("breaker.open_for.retry_after_max", Duration, "0s to 1d"),
    ("breaker.probes", Table, ""),
    ("breaker.probes.count", Whole, "1 to 10000"),
    ("breaker.probes.close_at", Number, "above 0 and at most 1"),
    ("breaker.probes.concurrent", Whole, "0 to count"),
    ("breaker.probes.give_up_after", Duration, "1ms to 1d"),
    ("breaker.ramp", Table, ""),
    ("breaker.ramp.from", Number, "above 0 and at most 1"),
    ("breaker.ramp.over", Duration, "1ms to 1d"),
    ("breaker.on_drop", Name, ON_DROP),
    ("breaker.on_drop.timeout_after", Duration, "1ms to 1d"),
    ("breaker.adaptive", Table, ""),
    ("breaker.adaptive.deviations", Number, "1 to 10"),
    ("breaker.adaptive.floor", Number, "above 0 and at most 1"),
    ("breaker.adaptive.ceiling", Number, "floor to 1"),
    ("breaker.adaptive.memory_slices", Whole, "2 to 10000"),
    ("breaker_failures", Whole, "1 to 1000000"),
    ("breaker_open", Duration, "1ms to 1d"),
    ("bulkhead", Table, ""),
    ("bulkhead.limit", Whole, "1 to 1000000"),
    ("bulkhead.queue", Whole, "0 to 1000000"),
    ("bulkhead.wait_max", Duration, "1ms to 1h"),
    ("bulkhead.order", Name, "fifo or lifo"),
    ("rate", Table, ""),
    ("rate.algorithm", Name, "token_bucket, leaky_bucket, fixed_window or sliding_window"),
    ("rate.limit", Whole, "1 to 1000000000"),
    ("rate.period", Duration, "1ms to 1d"),
    ("rate.burst", Whole, "0 to 1000000000"),
    ("rate.wait_max", Duration, "0s to 1h"),
    ("adaptive_limit", Table, ""),
    ("adaptive_limit.law", Name, "aimd, vegas or gradient2"),
    ("adaptive_limit.initial", Whole, "min to max"),
    ("adaptive_limit.min", Whole, "1 to 1000000"),
    ("adaptive_limit.max", Whole, "min to 1000000"),
    ("adaptive_limit.backoff", Number, "0.5 to 0.99"),
    ("adaptive_limit.tolerance", Number, "1 to 10"),
    ("adaptive_limit.healthy_rtt_max", Duration, "0s to 1h"),
    ("adaptive_limit.drift_max", Number, "1 to 1000"),
    ("adaptive_limit.window", Duration, "1ms to 1m"),
    ("adaptive_limit.on_drop", Name, ON_DROP),
    ("adaptive_limit.on_drop.timeout_after", Duration, "1ms to 1d"),
    ("budget", Table, ""),
    ("budget.ratio", Number, "0 to 1"),
    ("budget.capacity", Whole, "0 to 100000"),
    ("budget.floor_per_second", Whole, "0 to 10000"),
    ("pipelines_max", Whole, "1 to 100000"),
    ("defaults", Table, ""),
    ("services", Table, "by the service's name"),
    // A level as a whole, and what stands around it.
    ("", Table, ""),
    ("all", Table, ""),
    ("endpoints", Table, "by the endpoint's name"),
    ("service", Table, "all and endpoints"),
];

const ON_DROP: &str = "neutral, failure, or timeout_after with 1ms to 1d";

/// What a format's reader says about the key at `path`, in the words of a [`ConfigError`]. Readers
/// built on serde use its words for what is wrong; some say before or after it where they stand.
pub(super) fn refusal(path: &Path, error: &impl Display) -> ConfigError {
    let text = error.to_string();
    let field = if path.iter().len() == 0 { "the whole".to_owned() } else { path.to_string() };
    let begin = ["invalid type: ", "invalid value: ", "unknown ", "missing field ", "duplicate "]
        .iter()
        .filter_map(|begin| text.find(begin))
        .min();
    let Some(said) = begin.and_then(|begin| text[begin..].lines().next()) else {
        let allowed = allowed(path).unwrap_or_else(|| "text that its format can hold".to_owned());
        return ConfigError::new(field, text.trim(), allowed);
    };
    let (what, expected) = said.rsplit_once(", expected ").unwrap_or((without_place(said), ""));
    let expected = without_place(expected);
    let (problem, value) = what.split_once([':', '`']).unwrap_or((what, ""));
    let name = value.trim_end_matches('`');
    match problem.trim() {
        "unknown field" => {
            let allowed = if expected.is_empty() { "no key here" } else { expected };
            ConfigError::new(with_name(field, name), "an unknown key", allowed)
        }
        "missing field" => {
            let key = format!("{}.{name}", level_key(path));
            let allowed = row(&key).unwrap_or_else(|| "a value".to_owned());
            ConfigError::new(with_name(field, name), "nothing", allowed)
        }
        "duplicate field" => {
            ConfigError::new(with_name(field, name), "the same key twice", "it once")
        }
        "unknown variant" => {
            let allowed = allowed(path).unwrap_or_else(|| expected.to_owned());
            ConfigError::new(field, format!("{name:?}"), allowed)
        }
        _ => {
            let allowed = allowed(path).unwrap_or_else(|| expected.to_owned());
            ConfigError::new(field, plain(value.trim()), allowed)
        }
    }
}

/// The path of the key `name`: what is said of a key is said of it or of the table it stands in.
fn with_name(path: String, name: &str) -> String {
    let is_there = path.strip_suffix(name).is_some_and(|o| o.is_empty() || o.ends_with('.'));
    if is_there { path } else { format!("{path}.{name}") }
}

/// What may stand at `path`.
fn allowed(path: &Path) -> Option<String> {
    row(&level_key(path))
}

fn row(key: &str) -> Option<String> {
    let (_, kind, range) = KEYS.iter().find(|(known, ..)| *known == key)?;
    let what = match kind {
        Duration => "a number and a unit such as 250ms, 1.5s or 5m",
        Whole => "a whole number",
        Number => "a number",
        Table => "a table of keys",
        Name => return Some((*range).to_owned()),
    };
    Some(if range.is_empty() { what.to_owned() } else { format!("{what}, {range}") })
}

/// The key as it stands in every level.
fn level_key(path: &Path) -> String {
    let all: Vec<String> = path.iter().map(Segment::to_string).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    match &all[..] {
        ["defaults", key @ ..]
        | ["services", _, "all", key @ ..]
        | ["services", _, "endpoints", _, key @ ..] => key.join("."),
        ["services", _] => "service".to_owned(),
        ["services", _, key] => (*key).to_owned(),
        key => key.join("."),
    }
}

/// Without the place in the text that some readers append.
fn without_place(text: &str) -> &str {
    text.rsplit_once(" at line ").map_or(text, |(text, _)| text).trim()
}

/// A value without the word for its type that serde puts before it.
fn plain(value: &str) -> &str {
    match value.split_once(['`', '"']) {
        Some((_, inner)) if value.ends_with('`') => inner.trim_end_matches('`'),
        Some(_) if value.starts_with("string ") => &value["string ".len()..],
        _ => value,
    }
}
