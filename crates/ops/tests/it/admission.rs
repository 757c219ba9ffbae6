//! O4, O5: rates of every algorithm, the queue, fair shares, overload; C3: many at a time.

use mainstay_ops::admission::{
    Admission, AdmissionConfig, Class, Floor, Group, LineConfig, Load, Permit, RateRule, RateScope,
    Refusal, RefusalKind, RefusalReason, Ticket,
};
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_ops::memory::{MemoryConfig, MemoryGuard};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{Clock, Law, ManualClock, Sleeper};
use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limited(rates: &str, key_rates: &str) -> AdmissionConfig {
    AdmissionConfig {
        rates: RateRule::parse_list(rates).unwrap(),
        key_rates: RateRule::parse_list(key_rates).unwrap(),
        ..AdmissionConfig::default()
    }
}

/// So many at a time, and so many waiting.
fn narrow(at_a_time: u32, queue: u32) -> AdmissionConfig {
    AdmissionConfig {
        law: None,
        searches_max: at_a_time,
        line: LineConfig { length: queue, timeout: SECOND, target: ms(500) },
        ..AdmissionConfig::default()
    }
}

fn search(admission: &Admission, key: &str) -> Result<Ticket, Box<Refusal>> {
    admission.arrive(Class::Interactive, Group::Search, key)
}

/// A sleeper whose time never comes.
struct Never;

impl Sleeper for Never {
    type Sleep = std::future::Pending<()>;
    fn sleep(&self, _: Duration) -> Self::Sleep {
        std::future::pending()
    }
}

type Entering<'a> = Pin<Box<dyn Future<Output = Result<Permit, Box<Refusal>>> + 'a>>;

fn entering(ticket: &Ticket) -> Entering<'_> {
    Box::pin(ticket.enter(&Never, Load::default()))
}

/// The answer, if there is one already.
fn look(entering: &mut Entering<'_>) -> Option<Result<Permit, Box<Refusal>>> {
    match entering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(entered) => Some(entered),
        Poll::Pending => None,
    }
}

fn enter_now(ticket: &Ticket, load: Load) -> Result<Permit, Box<Refusal>> {
    let entered = pin!(ticket.enter(&Never, load));
    match entered.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(entered) => entered,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn o4_each_algorithm_limits_as_it_is_configured() {
    for (rule, at_once, over_ten_seconds) in [
        ("search = 10/s burst 30 token_bucket", 30, 30 + 100),
        ("search = 10/s token_bucket", 10, 10 + 100),
        ("search = 10/s leaky_bucket", 1, 1 + 100),
        ("search = 10/s fixed_window", 10, 10 + 100),
        ("search = 10/s sliding_window", 10, 100),
    ] {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(100));
        let admission = Admission::new(&limited(rule, ""), clock.clock()).unwrap();
        let mut admitted = 0;
        let tries = |times: u32| (0..times).filter(|_| search(&admission, "a").is_ok()).count();
        admitted += tries(200);
        assert_eq!(admitted, at_once, "{rule}");
        for _ in 0..1_000 {
            clock.advance(ms(10));
            admitted += tries(3);
        }
        // A window may end with the test, or just not.
        let near = over_ten_seconds * 9 / 10..=over_ten_seconds + 1;
        assert!(near.contains(&admitted), "{rule}: {admitted}, {near:?}");
        assert!(admission.arrive(Class::Interactive, Group::Write, "a").is_ok(), "another group");
    }
}

#[test]
fn o4_a_refusal_by_rate_says_who_how_much_and_when_to_come_again() {
    let clock = ManualClock::new();
    let config = limited("all = 100/m sliding_window", "search = 2/s");
    let admission = Admission::new(&config, clock.clock()).unwrap();
    assert!(search(&admission, "a").is_ok() && search(&admission, "a").is_ok());
    let refusal = search(&admission, "a").unwrap_err();
    assert_eq!(
        (refusal.kind(), refusal.reason),
        (RefusalKind::RateLimited, RefusalReason::KeyRate)
    );
    assert_eq!((&*refusal.policy, refusal.limit, refusal.remaining), ("search-per-key", 2, 0));
    assert!(refusal.retry_after > Duration::ZERO && refusal.retry_after <= ms(500));
    assert!(refusal.to_string().contains("2 requests per 1s to search"), "{refusal}");
    assert!(search(&admission, "b").is_ok(), "each key has its own");
    clock.advance(refusal.retry_after);
    assert!(search(&admission, "a").is_ok(), "the wait that was named is enough");

    let states = admission.policies(Group::Search, "a");
    let shown: Vec<_> =
        states.iter().map(|it| (&*it.name, it.quota, it.remaining, it.window)).collect();
    let minute = Duration::from_secs(60);
    assert_eq!(shown, [("search-per-key", 2, 0, SECOND), ("all", 100, 96, minute)]);
    assert_eq!(states[0].reset, SECOND);
    assert!(admission.policies(Group::Write, "a").len() == 1);
}

