//! Retry, timeout, hedge, fallback and partial failure, alone and in chains, in virtual time.

use crate::{ms, secs};
use mainstay_resilience::testing::{Fault, Faults, VirtualSleeper, VirtualTime};
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Algorithm, AnswerCache, Backoff, BreakerConfig, BudgetConfig,
    Bulkhead, BulkheadConfig, CircuitBreaker, Clock, Context, Deadline, DropRule, Enough, Error,
    ErrorKind, Event, Fallback, FallbackCall, GaveUp, Hedge, HedgeDelay, Jitter, ManualClock,
    Missing, Partial, Pipeline, PipelineBuilder, PolicyKind, RateConfig, RateLimiter, Retry,
    RetryBudget, RetryConfig, Sleeper, SlowCalls, State, Throttle, ThrottleConfig, Tick,
    TimeSource, Timeout, Verdict,
};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn chain(time: &VirtualTime) -> PipelineBuilder<mainstay_resilience::Bare, VirtualSleeper> {
    Pipeline::builder().clock(time.clock()).sleeper(time.sleeper())
}

fn exhausted<E: std::fmt::Debug>(error: Error<E>) -> Box<mainstay_resilience::Exhausted<E>> {
    match error {
        Error::Exhausted(exhausted) => exhausted,
        other => panic!("expected an exhausted call, found {other:?}"),
    }
}

#[test]
fn r1_the_default_makes_three_attempts_and_keeps_all_errors() {
    let retry = Retry::builder("r").build().unwrap();
    let clock = ManualClock::new().clock();
    let failed = retry.run_on(&clock, |attempt| -> Result<(), _> {
        Err([ErrorKind::Timeout, ErrorKind::Connection, ErrorKind::ServerError]
            [attempt.number() as usize - 1])
    });
    let exhausted = exhausted(failed.unwrap_err());
    assert_eq!(exhausted.gave_up(), GaveUp::AttemptsUsedUp);
    let kinds: Vec<_> = exhausted.errors().iter().filter_map(Error::operation).collect();
    assert_eq!(kinds, [&ErrorKind::Timeout, &ErrorKind::Connection, &ErrorKind::ServerError]);
}

#[test]
fn r1_the_external_service_preset_waits_a_second_give_or_take_a_tenth() {
    let clock = ManualClock::new();
    let retry =
        Retry::builder("r").config(RetryConfig::external_service()).seed(3).build().unwrap();
    let began = clock.now();
    let _ = retry.run_on(&clock.clock(), |_| Err::<(), _>(ErrorKind::Timeout));
    let waited = clock.now().since(began);
    assert!(waited >= ms(2_700) && waited <= ms(3_300), "{waited:?}");
}

#[test]
fn r2_what_cannot_be_helped_is_not_retried_and_comes_back_as_it_is() {
    for kind in ErrorKind::ALL {
        let calls = AtomicU32::new(0);
        let retry = Retry::builder("r").build().unwrap();
        let failed = retry.run_on(&ManualClock::new().clock(), |_| -> Result<(), _> {
            calls.fetch_add(1, Ordering::Relaxed);
            Err(kind)
        });
        assert_eq!(calls.into_inner(), if kind.is_retryable() { 3 } else { 1 }, "{kind}");
        assert_eq!(failed.unwrap_err() == Error::Operation(kind), !kind.is_retryable());
    }
}

#[test]
fn r2_retry_after_is_waited_for_within_the_deadline_and_otherwise_reported_at_once() {
    let clock = ManualClock::new();
    let retry = Retry::builder("r").backoff(Backoff::none()).build().unwrap();
    let pipeline = Pipeline::builder().clock(clock.clock()).then(retry).build().unwrap();
    let asked = |wait: Duration| {
        move |result: Result<&(), &ErrorKind>| match result {
            Ok(()) => Verdict::success(),
            Err(kind) => Verdict::failure(*kind).with_retry_after(Some(wait)),
        }
    };
    let began = clock.now();
    let context = || Context::within(Deadline::after(&clock.clock(), secs(10)));
    let answered = pipeline.run_judged(context(), asked(secs(4)), |attempt| {
        if attempt.number() == 2 { Ok(()) } else { Err(ErrorKind::RateLimit) }
    });
    assert_eq!(answered, Ok(()));
    assert_eq!(clock.now().since(began), secs(4));
    let failed = pipeline.run_judged(context(), asked(secs(11)), |_| Err(ErrorKind::RateLimit));
    let error = failed.unwrap_err();
    assert_eq!(error.retry_after(), Some(secs(11)));
    assert_eq!(exhausted(error).gave_up(), GaveUp::DeadlineTooClose);
    assert_eq!(clock.now().since(began), secs(4), "nothing was waited for");
}

