//! The cases: the same question put to each library.

use crate::meter::{Entry, Run};
use backon::BlockingRetryable;
use failsafe::CircuitBreaker as _;
use governor::clock::{MonotonicClock, QuantaClock};
use governor::{Quota, RateLimiter as Governor};
use mainstay_resilience::{
    Algorithm, Bulkhead, BulkheadConfig, CircuitBreaker, ErrorKind, KeyedConfig, KeyedRateLimiter,
    Pipeline, RateConfig, RateLimiter, Retry, RetryBudget, Timeout, TokioSleeper, Window,
};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tower::{Layer, Service};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

const HOUR: Duration = Duration::from_secs(3_600);

fn entry(case: &'static str, library: &'static str, threads: usize, run: Run) -> Entry {
    Entry { case, library, threads, run }
}

/// Polls a future that is ready at once, or soon, without a runtime.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
}

/// Every case, ours first in each.
pub fn all() -> Vec<Entry> {
    let mut entries = Vec::new();
    for threads in [1, 2] {
        entries.extend(closed(threads));
        entries.extend(open(threads));
        entries.extend(bucket(threads));
    }
    entries.extend(in_window());
    entries.extend(keyed());
    entries.extend(slots());
    entries.extend(budget());
    entries.extend(retry());
    entries.extend(timeout());
    entries.extend(pipeline());
    entries
}

fn ours_by_time() -> CircuitBreaker {
    CircuitBreaker::builder("bench").build().expect("the default is valid")
}

fn ours_call(breaker: CircuitBreaker) -> Run {
    Box::new(move |calls| {
        for _ in 0..calls {
            if let Ok(permit) = breaker.try_acquire() {
                permit.success();
            }
        }
    })
}

fn recloser() -> recloser::Recloser {
    recloser::Recloser::custom().error_rate(0.5).closed_len(100).open_wait(HOUR).build()
}

/// A service that answers at once.
#[derive(Clone)]
struct Echo(bool);

impl Service<()> for Echo {
    type Response = ();
    type Error = ();
    type Future = Ready<Result<(), ()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(if self.0 { Ok(()) } else { Err(()) })
    }
}

fn tower_resilience(window: SlidingWindowType, ok: bool) -> Run {
    let layer = CircuitBreakerLayer::builder()
        .sliding_window_type(window)
        .sliding_window_size(100)
        .sliding_window_duration(Duration::from_secs(1))
        .minimum_number_of_calls(20)
        .wait_duration_in_open(HOUR)
        .build()
        .expect("the configuration is valid");
    let service = layer.layer(Echo(ok));
    Box::new(move |calls| {
        let mut service = service.clone();
        for _ in 0..calls {
            let _ = black_box(now(service.call(())));
        }
    })
}

fn closed(threads: usize) -> Vec<Entry> {
    const CASE: &str = "breaker closed";
    let consecutive = CircuitBreaker::builder("bench").window(Window::None).build().expect("valid");
    let counting =
        CircuitBreaker::builder("bench").window(Window::count(100)).build().expect("valid");
    let (recloser, failsafe) = (recloser(), failsafe::Config::new().build());
    let by_row = failsafe::Config::new()
        .failure_policy(failsafe::failure_policy::consecutive_failures(
            5,
            failsafe::backoff::constant(HOUR),
        ))
        .build();
    vec![
        entry(CASE, "mainstay, time window", threads, ours_call(ours_by_time())),
        entry(CASE, "mainstay, count window", threads, ours_call(counting)),
        entry(CASE, "mainstay, consecutive only", threads, ours_call(consecutive)),
        entry(
            CASE,
            "recloser",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(recloser.call(|| Ok::<(), ()>(())));
                }
            }),
        ),
        entry(
            CASE,
            "failsafe, default",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(failsafe.call(|| Ok::<(), ()>(())));
                }
            }),
        ),
        entry(
            CASE,
            "failsafe, consecutive only",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(by_row.call(|| Ok::<(), ()>(())));
                }
            }),
        ),
        entry(
            CASE,
            "tower-resilience, count window",
            threads,
            tower_resilience(SlidingWindowType::CountBased, true),
        ),
    ]
}

