//! Rate limits in chains: what a call costs, whose limit it takes from, how long it waits.

use crate::pipeline::Readings;
use crate::{ms, secs};
use mainstay_resilience::testing::{VirtualSleeper, VirtualTime};
use mainstay_resilience::{
    Algorithm, Backoff, Bare, BlockingStrategy, Clock, Context, Deadline, Describe, Error,
    ErrorKind, Event, KeyedConfig, KeyedLeasedLimiter, KeyedRateLimiter, Lease, LeasedLimiter,
    ManualClock, Pipeline, PipelineBuilder, Pipelines, PipelinesConfig, QuotaSource, RateConfig,
    RateLimiter, Reason, Rejection, Retry, Sleeper, Strategy, TimeSource, WhenFull, WithoutSource,
};
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn chain(time: &VirtualTime) -> PipelineBuilder<Bare, VirtualSleeper> {
    Pipeline::builder().clock(time.clock()).sleeper(time.sleeper())
}

fn bucket(limit: u32) -> RateConfig {
    RateConfig::per_second(Algorithm::TokenBucket, limit)
}

fn caller(name: &str) -> Context {
    Context::default().caller(name)
}

/// One call, blocking or awaited, and why it was refused.
fn call<C>(
    time: &VirtualTime,
    pipeline: &Pipeline<C, VirtualSleeper>,
    awaited: bool,
    context: Context,
) -> Result<(), Rejection>
where
    C: Strategy<(), ErrorKind> + BlockingStrategy<(), ErrorKind>,
{
    let result = match awaited {
        true => time.block_on(pipeline.call_within(context, |_| async { Ok(()) })),
        false => pipeline.run_within(context, |_| Ok(())),
    };
    result.map_err(|error| match error {
        Error::Rejected(rejection) => rejection,
        other => panic!("expected a refusal, found {other:?}"),
    })
}

#[test]
fn o4_a_call_in_a_chain_costs_what_its_context_says() {
    for awaited in [false, true] {
        let time = VirtualTime::new();
        let limiter = RateLimiter::with_clock("l", bucket(10), time.clock()).unwrap();
        let pipeline = chain(&time).then(limiter.clone()).build().unwrap();
        for (context, left) in [
            (Context::default(), 9),
            (Context::default().cost(4), 5),
            (Context::default().cost(0), 4),
            (Context::default().cost(7).cost(1), 3),
        ] {
            call(&time, &pipeline, awaited, context).unwrap();
            assert_eq!(limiter.available(), left, "{context:?}, awaited: {awaited}");
        }
        let refused = call(&time, &pipeline, awaited, Context::default().cost(4)).unwrap_err();
        assert_eq!(refused.reason(), Reason::RateExceeded { limit: 10, period: secs(1) });
        assert!(refused.retry_after().unwrap() > ms(90) && limiter.available() == 3);
        let never = call(&time, &pipeline, awaited, Context::default().cost(11)).unwrap_err();
        assert_eq!(never.reason(), Reason::CostAboveLimit { cost: 11, limit: 10 });
        assert_eq!(never.retry_after(), None);
    }
}

#[test]
fn o4_each_attempt_pays_the_cost_and_the_operation_is_told_it() {
    let time = VirtualTime::new();
    let limiter = RateLimiter::with_clock("l", bucket(10), time.clock()).unwrap();
    let pipeline = chain(&time)
        .then(Retry::builder("r").backoff(Backoff::none()).build().unwrap())
        .then(limiter.clone())
        .build()
        .unwrap();
    let answer = pipeline.run_within(Context::default().cost(3), |attempt| {
        assert_eq!(attempt.cost(), 3);
        if attempt.number() == 3 { Ok(()) } else { Err(ErrorKind::Connection) }
    });
    assert_eq!((answer, limiter.available()), (Ok(()), 1), "three attempts of three");
}

