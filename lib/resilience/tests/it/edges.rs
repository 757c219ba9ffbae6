//! Each bound at its edge: the last that passes and the first that does not.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Algorithm, Answer, AnswerCache, BudgetConfig, Bulkhead,
    BulkheadConfig, CallFigures, CircuitBreaker, Clock, Context, Criticality, Deadline,
    DependencyKind, Enough, ErrorKind, Event, FallbackCall, FaultPoint, Hedge, HedgeDelay,
    InjectedFault, KeyedLeasedLimiter, Law, Lease, LeasedLimiter, ManualClock, Missing, OpenFor,
    Partial, Pipeline, Priority, Probes, QueueConfig, QuotaSource, RateConfig, Reason, RetryBudget,
    Sleeper, Throttle, ThrottleConfig, WithoutSource, WorkQueue,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// One window of a limit: so many calls side by side, of which so many are overloads and the others
/// end after `rtt`; with the last of them the window is over.
fn window(limit: &AdaptiveLimit, clock: &ManualClock, calls: usize, over: usize, rtt: Duration) {
    let ask = |_| limit.try_acquire(Context::from(Priority::Critical)).ok();
    let mut permits: Vec<_> = (0..calls).filter_map(ask).collect();
    assert_eq!(permits.len(), calls);
    clock.advance(rtt);
    permits.drain(..over).for_each(|permit| permit.overloaded());
    let last = permits.pop();
    permits.into_iter().for_each(|permit| permit.success());
    clock.advance(limit.config().window);
    last.into_iter().for_each(|permit| permit.success());
}

fn adaptive(clock: &ManualClock, law: Law, initial: u32) -> AdaptiveLimit {
    let mut config = AdaptiveConfig::default();
    (config.law, config.initial) = (law, initial);
    AdaptiveLimit::with_clock("dep", config, clock.clock()).unwrap()
}

#[test]
fn b5_a_limit_moves_after_ten_results_and_not_after_nine() {
    let clock = ManualClock::new();
    let limit = adaptive(&clock, Law::Aimd, 100);
    let overload = |_| limit.try_acquire(Context::default()).unwrap().overloaded();
    clock.advance(ms(200));
    (0..9).for_each(overload);
    assert_eq!(limit.limit(), 100);
    overload(0);
    assert_eq!(limit.limit(), 90);
}

#[test]
fn b5_an_answer_to_a_mistake_teaches_a_limit_nothing() {
    let clock = ManualClock::new();
    let limit = adaptive(&clock, Law::Aimd, 5);
    let take = |_| limit.try_acquire(Context::from(Priority::Critical)).unwrap();
    for _ in 0..10 {
        let permits: Vec<_> = (0..5).map(take).collect();
        clock.advance(ms(200));
        permits.into_iter().for_each(|permit| permit.record(ErrorKind::NotFound));
    }
    assert_eq!(limit.limit(), 5);
    window(&limit, &clock, 5, 0, ms(1));
    window(&limit, &clock, 5, 0, ms(1));
    assert_eq!(limit.limit(), 6);
}

#[test]
fn b5_overloads_count_from_more_than_a_tenth_of_the_successes() {
    let clock = ManualClock::new();
    let limit = adaptive(&clock, Law::Aimd, 100);
    window(&limit, &clock, 66, 6, ms(1));
    assert_eq!(limit.limit(), 101, "six beside sixty may happen");
    window(&limit, &clock, 67, 7, ms(1));
    assert_eq!(limit.limit(), 90);
}

#[test]
fn b5_a_limit_grows_only_while_half_of_it_is_used() {
    let clock = ManualClock::new();
    let limit = adaptive(&clock, Law::Aimd, 100);
    window(&limit, &clock, 49, 0, ms(1));
    assert_eq!(limit.limit(), 100);
    window(&limit, &clock, 50, 0, ms(1));
    assert_eq!(limit.limit(), 101);
}

#[test]
fn b5_the_long_mean_comes_down_quickly_after_a_slow_phase() {
    let clock = ManualClock::new();
    let limit = adaptive(&clock, Law::Gradient2, 20);
    let follow = |rtt| window(&limit, &clock, 10, 0, rtt);
    follow(secs(10));
    (0..100).for_each(|_| follow(ms(50)));
    let before = limit.limit();
    follow(secs(3));
    assert!(limit.limit() < before, "three seconds are slow again, and still {before}");
}