fn open(threads: usize) -> Vec<Entry> {
    const CASE: &str = "breaker open";
    let ours = ours_by_time();
    ours.force_open_for(HOUR);
    let recloser = recloser();
    while !matches!(recloser.call(|| Err::<(), ()>(())), Err(recloser::Error::Rejected)) {}
    let failsafe = failsafe::Config::new()
        .failure_policy(failsafe::failure_policy::consecutive_failures(
            1,
            failsafe::backoff::constant(HOUR),
        ))
        .build();
    let _ = failsafe.call(|| Err::<(), ()>(()));
    let tower = tower_resilience(SlidingWindowType::CountBased, false);
    tower(200);
    vec![
        entry(
            CASE,
            "mainstay",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(ours.try_acquire());
                }
            }),
        ),
        entry(
            CASE,
            "recloser",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(recloser.call(|| Ok::<(), ()>(())));
                }
            }),
        ),
        entry(
            CASE,
            "failsafe",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(failsafe.call(|| Ok::<(), ()>(())));
                }
            }),
        ),
        entry(CASE, "tower-resilience", threads, tower),
    ]
}

/// The cost with so many calls in the window already.
fn in_window() -> Vec<Entry> {
    let ours = |calls: u64| {
        let breaker = CircuitBreaker::builder("bench")
            .window(Window::time(HOUR))
            .build()
            .expect("the configuration is valid");
        let run = ours_call(breaker);
        run(calls);
        run
    };
    vec![
        entry("1k in window", "mainstay, time window", 1, ours(1_000)),
        entry("1k in window", "tower-resilience, time window", 1, tower_resilience_filled(1_000)),
        entry("100k in window", "mainstay, time window", 1, ours(100_000)),
    ]
}

fn tower_resilience_filled(calls: u64) -> Run {
    let layer = CircuitBreakerLayer::builder()
        .sliding_window_type(SlidingWindowType::TimeBased)
        .sliding_window_duration(HOUR)
        .minimum_number_of_calls(20)
        .build()
        .expect("the configuration is valid");
    let service = layer.layer(Echo(true));
    let run: Run = Box::new(move |calls| {
        let mut service = service.clone();
        for _ in 0..calls {
            let _ = black_box(now(service.call(())));
        }
    });
    run(calls);
    run
}

fn bucket(threads: usize) -> Vec<Entry> {
    const CASE: &str = "token bucket allow";
    let config =
        RateConfig::per_second(Algorithm::TokenBucket, 10_000_000).with_burst(1_000_000_000);
    let ours = RateLimiter::new("bench", config).expect("the configuration is valid");
    let quota = Quota::per_second(NonZeroU32::MAX);
    let quanta = Governor::direct_with_clock(quota, QuantaClock::default());
    let instant = Governor::direct_with_clock(quota, MonotonicClock);
    vec![
        entry(
            CASE,
            "mainstay (coarse clock)",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(ours.try_acquire());
                }
            }),
        ),
        entry(
            CASE,
            "governor (quanta)",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(quanta.check());
                }
            }),
        ),
        entry(
            CASE,
            "governor (Instant)",
            threads,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(instant.check());
                }
            }),
        ),
    ]
}

fn keyed() -> Vec<Entry> {
    const CASE: &str = "keyed, 1000 keys";
    let keys: Arc<Vec<String>> = Arc::new((0..1_000).map(|key| format!("tenant-{key}")).collect());
    let config =
        RateConfig::per_second(Algorithm::TokenBucket, 10_000_000).with_burst(1_000_000_000);
    let ours = KeyedRateLimiter::new("bench", KeyedConfig::new(config)).expect("valid");
    let peer: Governor<String, _, _> =
        Governor::hashmap_with_clock(Quota::per_second(NonZeroU32::MAX), QuantaClock::default());
    let (ours_keys, peer_keys) = (Arc::clone(&keys), keys);
    vec![
        entry(
            CASE,
            "mainstay",
            1,
            Box::new(move |calls| {
                for call in 0..calls {
                    let _ = black_box(ours.try_acquire(&ours_keys[call as usize % 1_000], 1));
                }
            }),
        ),
        entry(
            CASE,
            "governor (hash map)",
            1,
            Box::new(move |calls| {
                for call in 0..calls {
                    let _ = black_box(peer.check_key(&peer_keys[call as usize % 1_000]));
                }
            }),
        ),
    ]
}

