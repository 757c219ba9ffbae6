//! [`encode`] and [`List`]: the rising unit numbers of one trigram, compressed.
//!
//! Two forms, whichever suits the density. `Bitmap` is one bit for each unit of the segment.
//! `Blocks` holds up to [`BLOCK`] gaps at a time in Rice codes whose parameter fits the block:
//! neighbouring files share trigrams, so gaps come in clusters that one parameter for a whole list
//! serves badly. Every block starts with its last unit and its length: an intersection walks from
//! header to header and decodes only blocks that can hold a candidate.
//!
//! Measured on Linux 6.1 (1.3 GB, units of 4 KiB, 228 million postings): varint 190 MB, bit packing
//! by 128 194 MB, Elias-Fano 152 MB, Rice by list 154 MB, Rice by blocks of 128 133 MB, by 32 128 MB.
//! Nothing here trusts its input: damaged bytes decode to an error or to wrong numbers below the
//! unit count, never to a panic; the checksum of the list tells them apart.

/// Gaps in one block.
const BLOCK: usize = 128;
/// Last unit (4 bytes), length in bytes (2), Rice parameter (1).
const HEADER: usize = 7;
const KIND_BITMAP: u8 = 0;
const KIND_BLOCKS: u8 = 1;
/// A list at least this dense (one unit in so many) is a bitmap: a little larger than Rice codes
/// there, but asked in one step for each candidate.
const BITMAP_DENSITY: usize = 6;

/// The bytes of a list are not what [`encode`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

/// Appends the coded form of `units` (rising, each below `unit_count`).
pub(super) fn encode(units: &[u32], unit_count: u32, out: &mut Vec<u8>) {
    if units.len() >= unit_count as usize / BITMAP_DENSITY && units.len() > 8 {
        out.push(KIND_BITMAP);
        let base = out.len();
        out.resize(base + (unit_count as usize).div_ceil(8), 0);
        for &unit in units {
            out[base + (unit / 8) as usize] |= 1 << (unit % 8);
        }
        return;
    }
    out.push(KIND_BLOCKS);
    let mut next = 0u32;
    for block in units.chunks(BLOCK) {
        next = encode_block(block, next, out);
    }
}

/// Writes one block whose first gap counts from `next`; answers the `next` of the following block.
fn encode_block(block: &[u32], mut next: u32, out: &mut Vec<u8>) -> u32 {
    let mut gaps = [0u32; BLOCK];
    for (gap, &unit) in gaps.iter_mut().zip(block) {
        *gap = unit - next;
        next = unit + 1;
    }
    let gaps = &gaps[..block.len()];
    let parameter = best_parameter(gaps);
    let header = out.len();
    out.extend_from_slice(&(next - 1).to_le_bytes());
    out.extend_from_slice(&[0, 0, parameter as u8]);
    let mut bits = BitWriter { out, pending: 0, filled: 0 };
    for &gap in gaps {
        bits.zeros(gap >> parameter);
        bits.put(1, 1);
        bits.put(u64::from(gap & ((1u32 << parameter) - 1)), parameter);
    }
    bits.finish();
    let length = (out.len() - header - HEADER) as u16;
    out[header + 4..header + 6].copy_from_slice(&length.to_le_bytes());
    next
}

/// The Rice parameter with the fewest bits. The best lies within one of the logarithm of the mean
/// gap; its code is never longer than that of the parameter just above the largest gap, so a block
/// takes at most 128 × 33 bits and its length fits 16 bits.
fn best_parameter(gaps: &[u32]) -> u32 {
    let sum: u64 = gaps.iter().map(|&gap| u64::from(gap)).sum();
    let mean = sum / gaps.len() as u64;
    let guess = 63 - (mean + 1).leading_zeros();
    let cost = |k: u32| -> u64 {
        gaps.iter().map(|&gap| u64::from(gap >> k)).sum::<u64>() + gaps.len() as u64 * u64::from(k)
    };
    (guess.saturating_sub(2)..=(guess + 1).min(31)).min_by_key(|&k| cost(k)).unwrap_or(guess)
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    filled: u32,
}