#[test]
fn o4_what_a_request_costs_beyond_the_first_unit_is_charged_when_it_enters() {
    let clock = ManualClock::new();
    let admission = Admission::new(&limited("search = 10/s by cost", ""), clock.clock()).unwrap();
    let ticket = search(&admission, "a").unwrap();
    let remaining = || admission.policies(Group::Search, "a")[0].remaining;
    assert_eq!(remaining(), 9);
    enter_now(&ticket, Load { cost: 4, ..Load::default() }).unwrap().success();
    assert_eq!(remaining(), 6, "four in all");
    enter_now(&ticket, Load { cost: 4, ..Load::default() }).unwrap().success();
    assert_eq!(remaining(), 2, "a second part is charged in full");
    let refused = enter_now(&ticket, Load { cost: 4, ..Load::default() }).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::Rate);
    clock.advance(Duration::from_secs(2));
    let dear = Load { cost: 1_000, ..Load::default() };
    assert!(enter_now(&ticket, dear).is_ok(), "no cost is above what the bucket holds");
    assert_eq!(remaining(), 0);
}

/// Bad input: anybody can make up keys.
#[test]
fn o4_ten_thousand_keys_are_remembered_and_no_more() {
    let clock = ManualClock::new();
    let config = AdmissionConfig { keys_max: 10_000, ..limited("", "search = 1/m") };
    let admission = Admission::new(&config, clock.clock()).unwrap();
    for key in 0..50_000 {
        assert!(search(&admission, &format!("key-{key}")).is_ok(), "each is new");
    }
    let keys = admission.rates_report()[0].keys;
    assert!((5_000..=10_000).contains(&keys), "{keys}");
    let refused = (0..50_000).filter(|key| search(&admission, &format!("key-{key}")).is_err());
    assert!(refused.count() <= 10_000, "the others were forgotten");
    clock.advance(Duration::from_secs(601));
    for key in 0..10_000 {
        let _ = search(&admission, &format!("new-{key}"));
    }
    assert!(admission.rates_report()[0].keys <= 10_000);
}

/// Bad input: a clock that steps back.
#[test]
fn o4_o5_a_clock_that_goes_backwards_neither_opens_nor_closes_anything() {
    for algorithm in ["token_bucket", "leaky_bucket", "fixed_window", "sliding_window"] {
        let clock = ManualClock::new();
        clock.set(mainstay_resilience::Tick::from_nanos(1_000_000_000_000));
        let config = limited(&format!("search = 5/s {algorithm}"), "");
        let config = AdmissionConfig { rates: config.rates, ..narrow(1, 4) };
        let admission = Admission::new(&config, clock.clock()).unwrap();
        let before = (0..20).filter(|_| search(&admission, "a").is_ok()).count();
        clock.set(mainstay_resilience::Tick::from_nanos(990_000_000_000));
        let after = (0..20).filter(|_| search(&admission, "a").is_ok()).count();
        assert_eq!(after, 0, "{algorithm}: {before} had been admitted");
        let write = admission.arrive(Class::Interactive, Group::Read, "a").unwrap();
        let first = enter_now(&write, Load::default()).unwrap();
        let mut second = entering(&write);
        assert!(look(&mut second).is_none());
        clock.set(mainstay_resilience::Tick::from_nanos(1));
        first.success();
        assert!(look(&mut second).unwrap().is_ok(), "{algorithm}: the queue moves on");
        clock.set(mainstay_resilience::Tick::from_nanos(1_002_000_000_000));
        let opened = search(&admission, "a");
        assert!(opened.is_ok(), "{algorithm}: it opens again in time: {opened:?}");
    }
}

