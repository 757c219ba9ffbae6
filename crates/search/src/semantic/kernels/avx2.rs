//! Kernels for x86-64 with AVX2 (Intel since Haswell, AMD since Zen).

use std::arch::x86_64::*;

use super::{BLOCK_ROWS, Near};

/// # Safety
/// The machine has AVX2; `query` and `row` are equally long.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot(query: &[i16], row: &[u8]) -> i32 {
    const LANES: usize = 16;
    let mut sums = [_mm256_setzero_si256(); 2];
    let whole = query.len() / LANES;
    for part in 0..whole {
        let at = part * LANES;
        // SAFETY: `at + LANES <= query.len() == row.len()`; the loads ask for no alignment.
        let (q, r) = unsafe {
            (
                _mm256_loadu_si256(query.as_ptr().add(at).cast()),
                _mm_loadu_si128(row.as_ptr().add(at).cast()),
            )
        };
        let products = _mm256_madd_epi16(q, _mm256_cvtepi8_epi16(r));
        sums[part & 1] = _mm256_add_epi32(sums[part & 1], products);
    }
    let sum = _mm256_add_epi32(sums[0], sums[1]);
    let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
    let total = _mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter));
    let at = whole * LANES;
    _mm_cvtsi128_si32(total) + super::scalar_dot(&query[at..], &row[at..])
}

/// # Safety
/// The machine has AVX2; `query` is not empty.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn near(query: &[u64], blocks: &[u8], bound: u32, near: &mut Vec<Near>) {
    let block_bytes = query.len() * 8 * BLOCK_ROWS;
    let limit = _mm256_set1_epi64x(i64::from(bound));
    for (block, words) in blocks.chunks_exact(block_bytes).enumerate() {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (word, rows) in query.iter().zip(words.as_chunks::<{ 8 * BLOCK_ROWS }>().0) {
            let word = _mm256_set1_epi64x(word.cast_signed());
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `rows` is 64 bytes long and `half` is 0 or 1; no alignment is asked for.
                let rows = unsafe { _mm256_loadu_si256(rows.as_ptr().add(half * 32).cast()) };
                *sum = _mm256_add_epi64(*sum, count_bits(_mm256_xor_si256(rows, word)));
            }
        }
        for (half, sum) in sums.into_iter().enumerate() {
            let nearer = _mm256_castsi256_pd(_mm256_cmpgt_epi64(limit, sum));
            let mut mask = _mm256_movemask_pd(nearer);
            if mask != 0 {
                let mut distances = [0u64; BLOCK_ROWS / 2];
                // SAFETY: the array is 32 bytes long; the store asks for no alignment.
                unsafe { _mm256_storeu_si256(distances.as_mut_ptr().cast(), sum) };
                while mask != 0 {
                    let lane = mask.trailing_zeros() as usize;
                    mask &= mask - 1;
                    let row = (block * BLOCK_ROWS + half * BLOCK_ROWS / 2 + lane) as u32;
                    near.push(Near { distance: distances[lane] as u32, row });
                }
            }
        }
    }
}

/// The number of set bits in each 64-bit lane: a table look-up for each half byte, then a sum of
/// bytes (Muła, Kurz, Lemire: "Faster population counts using AVX2 instructions", 2016).
#[target_feature(enable = "avx2")]
fn count_bits(bits: __m256i) -> __m256i {
    let table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3,
        3, 4,
    );
    let nibble = _mm256_set1_epi8(0x0f);
    let low = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, nibble));
    let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble));
    _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256())
}
