//! The line of requests that wait for a slot: by class, and within one class keys in turns.
//!
//! Invariants: each request stands in one key's row of one class; a key stands in a class's `turns`
//! exactly while it has a row there; `len` is the sum of all rows.
//!
//! Sources: turns, fair queueing, Nagle (RFC 970); who gives way when it is full, the fattest row,
//! as in FQ-CoDel (RFC 8290), but its newest request, which has waited for nothing.

use super::Class;
use mainstay_resilience::Tick;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Classes that wait; control calls never do.
const CLASSES: usize = 2;

#[derive(Debug)]
struct Place<T> {
    item: T,
    since: Tick,
    number: u64,
}

#[derive(Debug)]
struct Rows<T> {
    by_key: HashMap<u64, VecDeque<Place<T>>>,
    /// Whose turn it is, in order.
    turns: VecDeque<u64>,
}

/// Requests that wait.
#[derive(Debug)]
pub(super) struct Line<T> {
    classes: [Rows<T>; CLASSES],
    len: usize,
    numbers: u64,
}

/// Where a request stands, so that it can leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    class: Class,
    key: u64,
    number: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        let rows = |_| Rows { by_key: HashMap::new(), turns: VecDeque::new() };
        Line { classes: std::array::from_fn(rows), len: 0, numbers: 0 }
    }
}

impl<T> Rows<T> {
    fn forget_if_empty(&mut self, key: u64) {
        if self.by_key.get(&key).is_some_and(VecDeque::is_empty) {
            self.by_key.remove(&key);
            self.turns.retain(|other| *other != key);
        }
    }

    /// The key with the most requests, and how many.
    fn fattest(&self) -> Option<(u64, usize)> {
        self.by_key.iter().map(|(key, row)| (*key, row.len())).max_by_key(|(_, len)| *len)
    }
}

impl<T> Line<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, class: Class, key: u64, since: Tick, item: T) -> Standing {
        self.numbers += 1;
        self.len += 1;
        let number = self.numbers;
        let rows = &mut self.classes[index(class)];
        let row = rows.by_key.entry(key).or_default();
        if row.is_empty() {
            rows.turns.push_back(key);
        }
        row.push_back(Place { item, since, number });
        Standing { class, key, number }
    }

    /// The class of the request whose turn it is.
    pub(super) fn next_class(&self) -> Option<Class> {
        let waits = |class: &&Class| !self.classes[index(**class)].turns.is_empty();
        [Class::Interactive, Class::Batch].iter().find(waits).copied()
    }

    /// Takes out the request whose turn it is: the more important class first, then keys in turns,
    /// and of one key its oldest request, or its newest.
    pub(super) fn pop(&mut self, newest: bool) -> Option<(T, Tick)> {
        let class = self.next_class()?;
        let rows = &mut self.classes[index(class)];
        let key = rows.turns.pop_front()?;
        let row = rows.by_key.get_mut(&key)?;
        let place = if newest { row.pop_back() } else { row.pop_front() }?;
        if row.is_empty() {
            rows.by_key.remove(&key);
        } else {
            rows.turns.push_back(key);
        }
        self.len -= 1;
        Some((place.item, place.since))
    }

    /// Takes out every request that has waited for longer than `age`.
    pub(super) fn shed(&mut self, age: Duration, now: Tick) -> Vec<T> {
        let mut shed = Vec::new();
        for rows in &mut self.classes {
            for row in rows.by_key.values_mut() {
                while row.front().is_some_and(|place| now.since(place.since) > age) {
                    shed.extend(row.pop_front().map(|place| place.item));
                }
            }
            rows.by_key.retain(|_, row| !row.is_empty());
            rows.turns.retain(|key| rows.by_key.contains_key(key));
        }
        self.len -= shed.len();
        shed
    }

    /// How long the oldest request has waited; zero for an empty line.
    pub(super) fn oldest_age(&self, now: Tick) -> Duration {
        let rows = self.classes.iter().flat_map(|rows| rows.by_key.values());
        let oldest = rows.filter_map(|row| row.front()).map(|place| place.since).min();
        oldest.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Whose request gives way to one of `class` and `key`: somebody less important, else whoever
    /// has at least two more than the key. `None` when the newcomer has to go.
    fn victim(&self, class: Class, key: u64) -> Option<(Class, u64)> {
        if class == Class::Interactive
            && let Some((fattest, _)) = self.classes[index(Class::Batch)].fattest()
        {
            return Some((Class::Batch, fattest));
        }
        let rows = &self.classes[index(class)];
        let mine = rows.by_key.get(&key).map_or(0, VecDeque::len);
        let (fattest, len) = rows.fattest()?;
        (len > mine + 1).then_some((class, fattest))
    }

    /// Whether a request of `class` and `key` would find no place in a full line.
    pub(super) fn would_refuse(&self, class: Class, key: u64) -> bool {
        self.victim(class, key).is_none()
    }

    /// Makes room in a full line by taking out the newest request of whoever has to give way.
    pub(super) fn displace(&mut self, class: Class, key: u64) -> Option<T> {
        let (class, fattest) = self.victim(class, key)?;
        let rows = &mut self.classes[index(class)];
        let place = rows.by_key.get_mut(&fattest)?.pop_back()?;
        rows.forget_if_empty(fattest);
        self.len -= 1;
        Some(place.item)
    }

    /// Takes one request out, if it still waits.
    pub(super) fn leave(&mut self, standing: Standing) -> Option<T> {
        let rows = &mut self.classes[index(standing.class)];
        let row = rows.by_key.get_mut(&standing.key)?;
        let at = row.iter().position(|place| place.number == standing.number)?;
        let place = row.remove(at)?;
        rows.forget_if_empty(standing.key);
        self.len -= 1;
        Some(place.item)
    }
}