#[test]
fn o5_control_calls_pass_every_limit() {
    let clock = ManualClock::new();
    let config = AdmissionConfig { rates: limited("all = 2/h", "").rates, ..narrow(1, 1) };
    let admission = Admission::new(&config, clock.clock()).unwrap();
    let ticket = search(&admission, "a").unwrap();
    let _running = enter_now(&ticket, Load::default()).unwrap();
    let mut waiting = entering(&ticket);
    assert!(look(&mut waiting).is_none());
    admission.admit_from(Floor::Hand, Class::Control);
    let guard =
        MemoryGuard::new(MemoryConfig::default(), KernelFiles::default(), clock.clock(), None);
    admission.guard_memory(guard.unwrap().budget());
    assert!(search(&admission, "b").is_err());
    for group in Group::ALL {
        let control = admission.arrive(Class::Control, group, "a").unwrap();
        let load = Load { cost: 1_000, bytes: u64::MAX, ..Load::default() };
        assert!(enter_now(&control, load).is_ok());
    }
}

#[test]
fn o5_below_the_strictest_floor_nothing_is_begun() {
    let admission = Admission::new(&AdmissionConfig::default(), Clock::system()).unwrap();
    let arrive = |class| admission.arrive(class, Group::Write, "a");
    let ticket = arrive(Class::Batch).unwrap();
    admission.admit_from(Floor::Level, Class::Interactive);
    let refusal = arrive(Class::Batch).unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::Overloaded);
    assert_eq!(refusal.reason, RefusalReason::Priority);
    let late = enter_now(&ticket, Load::default()).unwrap_err();
    assert_eq!(late.reason, RefusalReason::Priority, "one that has arrived is refused too");
    assert!(arrive(Class::Interactive).is_ok());
    admission.admit_from(Floor::Hand, Class::Control);
    admission.admit_from(Floor::Level, Class::Batch);
    assert!(arrive(Class::Interactive).is_err(), "the strictest counts");
    admission.admit_from(Floor::Hand, Class::Batch);
    assert!(arrive(Class::Batch).is_ok());
}

#[test]
fn o2_o5_memory_is_reserved_before_the_work_and_given_back_after_it() {
    let admission = Admission::new(&AdmissionConfig::default(), Clock::system()).unwrap();
    let guard =
        MemoryGuard::new(MemoryConfig::default(), KernelFiles::default(), Clock::system(), None);
    let budget = guard.unwrap().budget();
    admission.guard_memory(budget.clone());
    let ticket = search(&admission, "a").unwrap();
    let load = |bytes| Load { bytes, ..Load::default() };
    let permit = enter_now(&ticket, load(1 << 20)).unwrap();
    assert_eq!(budget.reserved_bytes(), 1 << 20);
    let refused = enter_now(&ticket, load(1 << 40)).unwrap_err();
    assert_eq!((refused.kind(), refused.reason), (RefusalKind::Overloaded, RefusalReason::Memory));
    assert_eq!(refused.limit, 1 << 40);
    permit.success();
    assert_eq!((budget.reserved_bytes(), admission.report(Group::Search).in_use), (0, 0));
}

#[test]
fn o5_the_queue_serves_by_class_and_in_turns_and_is_bounded() {
    let admission = Admission::new(&narrow(1, 4), ManualClock::new().clock()).unwrap();
    let arrive = |class, key: &str| admission.arrive(class, Group::Search, key).unwrap();
    let tickets = [
        arrive(Class::Interactive, "greedy"),
        arrive(Class::Batch, "other"),
        arrive(Class::Interactive, "greedy"),
        arrive(Class::Interactive, "greedy"),
        arrive(Class::Interactive, "modest"),
    ];
    let running = enter_now(&tickets[0], Load::default()).unwrap();
    let mut waiting: Vec<_> = tickets[1..].iter().map(entering).collect();
    for one in &mut waiting {
        assert!(look(one).is_none());
    }
    let report = admission.report(Group::Search);
    assert_eq!((report.in_use, report.waiting, report.waiting_max), (1, 4, 4));
    // The queue is full: the batch request gives way, then the greedy key.
    let urgent = [arrive(Class::Interactive, "third"), arrive(Class::Interactive, "fourth")];
    let mut more: Vec<_> = urgent.iter().map(entering).collect();
    assert!(more.iter_mut().all(|one| look(one).is_none()));
    let refused = look(&mut waiting[0]).unwrap().unwrap_err();
    assert_eq!((refused.reason, refused.class), (RefusalReason::Displaced, Class::Batch));
    assert_eq!(look(&mut waiting[2]).unwrap().unwrap_err().reason, RefusalReason::Displaced);
    let no = admission.arrive(Class::Interactive, Group::Search, "third").unwrap_err();
    assert_eq!(no.reason, RefusalReason::QueueFull, "seen before a body is read");
    assert!(no.detail.contains("1 requests run") && no.detail.contains("4 of 4 wait"), "{no}");

    // Turns: greedy, modest, third, fourth.
    running.success();
    for at in [1, 3] {
        let permit = look(&mut waiting[at]).expect("its turn").unwrap();
        assert!(more.iter_mut().all(|one| look(one).is_none()));
        permit.success();
    }
    for one in &mut more {
        look(one).expect("its turn").unwrap().success();
    }
    assert_eq!(admission.report(Group::Search).in_use, 0);
}

