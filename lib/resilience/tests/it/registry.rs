//! Pipelines by service and endpoint: configuration, environment, reload.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    AdaptiveConfig, Algorithm, BulkheadConfig, CircuitBreaker, Context, Criticality, Deadline,
    Dependency, DependencyKind, ErrorKind, Event, Jitter, ManualClock, NoSleeper, Observer,
    Overrides, Pipelines, PipelinesConfig, Priority, RateConfig, Sleeper, State, Verdict,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn nobody() -> Arc<dyn Observer> {
    Arc::new(|_: &Event<'_>| ())
}

fn on(clock: &ManualClock, config: PipelinesConfig) -> Pipelines {
    Pipelines::with(config, clock.clock(), NoSleeper, nobody()).unwrap()
}

fn adaptive(min: u32, max: u32) -> AdaptiveConfig {
    let mut config = AdaptiveConfig::default();
    (config.min, config.max) = (min, max);
    config
}

fn vars<const N: usize>(vars: [(&str, &str); N]) -> Vec<(String, String)> {
    vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[test]
fn r5_any_external_operation_goes_through_timeout_retry_breaker_and_metrics() {
    let time = VirtualTime::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&seen);
    let observer: Arc<dyn Observer> = Arc::new(move |event: &Event<'_>| {
        events
            .lock()
            .unwrap()
            .push(format!("{event:?}").split([' ', '(']).next().unwrap().to_owned());
    });
    let mut config = PipelinesConfig::default();
    config.defaults.timeout = Some(ms(200));
    config.defaults.backoff_base = Some(ms(100));
    config.defaults.breaker_failures = Some(3);
    let pipelines = Pipelines::with(config, time.clock(), time.sleeper(), observer).unwrap();
    let failed = time.block_on(pipelines.call(
        "openai",
        "chat.completions",
        Context::default(),
        |attempt| async move {
            assert!(attempt.deadline().is_set());
            std::future::pending::<Result<(), ErrorKind>>().await
        },
    ));
    assert!(failed.unwrap_err().is_timeout());
    let list = pipelines.list();
    assert_eq!(list[0].breaker.state, State::Open, "three timeouts in a row");
    assert_eq!(list[0].retry.calls_by_attempts[2], 1);
    let seen = seen.lock().unwrap();
    for expected in ["TimedOut", "RetryScheduled", "RetryFinished", "BreakerChanged"] {
        assert!(seen.iter().any(|event| event == expected), "{expected} in {seen:?}");
    }
}

/// The waits before the retries of one call to each of these endpoints.
fn waits(seed: u64, endpoints: &[&str]) -> Vec<(String, Duration)> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let observer: Arc<dyn Observer> = Arc::new(move |event: &Event<'_>| {
        if let Event::RetryScheduled { name, delay, .. } = event {
            heard.lock().unwrap().push(((*name).to_owned(), *delay));
        }
    });
    let clock = ManualClock::new().clock();
    let config = PipelinesConfig::default();
    let pipelines = Pipelines::seeded(config, clock, NoSleeper, observer, seed).unwrap();
    for endpoint in endpoints {
        let fails = |_| Err::<(), _>(ErrorKind::ServerError);
        assert!(pipelines.run("s", endpoint, Context::default(), fails).is_err());
    }
    let mut waits = std::mem::take(&mut *seen.lock().unwrap());
    waits.sort();
    waits
}

#[test]
fn r5_one_seed_gives_the_waits_of_every_endpoint_whichever_is_used_first() {
    let expected = waits(7, &["a", "b"]);
    assert_eq!(expected.len(), 4, "two retries each");
    assert_eq!(waits(7, &["b", "a"]), expected);
    assert_ne!(waits(8, &["a", "b"]), expected);
    let of = |name: &str| -> Vec<Duration> {
        expected.iter().filter(|(own, _)| own == name).map(|(_, wait)| *wait).collect()
    };
    assert_ne!(of("s/a"), of("s/b"), "endpoints are not in step");
}

#[test]
fn r5_a_retry_after_a_timeout_costs_an_endpoints_budget_what_its_configuration_says() {
    let mut config = PipelinesConfig::default();
    config.defaults.timeout_cost = Some(5.0);
    let pipelines = on(&ManualClock::new(), config);
    let timeout = |_| Err::<(), _>(ErrorKind::Timeout);
    assert!(pipelines.run("s", "e", Context::default(), timeout).is_err());
    assert_eq!(pipelines.list()[0].budget, 10.0, "20 less two retries of 5");
}

