//! [`Segment`]: an immutable run of documents, in memory or in a mapped file.
//!
//! Inside a segment documents have ordinals 0, 1, 2 … in order of their numbers. Numbers rise but
//! may have gaps; where they have none they are not stored. A segment knows nothing of removals.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::block::{Blocks, OpenBlock};
use super::column::Column;
use super::damage::Damage;
use super::dictionary::{BROKEN, Dictionary};
use super::field::{Field, FieldType};
use super::id_filter::IdFilter;
use super::little_endian::{text_at, u32_at, u64_at};
use super::sections::{
    COLUMN, DICTIONARY, FIELDS, ID_FILTER, ID_ORDINALS, META, NUMBERS, Sections,
};
use crate::document::DocNumber;
use crate::view::ViewError;

/// The field index of the id: its dictionary is the id table.
pub(super) const ID_FIELD: u32 = 0;

pub(super) struct Segment {
    id: u64,
    place: Place,
    sections: Sections,
    meta: Meta,
    columns: Columns,
}

/// The field index of each column, by whether it is an attribute and its name, then by type.
type Columns = HashMap<(bool, String), [Option<u32>; 4]>;

/// Where the bytes of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory only: the next checkpoint writes them.
    Memory,
    /// In a finished file.
    File,
}

/// Counts of a segment.
#[derive(Clone, Copy)]
pub(super) struct Meta {
    /// At least 1.
    pub(super) documents: u32,
    pub(super) first: DocNumber,
    pub(super) last: DocNumber,
    /// Bytes of documents before compression.
    pub(super) raw_bytes: u64,
}

impl Meta {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [self.documents, self.first, self.last, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(self.raw_bytes.to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (documents, first, last) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?, u32_at(bytes, 8)?);
        let raw_bytes = u64_at(bytes, 16)?;
        let room = last.checked_sub(first)?;
        (documents > 0 && documents - 1 <= room).then_some(Self {
            documents,
            first,
            last,
            raw_bytes,
        })
    }

    /// Whether numbers have no gap.
    pub(super) fn dense(self) -> bool {
        self.last - self.first == self.documents - 1
    }
}

/// The file name of segment `id`.
pub(super) fn file_name(id: u64) -> String {
    format!("segment-{id}")
}

/// The id in a file name that [`file_name`] made.
pub(super) fn id_of_file(name: &str) -> Option<u64> {
    name.strip_prefix("segment-")?.parse().ok()
}

impl Segment {
    /// Reads the frame of a segment; its contents are read and verified when they are used.
    pub(super) fn open(id: u64, place: Place, bytes: Bytes) -> Result<Self, ViewError> {
        let file: Arc<str> = file_name(id).into();
        let sections = Sections::open(&file, bytes)?;
        let meta = Meta::parse(sections.need(META, 0)?)
            .ok_or_else(|| sections.damage("its counts do not fit together"))?;
        let columns = read_fields(sections.need(FIELDS, 0)?)
            .ok_or_else(|| sections.damage("its list of fields is not well formed"))?;
        Ok(Self { id, place, sections, meta, columns })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn meta(&self) -> Meta {
        self.meta
    }

    pub(super) fn sections(&self) -> &Sections {
        &self.sections
    }

    pub(super) fn damage(&self, reason: &str) -> Damage {
        self.sections.damage(reason)
    }

    /// The stored numbers; empty when they have no gap.
    fn numbers(&self) -> Result<&[u8], Damage> {
        if self.meta.dense() { Ok(&[]) } else { self.sections.need(NUMBERS, 0) }
    }

    /// The number of the document at `ordinal`.
    pub(super) fn number(&self, ordinal: u32) -> Result<DocNumber, Damage> {
        if self.meta.dense() {
            return Ok(self.meta.first + ordinal);
        }
        u32_at(self.numbers()?, ordinal as usize * 4)
            .ok_or_else(|| self.damage("a document has no number"))
    }

    /// All numbers in order.
    pub(super) fn each_number(&self) -> Result<impl Iterator<Item = DocNumber> + '_, Damage> {
        let stored = self.numbers()?.as_chunks::<4>().0.iter().map(|raw| u32::from_le_bytes(*raw));
        let dense = self.meta.dense().then_some(self.meta.first..=self.meta.last);
        if !self.meta.dense() && stored.len() != self.meta.documents as usize {
            return Err(self.damage("the numbers do not fit the documents"));
        }
        Ok(stored.chain(dense.into_iter().flatten()))
    }

