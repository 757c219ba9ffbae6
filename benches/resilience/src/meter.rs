//! Cases, their time and their allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

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

/// Makes so many calls and says how long they took.
pub type Run = Box<dyn Fn(u64) -> Duration + Send + Sync>;

/// One library in one case.
pub struct Entry {
    pub case: &'static str,
    pub library: &'static str,
    pub threads: usize,
    pub run: Run,
}

impl Entry {
    /// The case with its threads, as it stands in the table.
    pub fn group(&self) -> String {
        format!("{} x{}", self.case, self.threads)
    }

    /// Allocations per call on one thread.
    pub fn allocations(&self) -> f64 {
        (self.run)(2_000);
        let before = COUNT.get();
        (self.run)(1_000);
        (COUNT.get() - before) as f64 / 1_000.0
    }
}