#[test]
fn o4_an_endpoints_rate_is_taken_by_cost() {
    let time = VirtualTime::new();
    let mut config = PipelinesConfig::default();
    config.defaults.rate = Some(bucket(10));
    let nobody = Arc::new(|_: &Event<'_>| ());
    let pipelines = Pipelines::with(config, time.clock(), time.sleeper(), nobody).unwrap();
    let context = Context::default().cost(4);
    pipelines.run("s", "e", context, |_| Ok::<_, ErrorKind>(())).unwrap();
    let awaited = pipelines.call("s", "e", context, |_| async { Ok::<_, ErrorKind>(()) });
    time.block_on(awaited).unwrap();
    assert_eq!(pipelines.list()[0].rate, Some((2, 0)));
}

#[test]
fn o4_each_caller_has_a_limit_of_its_own_in_a_chain_and_calls_without_one_share_theirs() {
    for awaited in [false, true] {
        let time = VirtualTime::new();
        let config = KeyedConfig::new(bucket(5));
        let limiter = KeyedRateLimiter::with_clock("tenant", config, time.clock()).unwrap();
        let pipeline = chain(&time).then(limiter.clone()).build().unwrap();
        let call = |context| call(&time, &pipeline, awaited, context);
        call(caller("a").cost(5)).unwrap();
        let refused = call(caller("a")).unwrap_err();
        assert_eq!(refused.reason(), Reason::RateExceeded { limit: 5, period: secs(1) });
        assert_eq!(limiter.refused(), 1);
        call(caller("b").cost(2)).unwrap();
        assert_eq!(limiter.available(&caller("b").caller_key()), 3);
        call(Context::default().cost(3)).unwrap();
        assert_eq!((limiter.available(""), limiter.keys()), (2, 3));
        assert!(call(Context::default().cost(3)).is_err());
        assert_eq!(&*Context::default().caller_key(), "");
        // FNV-1a of "a", from the function's published test vectors.
        assert_eq!(caller("a").caller_key().to_string(), "af63dc4c8601ec8c");
    }
}

#[test]
fn o4_a_keyed_limit_in_a_chain_lets_calls_wait_as_long_as_it_says() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow] {
        for awaited in [false, true] {
            let time = VirtualTime::new();
            let rate = RateConfig::per_second(algorithm, 1).with_wait_max(secs(1));
            let config = KeyedConfig::new(rate);
            let limiter = KeyedRateLimiter::with_clock("k", config, time.clock()).unwrap();
            let pipeline = chain(&time).then(limiter.clone()).build().unwrap();
            let call = |context| call(&time, &pipeline, awaited, context);
            let began = time.clock().now();
            call(caller("a")).unwrap();
            call(caller("a")).unwrap();
            let waited = time.clock().now().since(began);
            assert!((ms(900)..=ms(1_000)).contains(&waited), "{algorithm:?}: {waited:?}");
            assert_eq!(limiter.refused(), 0, "who waits is not refused");
            let soon = Context::within(Deadline::after(&time.clock(), ms(500))).caller("a");
            assert!(call(soon).is_err());
            let mut config = limiter.config();
            config.rate.wait_max = Duration::ZERO;
            limiter.reconfigure(config).unwrap();
            assert!(call(caller("a")).is_err());
            assert_eq!(limiter.refused(), 2);
        }
    }
}

/// A store that grants everything and remembers who asked.
#[derive(Default)]
struct Grants(Mutex<Vec<String>>);

impl QuotaSource for Grants {
    type Error = Infallible;

    async fn lease(&self, key: &str, want: u32) -> Result<Lease, Infallible> {
        self.0.lock().unwrap().push(key.to_owned());
        Ok(Lease { granted: want, valid_for: secs(3_600) })
    }
}

impl Grants {
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.0.lock().unwrap());
        asked.sort();
        asked
    }
}

#[test]
fn o4_leased_limits_stand_in_chains_and_spend_by_cost_and_by_caller() {
    for awaited in [false, true] {
        let (time, store) = (VirtualTime::new(), Grants::default());
        let refuse = WithoutSource::Refuse;
        let leased = LeasedLimiter::new("quota", 10, refuse, time.clock()).unwrap();
        let keyed = KeyedLeasedLimiter::new("tenant", 10, 100, refuse, time.clock()).unwrap();
        let pipeline = chain(&time).then(leased.clone()).build().unwrap();
        let by_caller = chain(&time).then(keyed.clone()).build().unwrap();
        let spent = Reason::LeaseSpent { portion: 10 };
        let first = call(&time, &pipeline, awaited, Context::default()).unwrap_err();
        assert_eq!(first.reason(), spent, "nothing is leased yet");
        time.block_on(leased.refill(&store)).unwrap();
        call(&time, &pipeline, awaited, Context::default().cost(7)).unwrap();
        assert_eq!(leased.left(), 3);
        let over = call(&time, &pipeline, awaited, Context::default().cost(4)).unwrap_err();
        assert_eq!(over.reason(), spent);

        store.asked();
        for context in [caller("a"), caller("b"), Context::default()] {
            let refused = call(&time, &by_caller, awaited, context).unwrap_err();
            assert_eq!(refused.name(), format!("tenant/{}", context.caller_key()));
        }
        time.block_on(keyed.refill(&store)).unwrap();
        let (a, b) = (caller("a").caller_key(), caller("b").caller_key());
        assert_eq!(
            store.asked(),
            ["tenant/".to_owned(), format!("tenant/{a}"), format!("tenant/{b}")]
        );
        call(&time, &by_caller, awaited, caller("a").cost(9)).unwrap();
        assert_eq!([keyed.left(&a), keyed.left(&b), keyed.left("")], [1, 10, 10]);
        assert_eq!(
            call(&time, &by_caller, awaited, caller("a").cost(2)).unwrap_err().reason(),
            spent
        );
    }
}

