//! [`ColumnsWriter`]: gathers the values of documents that come in order and makes columns of them.

use std::collections::HashMap;
use std::io::{self, Write};

use super::column::{Raws, encode};
use super::dictionary::DictionaryWriter;
use super::field::{BuiltIn, FieldType};
use super::little_endian::put_text;
use super::sections::{COLUMN, DICTIONARY, FIELDS, SectionsWriter};
use super::segment::ID_FIELD;
use crate::document::{EncodedDocument, Labels, ValueRef};

/// All columns but the id, which the writer of the segment makes itself.
#[derive(Default)]
pub(super) struct ColumnsWriter {
    built_in: [ColumnWriter; BuiltIn::ALL.len()],
    attributes: HashMap<String, [Option<Box<ColumnWriter>>; 4]>,
}

#[derive(Default)]
struct ColumnWriter {
    ordinals: Vec<u32>,
    values: Values,
}

#[derive(Default)]
enum Values {
    #[default]
    None,
    /// The order in which strings came first, and each document's string by that.
    Strings(HashMap<Box<str>, u32>, Vec<u32>),
    Numbers(Vec<f64>),
    Integers(Vec<i64>),
}

impl ColumnWriter {
    fn push(&mut self, ordinal: u32, value: ValueRef<'_>) {
        self.ordinals.push(ordinal);
        match value {
            ValueRef::String(text) => self.values.push_string(text),
            ValueRef::Number(number) => self.values.push_number(number),
            ValueRef::Date(at_ms) => self.values.push_integer(at_ms),
            ValueRef::Boolean(truth) => self.values.push_integer(i64::from(truth)),
        }
    }

    fn write<W: Write>(
        self,
        documents: u32,
        field: u32,
        out: &mut SectionsWriter<W>,
    ) -> io::Result<()> {
        let Self { mut ordinals, values } = self;
        let raws = match values {
            Values::None => return Ok(()),
            Values::Numbers(numbers) => Raws::numbers(&numbers),
            Values::Integers(integers) => Raws::integers(&integers),
            Values::Strings(seen, values) => {
                let mut keys: Vec<(Box<str>, u32)> = seen.into_iter().collect();
                keys.sort_unstable();
                let mut ranks = vec![0; keys.len()];
                let mut dictionary = DictionaryWriter::default();
                for (rank, (key, came)) in keys.iter().enumerate() {
                    ranks[*came as usize] = rank as u64;
                    dictionary.push(key.as_bytes());
                }
                out.section(DICTIONARY, field, &dictionary.finish())?;
                let ranks = values.into_iter().map(|came| ranks[came as usize]);
                Raws::ranks(sort_values(&mut ordinals, ranks.collect()))
            }
        };
        out.section(COLUMN, field, &encode(documents, &ordinals, &raws))
    }
}

/// Puts the values of each document in order and drops repeated ones.
fn sort_values(ordinals: &mut Vec<u32>, ranks: Vec<u64>) -> Vec<u64> {
    if ordinals.windows(2).all(|pair| pair[0] < pair[1]) {
        return ranks;
    }
    let mut pairs: Vec<(u32, u64)> = ordinals.iter().copied().zip(ranks).collect();
    pairs.sort_unstable();
    pairs.dedup();
    *ordinals = pairs.iter().map(|pair| pair.0).collect();
    pairs.into_iter().map(|pair| pair.1).collect()
}

impl Values {
    fn push_string(&mut self, text: &str) {
        if matches!(self, Self::None) {
            *self = Self::Strings(HashMap::new(), Vec::new());
        }
        if let Self::Strings(seen, values) = self {
            let next = seen.len() as u32;
            let came = match seen.get(text) {
                Some(&came) => came,
                None => *seen.entry(text.into()).or_insert(next),
            };
            values.push(came);
        }
    }

    fn push_number(&mut self, number: f64) {
        match self {
            Self::Numbers(values) => values.push(number),
            _ => *self = Self::Numbers(vec![number]),
        }
    }

    fn push_integer(&mut self, integer: i64) {
        match self {
            Self::Integers(values) => values.push(integer),
            _ => *self = Self::Integers(vec![integer]),
        }
    }
}

/// How many parts a path has.
pub(super) fn depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

/// What follows the last dot in the last part of a path; empty without a dot.
pub(super) fn extension(path: &str) -> &str {
    let last = path.rsplit('/').next().unwrap_or_default();
    last.rsplit_once('.').map_or("", |(_, extension)| extension)
}

impl ColumnsWriter {
    /// Enters the values of the next document.
    pub(super) fn push(
        &mut self,
        ordinal: u32,
        document: &EncodedDocument<'_>,
        labels: &Labels<'_>,
    ) {
        let EncodedDocument { path, language, title, body, .. } = document;
        let texts = [
            (BuiltIn::Path, *path),
            (BuiltIn::Language, *language),
            (BuiltIn::Title, *title),
            (BuiltIn::Extension, extension(path)),
        ];
        for (field, text) in texts {
            if !text.is_empty() {
                self.built_in[field as usize].push(ordinal, ValueRef::String(text));
            }
        }
        if !path.is_empty() {
            let depth = ValueRef::Number(depth(path) as f64);
            self.built_in[BuiltIn::Depth as usize].push(ordinal, depth);
        }
        let size = ValueRef::Number(body.len() as f64);
        self.built_in[BuiltIn::Size as usize].push(ordinal, size);
        for tag in &labels.tags {
            self.built_in[BuiltIn::Tags as usize].push(ordinal, ValueRef::String(tag));
        }
        for (name, value) in &labels.attributes {
            if !self.attributes.contains_key(*name) {
                self.attributes.insert(name.to_string(), Default::default());
            }
            if let Some(types) = self.attributes.get_mut(*name) {
                let one = FieldType::of_ref(value) as usize;
                types[one].get_or_insert_default().push(ordinal, *value);
            }
        }
    }

    /// Writes the columns and their names.
    pub(super) fn finish<W: Write>(
        self,
        documents: u32,
        out: &mut SectionsWriter<W>,
    ) -> io::Result<()> {
        let mut names = Vec::new();
        let mut field = ID_FIELD;
        put_field(&mut names, false, BuiltIn::Id.name(), FieldType::String);
        for (built_in, column) in BuiltIn::ALL.into_iter().zip(self.built_in).skip(1) {
            field += 1;
            put_field(&mut names, false, built_in.name(), built_in.field_type());
            column.write(documents, field, out)?;
        }
        let mut attributes: Vec<_> = self.attributes.into_iter().collect();
        attributes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, types) in attributes {
            for (one, column) in FieldType::ALL.into_iter().zip(types) {
                if let Some(column) = column {
                    field += 1;
                    put_field(&mut names, true, &name, one);
                    column.write(documents, field, out)?;
                }
            }
        }
        out.section(FIELDS, 0, &names)
    }
}

fn put_field(out: &mut Vec<u8>, attribute: bool, name: &str, one: FieldType) {
    out.push(u8::from(attribute) << 4 | one as u8);
    put_text(out, name);
}
