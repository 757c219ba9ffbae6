//! Bulkhead, adaptive limit, throttle and queue.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Bulkhead, BulkheadConfig, CircuitBreaker, Clock, Context,
    Deadline, DropRule, ErrorKind, Event, Hedge, HedgeDelay, Law, ManualClock, Observer, Pipeline,
    Priority, QueueConfig, QueueOrder, Reason, Sleeper, Throttle, ThrottleConfig, Timeout,
    WorkQueue,
};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

#[test]
fn a_bulkhead_never_lets_more_through_than_its_limit() {
    let bulkhead = Bulkhead::new("io", BulkheadConfig::new(3)).unwrap();
    let permits: Vec<_> = (0..5).filter_map(|_| bulkhead.try_acquire().ok()).collect();
    assert_eq!(permits.len(), 3);
    let refused = bulkhead.try_acquire().unwrap_err();
    assert_eq!(refused.reason(), Reason::Full { limit: 3, waiting: 0 });
    drop(permits);
    assert_eq!(bulkhead.in_use(), 0);
}

/// Six calls of 10 ms through one slot; the order in which they are served.
fn served(order: QueueOrder, priorities: [Priority; 6]) -> Vec<usize> {
    let time = VirtualTime::new();
    let config = BulkheadConfig::new(1).with_queue(5, secs(1), order);
    let bulkhead = Bulkhead::new("io", config).unwrap();
    let order = Mutex::new(Vec::new());
    let (sleeper, bulkhead, order_of) = (&time.sleeper(), &bulkhead, &order);
    time.run_all(priorities.into_iter().enumerate().map(|(index, priority)| async move {
        let permit = bulkhead.acquire(sleeper, priority).await.unwrap();
        order_of.lock().unwrap().push(index);
        sleeper.sleep(ms(10)).await;
        drop(permit);
    }));
    order.into_inner().unwrap()
}

#[test]
fn waiting_calls_are_served_by_priority_and_then_by_order() {
    use Priority::{Critical, Low, Normal};
    assert_eq!(served(QueueOrder::Fifo, [Normal; 6]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(served(QueueOrder::Lifo, [Normal; 6]), [0, 5, 4, 3, 2, 1]);
    let mixed = [Normal, Low, Normal, Critical, Low, Critical];
    assert_eq!(served(QueueOrder::Fifo, mixed), [0, 3, 5, 2, 1, 4]);
}

#[test]
fn a_full_queue_and_a_long_wait_are_refused_and_leave_nothing_behind() {
    let time = VirtualTime::new();
    let config = BulkheadConfig::new(1).with_queue(1, ms(50), QueueOrder::Fifo);
    let bulkhead = Bulkhead::new("io", config).unwrap();
    let held = bulkhead.try_acquire().unwrap();
    let (sleeper, bulkhead_ref) = (&time.sleeper(), &bulkhead);
    let reasons = Mutex::new(Vec::new());
    time.run_all((0..2).map(|_| async {
        let refused = bulkhead_ref.acquire(sleeper, Priority::Normal).await.unwrap_err();
        reasons.lock().unwrap().push(refused.reason());
    }));
    assert_eq!(
        reasons.into_inner().unwrap(),
        [Reason::Full { limit: 1, waiting: 1 }, Reason::WaitedTooLong { waited: ms(50) }]
    );
    drop(held);
    assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
    assert!(bulkhead.try_acquire().is_ok());
}

#[test]
fn a_cancelled_wait_gives_back_the_slot_it_was_granted_meanwhile() {
    let time = VirtualTime::new();
    let config = BulkheadConfig::new(1).with_queue(5, secs(1), QueueOrder::Fifo);
    let bulkhead = Bulkhead::new("io", config).unwrap();
    let held = bulkhead.try_acquire().unwrap();
    let sleeper = time.sleeper();
    let mut waiting = Box::pin(bulkhead.acquire(&sleeper, Priority::Normal));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    drop(held);
    assert_eq!(bulkhead.in_use(), 1, "handed over");
    drop(waiting);
    assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
}

#[test]
fn a_raised_limit_serves_those_who_wait() {
    let bulkhead =
        Bulkhead::new("io", BulkheadConfig::new(1).with_queue(4, secs(5), QueueOrder::Fifo))
            .unwrap();
    let _held = bulkhead.try_acquire().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| bulkhead.acquire_blocking(Priority::Normal).is_ok());
        while bulkhead.waiting() == 0 {
            std::thread::yield_now();
        }
        let raised = BulkheadConfig::new(2).with_queue(4, secs(5), QueueOrder::Fifo);
        bulkhead.reconfigure(raised).unwrap();
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn c3_ten_thousand_concurrent_calls_keep_every_count() {
    let breaker = CircuitBreaker::search_method("dep");
    let bulkhead = Bulkhead::new("io", BulkheadConfig::new(10_000)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let held: Vec<_> = (0..1_250)
                    .map(|_| (bulkhead.try_acquire().unwrap(), breaker.try_acquire().unwrap()))
                    .collect();
                held.into_iter().for_each(|(_, permit)| permit.success());
            });
        }
    });
    assert_eq!(breaker.snapshot().calls, 10_000);
    assert_eq!((bulkhead.in_use(), bulkhead.refused()), (0, 0));
}

