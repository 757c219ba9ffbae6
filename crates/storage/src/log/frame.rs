//! One frame: the unit of atomicity on the disk. One group commit is one frame.
//!
//! ```text
//!  0  u32  magic "MFRM"           48  u64  seed of the segment
//!  4  u32  frame bytes            56  u32  payload bytes as stored
//!  8  u64  first seq              60  u32  payload bytes uncompressed
//! 16  u64  last seq               64  u128 hash of the previous frame
//! 24  u32  record count           80  u64  zero
//! 28  u32  flags                  88  u32  zero
//! 32  u64  written at, ms         92  u32  CRC-32C of bytes 0..92
//! 40  u64  durable seq            96  payload, then zeros
//! end - 24  u128 XXH3-128 of all before | u32 frame bytes | u32 magic "MEND"
//! ```
//!
//! Payload of an ordinary frame: for each record `u32 length | u8 kind | 3 zero bytes | u64 seq`,
//! then its bytes. All integers are little-endian.
//!
//! Invariants:
//! - A frame begins and ends at a multiple of [`FRAME_ALIGN`], so writing one never rewrites a
//!   sector that holds bytes of an acknowledged one.
//! - `last seq` is `first seq - 1` in a frame that spans no sequence numbers (heartbeat).
//! - `durable seq` is the highest number known to be synced when the frame was built. A frame is
//!   written only after the one before it was synced, so a whole frame proves all before it.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::record::{Entry, Record};

/// Frames begin at multiples of this: the sector, which devices write whole or not at all.
pub(crate) const FRAME_ALIGN: usize = 512;

/// Bytes before the payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 96;

/// Bytes behind the payload and its padding.
pub(crate) const FRAME_TRAILER_BYTES: usize = 24;

/// Bytes of a frame beside its payload and padding.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = FRAME_HEADER_BYTES + FRAME_TRAILER_BYTES;

/// A frame without records takes one sector.
pub(crate) const HEARTBEAT_BYTES: usize = FRAME_ALIGN;

/// Bytes before each record.
pub(crate) const RECORD_HEADER_BYTES: usize = 16;

/// No frame, stored or uncompressed, is larger. Bounds what a damaged length can make us allocate.
pub(crate) const FRAME_BYTES_CEILING: usize = 256 << 20;

/// No sequence number reaches this: additions of numbers cannot overflow.
pub(crate) const SEQ_CEILING: u64 = 1 << 62;

/// The record region is compressed with LZ4.
pub(crate) const FLAG_COMPRESSED: u32 = 1;
/// The frame spans more numbers than it has records: the others were compacted away.
pub(crate) const FLAG_COMPACTED: u32 = 1 << 1;
/// The payload is the hash that the next frame names as its predecessor's (see [`Bridge`]).
pub(crate) const FLAG_BRIDGE: u32 = 1 << 2;
/// The records that the frame spans were lost, and the loss was accepted.
pub(crate) const FLAG_LOST: u32 = 1 << 3;
const FLAGS_KNOWN: u32 = FLAG_COMPRESSED | FLAG_COMPACTED | FLAG_BRIDGE | FLAG_LOST;

const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"MFRM");
const END_MAGIC: u32 = u32::from_le_bytes(*b"MEND");

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) frame_bytes: u32,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) record_count: u32,
    pub(crate) flags: u32,
    pub(crate) written_at_ms: u64,
    pub(crate) durable_seq: u64,
    pub(crate) seed: u64,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_raw_bytes: u32,
    pub(crate) prev_hash: u128,
}

impl FrameHeader {
    /// Whether the frame spans no sequence numbers.
    pub(crate) fn is_heartbeat(&self) -> bool {
        self.last_seq < self.first_seq
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.flags & FLAG_LOST != 0
    }
}

/// A whole, checked frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    /// Hash over header and payload; the next frame names it.
    pub(crate) hash: u128,
    /// The frame as stored.
    pub(crate) stored: Bytes,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// Fewer bytes than the frame says or a header needs.
    Short {
        /// Bytes that are needed to go on.
        needed: usize,
    },
    /// Magic, checksum, seed or lengths of the header are wrong.
    Header,
    /// The header is whole and the rest is not.
    Payload,
}

/// What every frame of one segment has in common, and what goes on from frame to frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameContext {
    pub(crate) seed: u64,
    pub(crate) prev_hash: u128,
    pub(crate) durable_seq: u64,
    pub(crate) written_at_ms: u64,
}

