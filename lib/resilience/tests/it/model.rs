//! The breaker against a slow, obvious model, over random schedules of calls, drops, clock steps,
//! commands and reconfigurations.
//!
//! `RESILIENCE_CASES` sets the number of schedules (2000 without it); a failure prints its seed and
//! the smallest schedule, and is kept for the next run.

use crate::{ms, secs};
use mainstay_resilience::{
    BreakerConfig, CircuitBreaker, DropRule, ManualClock, OpenFor, Permit, Probes, Reason,
    SlowCalls, State, Tick, Window,
};
use proptest::prelude::*;
use std::time::Duration;

/// One step of a schedule. Numbers choose among the permits that are out.
#[derive(Clone, Debug)]
enum Step {
    Acquire,
    Succeed(usize),
    Fail(usize),
    Ignore(usize),
    Drop(usize),
    FailAsking(usize, u64),
    Advance(u64),
    ClockBack(u64),
    ForceOpen,
    Isolate,
    Disable,
    Reset,
    Reconfigure { consecutive: u32, rate: Option<f64>, min_calls: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Acquire),
        4 => (0..8usize).prop_map(Step::Succeed),
        6 => (0..8usize).prop_map(Step::Fail),
        1 => (0..8usize).prop_map(Step::Ignore),
        2 => (0..8usize).prop_map(Step::Drop),
        1 => (0..8usize, 0..5_000u64).prop_map(|(at, wait)| Step::FailAsking(at, wait)),
        4 => (0..700u64).prop_map(Step::Advance),
        1 => (700..5_000u64).prop_map(Step::Advance),
        1 => (1..50u64).prop_map(Step::ClockBack),
        1 => prop_oneof![
            Just(Step::ForceOpen),
            Just(Step::Isolate),
            Just(Step::Disable),
            Just(Step::Reset),
        ],
        1 => (0..4u32, rate(), 1..5u32)
            .prop_map(|(consecutive, rate, min_calls)| Step::Reconfigure { consecutive, rate, min_calls }),
    ]
}

fn rate() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![Just(None), Just(Some(0.5)), Just(Some(1.0)), Just(Some(0.3))]
}

