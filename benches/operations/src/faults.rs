//! Each dependency hung, refusing, slow and flapping in turn.

use std::time::{Duration, Instant};

use mainstay_db::{BreakerState, Dependency, InjectedFault};
use mainstay_testkit::postgres::Postgres;
use mainstay_testkit::redis::Redis;

use crate::served::{Corpus, Served, everything, metrics_alone, start};
use crate::{load, provider, receiver};

/// How slow a slow dependency is: longer than a search may take.
const SLOW: Duration = Duration::from_millis(1_500);
/// How long a flapping one fails and works in turn.
const FLAP: Duration = Duration::from_millis(500);
/// How long recovery is waited for: an open period of a minute, and half a minute for each of two
/// levels, once more for what failed again.
const RECOVERY_MAX: Duration = Duration::from_secs(240);

/// A budget that a fault has burnt lowers the level for minutes after it, and would say nothing of how
/// long the dependency itself takes: however slow, a search is fast enough.
const NEVER_SLOW: (&str, &str) = ("slo.latency_threshold", "10m");

/// Measures and prints a table.
pub(crate) fn run(seconds: u64, rate: u64, only: &str) -> Result<(), String> {
    let lasting = Duration::from_secs(seconds);
    let url = provider::start().map_err(|error| error.to_string())?;
    let (model, dimension) = ("hashes", provider::DIMENSION);
    println!(
        "{rate} searches a second for {seconds} s with each fault; latency from when a search was due\n"
    );
    println!(
        "| dependency | fault | answered | complete | p50 ms | p99 ms | refused by its breaker | breaker afterwards | full again after s | slowest /health ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let local = start(Corpus::Dense, "static", &[NEVER_SLOW], metrics_alone)?;
    let healthy = load::run(local.address, rate, lasting);
    row("none", "none", &healthy, 0, "closed", None, load::slowest_health(local.address, 50));
    let mut failed = healthy.failed;
    failed += each_dependency(&local, &["catalogue/sqlite", "default/"], only, rate, lasting)?;
    drop(local);
    let collector = receiver::start("application/x-protobuf", |_| Vec::new());
    let collector = collector.map_err(|error| error.to_string())?;
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let shared = [
        ("catalogue.url", &*postgres.database()),
        ("admission.redis_url", &redis.url()),
        ("admission.nodes", "2"),
        ("admission.key_rates", "search = 100000/s sliding_window"),
        ("telemetry.endpoint", &collector),
        ("telemetry.protocol", "http/protobuf"),
        ("log.filter", "warn"),
        NEVER_SLOW,
    ];
    let shared =
        start(Corpus::Dense, &format!("remote:{url},{model},{dimension}"), &shared, everything)?;
    let outside = ["catalogue/postgres", "redis/", "embedding/", "telemetry/"];
    failed += each_dependency(&shared, &outside, only, rate, lasting)?;
    if failed > 0 {
        return Err(format!("{failed} searches got no answer: none may fail"));
    }
    Ok(())
}

/// Each fault of each dependency whose name begins so and contains `only`; how many searches failed.
fn each_dependency(
    served: &Served,
    names: &[&str],
    only: &str,
    rate: u64,
    lasting: Duration,
) -> Result<u64, String> {
    let mut failed = 0;
    for begin in names {
        let all = served.db.pipelines().dependencies();
        let mut wanted =
            all.iter().map(|it| it.name()).filter(|name| name.starts_with(begin)).peekable();
        wanted.peek().ok_or_else(|| format!("there is no dependency {begin}"))?;
        for name in wanted.filter(|name| name.contains(only)) {
            failed += each_fault(served, name, rate, lasting)?;
        }
    }
    Ok(failed)
}

fn each_fault(served: &Served, name: &str, rate: u64, lasting: Duration) -> Result<u64, String> {
    let mut failed = 0;
    let missing = || format!("there is no dependency {name}");
    let dependency = served.db.pipelines().dependency(name).ok_or_else(missing)?;
    let faults = [
        ("hung", InjectedFault::Hang),
        ("refusing", InjectedFault::Error),
        ("slow", InjectedFault::Slow(SLOW)),
        ("flapping", InjectedFault::Flap(FLAP)),
    ];
    for (called, fault) in faults {
        let refused = dependency.breaker().snapshot().rejected;
        dependency.faults().set(fault, None);
        let mut outcome = load::Outcome::default();
        let health = std::thread::scope(|scope| {
            let asked = scope.spawn(|| load::slowest_health(served.address, 50));
            outcome = load::run(served.address, rate, lasting);
            asked.join().unwrap_or(f64::NAN)
        });
        dependency.faults().clear();
        let refused = dependency.breaker().snapshot().rejected - refused;
        let state = dependency.breaker().state().as_str();
        let again = recovery(served, &dependency);
        row(name, called, &outcome, refused, state, again, health);
        failed += outcome.failed;
        // The next fault begins with closed breakers, whatever this one left behind.
        for dependency in served.db.pipelines().dependencies() {
            dependency.breaker().reset();
        }
    }
    Ok(failed)
}

/// How long it takes by itself until service is full again: the level is, and every answer complete.
fn recovery(served: &Served, dependency: &Dependency) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < RECOVERY_MAX {
        let outcome = load::run(served.address, 20, Duration::from_millis(250));
        let closed = dependency.breaker().state() == BreakerState::Closed;
        let whole = outcome.full.min(outcome.complete) == outcome.total();
        if whole && closed {
            return Some(begun.elapsed());
        }
    }
    None
}

fn row(
    name: &str,
    fault: &str,
    outcome: &load::Outcome,
    refused: u64,
    state: &str,
    again: Option<Duration>,
    health_ms: f64,
) {
    let percent = |part: u64| 100.0 * part as f64 / outcome.total().max(1) as f64;
    let again = again.map_or("-".to_string(), |again| format!("{:.1}", again.as_secs_f64()));
    println!(
        "| {name} | {fault} | {:.1} % | {:.1} % | {:.1} | {:.0} | {refused} | {state} | {again} | {health_ms:.1} |",
        percent(outcome.answered),
        percent(outcome.complete),
        outcome.quantile_ms(0.5),
        outcome.quantile_ms(0.99),
    );
}
