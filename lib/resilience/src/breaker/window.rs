//! The calls behind the current slice: frozen slices of a time window, or the ring of a count
//! window. Only touched under the machine's lock; each step costs the same however many calls the
//! window holds.

use super::config::Window;
use super::tally::{Class, Counts};
use crate::clock::{Tick, nanos};
use std::time::Duration;

/// What the window remembers beside the current slice.
#[derive(Debug)]
pub(crate) enum History {
    None,
    Count(Ring),
    Time(Slices),
}

impl History {
    pub(crate) fn new(window: Window, now: Tick) -> Self {
        match window {
            Window::None => History::None,
            Window::Count { calls } => History::Count(Ring::new(calls as usize)),
            Window::Time { length, slices } => History::Time(Slices::new(length, slices, now)),
        }
    }

    /// The sums of everything but the current slice.
    pub(crate) fn sums(&self) -> Counts {
        match self {
            History::None => Counts::default(),
            History::Count(ring) => ring.sums,
            History::Time(slices) => slices.sums,
        }
    }

    /// Whether the current slice of a time window is over.
    pub(crate) fn is_due(&self, now: Tick) -> bool {
        matches!(self, History::Time(slices) if slices.is_due(now))
    }

    /// Freezes the current slice of a time window, whose counts are `current`.
    pub(crate) fn advance(&mut self, current: Counts, now: Tick) {
        if let History::Time(slices) = self {
            slices.advance(current, now);
        }
    }

    pub(crate) fn clear(&mut self, now: Tick) {
        match self {
            History::None => {}
            History::Count(ring) => ring.clear(),
            History::Time(slices) => slices.clear(now),
        }
    }

    /// The same calls under another window. A time window keeps its slices by age, a count window
    /// its latest calls; between the two kinds nothing can be carried over. `current` are the
    /// counts of the slice under way.
    pub(crate) fn reshaped(&self, window: Window, current: Counts, now: Tick) -> Self {
        match (self, window) {
            (History::Count(old), Window::Count { calls }) => {
                History::Count(old.resized(calls as usize))
            }
            (History::Time(old), Window::Time { length, slices }) => {
                History::Time(old.rescaled(Slices::new(length, slices, now), current))
            }
            _ => History::new(window, now),
        }
    }
}

/// The last calls, one byte each.
#[derive(Debug)]
pub(crate) struct Ring {
    classes: Vec<u8>,
    capacity: usize,
    /// Where the next call goes once the ring is full: the oldest call.
    next: usize,
    sums: Counts,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Ring { classes: Vec::with_capacity(capacity), capacity, next: 0, sums: Counts::default() }
    }

    pub(crate) fn push(&mut self, class: Class) {
        let code = class as u8;
        if self.classes.len() < self.capacity {
            self.classes.push(code);
        } else {
            let evicted = std::mem::replace(&mut self.classes[self.next], code);
            self.sums.0[evicted as usize] -= 1;
            self.next = (self.next + 1) % self.capacity;
        }
        self.sums.0[code as usize] += 1;
    }

    fn clear(&mut self) {
        self.classes.clear();
        self.next = 0;
        self.sums = Counts::default();
    }

    fn resized(&self, capacity: usize) -> Self {
        let mut ring = Ring::new(capacity);
        let oldest_first = self.classes[self.next..].iter().chain(&self.classes[..self.next]);
        for &code in oldest_first.skip(self.classes.len().saturating_sub(capacity)) {
            ring.classes.push(code);
            ring.sums.0[code as usize] += 1;
        }
        ring
    }
}

/// The slices of a time window before the current one.
#[derive(Debug)]
pub(crate) struct Slices {
    /// One fewer than the window has: the current slice is counted elsewhere.
    frozen: Vec<Counts>,
    /// Where the next frozen slice goes: the oldest.
    next: usize,
    sums: Counts,
    slice_nanos: u64,
    /// The number of the current slice since the clock's origin.
    epoch: u64,
}

impl Slices {
    fn new(length: Duration, slices: u32, now: Tick) -> Self {
        let slice_nanos = (nanos(length) / u64::from(slices)).max(1);
        Slices {
            frozen: vec![Counts::default(); slices as usize - 1],
            next: 0,
            sums: Counts::default(),
            slice_nanos,
            epoch: now.as_nanos() / slice_nanos,
        }
    }

    /// When the current slice ends.
    pub(crate) fn slice_end(&self) -> u64 {
        (self.epoch + 1).saturating_mul(self.slice_nanos)
    }

    /// Whether the current slice is over.
    fn is_due(&self, now: Tick) -> bool {
        now.as_nanos() / self.slice_nanos > self.epoch
    }