/// A dependency that serves `capacity` calls at a time in `base` and queues the rest; the limit
/// after forty seconds of unlimited demand.
fn limit_found(law: Law, capacity: u64, base: Duration) -> u64 {
    let clock = ManualClock::new();
    let mut config = AdaptiveConfig::default();
    config.law = law;
    config.healthy_rtt_max = base * 5 / 4;
    let limit = AdaptiveLimit::with_clock("dep", config, clock.clock()).unwrap();
    for _ in 0..(secs(40).as_nanos() / base.as_nanos()) {
        let mut permits = Vec::new();
        while let Ok(permit) = limit.try_acquire(Context::default().priority(Priority::Critical)) {
            permits.push(permit);
        }
        let queued = (permits.len() as u64).max(capacity) as f64 / capacity as f64;
        clock.advance(base.mul_f64(queued));
        permits.into_iter().for_each(|permit| permit.success());
    }
    limit.limit()
}

#[test]
fn adaptive_limits_find_the_capacity_and_stay_there() {
    for law in [Law::Aimd, Law::Vegas, Law::Gradient2] {
        let found = limit_found(law, 50, ms(20));
        assert!((45..=120).contains(&found), "{law:?} found {found} for a capacity of 50");
    }
}

#[test]
fn fast_failures_teach_an_adaptive_limit_nothing_and_timeouts_lower_it_to_its_floor() {
    let clock = ManualClock::new();
    let limit = AdaptiveLimit::with_clock("dep", AdaptiveConfig::default(), clock.clock()).unwrap();
    let record = |kind: ErrorKind, times: u32| {
        for _ in 0..times {
            let permit = limit.try_acquire(Context::default()).unwrap();
            clock.advance(ms(20));
            permit.record(kind);
        }
    };
    record(ErrorKind::ServerError, 1_000);
    record(ErrorKind::NotFound, 1_000);
    assert_eq!(limit.limit(), 20);
    record(ErrorKind::Timeout, 2_000);
    assert_eq!(limit.limit(), 5, "the floor, not one");
}