fn slots() -> Vec<Entry> {
    const CASE: &str = "bulkhead";
    let ours = Bulkhead::new("bench", BulkheadConfig::new(10)).expect("valid");
    let tower = tower::limit::ConcurrencyLimitLayer::new(10).layer(Echo(true));
    vec![
        entry(
            CASE,
            "mainstay",
            1,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(ours.try_acquire());
                }
            }),
        ),
        entry(
            CASE,
            "tower ConcurrencyLimit",
            1,
            Box::new(move |calls| {
                let mut service = tower.clone();
                for _ in 0..calls {
                    let _ = now(std::future::poll_fn(|cx| service.poll_ready(cx)));
                    let _ = black_box(now(service.call(())));
                }
            }),
        ),
    ]
}

fn budget() -> Vec<Entry> {
    use tower::retry::budget::{Budget as _, TpsBudget};
    const CASE: &str = "retry budget deposit";
    let ours = RetryBudget::new(Default::default()).expect("valid");
    let peer = TpsBudget::new(Duration::from_secs(10), 10, 0.2);
    vec![
        entry(
            CASE,
            "mainstay",
            1,
            Box::new(move |calls| {
                for _ in 0..calls {
                    // Taken and given, so that the deposit is not the one of a full budget.
                    let _ = black_box(ours.try_withdraw_cost(0.2));
                    ours.deposit();
                }
            }),
        ),
        entry(
            CASE,
            "tower TpsBudget",
            1,
            Box::new(move |calls| {
                for _ in 0..calls {
                    peer.deposit();
                }
            }),
        ),
    ]
}

fn retry() -> Vec<Entry> {
    const CASE: &str = "retry, first succeeds";
    let ours = Pipeline::builder()
        .then(Retry::builder("bench").build().expect("valid"))
        .build()
        .expect("the order is fine");
    vec![
        entry(
            CASE,
            "mainstay",
            1,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(ours.run(|_| Ok::<(), ErrorKind>(())));
                }
            }),
        ),
        entry(
            CASE,
            "backon",
            1,
            Box::new(|calls| {
                for _ in 0..calls {
                    let call = || Ok::<(), Infallible>(());
                    let _ = black_box(
                        call.retry(backon::ExponentialBuilder::default())
                            .sleep(std::thread::sleep)
                            .call(),
                    );
                }
            }),
        ),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn timeout() -> Vec<Entry> {
    const CASE: &str = "timeout, ready";
    let ours = Pipeline::builder()
        .sleeper(TokioSleeper)
        .then(Timeout::total("bench", HOUR).expect("valid"))
        .build()
        .expect("the order is fine");
    let tower = tower::timeout::TimeoutLayer::new(HOUR).layer(Echo2);
    let (first, second) = (runtime(), runtime());
    vec![
        entry(
            CASE,
            "mainstay",
            1,
            Box::new(move |calls| {
                first.block_on(async {
                    for _ in 0..calls {
                        let _ = black_box(ours.call(|_| async { Ok::<(), ErrorKind>(()) }).await);
                    }
                });
            }),
        ),
        entry(
            CASE,
            "tower Timeout",
            1,
            Box::new(move |calls| {
                second.block_on(async {
                    let mut service = tower.clone();
                    for _ in 0..calls {
                        let _ = black_box(service.call(()).await);
                    }
                });
            }),
        ),
    ]
}

/// As [`Echo`], with an error that tower can box.
#[derive(Clone)]
struct Echo2;

impl Service<()> for Echo2 {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

fn pipeline() -> Vec<Entry> {
    const CASE: &str = "five policies";
    let build = || {
        let rate =
            RateConfig::per_second(Algorithm::TokenBucket, 10_000_000).with_burst(1_000_000_000);
        Pipeline::builder()
            .sleeper(TokioSleeper)
            .then(Retry::builder("r").build().expect("valid"))
            .then(ours_by_time())
            .then(RateLimiter::new("l", rate).expect("valid"))
            .then(Bulkhead::new("s", BulkheadConfig::new(10)).expect("valid"))
            .then(Timeout::per_attempt("t", HOUR).expect("valid"))
            .build()
            .expect("the order is fine")
    };
    let (blocking, awaited, runtime) = (build(), build(), runtime());
    vec![
        entry(
            CASE,
            "mainstay, blocking",
            1,
            Box::new(move |calls| {
                for _ in 0..calls {
                    let _ = black_box(blocking.run(|_| Ok::<(), ErrorKind>(())));
                }
            }),
        ),
        entry(
            CASE,
            "mainstay, awaited",
            1,
            Box::new(move |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        let _ =
                            black_box(awaited.call(|_| async { Ok::<(), ErrorKind>(()) }).await);
                    }
                });
            }),
        ),
    ]
}
