//! What `PipelinesConfig::read` says of a file that is wrong: key, value and allowed values, for every
//! key of every policy.

use crate::secs;
use mainstay_resilience::{
    AdaptiveConfig, AnswerCacheConfig, Backoff, BreakerConfig, BudgetConfig, BulkheadConfig,
    HedgeConfig, Jitter, KeyedConfig, PipelinesConfig, RateConfig, RetryConfig, ThrottleConfig,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

/// A key of a level, a value of the wrong type, the allowed range, a value below and one above it.
type Figure = (&'static str, Value, &'static str, Value, Value);

fn durations() -> Vec<Figure> {
    [
        ("timeout", "1ms to 1d", "0s", "2d"),
        ("total_timeout", "1ms to 1d", "0s", "2d"),
        ("backoff_base", "1ms to 1h", "0s", "2h"),
        ("backoff_max", "5ms to 1h", "4ms", "2h"),
        ("retry_after_max", "0s to 1h", "-1s", "2h"),
        ("attempt_time_min", "0s to 1h", "-1s", "2h"),
        ("breaker.window.length", "10ms to 1d", "9ms", "2d"),
        ("breaker.slow_calls.longer_than", "1ms to 1d", "0s", "2d"),
        ("breaker.open_for.first", "1ms to 1d", "0s", "2d"),
        ("breaker.open_for.max", "30s to 1d", "29s", "2d"),
        ("breaker.open_for.retry_after_max", "0s to 1d", "-1s", "2d"),
        ("breaker.probes.give_up_after", "1ms to 1d", "0s", "2d"),
        ("breaker.ramp.over", "1ms to 1d", "0s", "2d"),
        ("breaker.on_drop.timeout_after", "1ms to 1d", "0s", "2d"),
        ("breaker_open", "1ms to 1d", "0s", "2d"),
        ("bulkhead.wait_max", "1ms to 1h", "0s", "2h"),
        ("rate.period", "1ms to 1d", "0s", "2d"),
        ("rate.wait_max", "0s to 1h", "-1s", "2h"),
        ("adaptive_limit.healthy_rtt_max", "0s to 1h", "-1s", "2h"),
        ("adaptive_limit.window", "1ms to 1m", "0s", "2m"),
        ("adaptive_limit.on_drop.timeout_after", "1ms to 1d", "0s", "2d"),
    ]
    .map(|(key, range, below, above)| (key, json!(5), range, json!(below), json!(above)))
    .into()
}

fn whole_numbers() -> Vec<Figure> {
    [
        ("attempts", "1 to 100", 0, 101),
        ("breaker.consecutive_failures", "0 to 4294967295", -1, 4_294_967_296_i64),
        ("breaker.window.calls", "1 to 1048576", 0, 1_048_577),
        ("breaker.window.slices", "2 to 120", 1, 121),
        ("breaker.min_calls", "1 to 1048576", 0, 1_048_577),
        ("breaker.probes.count", "1 to 10000", 0, 10_001),
        ("breaker.probes.concurrent", "0 to 1", -1, 2),
        ("breaker.adaptive.memory_slices", "2 to 10000", 1, 10_001),
        ("breaker_failures", "1 to 1000000", 0, 1_000_001),
        ("bulkhead.limit", "1 to 1000000", 0, 1_000_001),
        ("bulkhead.queue", "0 to 1000000", -1, 1_000_001),
        ("rate.limit", "1 to 1000000000", 0, 1_000_000_001),
        ("rate.burst", "0 to 1000000000", -1, 1_000_000_001),
        ("adaptive_limit.initial", "5 to 1000", 4, 1_001),
        ("adaptive_limit.min", "1 to 1000000", 0, 1_000_001),
        ("adaptive_limit.max", "5 to 1000000", 4, 1_000_001),
        ("budget.capacity", "0 to 100000", -1, 100_001),
        ("budget.floor_per_second", "0 to 10000", -1, 10_001),
        ("pipelines_max", "1 to 100000", 0, 100_001),
    ]
    .map(|(key, range, below, above)| (key, json!("three"), range, json!(below), json!(above)))
    .into()
}

fn numbers() -> Vec<Figure> {
    let ratio = "above 0 and at most 1";
    [
        ("backoff_factor", "1 to 100", 0.5, 101.0),
        ("timeout_cost", "0.001 to 100", 0.0, 101.0),
        ("jitter.proportional", "0 to 1", -0.5, 1.5),
        ("breaker.failure_rate", ratio, 0.0, 1.5),
        ("breaker.slow_calls.rate", ratio, 0.0, 1.5),
        ("breaker.open_for.factor", "1 to 10", 0.5, 10.5),
        ("breaker.open_for.jitter", "0 to 1", -0.5, 1.5),
        ("breaker.probes.close_at", ratio, 0.0, 1.5),
        ("breaker.ramp.from", ratio, 0.0, 1.5),
        ("breaker.adaptive.deviations", "1 to 10", 0.5, 10.5),
        ("breaker.adaptive.floor", ratio, 0.0, 1.5),
        ("breaker.adaptive.ceiling", "0.1 to 1", 0.05, 1.5),
        ("adaptive_limit.backoff", "0.5 to 0.99", 0.4, 1.0),
        ("adaptive_limit.tolerance", "1 to 10", 0.5, 10.5),
        ("adaptive_limit.drift_max", "1 to 1000", 0.5, 1_001.0),
        ("budget.ratio", "0 to 1", -0.5, 1.5),
    ]
    .map(|(key, range, below, above)| (key, json!(true), range, json!(below), json!(above)))
    .into()
}

/// Keys that hold one of a few names, with what is told of them.
const NAMES: [(&str, &str); 7] = [
    ("jitter", "none, full, equal, decorrelated, or proportional with 0 to 1"),
    ("breaker.window.kind", "none, count or time"),
    ("breaker.on_drop", "neutral, failure, or timeout_after with 1ms to 1d"),
    ("bulkhead.order", "fifo or lifo"),
    ("rate.algorithm", "token_bucket, leaky_bucket, fixed_window or sliding_window"),
    ("adaptive_limit.law", "aimd, vegas or gradient2"),
    ("adaptive_limit.on_drop", "neutral, failure, or timeout_after with 1ms to 1d"),
];

const TABLES: [&str; 11] = [
    "breaker",
    "breaker.window",
    "breaker.slow_calls",
    "breaker.open_for",
    "breaker.probes",
    "breaker.ramp",
    "breaker.adaptive",
    "bulkhead",
    "rate",
    "adaptive_limit",
    "budget",
];

/// Ranges that depend on another key name it where the value could not be read, and have its figure
/// where it could.
const BY_NAME: [(&str, &str); 7] = [
    ("backoff_max", "backoff_base to 1h"),
    ("breaker.open_for.max", "first to 1d"),
    ("breaker.probes.concurrent", "0 to count"),
    ("breaker.adaptive.ceiling", "floor to 1"),
    ("adaptive_limit.initial", "min to max"),
    ("adaptive_limit.max", "min to 1000000"),
    ("budget", ""),
];

/// A level in which everything is said that other keys need beside them.
fn level() -> Value {
    json!({
        "backoff_base": "5ms",
        "breaker": {
            "window": { "kind": "time", "length": "60s" },
            "slow_calls": { "rate": 0.5, "longer_than": "1s" },
            "ramp": { "from": 0.1, "over": "30s" },
            "adaptive": {},
        },
        "bulkhead": {},
        "rate": { "algorithm": "token_bucket", "limit": 5, "period": "1s" },
        "adaptive_limit": {},
    })
}

/// The same with `value` at `key`.
fn with(key: &str, value: &Value) -> Value {
    let mut level = level();
    if key == "breaker.window.calls" {
        level["breaker"]["window"] = json!({ "kind": "count", "calls": 50 });
    }
    let mut at = &mut level;
    for part in key.split('.') {
        // A name gives way to a table.
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value.clone();
    level
}

fn read(text: &Value) -> Result<PipelinesConfig, String> {
    let text = text.to_string();
    PipelinesConfig::read(&mut serde_json::Deserializer::from_str(&text))
        .map_err(|refused| refused.to_string())
}

/// What is said of `value` at `key`, which belongs to the whole or else to each level.
fn refused(key: &str, value: &Value) -> Vec<(String, String)> {
    let of_all = |key: &str| key.starts_with("budget") || key == "pipelines_max";
    let places: Vec<(String, Value)> = match of_all(key) {
        true => vec![(key.to_owned(), with(key, value))],
        false => [
            ("defaults", "/defaults"),
            ("services.a b.all", "/services/a b/all"),
            ("services.a b.endpoints.chat.completions", "/services/a b/endpoints/chat.completions"),
        ]
        .map(|(path, at)| {
            let nested = at.rsplit('/').filter(|part| !part.is_empty());
            let text = nested.fold(with(key, value), |inner, part| json!({ part: inner }));
            (format!("{path}.{key}"), text)
        })
        .into(),
    };
    let say = |(path, mut text): (String, Value)| {
        if of_all(key) {
            let all = text.as_object_mut().unwrap();
            all.retain(|name, _| of_all(name));
        }
        (path, read(&text).expect_err(key))
    };
    places.into_iter().map(say).collect()
}

fn assert_refused(key: &str, value: &Value, shown: &str, allowed: &str) {
    for (path, text) in refused(key, value) {
        assert_eq!(text, format!("{path}: {shown} is not allowed, use {allowed}"));
    }
}

/// A value as it is told: what was read as a figure, what was not as it stands in the file.
fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.starts_with('-') => text.to_owned(),
        _ => value.to_string().trim_end_matches(".0").to_owned(),
    }
}