#[test]
fn r2_a_wait_beyond_what_the_policy_allows_is_no_question_of_the_deadline() {
    let retry = Retry::builder("r").retry_after_max(secs(5)).build().unwrap();
    let clock = ManualClock::new();
    let pipeline = Pipeline::builder().clock(clock.clock()).then(retry).build().unwrap();
    let judge = |_: Result<&(), &ErrorKind>| {
        Verdict::failure(ErrorKind::RateLimit).with_retry_after(Some(secs(6)))
    };
    let failed =
        pipeline.run_judged(Context::default(), judge, |_| Err::<(), _>(ErrorKind::RateLimit));
    let exhausted = exhausted(failed.unwrap_err());
    assert_eq!(exhausted.gave_up(), GaveUp::RetryAfterTooLong);
    assert_eq!(
        exhausted.to_string(),
        "the other side asks to wait longer than retry_after_max allows after 1 attempts: \
         rate_limit"
    );
}

#[test]
fn r3_an_attempt_that_cannot_finish_in_time_is_not_started() {
    let clock = ManualClock::new();
    let retry = Retry::builder("r").attempts(10).backoff(Backoff::fixed(ms(100))).build().unwrap();
    let pipeline = Pipeline::builder().clock(clock.clock()).then(retry).build().unwrap();
    for _ in 0..100 {
        let taught = pipeline.run(|_| {
            clock.advance(ms(300));
            Ok::<_, ErrorKind>(())
        });
        assert!(taught.is_ok());
    }
    let deadline = Deadline::after(&clock.clock(), secs(1));
    let failed = pipeline.run_within(deadline, |_| {
        clock.advance(ms(250));
        Err::<(), _>(ErrorKind::ServerError)
    });
    let exhausted = exhausted(failed.unwrap_err());
    assert_eq!(exhausted.gave_up(), GaveUp::DeadlineTooClose);
    // 250 and 600 ms leave 300 ms after the next wait; 950 would not.
    assert_eq!(exhausted.errors().len(), 2);
    assert!(!deadline.has_passed(clock.now()));
}

#[test]
fn results_can_be_asked_for_again() {
    let retry = Retry::builder("r").backoff(Backoff::fixed(ms(10))).build().unwrap();
    let clock = ManualClock::new().clock();
    let pipeline = Pipeline::builder().clock(clock).then(retry).build().unwrap();
    let judge = |result: Result<&u32, &ErrorKind>| match result {
        Ok(2) => Verdict::success(),
        _ => Verdict::success().with_retry(),
    };
    let answer = pipeline.run_judged(Context::default(), judge, |a| Ok::<_, ErrorKind>(a.number()));
    assert_eq!(answer, Ok(2));
    let never = |_: Result<&u32, &ErrorKind>| Verdict::success().with_retry();
    let answer = pipeline.run_judged(Context::default(), never, |a| Ok::<_, ErrorKind>(a.number()));
    assert_eq!(answer, Ok(3), "the last result stands");
}

#[test]
fn a_budget_bounds_the_extra_calls_of_everybody_who_shares_it_and_refills() {
    let clock = ManualClock::new();
    let mut config = BudgetConfig::default();
    (config.ratio, config.capacity, config.floor_per_second) = (0.1, 10, 1);
    let budget = RetryBudget::with_clock(config, clock.clock()).unwrap();
    let retries: Vec<_> = ["a", "b"]
        .map(|name| Retry::builder(name).backoff(Backoff::none()).budget(&budget).build().unwrap())
        .into();
    let calls = AtomicU32::new(0);
    for _ in 0..1_000 {
        for retry in &retries {
            let _ = retry.run_on(&clock.clock(), |_| -> Result<(), _> {
                calls.fetch_add(1, Ordering::Relaxed);
                Err(ErrorKind::ServerError)
            });
        }
    }
    let extra = calls.into_inner() - 2_000;
    assert!((200..=212).contains(&extra), "10 % of 2000 calls, 10 saved up, 1 floor: {extra}");
    assert!(retries[0].stats().refused_by_budget > 0);
    clock.advance(secs(1));
    assert!(budget.try_withdraw(), "the floor refills by time alone");
}

