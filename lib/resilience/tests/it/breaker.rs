//! The circuit breaker through its public surface.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    Adaptive, BreakerConfig, Cause, CircuitBreaker, DropRule, Error, ErrorKind, Event, ManualClock,
    Observer, OpenFor, Probes, Reason, State, Verdict, Window,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Lets `calls` calls through, each with this outcome; panics when one is refused.
fn pass(breaker: &CircuitBreaker, calls: u32, succeed: bool) {
    for _ in 0..calls {
        let permit = breaker.try_acquire().expect("the breaker admits");
        if succeed { permit.success() } else { permit.failure() }
    }
}

fn by_rate(clock: &ManualClock) -> CircuitBreaker {
    CircuitBreaker::builder("dep")
        .consecutive_failures(0)
        .window(Window::time(secs(10)))
        .failure_rate(0.5)
        .min_calls(10)
        .open_for(OpenFor::fixed(secs(5)))
        .half_open(Probes::new(4).close_at(0.75).give_up_after(secs(2)))
        .clock(clock.clock())
        .build()
        .unwrap()
}

#[test]
fn b1_five_consecutive_failures_open_it_and_one_success_between_does_not() {
    let breaker = CircuitBreaker::builder("dep").build().unwrap();
    pass(&breaker, 4, false);
    pass(&breaker, 1, true);
    pass(&breaker, 4, false);
    assert_eq!(breaker.state(), State::Closed);
    pass(&breaker, 1, false);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn b1_half_of_the_calls_failing_opens_it_once_enough_calls_were_seen() {
    let breaker = by_rate(&ManualClock::new());
    pass(&breaker, 5, true);
    pass(&breaker, 4, false);
    assert_eq!(breaker.state(), State::Closed, "nine calls are not enough");
    pass(&breaker, 1, false);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.snapshot().error_rate, 0.5);
}

#[test]
fn b1_a_success_that_completes_the_minimum_opens_it_too() {
    let breaker = by_rate(&ManualClock::new());
    pass(&breaker, 9, false);
    assert_eq!(breaker.state(), State::Closed);
    pass(&breaker, 1, true);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn b1_failures_leave_the_window_with_time() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock);
    pass(&breaker, 9, false);
    clock.advance(secs(11));
    pass(&breaker, 9, true);
    pass(&breaker, 1, false);
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.snapshot().calls, 10);
}

#[test]
fn b1_a_count_window_slides_over_the_last_calls() {
    let breaker = CircuitBreaker::builder("dep")
        .consecutive_failures(0)
        .window(Window::count(100))
        .min_calls(100)
        .build()
        .unwrap();
    pass(&breaker, 10_000, true);
    let mut failures = 0;
    while breaker.state() == State::Closed {
        pass(&breaker, 1, false);
        failures += 1;
    }
    assert_eq!(failures, 50);
}

#[test]
fn b2_the_presets_open_and_close_as_specified() {
    let clock = ManualClock::new();
    let preset = |config: BreakerConfig| {
        CircuitBreaker::builder("dep").config(config).clock(clock.clock()).build().unwrap()
    };
    for (config, open_for) in
        [(BreakerConfig::search_method(), 30), (BreakerConfig::external_service(), 60)]
    {
        let breaker = preset(config);
        pass(&breaker, 5, false);
        assert_eq!(breaker.snapshot().next_probe, Some(secs(open_for)));
        clock.advance(secs(open_for));
        pass(&breaker, 1, true);
        assert_eq!(breaker.state(), State::Closed);
    }
    let storage = preset(BreakerConfig::object_storage());
    pass(&storage, 5, true);
    pass(&storage, 5, false);
    assert_eq!(storage.snapshot().next_probe, Some(secs(300)));
    clock.advance(secs(300));
    pass(&storage, 9, true);
    assert_eq!(storage.state(), State::HalfOpen);
    pass(&storage, 1, false);
    assert_eq!(storage.state(), State::Open, "one failure re-opens");
    clock.advance(secs(300));
    pass(&storage, 10, true);
    assert_eq!(storage.state(), State::Closed);
}

#[test]
fn b3_open_refuses_without_calling_and_says_when_to_come_back() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock);
    breaker.force_open();
    clock.advance(secs(2));
    let refused =
        breaker.run(|| -> Result<(), ErrorKind> { panic!("the operation ran") }).unwrap_err();
    let rejection = refused.rejection().unwrap();
    let opened = Reason::Open { cause: Cause::ByHand, failed_percent: 0 };
    assert_eq!(rejection.reason(), opened);
    assert_eq!(rejection.retry_after(), Some(secs(3)));
    assert_eq!(
        rejection.explain(),
        "circuit_breaker dep refused the call: it was opened by hand; the next call may be admitted in 3s"
    );
    assert_eq!(breaker.snapshot().rejected, 1);
}

