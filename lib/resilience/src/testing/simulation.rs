//! What a pipeline does to a dependency that goes away and comes back, in virtual time.

use super::virtual_time::{VirtualSleeper, VirtualTime};
use crate::error_kind::ErrorKind;
use crate::pipeline::Pipeline;
use crate::random::Random;
use crate::sleeper::Sleeper;
use crate::strategy::Strategy;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a dependency fails during an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outage {
    /// It refuses at once.
    Refuses,
    /// It answers with an error after its usual latency.
    Fails,
    /// It never answers.
    Hangs,
}

/// A dependency: how long it takes, and when it is out.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The usual latency; each call takes between half and one and a half times as long.
    pub latency: Duration,
    /// Stretches of time, from the beginning, in which it is out.
    pub outages: Vec<(Range<Duration>, Outage)>,
}

/// A load on a dependency through a pipeline.
///
/// ```
/// use mainstay_resilience::{CircuitBreaker, DropRule, OpenFor, Pipeline, Timeout};
/// use mainstay_resilience::testing::{Dependency, Outage, Simulation};
/// use std::time::Duration;
///
/// let outage = Duration::from_secs(10)..Duration::from_secs(20);
/// let simulation = Simulation {
///     seed: 1,
///     duration: Duration::from_secs(30),
///     requests_per_second: 50,
///     dependency: Dependency {
///         latency: Duration::from_millis(20),
///         outages: vec![(outage.clone(), Outage::Hangs)],
///     },
/// };
/// let report = simulation.run(|time| {
///     let breaker = CircuitBreaker::builder("dependency")
///         .open_for(OpenFor::fixed(Duration::from_secs(1)))
///         .clock(time.clock())
///         .build()
///         .unwrap();
///     Pipeline::builder()
///         .clock(time.clock())
///         .sleeper(time.sleeper())
///         .then(breaker)
///         .then(Timeout::per_attempt("dependency", Duration::from_millis(200)).unwrap())
///         .build()
///         .unwrap()
/// });
/// report.assert_load_at_most(outage.clone(), 0.2);
/// report.assert_recovers_within(outage.end, Duration::from_secs(3));
/// ```
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Everything random comes from it.
    pub seed: u64,
    /// How long requests arrive.
    pub duration: Duration,
    /// Requests per second, evenly spread with a jitter of half an interval.
    pub requests_per_second: u32,
    /// The dependency.
    pub dependency: Dependency,
}

/// The length of the slices that a report counts in.
const SLICE: Duration = Duration::from_millis(100);

/// What happened in one slice, by the time at which requests and calls began.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    requests: u64,
    calls: u64,
    answered: u64,
}

/// What a simulation showed.
#[derive(Clone, Debug)]
pub struct Report {
    seed: u64,
    duration: Duration,
    slices: Vec<Slice>,
}

impl Simulation {
    /// Runs the load through the pipeline that `build` makes on the simulation's time.
    pub fn run<C: Strategy<(), ErrorKind>>(
        &self,
        build: impl FnOnce(&VirtualTime) -> Pipeline<C, VirtualSleeper>,
    ) -> Report {
        let time = VirtualTime::new();
        let pipeline = build(&time);
        let (clock, sleeper) = (time.clock(), time.sleeper());
        let (random, began) = (Random::seeded(self.seed), clock.now());
        let count = (self.duration.as_millis() / SLICE.as_millis()) as usize + 1;
        let slices = Mutex::new(vec![Slice::default(); count]);
        let note = |at: Duration, change: fn(&mut Slice)| {
            let index = (at.as_millis() / SLICE.as_millis()) as usize;
            let mut slices = slices.lock().unwrap_or_else(PoisonError::into_inner);
            // What retries push beyond the end is not of interest.
            slices.get_mut(index).into_iter().for_each(change);
        };
        let interval = Duration::from_secs(1) / self.requests_per_second.max(1);
        let requests = (self.duration.as_nanos() / interval.as_nanos().max(1)) as u32;
        let tasks = (0..requests).map(|number| {
            let arrival = interval * number + interval.mul_f64(random.unit() / 2.0);
            let (pipeline, clock, sleeper, random, note) =
                (&pipeline, &clock, &sleeper, &random, &note);
            async move {
                sleeper.sleep(arrival).await;
                note(arrival, |slice| slice.requests += 1);
                let result = pipeline
                    .call(|_| {
                        let at = clock.now().since(began);
                        note(at, |slice| slice.calls += 1);
                        self.dependency.answer(at, random.unit(), sleeper)
                    })
                    .await;
                if result.is_ok() {
                    note(arrival, |slice| slice.answered += 1);
                }
            }
        });
        time.run_all(tasks);
        let slices = slices.into_inner().unwrap_or_else(PoisonError::into_inner);
        Report { seed: self.seed, duration: self.duration, slices }
    }
}