#[test]
fn r3_a_timeout_drops_the_work_and_each_attempt_gets_what_is_left() {
    struct Dropped<'a>(&'a AtomicU32);
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let time = VirtualTime::new();
    let pipeline = chain(&time)
        .then(Timeout::total("total", ms(1_000)).unwrap())
        .then(Retry::builder("r").attempts(5).backoff(Backoff::fixed(ms(100))).build().unwrap())
        .then(Timeout::per_attempt("attempt", ms(400)).unwrap())
        .build()
        .unwrap();
    let (began, clock) = (time.clock().now(), time.clock());
    let (dropped, lefts) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let failed = time.block_on(pipeline.call(|attempt| {
        let guard = Dropped(&dropped);
        lefts.lock().unwrap().push(attempt.deadline().remaining(clock.now()).as_millis());
        async move {
            let _guard = guard;
            std::future::pending::<Result<(), ErrorKind>>().await
        }
    }));
    assert_eq!(*lefts.lock().unwrap(), [400, 400]);
    assert_eq!(dropped.into_inner(), 2, "the work was dropped, not abandoned");
    assert!(failed.unwrap_err().is_timeout());
    assert!(clock.now().since(began) <= ms(1_000));
}

#[test]
fn r3_nothing_starts_after_the_deadline() {
    let time = VirtualTime::new();
    let pipeline = chain(&time).then(Timeout::total("t", secs(1)).unwrap()).build().unwrap();
    let passed = Deadline::at(time.clock().now());
    let failed = time.block_on(pipeline.call_within(passed, |_| async {
        panic!("the operation started");
        #[allow(unreachable_code)]
        Ok::<(), ErrorKind>(())
    }));
    assert!(failed.unwrap_err().is_rejected());
}

#[test]
fn r7_attempts_and_successes_after_retry_are_counted() {
    let retry = Retry::builder("r").backoff(Backoff::none()).build().unwrap();
    let clock = ManualClock::new().clock();
    for succeed_at in [1, 1, 2, 3, 9] {
        let _ = retry.run_on(&clock, |attempt| {
            if attempt.number() >= succeed_at { Ok(()) } else { Err(ErrorKind::Timeout) }
        });
    }
    let stats = retry.stats();
    assert_eq!(stats.calls_by_attempts[..3], [2, 1, 2]);
    assert_eq!((stats.succeeded_after_retry, stats.failed), (2, 1));
    assert_eq!((stats.calls(), stats.retries()), (5, 5));
}

#[test]
fn a_hedge_starts_after_its_delay_and_the_first_success_wins() {
    let time = VirtualTime::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let hedge = Hedge::builder("h")
        .delay(HedgeDelay::Fixed(ms(50)))
        .observer(Arc::new(move |event: &Event<'_>| {
            seen.lock().unwrap().push(format!("{event:?}"));
        }))
        .build()
        .unwrap();
    let pipeline = chain(&time).then(hedge).build().unwrap();
    let (clock, sleeper) = (time.clock(), time.sleeper());
    let began = clock.now();
    let winner = time.block_on(pipeline.call(|attempt| {
        let sleep = sleeper.sleep(if attempt.hedge() == 0 { secs(10) } else { ms(20) });
        async move {
            sleep.await;
            Ok::<_, ErrorKind>(attempt.hedge())
        }
    }));
    assert_eq!(winner, Ok(1));
    assert_eq!(clock.now().since(began), ms(70));
    let events = events.lock().unwrap();
    assert!(events[0].starts_with("HedgeStarted") && events[1].contains("winner: 2"), "{events:?}");
}

#[test]
fn a_hedge_takes_its_delay_from_the_quantile_and_its_calls_from_the_budget() {
    let time = VirtualTime::new();
    let mut config = BudgetConfig::default();
    (config.ratio, config.capacity, config.floor_per_second) = (0.0, 3, 0);
    let budget = RetryBudget::with_clock(config, time.clock()).unwrap();
    let hedge = Hedge::builder("h").budget(&budget).build().unwrap();
    let pipeline = chain(&time).then(hedge.clone()).build().unwrap();
    let sleeper = time.sleeper();
    let calls = AtomicU32::new(0);
    let call = |wait: Duration| {
        let (sleeper, calls) = (&sleeper, &calls);
        pipeline.call(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            let sleep = sleeper.sleep(wait);
            async move {
                sleep.await;
                Ok::<_, ErrorKind>(())
            }
        })
    };
    assert_eq!(hedge.delay(), None);
    (0..200).for_each(|_| time.block_on(call(ms(10))).unwrap());
    let delay = hedge.delay().unwrap();
    assert!(delay >= ms(10) && delay < ms(12), "{delay:?}");
    (0..10).for_each(|_| time.block_on(call(ms(100))).unwrap());
    assert_eq!(calls.into_inner(), 210 + 3, "three hedges were in the budget");
}