#[test]
fn b5_vegas_forgets_the_shortest_round_trip_after_ten_minutes() {
    let clock = ManualClock::new();
    let limit = adaptive(&clock, Law::Vegas, 100);
    window(&limit, &clock, 60, 0, ms(50));
    // From now on everything takes 140 ms, less than three times as long: for ten minutes that looks
    // like a queue.
    let slow = || window(&limit, &clock, limit.limit() as usize, 0, ms(140));
    (0..400).for_each(|_| slow());
    let before = limit.limit();
    assert!(before < 50, "{before}");
    (0..5_000).for_each(|_| slow());
    assert!(limit.limit() > 2 * before, "140 ms are normal by now: {}", limit.limit());
}

/// A queue of one worker whose first job waits until the sender is dropped.
fn held(config: QueueConfig, clock: Clock) -> (WorkQueue<u32, ()>, impl Drop, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let work = move |_| {
        let _ = gate.lock().unwrap().recv();
    };
    let (queue, workers) = WorkQueue::start("q", config, clock, work).unwrap();
    drop(queue.submit(0, Priority::Critical).unwrap());
    while queue.pressure().depth > 0 {
        std::thread::yield_now();
    }
    (queue, workers, open)
}

#[test]
fn o5_a_queue_sheds_and_refuses_only_what_is_older_than_it_says() {
    let clock = ManualClock::new();
    let mut config = QueueConfig::default();
    (config.workers, config.shed_age, config.wait_max) = (1, secs(5), secs(8));
    let (queue, workers, open) = held(config, clock.clock());
    let first = queue.submit(1, Priority::Normal).unwrap();
    clock.advance(secs(5));
    let second = queue.submit(2, Priority::Normal).expect("exactly five seconds are not too old");
    clock.advance(secs(3));
    assert!(queue.submit(3, Priority::Normal).is_err());
    drop((open, queue));
    assert_eq!(first.wait(), Ok(()), "exactly eight seconds are not too long");
    assert_eq!(second.wait(), Ok(()));
    drop(workers);
}

#[test]
fn o5_a_caller_may_fill_three_quarters_of_a_queue_and_its_places_come_back() {
    let mut config = QueueConfig::default();
    (config.workers, config.capacity) = (1, 8);
    let (queue, workers, open) = held(config, Clock::system());
    let submit = |caller: &str| queue.submit(1, Context::default().caller(caller));
    drop(submit("modest").unwrap());
    let jobs: Vec<_> = (0..5).map(|_| submit("greedy").unwrap()).collect();
    assert_eq!(submit("greedy").unwrap_err().reason(), Reason::ShareExceeded { share: 4 });
    drop(open);
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    while queue.pressure().depth > 0 {
        std::thread::yield_now();
    }
    // All are done, so nobody holds a place: one caller alone may fill the queue.
    (0..20).for_each(|_| submit("greedy").unwrap().wait().unwrap());
    drop(queue);
    drop(workers);
}

/// Calls in a chain of one hedge: how many started, when the first takes `first` and others `rest`.
fn hedged(hedge: Hedge, time: &VirtualTime, context: Context, waits: [Duration; 2]) -> u32 {
    let pipeline = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper()).then(hedge);
    let (pipeline, sleeper, calls) = (pipeline.build().unwrap(), time.sleeper(), AtomicU32::new(0));
    let call = pipeline.call_within(context, |attempt| {
        calls.fetch_add(1, Ordering::Relaxed);
        let sleep = sleeper.sleep(waits[usize::from(attempt.hedge() > 0)]);
        async move {
            sleep.await;
            Ok::<_, ErrorKind>(())
        }
    });
    let _ = time.block_on(call);
    calls.into_inner()
}

#[test]
fn a_hedge_starts_no_more_than_its_attempts_and_none_after_the_deadline() {
    let time = VirtualTime::new();
    let hedge = || Hedge::builder("h").delay(HedgeDelay::Fixed(ms(10)));
    let forever = [secs(1); 2];
    assert_eq!(hedged(hedge().build().unwrap(), &time, Context::default(), forever), 2);
    let three = hedge().attempts(3).build().unwrap();
    assert_eq!(hedged(three, &time, Context::default(), forever), 3);
    let soon = Context::from(Deadline::after(&time.clock(), ms(5)));
    assert_eq!(hedged(hedge().build().unwrap(), &time, soon, forever), 1);
}

