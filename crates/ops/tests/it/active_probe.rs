//! When dependencies are probed that nobody calls: design idea 2, V1, B3. Time is a test's own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mainstay_ops::active_probe::{ActiveProbes, Standing};
use mainstay_resilience::{
    Attempt, CircuitBreaker, Context, Criticality, Dependency, DependencyKind, Event, FaultPoint,
    InjectedFault, ManualClock, NoSleeper, Pipelines, PipelinesConfig, State,
};

const IDLE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// Dependencies on a clock that moves only when told to.
struct World {
    clock: ManualClock,
    pipelines: Pipelines,
    probes: ActiveProbes,
}

impl World {
    fn new(idle_max: Duration) -> Self {
        let clock = ManualClock::new();
        let nobody = Arc::new(|_: &Event<'_>| ());
        let config = PipelinesConfig::default();
        let pipelines = Pipelines::with(config, clock.clock(), NoSleeper, nobody).unwrap();
        let probes = ActiveProbes::new(pipelines.clone(), clock.clock(), idle_max);
        Self { clock, pipelines, probes }
    }

    /// A declared dependency whose probe counts and takes the way of every call.
    fn declare(&self, name: &str) -> (Dependency, Arc<AtomicU64>) {
        let breaker = CircuitBreaker::builder(name).consecutive_failures(5).no_failure_rate();
        let breaker = breaker.clock(self.clock.clock()).build().unwrap();
        let declared = Dependency::new(breaker, DependencyKind::Http, Criticality::Degrades);
        let probed = Arc::new(AtomicU64::new(0));
        // What makes the calls is not the declaration itself, as the registry keeps that.
        let (breaker, figures) = (declared.breaker().clone(), declared.figures().clone());
        let (faults, count) = (declared.faults().clone(), Arc::clone(&probed));
        declared.probe_by(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let permit = breaker.try_acquire().map_err(|refusal| refusal.to_string())?;
            match FaultPoint::strike(&faults) {
                Ok(()) => {
                    figures.succeeded(SECOND);
                    permit.success();
                    Ok(())
                }
                Err(injected) => {
                    figures.failed(SECOND, injected);
                    permit.failure();
                    Err("redis://user:secret@host said no".to_string())
                }
            }
        });
        self.pipelines.declare(&declared);
        (declared, probed)
    }

    /// Lets time pass and looks, until every probe has ended but those that hang.
    fn pass(&self, wait: Duration, hanging: usize) {
        self.clock.advance(wait);
        self.probes.look();
        settled(|| self.probes.under_way() <= hanging);
    }
}

fn settled(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "it never settled");
        std::thread::yield_now();
    }
}

fn count(probed: &AtomicU64) -> u64 {
    probed.load(Ordering::SeqCst)
}

/// B3: an open breaker that nobody calls is let through its open period by a probe, closes again when
/// the dependency works, and stays open while it does not; whatever the idle time is.
#[test]
fn b3_a_breaker_that_nobody_calls_closes_once_its_dependency_works() {
    for idle_max in [Duration::ZERO, IDLE] {
        let world = World::new(idle_max);
        let (broken, probed) = world.declare("far");
        broken.faults().set(InjectedFault::Error, None);
        broken.breaker().force_open_for(Duration::from_secs(60));
        world.pass(Duration::from_secs(59), 0);
        assert_eq!((count(&probed), broken.breaker().state()), (0, State::Open), "not over yet");
        world.pass(SECOND, 0);
        assert_eq!((count(&probed), broken.breaker().state()), (1, State::Open), "it still fails");
        world.pass(SECOND, 0);
        assert_eq!(count(&probed), 1, "the next open period has begun");
        broken.faults().clear();
        let deadline = Instant::now() + Duration::from_secs(60);
        while broken.breaker().state() != State::Closed {
            assert!(Instant::now() < deadline, "{:?}", broken.breaker().snapshot());
            world.pass(SECOND, 0);
        }
        let probes = u64::from(broken.breaker().config().probes.count);
        assert_eq!(count(&probed), 1 + probes, "no more than the breaker asks for");
    }
}

/// V1: what nobody has called is not known to work, and is probed at once; then whenever nobody has
/// called it for the idle time.
#[test]
fn v1_a_dependency_is_probed_when_nobody_has_called_it_for_a_while() {
    let world = World::new(IDLE);
    let (quiet, probed) = world.declare("quiet");
    assert_eq!(world.probes.standing(&quiet), Standing::NotCalled);
    world.pass(Duration::ZERO, 0);
    assert_eq!((count(&probed), world.probes.standing(&quiet)), (1, Standing::Called));
    world.pass(IDLE - SECOND, 0);
    assert_eq!(count(&probed), 1);
    world.pass(SECOND, 0);
    assert_eq!(count(&probed), 2);
    for _ in 0..10 {
        quiet.figures().succeeded(SECOND);
        world.pass(IDLE - SECOND, 0);
    }
    assert_eq!(count(&probed), 2, "it is called often enough");
    world.pass(IDLE, 0);
    assert_eq!(count(&probed), 3);
}

