//! Blocks of stored documents: [`BlocksWriter`] packs encoded documents into compressed blocks,
//! [`Blocks`] reads one document or walks over many, decompressing each block once.
//!
//! A block holds whole documents, about [`BLOCK_BYTES`] before compression; a longer document has a
//! block of its own. Table entry: first ordinal u32, raw bytes u32, stored bytes u32, codec u32,
//! offset from the beginning of the file u64, xxh3 of the stored bytes u64. A document's place
//! inside its block is its entry in the text offsets; it ends where the next one begins.

use std::io::{self, Write};

use xxhash_rust::xxh3::xxh3_64;

use super::damage::Damage;
use super::little_endian::{u32_at, u64_at};
use super::sections::{BLOCK_TABLE, BLOCKS, Sections, SectionsWriter, TEXT_OFFSETS};

/// Bytes of documents in a block before compression. Measured on 52 MB of Rust sources with their
/// documentation on one core: blocks of 4, 8, 16 and 64 KiB are stored in 0.46, 0.41, 0.38 and 0.34 of
/// their size, checksum included, and read in a row at 1.8, 2.1, 1.8 and 3.3 GB/s; but one document
/// costs its whole block, 2.6, 6.2, 9.7 and 29 µs, and a search reads some twenty. All documents are an
/// eighth of a data directory, so what smaller blocks add to it is a fiftieth.
pub(super) const BLOCK_BYTES: usize = 4 << 10;

/// LZ4 is used where it saves at least an eighth. Raw blocks read five times as fast (11 GB/s), but a
/// matcher behind them rarely keeps pace with even 2 GB/s, and what does not fit into memory is read
/// from the disk, at less than either. Text that hardly shrinks stays raw: there it costs nothing.
const SAVING_SHIFT: u32 = 3;
/// The most an LZ4 block can expand to, per stored byte: one length byte stands for 255 bytes.
const EXPANSION_MAX: usize = 256;

const ENTRY_BYTES: usize = 32;
const RAW: u32 = 0;
const LZ4: u32 = 1;

/// Packs documents into blocks.
pub(super) struct BlocksWriter {
    start: u64,
    raw: Vec<u8>,
    compressed: Vec<u8>,
    table: Vec<u8>,
    /// Per document: its place in its block.
    offsets: Vec<u8>,
    first: u32,
    documents: u32,
    raw_bytes: u64,
}

impl BlocksWriter {
    pub(super) fn new<W: Write>(out: &SectionsWriter<W>) -> Self {
        Self {
            start: out.written(),
            raw: Vec::with_capacity(BLOCK_BYTES),
            compressed: Vec::new(),
            table: Vec::new(),
            offsets: Vec::new(),
            first: 0,
            documents: 0,
            raw_bytes: 0,
        }
    }

    /// Adds the next document.
    pub(super) fn push<W: Write>(
        &mut self,
        out: &mut SectionsWriter<W>,
        encoded: &[u8],
    ) -> io::Result<()> {
        if !self.raw.is_empty() && self.raw.len() + encoded.len() > BLOCK_BYTES {
            self.seal(out)?;
        }
        self.offsets.extend((self.raw.len() as u32).to_le_bytes());
        self.raw.extend_from_slice(encoded);
        self.raw_bytes += encoded.len() as u64;
        self.documents += 1;
        Ok(())
    }

    /// Adds a whole block as another segment stores it.
    pub(super) fn push_block<W: Write>(
        &mut self,
        out: &mut SectionsWriter<W>,
        block: &StoredBlock<'_>,
    ) -> io::Result<()> {
        self.seal(out)?;
        self.offsets.extend_from_slice(block.offsets);
        self.documents += (block.offsets.len() / 4) as u32;
        self.raw_bytes += u64::from(block.raw_bytes);
        self.entry(out, block.stored, block.raw_bytes, block.codec)
    }

