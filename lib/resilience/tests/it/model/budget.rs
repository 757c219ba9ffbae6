//! The retry budget as a jar of thousandths.

use super::runs;
use crate::{ms, secs};
use mainstay_resilience::{BudgetConfig, ManualClock, RetryBudget, Tick};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Deposit,
    Withdraw(u32),
    Advance(u64),
    Reconfigure(BudgetConfig),
}

fn config() -> impl Strategy<Value = BudgetConfig> {
    (0..=1_000u32, 1..20u32, 0..5u32).prop_map(|(thousandths, capacity, floor)| {
        let mut config = BudgetConfig::default();
        config.ratio = f64::from(thousandths) / 1_000.0;
        config.capacity = capacity;
        config.floor_per_second = floor;
        config
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Deposit),
        6 => prop_oneof![Just(1u32), Just(1), Just(2), Just(5)].prop_map(Step::Withdraw),
        3 => (0..700u64).prop_map(Step::Advance),
        1 => config().prop_map(Step::Reconfigure),
    ]
}

struct Model {
    config: BudgetConfig,
    now: Tick,
    thousandths: u64,
    floor_next: Tick,
}

impl Model {
    fn capacity(&self) -> u64 {
        u64::from(self.config.capacity) * 1_000
    }

    fn deposit(&mut self) {
        let ratio = (self.config.ratio * 1_000.0).round() as u64;
        self.thousandths = (self.thousandths + ratio).min(self.capacity().max(self.thousandths));
    }

    fn withdraw(&mut self, tokens: u32) -> bool {
        let cost = u64::from(tokens) * 1_000;
        if self.thousandths >= cost {
            self.thousandths -= cost;
            return true;
        }
        if self.config.floor_per_second == 0 || self.now < self.floor_next {
            return false;
        }
        self.floor_next = self.now.after(secs(1) / self.config.floor_per_second);
        true
    }
}

proptest! {
    #![proptest_config(runs())]

    #[test]
    fn r1_a_budget_does_what_a_jar_does(
        first in config(),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let clock = ManualClock::new();
        let budget = RetryBudget::with_clock(first, clock.clock()).unwrap();
        let began = clock.now();
        let mut model = Model {
            config: first,
            now: began,
            thousandths: u64::from(first.capacity) * 1_000,
            floor_next: Tick::ZERO,
        };
        let (mut deposited, mut extra, mut changed) = (0u64, 0u64, false);
        for step in steps {
            match step {
                Step::Deposit => {
                    budget.deposit();
                    model.deposit();
                    deposited += 1;
                }
                Step::Withdraw(tokens) => {
                    let given = budget.try_withdraw_cost(f64::from(tokens));
                    prop_assert_eq!(given, model.withdraw(tokens));
                    extra += u64::from(given);
                }
                Step::Advance(wait) => {
                    clock.advance(ms(wait));
                    model.now = clock.now();
                }
                Step::Reconfigure(config) => {
                    budget.reconfigure(config).unwrap();
                    model.config = config;
                    model.thousandths = model.thousandths.min(model.capacity());
                    changed = true;
                }
            }
            prop_assert_eq!((budget.balance() * 1_000.0).round() as u64, model.thousandths);
            if !changed {
                let seconds = model.now.since(began).as_secs_f64();
                let bound = first.ratio * deposited as f64
                    + f64::from(first.capacity)
                    + f64::from(first.floor_per_second) * seconds
                    + 1.0;
                prop_assert!(extra as f64 <= bound + 1e-6, "{} extra, bound {}", extra, bound);
            }
        }
        prop_assert_eq!(budget.withdrawn(), extra);
    }
}
