//! Whole pipelines against a dependency that goes away, in virtual time.

use crate::{ms, secs};
use mainstay_resilience::testing::{Dependency, Outage, Report, Simulation, VirtualTime};
use mainstay_resilience::{
    Backoff, BudgetConfig, CircuitBreaker, OpenFor, Pipeline, Retry, RetryBudget, Timeout,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const OUTAGE: std::ops::Range<Duration> = secs(10)..secs(20);

fn simulation(seed: u64, outage: Outage) -> Simulation {
    Simulation {
        seed,
        duration: secs(30),
        requests_per_second: 100,
        dependency: Dependency { latency: ms(20), outages: vec![(OUTAGE, outage)] },
    }
}

fn retry(budget: Option<&RetryBudget>) -> Retry {
    let builder = Retry::builder("r").backoff(Backoff::fixed(ms(50))).seed(9);
    match budget {
        Some(budget) => builder.budget(budget).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

fn budget(time: &VirtualTime) -> RetryBudget {
    let mut config = BudgetConfig::default();
    // A tenth in all: 1 000 requests, 80 of their share, 5 saved up, 1 each second of the floor.
    (config.ratio, config.capacity, config.floor_per_second) = (0.08, 5, 1);
    RetryBudget::with_clock(config, time.clock()).unwrap()
}

#[test]
fn during_an_outage_a_budget_keeps_the_load_at_what_a_healthy_dependency_gets() {
    for seed in 0..5 {
        let simulation = simulation(seed, Outage::Fails);
        let run = |with_budget: bool| -> Report {
            simulation.run(|time| {
                let budget = with_budget.then(|| budget(time));
                Pipeline::builder()
                    .clock(time.clock())
                    .sleeper(time.sleeper())
                    .then(retry(budget.as_ref()))
                    .build()
                    .unwrap()
            })
        };
        assert!(run(false).load(OUTAGE) > 2.9, "without a budget attempts triple the load");
        run(true).assert_load_at_most(OUTAGE, 1.1);
    }
}

#[test]
fn a_breaker_frees_the_dependency_and_recovers_within_three_seconds() {
    for seed in 0..5 {
        for outage in [Outage::Refuses, Outage::Fails, Outage::Hangs] {
            let report = simulation(seed, outage).run(|time| {
                let breaker = CircuitBreaker::builder("dep")
                    .open_for(OpenFor::fixed(secs(1)).with_jitter(0.1))
                    .seed(seed)
                    .clock(time.clock())
                    .build()
                    .unwrap();
                Pipeline::builder()
                    .clock(time.clock())
                    .sleeper(time.sleeper())
                    .then(Timeout::total("t", secs(1)).unwrap())
                    .then(retry(Some(&budget(time))))
                    .then(breaker)
                    .then(Timeout::per_attempt("a", ms(250)).unwrap())
                    .build()
                    .unwrap()
            });
            report.assert_load_at_most(OUTAGE, 0.1);
            report.assert_recovers_within(OUTAGE.end, secs(3));
            assert!(report.answered(secs(0)..secs(10)) > 0.999, "{outage:?}, seed {seed}");
        }
    }
}

#[test]
fn one_seed_gives_one_simulation() {
    let loads = [1, 1, 2].map(|seed| {
        let report = simulation(seed, Outage::Fails).run(|time| {
            Pipeline::builder()
                .clock(time.clock())
                .sleeper(time.sleeper())
                .then(retry(Some(&budget(time))))
                .build()
                .unwrap()
        });
        format!("{report:?}")
    });
    assert_eq!(loads[0], loads[1]);
    assert_ne!(loads[0], loads[2]);
}

#[test]
fn a_stretch_that_shows_nothing_is_refused_instead_of_passed() {
    let report = simulation(1, Outage::Fails).run(|time| {
        Pipeline::builder().clock(time.clock()).sleeper(time.sleeper()).build().unwrap()
    });
    let reversed = std::ops::Range { start: secs(20), end: secs(10) };
    for (during, says) in [
        (secs(40)..secs(50), "is not within the run"),
        (secs(20)..secs(31), "is not within the run"),
        (reversed, "empty or reversed"),
        (secs(10)..secs(10), "empty or reversed"),
        (ms(10)..ms(20), "no request in"),
    ] {
        let assert = AssertUnwindSafe(|| report.assert_load_at_most(during.clone(), 1.0));
        let payload = catch_unwind(assert).expect_err("it shows nothing");
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.contains(says), "{during:?}: {text}");
    }
    report.assert_load_at_most(secs(0)..secs(30), 1.0);
}