#[test]
fn a_failing_first_attempt_brings_the_hedge_forward() {
    let time = VirtualTime::new();
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(secs(5))).build().unwrap();
    let pipeline = chain(&time).then(hedge).build().unwrap();
    let began = time.clock().now();
    let answer = time.block_on(pipeline.call(|attempt| async move {
        if attempt.hedge() == 0 { Err(ErrorKind::Connection) } else { Ok("second") }
    }));
    assert_eq!(answer, Ok("second"));
    assert_eq!(time.clock().now(), began);
    let failed = time.block_on(pipeline.call(|_| async { Err::<(), _>(ErrorKind::Connection) }));
    assert_eq!(failed, Err(Error::Operation(ErrorKind::Connection)));
}

#[test]
fn d2_a_fallback_answers_from_a_cache_statically_or_elsewhere() {
    let clock = ManualClock::new();
    let cache = Arc::new(AnswerCache::new(10, secs(10), secs(60), clock.clock()).unwrap());
    cache.insert("q", "cached");
    let kept = Arc::clone(&cache);
    let pipeline = Pipeline::builder()
        .clock(clock.clock())
        .then(Fallback::to("static", |_: &Error<ErrorKind>| Some("static")))
        .then(Fallback::to("cache", move |_: &Error<ErrorKind>| kept.stale(&"q")))
        .then(FallbackCall::new("elsewhere", |_| Err(ErrorKind::Timeout)))
        .build()
        .unwrap();
    let answer = || pipeline.run(|_| Err(ErrorKind::ServerError));
    assert_eq!(answer(), Ok("cached"));
    clock.advance(secs(71));
    assert_eq!(answer(), Ok("static"), "the cached answer is too old even for an error");
    let elsewhere = Pipeline::builder()
        .then(FallbackCall::new("elsewhere", |_| Ok("elsewhere")))
        .build()
        .unwrap();
    assert_eq!(elsewhere.run(|_| Err(ErrorKind::Connection)), Ok("elsewhere"));
    let not_found = elsewhere.run(|_| Err(ErrorKind::NotFound));
    assert_eq!(not_found, Err(Error::Operation(ErrorKind::NotFound)), "that is an answer");
}

#[test]
fn d3_enough_steps_are_enough_and_the_missing_are_named() {
    let steps = |ok: [bool; 4]| ok.map(|ok| move || if ok { Ok(1) } else { Err("broken") });
    let half = Partial::new(Enough::Ratio(0.5)).unwrap();
    let outcome = half.run(steps([true, false, true, false])).unwrap();
    assert_eq!(outcome.arrived, [(0, 1), (2, 1)]);
    assert_eq!(outcome.missing, [(1, Missing::Failed("broken")), (3, Missing::Failed("broken"))]);
    let three = Partial::new(Enough::Count(3)).unwrap();
    let too_few = three.run(steps([false, false, true, true])).unwrap_err();
    assert_eq!(too_few.to_string(), "0 of 4 steps succeeded, 3 were needed");
    assert_eq!(too_few.outcome.missing[2], (2, Missing::NotStarted));
    assert!(Partial::new(Enough::Ratio(1.5)).is_err());
}

#[test]
fn d3_late_steps_are_dropped_and_what_arrived_is_kept() {
    let time = VirtualTime::new();
    let sleeper = time.sleeper();
    let partial = Partial::new(Enough::Count(2)).unwrap();
    let steps = [10, 500, 30].map(|wait| {
        let sleep = sleeper.sleep(ms(wait));
        async move {
            sleep.await;
            Ok::<_, ErrorKind>(wait)
        }
    });
    let began = time.clock().now();
    let outcome = time.block_on(partial.call(&sleeper, ms(100), steps)).unwrap();
    assert_eq!(outcome.arrived, [(0, 10), (2, 30)]);
    assert_eq!(outcome.missing, [(1, Missing::Late)]);
    assert_eq!(time.clock().now().since(began), ms(100));
}