    /// Freezes the current slice, whose counts are `current`, and moves on to the slice of `now`;
    /// returns how many slices that touched.
    fn advance(&mut self, current: Counts, now: Tick) -> u64 {
        let epoch = now.as_nanos() / self.slice_nanos;
        let passed = epoch.saturating_sub(self.epoch);
        if passed == 0 {
            return 0;
        }
        self.freeze(current);
        // After as many empty slices as there are, all counts are gone.
        let empty = (passed - 1).min(self.frozen.len() as u64);
        for _ in 0..empty {
            self.freeze(Counts::default());
        }
        self.epoch = epoch;
        empty + 1
    }

    fn freeze(&mut self, counts: Counts) {
        let evicted = std::mem::replace(&mut self.frozen[self.next], counts);
        self.sums.subtract(evicted);
        self.sums.add(counts);
        self.next = (self.next + 1) % self.frozen.len();
    }

    fn clear(&mut self, now: Tick) {
        self.frozen.fill(Counts::default());
        self.sums = Counts::default();
        self.epoch = now.as_nanos() / self.slice_nanos;
    }

    /// Moves these slices and the current one into `target`, each to where its beginning falls; what
    /// falls into the target's current slice goes to the one before it.
    fn rescaled(&self, mut target: Slices, current: Counts) -> Slices {
        let count = self.frozen.len();
        let oldest_first = (0..count).map(|i| self.frozen[(self.next + i) % count]);
        for (i, counts) in oldest_first.chain(std::iter::once(current)).enumerate() {
            let age_slices = (count - i) as u64;
            let begin = self.epoch.saturating_sub(age_slices).saturating_mul(self.slice_nanos);
            let back = target.epoch.saturating_sub(begin / target.slice_nanos).max(1);
            let length = target.frozen.len() as u64;
            if back <= length {
                // `next` is 0 in a fresh target, so slot `length - 1` is the newest.
                target.frozen[(length - back) as usize].add(counts);
                target.sums.add(counts);
            }
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * 1_000_000_000)
    }

    fn ok(count: u64) -> Counts {
        Counts([count, 0, 0, 0])
    }

    #[test]
    fn a_slice_leaves_the_window_when_its_time_is_over() {
        let mut slices = Slices::new(Duration::from_secs(10), 10, at(0));
        slices.advance(ok(3), at(1));
        assert_eq!(slices.sums, ok(3));
        slices.advance(ok(2), at(9));
        assert_eq!(slices.sums, ok(5));
        slices.advance(ok(0), at(10));
        assert_eq!(slices.sums, ok(2), "the first slice is ten seconds old");
        slices.advance(ok(0), at(1_000_000));
        assert_eq!(slices.sums, ok(0));
    }

    #[test]
    fn the_work_of_a_window_is_bounded_whatever_the_number_of_calls_and_the_time_between_them() {
        // tower-resilience keeps each call of a time window and looks at all of them on each call.
        for calls in [1, 10, 1_000_000_000] {
            let mut slices = Slices::new(Duration::from_secs(60), 10, at(0));
            for step in 1..=100 {
                assert_eq!(slices.advance(ok(calls), at(step * 6)), 1, "one slice for each slice");
                assert_eq!(slices.advance(ok(calls), at(step * 6 + 5)), 0);
            }
            assert_eq!((slices.frozen.len(), slices.sums), (9, ok(9 * calls)));
            assert_eq!(slices.advance(ok(calls), at(31_536_000)), 10, "a year later");
            assert_eq!((slices.frozen.len(), slices.sums), (9, ok(0)));
        }
        let mut ring = Ring::new(100);
        let held = (ring.classes.as_ptr(), ring.classes.capacity());
        (0..100_000).for_each(|_| ring.push(Class::Ok));
        assert_eq!((ring.classes.as_ptr(), ring.classes.capacity()), held, "one byte a call");
        assert_eq!((ring.classes.len(), ring.sums), (100, ok(100)));
    }

    #[test]
    fn the_ring_evicts_the_oldest_call_first() {
        let mut ring = Ring::new(3);
        for class in [Class::Failed, Class::Ok, Class::Ok, Class::Ok] {
            ring.push(class);
        }
        assert_eq!(ring.sums, ok(3));
        assert_eq!(ring.resized(2).sums, ok(2));
    }

    #[test]
    fn a_longer_window_keeps_the_slices_by_age() {
        let mut slices = Slices::new(Duration::from_secs(10), 10, at(100));
        slices.advance(ok(4), at(105));
        let wider = slices.rescaled(Slices::new(Duration::from_secs(60), 10, at(105)), ok(1));
        assert_eq!(wider.sums, ok(5));
        let narrower = slices.rescaled(Slices::new(Duration::from_secs(2), 2, at(105)), ok(1));
        assert_eq!(narrower.sums, ok(1), "the four calls are five seconds old");
    }
}