#[test]
fn b4_each_service_and_endpoint_has_a_breaker_of_its_own_and_all_are_listed() {
    let clock = ManualClock::new();
    let pipelines = on(&clock, PipelinesConfig::default());
    let fail = |endpoint: &str| {
        let _ = pipelines
            .run("store", endpoint, Context::default(), |_| Err::<(), _>(ErrorKind::ServerError));
    };
    fail("upload");
    fail("upload");
    fail("download");
    let bm25 = CircuitBreaker::search_method("bm25");
    let bm25 = Dependency::new(bm25, DependencyKind::Component, Criticality::Critical);
    pipelines.declare(&bm25);
    let states: Vec<_> = pipelines
        .breakers()
        .iter()
        .map(|breaker| (breaker.name().to_owned(), breaker.state()))
        .collect();
    assert_eq!(
        states,
        [
            ("bm25".to_owned(), State::Closed),
            ("store/download".to_owned(), State::Closed),
            ("store/upload".to_owned(), State::Open),
        ]
    );
    let upload = &pipelines.list()[1].breaker;
    assert_eq!(upload.error_rate, 1.0);
    assert_eq!(upload.next_probe.map(|wait| wait > secs(50)), Some(true));
}

#[test]
fn r6_environment_variables_set_defaults_and_services() {
    let config = PipelinesConfig::default()
        .with_environment(vars([
            ("HTTP_TIMEOUT_SEC", "10"),
            ("HTTP_RETRIES", "2"),
            ("HTTP_BACKOFF_BASE_MS", "50"),
            ("CB_FAIL_THRESHOLD", "4"),
            ("CB_RESET_SEC", "7"),
            ("OPEN_AI_CB_FAIL_THRESHOLD", "2"),
            ("HOME", "/root"),
        ]))
        .unwrap();
    let clock = ManualClock::new();
    let pipelines = on(&clock, config);
    let fail = |service: &str| {
        let _ =
            pipelines.run(service, "x", Context::default(), |_| Err::<(), _>(ErrorKind::Timeout));
        pipelines.endpoint(service, "x").breaker().state()
    };
    assert_eq!(fail("open_ai"), State::Open, "two attempts, two failures");
    assert_eq!(fail("other"), State::Closed);
    assert_eq!(fail("other"), State::Open, "four failures");
    assert_eq!(pipelines.endpoint("other", "x").breaker().snapshot().next_probe, Some(secs(7)));
}

#[test]
fn r6_variables_hold_for_a_service_however_it_is_spelt() {
    let mut config = PipelinesConfig::default();
    config.services.entry("vector-store".into()).or_default();
    config.services.entry("vector.store".into()).or_default();
    let config = config
        .with_environment(vars([
            ("OPEN_AI_CB_FAIL_THRESHOLD", "2"),
            ("VECTOR_STORE_CB_FAIL_THRESHOLD", "3"),
        ]))
        .unwrap();
    let pipelines = on(&ManualClock::new(), config);
    let threshold =
        |service| pipelines.endpoint(service, "x").breaker().config().consecutive_failures;
    for service in ["open_ai", "open-ai", "Open.AI", "OPEN_AI"] {
        assert_eq!(threshold(service), 2, "{service}");
    }
    for service in ["vector-store", "vector.store", "Vector_Store"] {
        assert_eq!(threshold(service), 3, "{service}");
    }
    assert_eq!(threshold("openai"), 5, "another name");
}

#[test]
fn r6_changed_variables_hold_after_a_reload() {
    let clock = ManualClock::new();
    let read = |failures, reset| {
        PipelinesConfig::default()
            .with_environment(vars([
                ("CB_FAIL_THRESHOLD", failures),
                ("CB_RESET_SEC", reset),
                ("HTTP_RETRIES", "1"),
            ]))
            .unwrap()
    };
    let pipelines = on(&clock, read("5", "60"));
    let fail = || {
        let _ = pipelines.run("s", "e", Context::default(), |_| Err::<(), _>(ErrorKind::Timeout));
        pipelines.endpoint("s", "e").breaker().snapshot()
    };
    assert_eq!(fail().state, State::Closed);
    pipelines.reload(read("2", "7")).unwrap();
    let opened = fail();
    assert_eq!((opened.state, opened.next_probe), (State::Open, Some(secs(7))));
}

