//! O4, R8: rates that several nodes share through a real Redis, and what happens without it.

use mainstay_ops::admission::{
    Admission, AdmissionConfig, Class, Group, RateRule, RedisConfig, RefusalReason,
};
use mainstay_resilience::{Clock, InjectedFault, Overrides, Pipelines, PipelinesConfig};
use mainstay_testkit::redis::Redis;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// One attempt, and a breaker that probes again soon.
fn pipelines() -> Pipelines {
    let mut defaults = Overrides::default();
    defaults.attempts = Some(1);
    defaults.breaker_failures = Some(2);
    defaults.breaker_open = Some(Duration::from_millis(50));
    let mut config = PipelinesConfig::default();
    config.defaults = defaults;
    Pipelines::new(config).unwrap()
}

fn node_with(rule: &str, url: &str, pipelines: &Pipelines) -> Admission {
    let key_rates = RateRule::parse_list(rule).unwrap();
    let config = AdmissionConfig { key_rates, ..AdmissionConfig::default() };
    let admission = Admission::new(&config, Clock::system()).unwrap();
    let redis = RedisConfig { url: url.to_owned(), timeout: Duration::from_millis(250) };
    admission.share_rates(redis, 2, pipelines).unwrap();
    admission
}

/// One of two nodes.
fn node(rule: &str, port: u16) -> Admission {
    node_with(rule, &format!("redis://:s3cret@127.0.0.1:{port}/0"), &pipelines())
}

fn arrives(node: &Admission, key: &str) -> bool {
    node.arrive(Class::Interactive, Group::Search, key).is_ok()
}

fn is_away(node: &Admission) -> bool {
    node.shared_report().iter().any(|quota| quota.away && quota.name.ends_with("/tenant"))
}

/// Sends requests until the node's view of the store is as expected; how many were admitted.
fn until_away_is(node: &Admission, away: bool) -> usize {
    let mut admitted = usize::from(arrives(node, "tenant"));
    while is_away(node) != away {
        admitted += usize::from(arrives(node, "tenant"));
        std::thread::yield_now();
    }
    admitted
}

/// Sends requests in turns until nothing was admitted for as long as many portions take; how many
/// were.
fn exhaust(nodes: &[&Admission]) -> usize {
    let (mut admitted, mut last) = (0, Instant::now());
    while last.elapsed() < Duration::from_millis(300) {
        let any = nodes.iter().filter(|node| arrives(node, "tenant")).count();
        if any > 0 {
            (admitted, last) = (admitted + any, Instant::now());
        }
        std::thread::yield_now();
    }
    admitted
}

#[test]
fn o4_r8_two_nodes_share_each_keys_quota_by_every_algorithm() {
    let redis = Redis::start();
    for rule in [
        "search = 120/h fixed_window",
        "search = 120/h sliding_window",
        "search = 120/h token_bucket",
        "search = 120/h burst 60 token_bucket by cost",
    ] {
        let quota = RateRule::parse_list(rule).unwrap()[0].quota() as usize;
        let (first, second) = (node(rule, redis.port()), node(rule, redis.port()));
        let before = until_away_is(&first, false) + until_away_is(&second, false);
        let admitted = before + exhaust(&[&first, &second]);
        // What was spent before the first portion is charged with the second.
        assert!((quota..=quota + before + 8).contains(&admitted), "{rule}: {admitted} ({before})");
        let refused = first.arrive(Class::Interactive, Group::Search, "tenant").unwrap_err();
        assert_eq!(refused.reason, RefusalReason::SharedRate);
        assert_eq!(&*refused.policy, "search-per-key");
        let other = first.arrive(Class::Interactive, Group::Search, "other");
        assert!(other.is_ok(), "{rule}: each key has its own: {other:?}");
        let mut flush = redis::Client::open(format!("redis://:s3cret@127.0.0.1:{}", redis.port()))
            .unwrap()
            .get_connection()
            .unwrap();
        redis::cmd("FLUSHALL").exec(&mut flush).unwrap();
    }
}

#[test]
fn o4_r8_without_redis_a_node_goes_on_with_its_share_and_comes_back_by_itself() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let rule = "search = 60000/h fixed_window";
    let alone = node(rule, port);
    let admitted = until_away_is(&alone, true);
    assert!(admitted > 0, "nobody waits for a store that is not there");
    let redis = Redis::start_on(port);
    until_away_is(&alone, false);
    drop(redis);
    let more = until_away_is(&alone, true);
    assert!(more > 0, "it was killed and nobody noticed");
    assert!(arrives(&alone, "another"), "new keys too");
    let _redis = Redis::start_on(port);
    until_away_is(&alone, false);
}

