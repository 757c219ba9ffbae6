//! [`Fields`]: the names that filters, facets and sort orders may use, with the types seen so far.
//!
//! Invariants: it only grows, in log order, and never forgets a name when its last document dies:
//! what a filter accepts does not depend on when merges ran.

use std::collections::BTreeMap;
use std::fmt;

use super::little_endian::{put_text, put_varint, text_at, varint_at};
use crate::document::{Value, ValueRef};
use crate::request::SearchError;

/// The most attribute names in a collection. Each costs a column in every segment that has it; data
/// with more names than this uses names as values.
pub const FIELDS_MAX: usize = 4096;

/// Puts an attribute's name beyond doubt: `attributes.language` is never the built-in `language`.
pub(super) const ATTRIBUTE_PREFIX: &str = "attributes.";

/// The type of a field's values. One attribute may have several, from different documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldType {
    /// Finite numbers.
    Number,
    /// Points in time.
    Date,
    /// True or false.
    Boolean,
    /// Text, compared byte for byte.
    String,
}

impl FieldType {
    pub(super) const ALL: [Self; 4] = [Self::Number, Self::Date, Self::Boolean, Self::String];

    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::String(_) => Self::String,
            Value::Number(_) => Self::Number,
            Value::Date(_) => Self::Date,
            Value::Boolean(_) => Self::Boolean,
        }
    }

    pub(super) fn of_ref(value: &ValueRef<'_>) -> Self {
        match value {
            ValueRef::String(_) => Self::String,
            ValueRef::Number(_) => Self::Number,
            ValueRef::Date(_) => Self::Date,
            ValueRef::Boolean(_) => Self::Boolean,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "number",
            Self::Date => "date",
            Self::Boolean => "boolean",
            Self::String => "string",
        })
    }
}

/// A field that every collection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum BuiltIn {
    Id,
    Path,
    Language,
    Title,
    Tags,
    /// Bytes of the body.
    Size,
    /// Parts of the path: 1 for `a.rs`, 2 for `src/a.rs`; missing without a path.
    Depth,
    /// What follows the last dot in the last part of the path; missing without a dot.
    Extension,
}

impl BuiltIn {
    pub(super) const ALL: [Self; 8] = [
        Self::Id,
        Self::Path,
        Self::Language,
        Self::Title,
        Self::Tags,
        Self::Size,
        Self::Depth,
        Self::Extension,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Path => "path",
            Self::Language => "language",
            Self::Title => "title",
            Self::Tags => "tags",
            Self::Size => "size",
            Self::Depth => "depth",
            Self::Extension => "extension",
        }
    }

    pub(super) const fn field_type(self) -> FieldType {
        match self {
            Self::Size | Self::Depth => FieldType::Number,
            _ => FieldType::String,
        }
    }
}

/// A field after its name was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    BuiltIn(BuiltIn),
    Attribute { name: &'a str, types: Types },
}

impl Field<'_> {
    pub(super) fn types(&self) -> Types {
        match self {
            Self::BuiltIn(field) => Types::only(field.field_type()),
            Self::Attribute { types, .. } => *types,
        }
    }
}

/// A set of field types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub(super) fn only(one: FieldType) -> Self {
        Self(one.bit())
    }

    pub(super) fn has(self, one: FieldType) -> bool {
        self.0 & one.bit() != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = FieldType> {
        FieldType::ALL.into_iter().filter(move |one| self.has(*one))
    }
}

/// A field that filters, facets and sort orders may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldInfo {
    /// Its name as filters take it.
    pub name: String,
    /// The types that its values have had, in the order in which sorting puts them.
    pub types: Vec<FieldType>,
    /// Whether every collection has it.
    pub built_in: bool,
}

/// All attribute names seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields {
    attributes: BTreeMap<String, Types>,
}