#[test]
fn b3_half_open_admits_a_bounded_number_of_probes() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock);
    breaker.force_open();
    clock.advance(secs(5));
    let probes: Vec<_> = (0..64).filter_map(|_| breaker.try_acquire().ok()).collect();
    assert_eq!(probes.len(), 4);
    let refused = breaker.try_acquire().unwrap_err();
    assert_eq!(refused.reason(), Reason::ProbesTaken { permitted: 4 });
}

#[test]
fn b3_probes_are_judged_by_their_ratio() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock);
    breaker.force_open();
    clock.advance(secs(5));
    pass(&breaker, 1, false);
    pass(&breaker, 3, true);
    assert_eq!(breaker.state(), State::Closed, "three of four are 75 %");
    breaker.force_open();
    clock.advance(secs(5));
    pass(&breaker, 2, false);
    assert_eq!(breaker.state(), State::Open, "two of four can no longer be 75 %");
}

#[test]
fn b3_manual_control_holds_until_reset() {
    let breaker = CircuitBreaker::search_method("dep");
    breaker.isolate();
    assert_eq!(breaker.try_acquire().unwrap_err().reason(), Reason::Isolated);
    breaker.disable();
    pass(&breaker, 100, false);
    assert_eq!(breaker.state(), State::Disabled);
    breaker.reset();
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.snapshot().consecutive_failures, 0);
    breaker.force_open_for(secs(7));
    assert!(breaker.snapshot().next_probe.unwrap() > secs(6));
}

#[test]
fn a_hung_probe_does_not_wedge_the_breaker() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock);
    breaker.force_open();
    clock.advance(secs(5));
    for _ in 0..4 {
        std::mem::forget(breaker.try_acquire().unwrap());
    }
    clock.advance(secs(2));
    let gave_up = breaker.try_acquire().unwrap_err();
    assert!(
        matches!(gave_up.reason(), Reason::Open { cause: Cause::ProbesGaveUp, .. }),
        "{gave_up}"
    );
    assert_eq!(breaker.snapshot().opened_by, Some(Cause::ProbesGaveUp));
    clock.advance(secs(5));
    pass(&breaker, 3, true);
    assert_eq!((breaker.state(), breaker.snapshot().opened_by), (State::Closed, None));
}

#[test]
fn slow_probes_with_little_traffic_are_not_given_up() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock);
    breaker.force_open();
    clock.advance(secs(5));
    for _ in 0..3 {
        pass(&breaker, 1, true);
        clock.advance(secs(60));
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn b5_the_deciding_failure_counts_the_successes_of_every_thread() {
    let breaker = by_rate(&ManualClock::new());
    for _ in 0..20 {
        std::thread::scope(|scope| scope.spawn(|| pass(&breaker, 10, true)).join()).unwrap();
    }
    assert_eq!(breaker.snapshot().calls, 200);
    pass(&breaker, 199, false);
    assert_eq!(breaker.state(), State::Closed, "199 of 399 are less than half");
    pass(&breaker, 1, false);
    assert_eq!(breaker.state(), State::Open);
    breaker.reset();
    assert_eq!(breaker.snapshot().calls, 0, "a transition empties every thread's count");
}

#[test]
fn b5_a_late_result_of_an_older_generation_never_counts() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock);
    let late: Vec<_> = (0..50).map(|_| breaker.try_acquire().unwrap()).collect();
    breaker.force_open();
    clock.advance(secs(5));
    let probe = breaker.try_acquire().unwrap();
    late.into_iter().for_each(|permit| permit.failure());
    assert_eq!(breaker.state(), State::HalfOpen, "late failures are no probes");
    probe.success();
    pass(&breaker, 2, true);
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.snapshot().calls, 0);
}