#[test]
fn o5_whoever_is_cancelled_leaves_the_queue_and_its_slot() {
    let admission = Admission::new(&narrow(1, 8), ManualClock::new().clock()).unwrap();
    let ticket = search(&admission, "a").unwrap();
    let running = enter_now(&ticket, Load::default()).unwrap();
    let (mut first, mut second) = (entering(&ticket), entering(&ticket));
    let mut third = entering(&ticket);
    for one in [&mut first, &mut second, &mut third] {
        assert!(look(one).is_none());
    }
    drop(first);
    assert_eq!(admission.report(Group::Search).waiting, 2, "gone from the queue");
    drop(running);
    drop(second);
    let permit = look(&mut third).expect("the slot that was granted to somebody gone").unwrap();
    drop(permit);
    let report = admission.report(Group::Search);
    assert_eq!((report.in_use, report.waiting), (0, 0));
}

#[test]
fn o5_nobody_waits_longer_than_the_queue_and_the_caller_allow() {
    let time = VirtualTime::new();
    let admission = Admission::new(&narrow(1, 8), time.clock()).unwrap();
    let ticket = search(&admission, "a").unwrap();
    let _running = enter_now(&ticket, Load::default()).unwrap();
    for (patience, waits) in [(Duration::MAX, SECOND), (ms(30), ms(30)), (Duration::ZERO, ms(0))] {
        let began = time.clock().now();
        let load = Load { patience, ..Load::default() };
        let refused = time.block_on(ticket.enter(&time.sleeper(), load)).unwrap_err();
        assert_eq!(refused.reason, RefusalReason::QueueTimeout);
        assert_eq!(time.clock().now().since(began), waits);
    }
    assert_eq!(admission.report(Group::Search).waiting, 0);
}

#[test]
fn o4_o5_another_configuration_keeps_what_is_used_up_and_who_waits() {
    let clock = ManualClock::new();
    let config = AdmissionConfig {
        key_rates: limited("", "search = 3/h fixed_window").key_rates,
        ..narrow(1, 8)
    };
    let admission = Admission::new(&config, clock.clock()).unwrap();
    let tickets: Vec<_> = (0..3).map(|_| search(&admission, "a").unwrap()).collect();
    let _running = enter_now(&tickets[0], Load::default()).unwrap();
    let mut waiting = entering(&tickets[1]);
    assert!(look(&mut waiting).is_none());
    let wider = AdmissionConfig {
        key_rates: RateRule::parse_list("search = 4/h fixed_window; read = 1/h").unwrap(),
        searches_max: 2,
        ..config.clone()
    };
    admission.reconfigure(&wider).unwrap();
    assert!(look(&mut waiting).unwrap().is_ok(), "the new slot goes to who waits");
    assert!(search(&admission, "a").is_ok(), "three of four were used up");
    assert!(search(&admission, "a").is_err());
    let wrong = AdmissionConfig { searches_max: 0, ..config.clone() };
    assert!(admission.reconfigure(&wrong).is_err());
    let other = RateRule::parse_list("search = 4/h sliding_window").unwrap();
    admission.reconfigure(&AdmissionConfig { key_rates: other, ..config }).unwrap();
    assert!(search(&admission, "a").is_ok(), "another algorithm begins anew");
}

/// What became of requests in a simulated overload.
#[derive(Debug, Default)]
struct Seen {
    done: u64,
    refused: u64,
    latencies: Vec<Duration>,
    done_by_key: [u64; 2],
}

