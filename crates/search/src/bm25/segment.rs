//! [`Segment`]: some documents and their postings as one immutable run of bytes, the same in memory and
//! in a file.
//!
//! Documents have ordinals from 0, in rising order of their numbers. Five sections stand one after the
//! other, then a trailer that says how long each is and what its checksum is:
//!
//! ```text
//! postings | dictionary blocks | dictionary index | length codes | numbers | trailer
//! ```
//!
//! Opening checks all but the postings, which are checked by [`Segment::verify`] and, block by block, by
//! their structure when they are read. All figures are little-endian.

use std::io::{self, Write};
use std::ops::Range;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::dictionary::{Dictionary, DictionaryWriter, Location};
use super::list::{List, ListDamage, ListWriter};
use super::scoring::{Norms, length_of_code};
use crate::document::DocNumber;
use crate::view::ViewError;

const MAGIC: &[u8; 8] = b"MSTYBM25";
/// The format written and the latest that is read.
const VERSION: u32 = 1;
const SECTIONS: usize = 5;
const TRAILER_BYTES: usize = 32 + SECTIONS * 16 + 8 + 12;

/// An open segment.
pub(super) struct Segment {
    name: String,
    bytes: Bytes,
    sections: [Range<usize>; SECTIONS],
    checksums: [u64; SECTIONS],
    documents: u32,
    total_length: u64,
    first: DocNumber,
}

impl Segment {
    /// Opens the bytes of a finished segment called `name`, written by analysis `chain`.
    pub(super) fn open(name: &str, bytes: Bytes, chain: u32) -> Result<Self, ViewError> {
        let segment = Self::parse(name, bytes, chain)?;
        for section in 1..SECTIONS {
            segment.verify_section(section)?;
        }
        segment.check_numbers()?;
        Ok(segment)
    }

