//! Postings of one term: documents in rising order, each with its frequency.
//!
//! A list of fewer than 128 postings is a run of varints. A longer one consists of blocks of 128, packed,
//! a last block of varints for the rest, then one row of metadata for each block, and at last the
//! peak of all:
//!
//! ```text
//! varints:  (document − the one before − 1) · 2 + (frequency = 1), then the frequency where it is not 1
//! packed:   128 gaps, 128 frequencies − 1
//! row:      last document (4 bytes), end of its data (4), peak (2), bits of a gap, bits of a
//!           frequency (1 each)
//! ```
//!
//! Reading checks every offset, and that documents rise and stay below the segment's count, so damaged
//! bytes give an error or wrong numbers within bounds, and never a panic.

use super::packing::{BLOCK, bits_needed, pack, packed_bytes, put_varint, take_varint_u32, unpack};
use super::scoring::Peak;

/// The bytes of a row of metadata.
pub(super) const ROW_BYTES: usize = 12;

/// The bits of a gap from which the sum of a block could pass 32 bits, so that order has to be checked.
const WIDE_GAP_BITS: u32 = 24;

const NO_PEAK: (f32, Peak) = (-1.0, Peak { frequency: 0, code: 0 });

/// A list is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListDamage;

/// Decoded postings of one block.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) documents: [u32; BLOCK],
    pub(super) frequencies: [u32; BLOCK],
    pub(super) length: usize,
}

impl Block {
    pub(super) fn new() -> Self {
        Self { documents: [0; BLOCK], frequencies: [0; BLOCK], length: 0 }
    }
}

/// Writes lists one after the other into one buffer.
pub(super) struct ListWriter {
    block: Block,
    rows: Vec<u8>,
    last: Option<u32>,
    start: usize,
    /// The greatest saturation in the block at hand, and whose it is.
    peak: (f32, Peak),
    /// The same for the finished blocks.
    list_peak: (f32, Peak),
}

impl ListWriter {
    pub(super) fn new() -> Self {
        Self {
            block: Block::new(),
            rows: Vec::new(),
            last: None,
            start: 0,
            peak: NO_PEAK,
            list_peak: NO_PEAK,
        }
    }

    /// Begins a list at the end of `out`.
    pub(super) fn begin(&mut self, out: &[u8]) {
        self.block.length = 0;
        self.rows.clear();
        self.last = None;
        self.start = out.len();
        self.peak = NO_PEAK;
        self.list_peak = NO_PEAK;
    }

    /// Adds a posting of a document whose length has `code`; documents rise. `saturation` is what the
    /// frequency comes to in a document of that length.
    #[inline]
    pub(super) fn push(
        &mut self,
        document: u32,
        frequency: u32,
        code: u8,
        saturation: f32,
        out: &mut Vec<u8>,
    ) {
        let at = self.block.length;
        self.block.documents[at] = document;
        self.block.frequencies[at] = frequency;
        self.block.length = at + 1;
        if saturation > self.peak.0 {
            self.peak = (saturation, Peak::new(frequency, code));
        }
        if at + 1 == BLOCK {
            self.flush_packed(out);
        }
    }

    /// Ends the list. Answers false when it passes 4 GiB and cannot be written.
    #[must_use]
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> bool {
        let is_short = self.rows.is_empty();
        if self.block.length > 0 {
            self.flush_varints(out, !is_short);
        }
        out.extend(&self.rows);
        if !is_short {
            out.extend([self.list_peak.1.frequency, self.list_peak.1.code]);
        }
        u32::try_from(out.len() - self.start).is_ok()
    }

    fn flush_packed(&mut self, out: &mut Vec<u8>) {
        let last_document = self.block.documents[BLOCK - 1];
        let mut before = self.last;
        for document in &mut self.block.documents {
            let gap = gap(before, *document);
            before = Some(*document);
            *document = gap;
        }
        self.block
            .frequencies
            .iter_mut()
            .for_each(|frequency| *frequency = frequency.wrapping_sub(1));
        let gap_bits = bits_needed(&self.block.documents);
        let frequency_bits = bits_needed(&self.block.frequencies);
        pack(&self.block.documents, gap_bits, out);
        pack(&self.block.frequencies, frequency_bits, out);
        self.row(last_document, out.len(), gap_bits as u8, frequency_bits as u8);
    }

