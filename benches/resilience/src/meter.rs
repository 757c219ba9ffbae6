//! Time and allocations per call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Barrier;
use std::time::{Duration, Instant};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged; counting touches only a thread-local cell without a
// destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs a case this many times.
pub type Run = Box<dyn Fn(u64) + Send + Sync>;

/// One library in one case.
pub struct Entry {
    pub case: &'static str,
    pub library: &'static str,
    pub threads: usize,
    pub run: Run,
}

/// One line of the table.
pub struct Row {
    pub case: String,
    pub library: &'static str,
    pub nanos: f64,
    pub allocations: f64,
    pub ratio: f64,
}

/// How long one round of one entry takes.
const ROUND: Duration = Duration::from_millis(20);

/// Measures every entry in `rounds` rounds that take turns. Entries of one case stand together, ours
/// first.
pub fn measure(entries: &mut [Entry], rounds: usize) -> Vec<Row> {
    let counts: Vec<u64> = entries.iter().map(calibrate).collect();
    let mut times = vec![Vec::with_capacity(rounds); entries.len()];
    for _ in 0..rounds {
        for (index, entry) in entries.iter().enumerate() {
            times[index].push(round(entry, counts[index]));
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut ours = 0.0;
    for (index, entry) in entries.iter().enumerate() {
        times[index].sort_by(f64::total_cmp);
        let nanos = times[index][rounds / 2];
        let case = format!("{} ×{}", entry.case, entry.threads);
        if rows.last().is_none_or(|row| row.case != case) {
            ours = nanos;
        }
        let before = COUNT.get();
        (entry.run)(1_000);
        let allocations = (COUNT.get() - before) as f64 / 1_000.0;
        rows.push(Row { case, library: entry.library, nanos, allocations, ratio: nanos / ours });
    }
    rows
}

/// Calls that fill a round.
fn calibrate(entry: &Entry) -> u64 {
    let mut calls = 1_000;
    loop {
        let took = round(entry, calls) * calls as f64;
        if took >= ROUND.as_nanos() as f64 / 4.0 {
            return (calls as f64 * ROUND.as_nanos() as f64 / took).max(1.0) as u64;
        }
        calls *= 2;
    }
}

/// Nanoseconds per call of one round.
fn round(entry: &Entry, calls: u64) -> f64 {
    if entry.threads == 1 {
        let begin = Instant::now();
        (entry.run)(calls);
        return begin.elapsed().as_nanos() as f64 / calls as f64;
    }
    let barrier = Barrier::new(entry.threads);
    let took = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..entry.threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let begin = Instant::now();
                    (entry.run)(calls);
                    begin.elapsed()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).max()
    });
    took.unwrap_or_default().as_nanos() as f64 / calls as f64
}