/// Bytes that a frame with a payload of this size takes.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_OVERHEAD_BYTES + payload_bytes).next_multiple_of(FRAME_ALIGN)
}

/// Bytes of records in a payload.
pub(crate) fn records_bytes(records: &[Record]) -> usize {
    records.iter().map(|record| RECORD_HEADER_BYTES + record.payload.len()).sum()
}

/// Appends one record to a payload.
pub(crate) fn push_record(payload: &mut Vec<u8>, seq: u64, kind: u8, bytes: &[u8]) {
    payload.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    payload.extend_from_slice(&[kind, 0, 0, 0]);
    payload.extend_from_slice(&seq.to_le_bytes());
    payload.extend_from_slice(bytes);
}

/// What a frame spans and how its payload is to be understood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) record_count: u32,
    pub(crate) flags: u32,
    pub(crate) payload_raw_bytes: u32,
}

/// Builds a frame around a payload, into `out` (cleared first). Returns its hash.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    context: &FrameContext,
    span: &Span,
    payload: &[u8],
) -> u128 {
    let total = frame_bytes(payload.len());
    out.clear();
    out.reserve(total);
    out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    out.extend_from_slice(&(total as u32).to_le_bytes());
    out.extend_from_slice(&span.first_seq.to_le_bytes());
    out.extend_from_slice(&span.last_seq.to_le_bytes());
    out.extend_from_slice(&span.record_count.to_le_bytes());
    out.extend_from_slice(&span.flags.to_le_bytes());
    out.extend_from_slice(&context.written_at_ms.to_le_bytes());
    out.extend_from_slice(&context.durable_seq.to_le_bytes());
    out.extend_from_slice(&context.seed.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&span.payload_raw_bytes.to_le_bytes());
    out.extend_from_slice(&context.prev_hash.to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    let crc = crc32c::crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
    debug_assert_eq!(out.len(), FRAME_HEADER_BYTES);
    out.extend_from_slice(payload);
    out.resize(total - FRAME_TRAILER_BYTES, 0);
    let hash = xxh3_128(out);
    out.extend_from_slice(&hash.to_le_bytes());
    out.extend_from_slice(&(total as u32).to_le_bytes());
    out.extend_from_slice(&END_MAGIC.to_le_bytes());
    hash
}

/// Builds a heartbeat: it spans nothing and carries `durable_seq`.
pub(crate) fn encode_heartbeat(out: &mut Vec<u8>, context: &FrameContext, next_seq: u64) -> u128 {
    let span = Span {
        first_seq: next_seq,
        last_seq: next_seq - 1,
        record_count: 0,
        flags: 0,
        payload_raw_bytes: 0,
    };
    encode(out, context, &span, &[])
}

/// Where the chain goes on behind frames that are no longer there as they were: the next frame
/// names `resumes` as its predecessor's hash. Ends a compacted segment, and stands for a range
/// whose loss was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bridge {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) lost: bool,
    /// Zero: the bridge's own hash.
    pub(crate) resumes: u128,
}

/// Builds a bridge.
pub(crate) fn encode_bridge(out: &mut Vec<u8>, context: &FrameContext, bridge: &Bridge) -> u128 {
    let span = Span {
        first_seq: bridge.first_seq,
        last_seq: bridge.last_seq,
        record_count: 0,
        flags: FLAG_BRIDGE | if bridge.lost { FLAG_LOST } else { 0 },
        payload_raw_bytes: 16,
    };
    encode(out, context, &span, &bridge.resumes.to_le_bytes())
}

/// Reads the fixed part. `data` may be longer.
pub(crate) fn decode_header(data: &[u8]) -> Result<FrameHeader, FrameError> {
    let Some(head) = data.get(..FRAME_HEADER_BYTES) else {
        return Err(FrameError::Short { needed: FRAME_HEADER_BYTES });
    };
    if u32_at(head, 0) != FRAME_MAGIC || u32_at(head, 92) != crc32c::crc32c(&head[..92]) {
        return Err(FrameError::Header);
    }
    let header = FrameHeader {
        frame_bytes: u32_at(head, 4),
        first_seq: u64_at(head, 8),
        last_seq: u64_at(head, 16),
        record_count: u32_at(head, 24),
        flags: u32_at(head, 28),
        written_at_ms: u64_at(head, 32),
        durable_seq: u64_at(head, 40),
        seed: u64_at(head, 48),
        payload_bytes: u32_at(head, 56),
        payload_raw_bytes: u32_at(head, 60),
        prev_hash: u128_at(head, 64),
    };
    let payload_max = FRAME_BYTES_CEILING - FRAME_OVERHEAD_BYTES - FRAME_ALIGN;
    let sane = (header.payload_bytes as usize) <= payload_max
        && header.frame_bytes as usize == frame_bytes(header.payload_bytes as usize)
        && header.payload_raw_bytes as usize <= FRAME_BYTES_CEILING
        && header.first_seq >= 1
        && header.last_seq < SEQ_CEILING
        && header.last_seq >= header.first_seq - 1
        && header.flags & !FLAGS_KNOWN == 0;
    if sane { Ok(header) } else { Err(FrameError::Header) }
}

