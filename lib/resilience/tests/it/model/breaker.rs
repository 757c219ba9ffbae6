//! The breaker, explained anew from its documentation: every counted call in a list.

use super::runs;
use crate::{ms, secs};
use mainstay_resilience::{
    BreakerConfig, CircuitBreaker, DropRule, ManualClock, OpenFor, Permit, Probes, Ramp, Reason,
    SlowCalls, State, Tick, Window,
};
use proptest::prelude::*;
use std::time::Duration;

/// One step of a schedule. Numbers choose among the permits that are out.
#[derive(Clone, Debug)]
enum Step {
    Acquire,
    Succeed(usize),
    SucceedElsewhere(usize),
    Fail(usize),
    FailAsking(usize, u64),
    Ignore(usize),
    Drop(usize),
    Advance(u64),
    ClockBack(u64),
    ForceOpen,
    ForceOpenFor(u64),
    Isolate,
    Disable,
    ObserveOnly,
    Reset,
    Advise(f64, u64),
    Reconfigure(Box<BreakerConfig>),
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => Just(Step::Acquire),
        8 => (0..8usize).prop_map(Step::Succeed),
        1 => (0..8usize).prop_map(Step::SucceedElsewhere),
        12 => (0..8usize).prop_map(Step::Fail),
        2 => (0..8usize, 0..5_000u64).prop_map(|(at, wait)| Step::FailAsking(at, wait)),
        2 => (0..8usize).prop_map(Step::Ignore),
        4 => (0..8usize).prop_map(Step::Drop),
        8 => (0..700u64).prop_map(Step::Advance),
        2 => (700..5_000u64).prop_map(Step::Advance),
        1 => (1..900u64).prop_map(Step::ClockBack),
        2 => prop_oneof![
            Just(Step::ForceOpen),
            (1..3_000u64).prop_map(Step::ForceOpenFor),
            Just(Step::Isolate),
            Just(Step::Disable),
            Just(Step::ObserveOnly),
            Just(Step::Reset),
            Just(Step::Reset),
        ],
        1 => (prop_oneof![Just(0.0), Just(0.5), Just(1.0)], 1..2_000u64)
            .prop_map(|(share, ttl)| Step::Advise(share, ttl)),
        1 => config().prop_map(|config| Step::Reconfigure(Box::new(config))),
        4 => Just(Step::Look),
    ]
}

fn rate() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![Just(None), Just(Some(0.5)), Just(Some(1.0)), Just(Some(0.3))]
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![
        Just(Window::None),
        Just(Window::Count { calls: 5 }),
        Just(Window::Count { calls: 8 }),
        Just(Window::Time { length: secs(2), slices: 4 }),
        Just(Window::Time { length: secs(1), slices: 10 }),
        Just(Window::Time { length: secs(3), slices: 2 }),
    ]
}

fn config() -> impl Strategy<Value = BreakerConfig> {
    let slow = prop_oneof![
        2 => Just(None),
        1 => Just(Some(SlowCalls { rate: 0.5, longer_than: ms(100) })),
        1 => Just(Some(SlowCalls { rate: 1.0, longer_than: ms(300) })),
    ];
    let open_for = prop_oneof![
        Just(OpenFor::fixed(secs(1))),
        Just(OpenFor::growing(ms(500), secs(3))),
        Just(OpenFor::fixed(ms(300)).or_retry_after(secs(2))),
    ];
    let probes = (1..4u32, prop_oneof![Just(0.5), Just(1.0)], 0..2u32).prop_map(
        |(count, close_at, concurrent)| {
            Probes::new(count).close_at(close_at).concurrent(concurrent).give_up_after(secs(2))
        },
    );
    let ramp = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Ramp { from: 0.25, over: secs(2) })),
        1 => Just(Some(Ramp { from: 1.0, over: ms(500) })),
    ];
    let drops = prop_oneof![
        Just(DropRule::Neutral),
        Just(DropRule::Failure),
        Just(DropRule::TimeoutAfter(ms(200))),
    ];
    let figures = (0..4u32, window(), rate(), slow, 1..5u32);
    (figures, open_for, probes, ramp, drops).prop_map(
        |((consecutive, window, rate, slow, min_calls), open_for, probes, ramp, on_drop)| {
            let mut config = BreakerConfig::default();
            config.consecutive_failures = consecutive;
            config.window = window;
            // Without a window there is nothing to take a rate over.
            let has_window = window != Window::None;
            config.failure_rate = rate.filter(|_| has_window);
            config.slow_calls = slow.filter(|_| has_window);
            config.min_calls = min_calls;
            config.open_for = open_for;
            config.probes = probes;
            config.ramp = ramp;
            config.on_drop = on_drop;
            config
        },
    )
}

