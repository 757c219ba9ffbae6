//! [`in_order`]: work on numbered chunks by several threads, results delivered in order.
//!
//! Invariants: every chunk below the one that stopped the walk is delivered, once, in order; no
//! worker is more than [`AHEAD`] chunks ahead of delivery, so what waits is bounded; a worker that
//! panics ends the others, and the panic goes on in the caller.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many chunks for each thread may wait for delivery.
const AHEAD: usize = 8;

struct State<T> {
    /// The next chunk to be worked on.
    next: usize,
    /// The next chunk to be delivered.
    due: usize,
    ready: BTreeMap<usize, T>,
    /// Set when no further chunk is wanted.
    ended: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

/// Ends the walk when it is dropped by a panic.
struct EndOnPanic<'a, T>(&'a Shared<T>);

impl<T> Drop for EndOnPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

/// Calls `work` for every chunk in `0..chunks` on up to `threads` threads, each with a state of its
/// own from `start`, and `deliver` with each result in order, on the calling thread.
pub(super) fn in_order<S, T: Send>(
    threads: usize,
    chunks: usize,
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> T + Sync,
    mut deliver: impl FnMut(T) -> ControlFlow<()>,
) {
    let threads = threads.min(chunks);
    if threads <= 1 {
        let mut state = start();
        for chunk in 0..chunks {
            if deliver(work(&mut state, chunk)).is_break() {
                return;
            }
        }
        return;
    }
    let state = State { next: 0, due: 0, ready: BTreeMap::new(), ended: false };
    let shared = Shared { state: Mutex::new(state), changed: Condvar::new() };
    let worker = || {
        let _guard = EndOnPanic(&shared);
        let mut own = start();
        while let Some(chunk) = claim(&shared, chunks, threads) {
            let result = work(&mut own, chunk);
            shared.lock().ready.insert(chunk, result);
            shared.changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        // Also ends the workers when `deliver` panics, or the scope would wait for them for ever.
        let _guard = EndOnPanic(&shared);
        for _ in 0..threads {
            scope.spawn(worker);
        }
        while let Some(result) = take(&shared, chunks) {
            if deliver(result).is_break() {
                shared.end();
                return;
            }
        }
    });
}

fn claim<T>(shared: &Shared<T>, chunks: usize, threads: usize) -> Option<usize> {
    let mut state = shared.lock();
    while !state.ended && state.next < chunks && state.next >= state.due + AHEAD * threads {
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    if state.ended || state.next >= chunks {
        return None;
    }
    state.next += 1;
    Some(state.next - 1)
}

fn take<T>(shared: &Shared<T>, chunks: usize) -> Option<T> {
    let mut state = shared.lock();
    loop {
        let due = state.due;
        if let Some(result) = state.ready.remove(&due) {
            state.due += 1;
            drop(state);
            shared.changed.notify_all();
            return Some(result);
        }
        if due >= chunks || state.ended {
            return None;
        }
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_a_break_ends_the_work() {
        for threads in [0, 1, 3, 50] {
            let mut seen = Vec::new();
            in_order(
                threads,
                200,
                || (),
                |(), chunk| chunk * 2,
                |result| {
                    seen.push(result);
                    if seen.len() == 150 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            );
            assert_eq!(seen, (0..150).map(|chunk| chunk * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller() {
        let run = || {
            in_order(
                3,
                100,
                || (),
                |(), chunk| assert!(chunk != 20),
                |()| ControlFlow::Continue(()),
            );
        };
        assert!(std::panic::catch_unwind(run).is_err());
    }
}