impl Dependency {
    /// The answer to a call at `at`.
    fn answer(
        &self,
        at: Duration,
        unit: f64,
        sleeper: &VirtualSleeper,
    ) -> impl Future<Output = Result<(), ErrorKind>> + Send + use<> {
        let out = self.outages.iter().find(|(during, _)| during.contains(&at)).map(|(_, how)| *how);
        let wait = match out {
            Some(Outage::Refuses) => Duration::ZERO,
            _ => self.latency.mul_f64(0.5 + unit),
        };
        let sleep = sleeper.sleep(wait);
        async move {
            match out {
                None => {
                    sleep.await;
                    Ok(())
                }
                Some(Outage::Refuses) => Err(ErrorKind::Connection),
                Some(Outage::Fails) => {
                    sleep.await;
                    Err(ErrorKind::ServerError)
                }
                Some(Outage::Hangs) => std::future::pending().await,
            }
        }
    }
}

impl Report {
    fn sum(&self, during: &Range<Duration>, field: impl Fn(&Slice) -> u64) -> u64 {
        let index = |at: Duration| (at.as_millis() / SLICE.as_millis()) as usize;
        let (from, to) = (index(during.start), index(during.end).min(self.slices.len()));
        self.slices.get(from..to).unwrap_or(&[]).iter().map(field).sum()
    }

    /// Calls that reached the dependency per request, in this stretch of time.
    #[must_use]
    pub fn load(&self, during: Range<Duration>) -> f64 {
        let requests = self.sum(&during, |slice| slice.requests);
        self.sum(&during, |slice| slice.calls) as f64 / requests.max(1) as f64
    }

    /// The share of requests that were answered, in this stretch of time.
    #[must_use]
    pub fn answered(&self, during: Range<Duration>) -> f64 {
        let requests = self.sum(&during, |slice| slice.requests);
        self.sum(&during, |slice| slice.answered) as f64 / requests.max(1) as f64
    }

    /// How long after `outage_end` the first whole second begins in which 99 % of requests are
    /// answered; `None` if there is none.
    #[must_use]
    pub fn recovery(&self, outage_end: Duration) -> Option<Duration> {
        let end = SLICE * self.slices.len() as u32;
        let mut at = outage_end;
        while at + Duration::from_secs(1) <= end {
            if self.answered(at..at + Duration::from_secs(1)) >= 0.99 {
                return Some(at - outage_end);
            }
            at += SLICE;
        }
        None
    }

    /// Fails the test when more than `ratio` calls per request reached the dependency.
    ///
    /// # Panics
    /// Then, with the figures and the seed. And when `during` is empty, reversed, shorter than the
    /// 100 ms that a report counts in, not within the run, or without any request: such a stretch
    /// would show nothing.
    pub fn assert_load_at_most(&self, during: Range<Duration>, ratio: f64) {
        assert!(during.start < during.end, "{during:?} is empty or reversed: begin before the end");
        assert!(
            during.end <= self.duration,
            "{during:?} is not within the run, which takes {:?}",
            self.duration
        );
        let requests = self.sum(&during, |slice| slice.requests);
        assert!(requests > 0, "no request in {during:?}: take a longer stretch or more requests");
        let load = self.load(during.clone());
        assert!(load <= ratio, "{load:.3} calls per request in {during:?}, seed {}", self.seed);
    }

    /// Fails the test when it took longer than `limit` after the outage to answer again.
    ///
    /// # Panics
    /// Then, with the figures and the seed.
    pub fn assert_recovers_within(&self, outage_end: Duration, limit: Duration) {
        let recovery = self.recovery(outage_end);
        let in_time = recovery.is_some_and(|recovery| recovery <= limit);
        assert!(in_time, "recovered {recovery:?} after the outage, seed {}", self.seed);
    }
}
