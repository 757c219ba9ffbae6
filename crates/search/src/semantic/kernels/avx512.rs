//! Kernels for x86-64 with AVX-512 VNNI and VPOPCNTDQ (Intel since Ice Lake, AMD since Zen 4).

use std::arch::x86_64::*;

use super::{BLOCK_ROWS, Near};

/// # Safety
/// The machine has the features named below; `query` and `row` are equally long.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn dot(query: &[i16], row: &[u8]) -> i32 {
    const LANES: usize = 32;
    let mut sums = [_mm512_setzero_si512(); 2];
    let whole = query.len() / LANES;
    for part in 0..whole {
        let at = part * LANES;
        // SAFETY: `at + LANES <= query.len() == row.len()`; the loads ask for no alignment.
        let (q, r) = unsafe {
            (
                _mm512_loadu_si512(query.as_ptr().add(at).cast()),
                _mm256_loadu_si256(row.as_ptr().add(at).cast()),
            )
        };
        sums[part & 1] = _mm512_dpwssd_epi32(sums[part & 1], q, _mm512_cvtepi8_epi16(r));
    }
    let at = whole * LANES;
    if at < query.len() {
        let mask = (1u32 << (query.len() - at)) - 1;
        // SAFETY: masked loads touch only the lanes below the common length.
        let (q, r) = unsafe {
            (
                _mm512_maskz_loadu_epi16(mask, query.as_ptr().add(at)),
                _mm256_maskz_loadu_epi8(mask, row.as_ptr().add(at).cast()),
            )
        };
        sums[0] = _mm512_dpwssd_epi32(sums[0], q, _mm512_cvtepi8_epi16(r));
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

/// # Safety
/// The machine has the features named below; `query` is not empty.
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
pub(super) unsafe fn near(query: &[u64], blocks: &[u8], bound: u32, near: &mut Vec<Near>) {
    let block_bytes = query.len() * 8 * BLOCK_ROWS;
    let bound = _mm512_set1_epi64(i64::from(bound));
    for (block, words) in blocks.chunks_exact(block_bytes).enumerate() {
        let mut sums = _mm512_setzero_si512();
        for (word, rows) in query.iter().zip(words.as_chunks::<{ 8 * BLOCK_ROWS }>().0) {
            // SAFETY: `rows` is 64 bytes long; the load asks for no alignment.
            let rows = unsafe { _mm512_loadu_si512(rows.as_ptr().cast()) };
            let differing = _mm512_xor_si512(rows, _mm512_set1_epi64(word.cast_signed()));
            sums = _mm512_add_epi64(sums, _mm512_popcnt_epi64(differing));
        }
        let mut mask = _mm512_cmplt_epu64_mask(sums, bound);
        if mask != 0 {
            let mut distances = [0u64; BLOCK_ROWS];
            // SAFETY: the array is 64 bytes long; the store asks for no alignment.
            unsafe { _mm512_storeu_si512(distances.as_mut_ptr().cast(), sums) };
            while mask != 0 {
                let lane = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let row = (block * BLOCK_ROWS + lane) as u32;
                near.push(Near { distance: distances[lane] as u32, row });
            }
        }
    }
}