#[test]
fn first_calls_fill_the_budget_of_hedges_and_of_fallback_calls() {
    let time = VirtualTime::new();
    let mut config = BudgetConfig::default();
    (config.ratio, config.capacity, config.floor_per_second) = (0.5, 1, 0);
    let budget = RetryBudget::with_clock(config, time.clock()).unwrap();
    assert!(budget.try_withdraw());
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(10))).budget(&budget);
    let hedge = hedge.build().unwrap();
    hedged(hedge, &time, Context::default(), [ms(1); 2]);
    assert_eq!(budget.balance(), 0.5);
    let call = FallbackCall::new("f", |_| Ok("elsewhere")).with_budget(&budget);
    let pipeline = Pipeline::builder().then(call).build().unwrap();
    assert_eq!(pipeline.run(|_| Ok::<_, ErrorKind>("here")), Ok("here"));
    assert_eq!(budget.balance(), 1.0);
    assert!(budget.try_withdraw());
    let failed = || pipeline.run(|_| Err(ErrorKind::Timeout));
    assert!(failed().is_err(), "half a token buys no call");
    assert_eq!(failed(), Ok("elsewhere"));
}

#[test]
fn a_hedge_says_nothing_without_a_hedge_and_waits_for_all_that_run() {
    let events = Arc::new(AtomicU32::new(0));
    let heard = Arc::clone(&events);
    let observer = Arc::new(move |_: &Event<'_>| {
        heard.fetch_add(1, Ordering::Relaxed);
    });
    let time = VirtualTime::new();
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(10))).observer(observer);
    let hedge = hedge.build().unwrap();
    hedged(hedge.clone(), &time, Context::default(), [ms(1); 2]);
    hedged(hedge.clone(), &time, Context::default(), [ms(5); 2]);
    assert_eq!(events.load(Ordering::Relaxed), 0);
    let pipeline = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper()).then(hedge);
    let (pipeline, sleeper) = (pipeline.build().unwrap(), time.sleeper());
    let answer = time.block_on(pipeline.call(|attempt| {
        let first = attempt.hedge() == 0;
        let sleep = sleeper.sleep(if first { ms(20) } else { ms(50) });
        async move {
            sleep.await;
            if first { Err(ErrorKind::Connection) } else { Ok("second") }
        }
    }));
    assert_eq!(answer, Ok("second"), "the first failed while the second was under way");
}

#[test]
fn a_failure_teaches_a_hedge_no_delay() {
    let time = VirtualTime::new();
    let hedge = Hedge::builder("h").build().unwrap();
    let pipeline = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper());
    let pipeline = pipeline.then(hedge.clone()).build().unwrap();
    for _ in 0..200 {
        let _ = time.block_on(pipeline.call(|_| async { Err::<(), _>(ErrorKind::Connection) }));
    }
    assert_eq!(hedge.delay(), None);
}

#[test]
fn r3_a_call_waits_for_a_slot_until_its_deadline_at_most() {
    let time = VirtualTime::new();
    let mut config = BulkheadConfig::default();
    (config.limit, config.queue, config.wait_max) = (1, 1, secs(5));
    let bulkhead = Bulkhead::new("b", config).unwrap();
    let _taken = bulkhead.try_acquire().unwrap();
    let pipeline = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper());
    let pipeline = pipeline.then(bulkhead.clone()).build().unwrap();
    let (began, context) =
        (time.clock().now(), Context::from(Deadline::after(&time.clock(), ms(20))));
    let call = pipeline.call_within(context, |_| async { Ok::<_, ErrorKind>(()) });
    assert!(time.block_on(call).is_err());
    assert_eq!(time.clock().now().since(began), ms(20));
}

#[test]
fn d3_steps_run_while_enough_can_be_reached_and_a_share_is_rounded_up() {
    let steps = |ok: &[bool]| -> Vec<_> {
        ok.iter().map(|&ok| move || if ok { Ok(()) } else { Err("broken") }).collect()
    };
    let two = Partial::new(Enough::Count(2)).unwrap();
    assert_eq!(two.run(steps(&[false, true, true])).unwrap().arrived.len(), 2);
    let few = two.run(steps(&[false, false, true])).unwrap_err();
    assert_eq!(few.outcome.missing[2], (2, Missing::NotStarted));
    let half = Partial::new(Enough::Ratio(0.5)).unwrap();
    assert_eq!(half.run(steps(&[true, false, false])).unwrap_err().needed, 2, "of three");
}