/// A call that the model admitted.
#[derive(Clone, Copy)]
struct Ticket {
    generation: u64,
    state: State,
    /// `None` when no rule looked at durations as it began.
    started: Option<Tick>,
}

/// A counted call.
#[derive(Clone, Copy)]
struct Call {
    /// The number of its slice since the clock's origin, under the present window.
    slice: u64,
    failed: bool,
    slow: bool,
}

/// The calls of a window in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Figures {
    calls: usize,
    failed: usize,
    slow: usize,
}

struct Model {
    config: BreakerConfig,
    now: Tick,
    /// The newest slice: slices never slide back.
    newest: u64,
    state: State,
    generation: u64,
    calls: Vec<Call>,
    /// What the last period in which calls were counted ended with.
    ended_with: Figures,
    streak: u32,
    open_until: Tick,
    retry_after_until: Tick,
    opens: u32,
    under_way: u32,
    succeeded: u32,
    failed: u32,
    progress: Tick,
    changed_at: Tick,
    advice: Option<(f64, Tick)>,
    would_reject: u64,
    rejected: u64,
    /// While recovering: what the ramp promised so far, and what was admitted.
    promised: f64,
    admitted: f64,
}

/// What the model says about an admission.
enum Admission {
    Yes(Ticket),
    No,
    /// The share decides; either is right, as long as the share is kept.
    Either(Ticket),
}

fn slice_nanos(window: Window) -> u64 {
    match window {
        Window::Time { length, slices } => length.as_nanos() as u64 / u64::from(slices),
        _ => u64::MAX,
    }
}

impl Model {
    fn new(config: BreakerConfig, now: Tick) -> Self {
        let newest = now.as_nanos() / slice_nanos(config.window);
        Model {
            config,
            now,
            newest,
            state: State::Closed,
            generation: 0,
            calls: Vec::new(),
            ended_with: Figures::default(),
            streak: 0,
            open_until: Tick::ZERO,
            retry_after_until: Tick::ZERO,
            opens: 0,
            under_way: 0,
            succeeded: 0,
            failed: 0,
            progress: now,
            changed_at: now,
            advice: None,
            would_reject: 0,
            rejected: 0,
            promised: 0.0,
            admitted: 0.0,
        }
    }

    fn slice(&self) -> u64 {
        self.now.as_nanos() / slice_nanos(self.config.window)
    }

    /// Moves on to the slice of now; never back.
    fn slide(&mut self) {
        self.newest = self.newest.max(self.slice());
    }

    fn figures(&self) -> Figures {
        let within: Vec<&Call> = match self.config.window {
            Window::Count { calls } => self.calls.iter().rev().take(calls as usize).collect(),
            Window::Time { slices, .. } => {
                let young = |call: &&Call| call.slice + u64::from(slices) > self.newest;
                self.calls.iter().filter(young).collect()
            }
            _ => Vec::new(),
        };
        Figures {
            calls: within.len(),
            failed: within.iter().filter(|call| call.failed).count(),
            slow: within.iter().filter(|call| call.slow).count(),
        }
    }

    fn counts_calls(&self) -> bool {
        !matches!(self.state, State::Open | State::HalfOpen | State::Isolated)
    }

    fn clear(&mut self) {
        self.calls.clear();
        self.newest = self.slice();
        self.streak = 0;
    }

    fn shift(&mut self, to: State) {
        if self.counts_calls() {
            self.ended_with = self.figures();
        }
        if to == State::Open {
            let open_for = &self.config.open_for;
            let grown = open_for.first.mul_f64(open_for.factor.powi(self.opens as i32));
            let period = grown.min(open_for.max);
            self.open_until = self.now.after(period).max(self.retry_after_until);
            self.opens += 1;
        }
        if to == State::Closed {
            self.opens = 0;
        }
        if to == State::ObserveOnly {
            self.open_until = Tick::ZERO;
        }
        self.retry_after_until = Tick::ZERO;
        self.state = to;
        self.generation += 1;
        self.clear();
        (self.under_way, self.succeeded, self.failed) = (0, 0, 0);
        (self.promised, self.admitted) = (0.0, 0.0);
        (self.progress, self.changed_at) = (self.now, self.now);
    }