    /// Reads the trailer alone; for bytes that this process has just written.
    pub(super) fn parse(name: &str, bytes: Bytes, chain: u32) -> Result<Self, ViewError> {
        let damaged = |reason: &str| ViewError::damaged(name, reason);
        let body_bytes = bytes.len().checked_sub(TRAILER_BYTES);
        let body_bytes = body_bytes.ok_or_else(|| damaged("it is shorter than its trailer"))?;
        let trailer = &bytes[body_bytes..];
        let (rest, magic) = trailer.split_at(TRAILER_BYTES - 8);
        if magic != MAGIC {
            return Err(damaged("it does not end with the mark of a bm25 segment"));
        }
        let mut fields = Fields { bytes: rest, at: rest.len() - 4 };
        let version = fields.u32();
        if version > VERSION {
            let file = name.to_string();
            return Err(ViewError::FutureFormat { file, found: version, supported: VERSION });
        }
        let signed = rest.len() - 12;
        fields.at = signed;
        if fields.u64() != xxh3_64(&rest[..signed]) {
            return Err(damaged("the checksum of its trailer does not fit"));
        }
        fields.at = 0;
        let found_chain = fields.u32();
        if found_chain != chain {
            return Err(damaged("its text was analysed in another way than this program does"));
        }
        let documents = fields.u32();
        let first = fields.u32();
        let _terms = fields.u32();
        let total_length = fields.u64();
        fields.at = 32;
        let (mut sections, mut checksums, mut end) =
            ([const { 0..0 }; SECTIONS], [0; SECTIONS], 0usize);
        for (section, checksum) in sections.iter_mut().zip(&mut checksums) {
            let bytes = usize::try_from(fields.u64()).ok();
            let next = bytes.and_then(|bytes| end.checked_add(bytes));
            let next = next.ok_or_else(|| damaged("a section is longer than memory"))?;
            (*section, *checksum) = (end..next, fields.u64());
            end = next;
        }
        let count = documents as usize;
        let numbers = sections[4].len();
        if end != body_bytes
            || sections[3].len() != count
            || !(numbers == count * 4 || numbers == 0)
            || !sections[2].len().is_multiple_of(4)
            || first.checked_add(documents).is_none()
        {
            return Err(damaged("its sections do not fit its length"));
        }
        Ok(Self {
            name: name.to_string(),
            bytes,
            sections,
            checksums,
            documents,
            total_length,
            first,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many documents it holds, removed ones included.
    pub(super) fn documents(&self) -> u32 {
        self.documents
    }

    /// The lengths of all documents together.
    pub(super) fn total_length(&self) -> u64 {
        self.total_length
    }

    /// The average length of its documents, as it was used to find peaks.
    pub(super) fn average_length(&self) -> f32 {
        average(self.total_length, u64::from(self.documents))
    }

    pub(super) fn dictionary(&self) -> Dictionary<'_> {
        Dictionary { blocks: self.section(1), index: self.section(2) }
    }

    /// The length code of every document.
    pub(super) fn lengths(&self) -> &[u8] {
        self.section(3)
    }

    /// The postings at a location that is a list.
    pub(super) fn list(
        &self,
        documents: u32,
        offset: u64,
        bytes: u64,
    ) -> Result<List<'_>, ListDamage> {
        let start = usize::try_from(offset).map_err(|_| ListDamage)?;
        let end = usize::try_from(bytes).ok().and_then(|bytes| start.checked_add(bytes));
        let bytes = self.section(0).get(start..end.ok_or(ListDamage)?).ok_or(ListDamage)?;
        List::open(bytes, documents, self.documents)
    }

    /// The number of the document with an ordinal below [`Segment::documents`].
    #[inline]
    pub(super) fn number(&self, ordinal: u32) -> DocNumber {
        match self.numbers().get(ordinal as usize) {
            Some(raw) => u32::from_le_bytes(*raw),
            None => self.first + ordinal,
        }
    }

    /// The first ordinal whose number is at least `number`.
    pub(super) fn ordinal_from(&self, number: DocNumber) -> u32 {
        let numbers = self.numbers();
        if numbers.is_empty() {
            return number.saturating_sub(self.first).min(self.documents);
        }
        numbers.partition_point(|raw| u32::from_le_bytes(*raw) < number) as u32
    }

    fn numbers(&self) -> &[[u8; 4]] {
        self.section(4).as_chunks().0
    }

    /// Checks the postings, which opening did not.
    pub(super) fn verify(&self) -> Result<(), ViewError> {
        self.verify_section(0)?;
        let damaged = |what: &str| ViewError::damaged(&self.name, what);
        let mut walk = self.dictionary().walk();
        let mut block = super::list::Block::new();
        let mut check = |location| match location {
            Location::Single { document, .. } => document < self.documents,
            Location::List { documents, offset, bytes } => {
                self.list(documents, offset, bytes).is_ok_and(|list| {
                    (0..list.blocks()).all(|at| {
                        list.documents(at, &mut block).is_ok()
                            && list.frequencies(at, &mut block).is_ok()
                    })
                })
            }
        };
        while let Some(location) =
            walk.advance().map_err(|_| damaged("its dictionary is broken"))?
        {
            if !check(location) {
                return Err(damaged("a list of postings is broken"));
            }
        }
        Ok(())
    }

    fn verify_section(&self, section: usize) -> Result<(), ViewError> {
        if xxh3_64(self.section(section)) == self.checksums[section] {
            return Ok(());
        }
        let what = ["postings", "dictionary", "dictionary index", "lengths", "numbers"][section];
        Err(ViewError::damaged(&self.name, format!("the checksum of its {what} does not fit")))
    }

    fn check_numbers(&self) -> Result<(), ViewError> {
        if self.numbers().is_sorted_by(|a, b| u32::from_le_bytes(*a) < u32::from_le_bytes(*b)) {
            return Ok(());
        }
        Err(ViewError::damaged(&self.name, "its document numbers do not rise"))
    }

    fn section(&self, section: usize) -> &[u8] {
        &self.bytes[self.sections[section].clone()]
    }
}

pub(super) fn average(total_length: u64, documents: u64) -> f32 {
    (total_length as f64 / documents.max(1) as f64) as f32
}

/// Fixed-width figures; callers stay within the length they have checked.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn take<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        let mut raw = [0; BYTES];
        raw.copy_from_slice(&self.bytes[self.at..self.at + BYTES]);
        self.at += BYTES;
        raw
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Writes a segment term by term.
pub(super) struct SegmentWriter<'a, W: Write> {
    out: W,
    lengths: &'a [u8],
    norms: Norms,
    total_length: u64,
    dictionary: DictionaryWriter,
    postings: ListWriter,
    /// Postings that are not yet written to `out`.
    buffer: Vec<u8>,
    position: u64,
    list_start: usize,
    digest: Xxh3,
    held: Option<(u32, u32)>,
    count: u32,
}