#[test]
fn o5_a_throttle_begins_at_its_least_number_and_counts_what_it_refuses() {
    let mut config = ThrottleConfig::default();
    config.refused_max = 0.99;
    let throttle = Throttle::seeded("t", config, ManualClock::new().clock(), 1).unwrap();
    (0..9).for_each(|_| drop(throttle.try_acquire()));
    assert_eq!(throttle.refusal_probability(), 0.0);
    let _ = throttle.try_acquire();
    assert_eq!(throttle.refusal_probability(), 10.0 / 11.0);
    (0..30).for_each(|_| drop(throttle.try_acquire()));
    assert_eq!(throttle.refusal_probability(), 40.0 / 41.0);
}

#[test]
fn d2_an_answer_is_fresh_and_then_stale_for_exactly_as_long_as_it_says() {
    let clock = ManualClock::new();
    let cache = AnswerCache::new(10, secs(10), secs(60), clock.clock()).unwrap();
    cache.insert("q", 1);
    let ask = || cache.run("q", || Err::<u32, _>(ErrorKind::Timeout));
    clock.advance(secs(10));
    assert_eq!(ask(), Ok(Answer::Fresh(1)));
    clock.advance(ms(1));
    assert_eq!(ask(), Ok(Answer::Stale(1)));
    clock.advance(secs(60) - ms(1));
    assert_eq!(ask(), Ok(Answer::Stale(1)));
    clock.advance(ms(1));
    assert_eq!(ask(), Err(ErrorKind::Timeout));
}

#[test]
fn d2_a_stale_answer_stands_in_for_a_failed_dependency_and_never_for_a_refusal_of_the_caller() {
    let time = VirtualTime::new();
    let cache = AnswerCache::new(10, secs(10), secs(60), time.clock()).unwrap();
    cache.insert("q", 1);
    time.block_on(time.sleeper().sleep(secs(11)));
    for kind in ErrorKind::ALL {
        let expected = if kind.blames_dependency() { Ok(Answer::Stale(1)) } else { Err(kind) };
        assert_eq!(cache.run("q", || Err::<u32, _>(kind)), expected, "{kind}");
        let awaited = time.block_on(cache.call("q", || async { Err::<u32, _>(kind) }));
        assert_eq!(awaited, expected, "{kind}");
    }
    let breaker = CircuitBreaker::search_method("b");
    breaker.isolate();
    let refused = cache.run("q", || breaker.run(|| Ok::<_, ErrorKind>(2)));
    assert_eq!(refused, Ok(Answer::Stale(1)), "nobody was asked");
}

#[test]
fn d2_a_cache_asked_to_shrink_keeps_what_was_used_last() {
    let cache = AnswerCache::new(10, secs(10), secs(60), ManualClock::new().clock()).unwrap();
    assert!(cache.is_empty());
    (0..10).for_each(|n| cache.insert(n, n));
    assert_eq!(cache.stale(&0), Some(0), "used last now");
    assert_eq!((cache.keep_newest(3), cache.len()), (7, 3));
    let kept: Vec<u32> = (0..10).filter(|n| cache.stale(n).is_some()).collect();
    assert_eq!(kept, [0, 8, 9]);
    assert_eq!((cache.keep_newest(3), cache.keep_newest(0)), (0, 3));
}

/// Grants what is asked, for ten seconds, and remembers what that was; may be away.
#[derive(Default)]
struct Store {
    asked: Mutex<Vec<(String, u32)>>,
    takes: Option<ManualClock>,
    is_away: AtomicU32,
}

impl QuotaSource for Store {
    type Error = ();

    async fn lease(&self, key: &str, want: u32) -> Result<Lease, ()> {
        self.asked.lock().unwrap().push((key.to_owned(), want));
        self.takes.iter().for_each(|clock| clock.advance(secs(4)));
        let lease = Lease { granted: want, valid_for: secs(10) };
        if self.is_away.load(Ordering::Relaxed) == 0 { Ok(lease) } else { Err(()) }
    }
}

fn leased(clock: &ManualClock) -> LeasedLimiter {
    let alone = RateConfig::new(Algorithm::FixedWindow, 5, secs(3_600));
    let without = WithoutSource::LimitLocally(alone);
    LeasedLimiter::new("api", 100, without, clock.clock()).unwrap()
}