    fn ticket(&self) -> Ticket {
        let looks_at_time = self.config.slow_calls.is_some()
            || matches!(self.config.on_drop, DropRule::TimeoutAfter(_));
        let started = looks_at_time.then_some(self.now);
        Ticket { generation: self.generation, state: self.state, started }
    }

    fn acquire(&mut self) -> Admission {
        if self.state == State::Open && self.now >= self.open_until {
            self.shift(State::HalfOpen);
        }
        if self.state == State::Recovering {
            let elapsed = self.now.since(self.changed_at);
            match self.config.ramp.filter(|ramp| elapsed < ramp.over) {
                None => self.shift(State::Closed),
                Some(ramp) => {
                    let progress = elapsed.as_secs_f64() / ramp.over.as_secs_f64();
                    self.promised += ramp.from + (1.0 - ramp.from) * progress;
                    return Admission::Either(self.ticket());
                }
            }
        }
        match self.state {
            State::Closed | State::Disabled => Admission::Yes(self.ticket()),
            State::ObserveOnly => {
                self.would_reject += u64::from(self.now < self.open_until);
                Admission::Yes(self.ticket())
            }
            State::HalfOpen => self.probe(),
            _ => Admission::No,
        }
    }

    fn probe(&mut self) -> Admission {
        let probes = self.config.probes;
        let at_a_time = if probes.concurrent == 0 { probes.count } else { probes.concurrent };
        let taken = self.under_way + self.succeeded + self.failed;
        if self.under_way < at_a_time && taken < probes.count {
            self.under_way += 1;
            self.progress = self.now;
            return Admission::Yes(self.ticket());
        }
        if self.now.since(self.progress) >= probes.give_up_after {
            self.shift(State::Open);
        }
        Admission::No
    }

    /// `failed` is `None` for a call that says nothing.
    fn settle(&mut self, ticket: Ticket, failed: Option<bool>, asked: Option<Duration>) {
        if ticket.generation != self.generation || ticket.state == State::Disabled {
            return;
        }
        let heeded = self.config.open_for.retry_after_max;
        if let (Some(wait), Some(true)) = (asked, failed)
            && !heeded.is_zero()
        {
            let until = self.now.after(wait.min(heeded));
            self.retry_after_until = self.retry_after_until.max(until);
        }
        let took = ticket.started.map(|started| self.now.since(started));
        let slow = failed.is_some()
            && self.config.slow_calls.is_some_and(|slow| took >= Some(slow.longer_than));
        match (ticket.state, failed) {
            (State::HalfOpen, failed) => self.settle_probe(failed, slow),
            (_, None) => {}
            (_, Some(failed)) => self.count(failed, slow),
        }
    }

    fn settle_probe(&mut self, failed: Option<bool>, slow: bool) {
        self.under_way -= 1;
        self.progress = self.now;
        match failed {
            None => return,
            Some(false) if !slow => self.succeeded += 1,
            Some(_) => self.failed += 1,
        }
        let probes = self.config.probes;
        let needed = (f64::from(probes.count) * probes.close_at).ceil() as u32;
        if self.failed > probes.count - needed {
            self.shift(State::Open);
        } else if self.succeeded >= needed {
            let ramp = self.config.ramp.is_some();
            self.shift(if ramp { State::Recovering } else { State::Closed });
        }
    }

    fn count(&mut self, failed: bool, slow: bool) {
        self.slide();
        // A call that ends after the clock stepped back counts in the newest slice.
        self.calls.push(Call { slice: self.newest, failed, slow });
        self.streak = if failed { self.streak + 1 } else { 0 };
        if !self.must_open(failed) {
            return;
        }
        if self.state == State::ObserveOnly {
            self.open_until = self.now.after(self.config.open_for.first);
            self.clear();
        } else {
            self.shift(State::Open);
        }
    }