#[test]
fn o4_without_its_store_a_leased_limit_in_a_chain_waits_for_the_local_one() {
    let time = VirtualTime::new();
    let alone = WithoutSource::LimitLocally(bucket(1).with_wait_max(secs(1)));
    let leased = LeasedLimiter::new("quota", 10, alone, time.clock()).unwrap();
    let keyed = KeyedLeasedLimiter::new("tenant", 10, 100, alone, time.clock()).unwrap();
    let (one, each) = (chain(&time).then(leased), chain(&time).then(keyed));
    let (one, each) = (one.build().unwrap(), each.build().unwrap());
    for awaited in [true, false] {
        let began = time.clock().now();
        call(&time, &one, awaited, Context::default()).unwrap();
        call(&time, &one, awaited, Context::default()).unwrap();
        assert!(time.clock().now().since(began) >= ms(900), "its turn came a second later");
        let began = time.clock().now();
        call(&time, &each, awaited, caller("a")).unwrap();
        call(&time, &each, awaited, caller("a")).unwrap();
        assert!(time.clock().now().since(began) >= ms(900), "its turn came a second later");
    }
}

#[test]
fn limits_by_key_and_by_lease_are_described_and_ordered_as_a_rate_limit_is() {
    let clock = ManualClock::new().clock();
    let rate = RateConfig::new(Algorithm::TokenBucket, 50, secs(60));
    let keyed = KeyedRateLimiter::with_clock("k", KeyedConfig::new(rate), clock.clone()).unwrap();
    let alone = WithoutSource::LimitLocally(rate);
    let leased = LeasedLimiter::new("l", 10, alone, clock.clone()).unwrap();
    let refuse = WithoutSource::Refuse;
    let both = KeyedLeasedLimiter::new("b", 10, 99, refuse, clock.clone()).unwrap();
    let pipeline = Pipeline::builder()
        .clock(clock.clone())
        .then(keyed.clone())
        .then(leased.clone())
        .then(both.clone())
        .build()
        .unwrap();
    assert_eq!(
        pipeline.describe(),
        "rate_limiter k (50 per 1m for each caller, up to 10000) → \
         rate_limiter l (leases of 10, alone 50 per 1m) → \
         rate_limiter b (leases of 10 for each caller, up to 99)"
    );
    fn refused(clock: &Clock, limit: impl Describe + Clone) {
        let own = || Pipeline::builder().clock(clock.clone()).then(limit.clone());
        let twice = own().then(limit.clone()).build().unwrap_err().to_string();
        assert!(twice.contains("stands in the chain twice"), "{twice}");
        let other = Pipeline::builder().clock(ManualClock::new().clock()).then(limit.clone());
        let other = other.build().unwrap_err().to_string();
        assert!(other.contains("runs on another clock"), "{other}");
    }
    refused(&clock, keyed);
    refused(&clock, leased);
    refused(&clock, both);
}