fn index(class: Class) -> usize {
    (class as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const NOW: Tick = Tick::ZERO;

    fn order(line: &mut Line<u32>, newest: bool) -> Vec<u32> {
        std::iter::from_fn(|| line.pop(newest)).map(|(item, _)| item).collect()
    }

    #[test]
    fn o5_a_key_with_many_requests_delays_another_by_one() {
        let mut line = Line::default();
        for item in 0..100 {
            line.push(Class::Interactive, 1, NOW, item);
        }
        line.push(Class::Batch, 3, NOW, 900);
        line.push(Class::Interactive, 2, NOW, 500);
        let order = order(&mut line, false);
        assert_eq!(order[..3], [0, 500, 1]);
        assert_eq!(order.last(), Some(&900), "batch goes last");
    }

    #[test]
    fn o5_in_a_full_line_the_less_important_and_then_the_fattest_row_give_way() {
        let mut line = Line::default();
        for item in 0..4 {
            line.push(Class::Interactive, 1, NOW, item);
        }
        line.push(Class::Batch, 1, NOW, 10);
        assert_eq!(line.displace(Class::Interactive, 1), Some(10), "batch work first");
        assert_eq!(line.displace(Class::Interactive, 1), None, "nobody has more than the key");
        assert_eq!(line.displace(Class::Interactive, 2), Some(3), "the newest of the fattest");
        line.push(Class::Interactive, 2, NOW, 20);
        line.push(Class::Interactive, 2, NOW, 21);
        assert_eq!(line.displace(Class::Interactive, 2), None, "two against three is fair");
        assert_eq!(line.displace(Class::Batch, 9), None, "batch displaces nobody important");
    }

    proptest! {
        /// Against the slow, obvious form: all requests in one list.
        #[test]
        fn o5_whatever_happens_each_request_leaves_once_and_in_its_order(
            steps in proptest::collection::vec((0u8..7, 0u64..4, any::<bool>()), 1..200)
        ) {
            let mut line = Line::default();
            let mut model: Vec<(u32, Class, u64, u64, Standing)> = Vec::new();
            for (at, (step, key, flag)) in steps.into_iter().enumerate() {
                let now = Tick::from_nanos(at as u64);
                let class = if flag { Class::Interactive } else { Class::Batch };
                match step {
                    0..=3 => {
                        let standing = line.push(class, key, now, at as u32);
                        model.push((at as u32, class, key, at as u64, standing));
                    }
                    4 => match line.pop(flag) {
                        None => prop_assert!(model.is_empty()),
                        Some((item, since)) => {
                            let found = model.iter().position(|one| one.0 == item).unwrap();
                            let (_, class, key, came, _) = model.remove(found);
                            prop_assert_eq!(since, Tick::from_nanos(came));
                            for (_, other, whose, came_too, _) in &model {
                                prop_assert!(*other <= class);
                                let same = *other == class && *whose == key;
                                prop_assert!(!same || (*came_too < came) == flag);
                            }
                        }
                    },
                    5 => {
                        if let Some(at) = model.len().checked_sub(1) {
                            let (item, .., standing) = model.remove(at.min(key as usize));
                            prop_assert_eq!(line.leave(standing), Some(item));
                            prop_assert_eq!(line.leave(standing), None);
                        }
                    }
                    _ => {
                        let age = Duration::from_nanos(20 + key);
                        let mut shed = line.shed(age, now);
                        shed.sort_unstable();
                        let old = |one: &(u32, Class, u64, u64, Standing)| {
                            now.since(Tick::from_nanos(one.3)) > age
                        };
                        let mut expected: Vec<u32> =
                            model.iter().filter(|one| old(one)).map(|one| one.0).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(shed, expected);
                        model.retain(|one| !old(one));
                    }
                }
                prop_assert_eq!(line.len(), model.len());
                let oldest = model.iter().map(|one| one.3).min();
                let age = oldest.map_or(Duration::ZERO, |came| now.since(Tick::from_nanos(came)));
                prop_assert_eq!(line.oldest_age(now), age);
            }
        }
    }
}