#[test]
fn under_load_the_least_important_and_the_greediest_are_refused_first() {
    let limit = AdaptiveLimit::new("dep", AdaptiveConfig::default()).unwrap();
    let ask = |priority, caller: &str| {
        limit.try_acquire(Context::default().priority(priority).caller(caller))
    };
    let held: Vec<_> = (0..14).filter_map(|_| ask(Priority::Normal, "a").ok()).collect();
    assert_eq!(held.len(), 14);
    let refused = ask(Priority::Low, "b").unwrap_err();
    let normal = Priority::Normal.level();
    assert_eq!(refused.reason(), Reason::PriorityTooLow { admitted_from: normal });
    assert!(ask(Priority::High, "b").is_ok());
    let b: Vec<_> = (0..2).filter_map(|_| ask(Priority::High, "b").ok()).collect();
    assert_eq!(b.len(), 2);
    let greedy = ask(Priority::High, "a").unwrap_err();
    assert_eq!(greedy.reason(), Reason::ShareExceeded { share: 10 });
    assert!(ask(Priority::High, "c").is_ok());
    assert!(limit.pressure() > 0.7);
}

#[test]
fn b7_a_throttle_on_a_clock_tells_its_observer() {
    let clock = ManualClock::new();
    let heard = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&heard);
    let observer: Arc<dyn Observer> = Arc::new(move |event: &Event<'_>| {
        if matches!(event, Event::Rejected(_)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let config = ThrottleConfig::default();
    let throttle = Throttle::observed("t", config, clock.clock(), observer).unwrap();
    let refused = (0..1_000).filter(|_| throttle.try_acquire().is_err()).count() as u64;
    assert!(refused > 100, "{refused}");
    assert_eq!(heard.load(Ordering::Relaxed), refused);
    clock.advance(secs(121));
    assert_eq!(throttle.refusal_probability(), 0.0, "its window is over on that clock");
    let mut wrong = config;
    wrong.requests_min = 1_000_001;
    assert_eq!(
        throttle.reconfigure(wrong).unwrap_err().to_string(),
        "requests_min: 1000001 is not allowed, use 0 to 1000000"
    );
}

#[test]
fn a_throttle_sends_about_twice_what_is_accepted_and_recovers() {
    let clock = ManualClock::new();
    let throttle = Throttle::seeded("dep", ThrottleConfig::default(), clock.clock(), 42).unwrap();
    let sent = |accepted_percent: u32| {
        let mut sent = 0;
        for i in 0..2_000 {
            clock.advance(ms(60));
            if throttle.try_acquire().is_ok() {
                sent += 1;
                let healthy = i % 100 < accepted_percent;
                throttle.record(if healthy { ErrorKind::NotFound } else { ErrorKind::RateLimit });
            }
        }
        sent
    };
    assert_eq!(sent(100), 2_000);
    sent(0);
    let refused_outage = sent(0);
    assert!((150..=300).contains(&refused_outage), "a tenth still passes: {refused_outage}");
    // What is accepted doubles within each window at most, from a tenth to all of it.
    for _ in 0..5 {
        sent(100);
    }
    assert_eq!(sent(100), 2_000, "recovered");
}

#[test]
fn o5_a_queue_serves_by_priority_bounds_its_depth_and_shows_its_pressure() {
    let mut config = QueueConfig::default();
    (config.workers, config.capacity) = (1, 4);
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let handled = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&handled);
    let (queue, workers) = WorkQueue::start("index", config, Clock::system(), move |job: u32| {
        let _ = opened.lock().unwrap().recv();
        seen.lock().unwrap().push(job);
    })
    .unwrap();
    let first = queue.submit(0, Priority::Normal).unwrap();
    while queue.pressure().depth > 0 {
        std::thread::yield_now();
    }
    let later = [
        queue.submit(1, Priority::Low).unwrap(),
        queue.submit(2, Priority::Normal).unwrap(),
        queue.submit(3, Priority::Critical).unwrap(),
        queue.submit(4, Priority::Normal).unwrap(),
    ];
    assert_eq!(queue.pressure().level, 1.0);
    let refused = queue.submit(5, Priority::Critical).unwrap_err();
    assert_eq!(refused.reason(), Reason::Full { limit: 1, waiting: 4 });
    drop(gate);
    first.wait().unwrap();
    later.into_iter().for_each(|handle| handle.wait().unwrap());
    assert_eq!(*handled.lock().unwrap(), [0, 3, 2, 4, 1]);
    drop(queue);
    workers.join();
}

