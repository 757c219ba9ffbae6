//! [`Kernels`]: the two inner loops of vector search, in the widest instructions the machine has.
//!
//! Both are exact integer arithmetic, so every machine gives the same scores and builds the same
//! graphs:
//!
//! - [`Kernels::dot`]: 13-bit query times int8 row, summed in 32 bits. With components of at most
//!   [`QUERY_MAX`] and [`DIMENSION_MAX`] of them, `4096 * 4095 * 128 < 2^31`: it cannot overflow.
//! - [`Kernels::near`]: Hamming distances of sign bits. Rows lie interleaved in blocks of
//!   [`BLOCK_ROWS`]: first the first 64 bits of each of the eight rows, then the second 64 bits, and
//!   so on. One 512-bit register then holds the same word of eight rows, and a block needs no
//!   horizontal sum.
//!
//! `unsafe` is confined to this folder; the scalar versions are the reference that tests compare with.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

/// Rows in one block of interleaved sign bits.
pub(crate) const BLOCK_ROWS: usize = 8;
/// The longest vector. Larger embeddings in use end at 4,096; the bound keeps 32-bit sums exact.
pub const DIMENSION_MAX: usize = 4096;
/// The largest magnitude of a quantised query component.
pub(crate) const QUERY_MAX: i16 = 4095;

/// One row that is nearer than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Near {
    /// Bits that differ.
    pub(crate) distance: u32,
    /// The row, counted from the first row of the blocks that were scanned.
    pub(crate) row: u32,
}

/// How many 64-bit words the signs of one row take.
pub(crate) const fn sign_words(dimension: usize) -> usize {
    dimension.div_ceil(64)
}

/// How many bytes one block of sign bits takes.
pub(crate) const fn block_bytes(dimension: usize) -> usize {
    sign_words(dimension) * 8 * BLOCK_ROWS
}

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

type Dot = unsafe fn(query: &[i16], row: &[u8]) -> i32;
type NearRows = unsafe fn(query: &[u64], blocks: &[u8], bound: u32, near: &mut Vec<Near>);

/// A set of kernels that this machine can run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    /// Which instructions they use.
    pub(crate) name: &'static str,
    dot: Dot,
    near: NearRows,
}

impl Kernels {
    /// The portable ones.
    pub(crate) const SCALAR: Self = Self { name: "scalar", dot: scalar_dot, near: scalar_near };

    /// The best this machine has; detected once.
    pub(crate) fn detected() -> Self {
        static DETECTED: OnceLock<Kernels> = OnceLock::new();
        *DETECTED.get_or_init(|| Self::available().pop().unwrap_or(Self::SCALAR))
    }

    /// All that this machine can run, the best last.
    pub(crate) fn available() -> Vec<Self> {
        let mut available = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
                available.push(Self { name: "avx2", dot: avx2::dot, near: avx2::near });
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512vpopcntdq")
            {
                available.push(Self { name: "avx512", dot: avx512::dot, near: avx512::near });
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            available.push(Self { name: "neon", dot: neon::dot, near: neon::near });
        }
        available
    }

    /// The sum of products. `row` holds two's complement bytes; both sides are equally long.
    #[inline]
    pub(crate) fn dot(self, query: &[i16], row: &[u8]) -> i32 {
        assert_eq!(query.len(), row.len(), "vectors of one space are equally long");
        // SAFETY: `available` offers a kernel only after detecting every feature it enables, and
        // the lengths, its other precondition, are equal.
        unsafe { (self.dot)(query, row) }
    }

    /// Appends each row of `blocks` whose sign bits differ from `query` in fewer than `bound` places,
    /// in rising order. A last part that is shorter than a block is not read.
    #[inline]
    pub(crate) fn near(self, query: &[u64], blocks: &[u8], bound: u32, near: &mut Vec<Near>) {
        if query.is_empty() {
            return;
        }
        // SAFETY: as in `dot`; the query has at least one word.
        unsafe { (self.near)(query, blocks, bound, near) }
    }
}