#[test]
fn r6_the_defaults_are_those_of_the_external_service() {
    let pipelines = on(&ManualClock::new(), PipelinesConfig::default());
    let endpoint = pipelines.endpoint("s", "e");
    assert_eq!(
        endpoint.pipeline().describe(),
        "timeout s/e (3m in all) → retry s/e (3 attempts within a budget, first wait up to \
         1100ms) → circuit_breaker s/e (5 in a row, open for 1m; closed) → timeout s/e (30s for each attempt)"
    );
    let config = endpoint.breaker().config();
    assert_eq!((config.consecutive_failures, config.open_for.first), (5, secs(60)));
}

#[test]
fn r6_malformed_variables_are_refused_at_start_with_name_value_and_range() {
    let refuse = |name, value| {
        PipelinesConfig::default().with_environment(vars([(name, value)])).unwrap_err().to_string()
    };
    assert_eq!(
        refuse("HTTP_RETRIES", "many"),
        "HTTP_RETRIES: \"many\" is not allowed, use a whole number from 1 to 100"
    );
    assert_eq!(
        refuse("OPENAI_HTTP_TIMEOUT_SEC", "-1"),
        "OPENAI_HTTP_TIMEOUT_SEC: \"-1\" is not allowed, use a number of seconds from 0.001 to 86400"
    );
    assert_eq!(
        refuse("CB_FAIL_THRESHOLD", "0"),
        "CB_FAIL_THRESHOLD: 0 is not allowed, use 1 to 1000000"
    );
    assert!(refuse("CB_RESET_SEC", "NaN").starts_with("CB_RESET_SEC"));
}

#[test]
fn r6_an_empty_name_hides_no_invalid_level() {
    let refused = |config: &PipelinesConfig| {
        let error = config.validate().unwrap_err();
        (error.field().to_owned(), error.value().to_owned())
    };
    let (mut valid, mut invalid) = (Overrides::default(), Overrides::default());
    (valid.timeout, invalid.timeout) = (Some(secs(1)), Some(secs(0)));
    let mut config = PipelinesConfig::default();
    config.defaults = invalid.clone();
    config.services.entry(String::new()).or_default().all = valid.clone();
    assert_eq!(refused(&config), ("services".to_owned(), "an empty name".to_owned()));
    config.services.clear();
    assert_eq!(refused(&config).0, "defaults.timeout");

    let mut config = PipelinesConfig::default();
    let service = config.services.entry("s".to_owned()).or_default();
    service.all = invalid;
    service.endpoints.insert(String::new(), valid);
    assert_eq!(refused(&config), ("services.s.endpoints".to_owned(), "an empty name".to_owned()));
    config.services.get_mut("s").unwrap().endpoints.clear();
    assert_eq!(refused(&config).0, "services.s.all.timeout");

    let pipelines = on(&ManualClock::new(), PipelinesConfig::default());
    assert!(pipelines.reload(config).is_err());
    let answer = pipelines.run("", "", Context::default(), |_| Ok::<_, ErrorKind>(1));
    assert_eq!(answer, Ok(1), "a call may have no name; then the defaults hold");
}

#[test]
fn r6_a_variable_of_no_service_is_refused() {
    let refused = PipelinesConfig::default().with_environment([("_HTTP_RETRIES", "2")]);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "_HTTP_RETRIES: \"2\" is not allowed, \
         use HTTP_RETRIES, or a service's name in front of _HTTP_RETRIES"
    );
}

#[cfg(unix)]
#[test]
fn r6_what_is_no_unicode_is_refused_by_name_in_these_variables_and_passed_over_in_others() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    let odd = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let read = |vars: [(OsString, OsString); 2]| PipelinesConfig::default().with_environment(vars);
    let others = [(odd(b"\xff_HTTP_RETRIES"), odd(b"7")), (odd(b"LS_COLORS"), odd(b"\xff"))];
    assert_eq!(read(others).unwrap(), PipelinesConfig::default());
    for name in ["HTTP_RETRIES", "OPENAI_CB_RESET_SEC"] {
        let refused = read([(odd(b"HOME"), odd(b"\xff")), (name.into(), odd(b"3\xff"))]);
        assert_eq!(refused.unwrap_err().field(), name);
    }
}