#[test]
fn a_dropped_permit_counts_by_the_rule() {
    let clock = ManualClock::new();
    let with_rule = |rule| {
        CircuitBreaker::builder("dep")
            .consecutive_failures(3)
            .on_drop(rule)
            .clock(clock.clock())
            .build()
            .unwrap()
    };
    let (neutral, failure) = (with_rule(DropRule::Neutral), with_rule(DropRule::Failure));
    let timeout = with_rule(DropRule::TimeoutAfter(ms(400)));
    for _ in 0..3 {
        drop(neutral.try_acquire());
        drop(failure.try_acquire());
        drop(timeout.try_acquire());
    }
    assert_eq!(neutral.state(), State::Closed);
    assert_eq!(failure.state(), State::Open);
    assert_eq!(timeout.state(), State::Closed, "dropped at once is no timeout");
    for _ in 0..3 {
        let permit = timeout.try_acquire().unwrap();
        clock.advance(ms(400));
        drop(permit);
    }
    assert_eq!(timeout.state(), State::Open);
}

#[test]
fn a_panicking_operation_counts_as_a_failure_and_unwinds_on() {
    let breaker = CircuitBreaker::builder("dep").consecutive_failures(1).build().unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = breaker.run(|| -> Result<(), ErrorKind> { panic!("broken operation") });
    }));
    assert!(unwound.is_err());
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn slow_calls_open_it_even_when_they_succeed() {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep")
        .consecutive_failures(0)
        .slow_calls(0.5, ms(200))
        .min_calls(10)
        .clock(clock.clock())
        .build()
        .unwrap();
    for i in 0..10 {
        assert_eq!(breaker.state(), State::Closed);
        let permit = breaker.try_acquire().unwrap();
        clock.advance(ms(if i % 2 == 0 { 199 } else { 200 }));
        permit.success();
    }
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.snapshot().slow_rate, 0.5);
}

#[test]
fn the_open_period_grows_while_probes_fail_and_starts_over_once_closed() {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep")
        .consecutive_failures(1)
        .open_for(OpenFor::growing(secs(1), secs(3)))
        .clock(clock.clock())
        .build()
        .unwrap();
    for expected in [1, 2, 3, 3] {
        pass(&breaker, 1, false);
        assert_eq!(breaker.snapshot().next_probe, Some(secs(expected)));
        clock.advance(secs(expected));
    }
    pass(&breaker, 1, true);
    pass(&breaker, 1, false);
    assert_eq!(breaker.snapshot().next_probe, Some(secs(1)));
}

#[test]
fn the_open_period_follows_the_errors_retry_after_up_to_its_cap() {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep")
        .consecutive_failures(1)
        .open_for(OpenFor::fixed(secs(1)).or_retry_after(secs(20)))
        .clock(clock.clock())
        .build()
        .unwrap();
    let permit = breaker.try_acquire().unwrap();
    permit.record(Verdict::failure(ErrorKind::RateLimit).with_retry_after(Some(secs(12))));
    assert_eq!(breaker.snapshot().next_probe, Some(secs(12)));
    clock.advance(secs(12));
    breaker.try_acquire().unwrap().failure_with_retry_after(secs(3_600));
    assert_eq!(breaker.snapshot().next_probe, Some(secs(20)));
}

#[test]
fn a_ramp_lets_calls_back_gradually() {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep")
        .ramp(0.1, secs(10))
        .clock(clock.clock())
        .open_for(OpenFor::fixed(secs(1)))
        .build()
        .unwrap();
    breaker.force_open();
    clock.advance(secs(1));
    pass(&breaker, 1, true);
    assert_eq!(breaker.state(), State::Recovering);
    let admitted =
        || (0..100).filter(|_| breaker.try_acquire().map(|p| p.success()).is_ok()).count();
    assert!((9..=11).contains(&admitted()));
    clock.advance(secs(5));
    assert!((54..=56).contains(&admitted()));
    clock.advance(secs(5));
    assert_eq!(admitted(), 100);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_dry_run_admits_everything_and_reports_what_it_would_have_done() {
    let clock = ManualClock::new();
    let would_open = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&would_open);
    let breaker = CircuitBreaker::builder("dep")
        .open_for(OpenFor::fixed(secs(5)))
        .clock(clock.clock())
        .observer(Arc::new(move |event: &Event<'_>| {
            if let Event::BreakerWouldOpen { .. } = event {
                *seen.lock().unwrap() += 1;
            }
        }))
        .build()
        .unwrap();
    breaker.observe_only();
    pass(&breaker, 8, false);
    assert_eq!(*would_open.lock().unwrap(), 1);
    assert_eq!(breaker.snapshot().would_reject, 3);
    assert_eq!(breaker.state(), State::ObserveOnly);
}