#[test]
fn senseless_orders_are_refused_with_what_to_write_instead() {
    let retry = || Retry::builder("r").build().unwrap();
    let fallback = || Fallback::to("f", |_: &Error<ErrorKind>| Some(()));
    let breaker = CircuitBreaker::search_method("b");
    let hedge = || Hedge::builder("h").build().unwrap();
    let total = || Timeout::total("t", secs(1)).unwrap();
    let attempt = || Timeout::per_attempt("a", secs(1)).unwrap();
    let refusals = [
        Pipeline::builder().then(retry()).then(fallback()).build().unwrap_err(),
        Pipeline::builder().then(breaker.clone()).then(fallback()).build().unwrap_err(),
        Pipeline::builder().then(hedge()).then(fallback()).build().unwrap_err(),
        Pipeline::builder().then(retry()).then(retry()).build().unwrap_err(),
        Pipeline::builder().then(hedge()).then(retry()).build().unwrap_err(),
        Pipeline::builder().then(hedge()).then(hedge()).build().unwrap_err(),
        Pipeline::builder().then(attempt()).then(retry()).build().unwrap_err(),
        Pipeline::builder().then(retry()).then(total()).build().unwrap_err(),
        Pipeline::builder().then(total()).then(breaker.clone()).build().unwrap_err(),
        Pipeline::builder().then(breaker.clone()).then(breaker.clone()).build().unwrap_err(),
        Pipeline::builder()
            .clock(ManualClock::new().clock())
            .then(breaker.clone())
            .build()
            .unwrap_err(),
    ];
    let instead: Vec<_> = refusals.iter().map(|refused| refused.instead()).collect();
    assert_eq!(
        instead,
        [
            "put the fallback before the retry",
            "put the fallback before the breaker",
            "put the fallback before the hedge",
            "use one retry with more attempts",
            "put the retry before the hedge",
            "use one hedge with more attempts",
            "put it after the retry, or use Timeout::total",
            "put it before the retry, or use Timeout::per_attempt",
            "put a Timeout::per_attempt after the breaker, or set its on_drop rule to TimeoutAfter",
            "leave one of the two out: each call would be counted twice",
            "give the same clock to the policy and to PipelineBuilder::clock",
        ]
    );
    assert_eq!(
        refusals[0].to_string(),
        "fallback f stands inside retry r, which would never see an error to retry; put the \
         fallback before the retry"
    );
}

#[test]
fn fallbacks_inside_what_learns_from_results_are_refused() {
    let fallback = || Fallback::to("f", |_: &Error<ErrorKind>| Some(()));
    let throttle = Throttle::new("t", ThrottleConfig::default()).unwrap();
    let limit = AdaptiveLimit::new("a", AdaptiveConfig::default()).unwrap();
    let refused = Pipeline::builder().then(throttle.clone()).then(fallback()).build().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "fallback f stands inside throttle t, which would count the fallback's answers as accepted \
         by the dependency; put the fallback before the throttle"
    );
    let refused = Pipeline::builder().then(limit.clone()).then(fallback()).build().unwrap_err();
    assert_eq!(refused.instead(), "put the fallback before the adaptive limit");
    assert!(Pipeline::builder().then(fallback()).then(throttle).then(limit).build().is_ok());
}

#[test]
fn a_breaker_whose_rule_on_drops_is_longer_than_the_timeout_around_it_is_refused() {
    let breaker = |limit| {
        let builder = CircuitBreaker::builder("b").on_drop(DropRule::TimeoutAfter(limit));
        builder.build().unwrap()
    };
    let total = |limit| Timeout::total("t", limit).unwrap();
    let attempt = || Timeout::per_attempt("a", ms(100)).unwrap();
    let under = |limit, drop_limit| {
        Pipeline::builder().then(total(limit)).then(breaker(drop_limit)).build().map(drop)
    };
    assert_eq!(
        under(ms(800), secs(1)).unwrap_err().to_string(),
        "timeout t stands outside circuit_breaker b, which counts dropped calls only after 1s, while \
         that drops them after 800ms, and would never open on a dependency that hangs; put a \
         Timeout::per_attempt after the breaker, or set TimeoutAfter below the timeout outside, at \
         nine tenths of it"
    );
    assert!(
        under(ms(800), ms(800)).is_err(),
        "a call dropped at the limit may be just short of it"
    );
    assert_eq!(under(ms(800), ms(720)), Ok(()));
    let shortest = Pipeline::builder()
        .then(total(secs(5)))
        .then(Timeout::per_attempt("p", ms(500)).unwrap())
        .then(breaker(secs(1)));
    assert!(shortest.build().is_err(), "the shorter of two decides");
    let inside = Pipeline::builder().then(total(ms(800))).then(breaker(secs(1))).then(attempt());
    assert!(inside.build().is_ok(), "the timeout inside tells the breaker");
    let mut failure = CircuitBreaker::builder("b");
    failure = failure.on_drop(DropRule::Failure);
    assert!(Pipeline::builder().then(total(ms(1))).then(failure.build().unwrap()).build().is_ok());
}

