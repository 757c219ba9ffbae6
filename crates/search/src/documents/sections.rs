//! [`Sections`]: the container of a segment, the same in memory and in a mapped file.
//!
//! ```text
//! header   magic (8) version u32 reserved u32
//! body     sections one after the other, each at a multiple of 8
//! table    per section: kind u32, field u32, offset u64, length u64, xxh3 u64; sorted by (kind, field)
//! trailer  table offset u64, table length u64, xxh3 u64 of header, table and the two before it
//! ```
//!
//! Invariants: opening reads header, table and trailer only, so that it costs the same for any size.
//! A section's checksum is verified at its first use and not again, because the mapping does not
//! change under us; [`Sections::verify`] reads them all. Blocks of text carry checksums of their own
//! and are left out ([`BLOCKS`] has checksum 0).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::damage::Damage;
use super::little_endian::{u32_at, u64_at};
use crate::view::ViewError;

/// The version written, and the highest one read.
pub(super) const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"MSTAYDOC";
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 32;
const TRAILER_BYTES: usize = 24;

/// What a section holds. The second half of its name is a field index, 0 where it concerns no field.
pub(super) const META: u32 = 1;
pub(super) const NUMBERS: u32 = 2;
pub(super) const BLOCKS: u32 = 3;
pub(super) const BLOCK_TABLE: u32 = 4;
pub(super) const TEXT_OFFSETS: u32 = 5;
pub(super) const ID_FILTER: u32 = 6;
pub(super) const ID_ORDINALS: u32 = 7;
pub(super) const FIELDS: u32 = 8;
pub(super) const DICTIONARY: u32 = 9;
pub(super) const COLUMN: u32 = 10;

/// Writes the container.
pub(super) struct SectionsWriter<W: Write> {
    out: W,
    written: u64,
    entries: BTreeMap<(u32, u32), Entry>,
}

struct Entry {
    offset: u64,
    length: u64,
    checksum: u64,
}

impl<W: Write> SectionsWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, written: 0, entries: BTreeMap::new() };
        writer.put(&header())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        let padding = (8 - self.written % 8) % 8;
        self.put(&[0u8; 8][..padding as usize])
    }

    /// Where the next byte of an open-ended section goes, from the beginning of the file.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Writes a part of the section that [`SectionsWriter::close`] ends; used for text blocks.
    pub(super) fn append(&mut self, part: &[u8]) -> io::Result<()> {
        self.put(part)
    }

    /// Ends a section that began at `offset` and was written with [`SectionsWriter::append`].
    pub(super) fn close(&mut self, kind: u32, offset: u64) {
        let length = self.written - offset;
        self.entries.insert((kind, 0), Entry { offset, length, checksum: 0 });
    }

    /// Writes one whole section.
    pub(super) fn section(&mut self, kind: u32, field: u32, contents: &[u8]) -> io::Result<()> {
        self.align()?;
        let entry = Entry {
            offset: self.written,
            length: contents.len() as u64,
            checksum: xxh3_64(contents),
        };
        self.entries.insert((kind, field), entry);
        self.put(contents)
    }

    /// Writes table and trailer; answers the sink and how many bytes it got.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        self.align()?;
        let offset = self.written;
        let mut table = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for ((kind, field), entry) in &self.entries {
            table.extend(kind.to_le_bytes());
            table.extend(field.to_le_bytes());
            table.extend(entry.offset.to_le_bytes());
            table.extend(entry.length.to_le_bytes());
            table.extend(entry.checksum.to_le_bytes());
        }
        let checksum = table_checksum(&header(), &table, offset);
        self.put(&table)?;
        self.put(&offset.to_le_bytes())?;
        self.put(&(table.len() as u64).to_le_bytes())?;
        self.put(&checksum.to_le_bytes())?;
        Ok((self.out, self.written))
    }
}

fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header
}

fn table_checksum(header: &[u8], table: &[u8], offset: u64) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(header);
    hash.update(table);
    hash.update(&offset.to_le_bytes());
    hash.update(&(table.len() as u64).to_le_bytes());
    hash.digest()
}

/// A container opened for reading.
pub(super) struct Sections {
    file: Arc<str>,
    bytes: Bytes,
    sections: Vec<Section>,
}

struct Section {
    name: (u32, u32),
    range: Range<usize>,
    checksum: u64,
    state: AtomicU8,
}