    fn seal<W: Write>(&mut self, out: &mut SectionsWriter<W>) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let raw = std::mem::take(&mut self.raw);
        let mut compressed = std::mem::take(&mut self.compressed);
        compressed.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
        let length =
            lz4_flex::block::compress_into(&raw, &mut compressed).map_err(io::Error::other)?;
        let raw_bytes = raw.len() as u32;
        if length + (raw.len() >> SAVING_SHIFT) <= raw.len() {
            self.entry(out, &compressed[..length], raw_bytes, LZ4)?;
        } else {
            self.entry(out, &raw, raw_bytes, RAW)?;
        }
        self.raw = raw;
        self.raw.clear();
        self.raw.shrink_to(BLOCK_BYTES);
        compressed.shrink_to(2 * BLOCK_BYTES);
        self.compressed = compressed;
        Ok(())
    }

    fn entry<W: Write>(
        &mut self,
        out: &mut SectionsWriter<W>,
        stored: &[u8],
        raw_bytes: u32,
        codec: u32,
    ) -> io::Result<()> {
        for word in [self.first, raw_bytes, stored.len() as u32, codec] {
            self.table.extend(word.to_le_bytes());
        }
        self.table.extend(out.written().to_le_bytes());
        self.table.extend(xxh3_64(stored).to_le_bytes());
        self.first = self.documents;
        out.append(stored)
    }

    /// Writes the last block and the two tables; answers the bytes before compression.
    pub(super) fn finish<W: Write>(mut self, out: &mut SectionsWriter<W>) -> io::Result<u64> {
        self.seal(out)?;
        out.close(BLOCKS, self.start);
        out.section(BLOCK_TABLE, 0, &self.table)?;
        out.section(TEXT_OFFSETS, 0, &self.offsets)?;
        Ok(self.raw_bytes)
    }
}

/// A block as it is stored, to be copied into another segment.
pub(super) struct StoredBlock<'a> {
    stored: &'a [u8],
    raw_bytes: u32,
    codec: u32,
    offsets: &'a [u8],
}

/// The blocks of a segment.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    sections: &'a Sections,
    table: &'a [u8],
    offsets: &'a [u8],
    documents: u32,
}

/// The block that was read last, so that its neighbours need not read it again.
#[derive(Default)]
pub(super) struct OpenBlock {
    index: Option<u32>,
    entry: Entry,
    buffer: Vec<u8>,
}

#[derive(Clone, Default)]
struct Entry {
    first: u32,
    end: u32,
    raw_bytes: u32,
    stored_bytes: u32,
    codec: u32,
    offset: u64,
    checksum: u64,
}

impl OpenBlock {
    /// Forgets the block but keeps the memory; for the next segment.
    pub(super) fn reuse(self) -> Self {
        Self { index: None, ..self }
    }
}

impl<'a> Blocks<'a> {
    pub(super) fn open(sections: &'a Sections, documents: u32) -> Result<Self, Damage> {
        let table = sections.need(BLOCK_TABLE, 0)?;
        let offsets = sections.need(TEXT_OFFSETS, 0)?;
        if !table.len().is_multiple_of(ENTRY_BYTES) || offsets.len() != documents as usize * 4 {
            return Err(sections.damage("the tables of text blocks do not fit the documents"));
        }
        Ok(Self { sections, table, offsets, documents })
    }

    /// How many blocks there are.
    pub(super) fn count(&self) -> u32 {
        (self.table.len() / ENTRY_BYTES) as u32
    }

    fn first(&self, index: u32) -> u32 {
        u32_at(self.table, index as usize * ENTRY_BYTES).unwrap_or(self.documents)
    }

    fn entry(&self, index: u32) -> Option<Entry> {
        let entry = self.table.get(index as usize * ENTRY_BYTES..)?.get(..ENTRY_BYTES)?;
        Some(Entry {
            first: u32_at(entry, 0)?,
            end: self.first(index + 1),
            raw_bytes: u32_at(entry, 4)?,
            stored_bytes: u32_at(entry, 8)?,
            codec: u32_at(entry, 12)?,
            offset: u64_at(entry, 16)?,
            checksum: u64_at(entry, 24)?,
        })
    }