    fn flush_varints(&mut self, out: &mut Vec<u8>, with_row: bool) {
        let mut before = self.last;
        let postings = self.block.documents.iter().zip(&self.block.frequencies);
        for (&document, &frequency) in postings.take(self.block.length) {
            let gap = u64::from(gap(before, document));
            put_varint(out, gap << 1 | u64::from(frequency == 1));
            if frequency != 1 {
                put_varint(out, u64::from(frequency));
            }
            before = Some(document);
        }
        if with_row {
            self.row(before.unwrap_or(0), out.len(), 0, 0);
        }
    }

    fn row(&mut self, last_document: u32, end: usize, gap_bits: u8, frequency_bits: u8) {
        self.rows.extend(last_document.to_le_bytes());
        self.rows.extend(((end - self.start) as u32).to_le_bytes());
        self.rows.extend([self.peak.1.frequency, self.peak.1.code, gap_bits, frequency_bits]);
        self.last = Some(last_document);
        self.block.length = 0;
        if self.peak.0 > self.list_peak.0 {
            self.list_peak = self.peak;
        }
        self.peak = NO_PEAK;
    }
}

fn gap(before: Option<u32>, document: u32) -> u32 {
    match before {
        Some(before) => document - before - 1,
        None => document,
    }
}

/// A list in place.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    data: &'a [u8],
    rows: &'a [[u8; ROW_BYTES]],
    length: usize,
    /// Every document is below this.
    documents: u32,
    /// The peak of all blocks; of a short list, which keeps none, the greatest possible.
    pub(super) peak: Peak,
}

/// A row of metadata.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) last_document: u32,
    end: usize,
    pub(super) peak: Peak,
    gap_bits: u8,
    frequency_bits: u8,
}

impl<'a> List<'a> {
    /// A list of `length` postings of documents below `documents`.
    pub(super) fn open(bytes: &'a [u8], length: u32, documents: u32) -> Result<Self, ListDamage> {
        let length = length as usize;
        if length == 0 {
            return Err(ListDamage);
        }
        let rows_count = if length < BLOCK { 0 } else { length.div_ceil(BLOCK) };
        if rows_count == 0 {
            return Ok(Self { data: bytes, rows: &[], length, documents, peak: Peak::default() });
        }
        let (bytes, &[frequency, code]) = bytes.split_last_chunk().ok_or(ListDamage)?;
        let peak = Peak { frequency, code };
        let data_bytes = bytes.len().checked_sub(rows_count * ROW_BYTES).ok_or(ListDamage)?;
        let (data, rows) = bytes.split_at(data_bytes);
        Ok(Self { data, rows: rows.as_chunks().0, length, documents, peak })
    }

    /// How many blocks there are; at least 1.
    pub(super) fn blocks(&self) -> usize {
        self.rows.len().max(1)
    }

    /// Whether the list is one block without metadata.
    pub(super) fn is_short(&self) -> bool {
        self.rows.is_empty()
    }

    #[inline]
    pub(super) fn row(&self, block: usize) -> Row {
        let [a, b, c, d, e, f, g, h, frequency, code, gap_bits, frequency_bits] = self.rows[block];
        let last_document = u32::from_le_bytes([a, b, c, d]);
        let end = u32::from_le_bytes([e, f, g, h]) as usize;
        let peak = Peak { frequency, code };
        Row { last_document, end, peak, gap_bits, frequency_bits }
    }

    #[inline]
    pub(super) fn last_document(&self, block: usize) -> u32 {
        let [a, b, c, d, ..] = self.rows[block];
        u32::from_le_bytes([a, b, c, d])
    }

    /// Decodes the documents of a block; the frequencies too where the block is varints, else
    /// [`List::frequencies`] does.
    pub(super) fn documents(&self, block: usize, out: &mut Block) -> Result<(), ListDamage> {
        if self.is_short() {
            out.length = self.length;
            return self.varints(self.data, None, out);
        }
        let row = self.row(block);
        let (start, before) = match block.checked_sub(1) {
            Some(previous) => {
                let previous = self.row(previous);
                (previous.end, Some(previous.last_document))
            }
            None => (0, None),
        };
        let data = self.data.get(start..row.end).ok_or(ListDamage)?;
        if (block + 1) * BLOCK > self.length {
            out.length = self.length - block * BLOCK;
            self.varints(data, before, out)?;
        } else {
            out.length = BLOCK;
            unpack(data, u32::from(row.gap_bits), &mut out.documents).ok_or(ListDamage)?;
            let mut next = before.map_or(0, |before| before.wrapping_add(1));
            for document in &mut out.documents {
                next = next.wrapping_add(*document);
                *document = next;
                next = next.wrapping_add(1);
            }
            let is_wide = u32::from(row.gap_bits) >= WIDE_GAP_BITS;
            if is_wide && !out.documents.is_sorted_by(|a, b| a < b) {
                return Err(ListDamage);
            }
        }
        let last = out.documents[out.length - 1];
        if last != row.last_document || last >= self.documents || before.is_some_and(|b| b >= last)
        {
            return Err(ListDamage);
        }
        Ok(())
    }