#[test]
fn r6_every_key_of_a_file_is_refused_with_its_path_value_and_range() {
    read(&json!({ "defaults": level() })).expect("what the others are made from");
    for (figures, kind) in [
        (durations(), "a number and a unit such as 250ms, 1.5s or 5m"),
        (whole_numbers(), "a whole number"),
        (numbers(), "a number"),
    ] {
        for (key, wrong, range, below, above) in figures {
            let by_name = BY_NAME.iter().find(|(known, _)| *known == key).map(|(_, name)| *name);
            let told = format!("{kind}, {}", by_name.unwrap_or(range));
            assert_refused(key, &wrong, &wrong.to_string(), &told);
            for value in [&below, &above] {
                for (path, text) in refused(key, value) {
                    let begin = format!("{path}: {} is not allowed, use ", shown(value));
                    assert!(text.starts_with(&begin), "{text}\n{begin}");
                    let end = [range, by_name.unwrap_or(range)];
                    assert!(end.iter().any(|end| text.ends_with(end)), "{text}");
                }
            }
        }
    }
}

#[test]
fn r6_a_name_or_a_table_that_is_none_is_refused_with_what_it_may_be() {
    for (key, allowed) in NAMES {
        assert_refused(key, &json!("fastest"), "\"fastest\"", allowed);
        for (path, text) in refused(key, &json!(5)) {
            assert!(text.starts_with(&format!("{path}: ")), "{text}");
            assert!(text.ends_with(&format!(" is not allowed, use {allowed}")), "{text}");
        }
    }
    for key in TABLES {
        for (path, text) in refused(key, &json!(5)) {
            let begin = format!("{path}: 5 is not allowed, use a table of keys");
            assert!(text.starts_with(&begin), "{text}");
        }
        for (path, text) in refused(&format!("{key}.atempts"), &json!(5)) {
            assert!(
                text.starts_with(&format!("{path}: an unknown key is not allowed, use ")),
                "{text}"
            );
        }
    }
}