#[test]
fn o5_old_jobs_are_refused_and_an_old_queue_sheds_new_ones() {
    let mut config = QueueConfig::default();
    config.workers = 1;
    let clock = ManualClock::new();
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let (queue, workers) = WorkQueue::start("index", config, clock.clock(), move |()| {
        let _ = opened.lock().unwrap().recv();
        count.fetch_add(1, Ordering::SeqCst);
    })
    .unwrap();
    let running = queue.submit((), Priority::Normal).unwrap();
    while queue.pressure().depth > 0 {
        std::thread::yield_now();
    }
    let old = queue.submit((), Priority::Normal).unwrap();
    clock.advance(secs(6));
    assert!(queue.submit((), Priority::Normal).is_err(), "the oldest waits for six seconds");
    let important = queue.submit((), Priority::High).unwrap();
    assert_eq!(queue.shed(), 1);
    clock.advance(secs(25));
    drop(gate);
    running.wait().unwrap();
    important.wait().unwrap();
    let refused = old.wait().unwrap_err();
    assert_eq!(refused.reason(), Reason::WaitedTooLong { waited: secs(31) });
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    drop(queue);
    workers.join();
}

#[test]
fn o5_a_panicking_handler_refuses_its_job_and_the_worker_goes_on() {
    let (queue, workers) =
        WorkQueue::start("index", QueueConfig::default(), Clock::system(), |job: u32| {
            assert!(job != 0, "broken job");
            job
        })
        .unwrap();
    assert!(queue.submit(0, Priority::Normal).unwrap().wait().is_err());
    assert_eq!(queue.submit(7, Priority::Normal).unwrap().wait(), Ok(7));
    drop(queue);
    workers.join();
}

#[test]
fn o5_callers_take_turns_and_deadlines_hold_in_a_queue() {
    let clock = ManualClock::new();
    let mut config = QueueConfig::default();
    (config.workers, config.capacity) = (1, 100);
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let (queue, workers) = WorkQueue::start("q", config, clock.clock(), move |job: u32| {
        if job == 0 {
            gate.lock().unwrap().recv().unwrap();
        }
        seen.lock().unwrap().push(job);
    })
    .unwrap();
    let by = |caller: &str| Context::default().caller(caller);
    let mut handles = vec![queue.submit(0, Priority::Normal).unwrap()];
    while queue.pressure().depth > 0 {
        std::thread::yield_now();
    }
    handles.extend((1..=3).map(|job| queue.submit(job, by("greedy")).unwrap()));
    handles.push(queue.submit(10, by("modest")).unwrap());
    let deadline = Deadline::after(&clock.clock(), ms(10));
    let late = queue.submit(99, Context::from(deadline)).unwrap();
    clock.advance(ms(20));
    assert!(queue.submit(98, Context::from(deadline)).is_err(), "its deadline has passed");
    open.send(()).unwrap();
    assert_eq!(late.wait().unwrap_err().reason(), Reason::DeadlinePassed);
    handles.into_iter().for_each(|handle| handle.wait().unwrap());
    assert_eq!(*order.lock().unwrap(), [0, 1, 10, 2, 3]);
    config.capacity = 1;
    queue.reconfigure(config).unwrap();
    assert_eq!(queue.pressure().capacity, 1);
    config.workers = 9;
    assert_eq!(queue.reconfigure(config).unwrap_err().field(), "workers");
    drop(queue);
    workers.join();
}

#[test]
fn o5_a_throttle_changes_while_running_and_keeps_what_it_counted() {
    let clock = ManualClock::new();
    let throttle = Throttle::seeded("t", ThrottleConfig::default(), clock.clock(), 3).unwrap();
    for _ in 0..100 {
        if throttle.try_acquire().is_ok() {
            throttle.record(ErrorKind::RateLimit);
        }
    }
    let before = throttle.refusal_probability();
    let mut config = throttle.config();
    config.window = secs(10);
    throttle.reconfigure(config).unwrap();
    assert_eq!(throttle.refusal_probability(), before);
    clock.advance(secs(11));
    assert_eq!(throttle.refusal_probability(), 0.0, "the new window is over");
}