/// A time that stands still, and how often it was read to the best resolution.
#[derive(Default)]
pub(crate) struct Readings(pub(crate) AtomicU32);

impl TimeSource for Readings {
    fn now(&self) -> Tick {
        self.0.fetch_add(1, Ordering::Relaxed);
        Tick::from_nanos(3_600_000_000_000)
    }

    fn coarse(&self) -> Tick {
        Tick::from_nanos(3_600_000_000_000)
    }
}

#[test]
fn a_policy_that_is_reconfigured_in_a_chain_is_measured_by_the_clock_it_needs_then() {
    let readings = Arc::new(Readings::default());
    let clock = Clock::from_source(Arc::clone(&readings) as Arc<dyn TimeSource>);
    let breaker = CircuitBreaker::builder("b").clock(clock.clone()).build().unwrap();
    let rate = RateConfig::per_second(Algorithm::TokenBucket, 100);
    let limiter = RateLimiter::with_clock("r", rate, clock.clone()).unwrap();
    let timeout = Timeout::per_attempt("t", secs(1)).unwrap();
    let pipeline = Pipeline::builder()
        .clock(clock)
        .then(breaker.clone())
        .then_if(Some(limiter.clone()))
        .then(timeout.clone())
        .build()
        .unwrap();
    let precise = || {
        let before = readings.0.load(Ordering::Relaxed);
        pipeline.run(|_| Ok::<_, ErrorKind>(())).unwrap();
        readings.0.load(Ordering::Relaxed) > before
    };
    assert!(!precise());
    timeout.set_limit(ms(50)).unwrap();
    assert!(precise(), "a limit of 50 ms");
    timeout.set_limit(secs(1)).unwrap();
    assert!(!precise(), "the cheap clock again");
    let mut slow = breaker.config();
    slow.slow_calls = Some(SlowCalls { rate: 0.5, longer_than: ms(20) });
    breaker.reconfigure(slow).unwrap();
    assert!(precise(), "slow from 20 ms");
    breaker.reconfigure(BreakerConfig::default()).unwrap();
    assert!(!precise());
    limiter.reconfigure(rate.with_burst(9)).unwrap();
    assert!(precise(), "a bucket that fills in 90 ms");
}

#[test]
fn a_chain_describes_its_policies_as_they_are_now() {
    let breaker = CircuitBreaker::builder("b").build().unwrap();
    let timeout = Timeout::per_attempt("t", secs(1)).unwrap();
    let slots = Bulkhead::new("s", BulkheadConfig::new(8)).unwrap();
    let pipeline = Pipeline::builder()
        .then(breaker.clone())
        .then_if(Some(slots.clone()))
        .then_if(None::<Bulkhead>)
        .then(timeout.clone())
        .build()
        .unwrap();
    assert_eq!(
        pipeline.describe(),
        "circuit_breaker b (5 in a row or 50 % of 1m, open for 30s; closed) → bulkhead s (8 at a \
         time, 0 waiting) → timeout t (1s for each attempt)"
    );
    breaker.force_open();
    breaker.reconfigure(BreakerConfig::external_service()).unwrap();
    slots.reconfigure(BulkheadConfig::new(2)).unwrap();
    timeout.set_limit(ms(250)).unwrap();
    assert_eq!(
        pipeline.describe(),
        "circuit_breaker b (5 in a row, open for 1m; open) → bulkhead s (2 at a time, 0 waiting) → \
         timeout t (250ms for each attempt)"
    );
}