#[test]
fn o4_r8_a_redis_that_hangs_holds_up_nobody() {
    let redis = Redis::start();
    let node = node("search = 60000/h token_bucket", redis.port());
    until_away_is(&node, false);
    redis.pause();
    // Its lease is spent, then its share: the store never answers in between.
    let admitted = until_away_is(&node, true);
    assert!(admitted > 0);
    assert!((0..1_000).all(|key| arrives(&node, &format!("key-{key}"))));
    redis.resume();
    until_away_is(&node, false);
}

/// What a node took and did not spend is the others' again, so that a slow caller uses up no more than
/// it spends.
#[test]
fn o4_r8_a_caller_that_keeps_well_below_its_quota_is_never_refused() {
    let redis = Redis::start();
    for rule in ["sliding_window", "token_bucket", "fixed_window"] {
        let rule = format!("search = 200/s burst 200 {rule}");
        let rule = if rule.contains("bucket") { rule } else { rule.replace("burst 200 ", "") };
        let (one, other) = (node(&rule, redis.port()), node(&rule, redis.port()));
        for number in 0..120 {
            // At most fifty a second, however quick or slow the machine is.
            std::thread::sleep(Duration::from_millis(20));
            let node = if number % 3 == 0 { &other } else { &one };
            assert!(arrives(node, "tenant"), "{rule}: request {number}");
        }
        assert!(!is_away(&one), "it was the store that granted them");
    }
}

/// A drill's fault is one of the store: the node goes on with its share, and comes back after it.
#[test]
fn o4_r8_a_fault_of_a_drill_is_felt_and_hangs_no_longer_than_redis_would() {
    let (redis, pipelines) = (Redis::start(), pipelines());
    let node = node_with("search = 60000/h token_bucket", &redis.url(), &pipelines);
    let all = pipelines.dependencies();
    let dependency = all.iter().find(|it| it.name().starts_with("redis/")).expect("it is declared");
    until_away_is(&node, false);
    for fault in [InjectedFault::Error, InjectedFault::Hang] {
        let failures = dependency.figures().snapshot().failures;
        dependency.faults().set(fault, None);
        until_away_is(&node, true);
        assert!(dependency.figures().snapshot().failures > failures, "{fault:?}");
        dependency.faults().clear();
        until_away_is(&node, false);
    }
}

/// Bad input: what listens there is no Redis, or answers what no quota can be.
#[test]
fn o4_r8_garbage_instead_of_redis_is_refused_and_the_node_goes_on() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"[..],
        b"*3\r\n:1000000\r\n:1000\r\n:1\r\n",
        b"*3\r\n:-1\r\n:1000\r\n:1\r\n",
        b"*3\r\n:1\r\n:99999999999999\r\n:1\r\n",
        b"*3\r\n:1\r\n:-7\r\n:1\r\n",
        b"*3\r\n:1\r\n:1000\r\n:-1\r\n",
        b"*2\r\n:1\r\n:1000\r\n",
        b"*2\r\n$3\r\nfoo\r\n$3\r\nbar\r\n",
        b"*1000000000\r\n:1\r\n",
        b"$-5\r\n",
        b":1\r\n",
        b"+OK\r\n",
        b"-ERR no such script\r\n",
        b"\x00\xff\xfe\r\n\r\n",
        b"",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                // The commands of the handshake are answered like every other.
                for _ in 0..8 {
                    let _ = stream.write_all(garbage);
                }
            }
        });
        let pipelines = pipelines();
        let node =
            node_with("search = 1000000000/d", &format!("redis://127.0.0.1:{port}"), &pipelines);
        // Until the store was asked and its breaker has seen that it is none.
        while pipelines.breaker("redis/quota").is_none_or(|b| b.snapshot().transitions == 0) {
            assert!(arrives(&node, "tenant"), "{}", String::from_utf8_lossy(garbage));
            std::thread::yield_now();
        }
        assert!(is_away(&node), "{}", String::from_utf8_lossy(garbage));
        assert!(arrives(&node, "tenant"));
    }
}

#[test]
fn r8_an_address_that_cannot_be_read_is_refused_and_no_password_is_shown() {
    for url in
        ["", "localhost", "http://:s3cret@x", "redis://", "rediss://:s3cret@x", "redis://x:y"]
    {
        let fault = RedisConfig::check_url(url);
        assert!(fault.is_err() || url == "redis://", "{url}");
        assert!(!fault.is_err_and(|fault| fault.contains("s3cret")), "{url}");
    }
    let url = "redis://admin:s3cret@127.0.0.1:6379/0".to_owned();
    let shown = format!("{:?}", RedisConfig { url, timeout: Duration::from_secs(1) });
    assert!(shown.contains("127.0.0.1:6379") && !shown.contains("s3cret"), "{shown}");
}
