//! Good and bad events over time: two rings of buckets, and their form on disk.
//!
//! Invariant: a bucket counts only for the slot that it is stamped with, so nothing has to be
//! cleared when time moves on, and what lies in the future is never counted.

/// Width of a fine bucket.
pub(super) const FINE_MS: u64 = 10_000;
/// Width of a coarse bucket.
pub(super) const COARSE_MS: u64 = 300_000;
/// Windows up to this length are summed from fine buckets.
pub(super) const FINE_SPAN_MS: u64 = 6 * 3_600_000;
/// Buckets in a piece of state: an hour of fine ones, a day of coarse ones.
const FINE_CHUNK: u64 = 360;
const COARSE_CHUNK: u64 = 288;
/// Hours of fine buckets: one more than are ever summed, for the hour that has begun.
const FINE_CHUNKS: u64 = 7;

/// A count of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) good: u64,
    pub(super) bad: u64,
}

impl Count {
    pub(super) fn total(self) -> u64 {
        self.good.saturating_add(self.bad)
    }

    /// The share of bad events; nothing without events.
    pub(super) fn error_ratio(self) -> Option<f64> {
        let total = self.total();
        (total > 0).then(|| self.bad as f64 / total as f64)
    }

    pub(super) fn add(&mut self, other: Count) {
        self.good = self.good.saturating_add(other.good);
        self.bad = self.bad.saturating_add(other.bad);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    slot: u64,
    count: Count,
}

/// One ring of buckets of one width.
#[derive(Clone, Debug)]
pub(super) struct Tier {
    width_ms: u64,
    chunk: u64,
    chunks: u64,
    buckets: Vec<Bucket>,
}

impl Tier {
    pub(super) fn fine() -> Self {
        Tier::new(FINE_MS, FINE_CHUNK, FINE_CHUNKS)
    }

    pub(super) fn coarse(period_days: u32) -> Self {
        Tier::new(COARSE_MS, COARSE_CHUNK, u64::from(period_days) + 1)
    }

    fn new(width_ms: u64, chunk: u64, chunks: u64) -> Self {
        let count = usize::try_from(chunk * chunks).unwrap_or(0);
        Tier { width_ms, chunk, chunks, buckets: vec![Bucket::default(); count] }
    }

    fn index(&self, slot: u64) -> usize {
        // The remainder is below the length, which fits.
        usize::try_from(slot % (self.chunk * self.chunks)).unwrap_or(0)
    }

    pub(super) fn add(&mut self, unix_ms: u64, count: Count) {
        let slot = unix_ms / self.width_ms;
        let index = self.index(slot);
        let bucket = &mut self.buckets[index];
        if bucket.slot != slot {
            *bucket = Bucket { slot, count: Count::default() };
        }
        bucket.count.add(count);
    }

    fn at(&self, slot: u64) -> Count {
        let bucket = &self.buckets[self.index(slot)];
        if bucket.slot == slot { bucket.count } else { Count::default() }
    }

    /// All events of the buckets that begin in the last `window_ms`, the present one included.
    pub(super) fn sum(&self, now_ms: u64, window_ms: u64) -> Count {
        let last = now_ms / self.width_ms;
        let first = (now_ms.saturating_sub(window_ms) + 1).div_ceil(self.width_ms).min(last);
        let mut sum = Count::default();
        for slot in first..=last {
            sum.add(self.at(slot));
        }
        sum
    }

    /// Beginning and end of the last run of slots whose error ratio is above `ratio`, not further
    /// back than `window_ms`. Slots without events and single good ones do not end a run.
    pub(super) fn last_run_above(
        &self,
        now_ms: u64,
        window_ms: u64,
        ratio: f64,
    ) -> Option<(u64, u64)> {
        /// Good slots in a row that end a run: five, as many probes as a recovery needs.
        const GOOD_IN_A_ROW: u32 = 5;
        let last = now_ms / self.width_ms;
        let first = now_ms.saturating_sub(window_ms) / self.width_ms;
        let (mut run, mut good) = (None::<(u64, u64)>, 0);
        for slot in (first..=last).rev() {
            let Some(found) = self.at(slot).error_ratio() else { continue };
            if found > ratio {
                let end = run.map_or(slot, |(_, end)| end);
                run = Some((slot, end));
                good = 0;
            } else if run.is_some() {
                good += 1;
                if good >= GOOD_IN_A_ROW {
                    break;
                }
            }
        }
        run.map(|(begin, end)| (begin * self.width_ms, (end + 1) * self.width_ms))
    }

    /// The chunk that holds this moment.
    pub(super) fn chunk_of(&self, unix_ms: u64) -> u64 {
        unix_ms / self.width_ms / self.chunk
    }

    /// The place of a chunk among those that are kept.
    pub(super) fn place(&self, chunk: u64) -> u64 {
        chunk % self.chunks
    }