#[test]
fn an_adaptive_limit_that_never_hears_of_a_hang_is_refused() {
    let under = |rule| {
        let mut config = AdaptiveConfig::default();
        config.on_drop = rule;
        let limit = AdaptiveLimit::new("a", config).unwrap();
        let total = Timeout::total("t", ms(800)).unwrap();
        Pipeline::builder().then(total).then(limit).build().map(drop)
    };
    assert_eq!(
        under(DropRule::Neutral).unwrap_err().to_string(),
        "timeout t stands outside adaptive_limit a, which does not count dropped calls and would \
         never fall for a dependency that hangs; put a Timeout::per_attempt after the limit, or set \
         its on_drop rule to TimeoutAfter"
    );
    assert!(under(DropRule::TimeoutAfter(ms(800))).is_err(), "dropped before that");
    assert_eq!(under(DropRule::TimeoutAfter(ms(720))), Ok(()));
    assert_eq!(under(DropRule::Failure), Ok(()));
}

#[test]
fn injected_faults_delay_hang_and_fail_by_rate_and_by_schedule() {
    const CALLS: u32 = 1_000;
    let time = VirtualTime::new();
    let faults = |seed| Faults::new("dep", seed, time.clock(), || ErrorKind::Connection);
    let under = |faults: Faults<ErrorKind>| {
        let pipeline = chain(&time).then(Timeout::total("t", secs(1)).unwrap()).then(faults);
        let pipeline = pipeline.build().unwrap();
        let time = time.clone();
        move || {
            let began = time.clock().now();
            let result = time.block_on(pipeline.call(|_| async { Ok::<_, ErrorKind>(()) }));
            (result, time.clock().now().since(began))
        }
    };
    let slow = under(faults(1).always(Fault::Latency(ms(300)), 1.0).unwrap());
    assert_eq!(slow(), (Ok(()), ms(300)));
    let hung = under(faults(1).always(Fault::Hang, 1.0).unwrap());
    let (result, took) = hung();
    assert!(result.unwrap_err().is_timeout() && took == secs(1));

    let third = under(faults(7).always(Fault::Error, 0.3).unwrap());
    let failed = (0..CALLS).filter(|_| third().0.is_err()).count();
    assert!((250..350).contains(&failed), "{failed} of {CALLS} at a rate of 0.3");

    let scheduled = under(
        faults(1)
            .during(secs(10)..secs(20), Fault::Error, 1.0)
            .unwrap()
            .during(secs(15)..secs(30), Fault::Latency(ms(500)), 1.0)
            .unwrap(),
    );
    let at = |wait: u64| {
        time.block_on(time.sleeper().sleep(secs(wait)));
        scheduled()
    };
    let failed = Err(Error::Operation(ErrorKind::Connection));
    assert_eq!(at(9), (Ok(()), Duration::ZERO), "at 9 s: not yet");
    assert_eq!(at(1), (failed.clone(), Duration::ZERO), "at 10 s: from its first moment on");
    assert_eq!(at(9), (failed, Duration::ZERO), "at 19 s: the first rule that applies decides");
    assert_eq!(at(1), (Ok(()), ms(500)), "at 20 s: the first is over, the second is not");
    assert_eq!(at(10), (Ok(()), Duration::ZERO), "at 30.5 s: all is over");
    assert!(faults(1).always(Fault::Error, 1.1).is_err());
}

#[test]
fn r1_a_custom_backoff_is_asked_for_each_wait_and_never_waits_more_than_an_hour() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let backoff = Backoff::Custom(Arc::new(move |failed| {
        heard.lock().unwrap().push(failed);
        if failed == 2 { Duration::MAX } else { ms(u64::from(failed) * 70) }
    }));
    let retry = Retry::builder("r").attempts(4).backoff(backoff.with_jitter(Jitter::Full));
    let (retry, clock) = (retry.build().unwrap(), ManualClock::new());
    let began = clock.now();
    let _ = retry.run_on(&clock.clock(), |_| Err::<(), _>(ErrorKind::Timeout));
    assert_eq!(*asked.lock().unwrap(), [1, 2, 3]);
    assert_eq!(clock.now().since(began), ms(70) + secs(3_600) + ms(210), "no jitter of ours");
}