#[test]
fn o4_a_lease_is_low_at_a_quarter_and_refilled_by_what_is_missing() {
    let (time, clock, store) = (VirtualTime::new(), ManualClock::new(), Store::default());
    let leased = leased(&clock);
    assert!(leased.is_away());
    time.block_on(leased.refill(&store)).unwrap();
    assert!(!leased.is_away());
    leased.try_acquire(74).unwrap();
    assert!(!leased.is_low());
    leased.try_acquire(1).unwrap();
    assert!(leased.is_low(), "a quarter is left");
    time.block_on(leased.refill(&store)).unwrap();
    let asked = [("api".to_owned(), 100), ("api".to_owned(), 75)];
    assert_eq!(*store.asked.lock().unwrap(), asked);
    leased.try_acquire(60).unwrap();
    assert_eq!(leased.left(), 40, "spent once, from both portions");
}

#[test]
fn o4_what_expired_unspent_is_told_once_for_the_store_to_take_back() {
    let (time, clock, store) = (VirtualTime::new(), ManualClock::new(), Store::default());
    let leased = leased(&clock);
    time.block_on(leased.refill(&store)).unwrap();
    leased.try_acquire(80).unwrap();
    clock.advance(secs(5));
    time.block_on(leased.refill(&store)).unwrap();
    assert_eq!(leased.take_expired(), 0, "both portions may be spent");
    clock.advance(secs(5));
    assert_eq!(leased.take_expired(), 20, "the first is over");
    leased.try_acquire(30).unwrap();
    clock.advance(secs(5));
    assert_eq!((leased.take_expired(), leased.take_expired()), (50, 0));
}

#[test]
fn o4_the_local_limit_is_for_a_store_that_is_away_after_its_lease_is_over() {
    let (time, clock, store) = (VirtualTime::new(), ManualClock::new(), Store::default());
    let leased = leased(&clock);
    time.block_on(leased.refill(&store)).unwrap();
    leased.try_acquire(100).unwrap();
    store.is_away.store(1, Ordering::Relaxed);
    assert!(time.block_on(leased.refill(&store)).is_err());
    assert!(leased.try_acquire(1).is_err(), "the lease that is spent is still valid");
    clock.advance(secs(10));
    assert!(leased.try_acquire(1).is_ok());
    store.is_away.store(0, Ordering::Relaxed);
    time.block_on(leased.refill(&store)).unwrap();
    clock.advance(secs(10));
    assert!(leased.try_acquire(1).is_err(), "the store was there");
}

#[test]
fn o4_a_spent_lease_says_when_the_local_limit_begins() {
    let (time, clock, store) = (VirtualTime::new(), ManualClock::new(), Store::default());
    let leased = leased(&clock);
    time.block_on(leased.refill(&store)).unwrap();
    leased.try_acquire(100).unwrap();
    clock.advance(secs(3));
    let wait = || leased.try_acquire(1).unwrap_err().retry_after();
    assert_eq!(wait(), None, "the store may answer at any time");
    store.is_away.store(1, Ordering::Relaxed);
    assert!(time.block_on(leased.refill(&store)).is_err());
    assert_eq!(wait(), Some(secs(7)));
    clock.advance(secs(7));
    assert!(leased.try_acquire(1).is_ok());
}

#[test]
fn b3_a_call_that_finds_the_probes_taken_hears_when_they_are_given_up() {
    let clock = ManualClock::new();
    let probes = Probes::new(1).give_up_after(secs(20));
    let builder = CircuitBreaker::builder("b").half_open(probes).clock(clock.clock());
    let breaker = builder.build().unwrap();
    breaker.force_open();
    clock.advance(secs(30));
    let probe = breaker.try_acquire().unwrap();
    clock.advance(secs(8));
    let refused = breaker.try_acquire().unwrap_err();
    assert_eq!(refused.reason(), Reason::ProbesTaken { permitted: 1 });
    assert_eq!(refused.retry_after(), Some(secs(12)));
    clock.advance(secs(12));
    assert!(matches!(breaker.try_acquire().unwrap_err().reason(), Reason::Open { .. }));
    drop(probe);
}