    /// All places that chunks of this ring can have.
    pub(super) fn places(&self) -> u64 {
        self.chunks
    }

    /// Appends the buckets of a chunk that hold anything: their number, then offset, good and bad.
    pub(super) fn encode(&self, chunk: u64, to: &mut Vec<u8>) {
        let slots = chunk * self.chunk..(chunk + 1) * self.chunk;
        let held: Vec<(u64, Count)> =
            slots.map(|slot| (slot, self.at(slot))).filter(|(_, c)| c.total() > 0).collect();
        to.extend_from_slice(&(held.len() as u16).to_le_bytes());
        for (slot, count) in held {
            to.extend_from_slice(&((slot % self.chunk) as u16).to_le_bytes());
            to.extend_from_slice(&count.good.to_le_bytes());
            to.extend_from_slice(&count.bad.to_le_bytes());
        }
    }

    /// Takes in what [`encode`](Self::encode) wrote; false when it is no such thing.
    pub(super) fn decode(&mut self, chunk: u64, from: &mut &[u8]) -> bool {
        let Some(held) = take::<2>(from).map(u16::from_le_bytes) else { return false };
        for _ in 0..held {
            let (Some(offset), Some(good), Some(bad)) = (take(from), take(from), take(from)) else {
                return false;
            };
            let offset = u64::from(u16::from_le_bytes(offset));
            if offset >= self.chunk {
                return false;
            }
            let count = Count { good: u64::from_le_bytes(good), bad: u64::from_le_bytes(bad) };
            // A chunk number out of any calendar must not overflow.
            let slot = chunk.saturating_mul(self.chunk).saturating_add(offset);
            let index = self.index(slot);
            // A piece of an earlier round of the ring must not replace a later one.
            if self.buckets[index].slot <= slot {
                self.buckets[index] = Bucket { slot, count };
            }
        }
        true
    }
}

/// The next `N` bytes.
pub(super) fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const GOOD: Count = Count { good: 1, bad: 0 };

    proptest! {
        // V6
        #[test]
        fn a_window_is_the_sum_of_the_slots_that_begin_in_it(
            events in prop::collection::vec(0..FINE_SPAN_MS * 2, 1..60),
            window_slots in 1..2_160u64,
        ) {
            let begin = 1_700_000_000_000 / FINE_MS * FINE_MS;
            let mut events = events;
            events.sort_unstable();
            let mut tier = Tier::fine();
            for event in &events {
                tier.add(begin + event, GOOD);
            }
            let now = begin + events[events.len() - 1];
            let last = now / FINE_MS;
            let inside = |event: &&u64| {
                let slot = (begin + **event) / FINE_MS;
                slot > last - window_slots && slot <= last
            };
            let expected = events.iter().filter(inside).count() as u64;
            // At the end of a slot the window holds exactly as many slots as it is long.
            let at_end = last * FINE_MS + FINE_MS - 1;
            prop_assert_eq!(tier.sum(at_end, window_slots * FINE_MS).good, expected);
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), chunk in any::<u64>(),
        ) {
            Tier::fine().decode(chunk, &mut bytes.as_slice());
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let (mut tier, mut bytes) = (Tier::coarse(7), Vec::new());
        let now = 1_700_000_000_000;
        for n in 0..50 {
            tier.add(now - n * COARSE_MS, Count { good: n, bad: n * n });
        }
        let mut read = Tier::coarse(7);
        for chunk in tier.chunk_of(now - 50 * COARSE_MS)..=tier.chunk_of(now) {
            bytes.clear();
            tier.encode(chunk, &mut bytes);
            assert!(read.decode(chunk, &mut bytes.as_slice()));
        }
        let week = 7 * 86_400_000;
        assert_eq!(read.sum(now, week), tier.sum(now, week));
        assert_eq!(read.sum(now, week).bad, (0..50).map(|n| n * n).sum::<u64>());
    }

    #[test]
    fn a_piece_of_an_earlier_round_replaces_nothing() {
        let (mut tier, mut bytes) = (Tier::fine(), Vec::new());
        let now = 1_700_000_000_000;
        let mut earlier = Tier::fine();
        earlier.add(now - FINE_CHUNK * FINE_CHUNKS * FINE_MS, GOOD);
        let chunk = tier.chunk_of(now) - FINE_CHUNKS;
        earlier.encode(chunk, &mut bytes);
        tier.add(now, Count { good: 5, bad: 0 });
        assert!(tier.decode(chunk, &mut bytes.as_slice()));
        assert_eq!(tier.sum(now, FINE_SPAN_MS).good, 5);
    }

    #[test]
    fn what_lies_in_the_future_does_not_count() {
        let mut tier = Tier::fine();
        tier.add(1_700_000_100_000, GOOD);
        assert_eq!(tier.sum(1_700_000_000_000, FINE_SPAN_MS), Count::default());
    }
}