#[test]
fn o4_leases_of_callers_who_are_gone_are_forgotten_and_not_asked_for() {
    let (time, manual, store) = (VirtualTime::new(), ManualClock::new(), Grants::default());
    let refuse = WithoutSource::Refuse;
    let keyed = KeyedLeasedLimiter::new("t", 10, 100, refuse, manual.clock()).unwrap();
    assert_eq!(keyed.idle_after(), secs(600));
    for (wrong, allowed) in [(ms(999), "999ms"), (secs(86_401), "86401s")] {
        let refused = keyed.set_idle_after(wrong).unwrap_err().to_string();
        assert_eq!(refused, format!("idle_after: {allowed} is not allowed, use 1s to 1d"));
    }
    keyed.set_idle_after(secs(60)).unwrap();
    let _ = (keyed.try_acquire("gone", 1), keyed.try_acquire("here", 1));
    assert_eq!(time.block_on(keyed.refill(&store)), Ok(2));
    assert_eq!(store.asked(), ["t/gone", "t/here"]);
    manual.advance(secs(30));
    keyed.try_acquire("here", 10).unwrap();
    manual.advance(secs(29));
    assert_eq!(keyed.left("gone"), 10, "asking is no use");
    time.block_on(keyed.refill(&store)).unwrap();
    assert_eq!((store.asked(), keyed.keys()), (vec!["t/here".to_owned()], 2));
    manual.advance(secs(1));
    assert_eq!(time.block_on(keyed.refill(&store)), Ok(0));
    assert_eq!((keyed.keys(), keyed.left("gone"), keyed.left("here")), (1, 0, 10));
    manual.advance(secs(60));
    let _ = keyed.try_acquire("new", 1);
    assert_eq!(keyed.keys(), 1, "a new key takes the place of idle ones");
    let daily =
        WithoutSource::LimitLocally(RateConfig::new(Algorithm::FixedWindow, 5, secs(3_600)));
    let keyed = KeyedLeasedLimiter::new("t", 10, 100, daily, manual.clock()).unwrap();
    assert_eq!(keyed.idle_after(), secs(3_600), "forgetting earlier would renew the local limit");
    assert!(keyed.set_idle_after(secs(3_599)).is_err());
}

#[test]
fn o4_a_refusal_for_want_of_room_says_what_is_full() {
    let clock = ManualClock::new();
    let mut config = KeyedConfig::new(bucket(1));
    config.keys_max = 1_030;
    config.when_full = WhenFull::Refuse;
    let keyed = KeyedRateLimiter::with_clock("tenant", config, clock.clock()).unwrap();
    let refused = (0..).find_map(|key| keyed.try_acquire(&format!("key-{key}"), 1).err()).unwrap();
    // 1 030 rounded up to sixteen parts of 65.
    assert_eq!(refused.reason(), Reason::TooManyKeys { limit: 1_040, part: 65 });
    assert_eq!(
        refused.to_string(),
        "rate_limiter tenant refused the call: the part that the new key falls into is full, all 65 \
         of its keys are in use (it holds 1040 keys in all parts)"
    );
    assert!(keyed.keys() < 1_040, "which is why it does not say that all 1040 are in use");
    (0..10_000).for_each(|key| drop(keyed.try_acquire(&format!("key-{key}"), 1)));
    assert_eq!(keyed.keys(), 1_040);
    clock.advance(secs(600));
    // Whoever looks at limits keeps no idle key in its place.
    assert!((0..10_000).all(|key| keyed.available(&format!("key-{key}")) == 1));
    // As many as one part holds, so that they fit wherever they fall.
    assert!((0..65).all(|key| keyed.try_acquire(&format!("new-{key}"), 1).is_ok()));
}

#[test]
fn o4_of_few_keys_each_finds_room_until_the_bound() {
    let clock = ManualClock::new();
    for keys_max in [16, 17, 1_023] {
        let mut config = KeyedConfig::new(bucket(1));
        config.keys_max = keys_max;
        config.when_full = WhenFull::Refuse;
        let keyed = KeyedRateLimiter::with_clock("tenant", config, clock.clock()).unwrap();
        let mut answers = (0..).map(|key: u32| keyed.try_acquire(&format!("key-{key}"), 1));
        assert!(answers.by_ref().take(keys_max as usize).all(|it| it.is_ok()), "{keys_max}");
        let refused = answers.next().unwrap().unwrap_err();
        let all = u64::from(keys_max);
        assert_eq!(refused.reason(), Reason::TooManyKeys { limit: all, part: all });
        let told = format!("all {keys_max} keys that it may hold are in use");
        assert!(refused.to_string().ends_with(&told), "{refused}");
    }
}

/// Keys that come while the first one is idle: so many that every part of the limiter makes room.
fn crowd(mut ask: impl FnMut(&str)) {
    (0..200).for_each(|n| ask(&format!("other-{n}")));
}