#[test]
fn a_reload_keeps_windows_states_and_figures() {
    let clock = ManualClock::new();
    let pipelines = on(&clock, PipelinesConfig::default());
    let fail = || {
        let _ = pipelines.run("s", "e", Context::default(), |_| Err::<(), _>(ErrorKind::Timeout));
    };
    fail();
    let before = pipelines.endpoint("s", "e").breaker().snapshot();
    assert_eq!(before.consecutive_failures, 3);
    let mut config = pipelines.config();
    config.defaults.attempts = Some(1);
    config.defaults.breaker_failures = Some(4);
    pipelines.reload(config).unwrap();
    let after = pipelines.endpoint("s", "e").breaker().snapshot();
    assert_eq!((after.consecutive_failures, after.calls), (3, 3), "the window was kept");
    fail();
    assert_eq!(pipelines.endpoint("s", "e").breaker().state(), State::Open);
    let mut broken = pipelines.config();
    broken.defaults.attempts = Some(0);
    let refused = pipelines.reload(broken).unwrap_err();
    assert_eq!(refused.to_string(), "defaults.attempts: 0 is not allowed, use 1 to 100");
    assert_eq!(pipelines.config().defaults.attempts, Some(1), "nothing changed");
}

#[test]
fn a_reload_works_after_one_that_failed() {
    // Polly's registry stopped reloading after the first configuration that was not valid.
    let pipelines = on(&ManualClock::new(), PipelinesConfig::default());
    let attempts = || pipelines.endpoint("s", "e").retry().config().attempts;
    for wanted in [7, 5] {
        let mut broken = pipelines.config();
        broken.defaults.attempts = Some(0);
        assert!(pipelines.reload(broken).is_err());
        let mut good = pipelines.config();
        good.defaults.attempts = Some(wanted);
        pipelines.reload(good).unwrap();
        assert_eq!(attempts(), wanted);
    }
}

#[test]
fn b4_the_list_shows_the_state_of_each_breaker_and_the_rules_of_now() {
    let pipelines = on(&ManualClock::new(), PipelinesConfig::default());
    let endpoint = pipelines.endpoint("s", "e");
    let listed = || pipelines.list().remove(0).pipeline;
    assert!(listed().contains("circuit_breaker s/e (5 in a row, open for 1m; closed)"));
    endpoint.breaker().force_open();
    assert!(listed().contains("open for 1m; open)"), "{}", listed());
    let mut config = pipelines.config();
    (config.defaults.timeout, config.defaults.breaker_failures) = (Some(ms(750)), Some(3));
    pipelines.reload(config).unwrap();
    let now = listed();
    assert!(now.contains("(3 in a row") && now.contains("750ms for each"), "{now}");
}

#[test]
fn an_observer_may_ask_the_registry_while_it_is_reloaded() {
    let slot = Arc::new(Mutex::new(None::<Pipelines>));
    let listed = Arc::new(Mutex::new(Vec::new()));
    let (inner, heard) = (Arc::clone(&slot), Arc::clone(&listed));
    let observer: Arc<dyn Observer> = Arc::new(move |event: &Event<'_>| {
        let pipelines = inner.lock().unwrap().clone();
        if let (Event::Reconfigured { .. }, Some(pipelines)) = (event, pipelines) {
            let _ = pipelines.endpoint("s", "made meanwhile");
            heard.lock().unwrap().push(pipelines.list().len());
        }
    });
    let clock = ManualClock::new();
    let config = PipelinesConfig::default();
    let pipelines = Pipelines::with(config, clock.clock(), NoSleeper, observer).unwrap();
    let _ = pipelines.endpoint("s", "e");
    *slot.lock().unwrap() = Some(pipelines.clone());
    let mut config = pipelines.config();
    config.defaults.breaker_failures = Some(2);
    let (tell, told) = std::sync::mpsc::channel();
    let reloading = pipelines.clone();
    std::thread::spawn(move || tell.send(reloading.reload(config)));
    // Far longer than it takes; a deadlock never ends.
    told.recv_timeout(secs(10)).expect("it ends").unwrap();
    assert_eq!(*listed.lock().unwrap(), [2, 2], "heard of the retry and of the breaker");
    for endpoint in ["e", "made meanwhile"] {
        let config = pipelines.endpoint("s", endpoint).breaker().config();
        assert_eq!(config.consecutive_failures, 2, "{endpoint}");
    }
    *slot.lock().unwrap() = None;
}