    fn must_open(&mut self, failed: bool) -> bool {
        let Figures { calls, failed: failures, slow } = self.figures();
        let config = &self.config;
        let advised = self.advice.filter(|(_, until)| self.now < *until);
        let tighten = advised.map_or(1.0, |(share, _)| 1.0 - share / 2.0);
        let limit = (f64::from(config.consecutive_failures) * tighten).ceil() as u32;
        let by_row = failed && limit > 0 && self.streak >= limit;
        let reaches = |part: usize, rate: Option<f64>| {
            part > 0 && rate.is_some_and(|rate| part as f64 >= rate * tighten * calls as f64 - 1e-9)
        };
        let judged = calls >= config.min_calls as usize;
        let by_rate = reaches(failures, config.failure_rate);
        by_row || judged && (by_rate || reaches(slow, config.slow_calls.map(|slow| slow.rate)))
    }

    fn drop_counts(&self, ticket: Ticket) -> Option<bool> {
        let counts = match self.config.on_drop {
            DropRule::Failure => true,
            DropRule::TimeoutAfter(limit) => {
                ticket.started.is_some_and(|started| self.now.since(started) >= limit)
            }
            _ => false,
        };
        counts.then_some(true)
    }

    /// Time windows keep their slices by age, each from where it begins; count windows their
    /// latest calls; nothing goes from one kind to the other.
    fn reconfigure(&mut self, config: BreakerConfig) {
        self.slide();
        let (old, new) = (self.config.window, config.window);
        self.config = config;
        if old == new {
            return;
        }
        match (old, new) {
            (Window::Count { calls }, Window::Count { .. }) => {
                let beyond = self.calls.len().saturating_sub(calls as usize);
                self.calls.drain(..beyond);
            }
            (Window::Time { slices, .. }, Window::Time { .. }) => {
                let newest = self.newest;
                self.calls.retain(|call| call.slice + u64::from(slices) > newest);
                self.newest = self.slice();
                for call in &mut self.calls {
                    let begins = call.slice * slice_nanos(old);
                    // Never into the slice under way, which is counted elsewhere.
                    call.slice = (begins / slice_nanos(new)).min(self.newest - 1);
                }
            }
            _ => {
                self.calls.clear();
                self.newest = self.slice();
            }
        }
    }
}

/// Both, side by side.
struct Pair<'a> {
    clock: ManualClock,
    breaker: &'a CircuitBreaker,
    model: Model,
    permits: Vec<(Permit<'a>, Ticket)>,
}

impl<'a> Pair<'a> {
    fn acquire(&mut self) {
        let said = self.model.acquire();
        match (self.breaker.try_acquire(), said) {
            (Ok(permit), Admission::Yes(ticket)) => self.permits.push((permit, ticket)),
            (Err(rejection), Admission::No) => {
                self.model.rejected += 1;
                if matches!(rejection.reason(), Reason::Open { .. }) {
                    let left = self.model.open_until.since(self.model.now);
                    assert_eq!(rejection.retry_after(), Some(left));
                }
            }
            (answer, Admission::Either(ticket)) => {
                self.model.admitted += f64::from(u8::from(answer.is_ok()));
                self.model.rejected += u64::from(answer.is_err());
                let (promised, admitted) = (self.model.promised, self.model.admitted);
                assert!((promised - admitted).abs() <= 1.0, "{admitted} of {promised}");
                self.permits.extend(answer.ok().map(|permit| (permit, ticket)));
            }
            (real, _) => panic!("the breaker says {real:?}, the model the opposite"),
        }
    }