fn with_rule(on_drop: DropRule, time: &VirtualTime) -> AdaptiveLimit {
    let mut config = AdaptiveConfig::default();
    (config.law, config.on_drop) = (Law::Aimd, on_drop);
    AdaptiveLimit::with_clock("dep", config, time.clock()).unwrap()
}

#[test]
fn a_hang_under_an_outer_timeout_lowers_an_adaptive_limit() {
    let time = VirtualTime::new();
    let limit = with_rule(DropRule::TimeoutAfter(ms(90)), &time);
    let pipeline = Pipeline::builder()
        .clock(time.clock())
        .sleeper(time.sleeper())
        .then(Timeout::total("t", ms(100)).unwrap())
        .then(limit.clone())
        .build()
        .unwrap();
    let pipeline = &pipeline;
    for _ in 0..3 {
        time.run_all((0..10).map(|_| async move {
            let hang = pipeline.call(|_| std::future::pending::<Result<(), ErrorKind>>());
            assert!(hang.await.unwrap_err().is_timeout());
        }));
    }
    assert!(limit.limit() < 20, "ten hung thrice, and the limit is still {}", limit.limit());
    assert_eq!(limit.in_use(), 0);
}

#[test]
fn a_dropped_permit_of_an_adaptive_limit_counts_by_its_rule() {
    let after_drops = |rule, held, leave: fn(mainstay_resilience::AdaptivePermit<'_>)| {
        let time = VirtualTime::new();
        let limit = with_rule(rule, &time);
        for _ in 0..4 {
            let permits: Vec<_> =
                (0..5).map(|_| limit.try_acquire(Context::default()).unwrap()).collect();
            time.block_on(time.sleeper().sleep(held));
            permits.into_iter().for_each(leave);
        }
        assert_eq!(limit.in_use(), 0);
        limit.limit()
    };
    assert_eq!(after_drops(DropRule::Neutral, ms(200), |p| drop(p)), 20);
    assert!(after_drops(DropRule::Failure, ms(60), |p| drop(p)) < 20);
    let timeout = DropRule::TimeoutAfter(ms(100));
    assert_eq!(after_drops(timeout, ms(99), |p| drop(p)), 20, "cancelled for a reason of its own");
    assert!(after_drops(timeout, ms(100), |p| drop(p)) < 20);
    assert_eq!(after_drops(DropRule::Failure, ms(200), |permit| permit.ignore()), 20);
}

#[test]
fn cancelled_losers_and_panics_teach_an_adaptive_limit_nothing_whatever_its_rule() {
    let time = VirtualTime::new();
    let limit = with_rule(DropRule::Failure, &time);
    let hedge = Hedge::builder("h").delay(HedgeDelay::Fixed(ms(30))).build().unwrap();
    let builder = Pipeline::builder().clock(time.clock()).sleeper(time.sleeper());
    let pipeline = builder.then(hedge).then(limit.clone()).build().unwrap();
    let sleeper = &time.sleeper();
    for _ in 0..30 {
        let call = pipeline.call(|attempt| async move {
            sleeper.sleep(if attempt.hedge() == 0 { secs(1) } else { ms(10) }).await;
            Ok::<_, ErrorKind>(attempt.hedge())
        });
        assert_eq!(time.block_on(call), Ok(1), "the hedge won");
    }
    for _ in 0..30 {
        let permit = limit.try_acquire(Context::default()).unwrap();
        time.block_on(sleeper.sleep(ms(20)));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = permit;
            std::panic::resume_unwind(Box::new("down"));
        }));
        assert!(panicked.is_err());
    }
    assert_eq!((limit.limit(), limit.in_use()), (20, 0));
}
