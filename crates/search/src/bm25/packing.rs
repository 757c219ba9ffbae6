//! [`pack`] and [`unpack`]: 128 numbers in as few bits each as the greatest of them needs.
//!
//! The numbers lie in four lanes (number `i` in lane `i mod 4`), as in Lemire and Boytsov's SIMD-BP128
//! ("Decoding billions of integers per second through vectorization", 2015): four neighbours are shifted
//! alike, so the compiler turns the loops into vector instructions.

/// How many numbers are packed together.
pub(super) const BLOCK: usize = 128;
const LANES: usize = 4;
const ROWS: usize = BLOCK / LANES;

/// How many bits the greatest of the numbers needs; 0 when all are 0.
pub(super) fn bits_needed(numbers: &[u32; BLOCK]) -> u32 {
    32 - numbers.iter().fold(0, |all, number| all | number).leading_zeros()
}

/// The bytes of a packed block.
pub(super) const fn packed_bytes(bits: u32) -> usize {
    bits as usize * BLOCK / 8
}

/// Appends the numbers, `bits` bits each.
pub(super) fn pack(numbers: &[u32; BLOCK], bits: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + packed_bytes(bits), 0);
    let (words, _) = out[start..].as_chunks_mut::<4>();
    for row in 0..ROWS {
        let bit = row * bits as usize;
        let (word, shift) = (bit / 32, bit % 32);
        for lane in 0..LANES {
            let number = u64::from(numbers[row * LANES + lane]) << shift;
            merge(&mut words[word * LANES..], lane, number as u32);
            if number >> 32 != 0 {
                merge(&mut words[(word + 1) * LANES..], lane, (number >> 32) as u32);
            }
        }
    }
}

fn merge(words: &mut [[u8; 4]], lane: usize, bits: u32) {
    if let Some(word) = words.get_mut(lane) {
        *word = (u32::from_le_bytes(*word) | bits).to_le_bytes();
    }
}

/// Reads a block that [`pack`] wrote; `None` when `bits` is more than 32 or `bytes` are too few.
#[inline]
pub(super) fn unpack(bytes: &[u8], bits: u32, out: &mut [u32; BLOCK]) -> Option<()> {
    macro_rules! widths {
        ($($width:literal)*) => {
            match bits {
                0 => out.fill(0),
                $($width => unpack_width::<$width>(bytes.get(..packed_bytes($width))?, out),)*
                _ => return None,
            }
        };
    }
    widths!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
    Some(())
}

fn unpack_width<const BITS: usize>(bytes: &[u8], out: &mut [u32; BLOCK]) {
    let mask = if BITS == 32 { u32::MAX } else { (1 << BITS) - 1 };
    let (rows, _) = bytes.as_chunks::<16>();
    for (row, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let (word, shift) = (row * BITS / 32, row * BITS % 32);
        let low = lanes(&rows[word]);
        if shift + BITS <= 32 {
            for lane in 0..LANES {
                out[lane] = low[lane] >> shift & mask;
            }
        } else {
            let high = lanes(&rows[word + 1]);
            for lane in 0..LANES {
                out[lane] = (low[lane] >> shift | high[lane] << (32 - shift)) & mask;
            }
        }
    }
}

#[inline(always)]
fn lanes(bytes: &[u8; 16]) -> [u32; LANES] {
    let mut lanes = [0; LANES];
    for (lane, raw) in lanes.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *lane = u32::from_le_bytes(*raw);
    }
    lanes
}

/// Appends a number in groups of seven bits, the lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number that [`put_varint`] wrote off the front of `bytes`.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Takes a number of at most 32 bits off the front of `bytes`.
#[inline]
pub(super) fn take_varint_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(bits in 0u32..=32, seed in prop::array::uniform32(any::<u32>())) {
            let mut numbers = [0; BLOCK];
            for (i, number) in numbers.iter_mut().enumerate() {
                let wide = seed[i % 32].rotate_left(i as u32 / 32 * 7);
                *number = (u64::from(wide) & ((1u64 << bits) - 1)) as u32;
            }
            prop_assert!(bits_needed(&numbers) <= bits);
            let mut bytes = Vec::new();
            pack(&numbers, bits, &mut bytes);
            let mut back = [0; BLOCK];
            unpack(&bytes, bits, &mut back).unwrap();
            prop_assert_eq!(back, numbers);
            prop_assert!(bits == 0 || unpack(&bytes[1..], bits, &mut back).is_none());
        }

        #[test]
        fn varints_come_back_and_damaged_ones_are_refused(number: u64, garbage in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            prop_assert_eq!(take_varint(&mut bytes.as_slice()), Some(number));
            prop_assert_eq!(take_varint(&mut &bytes[..bytes.len() - 1]), None);
            let _ = take_varint(&mut garbage.as_slice());
        }
    }

    #[test]
    fn more_than_32_bits_are_refused() {
        assert!(unpack(&[0; 1024], 33, &mut [0; BLOCK]).is_none());
    }
}