/// Checks the frame that begins `data`. `data` may be longer.
pub(crate) fn decode(data: &Bytes, seed: u64) -> Result<Frame, FrameError> {
    let header = decode_header(data)?;
    if header.seed != seed {
        return Err(FrameError::Header);
    }
    let total = header.frame_bytes as usize;
    if data.len() < total {
        return Err(FrameError::Short { needed: total });
    }
    let stored = data.slice(..total);
    let body = total - FRAME_TRAILER_BYTES;
    let hash = u128_at(&stored, body);
    let whole = hash == xxh3_128(&stored[..body])
        && u32_at(&stored, body + 16) == header.frame_bytes
        && u32_at(&stored, body + 20) == END_MAGIC;
    if whole { Ok(Frame { header, hash, stored }) } else { Err(FrameError::Payload) }
}

impl Frame {
    /// Its records, in order. An error means that the frame was written wrong: its hash is right
    /// and its content is not.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, FrameError> {
        let header = &self.header;
        if header.flags & FLAG_BRIDGE != 0 {
            return Ok(Vec::new());
        }
        let from = FRAME_HEADER_BYTES;
        let payload = self.stored.slice(from..from + header.payload_bytes as usize);
        let raw_bytes = header.payload_raw_bytes as usize;
        let raw = if header.flags & FLAG_COMPRESSED != 0 {
            let raw = lz4_flex::block::decompress(&payload, raw_bytes);
            Bytes::from(raw.map_err(|_| FrameError::Payload)?)
        } else {
            payload
        };
        if raw.len() != raw_bytes {
            return Err(FrameError::Payload);
        }
        decode_records(header, &raw)
    }

    /// The hash that the next frame names as its predecessor's.
    pub(crate) fn successor_prev_hash(&self) -> u128 {
        if self.header.flags & FLAG_BRIDGE == 0 || self.header.payload_bytes != 16 {
            return self.hash;
        }
        match u128_at(&self.stored, FRAME_HEADER_BYTES) {
            0 => self.hash,
            resumes => resumes,
        }
    }
}

fn decode_records(header: &FrameHeader, raw: &Bytes) -> Result<Vec<Entry>, FrameError> {
    let most = raw.len() / RECORD_HEADER_BYTES;
    let mut entries = Vec::with_capacity(most.min(header.record_count as usize));
    let mut at = 0;
    let mut next_seq = header.first_seq;
    while at < raw.len() {
        if raw.len() - at < RECORD_HEADER_BYTES {
            return Err(FrameError::Payload);
        }
        let bytes = u32_at(raw, at) as usize;
        let kind = raw[at + 4];
        let seq = u64_at(raw, at + 8);
        at += RECORD_HEADER_BYTES;
        if raw.len() - at < bytes || seq < next_seq || seq > header.last_seq {
            return Err(FrameError::Payload);
        }
        entries.push(Entry { seq, kind, payload: raw.slice(at..at + bytes) });
        at += bytes;
        next_seq = seq + 1;
    }
    let span = header.last_seq + 1 - header.first_seq;
    let complete = entries.len() == header.record_count as usize
        && (header.flags & FLAG_COMPACTED != 0 || entries.len() as u64 == span);
    if complete { Ok(entries) } else { Err(FrameError::Payload) }
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().expect("a slice of 4 bytes"))
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().expect("a slice of 8 bytes"))
}