    fn stored(&self, entry: &Entry) -> Result<&'a [u8], Damage> {
        let stored = usize::try_from(entry.offset)
            .ok()
            .and_then(|at| self.sections.bytes().get(at..)?.get(..entry.stored_bytes as usize));
        let stored =
            stored.ok_or_else(|| self.sections.damage("a text block lies outside the file"))?;
        if xxh3_64(stored) != entry.checksum {
            return Err(self
                .sections
                .damage(format!("the text block at byte {} fails its checksum", entry.offset)));
        }
        Ok(stored)
    }

    fn index_of(&self, ordinal: u32) -> u32 {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.first(middle) <= ordinal { low = middle + 1 } else { high = middle }
        }
        low.saturating_sub(1)
    }

    /// The encoded document; `open` keeps its block for the next call.
    pub(super) fn document<'b>(
        &self,
        ordinal: u32,
        open: &'b mut OpenBlock,
    ) -> Result<&'b [u8], Damage>
    where
        'a: 'b,
    {
        let here = open.index.is_some() && (open.entry.first..open.entry.end).contains(&ordinal);
        if !here {
            let index = match open.index {
                Some(index) if open.entry.end == ordinal => index + 1,
                _ => self.index_of(ordinal),
            };
            self.read(index, open)?;
        }
        let block: &[u8] = if open.entry.codec == RAW {
            let at = open.entry.offset as usize;
            self.sections.bytes().get(at..at + open.entry.stored_bytes as usize).unwrap_or_default()
        } else {
            open.buffer.get(..open.entry.raw_bytes as usize).unwrap_or_default()
        };
        let start = u32_at(self.offsets, ordinal as usize * 4);
        let end = if ordinal + 1 < open.entry.end {
            u32_at(self.offsets, (ordinal as usize + 1) * 4)
        } else {
            Some(block.len() as u32)
        };
        start
            .zip(end)
            .and_then(|(start, end)| block.get(start as usize..end as usize))
            .ok_or_else(|| self.sections.damage("a document lies outside its text block"))
    }

    fn read(&self, index: u32, open: &mut OpenBlock) -> Result<(), Damage> {
        open.index = None;
        let entry = self
            .entry(index)
            .filter(|entry| entry.first < entry.end && entry.end <= self.documents)
            .ok_or_else(|| self.sections.damage("the table of text blocks is out of order"))?;
        let stored = self.stored(&entry)?;
        let raw_bytes = entry.raw_bytes as usize;
        let sound = match entry.codec {
            RAW => stored.len() == raw_bytes,
            LZ4 if raw_bytes <= stored.len().saturating_mul(EXPANSION_MAX) => {
                if open.buffer.len() < raw_bytes || open.buffer.len() > raw_bytes.max(BLOCK_BYTES) {
                    open.buffer.resize(raw_bytes.max(BLOCK_BYTES), 0);
                    open.buffer.shrink_to(raw_bytes.max(BLOCK_BYTES));
                }
                lz4_flex::block::decompress_into(stored, &mut open.buffer[..raw_bytes])
                    .is_ok_and(|length| length == raw_bytes)
            }
            _ => false,
        };
        if !sound {
            return Err(self.sections.damage(format!(
                "the text block at byte {} cannot be decompressed",
                entry.offset
            )));
        }
        open.entry = entry;
        open.index = Some(index);
        Ok(())
    }

    /// The ordinals in block `index`, and the block to copy where it is well filled.
    pub(super) fn block(
        &self,
        index: u32,
    ) -> Result<(std::ops::Range<u32>, Option<StoredBlock<'a>>), Damage> {
        let broken = || self.sections.damage("the table of text blocks is out of order");
        let entry = self.entry(index).ok_or_else(broken)?;
        let places = entry.first as usize * 4..entry.end as usize * 4;
        let offsets = self.offsets.get(places).ok_or_else(broken)?;
        let well_filled = entry.raw_bytes as usize >= BLOCK_BYTES / 2;
        let stored = if well_filled { Some(self.stored(&entry)?) } else { None };
        let (raw_bytes, codec) = (entry.raw_bytes, entry.codec);
        let block = stored.map(|stored| StoredBlock { stored, raw_bytes, codec, offsets });
        Ok((entry.first..entry.end, block))
    }

    /// Reads and decompresses every block.
    pub(super) fn verify(&self) -> Result<(), Damage> {
        let mut open = OpenBlock::default();
        let mut next = 0;
        for index in 0..self.count() {
            self.read(index, &mut open)?;
            if open.entry.first != next {
                return Err(self.sections.damage("the table of text blocks is out of order"));
            }
            next = open.entry.end;
        }
        if next == self.documents {
            Ok(())
        } else {
            Err(self.sections.damage("documents lie outside all text blocks"))
        }
    }
}