/// A server that does `capacity` searches a second, four at a time in 40 ms each, and gets
/// `offered` a second for ten seconds; in virtual time. The greedy key sends nine of ten.
fn overload(offered: u64, capacity: u64) -> Seen {
    let time = VirtualTime::new();
    let config = AdmissionConfig {
        law: None,
        searches_max: 4,
        line: LineConfig { length: 64, timeout: SECOND, target: ms(100) },
        ..AdmissionConfig::default()
    };
    let admission = Admission::new(&config, time.clock()).unwrap();
    let service = SECOND * 4 / u32::try_from(capacity).unwrap();
    let seen = RefCell::new(Seen::default());
    let (clock, sleeper) = (time.clock(), time.sleeper());
    time.run_all((0..offered * 10).map(|at| {
        let (admission, seen, clock, sleeper) = (&admission, &seen, &clock, &sleeper);
        async move {
            sleeper.sleep(Duration::from_nanos(at * 1_000_000_000 / offered)).await;
            let began = clock.now();
            let key = usize::from(at % 10 == 0);
            let entered = match search(admission, ["greedy", "modest"][key]) {
                Ok(ticket) => ticket.enter(sleeper, Load::default()).await,
                Err(refusal) => Err(refusal),
            };
            let Ok(permit) = entered else {
                seen.borrow_mut().refused += 1;
                return;
            };
            sleeper.sleep(service).await;
            permit.success();
            let mut seen = seen.borrow_mut();
            seen.done += 1;
            seen.done_by_key[key] += 1;
            seen.latencies.push(clock.now().since(began));
        }
    }));
    assert_eq!(admission.report(Group::Search).in_use, 0);
    let mut seen = seen.into_inner();
    seen.latencies.sort_unstable();
    seen
}

/// O5: goodput at five times the capacity is at least 90 % of the peak, and what is admitted is
/// answered in bounded time. Virtual time: the figures are exact and the same each time.
#[test]
fn o5_under_any_overload_goodput_stays_and_latency_is_bounded() {
    let capacity = 100;
    for offered in [50, 100, 150, 200, 300, 500] {
        let seen = overload(offered, capacity);
        let least = (offered.min(capacity) * 10) * 9 / 10;
        assert!(seen.done >= least, "{offered}/s: {} done", seen.done);
        assert_eq!(seen.done + seen.refused, offered * 10, "each is answered once");
        let p99 = seen.latencies[seen.latencies.len() * 99 / 100];
        assert!(p99 <= ms(100 + 40 + 60), "{offered}/s: p99 {p99:?}");
        if offered <= capacity / 2 {
            assert_eq!(seen.refused, 0, "nothing is refused without need");
        }
    }
}

/// O5: without being told how many searches the machine can do at a time, admission finds it: four run
/// side by side in 20 ms each, and more of them take as much longer as they are more.
#[test]
fn o5_the_number_of_searches_at_a_time_is_found_under_load() {
    let offered = 800;
    let found = |law: Option<Law>| {
        let time = VirtualTime::new();
        let config = AdmissionConfig { law, searches_min: 2, ..AdmissionConfig::default() };
        let admission = Admission::new(&config, time.clock()).unwrap();
        let (clock, sleeper) = (time.clock(), time.sleeper());
        let slowest = Cell::new(Duration::ZERO);
        time.run_all((0..offered * 20).map(|at| {
            let (admission, slowest, clock, sleeper) = (&admission, &slowest, &clock, &sleeper);
            async move {
                sleeper.sleep(Duration::from_nanos(at * 1_000_000_000 / offered)).await;
                let Ok(ticket) = search(admission, "a") else { return };
                let Ok(permit) = ticket.enter(sleeper, Load::default()).await else { return };
                let begun = clock.now();
                let side_by_side = admission.report(Group::Search).in_use;
                sleeper.sleep(ms(20) * u32::try_from(side_by_side.max(4)).unwrap() / 4).await;
                // The first ten seconds are for learning.
                if at >= offered * 10 {
                    slowest.set(slowest.get().max(clock.now().since(begun)));
                }
                permit.success();
            }
        }));
        (admission.report(Group::Search).limit, slowest.get())
    };
    assert_eq!(found(None), (128, ms(640)), "what is not found is what is set");
    for law in [Law::Gradient2, Law::Vegas, Law::Aimd] {
        let (limit, slowest) = found(Some(law));
        assert!((4..64).contains(&limit), "{law:?}: {limit} at a time");
        assert!(slowest <= ms(300), "{law:?}: {slowest:?}, of which 250 ms are the target");
    }
}

