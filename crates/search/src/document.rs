//! [`Document`]: what users store and find, its bounds, and its compact binary form.

use std::collections::BTreeMap;
use std::fmt;

/// The number of a document inside its collection: dense, rising in log order, never reused.
/// An update is a removal plus a new number.
pub type DocNumber = u32;

/// The longest `id`, in bytes. Ids are keys of term dictionaries and stand in every answer.
pub const ID_BYTES_MAX: usize = 512;
/// The longest `title` or `path`, in bytes.
pub const TITLE_BYTES_MAX: usize = 4096;
/// The longest `body`, in bytes: the largest source files in use (generated headers) stay below it,
/// and twice this (a document and its copy) stays far below a request's memory budget.
pub const BODY_BYTES_MAX: usize = 32 << 20;
/// The most tags on one document.
pub const TAGS_MAX: usize = 64;
/// The most attributes on one document.
pub const ATTRIBUTES_MAX: usize = 64;
/// The longest tag, attribute name, language name or string value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024;

/// The value of an attribute: usable in filters, facets and sort orders.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text, compared whole and byte for byte.
    String(String),
    /// A finite number.
    Number(f64),
    /// A point in time, in milliseconds since 1970-01-01T00:00:00Z.
    Date(i64),
    /// True or false.
    Boolean(bool),
}

/// A document as users see it. Absent text fields are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The user's key, unique in the collection: 1 to [`ID_BYTES_MAX`] bytes, no control characters.
    pub id: String,
    /// A headline.
    pub title: String,
    /// The text.
    pub body: String,
    /// Where it comes from, with `/` between the parts.
    pub path: String,
    /// A programming language (`rust`, `c`) or a natural one (`en`); lower case; empty when unknown.
    pub language: String,
    /// Labels.
    pub tags: Vec<String>,
    /// Named values.
    pub attributes: BTreeMap<String, Value>,
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field at fault, such as `id` or `attributes.price`.
    pub field: String,
    /// What is wrong, which bound it passes, and what to do.
    pub reason: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for Invalid {}

impl Document {
    /// Checks every bound; answers all that is wrong.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, reason: String| {
            faults.push(Invalid { field: field.to_string(), reason });
        };
        if self.id.is_empty() {
            fault("id", "is empty; give every document a key of its own".into());
        }
        if self.id.chars().any(char::is_control) {
            fault("id", "contains a control character; use printable characters".into());
        }
        for (field, bytes, bytes_max) in [
            ("id", self.id.len(), ID_BYTES_MAX),
            ("title", self.title.len(), TITLE_BYTES_MAX),
            ("path", self.path.len(), TITLE_BYTES_MAX),
            ("language", self.language.len(), VALUE_BYTES_MAX),
            ("body", self.body.len(), BODY_BYTES_MAX),
        ] {
            if bytes > bytes_max {
                fault(
                    field,
                    format!("has {bytes} bytes, the bound is {bytes_max}; shorten or split it"),
                );
            }
        }
        if self.tags.len() > TAGS_MAX {
            fault("tags", format!("has {} tags, the bound is {TAGS_MAX}", self.tags.len()));
        }
        if self.attributes.len() > ATTRIBUTES_MAX {
            let count = self.attributes.len();
            fault("attributes", format!("has {count} attributes, the bound is {ATTRIBUTES_MAX}"));
        }
        for tag in &self.tags {
            if tag.is_empty() || tag.len() > VALUE_BYTES_MAX {
                fault(
                    "tags",
                    format!("a tag has {} bytes; allowed are 1 to {VALUE_BYTES_MAX}", tag.len()),
                );
            }
        }
        for (name, value) in &self.attributes {
            let field = format!("attributes.{}", name.chars().take(64).collect::<String>());
            if name.is_empty() || name.len() > VALUE_BYTES_MAX {
                fault(
                    &field,
                    format!(
                        "its name has {} bytes; allowed are 1 to {VALUE_BYTES_MAX}",
                        name.len()
                    ),
                );
            }
            match value {
                Value::String(text) if text.len() > VALUE_BYTES_MAX => {
                    fault(
                        &field,
                        format!(
                            "has {} bytes, the bound is {VALUE_BYTES_MAX}; long text belongs in body",
                            text.len()
                        ),
                    );
                }
                Value::Number(number) if !number.is_finite() => {
                    fault(&field, "is not a finite number".into());
                }
                _ => {}
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Appends the binary form, version 1: fields in order, each a varint length and its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(ENCODING_VERSION);
        for text in [&self.id, &self.title, &self.path, &self.language, &self.body] {
            put_text(out, text);
        }
        put_varint(out, self.tags.len() as u64);
        for tag in &self.tags {
            put_text(out, tag);
        }
        put_varint(out, self.attributes.len() as u64);
        for (name, value) in &self.attributes {
            put_text(out, name);
            match value {
                Value::String(text) => {
                    out.push(0);
                    put_text(out, text);
                }
                Value::Number(number) => {
                    out.push(1);
                    out.extend(number.to_le_bytes());
                }
                Value::Date(at_ms) => {
                    out.push(2);
                    out.extend(at_ms.to_le_bytes());
                }
                Value::Boolean(truth) => {
                    out.push(3);
                    out.push(u8::from(*truth));
                }
            }
        }
    }

    /// Reads what [`Document::encode`] wrote; all of `bytes` must be used.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let encoded = EncodedDocument::read(bytes)?;
        let labels = encoded.labels()?;
        Ok(Self {
            id: encoded.id.to_string(),
            title: encoded.title.to_string(),
            body: encoded.body.to_string(),
            path: encoded.path.to_string(),
            language: encoded.language.to_string(),
            tags: labels.tags.into_iter().map(str::to_string).collect(),
            attributes: labels
                .attributes
                .into_iter()
                .map(|(name, value)| (name.to_string(), value.to_value()))
                .collect(),
        })
    }
}

