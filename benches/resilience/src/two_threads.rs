//! Two threads on one policy, in rounds that are interleaved between the libraries.
//!
//! The two threads keep to one processor each and live through all rounds. In a round both begin
//! together, after spinning on a shared word, and call until the same moment; a call's time is the
//! length of the round over the calls of one thread, the mean of the two. Every round visits each
//! library once, so that a busy machine and the place of the threads disturb all alike.

use crate::meter::Entry;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const THREADS: u64 = 2;
/// Long beside the 4 ms of the coarse clock, short beside a time slice of the scheduler.
const ROUND: Duration = Duration::from_millis(10);
/// Calls between two looks at the clock: the looks cost less than 0.2 ns of each call.
const CHUNK: u64 = 512;

/// Nanoseconds of one call over all rounds.
#[derive(Clone, Copy)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

/// One spread for each of `entries`, over so many rounds.
pub fn measure(entries: &[&Entry], rounds: usize) -> Vec<Spread> {
    let (arrived, calls) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut nanos = vec![Vec::with_capacity(rounds); entries.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drive(
                entries,
                rounds,
                1,
                &arrived,
                |mine| {
                    calls.fetch_add(mine, Ordering::Relaxed);
                },
                |_, _| (),
            )
        });
        let keep = |at: usize, round: usize| {
            let both = calls.swap(0, Ordering::Relaxed).max(1);
            // The first round warms up.
            if round > 0 {
                nanos[at].push((ROUND.as_nanos() as u64 * THREADS) as f64 / both as f64);
            }
        };
        drive(
            entries,
            rounds,
            0,
            &arrived,
            |mine| {
                calls.fetch_add(mine, Ordering::Relaxed);
            },
            keep,
        );
    });
    nanos.into_iter().map(spread).collect()
}

/// What one of the threads does: calls, counts them, and keeps the book after each turn.
fn drive(
    entries: &[&Entry],
    rounds: usize,
    processor: usize,
    arrived: &AtomicU64,
    count: impl Fn(u64),
    mut keep: impl FnMut(usize, usize),
) {
    keep_to(processor);
    let mut meetings = 0;
    let mut meet = || {
        meetings += THREADS;
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < meetings {
            std::hint::spin_loop();
        }
    };
    for round in 0..=rounds {
        for (at, entry) in entries.iter().enumerate() {
            meet();
            let begin = Instant::now();
            let mut calls = 0;
            while begin.elapsed() < ROUND {
                (entry.run)(CHUNK);
                calls += CHUNK;
            }
            count(calls);
            meet();
            keep(at, round);
        }
    }
}

/// Keeps this thread to the `nth` of the processors that it may use; where there is only one, or
/// the system refuses, the rounds are measured as they fall.
fn keep_to(nth: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
    if let Some(processor) = processors.into_iter().nth(nth) {
        let mut only = CpuSet::new();
        only.set(processor);
        let _ = sched_setaffinity(None, &only);
    }
}

fn spread(mut nanos: Vec<f64>) -> Spread {
    nanos.sort_by(f64::total_cmp);
    let at = |share: usize| nanos.get((nanos.len().max(1) - 1) * share / 2).copied();
    let [min, median, max] = [0, 1, 2].map(|share| at(share).unwrap_or(f64::NAN));
    Spread { min, median, max }
}