#[test]
fn what_is_out_of_range_is_named_by_the_key_that_was_written() {
    type Write = fn(&mut PipelinesConfig);
    let cases: [(Write, &str); 13] = [
        (
            |c| c.defaults.breaker_open = Some(secs(0)),
            "defaults.breaker_open: 0s is not allowed, use 1ms to 1d",
        ),
        (
            |c| c.defaults.breaker_open = Some(secs(100_000)),
            "defaults.breaker_open: 100000s is not allowed, use 1ms to 1d",
        ),
        (
            |c| c.defaults.backoff_base = Some(secs(0)),
            "defaults.backoff_base: 0s is not allowed, use 1ms to 1h",
        ),
        (
            |c| c.defaults.backoff_max = Some(ms(500)),
            "defaults.backoff_max: 500ms is not allowed, use 1s to 1h",
        ),
        (
            |c| {
                c.defaults.backoff_max = Some(secs(2));
                c.services.entry("s".into()).or_default().all.backoff_base = Some(secs(3));
            },
            "services.s.all.backoff_base: 3s is not allowed, use 1ms to 2s",
        ),
        (
            |c| c.defaults.jitter = Some(Jitter::Proportional(1.5)),
            "defaults.jitter.proportional: 1.5 is not allowed, use 0 to 1",
        ),
        (
            |c| c.defaults.total_timeout = Some(secs(0)),
            "defaults.total_timeout: 0s is not allowed, use 1ms to 1d",
        ),
        (
            |c| c.defaults.backoff_factor = Some(0.5),
            "defaults.backoff_factor: 0.5 is not allowed, use 1 to 100",
        ),
        (
            |c| c.defaults.retry_after_max = Some(secs(3_601)),
            "defaults.retry_after_max: 3601s is not allowed, use 0s to 1h",
        ),
        (
            |c| {
                let service = c.services.entry("s".into()).or_default();
                let endpoint = service.endpoints.entry("e".into()).or_default();
                endpoint.attempt_time_min = Some(secs(3_601));
            },
            "services.s.endpoints.e.attempt_time_min: 3601s is not allowed, use 0s to 1h",
        ),
        (
            |c| c.defaults.adaptive_limit = Some(adaptive(6, 5)),
            "defaults.adaptive_limit.max: 5 is not allowed, use 6 to 1000000",
        ),
        (
            |c| c.defaults.adaptive_limit = Some(adaptive(30, 40)),
            "defaults.adaptive_limit.initial: 20 is not allowed, use 30 to 40",
        ),
        (|c| c.budget.ratio = 2.0, "budget.ratio: 2 is not allowed, use 0 to 1"),
    ];
    for (write, expected) in cases {
        let mut config = PipelinesConfig::default();
        write(&mut config);
        assert_eq!(config.validate().unwrap_err().to_string(), expected);
    }
}

#[test]
fn the_number_of_pipelines_is_bounded_and_the_rest_share_one() {
    let mut config = PipelinesConfig::default();
    config.pipelines_max = 10;
    let pipelines = on(&ManualClock::new(), config);
    for i in 0..1_000 {
        let _ = pipelines.endpoint("s", &format!("e{i}"));
    }
    let list = pipelines.list();
    assert_eq!(list.len(), 10);
    assert_eq!((&*list[0].service, &*list[0].endpoint), ("*", "*"));
}

#[test]
fn a_reload_with_a_lower_bound_takes_out_unused_pipelines_with_few_calls_first() {
    let mut config = PipelinesConfig::default();
    config.pipelines_max = 10;
    let pipelines = on(&ManualClock::new(), config.clone());
    let run = |service: &str, endpoint: &str| {
        pipelines.run(service, endpoint, Context::default(), |_| Ok::<_, ErrorKind>(())).unwrap();
    };
    let names = || -> Vec<String> {
        pipelines.list().iter().map(|e| format!("{}/{}", e.service, e.endpoint)).collect()
    };
    for i in 0..9 {
        (0..i).for_each(|_| run("s", &format!("e{i}")));
        let _ = pipelines.endpoint("s", &format!("e{i}"));
    }
    run("another", "service");
    assert_eq!(names().len(), 10);
    let held = pipelines.endpoint("s", "e0");
    config.pipelines_max = 4;
    pipelines.reload(config.clone()).unwrap();
    assert_eq!(names(), ["*/*", "s/e0", "s/e7", "s/e8"], "one is used, two have the most calls");
    assert_eq!(pipelines.list()[3].breaker.calls, 8, "who stays keeps its state");
    run("s", "e3");
    assert_eq!((names().len(), pipelines.list()[0].breaker.calls), (4, 2), "it shares now");
    drop(held);
    config.pipelines_max = 1;
    pipelines.reload(config.clone()).unwrap();
    assert_eq!(names(), ["*/*"]);
    config.pipelines_max = 10;
    pipelines.reload(config).unwrap();
    run("s", "e3");
    assert_eq!(names(), ["*/*", "s/e3"], "there is room again");
}

