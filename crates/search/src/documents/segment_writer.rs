//! [`SegmentWriter`]: makes a segment of documents that come in order of number.

use std::io::{self, Write};

use xxhash_rust::xxh3::xxh3_64;

use super::block::{BlocksWriter, StoredBlock};
use super::column::{Raws, encode};
use super::column_writer::ColumnsWriter;
use super::dictionary::DictionaryWriter;
use super::id_filter;
use super::sections::{COLUMN, DICTIONARY, ID_FILTER, ID_ORDINALS, META, NUMBERS, SectionsWriter};
use super::segment::{ID_FIELD, Meta};
use crate::document::{DecodeError, DocNumber, EncodedDocument};

pub(super) struct SegmentWriter<W: Write> {
    out: SectionsWriter<W>,
    blocks: BlocksWriter,
    numbers: Vec<DocNumber>,
    ids: Ids,
    columns: ColumnsWriter,
}

/// Ids in order of ordinal, one after the other.
#[derive(Default)]
struct Ids {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Ids {
    fn push(&mut self, id: &str) {
        self.bytes.extend_from_slice(id.as_bytes());
        self.ends.push(self.bytes.len());
    }

    fn get(&self, ordinal: u32) -> &[u8] {
        let at = ordinal as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }
}

impl<W: Write> SegmentWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let out = SectionsWriter::new(out)?;
        let blocks = BlocksWriter::new(&out);
        let (ids, columns) = (Ids::default(), ColumnsWriter::default());
        Ok(Self { out, blocks, numbers: Vec::new(), ids, columns })
    }

    /// Adds a document in its binary form.
    pub(super) fn push(&mut self, number: DocNumber, encoded: &[u8]) -> io::Result<()> {
        self.blocks.push(&mut self.out, encoded)?;
        self.describe(number, encoded)
    }

    /// Adds a whole stored block; [`SegmentWriter::describe`] follows for each of its documents.
    pub(super) fn push_block(&mut self, block: &StoredBlock<'_>) -> io::Result<()> {
        self.blocks.push_block(&mut self.out, block)
    }

    /// Enters a document whose text is written into ids and columns.
    pub(super) fn describe(&mut self, number: DocNumber, encoded: &[u8]) -> io::Result<()> {
        let damaged = |error: DecodeError| io::Error::new(io::ErrorKind::InvalidData, error);
        let document = EncodedDocument::read(encoded).map_err(damaged)?;
        let labels = document.labels().map_err(damaged)?;
        self.columns.push(self.numbers.len() as u32, &document, &labels);
        self.numbers.push(number);
        self.ids.push(document.id);
        Ok(())
    }

    /// How many documents were added.
    pub(super) fn documents(&self) -> u32 {
        self.numbers.len() as u32
    }

    /// Writes all that is left; answers the sink. There must be at least one document.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let raw_bytes = self.blocks.finish(&mut self.out)?;
        let documents = self.numbers.len() as u32;
        let (first, last) = self.numbers.first().copied().zip(self.numbers.last().copied()).ok_or(
            io::Error::new(io::ErrorKind::InvalidInput, "a segment needs at least one document"),
        )?;
        let meta = Meta { documents, first, last, raw_bytes };
        self.out.section(META, 0, &meta.to_bytes())?;
        if !meta.dense() {
            self.out.section(NUMBERS, 0, &little_endian(&self.numbers))?;
        }
        let ids = &self.ids;
        let hashes = (0..documents).map(|ordinal| xxh3_64(ids.get(ordinal)));
        self.out.section(ID_FILTER, 0, &id_filter::build(hashes))?;
        let mut sorted: Vec<u32> = (0..documents).collect();
        sorted.sort_by(|&a, &b| ids.get(a).cmp(ids.get(b)));
        let mut dictionary = DictionaryWriter::default();
        sorted.iter().for_each(|&ordinal| dictionary.push(ids.get(ordinal)));
        self.out.section(DICTIONARY, ID_FIELD, &dictionary.finish())?;
        self.out.section(ID_ORDINALS, 0, &little_endian(&sorted))?;
        let mut ranks = vec![0; sorted.len()];
        sorted.iter().zip(0..).for_each(|(&ordinal, rank)| ranks[ordinal as usize] = rank);
        let ordinals: Vec<u32> = (0..documents).collect();
        self.out.section(COLUMN, ID_FIELD, &encode(documents, &ordinals, &Raws::ranks(ranks)))?;
        self.columns.finish(documents, &mut self.out)?;
        self.out.finish().map(|(out, _)| out)
    }
}

fn little_endian(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