/// A document read in place from its binary form: nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedDocument<'a> {
    /// The user's key.
    pub id: &'a str,
    /// A headline.
    pub title: &'a str,
    /// The text.
    pub body: &'a str,
    /// Where it comes from.
    pub path: &'a str,
    /// Its language.
    pub language: &'a str,
    /// Tags and attributes, not looked at yet, and where they begin.
    labels: (&'a [u8], usize),
}

/// The tags and attributes of an [`EncodedDocument`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels<'a> {
    /// Labels, in the order given.
    pub tags: Vec<&'a str>,
    /// Named values, in order of name.
    pub attributes: Vec<(&'a str, ValueRef<'a>)>,
}

/// A [`Value`] read in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// Text.
    String(&'a str),
    /// A finite number.
    Number(f64),
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Date(i64),
    /// True or false.
    Boolean(bool),
}

impl ValueRef<'_> {
    /// A copy that owns its text.
    pub fn to_value(self) -> Value {
        match self {
            Self::String(text) => Value::String(text.to_string()),
            Self::Number(number) => Value::Number(number),
            Self::Date(at_ms) => Value::Date(at_ms),
            Self::Boolean(truth) => Value::Boolean(truth),
        }
    }
}

impl<'a> EncodedDocument<'a> {
    /// Reads the text fields of what [`Document::encode`] wrote.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = Input { bytes, at: 0 };
        let version = input.byte()?;
        if version != ENCODING_VERSION {
            return Err(input.error("was written by another version"));
        }
        let id = input.text()?;
        let title = input.text()?;
        let path = input.text()?;
        let language = input.text()?;
        let body = input.text()?;
        Ok(Self { id, title, body, path, language, labels: (bytes, input.at) })
    }

    /// Reads tags and attributes; all bytes must be used.
    pub fn labels(&self) -> Result<Labels<'a>, DecodeError> {
        let (bytes, at) = self.labels;
        let mut input = Input { bytes, at };
        let tags = (0..input.varint()?).map(|_| input.text()).collect::<Result<_, _>>()?;
        let mut attributes = Vec::new();
        for _ in 0..input.varint()? {
            let name = input.text()?;
            let value = match input.byte()? {
                0 => ValueRef::String(input.text()?),
                1 => ValueRef::Number(f64::from_le_bytes(input.eight()?)),
                2 => ValueRef::Date(i64::from_le_bytes(input.eight()?)),
                3 => ValueRef::Boolean(input.byte()? != 0),
                _ => return Err(input.error("has a value of unknown type")),
            };
            attributes.push((name, value));
        }
        if input.at != bytes.len() {
            return Err(input.error("has bytes left over"));
        }
        Ok(Labels { tags, attributes })
    }
}

const ENCODING_VERSION: u8 = 1;

/// The binary form of a document is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The byte at which reading stopped.
    pub position: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stored document {} at byte {}", self.reason, self.position)
    }
}

impl std::error::Error for DecodeError {}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn error(&self, reason: &'static str) -> DecodeError {
        DecodeError { position: self.at, reason }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or_else(|| self.error("ends early"))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn eight(&mut self) -> Result<[u8; 8], DecodeError> {
        let bytes = self.take(8)?;
        bytes.try_into().map_err(|_| self.error("ends early"))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error("has a number of more than ten bytes"))
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| self.error("ends early"))?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.error("is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Document {
        Document {
            id: "a/b.rs".into(),
            title: "Ein Titel".into(),
            body: "fn main() {}\n".repeat(40),
            path: "a/b.rs".into(),
            language: "rust".into(),
            tags: vec!["x".into(), "日本".into()],
            attributes: [
                ("price".to_string(), Value::Number(-1.5)),
                ("at".to_string(), Value::Date(-7)),
                ("ok".to_string(), Value::Boolean(true)),
                ("who".to_string(), Value::String("me".into())),
            ]
            .into(),
        }
    }

    fn encoded(document: &Document) -> Vec<u8> {
        let mut out = Vec::new();
        document.encode(&mut out);
        out
    }

    #[test]
    fn a_document_survives_its_binary_form() {
        assert_eq!(Document::decode(&encoded(&sample())).unwrap(), sample());
    }

    #[test]
    fn every_fault_of_a_document_is_named_at_once() {
        let mut document = sample();
        document.id = String::new();
        document.tags.push(String::new());
        document.attributes.insert("nan".into(), Value::Number(f64::NAN));
        let faults = document.validate().unwrap_err();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["id", "tags", "attributes.nan"]);
        assert_eq!(sample().validate(), Ok(()));
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_an_error_or_a_document_but_never_a_panic(
            at in 0usize..600, byte: u8, cut in 0usize..600,
        ) {
            let mut bytes = encoded(&sample());
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = Document::decode(&bytes[..cut.min(length)]);
            let _ = Document::decode(&bytes);
        }
    }
}
