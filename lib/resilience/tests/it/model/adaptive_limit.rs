//! The adaptive limit: bounds that nothing exceeds, and slots by priority and share.

use super::runs;
use crate::ms;
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, AdaptivePermit, Context, ErrorKind, Law, ManualClock, Priority,
    Reason,
};
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Step {
    Acquire(Priority, Option<u8>),
    Succeed(usize),
    Overload(usize),
    FailFast(usize),
    Drop(usize),
    Advance(u64),
    Reconfigure(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let caller = prop_oneof![Just(None), (0..3u8).prop_map(Some)];
    prop_oneof![
        12 => (proptest::sample::select(Priority::ALL.to_vec()), caller)
            .prop_map(|(priority, caller)| Step::Acquire(priority, caller)),
        6 => (0..30usize).prop_map(Step::Succeed),
        2 => (0..30usize).prop_map(Step::Overload),
        2 => (0..30usize).prop_map(Step::FailFast),
        1 => (0..30usize).prop_map(Step::Drop),
        6 => (0..150u64).prop_map(Step::Advance),
        1 => (1..10u32, 10..40u32).prop_map(|(min, max)| Step::Reconfigure(min, max)),
    ]
}

type Held<'a> = (AdaptivePermit<'a>, Option<u8>);

/// Who holds how many, and who may have one more.
struct Model {
    min: u64,
    max: u64,
}

impl Model {
    /// The reason for a refusal, by the documented shares; `None` to admit.
    fn refuses(
        &self,
        limit: u64,
        held: &[Held<'_>],
        priority: Priority,
        caller: Option<u8>,
    ) -> Option<Reason> {
        let percent = [50, 70, 90, 97, 100];
        let ceiling =
            |priority: Priority| (limit * percent[priority.level() as usize]).div_ceil(100);
        let in_use = held.len() as u64;
        if in_use >= ceiling(priority) {
            let lowest = Priority::ALL.into_iter().find(|level| in_use < ceiling(*level));
            return Some(match lowest {
                Some(level) => Reason::PriorityTooLow { admitted_from: level.level() },
                None => Reason::Full { limit, waiting: 0 },
            });
        }
        let caller = caller?;
        let mut by_caller: HashMap<u8, u64> = HashMap::new();
        held.iter()
            .filter_map(|(_, caller)| *caller)
            .for_each(|c| *by_caller.entry(c).or_default() += 1);
        let mine = by_caller.get(&caller).copied().unwrap_or(0);
        let callers = by_caller.len() as u64 + u64::from(mine == 0);
        let share = limit.div_ceil(callers);
        let under_pressure = (in_use + 1) * 4 > limit * 3;
        (under_pressure && mine >= share).then_some(Reason::ShareExceeded { share })
    }
}

fn check(law: Law, steps: &[Step]) {
    let clock = ManualClock::new();
    let mut config = AdaptiveConfig::default();
    config.law = law;
    (config.min, config.initial, config.max) = (4, 10, 30);
    let limit = AdaptiveLimit::with_clock("model", config, clock.clock()).unwrap();
    let mut model = Model { min: 4, max: 30 };
    let mut held: Vec<Held<'_>> = Vec::new();
    for step in steps {
        let before = limit.limit();
        let mut take = |at: usize| (!held.is_empty()).then(|| held.swap_remove(at % held.len()).0);
        match *step {
            Step::Acquire(priority, caller) => {
                let mut context = Context::default().priority(priority);
                if let Some(caller) = caller {
                    context = context.caller(&caller.to_string());
                }
                let said = model.refuses(before, &held, priority, caller);
                match limit.try_acquire(context) {
                    Ok(permit) => {
                        assert_eq!(said, None);
                        held.push((permit, caller));
                    }
                    Err(rejection) => assert_eq!(said, Some(rejection.reason())),
                }
            }
            Step::Succeed(at) => take(at).into_iter().for_each(AdaptivePermit::success),
            Step::Overload(at) => take(at).into_iter().for_each(AdaptivePermit::overloaded),
            Step::FailFast(at) => {
                take(at).into_iter().for_each(|permit| permit.record(ErrorKind::ServerError));
                assert_eq!(limit.limit(), before, "a fast failure teaches nothing");
            }
            Step::Drop(at) => {
                drop(take(at));
                assert_eq!(limit.limit(), before, "a cancelled call teaches nothing");
            }
            Step::Advance(wait) => clock.advance(ms(wait)),
            Step::Reconfigure(min, max) => {
                let mut config = limit.config();
                (config.min, config.max) = (min, max);
                config.initial = config.initial.clamp(min, max);
                limit.reconfigure(config).unwrap();
                (model.min, model.max) = (u64::from(min), u64::from(max));
            }
        }
        assert!(
            (model.min..=model.max).contains(&limit.limit()),
            "{} after {step:?}",
            limit.limit()
        );
        assert_eq!(limit.in_use(), held.len() as u64);
    }
    held.clear();
    assert_eq!(limit.in_use(), 0);
}

proptest! {
    #![proptest_config(runs())]

    #[test]
    fn b5_an_adaptive_limit_keeps_its_bounds_and_its_shares(
        law in prop_oneof![Just(Law::Aimd), Just(Law::Vegas), Just(Law::Gradient2)],
        steps in proptest::collection::vec(step(), 1..250),
    ) {
        check(law, &steps);
    }
}