#[test]
fn o4_a_key_keeps_what_it_used_of_its_burst_however_long_it_is_idle() {
    let clock = ManualClock::new();
    let rate = RateConfig::new(Algorithm::TokenBucket, 1, secs(10)).with_burst(1_000);
    let limiter = KeyedRateLimiter::with_clock("k", KeyedConfig::new(rate), clock.clock()).unwrap();
    limiter.try_acquire("a", 1_000).unwrap();
    clock.advance(secs(600));
    crowd(|key| drop(limiter.try_acquire(key, 1)));
    assert_eq!(limiter.available("a"), 60, "one in ten seconds came back");
    assert!(limiter.try_acquire("a", 61).is_err());
    clock.advance(secs(10_000));
    crowd(|key| drop(limiter.try_acquire(&format!("new-{key}"), 1)));
    assert_eq!(limiter.available("a"), 1_000);
    assert!(limiter.keys() < 400, "who is whole again makes room: {}", limiter.keys());
}

#[test]
fn o4_a_key_keeps_the_turns_it_has_booked_however_long_it_is_idle() {
    let time = VirtualTime::new();
    let rate = RateConfig::new(Algorithm::LeakyBucket, 1, secs(10)).with_wait_max(secs(3_600));
    let limiter = KeyedRateLimiter::with_clock("k", KeyedConfig::new(rate), time.clock()).unwrap();
    let pipeline = chain(&time).then(limiter.clone()).build().unwrap();
    // Each books a turn ten seconds behind the one before and gives up waiting; it stays booked.
    for _ in 0..200 {
        let mut waiting =
            Box::pin(pipeline.call_within(caller("a"), |_| async { Ok::<_, ErrorKind>(()) }));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = waiting.as_mut().poll(&mut cx);
    }
    time.block_on(time.sleeper().sleep(secs(600)));
    crowd(|key| drop(limiter.try_acquire(key, 1)));
    let refused = limiter.try_acquire(&caller("a").caller_key(), 1).unwrap_err();
    assert_eq!(refused.retry_after(), Some(secs(2_000 - 600)));
}

#[test]
fn o4_a_key_keeps_what_it_used_of_a_local_limit_however_long_it_is_idle() {
    let clock = ManualClock::new();
    let rate = RateConfig::new(Algorithm::TokenBucket, 1, secs(10)).with_burst(1_000);
    let alone = WithoutSource::LimitLocally(rate);
    let limiter = KeyedLeasedLimiter::new("q", 10, 1_000, alone, clock.clock()).unwrap();
    limiter.try_acquire("a", 1_000).unwrap();
    clock.advance(secs(600));
    crowd(|key| drop(limiter.try_acquire(key, 1)));
    assert!(limiter.try_acquire("a", 61).is_err(), "one in ten seconds came back");
    limiter.try_acquire("a", 60).unwrap();
}

/// A store that cannot be reached.
struct Gone;

impl QuotaSource for Gone {
    type Error = ErrorKind;

    async fn lease(&self, _: &str, _: u32) -> Result<Lease, ErrorKind> {
        Err(ErrorKind::Connection)
    }
}

/// A limit that counts: of a bucket what is used up is a time, which another rate makes another count.
fn hourly(limit: u32) -> WithoutSource {
    WithoutSource::LimitLocally(RateConfig::new(Algorithm::FixedWindow, limit, secs(3_600)))
}