/// Asks the processor to fetch the bytes; a hint without effect on results.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(CACHE_LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and prefetching any address has no effect but on speed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

fn scalar_dot(query: &[i16], row: &[u8]) -> i32 {
    query.iter().zip(row).map(|(&q, &r)| i32::from(q) * i32::from(r.cast_signed())).sum()
}

fn scalar_near(query: &[u64], blocks: &[u8], bound: u32, near: &mut Vec<Near>) {
    for (block, words) in blocks.chunks_exact(query.len() * 8 * BLOCK_ROWS).enumerate() {
        let mut distances = [0u32; BLOCK_ROWS];
        for (query, words) in query.iter().zip(words.as_chunks::<{ 8 * BLOCK_ROWS }>().0) {
            for (distance, word) in distances.iter_mut().zip(words.as_chunks::<8>().0) {
                *distance += (query ^ u64::from_le_bytes(*word)).count_ones();
            }
        }
        for (lane, &distance) in distances.iter().enumerate() {
            if distance < bound {
                near.push(Near { distance, row: (block * BLOCK_ROWS + lane) as u32 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_machine_offers_more_than_the_reference_where_it_can() {
        let names: Vec<_> = Kernels::available().iter().map(|kernels| kernels.name).collect();
        assert_eq!(names[0], "scalar");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(names.contains(&"avx2"), is_x86_feature_detected!("avx2"));
        #[cfg(target_arch = "aarch64")]
        assert_eq!(names.last(), Some(&"neon"));
    }

    #[test]
    fn extreme_components_of_the_longest_vector_do_not_overflow() {
        let row = vec![i8::MIN.cast_unsigned(); DIMENSION_MAX];
        let expected = -(i64::from(QUERY_MAX) * 128 * DIMENSION_MAX as i64);
        for kernels in Kernels::available() {
            let low = kernels.dot(&vec![QUERY_MAX; DIMENSION_MAX], &row);
            let high = kernels.dot(&vec![-QUERY_MAX; DIMENSION_MAX], &row);
            assert_eq!(
                (i64::from(low), i64::from(high)),
                (expected, -expected),
                "{}",
                kernels.name
            );
        }
    }

    #[test]
    fn dots_of_every_length_equal_the_reference() {
        let value = |i: usize| (i * 2_654_435_761) >> 7;
        for length in 0..400 {
            let query: Vec<i16> = (0..length).map(|i| (value(i) % 8191) as i16 - 4095).collect();
            let row: Vec<u8> = (0..length).map(|i| value(i + 1000) as u8).collect();
            for kernels in Kernels::available() {
                let expected = scalar_dot(&query, &row);
                assert_eq!(kernels.dot(&query, &row), expected, "{} of {length}", kernels.name);
            }
        }
    }

    proptest! {
        #[test]
        fn dots_equal_the_reference(
            pairs in prop::collection::vec((-4095i16..=4095, any::<u8>()), 0..1100),
        ) {
            let (query, row): (Vec<i16>, Vec<u8>) = pairs.into_iter().unzip();
            for kernels in Kernels::available() {
                prop_assert_eq!(kernels.dot(&query, &row), scalar_dot(&query, &row), "{}", kernels.name);
            }
        }

        #[test]
        fn near_rows_equal_the_reference(
            query in prop::collection::vec(any::<u64>(), 1..14),
            bytes in prop::collection::vec(any::<u8>(), 0..6000),
            bound in 0u32..500,
        ) {
            let mut expected = Vec::new();
            scalar_near(&query, &bytes, bound, &mut expected);
            for kernels in Kernels::available() {
                let mut found = Vec::new();
                kernels.near(&query, &bytes, bound, &mut found);
                prop_assert_eq!(&found, &expected, "{}", kernels.name);
            }
        }
    }
}
