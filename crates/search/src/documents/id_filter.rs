//! [`IdFilter`]: says for most ids that a segment does not hold them, for the price of one cache line.
//!
//! A blocked Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom
//! Filters", 2007): the high half of the id's xxh3 chooses a line of 512 bits, the low half seven bits
//! in it. At 12 bits an id about one lookup in a hundred goes on to the dictionary in vain.

const LINE_BYTES: usize = 64;
const IDS_PER_LINE: usize = 42;
const BITS_PER_ID: u32 = 7;

/// The filter over these ids' hashes, as it is stored.
pub(super) fn build(hashes: impl ExactSizeIterator<Item = u64>) -> Vec<u8> {
    let lines = hashes.len().div_ceil(IDS_PER_LINE).max(1);
    let mut bytes = vec![0; lines * LINE_BYTES];
    for hash in hashes {
        let line = line_of(hash, lines);
        for bit in bits_of(hash) {
            bytes[line * LINE_BYTES + bit / 8] |= 1 << (bit % 8);
        }
    }
    bytes
}

/// A stored filter.
pub(super) struct IdFilter<'a>(pub(super) &'a [u8]);

impl IdFilter<'_> {
    /// False only when no id with this hash is in the segment.
    #[inline]
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        let lines = self.0.len() / LINE_BYTES;
        let start = line_of(hash, lines) * LINE_BYTES;
        match self.0.get(start..start + LINE_BYTES) {
            Some(line) => bits_of(hash).all(|bit| line[bit / 8] >> (bit % 8) & 1 == 1),
            None => true,
        }
    }
}

/// Maps the high half of the hash evenly on `0..lines` without a division.
#[inline]
fn line_of(hash: u64, lines: usize) -> usize {
    (((hash >> 32) * lines as u64) >> 32) as usize
}

#[inline]
fn bits_of(hash: u64) -> impl Iterator<Item = usize> {
    let (start, step) = (hash as u32, (hash as u32).rotate_left(15) | 1);
    (0..BITS_PER_ID).map(move |i| (start.wrapping_add(i.wrapping_mul(step)) >> 23) as usize)
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn holds_what_was_put_in_and_refuses_nearly_all_else() {
        let hash = |i: u32| xxh3_64(format!("document-{i}").as_bytes());
        let bytes = build((0..10_000).map(hash));
        let filter = IdFilter(&bytes);
        assert!((0..10_000).all(|i| filter.may_hold(hash(i))));
        let wrong = (10_000..110_000).filter(|&i| filter.may_hold(hash(i))).count();
        assert!(wrong < 2_500, "{wrong} of 100,000 unknown ids pass, expected about 1,000");
    }
}