/// How many bytes of postings are collected before they are written.
const BUFFER_BYTES: usize = 256 << 10;

impl<'a, W: Write> SegmentWriter<'a, W> {
    /// Begins a segment of as many documents as there are length codes.
    pub(super) fn new(out: W, lengths: &'a [u8]) -> Self {
        let total_length = lengths.iter().map(|&code| u64::from(length_of_code(code))).sum();
        Self {
            out,
            lengths,
            norms: Norms::new(average(total_length, lengths.len() as u64)),
            total_length,
            dictionary: DictionaryWriter::default(),
            postings: ListWriter::new(),
            buffer: Vec::new(),
            position: 0,
            list_start: 0,
            digest: Xxh3::new(),
            held: None,
            count: 0,
        }
    }

    /// Adds a posting of the term that [`SegmentWriter::end_term`] will name; ordinals rise.
    #[inline]
    pub(super) fn push(&mut self, ordinal: u32, frequency: u32) {
        self.count += 1;
        match self.count {
            1 => self.held = Some((ordinal, frequency)),
            2 => {
                self.postings.begin(&self.buffer);
                self.list_start = self.buffer.len();
                if let Some((first, first_frequency)) = self.held.take() {
                    self.push_posting(first, first_frequency);
                }
                self.push_posting(ordinal, frequency);
            }
            _ => self.push_posting(ordinal, frequency),
        }
    }

    #[inline]
    fn push_posting(&mut self, ordinal: u32, frequency: u32) {
        let code = self.lengths[ordinal as usize];
        let saturation = self.norms.saturation(frequency, code);
        self.postings.push(ordinal, frequency, code, saturation, &mut self.buffer);
    }

    /// Ends a term; a term without postings is left out. Terms rise.
    pub(super) fn end_term(&mut self, term: &[u8]) -> io::Result<()> {
        let documents = std::mem::take(&mut self.count);
        let start = self.position;
        let location = match self.held.take() {
            Some((document, frequency)) => Location::Single { document, frequency },
            None if documents == 0 => return Ok(()),
            None => {
                if !self.postings.end(&mut self.buffer) {
                    return Err(io::Error::other("a list of postings would pass 4 GiB"));
                }
                let list_bytes = (self.buffer.len() - self.list_start) as u64;
                self.position += list_bytes;
                Location::List { documents, offset: start, bytes: list_bytes }
            }
        };
        if !self.dictionary.add(term, &location, start) {
            return Err(io::Error::other("the term dictionary would pass 4 GiB"));
        }
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.digest.update(&self.buffer);
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the segment of documents with these `numbers`, which rise, as many as there are length
    /// codes. Answers `out`, not yet flushed.
    pub(super) fn finish(mut self, numbers: &[DocNumber], chain: u32) -> io::Result<W> {
        self.flush()?;
        let first = numbers.first().copied().unwrap_or(0);
        let is_dense =
            numbers.last().is_none_or(|last| (last - first) as usize + 1 == numbers.len());
        let numbers_raw: Vec<u8> = if is_dense {
            Vec::new()
        } else {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
        let terms = self.dictionary.count();
        let (blocks, index) = self.dictionary.finish();
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        for field in [chain, numbers.len() as u32, first, terms] {
            trailer.extend(field.to_le_bytes());
        }
        trailer.extend(self.total_length.to_le_bytes());
        trailer.extend([0; 8]);
        trailer.extend(self.position.to_le_bytes());
        trailer.extend(self.digest.digest().to_le_bytes());
        for section in [blocks.as_slice(), &index, self.lengths, &numbers_raw] {
            self.out.write_all(section)?;
            trailer.extend((section.len() as u64).to_le_bytes());
            trailer.extend(xxh3_64(section).to_le_bytes());
        }
        let checksum = xxh3_64(&trailer);
        trailer.extend(checksum.to_le_bytes());
        trailer.extend(VERSION.to_le_bytes());
        trailer.extend(MAGIC);
        self.out.write_all(&trailer)?;
        Ok(self.out)
    }
}