/// O5: one greedy key does not starve another.
#[test]
fn o5_a_key_that_asks_for_little_gets_all_of_it_while_another_floods() {
    let seen = overload(400, 100);
    assert_eq!(seen.done_by_key[1], 400, "40 a second, less than an equal share: {seen:?}");
    assert!(seen.done_by_key[0] >= 500, "the rest goes to the greedy one");
}

/// C3: more than a thousand operations at a time on real threads: never more than the limit runs,
/// each is answered, and every slot comes back.
#[test]
fn c3_o5_two_thousand_requests_on_eight_threads_keep_the_limit() {
    struct Thread(std::thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let config = AdmissionConfig {
        line: LineConfig { length: 4_000, timeout: Duration::from_secs(60), target: SECOND * 60 },
        ..narrow(7, 4_000)
    };
    let admission = Admission::new(&config, Clock::system()).unwrap();
    let (running, done) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (admission, running, done) = (&admission, &running, &done);
            scope.spawn(move || {
                let key = format!("key-{}", thread % 3);
                let tickets: Vec<_> = (0..250).map(|_| search(admission, &key).unwrap()).collect();
                let mut tasks: Vec<_> = tickets
                    .iter()
                    .map(|ticket| Some(Box::pin(ticket.enter(&Never, Load::default()))))
                    .collect();
                let waker = Waker::from(Arc::new(Thread(std::thread::current())));
                let mut cx = Context::from_waker(&waker);
                let cancelled = Cell::new(0);
                while tasks.iter().any(Option::is_some) {
                    for (at, slot) in tasks.iter_mut().enumerate() {
                        let Some(task) = slot else { continue };
                        match task.as_mut().poll(&mut cx) {
                            Poll::Ready(permit) => {
                                *slot = None;
                                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                                assert!(now <= 7, "{now} at a time");
                                std::thread::yield_now();
                                running.fetch_sub(1, Ordering::SeqCst);
                                permit.unwrap().success();
                                done.fetch_add(1, Ordering::SeqCst);
                            }
                            // Every fifth gives up while it waits.
                            Poll::Pending if at % 5 == 4 => {
                                *slot = None;
                                cancelled.set(cancelled.get() + 1);
                            }
                            Poll::Pending => {}
                        }
                    }
                    if tasks.iter().any(Option::is_some) {
                        std::thread::park_timeout(ms(5));
                    }
                }
                done.fetch_add(cancelled.get(), Ordering::SeqCst);
            });
        }
    });
    assert_eq!(done.load(Ordering::SeqCst), 2_000);
    let report = admission.report(Group::Search);
    assert_eq!((report.in_use, report.waiting), (0, 0));
}

/// O4: a rule of one route counts its requests beside the rule of its group, and no others.
#[test]
fn o4_a_rule_may_name_one_route() {
    let scope = |name: &str| match name {
        "find" => Ok(RateScope::Route("find")),
        other => RateScope::of_name(other).ok_or_else(|| "unknown".to_string()),
    };
    let rules = RateRule::parse_list_of("find = 2/m fixed_window; search = 3/m", scope).unwrap();
    assert_eq!(rules[0].to_string(), "find = 2/1m fixed_window");
    assert!(RateRule::parse_list_of("fnd = 2/m", scope).is_err());
    assert!(RateRule::parse_list_of("find = 2/m; find = 3/m", scope).is_err());
    let config = AdmissionConfig { rates: rules, ..AdmissionConfig::default() };
    let admission = Admission::new(&config, ManualClock::new().clock()).unwrap();
    let at = |route| admission.arrive_at(route, Class::Interactive, Group::Search, "a");
    assert!(at("find").is_ok() && at("find").is_ok());
    assert_eq!(&*at("find").unwrap_err().policy, "find");
    assert!(at("other").is_ok(), "another route of the group");
    assert_eq!(&*at("other").unwrap_err().policy, "search", "the group's own rule counts all");
    let names = |route| -> Vec<_> {
        let mut names = Vec::new();
        admission.policies_at(route, Group::Search, "a", |it| names.push(it.name.to_string()));
        names
    };
    assert_eq!(
        (names("find"), names("other")),
        (vec!["find".into(), "search".into()], vec!["search".to_string()])
    );
}
