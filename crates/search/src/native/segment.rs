//! [`Segment`] and [`SegmentWriter`]: some documents' trigrams as one immutable run of bytes.
//!
//! The same bytes serve in memory and mapped from a file. Little-endian:
//!
//! ```text
//! magic "MSNATIVE", version u32, checksum of the case table u32
//! postings      coded lists (see `postings`), one after the other
//! signatures    one for each short document (see `signature`), one after the other
//! table         20 bytes for each trigram, rising: trigram u32, count u32, checksum u32, offset u64
//!               (a trigram in one unit only has no list: its offset is the unit)
//! units         16 bytes each (see `unit`)
//! numbers       u32 each: the document numbers, rising
//! ends          u32 each: where each document's signature ends, in words of 8 bytes
//! sums          u32 each: a checksum for the signatures of 256 documents
//! footer        postings bytes u64, signature bytes u64, text bytes u64, trigrams u32, units u32, documents u32,
//!               version u32, checksum u64 of all from the table on, checksum u64 of the footer
//! ```
//!
//! Invariants, checked by [`Segment::open`]: the sections fill the file; table and numbers rise;
//! units rise in (document, offset) and point to documents there are; ends do not fall. Lists are
//! checked when they are read, each against its own checksum, signatures when they are first read: opening a file of gigabytes reads only its tail.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::fold::fold_checksum;
use super::postings::{self, Corrupt, List};
use super::signature::{Signature, WORD_BYTES};
use super::trigram::Trigram;
use super::unit::{UNIT_RECORD, Unit};
use crate::document::DocNumber;
use crate::view::ViewError;

const MAGIC: &[u8; 8] = b"MSNATIVE";
/// The format this program writes, and the latest it reads.
pub(super) const VERSION: u32 = 2;
const HEADER: usize = 16;
const ENTRY: usize = 20;
const FOOTER: usize = 56;
/// Documents whose signatures share a checksum: some 10 KB, checked in a microsecond.
const SIGNED_DOCUMENTS: usize = 256;

/// Writes a segment trigram by trigram.
pub(super) struct SegmentWriter<W: Write> {
    out: W,
    unit_count: u32,
    postings_bytes: u64,
    table: Vec<u8>,
    list: Vec<u8>,
    /// Ends of the signatures so far, in words; checksums of the full groups.
    ends: Vec<u8>,
    sums: Vec<u8>,
    /// The signatures since the last full group, and how many documents they are of.
    group: Vec<u8>,
    grouped: usize,
    signature_bytes: u64,
}