impl Fields {
    /// Whether a value of this name and type is new.
    pub(super) fn lacks(&self, name: &str, one: FieldType) -> bool {
        !self.attributes.get(name).is_some_and(|types| types.has(one))
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    pub(super) fn len(&self) -> usize {
        self.attributes.len()
    }

    pub(super) fn add(&mut self, name: &str, one: FieldType) {
        self.attributes.entry(name.to_string()).or_default().0 |= one.bit();
    }

    /// Built-in fields first, then attributes by name.
    pub(super) fn infos(&self) -> Vec<FieldInfo> {
        let built_in = BuiltIn::ALL.into_iter().map(|field| FieldInfo {
            name: field.name().to_string(),
            types: vec![field.field_type()],
            built_in: true,
        });
        let attributes = self.attributes.iter().map(|(name, types)| {
            let hidden = BuiltIn::ALL.iter().any(|field| field.name() == name);
            let prefix = if hidden { ATTRIBUTE_PREFIX } else { "" };
            FieldInfo {
                name: format!("{prefix}{name}"),
                types: types.iter().collect(),
                built_in: false,
            }
        });
        built_in.chain(attributes).collect()
    }

    /// The field that a user means by `name`; an unknown one is an error that names the known.
    pub(super) fn resolve<'a>(&self, name: &'a str) -> Result<Field<'a>, SearchError> {
        if let Some(field) = BuiltIn::ALL.into_iter().find(|field| field.name() == name) {
            return Ok(Field::BuiltIn(field));
        }
        let bare = name.strip_prefix(ATTRIBUTE_PREFIX);
        for name in [Some(name), bare].into_iter().flatten() {
            if let Some(&types) = self.attributes.get(name) {
                return Ok(Field::Attribute { name, types });
            }
        }
        Err(SearchError::query(self.unknown(name)))
    }

    fn unknown(&self, name: &str) -> String {
        let known = || {
            BuiltIn::ALL.iter().map(|f| f.name()).chain(self.attributes.keys().map(String::as_str))
        };
        let shown: String = name.chars().take(64).collect();
        let near = known()
            .map(|candidate| (edits(&shown, candidate), candidate))
            .min()
            .filter(|&(edits, candidate)| edits <= 1 + candidate.len() / 4);
        let mut message = format!("unknown field \"{shown}\"");
        if let Some((_, candidate)) = near {
            message += &format!("; did you mean \"{candidate}\"?");
        }
        const SHOWN_MAX: usize = 20;
        let list: Vec<_> = known().take(SHOWN_MAX).collect();
        let more = known().count().saturating_sub(SHOWN_MAX);
        message += &format!("; known are {}", list.join(", "));
        if more > 0 {
            message += &format!(" and {more} more");
        }
        message
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.attributes.len() as u64);
        for (name, types) in &self.attributes {
            put_text(out, name);
            out.push(types.0);
        }
    }

    pub(super) fn decode(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let mut attributes = BTreeMap::new();
        for _ in 0..varint_at(bytes, at)? {
            let name = text_at(bytes, at)?.to_string();
            let types = *bytes.get(*at)?;
            *at += 1;
            attributes.insert(name, Types(types));
        }
        Some(Self { attributes })
    }
}

/// Levenshtein's distance; both are at most some hundred characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unknown_field_names_the_nearest_and_the_known() {
        let mut fields = Fields::default();
        fields.add("price", FieldType::Number);
        let error = fields.resolve("prise").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown field \"prise\"; did you mean \"price\"?; \
             known are id, path, language, title, tags, size, depth, extension, price"
        );
        assert!(!fields.resolve("colour").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn a_built_in_name_wins_and_the_attribute_stays_reachable() {
        let mut fields = Fields::default();
        fields.add("language", FieldType::Number);
        assert_eq!(fields.resolve("language").unwrap(), Field::BuiltIn(BuiltIn::Language));
        let attribute = fields.resolve("attributes.language").unwrap();
        assert_eq!(attribute.types().iter().collect::<Vec<_>>(), [FieldType::Number]);
        assert_eq!(fields.infos().last().unwrap().name, "attributes.language");
    }

    #[test]
    fn fields_survive_their_binary_form() {
        let mut fields = Fields::default();
        fields.add("a", FieldType::Number);
        fields.add("a", FieldType::String);
        fields.add("b", FieldType::Date);
        let mut bytes = Vec::new();
        fields.encode(&mut bytes);
        assert_eq!(Fields::decode(&bytes, &mut 0).unwrap(), fields);
        assert_eq!(Fields::decode(&bytes[..bytes.len() - 1], &mut 0), None);
    }
}