#[test]
fn r5_an_answer_that_is_judged_a_failure_is_retried_counts_and_is_listed() {
    let time = VirtualTime::new();
    let mut config = PipelinesConfig::default();
    (config.defaults.attempts, config.defaults.breaker_failures) = (Some(2), Some(4));
    let pipelines = Pipelines::with(config, time.clock(), time.sleeper(), nobody()).unwrap();
    // Its error is no `Classify`: the judge alone decides.
    let judge = |answer: Result<&u16, &&str>| match answer {
        Ok(503) => Verdict::failure(ErrorKind::ServerError),
        Ok(_) => Verdict::success(),
        Err(_) => Verdict::failure(ErrorKind::BadRequest),
    };
    let context = Context::default();
    let attempts = AtomicU32::new(0);
    let answer = |status| {
        attempts.fetch_add(1, Ordering::Relaxed);
        status
    };
    let run = |status| pipelines.run_judged("s", "e", context, judge, |_| answer(status));
    let call = |status| {
        let operation = |_| async move { answer(status) };
        time.block_on(pipelines.call_judged("s", "e", context, judge, operation))
    };
    let figures = || pipelines.dependency("s/e").unwrap().figures().snapshot();
    assert_eq!((run(Ok(200)), call(Ok(200))), (Ok(200), Ok(200)));
    assert_eq!((figures().calls, figures().failures), (2, 0));
    assert!(run(Err("mistake")).is_err() && call(Err("mistake")).is_err());
    assert_eq!((attempts.load(Ordering::Relaxed), figures().failures), (4, 2));
    assert_eq!((run(Ok(503)), attempts.load(Ordering::Relaxed)), (Ok(503), 6), "asked again");
    assert_eq!((figures().calls, figures().failures), (5, 3));
    time.block_on(time.sleeper().sleep(secs(7)));
    let expected = Some((secs(7), "an answer of server_error".to_owned()));
    assert_eq!(figures().last_error, expected, "its age by the registry's clock");
    assert_eq!((call(Ok(503)), attempts.load(Ordering::Relaxed)), (Ok(503), 8));
    assert_eq!(pipelines.list()[0].breaker.state, State::Open, "four in a row");
    assert!(run(Ok(200)).unwrap_err().is_rejected());
}

#[test]
fn a_configuration_file_is_read_strictly_and_by_human_durations() {
    let text = r#"{
        "defaults": { "timeout": "5s", "attempts": 2 },
        "services": {
            "openai": {
                "all": { "breaker_open": "90s" },
                "endpoints": {
                    "embeddings": {
                        "timeout": "750ms",
                        "bulkhead": { "limit": 8 },
                        "rate": { "algorithm": "token_bucket", "limit": 50, "period": "1s" },
                        "breaker": { "window": { "kind": "count", "calls": 50 }, "min_calls": 10 }
                    }
                }
            }
        }
    }"#;
    let config: PipelinesConfig = serde_json::from_str(text).unwrap();
    let pipelines = on(&ManualClock::new(), config.clone());
    let described = pipelines.endpoint("openai", "embeddings").pipeline().describe();
    assert!(described.contains("50 per 1s") && described.contains("750ms for each"), "{described}");
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<PipelinesConfig>(&written).unwrap(), config);

    let unknown = serde_json::from_str::<PipelinesConfig>(r#"{"defaults": {"timeuot": "5s"}}"#);
    assert!(unknown.unwrap_err().to_string().contains("unknown field `timeuot`"));
    let unit = serde_json::from_str::<PipelinesConfig>(r#"{"defaults": {"timeout": "5"}}"#);
    assert!(unit.unwrap_err().to_string().contains("expected a number and a unit"));
    let mut range = PipelinesConfig::default();
    range.services.entry("openai".into()).or_default().all.timeout = Some(ms(0));
    let refused = Pipelines::new(range).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "services.openai.all.timeout: 0s is not allowed, use 1ms to 1d"
    );
}