#[test]
fn without_an_idle_time_nobody_is_asked_who_is_not_held_open() {
    let world = World::new(Duration::ZERO);
    let (quiet, probed) = world.declare("quiet");
    (0..10).for_each(|_| world.pass(10 * IDLE, 0));
    assert_eq!((count(&probed), world.probes.standing(&quiet)), (0, Standing::NotCalled));
}

/// V1, B1: a probe that fails is seen at once, without secrets, and repeated after growing waits until
/// the breaker opens; a call that succeeds takes it back.
#[test]
fn v1_a_probe_that_fails_is_repeated_until_the_breaker_opens() {
    let world = World::new(IDLE);
    let (gone, probed) = world.declare("gone");
    gone.faults().set(InjectedFault::Error, None);
    world.pass(Duration::ZERO, 0);
    let Standing::Failing(why) = world.probes.standing(&gone) else { panic!("it failed") };
    assert!(why.contains("said no") && !why.contains("secret"), "{why}");
    let mut waits = Vec::new();
    let mut waited = 0;
    while gone.breaker().state() == State::Closed {
        let before = count(&probed);
        world.pass(SECOND, 0);
        waited += 1;
        if count(&probed) > before {
            waits.push(std::mem::take(&mut waited));
        }
    }
    assert_eq!(waits, [1, 2, 4, 8], "the fifth failure in a row opens it");
    gone.breaker().reset();
    assert!(matches!(world.probes.standing(&gone), Standing::Failing(_)));
    gone.figures().succeeded(SECOND);
    assert_eq!(world.probes.standing(&gone), Standing::Called);
}

#[test]
fn an_isolated_dependency_is_left_alone() {
    let world = World::new(IDLE);
    let (alone, probed) = world.declare("alone");
    alone.breaker().isolate();
    (0..10).for_each(|_| world.pass(IDLE, 0));
    assert_eq!((count(&probed), alone.breaker().state()), (0, State::Isolated));
    alone.breaker().reset();
    world.pass(Duration::ZERO, 0);
    assert_eq!(count(&probed), 1);
}

/// A probe that hangs is under way once, whatever time passes, and delays no other.
#[test]
fn a_probe_that_hangs_delays_no_other() {
    let world = World::new(IDLE);
    let (hung, probed) = world.declare("hung");
    hung.faults().set(InjectedFault::Hang, None);
    let (_, others) = world.declare("other");
    world.pass(Duration::ZERO, 1);
    settled(|| hung.faults().struck() == 1);
    for _ in 0..3 {
        world.pass(IDLE, 1);
    }
    assert_eq!((count(&probed), count(&others)), (1, 4));
    hung.faults().clear();
    settled(|| world.probes.under_way() == 0);
    world.pass(IDLE, 0);
    assert_eq!((count(&probed), count(&others)), (2, 5));
}

/// However many dependencies there are, few are probed at a time, and each of them comes to its turn.
#[test]
fn few_are_probed_at_a_time_and_all_in_turn() {
    const ALL: usize = 100;
    let world = World::new(IDLE);
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let counts: Vec<_> = (0..ALL).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let (most, now) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let declared: Vec<_> = counts
        .iter()
        .enumerate()
        .map(|(number, probed)| {
            let (declared, _) = world.declare(&format!("one-{number:03}"));
            let (gate, probed) = (Arc::clone(&gate), Arc::clone(probed));
            let (most, now) = (Arc::clone(&most), Arc::clone(&now));
            let figures = declared.figures().clone();
            declared.probe_by(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let open = gate.0.lock().unwrap();
                drop(gate.1.wait_while(open, |open| !*open).unwrap());
                now.fetch_sub(1, Ordering::SeqCst);
                probed.fetch_add(1, Ordering::SeqCst);
                figures.succeeded(SECOND);
                Ok(())
            });
            declared
        })
        .collect();
    for _ in 0..3 {
        world.pass(SECOND, ALL);
    }
    settled(|| now.load(Ordering::SeqCst) == 16);
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    settled(|| world.probes.under_way() == 0);
    for _ in 0..ALL / 16 {
        world.pass(SECOND, 0);
    }
    assert_eq!(most.load(Ordering::SeqCst), 16);
    assert_eq!(counts.iter().map(|it| count(it)).collect::<Vec<_>>(), vec![1; ALL]);
    assert!(declared.iter().all(|it| world.probes.standing(it) == Standing::Called));
}

/// A probe goes through the dependency's own pipeline and is no caller's: an endpoint probes as it is
/// called. One that panics has failed and ends nothing.
#[test]
fn an_endpoint_is_probed_through_its_pipeline_and_may_panic() {
    let world = World::new(IDLE);
    let endpoint = world.pipelines.endpoint("service", "endpoint");
    let dependency = endpoint.dependency().clone();
    let pipelines = world.pipelines.clone();
    dependency.probe_by(move || {
        let call = |_: Attempt| Ok::<_, mainstay_resilience::ErrorKind>(());
        let answer = pipelines.run("service", "endpoint", Context::default(), call);
        answer.map_err(|error| error.to_string())
    });
    world.pass(Duration::ZERO, 0);
    assert_eq!(dependency.figures().counts(), (1, 0));
    dependency.probe_by(|| panic!("on purpose"));
    world.pass(IDLE, 0);
    let panicked = Standing::Failing("the probe panicked".to_string());
    assert_eq!(world.probes.standing(&dependency), panicked);
}