impl<W: Write> SegmentWriter<W> {
    /// Starts a segment of `unit_count` units.
    pub(super) fn new(mut out: W, unit_count: u32) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&fold_checksum().to_le_bytes())?;
        Ok(Self {
            out,
            unit_count,
            postings_bytes: 0,
            table: Vec::new(),
            list: Vec::new(),
            ends: Vec::new(),
            sums: Vec::new(),
            group: Vec::new(),
            grouped: 0,
            signature_bytes: 0,
        })
    }

    /// Adds a trigram, higher than the one before, with its units, rising and at least one.
    pub(super) fn put(&mut self, trigram: Trigram, units: &[u32]) -> io::Result<()> {
        self.list.clear();
        let offset = if let [unit] = units {
            u64::from(*unit)
        } else {
            postings::encode(units, self.unit_count, &mut self.list);
            self.out.write_all(&self.list)?;
            self.postings_bytes
        };
        self.postings_bytes += self.list.len() as u64;
        self.table.extend_from_slice(&trigram.to_le_bytes());
        self.table.extend_from_slice(&(units.len() as u32).to_le_bytes());
        self.table.extend_from_slice(&(xxh3_64(&self.list) as u32).to_le_bytes());
        self.table.extend_from_slice(&offset.to_le_bytes());
        Ok(())
    }

    /// Adds the signature of the next document, after all trigrams; long documents have an empty one.
    pub(super) fn sign(&mut self, signature: &[u8]) -> io::Result<()> {
        self.group.extend_from_slice(signature);
        self.signature_bytes += signature.len() as u64;
        let end = u32::try_from(self.signature_bytes / WORD_BYTES as u64)
            .map_err(|_| io::Error::other("the signatures of one segment exceed 32 GiB"))?;
        self.ends.extend_from_slice(&end.to_le_bytes());
        self.grouped += 1;
        if self.grouped == SIGNED_DOCUMENTS { self.close_group() } else { Ok(()) }
    }

    fn close_group(&mut self) -> io::Result<()> {
        if self.grouped > 0 {
            self.out.write_all(&self.group)?;
            self.sums.extend_from_slice(&(xxh3_64(&self.group) as u32).to_le_bytes());
            self.group.clear();
            self.grouped = 0;
        }
        Ok(())
    }

    /// Writes what follows the signatures and hands the output back.
    pub(super) fn finish(mut self, units: &[Unit], numbers: &[DocNumber]) -> io::Result<W> {
        self.close_group()?;
        let mut tail = Vec::with_capacity(units.len() * UNIT_RECORD + numbers.len() * 4);
        for unit in units {
            tail.extend_from_slice(&unit.to_bytes());
        }
        for number in numbers {
            tail.extend_from_slice(&number.to_le_bytes());
        }
        let sections = [&self.table, &tail, &self.ends, &self.sums];
        let mut checksum = Xxh3Default::new();
        sections.iter().for_each(|section| checksum.update(section));
        let text_bytes: u64 = units.iter().map(|unit| u64::from(unit.bytes)).sum();
        let mut footer = Vec::with_capacity(FOOTER);
        footer.extend_from_slice(&self.postings_bytes.to_le_bytes());
        footer.extend_from_slice(&self.signature_bytes.to_le_bytes());
        footer.extend_from_slice(&text_bytes.to_le_bytes());
        for field in [self.table.len() / ENTRY, units.len(), numbers.len(), VERSION as usize] {
            footer.extend_from_slice(&(field as u32).to_le_bytes());
        }
        footer.extend_from_slice(&checksum.digest().to_le_bytes());
        footer.extend_from_slice(&xxh3_64(&footer).to_le_bytes());
        for section in sections {
            self.out.write_all(section)?;
        }
        self.out.write_all(&footer)?;
        Ok(self.out)
    }
}

/// An immutable part of the index.
#[derive(Debug)]
pub(super) struct Segment {
    /// For messages: the file name, or that it is still in memory.
    name: String,
    blob: Bytes,
    postings: Bytes,
    table: Bytes,
    units: Bytes,
    numbers: Bytes,
    signatures: Bytes,
    ends: Bytes,
    sums: Bytes,
    /// Which groups of signatures were found to match their checksum.
    checked: Box<[AtomicBool]>,
}