#[test]
fn o4_a_leased_limit_is_changed_while_running_and_keeps_what_it_holds_and_has_used() {
    let (time, clock, store) = (VirtualTime::new(), ManualClock::new(), Grants::default());
    let limiter = LeasedLimiter::new("q", 10, WithoutSource::Refuse, clock.clock()).unwrap();
    let pipeline = Pipeline::builder().clock(clock.clock()).then(limiter.clone()).build().unwrap();
    time.block_on(limiter.refill(&store)).unwrap();
    limiter.reconfigure(100, hourly(5)).unwrap();
    assert_eq!((limiter.left(), limiter.is_low()), (10, true), "a quarter of a hundred");
    assert!(pipeline.describe().ends_with("(leases of 100, alone 5 per 1h)"));
    time.block_on(limiter.refill(&store)).unwrap();
    assert_eq!(limiter.left(), 100, "what was missing from the new portion");
    for (portion, without, field) in
        [(0, WithoutSource::Refuse, "portion"), (100, hourly(0), "limit")]
    {
        assert_eq!(limiter.reconfigure(portion, without).unwrap_err().field(), field);
        assert!(pipeline.describe().ends_with("(leases of 100, alone 5 per 1h)"));
    }
    // The store is away and every lease over: the local limit counts.
    clock.advance(secs(3_600));
    time.block_on(limiter.refill(&Gone)).unwrap_err();
    limiter.try_acquire(5).unwrap();
    limiter.reconfigure(100, hourly(8)).unwrap();
    assert!(limiter.try_acquire(4).is_err(), "five of eight are used up");
    limiter.try_acquire(3).unwrap();
    limiter.reconfigure(100, WithoutSource::LimitLocally(bucket(8))).unwrap();
    limiter.try_acquire(8).unwrap();
    limiter.reconfigure(100, WithoutSource::Refuse).unwrap();
    let refused = limiter.try_acquire(1).unwrap_err();
    assert_eq!(refused.reason(), Reason::LeaseSpent { portion: 100 });
}

#[test]
fn o4_a_leased_limit_by_caller_is_changed_for_every_key_while_running() {
    let (clock, heard) = (ManualClock::new(), Arc::new(Mutex::new(0)));
    let events = Arc::clone(&heard);
    let observer = Arc::new(move |event: &Event<'_>| {
        *events.lock().unwrap() += u32::from(matches!(event, Event::Reconfigured { .. }));
    });
    let limiter =
        KeyedLeasedLimiter::observed("q", 10, 3, hourly(5), clock.clock(), observer).unwrap();
    for key in ["a", "b", "c"] {
        limiter.try_acquire(key, 5).unwrap();
    }
    limiter.reconfigure(20, 2, hourly(8)).unwrap();
    assert_eq!((limiter.keys(), *heard.lock().unwrap()), (2, 1), "told once, after all");
    assert!(limiter.try_acquire("b", 4).is_err() && limiter.try_acquire("b", 3).is_ok());
    limiter.try_acquire("d", 8).expect("new keys have the new limit");
    assert_eq!(limiter.keys(), 2);
    let daily = RateConfig::new(Algorithm::FixedWindow, 5, secs(86_400));
    for (portion, keys_max, without, field) in [
        (0, 2, hourly(5), "portion"),
        (20, 0, hourly(5), "keys_max"),
        (20, 2, WithoutSource::LimitLocally(bucket(0)), "limit"),
    ] {
        assert_eq!(limiter.reconfigure(portion, keys_max, without).unwrap_err().field(), field);
    }
    assert_eq!(limiter.idle_after(), secs(3_600));
    limiter.reconfigure(20, 2, WithoutSource::LimitLocally(daily)).unwrap();
    assert_eq!(limiter.idle_after(), secs(86_400), "forgetting earlier would renew the limit");
}

#[test]
fn o4_a_local_limit_that_becomes_quick_is_measured_by_the_precise_clock_from_then_on() {
    let readings = Arc::new(Readings::default());
    let clock = Clock::from_source(Arc::clone(&readings) as Arc<dyn TimeSource>);
    let quick = RateConfig::new(Algorithm::TokenBucket, 100, ms(10));
    let [slow, quick] = [bucket(5), quick].map(WithoutSource::LimitLocally);
    let leased = LeasedLimiter::new("l", 1, slow, clock.clone()).unwrap();
    let keyed = KeyedLeasedLimiter::new("k", 1, 10, slow, clock.clone()).unwrap();
    let [first, second] = [0, 1].map(|_| Pipeline::builder().clock(clock.clone()));
    let first = first.then(leased.clone()).build().unwrap();
    let second = second.then(keyed.clone()).build().unwrap();
    let precise = |run: &dyn Fn()| {
        let before = readings.0.load(Ordering::Relaxed);
        run();
        readings.0.load(Ordering::Relaxed) > before
    };
    let run_first = || drop(first.run(|_| Ok::<_, ErrorKind>(())));
    let run_second = || drop(second.run(|_| Ok::<_, ErrorKind>(())));
    assert!(!precise(&run_first) && !precise(&run_second));
    leased.reconfigure(1, quick).unwrap();
    keyed.reconfigure(1, 10, quick).unwrap();
    assert!(precise(&run_first) && precise(&run_second));
}
