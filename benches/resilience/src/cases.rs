//! The cases: the same question put to each library.

use crate::meter::{Entry, Run};
use backon::BlockingRetryable;
use failsafe::CircuitBreaker as _;
use governor::clock::{MonotonicClock, QuantaClock};
use governor::{Quota, RateLimiter as Governor};
use mainstay_resilience::{
    Algorithm, Bulkhead, BulkheadConfig, CircuitBreaker, Clock, ErrorKind, KeyedConfig,
    KeyedRateLimiter, Pipeline, RateConfig, RateLimiter, Retry, RetryBudget, Timeout, TokioSleeper,
    Window,
};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tower::{Layer, Service};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

const HOUR: Duration = Duration::from_secs(3_600);

/// A case whose every call is timed.
fn entry(case: &'static str, library: &'static str, threads: usize, run: Calls) -> Entry {
    let timed: Run = Box::new(move |calls| {
        let begin = Instant::now();
        run(calls);
        begin.elapsed()
    });
    Entry { case, library, threads, run: timed }
}

/// Makes so many calls.
type Calls = Box<dyn Fn(u64) + Send + Sync>;

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

fn ours_call(breaker: CircuitBreaker) -> Calls {
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

fn tower_resilience(window: SlidingWindowType, ok: bool) -> Calls {
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

/// A service that never answers, with an error that tower can box.
#[derive(Clone)]
struct Stuck;

impl Service<()> for Stuck {
    type Response = ();
    type Error = Infallible;
    type Future = std::future::Pending<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::pending()
    }
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
        Entry {
            case: "1k in window",
            library: "tower-resilience, time window",
            threads: 1,
            run: tower_resilience_filled(1_000),
        },
        entry("100k in window", "mainstay, time window", 1, ours(100_000)),
    ]
}

/// Calls timed with about so many in the window: the window is filled anew, untimed, before each
/// fiftieth call, because it grows with every one.
fn tower_resilience_filled(filled: u64) -> Run {
    const TIMED: u64 = 50;
    Box::new(move |calls| {
        let mut took = Duration::ZERO;
        let mut left = calls;
        while left > 0 {
            let layer = CircuitBreakerLayer::builder()
                .sliding_window_type(SlidingWindowType::TimeBased)
                .sliding_window_duration(HOUR)
                .minimum_number_of_calls(20)
                .build()
                .expect("the configuration is valid");
            let mut service = layer.layer(Echo(true));
            let mut run = |calls: u64| {
                for _ in 0..calls {
                    let _ = black_box(now(service.call(())));
                }
            };
            run(filled);
            let begin = Instant::now();
            run(left.min(TIMED));
            took += begin.elapsed();
            left -= left.min(TIMED);
        }
        took
    })
}

/// Our coarse clock for governor, so that both can be compared on one clock.
#[derive(Clone)]
struct Coarse(Clock);

impl governor::clock::Clock for Coarse {
    type Instant = governor::nanos::Nanos;

    fn now(&self) -> Self::Instant {
        self.0.coarse().as_nanos().into()
    }
}

fn take(limiter: RateLimiter) -> Calls {
    Box::new(move |calls| {
        for _ in 0..calls {
            let _ = black_box(limiter.try_acquire());
        }
    })
}

/// Takes from limiters in turn, each for a millisecond, that each fill in 50 ms, which only the
/// precise clock can measure. One alone would be empty soon, since calls come faster than the fastest
/// rate; by the time its turn comes again it is full. Turns go by time, so that all threads are with
/// the same limiter.
fn take_precisely() -> Calls {
    const CHUNK: u64 = 1_000;
    let config = RateConfig::per_second(Algorithm::TokenBucket, 10_000_000).with_burst(500_000);
    let limiters: Vec<RateLimiter> =
        (0..64).map(|_| RateLimiter::new("bench", config).expect("valid")).collect();
    let origin = Instant::now();
    Box::new(move |calls| {
        let mut left = calls;
        while left > 0 {
            let limiter = &limiters[origin.elapsed().as_millis() as usize % limiters.len()];
            for _ in 0..left.min(CHUNK) {
                let _ = black_box(limiter.try_acquire());
            }
            left -= left.min(CHUNK);
        }
    })
}

/// Makes governor's limiter on any clock take.
macro_rules! check {
    ($limiter:expr) => {{
        let limiter = $limiter;
        Box::new(move |calls: u64| {
            for _ in 0..calls {
                let _ = black_box(limiter.check());
            }
        }) as Calls
    }};
}

fn bucket(threads: usize) -> Vec<Entry> {
    const ALLOW: &str = "token bucket allow";
    const PRECISE: &str = "bucket allow, Instant";
    const REJECT: &str = "token bucket reject";
    let limiter = |config| RateLimiter::new("bench", config).expect("the configuration is valid");
    let fast = RateConfig::per_second(Algorithm::TokenBucket, 10_000_000);
    let coarse = limiter(fast.with_burst(1_000_000_000));
    let spent = limiter(RateConfig::new(Algorithm::TokenBucket, 1, HOUR));
    let _ = spent.try_acquire();
    let number = |number| NonZeroU32::new(number).expect("not zero");
    let quota = Quota::per_second(number(10_000_000)).allow_burst(number(1_000_000_000));
    let one = Quota::with_period(HOUR).expect("not zero");
    let peer_spent = Governor::direct_with_clock(one, QuantaClock::default());
    let _ = peer_spent.check();
    let same_clock = Coarse(Clock::system());
    let peer_spent_coarse = Governor::direct_with_clock(one, same_clock.clone());
    let _ = peer_spent_coarse.check();
    vec![
        entry(ALLOW, "mainstay (coarse clock)", threads, take(coarse)),
        entry(
            ALLOW,
            "governor (quanta)",
            threads,
            check!(Governor::direct_with_clock(quota, QuantaClock::default())),
        ),
        entry(
            ALLOW,
            "governor (coarse clock)",
            threads,
            check!(Governor::direct_with_clock(quota, same_clock)),
        ),
        entry(PRECISE, "mainstay (precise clock)", threads, take_precisely()),
        entry(
            PRECISE,
            "governor (Instant)",
            threads,
            check!(Governor::direct_with_clock(quota, MonotonicClock)),
        ),
        entry(REJECT, "mainstay", threads, take(spent)),
        entry(REJECT, "governor (quanta)", threads, check!(peer_spent)),
        entry(REJECT, "governor (coarse clock)", threads, check!(peer_spent_coarse)),
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
    const FULL: &str = "bulkhead, full";
    let full = Bulkhead::new("bench", BulkheadConfig::new(1)).expect("valid");
    let held = full.try_acquire_owned().expect("a slot is free");
    let full_tower = tower::load_shed::LoadShedLayer::new()
        .layer(tower::limit::ConcurrencyLimitLayer::new(1).layer(Stuck));
    let mut holder = full_tower.clone();
    let _ = now(std::future::poll_fn(|cx| holder.poll_ready(cx)));
    let held_tower = std::sync::Mutex::new(holder.call(()));
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
        entry(
            FULL,
            "mainstay",
            1,
            Box::new(move |calls| {
                let _held = &held;
                for _ in 0..calls {
                    let _ = black_box(full.try_acquire().is_err());
                }
            }),
        ),
        entry(
            FULL,
            "tower LoadShed",
            1,
            Box::new(move |calls| {
                let _held = &held_tower;
                let mut service = full_tower.clone();
                for _ in 0..calls {
                    let _ = now(std::future::poll_fn(|cx| service.poll_ready(cx)));
                    let _ = black_box(now(service.call(())).is_err());
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