impl Segment {
    /// Reads the tail of a segment and checks it.
    pub(super) fn open(name: &str, blob: Bytes) -> Result<Self, ViewError> {
        let damaged = |reason: &str| ViewError::damaged(name, reason);
        if blob.len() < HEADER + FOOTER {
            return Err(damaged("it is too short"));
        }
        if !blob.starts_with(MAGIC) {
            return Err(damaged("it does not begin like a segment"));
        }
        let found = u32_at(&blob, 8);
        if found > VERSION {
            let file = name.to_string();
            return Err(ViewError::FutureFormat { file, found, supported: VERSION });
        }
        if u32_at(&blob, 12) != fold_checksum() {
            return Err(damaged("it was made with the case table of another Unicode version"));
        }
        if found < VERSION {
            return Err(damaged(&format!(
                "it has format {found} of an earlier version; this one reads {VERSION}"
            )));
        }
        let footer = &blob[blob.len() - FOOTER..];
        if xxh3_64(&footer[..FOOTER - 8]) != u64_at(footer, FOOTER - 8) {
            return Err(damaged("its footer does not match its checksum"));
        }
        let (trigrams, unit_count) = (u32_at(footer, 24) as usize, u32_at(footer, 28) as usize);
        let documents = u32_at(footer, 32) as usize;
        let groups = documents.div_ceil(SIGNED_DOCUMENTS);
        let lengths = [
            u64_at(footer, 0) as usize,
            u64_at(footer, 8) as usize,
            trigrams * ENTRY,
            unit_count * UNIT_RECORD,
            documents * 4,
            documents * 4,
            groups * 4,
        ];
        let whole = lengths.iter().try_fold(HEADER + FOOTER, |sum, &part| sum.checked_add(part));
        if whole != Some(blob.len()) {
            return Err(damaged("its sections do not fill it"));
        }
        let mut at = HEADER;
        let [postings, signatures, table, units, numbers, ends, sums] = lengths.map(|length| {
            at += length;
            blob.slice(at - length..at)
        });
        if xxh3_64(&blob[HEADER + lengths[0] + lengths[1]..blob.len() - FOOTER])
            != u64_at(footer, 40)
        {
            return Err(damaged("its tables do not match their checksum"));
        }
        let name = name.to_string();
        let checked = (0..groups).map(|_| AtomicBool::new(false)).collect();
        let segment =
            Self { name, blob, postings, table, units, numbers, signatures, ends, sums, checked };
        segment.check_order()?;
        Ok(segment)
    }

    /// The invariants that readers lean on; a checksum only says that the writer wrote this.
    fn check_order(&self) -> Result<(), ViewError> {
        let damaged = |reason: &str| Err(ViewError::damaged(&self.name, reason));
        if !(0..self.trigram_count()).map(|i| self.entry(i).trigram).is_sorted_by(|a, b| a < b) {
            return damaged("its trigrams do not rise");
        }
        if !self.numbers().is_sorted_by(|a, b| a < b) {
            return damaged("its document numbers do not rise");
        }
        let mut units = (0..self.unit_count()).map(|i| self.unit(i));
        if !units.clone().is_sorted_by(|a, b| (a.document, a.offset) < (b.document, b.offset)) {
            return damaged("its units do not rise");
        }
        let documents = self.document_count();
        if units.next().is_some_and(|unit| (unit.document, unit.offset) != (0, 0))
            || units.any(|unit| unit.document >= documents)
            || (self.unit_count() == 0) != (documents == 0)
        {
            return damaged("its units do not cover its documents");
        }
        let ends = || (0..documents as usize).map(|at| u32_at(&self.ends, at * 4));
        let words = ends().next_back().map_or(0, |words| words as usize);
        if !ends().is_sorted() || words * WORD_BYTES != self.signatures.len() {
            return damaged("its signatures do not fill their section");
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Size of the segment in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.blob.len() as u64
    }

    /// Writes the whole segment.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.blob)
    }

    pub(super) fn document_count(&self) -> u32 {
        (self.numbers.len() / 4) as u32
    }

    /// The document number at a position of the segment.
    pub(super) fn number(&self, document: u32) -> DocNumber {
        u32_at(&self.numbers, document as usize * 4)
    }