#[test]
fn a_chain_runs_in_its_order_and_says_so() {
    let clock = ManualClock::new();
    let bulkhead = Bulkhead::new("slots", BulkheadConfig::new(1)).unwrap();
    let breaker = CircuitBreaker::builder("dep")
        .consecutive_failures(2)
        .clock(clock.clock())
        .build()
        .unwrap();
    let faults = Faults::new("dep", 1, clock.clock(), || ErrorKind::Connection)
        .always(Fault::Error, 1.0)
        .unwrap();
    let pipeline = Pipeline::builder()
        .clock(clock.clock())
        .then(
            Retry::builder("r").backoff(Backoff::none().with_jitter(Jitter::None)).build().unwrap(),
        )
        .then(bulkhead)
        .then(breaker.clone())
        .then(faults)
        .build()
        .unwrap();
    let kinds: Vec<_> = pipeline.policies().map(|(kind, _)| kind).collect();
    assert_eq!(
        kinds,
        [PolicyKind::Retry, PolicyKind::Bulkhead, PolicyKind::CircuitBreaker, PolicyKind::Fault]
    );
    let failed = pipeline.run(|_| Ok::<_, ErrorKind>(()));
    assert_eq!(breaker.state(), State::Open);
    let error = failed.unwrap_err();
    assert!(error.is_rejected(), "the third attempt met an open breaker: {error}");
    assert_eq!(exhausted(error).errors().len(), 3);
}

#[test]
fn an_error_names_its_policy_and_keeps_its_sources() {
    use std::error::Error as _;
    let retry = Retry::builder("r").attempts(2).backoff(Backoff::none()).build().unwrap();
    let failed = retry.run(|_| -> Result<(), std::io::Error> {
        Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "peer went away"))
    });
    let error = failed.unwrap_err();
    assert_eq!(error.to_string(), "all attempts are used up after 2 attempts: peer went away");
    let source = error.source().unwrap();
    assert_eq!(source.to_string(), "peer went away");
}

#[test]
fn futures_of_pipelines_can_be_sent_to_other_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    fn is_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let time = VirtualTime::new();
    let pipeline = chain(&time)
        .then(Timeout::total("t", secs(1)).unwrap())
        .then(Retry::builder("r").build().unwrap())
        .then(Hedge::builder("h").build().unwrap())
        .then(Timeout::per_attempt("a", secs(1)).unwrap())
        .build()
        .unwrap();
    is_shared(&pipeline);
    let log = RefCell::new(0);
    let call = is_send(pipeline.call(|_| async { Ok::<_, ErrorKind>(1) }));
    *log.borrow_mut() += time.block_on(call).unwrap();
    assert_eq!(log.into_inner(), 1);
}

#[test]
fn d3_the_first_k_of_n_are_enough_and_the_rest_is_dropped() {
    let time = VirtualTime::new();
    let (sleeper, began) = (time.sleeper(), time.clock().now());
    let step = |wait: u64, fails: bool| {
        let sleep = sleeper.sleep(ms(wait));
        async move {
            sleep.await;
            if fails { Err("it failed") } else { Ok(wait) }
        }
    };
    let partial = Partial::new(Enough::Count(2)).unwrap();
    let steps = [step(30, false), step(10, false), step(20, true), step(500, false)];
    let outcome = time.block_on(partial.first(&sleeper, secs(1), steps)).unwrap();
    assert_eq!(outcome.arrived, [(0, 30), (1, 10)]);
    let missing = [(2, Missing::Failed("it failed")), (3, Missing::NotNeeded)];
    assert_eq!(outcome.missing, missing);
    assert_eq!(time.clock().now().since(began), ms(30), "as fast as the second of four");
    let steps = [step(10, true), step(20, true), step(500, false)];
    let began = time.clock().now();
    let few = time.block_on(partial.first(&sleeper, secs(1), steps)).unwrap_err();
    assert_eq!(few.to_string(), "0 of 3 steps succeeded, 2 were needed");
    assert_eq!(time.clock().now().since(began), ms(20), "two of three failed");
}

#[test]
fn r3_a_limit_in_all_counts_the_time_of_the_calls_and_not_of_the_waits_alone() {
    // backon's `with_total_delay` adds up the waits: here these are 200 ms of 1 s when it is over.
    let time = VirtualTime::new();
    let retry = Retry::builder("r").attempts(100).backoff(Backoff::fixed(ms(100)));
    let pipeline = chain(&time)
        .then(Timeout::total("t", secs(1)).unwrap())
        .then(retry.build().unwrap())
        .build()
        .unwrap();
    let (calls, sleeper, began) = (AtomicU32::new(0), time.sleeper(), time.clock().now());
    let result = time.block_on(pipeline.call(|_| {
        calls.fetch_add(1, Ordering::Relaxed);
        let sleep = sleeper.sleep(ms(350));
        async move {
            sleep.await;
            Err::<(), _>(ErrorKind::Connection)
        }
    }));
    assert!(result.is_err());
    let elapsed = time.clock().now().since(began);
    assert!(elapsed <= secs(1), "{elapsed:?}");
    assert!((2..=3).contains(&calls.into_inner()));
}