    /// Decodes the frequencies of a block whose documents are decoded.
    pub(super) fn frequencies(&self, block: usize, out: &mut Block) -> Result<(), ListDamage> {
        if self.is_short() || (block + 1) * BLOCK > self.length {
            return Ok(());
        }
        let row = self.row(block);
        let start = match block.checked_sub(1) {
            Some(previous) => self.row(previous).end,
            None => 0,
        };
        let start = start + packed_bytes(u32::from(row.gap_bits));
        let data = self.data.get(start..row.end).ok_or(ListDamage)?;
        unpack(data, u32::from(row.frequency_bits), &mut out.frequencies).ok_or(ListDamage)?;
        out.frequencies.iter_mut().for_each(|frequency| *frequency = frequency.wrapping_add(1));
        Ok(())
    }

    fn varints(
        &self,
        mut data: &[u8],
        before: Option<u32>,
        out: &mut Block,
    ) -> Result<(), ListDamage> {
        let mut next = before.map_or(0, |before| u64::from(before) + 1);
        for at in 0..out.length {
            let code = super::packing::take_varint(&mut data).ok_or(ListDamage)?;
            let document = next + (code >> 1);
            if document >= u64::from(self.documents) {
                return Err(ListDamage);
            }
            out.documents[at] = document as u32;
            out.frequencies[at] = match code & 1 {
                1 => 1,
                _ => take_varint_u32(&mut data).ok_or(ListDamage)?,
            };
            next = document + 1;
        }
        if data.is_empty() { Ok(()) } else { Err(ListDamage) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn written(postings: &BTreeMap<u32, u32>) -> Vec<u8> {
        let (mut out, mut writer) = (vec![9, 9, 9], ListWriter::new());
        writer.begin(&out);
        for (&document, &frequency) in postings {
            writer.push(document, frequency, 1, 0.5, &mut out);
        }
        assert!(writer.end(&mut out));
        out.split_off(3)
    }

    fn read(bytes: &[u8], length: usize, documents: u32) -> Result<Vec<(u32, u32)>, ListDamage> {
        let list = List::open(bytes, length as u32, documents)?;
        let (mut found, mut block) = (Vec::new(), Block::new());
        for at in 0..list.blocks() {
            list.documents(at, &mut block)?;
            list.frequencies(at, &mut block)?;
            let postings = block.documents.iter().zip(&block.frequencies).take(block.length);
            found.extend(postings.map(|(&document, &frequency)| (document, frequency)));
        }
        Ok(found)
    }

    fn some_postings() -> impl Strategy<Value = BTreeMap<u32, u32>> {
        let spread = prop_oneof![Just(700u32), Just(100_000), Just(u32::MAX - 1)];
        spread.prop_flat_map(|spread| {
            prop::collection::btree_map(
                0..spread,
                prop_oneof![Just(1u32), 1..5u32, any::<u32>().prop_map(|f| f.max(1))],
                2..500,
            )
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(postings in some_postings()) {
            let bytes = written(&postings);
            let expected: Vec<_> = postings.iter().map(|(&d, &f)| (d, f)).collect();
            prop_assert_eq!(read(&bytes, postings.len(), u32::MAX), Ok(expected));
        }

        #[test]
        fn damage_is_an_error_or_rising_documents_below_the_bound(
            postings in some_postings(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index, length in 1usize..600,
        ) {
            let mut bytes = written(&postings);
            let documents = postings.keys().last().unwrap() + 1;
            let position = at.index(bytes.len());
            bytes[position] = byte;
            let cut_bytes = &bytes[..cut.index(bytes.len() * 3).min(bytes.len())];
            for (bytes, length) in [(bytes.as_slice(), postings.len()), (cut_bytes, postings.len()), (bytes.as_slice(), length)] {
                if let Ok(found) = read(bytes, length, documents) {
                    prop_assert!(found.is_sorted_by(|a, b| a.0 < b.0));
                    prop_assert!(found.iter().all(|(document, _)| *document < documents));
                }
            }
        }
    }
}