    fn settle(
        &mut self,
        at: usize,
        failed: impl Fn(&Model, Ticket) -> Option<bool>,
        asked: Option<Duration>,
        end: impl Fn(Permit<'a>),
    ) {
        if self.permits.is_empty() {
            return;
        }
        let (permit, ticket) = self.permits.swap_remove(at % self.permits.len());
        let failed = failed(&self.model, ticket);
        self.model.settle(ticket, failed, asked);
        end(permit);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Acquire => self.acquire(),
            Step::Succeed(at) => self.settle(at, |_, _| Some(false), None, Permit::success),
            Step::SucceedElsewhere(at) => {
                // Another thread counts on a cache line of its own.
                let end = |permit: Permit<'a>| {
                    std::thread::scope(|scope| scope.spawn(|| permit.success()).join()).unwrap();
                };
                self.settle(at, |_, _| Some(false), None, end);
            }
            Step::Fail(at) => self.settle(at, |_, _| Some(true), None, Permit::failure),
            Step::FailAsking(at, wait) => {
                let end = |permit: Permit<'a>| permit.failure_with_retry_after(ms(wait));
                self.settle(at, |_, _| Some(true), Some(ms(wait)), end);
            }
            Step::Ignore(at) => self.settle(at, |_, _| None, None, Permit::ignore),
            Step::Drop(at) => self.settle(at, Model::drop_counts, None, drop),
            Step::Advance(wait) => self.clock.advance(ms(wait)),
            Step::ClockBack(wait) => {
                // Advice that is over may stay over or come back to life, so it is taken back.
                self.breaker.advise(0.0, ms(1));
                self.model.advice = None;
                let nanos = self.clock.now().as_nanos() - wait * 1_000_000;
                self.clock.set(Tick::from_nanos(nanos));
            }
            Step::ForceOpen => self.command(State::Open, CircuitBreaker::force_open),
            Step::ForceOpenFor(period) => {
                self.command(State::Open, |breaker| breaker.force_open_for(ms(period)));
                self.model.open_until = self.model.now.after(ms(period));
            }
            Step::Isolate => self.command(State::Isolated, CircuitBreaker::isolate),
            Step::Disable => self.command(State::Disabled, CircuitBreaker::disable),
            Step::ObserveOnly => self.command(State::ObserveOnly, CircuitBreaker::observe_only),
            Step::Reset => self.command(State::Closed, CircuitBreaker::reset),
            Step::Advise(share, ttl) => {
                self.breaker.advise(share, ms(ttl));
                self.model.advice = Some((share, self.model.now.after(ms(ttl))));
            }
            Step::Reconfigure(ref config) => {
                let taken = self.breaker.reconfigure(BreakerConfig::clone(config));
                assert_eq!(taken.is_ok(), config.validate().is_ok());
                if taken.is_ok() {
                    self.model.reconfigure(BreakerConfig::clone(config));
                }
            }
            Step::Look => self.compare(),
        }
        self.model.now = self.clock.now();
    }

    fn command(&mut self, to: State, run: impl Fn(&CircuitBreaker)) {
        self.model.slide();
        self.model.shift(to);
        run(self.breaker);
    }

    fn compare(&mut self) {
        let seen = self.breaker.snapshot();
        // A snapshot slides the window as a call does.
        self.model.slide();
        let model = &self.model;
        assert_eq!(seen.state, model.state);
        assert_eq!(seen.generation, model.generation);
        assert_eq!(seen.opens_in_a_row, model.opens);
        assert_eq!(seen.consecutive_failures, u64::from(model.streak));
        assert_eq!((seen.would_reject, seen.rejected), (model.would_reject, model.rejected));
        let next_probe = (model.state == State::Open).then(|| model.open_until.since(model.now));
        assert_eq!(seen.next_probe, next_probe);
        let figures = if model.counts_calls() { model.figures() } else { model.ended_with };
        let share = |part: usize| part as f64 / figures.calls.max(1) as f64;
        assert_eq!(seen.calls, figures.calls as u64);
        assert!((seen.error_rate - share(figures.failed)).abs() < 1e-9);
        assert!((seen.slow_rate - share(figures.slow)).abs() < 1e-9);
    }
}

fn check(config: &BreakerConfig, steps: &[Step]) {
    let clock = ManualClock::new();
    let builder = CircuitBreaker::builder("model").config(config.clone()).clock(clock.clock());
    let breaker = builder.seed(1).build().unwrap();
    let model = Model::new(config.clone(), clock.now());
    let mut pair = Pair { clock, breaker: &breaker, model, permits: Vec::new() };
    for step in steps {
        pair.step(step);
        assert_eq!(pair.breaker.state(), pair.model.state, "after {step:?}");
    }
    pair.compare();
    pair.permits.drain(..).for_each(|(permit, _)| permit.ignore());
}

proptest! {
    #![proptest_config(runs())]

    #[test]
    fn b5_the_breaker_does_what_the_model_does(
        config in config(),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        check(&config, &steps);
    }
}