#[test]
fn b4_o4_limits_are_listed_with_their_state_and_breakers_are_found_by_name() {
    let mut config = PipelinesConfig::default();
    config.defaults.rate = Some(RateConfig::per_second(Algorithm::TokenBucket, 5));
    config.defaults.bulkhead = Some(BulkheadConfig::new(3));
    let pipelines = on(&ManualClock::new(), config);
    let endpoint = pipelines.endpoint("store", "upload");
    let held = endpoint.bulkhead().unwrap().try_acquire().unwrap();
    endpoint.rate_limiter().unwrap().try_acquire_cost(2).unwrap();
    let list = pipelines.list();
    assert_eq!((list[0].rate, list[0].bulkhead), (Some((3, 0)), Some((1, 0, 0))));
    assert_eq!(list[0].budget, 20.0);
    drop(held);
    let own = CircuitBreaker::search_method("bm25");
    let kind = DependencyKind::Component;
    pipelines.declare(&Dependency::new(own.clone(), kind, Criticality::Degrades));
    pipelines.breaker("bm25").unwrap().isolate();
    assert_eq!(own.state(), State::Isolated);
    pipelines.breaker("store/upload").unwrap().force_open();
    assert_eq!(endpoint.breaker().state(), State::Open);
    assert!(pipelines.breaker("store/download").is_none(), "asking creates nothing");
    assert_eq!(pipelines.list().len(), 1);
}

#[test]
fn a_dependency_is_declared_once_and_shows_how_its_calls_went() {
    let clock = ManualClock::new();
    let pipelines = on(&clock, PipelinesConfig::default());
    pipelines.declare_service("store", DependencyKind::Datastore, Criticality::Critical);
    let slow = |_| {
        clock.advance(ms(20));
        Ok::<_, ErrorKind>(())
    };
    pipelines.run("store", "upload", Context::default(), slow).unwrap();
    let refused = |_| Err::<(), _>(ErrorKind::BadRequest);
    pipelines.run("store", "upload", Context::default(), refused).unwrap_err();
    pipelines.breaker("store/upload").unwrap().force_open();
    pipelines.run("store", "upload", Context::default(), refused).unwrap_err();

    let [store] = <[Dependency; 1]>::try_from(pipelines.dependencies()).unwrap();
    assert_eq!(
        (store.kind(), store.criticality()),
        (DependencyKind::Datastore, Criticality::Critical)
    );
    let figures = store.figures().snapshot();
    assert_eq!((figures.calls, figures.failures), (2, 1), "a refusal is no call");
    assert!((ms(20)..ms(23)).contains(&figures.p99.unwrap()), "{figures:?}");
    assert_eq!(figures.last_error.unwrap().1, ErrorKind::BadRequest.to_string());

    let own = CircuitBreaker::search_method("docs/bm25");
    pipelines.declare(&Dependency::new(own, DependencyKind::Component, Criticality::Degrades));
    assert_eq!(pipelines.dependencies().len(), 2);
    assert!(pipelines.withdraw("docs/bm25") && !pipelines.withdraw("docs/bm25"));
    assert!(pipelines.dependency("docs/bm25").is_none());
}

#[test]
fn r1_r2_r3_the_waits_of_an_endpoint_are_configured() {
    let text = r#"{
        "defaults": { "attempts": 4, "backoff_base": "100ms", "jitter": "none", "backoff_factor": 3 },
        "services": {
            "fixed": { "all": { "backoff_factor": 1, "retry_after_max": "5s" } },
            "late": { "all": { "attempt_time_min": "2s" } }
        }
    }"#;
    let config: PipelinesConfig = serde_json::from_str(text).unwrap();
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<PipelinesConfig>(&written).unwrap(), config);
    let clock = ManualClock::new();
    let pipelines = on(&clock, config);
    let waited = |service: &str, kind: ErrorKind| {
        let began = clock.now();
        let _ = pipelines.run(service, "e", Context::default(), |_| Err::<(), _>(kind));
        clock.now().since(began)
    };
    let failed = ErrorKind::Connection;
    assert_eq!(waited("grows", failed), ms(100 + 300 + 900));
    assert_eq!(waited("fixed", failed), ms(100 + 100 + 100));
    let retry = |service| pipelines.endpoint(service, "e").retry().config();
    assert_eq!([retry("fixed"), retry("grows")].map(|r| r.retry_after_max), [secs(5), secs(60)]);
    let soon = || Deadline::after(&clock.clock(), secs(1));
    let attempts = |service: &str| {
        let made = std::cell::Cell::new(0);
        let _ = pipelines.run(service, "x", Context::within(soon()), |attempt| {
            made.set(attempt.number());
            Err::<(), _>(failed)
        });
        made.get()
    };
    assert_eq!((attempts("fixed"), attempts("late")), (4, 1), "two seconds are not left of one");
    let mut changed = pipelines.config();
    changed.defaults.backoff_factor = Some(1.0);
    pipelines.reload(changed).unwrap();
    // Four more failures would open it.
    pipelines.breaker("grows/e").unwrap().reset();
    assert_eq!(waited("grows", failed), ms(300), "a reload changes it");
}