const UNREAD: u8 = 0;
const SOUND: u8 = 1;

impl Sections {
    /// Reads header, table and trailer.
    pub(super) fn open(file: &Arc<str>, bytes: Bytes) -> Result<Self, ViewError> {
        let damaged = |reason: &str| ViewError::from(Damage::new(file, reason));
        if bytes.len() < HEADER_BYTES + TRAILER_BYTES {
            return Err(damaged("it is shorter than an empty segment"));
        }
        if &bytes[..8] != MAGIC {
            return Err(damaged("it does not begin as a documents segment"));
        }
        let trailer = bytes.len() - TRAILER_BYTES;
        let word = |at: usize| u64_at(&bytes, at).unwrap_or(u64::MAX);
        let (offset, length, checksum) = (word(trailer), word(trailer + 8), word(trailer + 16));
        let table = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(length).ok())
            .filter(|(offset, length)| offset.checked_add(*length) == Some(trailer))
            .and_then(|(offset, _)| bytes.get(offset..trailer));
        let version = u32_at(&bytes, 8).unwrap_or(0);
        let sound = table
            .is_some_and(|table| table_checksum(&bytes[..HEADER_BYTES], table, offset) == checksum);
        if version > FORMAT_VERSION && (sound || table.is_none()) {
            let file = file.to_string();
            return Err(ViewError::FutureFormat {
                file,
                found: version,
                supported: FORMAT_VERSION,
            });
        }
        let table = table.filter(|_| sound && version == FORMAT_VERSION);
        let table = table.ok_or_else(|| damaged("its table of sections fails its checksum"))?;
        let sections = read_table(table, trailer)
            .ok_or_else(|| damaged("its table of sections names places outside the file"))?;
        Ok(Self { file: Arc::clone(file), bytes, sections })
    }

    /// The length of the whole container.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All of it, to be written elsewhere.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(super) fn damage(&self, reason: impl Into<String>) -> Damage {
        Damage::new(&self.file, reason)
    }

    /// The section of this name, its checksum verified.
    pub(super) fn get(&self, kind: u32, field: u32) -> Result<Option<&[u8]>, Damage> {
        let Ok(at) = self.sections.binary_search_by_key(&(kind, field), |s| s.name) else {
            return Ok(None);
        };
        let section = &self.sections[at];
        let contents = &self.bytes[section.range.clone()];
        if section.state.load(Ordering::Relaxed) == UNREAD {
            self.check(section, contents)?;
            section.state.store(SOUND, Ordering::Relaxed);
        }
        Ok(Some(contents))
    }

    /// Like [`Sections::get`] for a section that every segment has.
    pub(super) fn need(&self, kind: u32, field: u32) -> Result<&[u8], Damage> {
        let missing = || self.damage(format!("section {kind} of field {field} is missing"));
        self.get(kind, field)?.ok_or_else(missing)
    }

    /// Reads every section and compares its checksum, seen before or not.
    pub(super) fn verify(&self) -> Result<(), Damage> {
        self.sections.iter().try_for_each(|s| self.check(s, &self.bytes[s.range.clone()]))
    }

    fn check(&self, section: &Section, contents: &[u8]) -> Result<(), Damage> {
        let (kind, field) = section.name;
        if kind != BLOCKS && xxh3_64(contents) != section.checksum {
            let at = section.range.start;
            return Err(self.damage(format!(
                "section {kind} of field {field} at byte {at} fails its checksum"
            )));
        }
        Ok(())
    }
}

fn read_table(table: &[u8], body_end: usize) -> Option<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::with_capacity(table.len() / ENTRY_BYTES);
    for entry in table.chunks(ENTRY_BYTES) {
        let name = (u32_at(entry, 0)?, u32_at(entry, 4)?);
        let offset = usize::try_from(u64_at(entry, 8)?).ok()?;
        let length = usize::try_from(u64_at(entry, 16)?).ok()?;
        let end = offset.checked_add(length).filter(|&end| end <= body_end)?;
        if sections.last().is_some_and(|last| last.name >= name) {
            return None;
        }
        let checksum = u64_at(entry, 24)?;
        sections.push(Section { name, range: offset..end, checksum, state: AtomicU8::new(UNREAD) });
    }
    Some(sections)
}
