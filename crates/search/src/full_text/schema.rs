//! [`Fields`]: a document as tantivy's fields.

use std::sync::LazyLock;

use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, JsonObjectOptions, NumericOptions, OwnedValue, Schema,
    TantivyDocument, TextFieldIndexing, TextOptions,
};
use tantivy::store::Compressor;
use tantivy::{DateTime, IndexSettings};

use super::words::{NAMES, PARTS, RAW, STEMS};
use crate::document::Value;
use crate::view::Addition;

/// The fields of every index of this method.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) schema: Schema,
    pub(super) number: Field,
    pub(super) id: Field,
    pub(super) title: Field,
    pub(super) body: Field,
    pub(super) path: Field,
    pub(super) language: Field,
    pub(super) tags: Field,
    pub(super) attributes: Field,
}

/// The one schema. Changing it, or [`super::words`], needs a new [`super::manifest`] version.
pub(super) static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::new);

impl Fields {
    fn new() -> Self {
        let positions = IndexRecordOption::WithFreqsAndPositions;
        let text = |tokenizer: &str, record| {
            TextOptions::default().set_indexing_options(
                TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(record),
            )
        };
        let raw = TextOptions::default().set_indexing_options(
            TextFieldIndexing::default()
                .set_tokenizer(RAW)
                .set_fieldnorms(false)
                .set_index_option(IndexRecordOption::Basic),
        );
        let values = JsonObjectOptions::default()
            .set_fast(RAW)
            .set_expand_dots_enabled()
            .set_indexing_options(
                TextFieldIndexing::default().set_tokenizer(PARTS).set_index_option(positions),
            );
        let mut builder = Schema::builder();
        let number = NumericOptions::from(INDEXED) | FAST;
        Self {
            number: builder.add_u64_field("number", number),
            id: builder.add_text_field("id", raw.clone()),
            title: builder.add_text_field("title", text(STEMS, positions)),
            body: builder.add_text_field("body", text(STEMS, positions)),
            path: builder.add_text_field("path", text(NAMES, positions)),
            language: builder.add_text_field("language", raw),
            tags: builder.add_text_field("tags", text(NAMES, positions)),
            attributes: builder.add_json_field("attributes", values),
            schema: builder.build(),
        }
    }

    /// The document as tantivy takes it. Nothing is stored: text lives in the documents view.
    pub(super) fn document(&self, addition: &Addition) -> TantivyDocument {
        let from = &addition.document;
        let mut document = TantivyDocument::default();
        document.add_u64(self.number, u64::from(addition.number));
        for (field, text) in [
            (self.id, &from.id),
            (self.title, &from.title),
            (self.body, &from.body),
            (self.path, &from.path),
        ] {
            if !text.is_empty() {
                document.add_text(field, text);
            }
        }
        if !from.language.is_empty() {
            document.add_text(self.language, from.language.to_lowercase());
        }
        for tag in &from.tags {
            document.add_text(self.tags, tag);
        }
        let values: Vec<_> = from
            .attributes
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), json_value(value)?)))
            .collect();
        if !values.is_empty() {
            document.add_field_value(self.attributes, &OwnedValue::Object(values));
        }
        document
    }
}

/// tantivy keeps dates as nanoseconds in 64 bits (the years 1677 to 2262); dates outside are left
/// out of this index.
fn json_value(value: &Value) -> Option<OwnedValue> {
    Some(match value {
        Value::String(text) => OwnedValue::Str(text.clone()),
        Value::Number(number) => OwnedValue::F64(*number),
        Value::Date(at_ms) => {
            OwnedValue::Date(DateTime::from_timestamp_nanos(at_ms.checked_mul(1_000_000)?))
        }
        Value::Boolean(truth) => OwnedValue::Bool(*truth),
    })
}

/// No store, so no compression and no thread for it.
pub(super) fn settings() -> IndexSettings {
    IndexSettings {
        docstore_compression: Compressor::None,
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    }
}