#[test]
fn b7_transitions_and_refusals_are_reported_outside_every_lock() {
    struct Nosy {
        breaker: Mutex<Option<CircuitBreaker>>,
        seen: Mutex<Vec<String>>,
    }
    impl Observer for Nosy {
        fn on_event(&self, event: &Event<'_>) {
            let text = match event {
                Event::BreakerChanged { from, to, cause, .. } => format!("{from} {to} {cause}"),
                Event::Rejected(rejection) => rejection.reason().as_str().to_owned(),
                other => format!("{other:?}"),
            };
            self.seen.lock().unwrap().push(text);
            let breaker = self.breaker.lock().unwrap().clone().unwrap();
            let _ = breaker.snapshot();
        }
    }
    let clock = ManualClock::new();
    let nosy = Arc::new(Nosy { breaker: Mutex::default(), seen: Mutex::default() });
    let breaker =
        CircuitBreaker::builder("dep").clock(clock.clock()).observer(nosy.clone()).build().unwrap();
    *nosy.breaker.lock().unwrap() = Some(breaker.clone());
    pass(&breaker, 5, false);
    let _ = breaker.try_acquire();
    clock.advance(secs(30));
    pass(&breaker, 1, true);
    assert_eq!(
        *nosy.seen.lock().unwrap(),
        [
            "closed open consecutive_failures",
            "open",
            "open half_open open_period_over",
            "half_open closed probes_succeeded"
        ]
    );
    *nosy.breaker.lock().unwrap() = None;
}

#[test]
fn reconfiguration_keeps_the_state_and_the_window() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock);
    pass(&breaker, 6, true);
    clock.advance(secs(2));
    pass(&breaker, 3, false);
    let mut config = breaker.config();
    config.failure_rate = Some(0.4);
    config.window = Window::time(secs(60));
    breaker.reconfigure(config).unwrap();
    assert_eq!(breaker.snapshot().calls, 9);
    pass(&breaker, 1, false);
    assert_eq!(breaker.state(), State::Open, "four of ten reach the new threshold");
    let mut broken = breaker.config();
    broken.min_calls = 0;
    assert!(breaker.reconfigure(broken).is_err());
}

#[test]
fn b8_advice_tightens_but_never_opens_and_expires() {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("dep").clock(clock.clock()).build().unwrap();
    breaker.advise(1.0, secs(10));
    assert_eq!(breaker.state(), State::Closed);
    pass(&breaker, 3, false);
    assert_eq!(breaker.state(), State::Open, "three instead of five");
    breaker.reset();
    breaker.advise(1.0, secs(10));
    clock.advance(secs(10));
    pass(&breaker, 4, false);
    assert_eq!(breaker.state(), State::Closed, "the advice has expired");
}

#[test]
fn bad_configurations_are_refused_with_field_value_and_range() {
    let build = |change: fn(&mut BreakerConfig)| {
        let mut config = BreakerConfig::default();
        change(&mut config);
        let built = CircuitBreaker::builder("dep").config(config).build();
        built.expect_err("the configuration is refused").to_string()
    };
    assert_eq!(
        build(|c| c.failure_rate = Some(f64::NAN)),
        "failure_rate: NaN is not allowed, use above 0 and at most 1"
    );
    assert_eq!(
        build(|c| c.window = Window::time(Duration::ZERO)),
        "window.length: 0s is not allowed, use 10ms to 1d"
    );
    assert_eq!(
        build(|c| c.window = Window::count(0)),
        "window.calls: 0 is not allowed, use 1 to 1048576"
    );
    assert_eq!(
        build(|c| c.probes = Probes::new(0)),
        "probes.count: 0 is not allowed, use 1 to 10000"
    );
    assert_eq!(
        build(|c| c.window = Window::count(10)),
        "min_calls: 20 is not allowed, use at most window.calls, which is 10"
    );
    assert_eq!(
        build(|c| c.open_for = OpenFor::growing(secs(5), secs(1))),
        "open_for.max: 1s is not allowed, use 5s to 1d"
    );
}