impl BitWriter<'_> {
    /// Appends `count` (below 32) bits, lowest first.
    fn put(&mut self, value: u64, count: u32) {
        self.pending |= value << self.filled;
        self.filled += count;
        while self.filled >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.filled -= 8;
        }
    }

    fn zeros(&mut self, mut count: u32) {
        while count > 0 {
            let step = count.min(24);
            self.put(0, step);
            count -= step;
        }
    }

    fn finish(self) {
        if self.filled > 0 {
            self.out.push(self.pending as u8);
        }
    }
}

/// A coded list, still in its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum List<'a> {
    /// The only unit.
    One(u32),
    /// A bit for each unit.
    Bitmap(&'a [u8]),
    /// Rice-coded blocks.
    Blocks(&'a [u8]),
}

impl<'a> List<'a> {
    /// Reads the form from coded bytes.
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        match bytes.split_first() {
            Some((&KIND_BITMAP, rest)) => Ok(Self::Bitmap(rest)),
            Some((&KIND_BLOCKS, rest)) => Ok(Self::Blocks(rest)),
            _ => Err(Corrupt),
        }
    }

    /// Appends every unit.
    pub(super) fn decode(&self, out: &mut Vec<u32>) -> Result<(), Corrupt> {
        match *self {
            Self::One(unit) => out.push(unit),
            Self::Bitmap(bytes) => decode_bitmap(bytes, out),
            Self::Blocks(bytes) => {
                let mut blocks = Blocks::new(bytes);
                let mut buffer = [0u32; BLOCK];
                while let Some(block) = blocks.next_block()? {
                    let count = block.decode(&mut buffer)?;
                    out.extend_from_slice(&buffer[..count]);
                }
            }
        }
        Ok(())
    }

    /// Keeps the `candidates` (rising) that are in the list.
    pub(super) fn retain(&self, candidates: &mut Vec<u32>) -> Result<(), Corrupt> {
        match *self {
            Self::One(unit) => candidates.retain(|&candidate| candidate == unit),
            Self::Bitmap(bytes) => candidates.retain(|&unit| {
                bytes.get((unit / 8) as usize).is_some_and(|byte| byte >> (unit % 8) & 1 == 1)
            }),
            Self::Blocks(bytes) => retain_blocks(bytes, candidates)?,
        }
        Ok(())
    }
}

fn decode_bitmap(bytes: &[u8], out: &mut Vec<u32>) {
    for (index, chunk) in bytes.chunks(8).enumerate() {
        let mut raw = [0u8; 8];
        raw[..chunk.len()].copy_from_slice(chunk);
        let mut word = u64::from_le_bytes(raw);
        while word != 0 {
            out.push(index as u32 * 64 + word.trailing_zeros());
            word &= word - 1;
        }
    }
}

fn retain_blocks(bytes: &[u8], candidates: &mut Vec<u32>) -> Result<(), Corrupt> {
    let mut blocks = Blocks::new(bytes);
    let mut buffer = [0u32; BLOCK];
    let (mut kept, mut at) = (0, 0);
    while at < candidates.len() {
        let Some(block) = blocks.next_block()? else { break };
        if block.last < candidates[at] {
            continue;
        }
        let count = block.decode(&mut buffer)?;
        let mut units = buffer[..count].iter().copied();
        let mut unit = units.next();
        while at < candidates.len() && candidates[at] <= block.last {
            match unit {
                Some(value) if value < candidates[at] => unit = units.next(),
                Some(value) => {
                    if value == candidates[at] {
                        candidates[kept] = value;
                        kept += 1;
                    }
                    at += 1;
                }
                None => at += 1,
            }
        }
    }
    candidates.truncate(kept);
    Ok(())
}

/// Walks block headers.
struct Blocks<'a> {
    rest: &'a [u8],
    next: u32,
}

struct Block<'a> {
    first: u32,
    last: u32,
    parameter: u32,
    bits: &'a [u8],
}

