//! The jobs that wait in a queue: by priority, and within one priority callers in turns.
//!
//! Invariants: each waiting job stands in one caller's line of one level, once in `ages`, and once
//! in its caller's share; a caller stands in a level's `turns` exactly while it has a line there.

use crate::clock::Tick;
use crate::context::Priority;
use crate::shares::Shares;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Who a job is for; jobs without a caller are one caller's.
type Caller = Option<u64>;

#[derive(Debug)]
struct Job<T> {
    item: T,
    since: Tick,
    number: u64,
}

/// The jobs of one priority.
#[derive(Debug)]
struct Level<T> {
    lines: HashMap<Caller, VecDeque<Job<T>>>,
    /// Whose turn it is, in order.
    turns: VecDeque<Caller>,
}

impl<T> Level<T> {
    fn push(&mut self, caller: Caller, job: Job<T>) {
        let line = self.lines.entry(caller).or_default();
        if line.is_empty() {
            self.turns.push_back(caller);
        }
        line.push_back(job);
    }

    fn pop(&mut self) -> Option<(Caller, Job<T>)> {
        let caller = self.turns.pop_front()?;
        let line = self.lines.get_mut(&caller)?;
        let job = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&caller);
        } else {
            self.turns.push_back(caller);
        }
        Some((caller, job))
    }
}

/// Waiting jobs.
#[derive(Debug)]
pub(crate) struct WaitingJobs<T> {
    levels: [Level<T>; Priority::ALL.len()],
    /// When each job came, with its number.
    ages: BTreeSet<(Tick, u64)>,
    shares: Shares,
    numbers: u64,
}

impl<T> Default for WaitingJobs<T> {
    fn default() -> Self {
        let level = |_| Level { lines: HashMap::new(), turns: VecDeque::new() };
        WaitingJobs {
            levels: std::array::from_fn(level),
            ages: BTreeSet::new(),
            shares: Shares::default(),
            numbers: 0,
        }
    }
}

impl<T> WaitingJobs<T> {
    pub(crate) fn len(&self) -> usize {
        self.ages.len()
    }

    /// How long the oldest job has waited; zero without jobs.
    pub(crate) fn oldest_age(&self, now: Tick) -> Duration {
        self.ages.first().map_or(Duration::ZERO, |(since, _)| now.since(*since))
    }

    /// Adds a job. With `capacity` a caller may hold an equal share of it only; `Err` is that
    /// share, with the job.
    pub(crate) fn push(
        &mut self,
        item: T,
        priority: Priority,
        caller: Caller,
        since: Tick,
        capacity: Option<u64>,
    ) -> Result<(), (u64, T)> {
        if let Some(caller) = caller
            && let Err(share) = self.shares.take(caller, capacity)
        {
            return Err((share, item));
        }
        self.numbers += 1;
        self.ages.insert((since, self.numbers));
        let job = Job { item, since, number: self.numbers };
        self.levels[priority.level() as usize].push(caller, job);
        Ok(())
    }

    /// Takes the next job out, with the time at which it came.
    pub(crate) fn pop(&mut self) -> Option<(T, Tick)> {
        let (caller, job) = self.levels.iter_mut().rev().find_map(Level::pop)?;
        self.ages.remove(&(job.since, job.number));
        if let Some(caller) = caller {
            self.shares.give_back(caller);
        }
        Some((job.item, job.since))
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;
    use crate::random::Random;

    fn push(jobs: &mut WaitingJobs<u32>, item: u32, caller: u64) {
        let pushed = jobs.push(item, Priority::Normal, Some(caller), Tick::ZERO, None);
        assert_eq!(pushed, Ok(()));
    }

    #[test]
    fn o5_a_caller_with_many_jobs_delays_another_by_one_job() {
        let mut jobs = WaitingJobs::default();
        (0..1_000).for_each(|item| push(&mut jobs, item, 1));
        push(&mut jobs, 5_000, 2);
        let order: Vec<u32> = std::iter::from_fn(|| jobs.pop()).map(|(item, _)| item).collect();
        assert_eq!(order[..3], [0, 5_000, 1]);
        assert_eq!(order.len(), 1_001);
    }

    #[test]
    fn o5_under_pressure_a_caller_holds_an_equal_share_of_the_places() {
        let mut jobs = WaitingJobs::default();
        (0..6).for_each(|item| push(&mut jobs, item, 1));
        push(&mut jobs, 6, 2);
        let refused = jobs.push(7, Priority::Normal, Some(1), Tick::ZERO, Some(10));
        assert_eq!(refused, Err((5, 7)), "two callers share ten places");
        assert_eq!(jobs.push(7, Priority::Normal, Some(2), Tick::ZERO, Some(10)), Ok(()));
    }

    #[test]
    fn o5_a_caller_whose_jobs_are_taken_holds_no_share() {
        let mut jobs = WaitingJobs::default();
        push(&mut jobs, 0, 1);
        assert!(jobs.pop().is_some());
        let ask = |item| jobs.push(item, Priority::Normal, Some(2), Tick::ZERO, Some(2));
        assert_eq!([1, 2].map(ask), [Ok(()), Ok(())], "both places are one caller's");
    }

    #[cfg(not(resilience_loom))]
    #[test]
    fn o5_jobs_leave_by_priority_and_each_caller_in_its_own_order() {
        for seed in 0..200 {
            let random = Random::seeded(seed);
            // The slow, obvious form: all jobs in one list.
            let mut model: Vec<(u32, Priority, u64, Tick)> = Vec::new();
            let mut jobs = WaitingJobs::default();
            for item in 0..300u32 {
                let now = Tick::from_nanos(u64::from(item));
                if random.next() % 5 < 3 {
                    let priority = Priority::ALL[(random.next() % 5) as usize];
                    let caller = random.next() % 4;
                    assert_eq!(jobs.push(item, priority, Some(caller), now, None), Ok(()));
                    model.push((item, priority, caller, now));
                    continue;
                }
                let Some((taken, since)) = jobs.pop() else {
                    assert!(model.is_empty());
                    continue;
                };
                let at = model.iter().position(|job| job.0 == taken).expect("it waited");
                let (_, priority, caller, came) = model.remove(at);
                assert_eq!(since, came, "seed {seed}");
                for (other, level, who, _) in &model {
                    assert!(*level <= priority, "seed {seed}: {other} was more important");
                    assert!(
                        *level < priority || *who != caller || *other > taken,
                        "seed {seed}: {other} came first"
                    );
                }
                let oldest = model.iter().map(|job| job.3).min();
                assert_eq!(jobs.oldest_age(now), oldest.map_or(Duration::ZERO, |o| now.since(o)));
                assert_eq!(jobs.len(), model.len());
            }
        }
    }
}