#[test]
fn b1_an_awaited_call_may_be_judged_by_its_whole_result() {
    let time = VirtualTime::new();
    let breaker =
        CircuitBreaker::builder("b").consecutive_failures(2).clock(time.clock()).build().unwrap();
    let empty_fails = |result: Result<&Vec<u32>, &ErrorKind>| match result {
        Ok(hits) if hits.is_empty() => Verdict::failure(ErrorKind::ServerError),
        _ => Verdict::success(),
    };
    let ask = |result: Result<Vec<u32>, ErrorKind>| {
        time.block_on(breaker.call_judged(empty_fails, || async { result }))
    };
    for _ in 0..3 {
        let failed = ask(Err(ErrorKind::Timeout));
        assert_eq!(failed, Err(Error::Operation(ErrorKind::Timeout)), "judged a success");
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!((ask(Ok(vec![])), ask(Ok(vec![]))), (Ok(vec![]), Ok(vec![])));
    assert_eq!(breaker.state(), State::Open);
    assert!(ask(Ok(vec![1])).unwrap_err().is_rejected());
}

/// A breaker that judges rates alone: four slices of a second, open at half unless it learns.
fn adaptive(clock: &ManualClock, adaptive: Option<Adaptive>) -> CircuitBreaker {
    let mut config = BreakerConfig::default();
    config.consecutive_failures = 0;
    config.window = Window::Time { length: secs(4), slices: 4 };
    config.adaptive = adaptive;
    CircuitBreaker::builder("b").config(config).clock(clock.clock()).build().unwrap()
}

fn learning(memory_slices: u32) -> Option<Adaptive> {
    let mut adaptive = Adaptive::default();
    adaptive.memory_slices = memory_slices;
    Some(adaptive)
}

/// Successes first, so that no share on the way is higher than the last.
fn calls(breaker: &CircuitBreaker, succeeding: u32, failing: u32) {
    (0..succeeding).for_each(|_| breaker.try_acquire().unwrap().success());
    (0..failing).for_each(|_| breaker.try_acquire().unwrap().failure());
}

#[test]
fn b8_a_quiet_history_lowers_the_threshold_and_the_breaker_opens_by_it() {
    let clock = ManualClock::new();
    let breakers = [adaptive(&clock, learning(6)), adaptive(&clock, None)];
    for slice in 0..7 {
        let thresholds = breakers.each_ref().map(|b| b.snapshot().failure_rate_threshold);
        let expected = if slice >= 6 { 0.1 } else { 0.5 };
        assert_eq!(thresholds, [Some(expected), Some(0.5)], "after {slice} slices");
        breakers.iter().for_each(|breaker| calls(breaker, 10, 0));
        clock.advance(secs(1));
    }
    // Four of 34 calls in the window: more than the floor, less than what is configured.
    breakers.iter().for_each(|breaker| calls(breaker, 0, 4));
    assert_eq!(breakers.map(|breaker| breaker.state()), [State::Open, State::Closed]);
}

#[test]
fn b8_a_noisy_history_raises_the_threshold_and_the_breaker_opens_by_it() {
    let clock = ManualClock::new();
    let breakers = [adaptive(&clock, learning(20)), adaptive(&clock, None)];
    for slice in 0..60 {
        let failing = if slice % 2 == 0 { 2 } else { 4 };
        breakers.iter().for_each(|breaker| calls(breaker, 10 - failing, failing));
        clock.advance(secs(1));
    }
    let threshold = breakers[0].snapshot().failure_rate_threshold.unwrap();
    assert!((0.55..0.65).contains(&threshold), "0.3 and three times 0.1, not {threshold}");
    // With the 30 calls before, of which ten failed, 63 of 126.
    breakers.iter().for_each(|breaker| calls(breaker, 43, 53));
    assert_eq!(breakers.each_ref().map(CircuitBreaker::state), [State::Closed, State::Open]);
    while breakers[0].state() == State::Closed {
        calls(&breakers[0], 0, 1);
        assert!(breakers[0].snapshot().calls < 300);
    }
    assert_eq!(breakers[0].snapshot().opens_in_a_row, 1);
}

#[test]
fn b8_a_threshold_stays_between_floor_and_ceiling_and_is_kept_when_reconfigured() {
    let clock = ManualClock::new();
    let mut learned = learning(2);
    let breaker = adaptive(&clock, learned);
    for _ in 0..5 {
        calls(&breaker, 10, 0);
        clock.advance(secs(1));
    }
    let threshold = || breaker.snapshot().failure_rate_threshold;
    assert_eq!(threshold(), Some(0.1));
    learned.as_mut().unwrap().floor = 0.3;
    let mut config = breaker.config();
    config.adaptive = learned;
    breaker.reconfigure(config.clone()).unwrap();
    assert_eq!(threshold(), Some(0.3), "what was learned stays learned");
    config.adaptive = None;
    breaker.reconfigure(config).unwrap();
    assert_eq!(threshold(), Some(0.5), "what is configured");
}