    /// The ordinal of a number, if the segment holds it.
    pub(super) fn ordinal(&self, number: DocNumber) -> Result<Option<u32>, Damage> {
        if !(self.meta.first..=self.meta.last).contains(&number) {
            return Ok(None);
        }
        if self.meta.dense() {
            return Ok(Some(number - self.meta.first));
        }
        let numbers = self.numbers()?.as_chunks::<4>().0;
        let found = numbers.binary_search_by_key(&number, |raw| u32::from_le_bytes(*raw));
        Ok(found.ok().map(|at| at as u32))
    }

    /// The sorted ids.
    pub(super) fn ids(&self) -> Result<Dictionary<'_>, Damage> {
        let bytes = self.sections.need(DICTIONARY, ID_FIELD)?;
        Dictionary::parse(bytes)
            .filter(|ids| ids.count() == self.meta.documents)
            .ok_or_else(|| self.damage(BROKEN))
    }

    /// The ordinal of the document whose id has this rank.
    pub(super) fn ordinal_of_id(&self, rank: u32) -> Result<u32, Damage> {
        u32_at(self.sections.need(ID_ORDINALS, 0)?, rank as usize * 4)
            .filter(|&ordinal| ordinal < self.meta.documents)
            .ok_or_else(|| self.damage("an id leads to no document"))
    }

    /// The document with this id.
    pub(super) fn find(&self, id: &str, hash: u64) -> Result<Option<DocNumber>, Damage> {
        if !IdFilter(self.sections.need(ID_FILTER, 0)?).may_hold(hash) {
            return Ok(None);
        }
        let found = self.ids()?.find(id.as_bytes()).ok_or_else(|| self.damage(BROKEN))?;
        found.ok().map(|rank| self.number(self.ordinal_of_id(rank)?)).transpose()
    }

    /// The column of a field's values of one type, with its dictionary where they are strings.
    pub(super) fn column(
        &self,
        field: Field<'_>,
        one: FieldType,
    ) -> Result<Option<(Column<'_>, Option<Dictionary<'_>>)>, Damage> {
        let name = match field {
            Field::BuiltIn(field) => (false, field.name().to_string()),
            Field::Attribute { name, .. } => (true, name.to_string()),
        };
        let Some(index) = self.columns.get(&name).and_then(|types| types[one as usize]) else {
            return Ok(None);
        };
        let Some(bytes) = self.sections.get(COLUMN, index)? else {
            return Ok(None);
        };
        let broken = || self.damage("a column is not well formed");
        let column = Column::parse(bytes, self.meta.documents).ok_or_else(broken)?;
        let dictionary = match one {
            FieldType::String => {
                let bytes = self.sections.need(DICTIONARY, index)?;
                Some(Dictionary::parse(bytes).ok_or_else(|| self.damage(BROKEN))?)
            }
            _ => None,
        };
        Ok(Some((column, dictionary)))
    }

    pub(super) fn blocks(&self) -> Result<Blocks<'_>, Damage> {
        Blocks::open(&self.sections, self.meta.documents)
    }

    /// Reads everything and compares every checksum; also reads every document.
    pub(super) fn verify(&self) -> Result<(), Damage> {
        self.sections.verify()?;
        let blocks = self.blocks()?;
        blocks.verify()?;
        let mut open = OpenBlock::default();
        for ordinal in 0..self.meta.documents {
            let encoded = blocks.document(ordinal, &mut open)?;
            let sound = crate::document::EncodedDocument::read(encoded)
                .and_then(|document| document.labels().map(drop));
            sound.map_err(|error| self.damage(&error.to_string()))?;
        }
        Ok(())
    }
}

fn read_fields(bytes: &[u8]) -> Option<Columns> {
    let mut columns = Columns::new();
    let (mut at, mut index) = (0, 0);
    while let Some(&kind) = bytes.get(at) {
        at += 1;
        let name = text_at(bytes, &mut at)?.to_string();
        let one = FieldType::ALL.get(usize::from(kind & 15))?;
        columns.entry((kind >> 4 == 1, name)).or_default()[*one as usize] = Some(index);
        index += 1;
    }
    Some(columns)
}
