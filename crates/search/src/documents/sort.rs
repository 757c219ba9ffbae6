//! Sorting by fields: the first documents of a set in the order of their values.
//!
//! Each segment finds its own first ones by comparing raw values, which are order-preserving inside
//! a segment; only those are read as values and compared across segments.

use std::cmp::Ordering;

use super::column::{Column, Encoding, raw_to_float};
use super::damage::Damage;
use super::dictionary::{BROKEN, Dictionary};
use super::field::{Field, FieldType};
use super::filter::{any_value, compare};
use super::segment::Segment;
use super::snapshot::DocumentsSnapshot;
use crate::document::{DocNumber, Document, Value, ValueRef};
use crate::request::SearchError;

/// The most fields in a sort order: more never decide.
pub const SORT_KEYS_MAX: usize = 8;

/// One field of a sort order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// The field.
    pub field: String,
    /// Highest first.
    pub descending: bool,
}

/// A document at its place in an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted {
    /// The document.
    pub number: DocNumber,
    /// Its value for each key: of several the one that comes first; `None` where it has none.
    pub values: Vec<Option<Value>>,
}

/// A key after its name was looked up.
#[derive(Clone, Copy)]
struct Key<'a> {
    field: Field<'a>,
    descending: bool,
}

impl DocumentsSnapshot {
    /// The first `limit` of the living documents in `numbers` in the order of these fields, then of
    /// their numbers. Documents without a value come last, whatever the direction; values of
    /// different types stand as numbers, dates, truth values, texts.
    pub fn sort(
        &self,
        numbers: impl IntoIterator<Item = DocNumber>,
        order: &[SortKey],
        limit: usize,
    ) -> Result<Vec<Sorted>, SearchError> {
        if order.len() > SORT_KEYS_MAX {
            let message =
                format!("the order names {} fields, the bound is {SORT_KEYS_MAX}", order.len());
            return Err(SearchError::Bound { message });
        }
        let keys = order.iter().map(|key| {
            let field = self.fields.resolve(&key.field)?;
            Ok(Key { field, descending: key.descending })
        });
        let keys = keys.collect::<Result<Vec<_>, SearchError>>()?;
        let mut numbers: Vec<DocNumber> =
            numbers.into_iter().filter(|&number| self.living.contains(number)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut rest = numbers.as_slice();
        let mut first = Vec::new();
        for segment in &self.segments {
            let (here, later) = rest.split_at(rest.partition_point(|&n| n <= segment.meta().last));
            rest = later;
            if !here.is_empty() {
                first.extend(first_of_segment(segment, here, &keys, limit)?);
            }
        }
        for &number in rest {
            if let Some(document) = self.head.get(number) {
                let values = keys.iter().map(|key| row_value(document, *key)).collect();
                first.push(Sorted { number, values });
            }
        }
        first.sort_unstable_by(|a, b| compare_sorted(a, b, &keys));
        first.truncate(limit);
        Ok(first)
    }
}

fn compare_sorted(a: &Sorted, b: &Sorted, keys: &[Key<'_>]) -> Ordering {
    let values = keys.iter().zip(a.values.iter().zip(&b.values));
    values
        .map(|(key, (a, b))| match (a, b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) if key.descending => compare_values(b, a),
            (Some(a), Some(b)) => compare_values(a, b),
        })
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.number.cmp(&b.number))
}

fn compare_values(a: &Value, b: &Value) -> Ordering {
    let a = match a {
        Value::String(text) => ValueRef::String(text),
        Value::Number(number) => ValueRef::Number(*number),
        Value::Date(at_ms) => ValueRef::Date(*at_ms),
        Value::Boolean(truth) => ValueRef::Boolean(*truth),
    };
    compare(a, b).unwrap_or_else(|| FieldType::of_ref(&a).cmp(&FieldType::of(b)))
}

fn row_value(document: &Document, key: Key<'_>) -> Option<Value> {
    let mut best: Option<Value> = None;
    any_value(document, key.field, &mut |value| {
        let value = value.to_value();
        let before = match (&best, key.descending) {
            (None, _) => true,
            (Some(best), false) => compare_values(&value, best).is_lt(),
            (Some(best), true) => compare_values(&value, best).is_gt(),
        };
        if before {
            best = Some(value);
        }
        false
    });
    best
}