#[test]
fn b3_jitter_keeps_an_open_period_within_its_maximum_and_above_a_tenth() {
    let periods = |open_for: OpenFor| -> Vec<Duration> {
        let clock = ManualClock::new();
        let builder = CircuitBreaker::builder("b").open_for(open_for).seed(3).clock(clock.clock());
        let breaker = builder.build().unwrap();
        let open = |_| {
            breaker.reset();
            breaker.force_open();
            breaker.snapshot().next_probe.unwrap()
        };
        (0..1_000).map(open).collect()
    };
    let between = |periods: &[Duration], least: Duration, most: Duration| {
        assert!(periods.iter().all(|period| (least..=most).contains(period)), "{periods:?}");
        let third = (most - least) / 3;
        assert!(periods.iter().any(|period| *period < least + third));
        assert!(periods.iter().any(|period| *period > most - third));
        let at_most = periods.iter().filter(|period| **period == most).count();
        assert!(at_most < 10, "{at_most} of them in step at the maximum");
    };
    between(&periods(OpenFor::fixed(secs(10)).with_jitter(1.0)), secs(1), secs(10));
    let growing = OpenFor::growing(secs(10), secs(12)).with_jitter(0.5);
    between(&periods(growing), secs(5), secs(12));
    let room = OpenFor::growing(secs(10), secs(60)).with_jitter(0.1);
    between(&periods(room), secs(9), secs(11));
}

#[test]
fn o4_a_lease_counts_from_the_question_and_each_key_has_its_own() {
    let (time, clock) = (VirtualTime::new(), ManualClock::new());
    let store = Store { takes: Some(clock.clone()), ..Store::default() };
    let leased = leased(&clock);
    time.block_on(leased.refill(&store)).unwrap();
    clock.advance(secs(6));
    assert_eq!(leased.left(), 0, "four seconds were the answer's way");
    let refuse = WithoutSource::Refuse;
    let keyed = KeyedLeasedLimiter::new("tenant", 10, 100, refuse, ManualClock::new().clock());
    let (keyed, store) = (keyed.unwrap(), Store::default());
    let _ = (keyed.try_acquire("a", 1), keyed.try_acquire("b", 1));
    assert_eq!(time.block_on(keyed.refill(&store)), Ok(2));
    let mut keys: Vec<_> = store.asked.lock().unwrap().drain(..).map(|(key, _)| key).collect();
    keys.sort();
    assert_eq!(keys, ["tenant/a", "tenant/b"]);
    keyed.try_acquire("a", 8).unwrap();
    assert_eq!(keyed.low().iter().map(|key| &**key).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn figures_tell_the_quantiles_apart_and_forget_by_the_half() {
    let figures = CallFigures::new();
    (1..=100).for_each(|ms| figures.succeeded(Duration::from_millis(ms)));
    let p95 = figures.snapshot().p95.unwrap();
    assert!(p95 >= ms(95) && p95 < ms(108), "{p95:?}");
    let figures = CallFigures::new();
    (0..100).for_each(|_| figures.succeeded(secs(1)));
    (100..8_192).for_each(|_| figures.succeeded(ms(1)));
    assert!(figures.snapshot().p99 >= Some(secs(1)), "the first half still holds them");
    figures.succeeded(ms(1));
    assert!(figures.snapshot().p99 < Some(ms(2)), "the third takes the place of the first");
}

#[test]
fn a_fault_delays_hangs_or_panics_as_it_says() {
    let point = FaultPoint::new();
    point.set(InjectedFault::Slow(ms(20)), None);
    let began = std::time::Instant::now();
    assert_eq!(point.strike(), Ok(()));
    assert!(began.elapsed() >= ms(20));
    point.set(InjectedFault::Hang, Some(ms(20)));
    let began = std::time::Instant::now();
    assert_eq!(point.strike(), Ok(()));
    assert!(began.elapsed() >= ms(20));
    // A call that is given up before the fault is over has failed; one that waits for it has not.
    for fault in [InjectedFault::Hang, InjectedFault::Slow(secs(3_600))] {
        point.set(fault, None);
        assert!(point.strike_within(ms(5)).is_err());
    }
    point.set(InjectedFault::Slow(ms(5)), None);
    assert_eq!(point.strike_within(secs(60)), Ok(()));
    point.set(InjectedFault::Panic, None);
    assert!(std::panic::catch_unwind(|| point.strike()).is_err());
}

#[test]
fn kinds_and_weights_have_names_of_their_own() {
    let weights = [Criticality::Critical, Criticality::Degrades, Criticality::Informative];
    assert_eq!(weights.map(Criticality::as_str), ["critical", "degrades", "informative"]);
    let kinds = [
        DependencyKind::Component,
        DependencyKind::Datastore,
        DependencyKind::Cache,
        DependencyKind::Http,
    ];
    assert_eq!(kinds.map(DependencyKind::as_str), ["component", "datastore", "cache", "http"]);
}