#[test]
fn r6_unknown_missing_and_broken_parts_of_a_file_are_told_by_their_path() {
    for (text, says) in [
        (r#"{"default": {}}"#, "default: an unknown key is not allowed, use one of `defaults`, `"),
        (r#"{"services": {"a": {"al": {}}}}"#, "services.a.al: an unknown key is not allowed, "),
        (
            r#"{"services": {"timeout": 5}}"#,
            "services.timeout: 5 is not allowed, use a table of keys, all and endpoints",
        ),
        ("5", "the whole: 5 is not allowed, use a table of keys"),
        (r#"{"services": []}"#, "services: sequence is not allowed, use a table of keys, by the "),
        (
            r#"{"defaults": {"rate": {"limit": 5, "period": "1s"}}}"#,
            "defaults.rate.algorithm: nothing is not allowed, use token_bucket, leaky_bucket, ",
        ),
        (
            r#"{"defaults": {"timeout": "1s", "timeout": "1s"}}"#,
            "defaults.timeout: the same key twice is not allowed, use it once",
        ),
        (
            r#"{"defaults": {"attempts": 1e400}}"#,
            "defaults.attempts: number out of range at line 1 column 31 is not allowed, use a whole ",
        ),
        (r#"{"defaults": {"attempts""#, "defaults: EOF while parsing an object at line 1 "),
    ] {
        let refused = PipelinesConfig::read(&mut serde_json::Deserializer::from_str(text));
        let refused = refused.expect_err(text).to_string();
        assert!(refused.starts_with(says), "{refused}\n{says}");
    }
}

#[test]
fn r6_a_window_takes_the_keys_of_its_kind_alone() {
    let window = |window: Value| {
        let breaker = json!({ "window": window, "failure_rate": null });
        read(&json!({ "defaults": { "breaker": breaker } })).map(|config| {
            let breaker = config.defaults.breaker.expect("it was said");
            serde_json::to_value(breaker.window).unwrap()
        })
    };
    for kept in [
        json!({ "kind": "none" }),
        json!({ "kind": "count", "calls": 50 }),
        json!({ "kind": "time", "length": "1m", "slices": 6 }),
    ] {
        assert_eq!(window(kept.clone()), Ok(kept));
    }
    let ten = json!({ "kind": "time", "length": "1m", "slices": 10 });
    assert_eq!(window(json!({ "length": "60s", "kind": "time" })), Ok(ten), "in any order");
    let path = "defaults.breaker.window";
    for (wrong, says) in [
        (
            json!({ "kind": "none", "calls": 50 }),
            "calls: an unknown key is not allowed, use no key beside `kind` for the kind `none`",
        ),
        (
            json!({ "kind": "count", "calls": 50, "slices": 5 }),
            "slices: an unknown key is not allowed, use only `calls` beside `kind` for the kind `count`",
        ),
        (
            json!({ "kind": "time", "length": "1m", "calls": 5 }),
            "calls: an unknown key is not allowed, use only `length` and `slices` beside `kind` for \
             the kind `time`",
        ),
        (
            json!({ "kind": "count" }),
            "calls: nothing is not allowed, use a whole number, 1 to 1048576",
        ),
        (json!({ "length": "1m" }), "kind: nothing is not allowed, use none, count or time"),
    ] {
        assert_eq!(window(wrong), Err(format!("{path}.{says}")));
    }
}

/// The keys at which there is no further table.
fn leaves(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(keys) => keys.iter().for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            leaves(value, &path, into);
        }),
        None => {
            into.insert(path.to_owned());
        }
    }
}

#[test]
fn r6_no_key_is_left_out_of_these_tests() {
    let mut known: BTreeSet<&str> = NAMES.iter().map(|(key, _)| *key).collect();
    known.extend(TABLES);
    for figures in [durations(), whole_numbers(), numbers()] {
        known.extend(figures.iter().map(|(key, ..)| *key));
    }
    let mut found = BTreeSet::new();
    let full = read(&json!({ "defaults": level() })).unwrap();
    for config in [PipelinesConfig::default(), full] {
        let written = serde_json::to_value(config).unwrap();
        leaves(&written["defaults"], "", &mut found);
        leaves(&written["budget"], "budget", &mut found);
    }
    let missing: Vec<_> = found.iter().filter(|key| !known.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(found.len() > 50, "{found:?}");
}

/// What `text` says, written and read again; the text of what is wrong.
fn read_back<T: Serialize + DeserializeOwned + Debug>(text: &Value) -> Result<String, String> {
    let read: T = serde_json::from_value(text.clone()).map_err(|wrong| wrong.to_string())?;
    let written = serde_json::to_value(&read).unwrap();
    let again: T = serde_json::from_value(written).unwrap();
    assert_eq!(format!("{again:?}"), format!("{read:?}"));
    Ok(format!("{read:?}"))
}

#[test]
fn r6_the_configuration_of_every_policy_can_be_read_alone_and_takes_no_unknown_key() {
    let rate = json!({ "algorithm": "leaky_bucket", "limit": 5, "period": "1s" });
    type Read = fn(&Value) -> Result<String, String>;
    let readers: [(Read, Value); 10] = [
        (read_back::<RetryConfig>, json!({ "attempts": 4, "timeout_cost": 2.5 })),
        (read_back::<BreakerConfig>, json!({ "window": { "kind": "count", "calls": 9 } })),
        (read_back::<BudgetConfig>, json!({ "ratio": 0.1 })),
        (read_back::<RateConfig>, rate.clone()),
        (read_back::<KeyedConfig>, json!({ "rate": rate, "when_full": "refuse" })),
        (read_back::<BulkheadConfig>, json!({ "queue": 5, "order": "lifo" })),
        (read_back::<AdaptiveConfig>, json!({ "law": "vegas", "drift_max": 2 })),
        (read_back::<ThrottleConfig>, json!({ "k": 1.5, "window": "30s" })),
        (read_back::<HedgeConfig>, json!({ "delay": { "fixed": "30ms" }, "attempts": 3 })),
        (read_back::<AnswerCacheConfig>, json!({ "answers": 5, "ttl": "10s", "stale_for": "1h" })),
    ];
    for (read, text) in readers {
        read(&text).unwrap();
        let mut wrong = text;
        wrong["atempts"] = json!(5);
        let refused = read(&wrong).expect_err("an unknown key");
        assert!(refused.contains("unknown field `atempts`"), "{refused}");
    }
}

#[test]
fn r1_a_backoff_is_read_with_its_defaults_and_a_function_is_never_written() {
    let read = |text: Value| read_back::<Backoff>(&text);
    let exponential = format!("{:?}", Backoff::default());
    assert_eq!(read(json!({ "exponential": {} })), Ok(exponential));
    let fixed = Backoff::fixed(secs(2)).with_jitter(Jitter::Equal);
    let text = json!({ "fixed": { "wait": "2s", "jitter": "equal" } });
    assert_eq!(read(text), Ok(format!("{fixed:?}")));
    for wrong in [
        json!({ "fixed": {} }),
        json!({ "fixed": { "wait": "2s", "factor": 2 } }),
        json!({ "custom": {} }),
        json!("fixed"),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
    let custom = Backoff::Custom(Arc::new(|_| secs(1)));
    assert!(serde_json::to_string(&custom).is_err());
}
