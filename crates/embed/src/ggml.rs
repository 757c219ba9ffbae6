//! The element types of GGUF tensors: plain numbers, and blocks of 32 quantised ones with a scale.

use crate::half::half_to_f32;

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// Numbers in a block.
    pub(crate) numbers: usize,
    /// Bytes of a block.
    pub(crate) bytes: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
}

/// The storage of the element type number `kind`, if it is one of those read here.
pub(crate) fn block_of(kind: u32) -> Option<Block> {
    let (numbers, bytes, kind) = match kind {
        0 => (1, 4, Kind::F32),
        1 => (1, 2, Kind::F16),
        30 => (1, 2, Kind::Bf16),
        2 => (32, 18, Kind::Q4_0),
        3 => (32, 20, Kind::Q4_1),
        6 => (32, 22, Kind::Q5_0),
        7 => (32, 24, Kind::Q5_1),
        8 => (32, 34, Kind::Q8_0),
        _ => return None,
    };
    Some(Block { numbers, bytes, kind })
}

impl Block {
    /// The numbers of whole blocks.
    pub(crate) fn numbers(&self, bytes: &[u8]) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(bytes.len() / self.bytes * self.numbers);
        for block in bytes.chunks_exact(self.bytes) {
            self.read(block, &mut numbers);
        }
        numbers
    }

    fn read(&self, block: &[u8], numbers: &mut Vec<f32>) {
        let half = |at: usize| half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]));
        match self.kind {
            Kind::F32 => {
                numbers.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]]));
            }
            Kind::F16 => numbers.push(half(0)),
            Kind::Bf16 => {
                let bits = u32::from(u16::from_le_bytes([block[0], block[1]]));
                numbers.push(f32::from_bits(bits << 16));
            }
            Kind::Q8_0 => {
                let scale = half(0);
                numbers.extend(block[2..].iter().map(|b| f32::from(b.cast_signed()) * scale));
            }
            Kind::Q4_0 => {
                let scale = half(0);
                let value = |number: u8| (f32::from(number) - 8.0) * scale;
                numbers.extend(nibbles(&block[2..]).map(value));
            }
            Kind::Q4_1 => {
                let (scale, least) = (half(0), half(2));
                let value = |number: u8| f32::from(number) * scale + least;
                numbers.extend(nibbles(&block[4..]).map(value));
            }
            Kind::Q5_0 => {
                let scale = half(0);
                let value = |number: u8| (f32::from(number) - 16.0) * scale;
                numbers.extend(five_bits(&block[2..]).map(value));
            }
            Kind::Q5_1 => {
                let (scale, least) = (half(0), half(2));
                let value = |number: u8| f32::from(number) * scale + least;
                numbers.extend(five_bits(&block[4..]).map(value));
            }
        }
    }
}

/// Four-bit numbers: the low halves of all bytes, then the high halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 0xF).chain(bytes.iter().map(|byte| byte >> 4))
}

/// Five-bit numbers: 32 fifth bits in four bytes, then the lower four as in [`nibbles`].
fn five_bits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let (fifth, low) = bytes.split_at(4);
    nibbles(low).enumerate().map(move |(at, number)| number | (fifth[at / 8] >> (at % 8) & 1) << 4)
}