fn config() -> impl Strategy<Value = BreakerConfig> {
    let window = prop_oneof![
        Just(Window::Count { calls: 5 }),
        Just(Window::Count { calls: 8 }),
        Just(Window::Time { length: secs(2), slices: 4 }),
        Just(Window::Time { length: secs(1), slices: 10 }),
    ];
    let slow = prop_oneof![
        Just(None),
        Just(Some(SlowCalls { rate: 0.5, longer_than: ms(100) })),
        Just(Some(SlowCalls { rate: 1.0, longer_than: ms(300) })),
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
    let drops = prop_oneof![
        Just(DropRule::Neutral),
        Just(DropRule::Failure),
        Just(DropRule::TimeoutAfter(ms(200))),
    ];
    (0..4u32, window, rate(), slow, 1..5u32, open_for, probes, drops).prop_map(
        |(consecutive, window, rate, slow, min_calls, open_for, probes, on_drop)| {
            let mut config = BreakerConfig::default();
            config.consecutive_failures = consecutive;
            config.window = window;
            config.failure_rate = rate;
            config.slow_calls = slow;
            config.min_calls = min_calls;
            config.open_for = open_for;
            config.probes = probes;
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
    started: Tick,
}

/// A counted call.
#[derive(Clone, Copy)]
struct Call {
    at: Tick,
    failed: bool,
    slow: bool,
}

/// The breaker as one would explain it: every call of the generation in a list.
struct Model {
    config: BreakerConfig,
    now: Tick,
    /// The latest time at which a call was counted: slices never slide back.
    newest: Tick,
    state: State,
    generation: u64,
    calls: Vec<Call>,
    streak: u32,
    open_until: Tick,
    retry_after_until: Tick,
    opens: u32,
    under_way: u32,
    succeeded: u32,
    failed: u32,
    progress: Tick,
}

impl Model {
    fn slice(&self, at: Tick) -> u64 {
        match self.config.window {
            Window::Time { length, slices } => {
                at.as_nanos() / (length.as_nanos() as u64 / u64::from(slices))
            }
            _ => 0,
        }
    }

    fn window(&self) -> Vec<Call> {
        match self.config.window {
            Window::Count { calls } => {
                let skip = self.calls.len().saturating_sub(calls as usize);
                self.calls[skip..].to_vec()
            }
            Window::Time { slices, .. } => {
                let newest = self.slice(self.newest);
                let keep = |call: &&Call| self.slice(call.at) + u64::from(slices) > newest;
                self.calls.iter().filter(keep).copied().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Moves on to the slice of now; never back.
    fn slide(&mut self) {
        if self.slice(self.now) > self.slice(self.newest) {
            self.newest = self.now;
        }
    }

    fn shift(&mut self, to: State) {
        if to == State::Open {
            let period = match self.config.open_for.factor {
                1.0 => self.config.open_for.first,
                factor => self
                    .config
                    .open_for
                    .first
                    .mul_f64(factor.powi(self.opens as i32))
                    .min(self.config.open_for.max),
            };
            self.open_until = self.now.after(period).max(self.retry_after_until);
            self.opens += 1;
        }
        if to == State::Closed {
            self.opens = 0;
        }
        self.retry_after_until = Tick::ZERO;
        self.state = to;
        self.generation += 1;
        self.calls.clear();
        self.newest = self.now;
        self.streak = 0;
        (self.under_way, self.succeeded, self.failed) = (0, 0, 0);
        self.progress = self.now;
    }

    fn acquire(&mut self) -> Option<Ticket> {
        if self.state == State::Open && self.now >= self.open_until {
            self.shift(State::HalfOpen);
        }
        let admitted = match self.state {
            State::Closed | State::Disabled => true,
            State::HalfOpen => {
                let probes = self.config.probes;
                let at_a_time =
                    if probes.concurrent == 0 { probes.count } else { probes.concurrent };
                let taken = self.under_way + self.succeeded + self.failed;
                let free = self.under_way < at_a_time && taken < probes.count;
                if free {
                    self.under_way += 1;
                    self.progress = self.now;
                } else if self.now.since(self.progress) >= probes.give_up_after {
                    self.shift(State::Open);
                }
                free
            }
            _ => false,
        };
        admitted.then_some(Ticket {
            generation: self.generation,
            state: self.state,
            started: self.now,
        })
    }

    /// `failed` is `None` for a call that says nothing.
    fn settle(&mut self, ticket: Ticket, failed: Option<bool>, asked: Option<Duration>) {
        if ticket.generation != self.generation || ticket.state == State::Disabled {
            return;
        }
        if let (Some(wait), Some(true)) = (asked, failed) {
            let wait = wait.min(self.config.open_for.retry_after_max);
            self.retry_after_until = self.retry_after_until.max(self.now.after(wait));
            if self.config.open_for.retry_after_max.is_zero() {
                self.retry_after_until = Tick::ZERO;
            }
        }
        let slow = failed.is_some()
            && self
                .config
                .slow_calls
                .is_some_and(|slow| self.now.since(ticket.started) >= slow.longer_than);
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
            self.shift(State::Closed);
        }
    }

    fn count(&mut self, failed: bool, slow: bool) {
        self.slide();
        // A call that ends after the clock stepped back counts in the newest slice.
        let at = self.now.max(self.newest);
        self.calls.push(Call { at, failed, slow });
        self.streak = if failed { self.streak + 1 } else { 0 };
        let window = self.window();
        let (total, failures) = (window.len(), window.iter().filter(|call| call.failed).count());
        let slow_calls = window.iter().filter(|call| call.slow).count();
        let limit = self.config.consecutive_failures;
        let by_row = failed && limit > 0 && self.streak >= limit;
        let reaches = |part: usize, rate: Option<f64>| {
            part > 0 && rate.is_some_and(|rate| part as f64 >= rate * total as f64 - 1e-9)
        };
        let judged = total >= self.config.min_calls as usize;
        let by_rate = reaches(failures, self.config.failure_rate);
        let by_slow = reaches(slow_calls, self.config.slow_calls.map(|slow| slow.rate));
        if by_row || judged && (by_rate || by_slow) {
            self.shift(State::Open);
        }
    }

    fn drop_counts(&self, ticket: Ticket) -> Option<bool> {
        match self.config.on_drop {
            DropRule::Failure => Some(true),
            DropRule::TimeoutAfter(limit) => {
                (self.now.since(ticket.started) >= limit).then_some(true)
            }
            _ => None,
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
    fn take(&mut self, at: usize) -> Option<(Permit<'a>, Ticket)> {
        let count = self.permits.len();
        (count > 0).then(|| self.permits.swap_remove(at % count))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Acquire => {
                let admitted = self.model.acquire();
                match (self.breaker.try_acquire(), admitted) {
                    (Ok(permit), Some(ticket)) => self.permits.push((permit, ticket)),
                    (Err(rejection), None) => self.check_rejection(&rejection),
                    (real, model) => panic!("breaker {real:?}, model admits {}", model.is_some()),
                }
            }
            Step::Succeed(at) => self.take(at).into_iter().for_each(|(permit, ticket)| {
                self.model.settle(ticket, Some(false), None);
                permit.success();
            }),
            Step::Fail(at) => self.take(at).into_iter().for_each(|(permit, ticket)| {
                self.model.settle(ticket, Some(true), None);
                permit.failure();
            }),
            Step::FailAsking(at, wait) => self.take(at).into_iter().for_each(|(permit, ticket)| {
                self.model.settle(ticket, Some(true), Some(ms(wait)));
                permit.failure_with_retry_after(ms(wait));
            }),
            Step::Ignore(at) => self.take(at).into_iter().for_each(|(permit, ticket)| {
                self.model.settle(ticket, None, None);
                permit.ignore();
            }),
            Step::Drop(at) => self.take(at).into_iter().for_each(|(permit, ticket)| {
                let counts = self.model.drop_counts(ticket);
                self.model.settle(ticket, counts, None);
                drop(permit);
            }),
            Step::Advance(wait) => self.clock.advance(ms(wait)),
            Step::ClockBack(wait) => {
                let nanos = self.clock.now().as_nanos() - wait * 1_000_000;
                self.clock.set(Tick::from_nanos(nanos));
            }
            Step::ForceOpen => self.command(State::Open, CircuitBreaker::force_open),
            Step::Isolate => self.command(State::Isolated, CircuitBreaker::isolate),
            Step::Disable => self.command(State::Disabled, CircuitBreaker::disable),
            Step::Reset => self.command(State::Closed, CircuitBreaker::reset),
            Step::Reconfigure { consecutive, rate, min_calls } => {
                let mut config = self.breaker.config();
                config.consecutive_failures = consecutive;
                config.failure_rate = rate;
                config.min_calls = min_calls;
                self.breaker.reconfigure(config.clone()).unwrap();
                self.model.slide();
                self.model.config = config;
            }
        }
        self.model.now = self.clock.now();
    }

    fn command(&mut self, to: State, run: impl Fn(&CircuitBreaker)) {
        self.model.shift(to);
        run(self.breaker);
    }

    fn check_rejection(&self, rejection: &mainstay_resilience::Rejection) {
        if matches!(rejection.reason(), Reason::Open { .. }) {
            let left = self.model.open_until.since(self.model.now);
            assert_eq!(rejection.retry_after(), Some(left));
        }
    }

    fn compare(&mut self) {
        assert_eq!(self.breaker.state(), self.model.state);
        let seen = self.breaker.snapshot();
        assert_eq!(seen.generation, self.model.generation);
        assert_eq!(seen.opens_in_a_row, self.model.opens);
        assert_eq!(seen.consecutive_failures, u64::from(self.model.streak));
        if self.model.state == State::Closed {
            // A snapshot slides the window as a call does.
            self.model.slide();
            let window = self.model.window();
            assert_eq!(seen.calls, window.len() as u64);
            let failures = window.iter().filter(|call| call.failed).count() as f64;
            let slow = window.iter().filter(|call| call.slow).count() as f64;
            assert!((seen.error_rate * seen.calls as f64 - failures).abs() < 1e-6);
            assert!((seen.slow_rate * seen.calls as f64 - slow).abs() < 1e-6);
        }
    }
}

fn check(config: &BreakerConfig, steps: &[Step], look_every: usize) {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("model")
        .config(config.clone())
        .clock(clock.clock())
        .seed(1)
        .build()
        .unwrap();
    let now = clock.now();
    let model = Model {
        config: config.clone(),
        now,
        newest: now,
        state: State::Closed,
        generation: 0,
        calls: Vec::new(),
        streak: 0,
        open_until: Tick::ZERO,
        retry_after_until: Tick::ZERO,
        opens: 0,
        under_way: 0,
        succeeded: 0,
        failed: 0,
        progress: now,
    };
    let mut pair = Pair { clock, breaker: &breaker, model, permits: Vec::new() };
    for (index, step) in steps.iter().enumerate() {
        pair.step(step);
        if index % look_every == 0 {
            pair.compare();
        } else {
            assert_eq!(pair.breaker.state(), pair.model.state, "after {step:?}");
        }
    }
    pair.compare();
    pair.permits.drain(..).for_each(|(permit, _)| permit.ignore());
}

fn cases() -> u32 {
    std::env::var("RESILIENCE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn b5_the_breaker_does_what_the_model_does(
        config in config(),
        steps in proptest::collection::vec(step(), 1..120),
        look_every in 1..20usize,
    ) {
        check(&config, &steps, look_every);
    }
}