    /// All document numbers, rising.
    pub(super) fn numbers(&self) -> impl Iterator<Item = DocNumber> + '_ {
        (0..self.document_count()).map(|document| self.number(document))
    }

    pub(super) fn unit_count(&self) -> u32 {
        (self.units.len() / UNIT_RECORD) as u32
    }

    pub(super) fn unit(&self, unit: u32) -> Unit {
        let at = unit as usize * UNIT_RECORD;
        self.units[at..]
            .first_chunk()
            .map_or(Unit { document: 0, offset: 0, line: 0, bytes: 0 }, Unit::from_bytes)
    }

    /// The documents of a unit, by position.
    pub(super) fn documents_of(&self, unit: u32) -> std::ops::Range<u32> {
        let first = self.unit(unit).document;
        let end = if unit + 1 < self.unit_count() {
            self.unit(unit + 1).document
        } else {
            self.document_count()
        };
        first..end.max(first + 1)
    }

    /// The signatures of documents by position, checked against their checksums.
    pub(super) fn signatures(
        &self,
        documents: std::ops::Range<u32>,
    ) -> Result<impl Iterator<Item = Signature<'_>>, Corrupt> {
        let (first, end) = (documents.start as usize, documents.end as usize);
        for group in first / SIGNED_DOCUMENTS..end.div_ceil(SIGNED_DOCUMENTS) {
            self.check_group(group)?;
        }
        let ends = self.ends.get(first * 4..end * 4).ok_or(Corrupt)?.as_chunks::<4>().0;
        let mut start = self.signature_start(first);
        Ok(ends.iter().map(move |end| {
            let end = u32::from_le_bytes(*end) as usize * WORD_BYTES;
            // The ends rise within the section, as was checked when the segment was opened.
            let signature = &self.signatures[start..end];
            start = end;
            Signature(signature)
        }))
    }

    /// Where the signature of the document at a position begins.
    fn signature_start(&self, document: usize) -> usize {
        match document {
            0 => 0,
            some => u32_at(&self.ends, (some - 1) * 4) as usize * WORD_BYTES,
        }
    }

    fn check_group(&self, group: usize) -> Result<(), Corrupt> {
        let checked = self.checked.get(group).ok_or(Corrupt)?;
        if checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let first = group * SIGNED_DOCUMENTS;
        let end = (first + SIGNED_DOCUMENTS).min(self.document_count() as usize);
        let bytes = &self.signatures[self.signature_start(first)..self.signature_start(end)];
        if xxh3_64(bytes) as u32 != u32_at(&self.sums, group * 4) {
            return Err(Corrupt);
        }
        checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn trigram_count(&self) -> usize {
        self.table.len() / ENTRY
    }

    /// The table entry at a position.
    pub(super) fn entry(&self, index: usize) -> Entry {
        let raw = &self.table[index * ENTRY..][..ENTRY];
        Entry {
            trigram: u32_at(raw, 0),
            count: u32_at(raw, 4),
            checksum: u32_at(raw, 8),
            offset: u64_at(raw, 12),
            index,
        }
    }

    /// The entry of a trigram, `None` when no unit has it.
    pub(super) fn find(&self, trigram: Trigram) -> Option<Entry> {
        let (mut low, mut high) = (0, self.trigram_count());
        while low < high {
            let middle = low + (high - low) / 2;
            match u32_at(&self.table, middle * ENTRY).cmp(&trigram) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.entry(middle)),
            }
        }
        None
    }

    /// The list of an entry, checked against its checksum.
    pub(super) fn list(&self, entry: &Entry) -> Result<List<'_>, Corrupt> {
        if entry.count == 1 {
            return u32::try_from(entry.offset).map(List::One).map_err(|_| Corrupt);
        }
        let next = (entry.index + 1..self.trigram_count())
            .map(|index| self.entry(index))
            .find(|next| next.count != 1);
        let start = usize::try_from(entry.offset).map_err(|_| Corrupt)?;
        let end = next.map_or(Ok(self.postings.len()), |next| usize::try_from(next.offset));
        let bytes = self.postings.get(start..end.map_err(|_| Corrupt)?).ok_or(Corrupt)?;
        if xxh3_64(bytes) as u32 != entry.checksum {
            return Err(Corrupt);
        }
        List::from_bytes(bytes)
    }
}

/// What the table says about one trigram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) trigram: Trigram,
    /// How many units have it.
    pub(super) count: u32,
    checksum: u32,
    offset: u64,
    index: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw))
}