#[test]
fn o5_an_endpoint_finds_its_concurrency_and_a_reload_keeps_what_it_found() {
    let text = r#"{"defaults": { "attempts": 1, "adaptive_limit": { "min": 2, "max": 40 } }}"#;
    let mut config: PipelinesConfig = serde_json::from_str(text).unwrap();
    config.defaults.breaker_failures = Some(1_000);
    let clock = ManualClock::new();
    let pipelines = on(&clock, config.clone());
    let _ = pipelines.endpoint("s", "e");
    let described = pipelines.list()[0].pipeline.clone();
    assert!(
        described
            .contains("; closed) → adaptive_limit s/e (Gradient2, 2 to 40 at a time) → timeout"),
        "{described}"
    );
    let overload = || {
        for _ in 0..10 {
            let slow = |_| {
                clock.advance(ms(20));
                Err::<(), _>(ErrorKind::RateLimit)
            };
            let _ = pipelines.run("s", "e", Context::default(), slow);
        }
    };
    overload();
    let (found, in_use, refused) = pipelines.list()[0].adaptive_limit.unwrap();
    assert!(found < 20 && in_use == 0 && refused == 0, "{found}");
    let mut changed = config.clone();
    changed.defaults.adaptive_limit = Some(adaptive(1, 100));
    pipelines.reload(changed.clone()).unwrap();
    assert_eq!(pipelines.list()[0].adaptive_limit, Some((found, 0, 0)), "kept");
    let limit = pipelines.endpoint("s", "e").adaptive_limit().unwrap().clone();
    let held: Vec<_> =
        (0..found).map(|_| limit.try_acquire(Context::from(Priority::Critical)).unwrap()).collect();
    let full = pipelines.run("s", "e", Context::default(), |_| Ok::<_, ErrorKind>(()));
    assert!(full.unwrap_err().to_string().contains("adaptive_limit s/e refused the call"));
    drop(held);
    let mut lower = adaptive(1, 2);
    lower.initial = 2;
    changed.defaults.adaptive_limit = Some(lower);
    pipelines.reload(changed.clone()).unwrap();
    assert_eq!(pipelines.list()[0].adaptive_limit.unwrap().0, 2, "within the new bounds at once");
    changed.defaults.adaptive_limit = None;
    pipelines.reload(changed).unwrap();
    assert_eq!(pipelines.list()[0].adaptive_limit, None);
    pipelines.reload(config).unwrap();
    assert_eq!(pipelines.list()[0].adaptive_limit, Some((20, 0, 0)), "a new one begins anew");
    let unknown = r#"{"defaults": { "adaptive_limit": { "mni": 2 } }}"#;
    let unknown = serde_json::from_str::<PipelinesConfig>(unknown).unwrap_err().to_string();
    assert!(unknown.contains("unknown field `mni`"), "{unknown}");
}

#[test]
fn the_number_of_declared_services_is_bounded() {
    let pipelines = on(&ManualClock::new(), PipelinesConfig::default());
    let declare = |service: &str| {
        pipelines.declare_service(service, DependencyKind::Datastore, Criticality::Critical);
    };
    let kind = |service: &str| pipelines.endpoint(service, "e").dependency().kind();
    declare("first");
    declare("second");
    (2..10_000).for_each(|number| declare(&format!("s{number}")));
    declare("first");
    declare("one more");
    assert_eq!(kind("first"), DependencyKind::Datastore, "declared again of late");
    assert_ne!(kind("second"), DependencyKind::Datastore, "declared longest ago");
    assert_eq!(kind("one more"), DependencyKind::Datastore);
}