impl<'a> Blocks<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest, next: 0 }
    }

    fn next_block(&mut self) -> Result<Option<Block<'a>>, Corrupt> {
        let Some((header, rest)) = self.rest.split_first_chunk::<HEADER>() else {
            return if self.rest.is_empty() { Ok(None) } else { Err(Corrupt) };
        };
        let last = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let parameter = u32::from(header[6]);
        if parameter > 31 || rest.len() < length || last < self.next || last == u32::MAX {
            return Err(Corrupt);
        }
        let (bits, rest) = rest.split_at(length);
        let block = Block { first: self.next, last, parameter, bits };
        self.rest = rest;
        self.next = last + 1;
        Ok(Some(block))
    }
}

impl Block<'_> {
    /// Fills `out` up to the block's last unit and answers how many there are.
    fn decode(&self, out: &mut [u32; BLOCK]) -> Result<usize, Corrupt> {
        let mut at = 0usize;
        let mut next = self.first;
        let mask = (1u64 << self.parameter) - 1;
        for (count, slot) in out.iter_mut().enumerate() {
            let mut quotient = 0u32;
            let mut window = self.window(at);
            while window == 0 {
                if at >= self.bits.len() * 8 {
                    return Err(Corrupt);
                }
                quotient += 56;
                at += 56;
                window = self.window(at);
            }
            let zeros = window.trailing_zeros();
            quotient += zeros;
            let used = zeros + 1 + self.parameter;
            // Nearly always the whole code lies in the bits already read.
            let low = match used <= 56 {
                true => window >> (zeros + 1) & mask,
                false => self.window(at + zeros as usize + 1) & mask,
            };
            at += used as usize;
            let gap = (u64::from(quotient) << self.parameter) | low;
            let unit = u64::from(next) + gap;
            if unit >= u64::from(self.last) {
                *slot = self.last;
                return if unit == u64::from(self.last) { Ok(count + 1) } else { Err(Corrupt) };
            }
            *slot = unit as u32;
            next = unit as u32 + 1;
        }
        Err(Corrupt)
    }

    /// The 56 bits from bit `at` on; zeros beyond the end.
    #[inline]
    fn window(&self, at: usize) -> u64 {
        let byte = at / 8;
        let raw = match self.bits.get(byte..byte + 8) {
            Some(eight) => u64::from_le_bytes([
                eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7],
            ]),
            None => {
                let mut raw = [0u8; 8];
                let rest = self.bits.get(byte..).unwrap_or_default();
                raw[..rest.len()].copy_from_slice(rest);
                u64::from_le_bytes(raw)
            }
        };
        raw >> (at % 8) & ((1 << 56) - 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers() -> impl Strategy<Value = BTreeSet<u32>> {
        prop_oneof![
            prop::collection::btree_set(0u32..5_000, 1..900),
            prop::collection::btree_set(0u32..500, 1..400),
            prop::collection::btree_set(0u32..4_000_000, 1..300),
        ]
    }

    proptest! {
        #[test]
        fn a_list_survives_its_coded_form_and_intersects_like_a_set(
            set in numbers(), other in numbers(),
        ) {
            let units: Vec<u32> = set.iter().copied().collect();
            let mut bytes = Vec::new();
            encode(&units, units.last().unwrap() + 1, &mut bytes);
            let list = List::from_bytes(&bytes).unwrap();
            let mut decoded = Vec::new();
            list.decode(&mut decoded).unwrap();
            prop_assert_eq!(&decoded, &units);
            let mut candidates: Vec<u32> = other.iter().copied().collect();
            list.retain(&mut candidates).unwrap();
            prop_assert_eq!(candidates, set.intersection(&other).copied().collect::<Vec<_>>());
        }

        #[test]
        fn damaged_lists_are_refused_or_wrong_but_never_panic(
            set in numbers(), at: usize, byte: u8, cut: usize,
        ) {
            let units: Vec<u32> = set.iter().copied().collect();
            let mut bytes = Vec::new();
            encode(&units, units.last().unwrap() + 1, &mut bytes);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % 4);
            if let Ok(list) = List::from_bytes(&bytes) {
                let _ = list.decode(&mut Vec::new());
                let _ = list.retain(&mut units.clone());
            }
        }
    }
}