fn u128_at(data: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(data[at..at + 16].try_into().expect("a slice of 16 bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SEED: u64 = 0x5eed;

    fn context() -> FrameContext {
        FrameContext { seed: SEED, prev_hash: 77, durable_seq: 9, written_at_ms: 1234 }
    }

    /// A frame of the given payloads from number 10 on.
    fn build(payloads: &[Vec<u8>], compress: bool) -> Vec<u8> {
        let mut raw = Vec::new();
        for (payload, seq) in payloads.iter().zip(10..) {
            push_record(&mut raw, seq, 3, payload);
        }
        let compressed = lz4_flex::block::compress(&raw);
        let span = Span {
            first_seq: 10,
            last_seq: 9 + payloads.len() as u64,
            record_count: payloads.len() as u32,
            flags: if compress { FLAG_COMPRESSED } else { 0 },
            payload_raw_bytes: raw.len() as u32,
        };
        let mut out = Vec::new();
        encode(&mut out, &context(), &span, if compress { &compressed } else { &raw });
        out
    }

    #[test]
    fn a_heartbeat_takes_one_sector_and_spans_nothing() {
        let mut out = Vec::new();
        encode_heartbeat(&mut out, &context(), 10);
        assert_eq!(out.len(), HEARTBEAT_BYTES);
        let frame = decode(&Bytes::from(out), SEED).unwrap();
        assert!(frame.header.is_heartbeat());
        assert_eq!(frame.entries().unwrap(), []);
    }

    #[test]
    fn a_bridge_names_the_hash_at_which_the_chain_goes_on() {
        let mut out = Vec::new();
        let bridge = Bridge { first_seq: 10, last_seq: 20, lost: true, resumes: 99 };
        encode_bridge(&mut out, &context(), &bridge);
        let frame = decode(&Bytes::from(out), SEED).unwrap();
        assert!(frame.header.is_lost());
        assert_eq!(frame.successor_prev_hash(), 99);
    }

    #[test]
    fn a_whole_frame_with_a_wrong_record_count_is_refused() {
        let mut raw = Vec::new();
        push_record(&mut raw, 10, 3, b"one");
        let span = Span {
            first_seq: 10,
            last_seq: 11,
            record_count: 2,
            flags: 0,
            payload_raw_bytes: raw.len() as u32,
        };
        let mut out = Vec::new();
        encode(&mut out, &context(), &span, &raw);
        let frame = decode(&Bytes::from(out), SEED).unwrap();
        assert_eq!(frame.entries(), Err(FrameError::Payload));
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_went_in(
            payloads in vec(vec(any::<u8>(), 0..300), 1..20),
            compress: bool,
        ) {
            let stored = build(&payloads, compress);
            prop_assert_eq!(stored.len() % FRAME_ALIGN, 0);
            let frame = decode(&Bytes::from(stored), SEED).unwrap();
            let entries = frame.entries().unwrap();
            prop_assert_eq!(entries.len(), payloads.len());
            for ((entry, payload), seq) in entries.iter().zip(&payloads).zip(10..) {
                prop_assert_eq!((entry.seq, entry.kind), (seq, 3));
                prop_assert_eq!(entry.payload.as_ref(), payload.as_slice());
            }
        }

        #[test]
        fn any_changed_byte_is_noticed(
            payloads in vec(vec(any::<u8>(), 0..300), 1..20),
            compress: bool,
            at: prop::sample::Index,
            change in 1..=255_u8,
        ) {
            let mut stored = build(&payloads, compress);
            let at = at.index(stored.len());
            stored[at] ^= change;
            prop_assert!(decode(&Bytes::from(stored), SEED).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut data in vec(any::<u8>(), 0..2000), forge: bool) {
            if forge && data.len() >= FRAME_HEADER_BYTES {
                // A header with a right checksum gets past the first gate.
                data[..4].copy_from_slice(b"MFRM");
                let crc = crc32c::crc32c(&data[..92]);
                data[92..96].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = decode_header(&data);
            let _ = decode(&Bytes::from(data), SEED);
        }

        #[test]
        fn forged_payloads_never_panic(
            payload in vec(any::<u8>(), 0..500),
            record_count in 0..40_u32,
            span in 0..40_u64,
            flags in 0..16_u32,
            payload_raw_bytes in 0..5000_u32,
        ) {
            let span = Span {
                first_seq: 10,
                last_seq: 9 + span,
                record_count,
                flags,
                payload_raw_bytes,
            };
            let mut out = Vec::new();
            encode(&mut out, &context(), &span, &payload);
            let frame = decode(&Bytes::from(out), SEED).unwrap();
            let _ = frame.entries();
            let _ = frame.successor_prev_hash();
        }

        #[test]
        fn a_cut_frame_is_no_frame(payloads in vec(vec(any::<u8>(), 0..300), 1..5), at: prop::sample::Index) {
            let stored = build(&payloads, false);
            let cut = at.index(stored.len());
            prop_assert!(decode(&Bytes::from(stored).slice(..cut), SEED).is_err());
        }
    }
}
