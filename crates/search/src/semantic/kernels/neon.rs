//! Kernels for 64-bit ARM.

use std::arch::aarch64::*;

use super::{BLOCK_ROWS, Near};

/// # Safety
/// The machine has NEON; `query` and `row` are equally long.
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot(query: &[i16], row: &[u8]) -> i32 {
    const LANES: usize = 8;
    let mut sums = [vdupq_n_s32(0); 2];
    let whole = query.len() / LANES;
    for part in 0..whole {
        let at = part * LANES;
        // SAFETY: `at + LANES <= query.len() == row.len()`; the loads ask for no alignment.
        let (q, r) =
            unsafe { (vld1q_s16(query.as_ptr().add(at)), vld1_s8(row.as_ptr().add(at).cast())) };
        let r = vmovl_s8(r);
        sums[0] = vmlal_s16(sums[0], vget_low_s16(q), vget_low_s16(r));
        sums[1] = vmlal_high_s16(sums[1], q, r);
    }
    let at = whole * LANES;
    vaddvq_s32(vaddq_s32(sums[0], sums[1])) + super::scalar_dot(&query[at..], &row[at..])
}

/// # Safety
/// The machine has NEON; `query` is not empty.
#[target_feature(enable = "neon")]
pub(super) unsafe fn near(query: &[u64], blocks: &[u8], bound: u32, near: &mut Vec<Near>) {
    const PAIRS: usize = BLOCK_ROWS / 2;
    let block_bytes = query.len() * 8 * BLOCK_ROWS;
    for (block, words) in blocks.chunks_exact(block_bytes).enumerate() {
        let mut sums = [vdupq_n_u64(0); PAIRS];
        for (word, rows) in query.iter().zip(words.as_chunks::<{ 8 * BLOCK_ROWS }>().0) {
            let word = vreinterpretq_u8_u64(vdupq_n_u64(*word));
            for (pair, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `rows` is 64 bytes long and `pair` is below 4; no alignment is asked for.
                let rows = unsafe { vld1q_u8(rows.as_ptr().add(pair * 16)) };
                let bytes = vcntq_u8(veorq_u8(rows, word));
                *sum = vpadalq_u32(*sum, vpaddlq_u16(vpaddlq_u8(bytes)));
            }
        }
        for (pair, sum) in sums.into_iter().enumerate() {
            let distances = [vgetq_lane_u64::<0>(sum) as u32, vgetq_lane_u64::<1>(sum) as u32];
            for (lane, distance) in distances.into_iter().enumerate() {
                if distance < bound {
                    let row = (block * BLOCK_ROWS + pair * 2 + lane) as u32;
                    near.push(Near { distance, row });
                }
            }
        }
    }
}