/// The columns that a key reads in one segment, one for each type.
struct KeyColumns<'s> {
    descending: bool,
    columns: Vec<(FieldType, Column<'s>, Option<Dictionary<'s>>)>,
}

/// Behind every value: the place of documents that have none.
const MISSING: u128 = u128::MAX;

impl<'s> KeyColumns<'s> {
    fn open(segment: &'s Segment, key: Key<'_>) -> Result<Self, Damage> {
        let mut columns = Vec::new();
        for one in key.field.types().iter() {
            if let Some((column, dictionary)) = segment.column(key.field, one)? {
                columns.push((one, column, dictionary));
            }
        }
        Ok(Self { descending: key.descending, columns })
    }

    /// The document's place in this order: the type, then the raw value.
    fn place(&self, ordinal: u32) -> u128 {
        // A document has at most one attribute of a name, so at most one of the columns has it.
        let found = self.columns.iter().enumerate().find_map(|(at, (_, column, _))| {
            column.of(ordinal).map(|(lowest, highest)| (at, lowest, highest))
        });
        match found {
            None => MISSING,
            Some((at, lowest, _)) if !self.descending => (at as u128) << 64 | u128::from(lowest),
            Some((at, _, highest)) => {
                ((self.columns.len() - at) as u128) << 64 | u128::from(!highest)
            }
        }
    }

    fn value(&self, segment: &Segment, ordinal: u32) -> Result<Option<Value>, Damage> {
        for (one, column, dictionary) in &self.columns {
            let Some((lowest, highest)) = column.of(ordinal) else {
                continue;
            };
            let raw = if self.descending { highest } else { lowest };
            let whole = column.base().wrapping_add(raw as i64);
            return Ok(Some(match (one, dictionary) {
                (_, Some(dictionary)) => {
                    let text = u32::try_from(raw).ok().and_then(|rank| dictionary.key(rank));
                    let text = text.and_then(|text| String::from_utf8(text).ok());
                    Value::String(text.ok_or_else(|| segment.damage(BROKEN))?)
                }
                (FieldType::Date, _) => Value::Date(whole),
                (FieldType::Boolean, _) => Value::Boolean(whole != 0),
                _ if column.encoding() == Encoding::Float => Value::Number(raw_to_float(raw)),
                _ => Value::Number(whole as f64),
            }));
        }
        Ok(None)
    }
}

fn first_of_segment(
    segment: &Segment,
    numbers: &[DocNumber],
    keys: &[Key<'_>],
    limit: usize,
) -> Result<Vec<Sorted>, Damage> {
    let columns: Vec<KeyColumns<'_>> =
        keys.iter().map(|key| KeyColumns::open(segment, *key)).collect::<Result<_, _>>()?;
    let mut ordinals = Vec::with_capacity(numbers.len());
    for &number in numbers {
        ordinals.extend(segment.ordinal(number)?);
    }
    let mut first: Vec<(u128, u32)> = ordinals
        .into_iter()
        .map(|ordinal| (columns.first().map_or(MISSING, |key| key.place(ordinal)), ordinal))
        .collect();
    let later = columns.get(1..).unwrap_or_default();
    let order = |a: &(u128, u32), b: &(u128, u32)| {
        a.0.cmp(&b.0).then_with(|| {
            let places = later.iter().map(|key| key.place(a.1).cmp(&key.place(b.1)));
            places.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.1.cmp(&b.1))
        })
    };
    if limit < first.len() {
        first.select_nth_unstable_by(limit, order);
        first.truncate(limit);
    }
    let mut sorted = Vec::with_capacity(first.len());
    for (_, ordinal) in first {
        let number = segment.number(ordinal)?;
        let values = columns.iter().map(|key| key.value(segment, ordinal));
        sorted.push(Sorted { number, values: values.collect::<Result<_, _>>()? });
    }
    Ok(sorted)
}
