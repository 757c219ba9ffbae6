//! Facets: how often each value of a field occurs among some documents.

use std::collections::HashMap;

use super::column::{Encoding, Words, raw_to_float};
use super::damage::Damage;
use super::dictionary::BROKEN;
use super::field::{Field, FieldType};
use super::filter::any_value;
use super::segment::Segment;
use super::snapshot::DocumentsSnapshot;
use crate::bitmap::Bitmap;
use crate::document::{Value, ValueRef};
use crate::request::SearchError;

/// The most different values that are counted for one field: about 50 MB of short texts. A field
/// with more is no facet.
pub const FACET_VALUES_MAX: usize = 1 << 18;

/// The values of one field among some documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Facet {
    /// The field, as it was asked for.
    pub field: String,
    /// The most frequent values first, equally frequent ones in order of value.
    pub values: Vec<FacetValue>,
    /// How many different values there are, those beyond the limit included.
    pub distinct: u64,
}

/// One value of a facet.
#[derive(Clone, Debug, PartialEq)]
pub struct FacetValue {
    /// The value.
    pub value: Value,
    /// How many documents have it.
    pub count: u64,
}

/// A value as a key: the raw form of a float has no two faces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Number(u64),
    Date(i64),
    Boolean(bool),
    String(Box<str>),
}

impl Key {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::String(text) => Self::String(text.into()),
            ValueRef::Number(number) => Self::Number(super::column::float_to_raw(number)),
            ValueRef::Date(at_ms) => Self::Date(at_ms),
            ValueRef::Boolean(truth) => Self::Boolean(truth),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::String(text) => Value::String(text.into()),
            Self::Number(raw) => Value::Number(raw_to_float(raw)),
            Self::Date(at_ms) => Value::Date(at_ms),
            Self::Boolean(truth) => Value::Boolean(truth),
        }
    }
}

type Counts = HashMap<Key, u64>;

impl DocumentsSnapshot {
    /// Counts the values of each field among the living documents in `among`, and answers the
    /// `limit` most frequent. A document with several tags counts once for each.
    pub fn facets(
        &self,
        among: &Bitmap,
        fields: &[&str],
        limit: usize,
    ) -> Result<Vec<Facet>, SearchError> {
        let resolved: Vec<Field<'_>> =
            fields.iter().map(|name| self.fields.resolve(name)).collect::<Result<_, _>>()?;
        let mut counts = vec![Counts::new(); fields.len()];
        for segment in &self.segments {
            let words = self.ordinals_among(segment, among)?;
            if words.iter().all(|&word| word == 0) {
                continue;
            }
            for (at, field) in resolved.iter().enumerate() {
                count_segment(segment, *field, &words, &mut counts[at])?;
                check_bound(fields[at], &counts[at])?;
            }
        }
        let wanted = |number| self.living.contains(number) && among.contains(number);
        for row in self.head.iter().filter(|row| wanted(row.number)) {
            for (field, counts) in resolved.iter().zip(&mut counts) {
                let mut seen: Vec<Key> = Vec::new();
                any_value(&row.document, *field, &mut |value| {
                    let key = Key::of(value);
                    if !seen.contains(&key) {
                        *counts.entry(key.clone()).or_default() += 1;
                        seen.push(key);
                    }
                    false
                });
            }
        }
        let named = fields.iter().zip(counts);
        named
            .map(|(field, counts)| check_bound(field, &counts).map(|()| top(field, counts, limit)))
            .collect()
    }

    /// The ordinals of a segment's living documents that are in a set of numbers.
    pub(super) fn ordinals_among(
        &self,
        segment: &Segment,
        among: &Bitmap,
    ) -> Result<Words, Damage> {
        let mut words = vec![0u64; segment.meta().documents.div_ceil(64) as usize];
        for (ordinal, number) in segment.each_number()?.enumerate() {
            let member = among.contains(number) && self.living.contains(number);
            words[ordinal / 64] |= u64::from(member) << (ordinal % 64);
        }
        Ok(words)
    }
}

fn check_bound(field: &str, counts: &Counts) -> Result<(), SearchError> {
    if counts.len() <= FACET_VALUES_MAX {
        return Ok(());
    }
    Err(SearchError::Bound {
        message: format!(
            "field \"{field}\" has more than {FACET_VALUES_MAX} different values among these \
             documents; ask for facets of fields with few values, or filter first"
        ),
    })
}

fn count_segment(
    segment: &Segment,
    field: Field<'_>,
    among: &[u64],
    counts: &mut Counts,
) -> Result<(), Damage> {
    for one in field.types().iter() {
        let Some((column, dictionary)) = segment.column(field, one)? else {
            continue;
        };
        if let Some(dictionary) = dictionary {
            let mut ranks = vec![0u32; dictionary.count() as usize];
            column.each(among, |rank| {
                if let Some(count) = ranks.get_mut(rank as usize) {
                    *count += 1;
                }
            });
            let broken = || segment.damage(BROKEN);
            let mut keys = dictionary.from(0).ok_or_else(broken)?;
            for count in ranks {
                let key = keys.next().ok_or_else(broken)?;
                if count > 0 {
                    let text = std::str::from_utf8(key).map_err(|_| broken())?;
                    *counts.entry(Key::String(text.into())).or_default() += u64::from(count);
                    if counts.len() > FACET_VALUES_MAX {
                        return Ok(());
                    }
                }
            }
            continue;
        }
        column.each(among, |raw| {
            let whole = column.base().wrapping_add(raw as i64);
            let value = match (one, column.encoding()) {
                (FieldType::Date, _) => ValueRef::Date(whole),
                (FieldType::Boolean, _) => ValueRef::Boolean(whole != 0),
                (_, Encoding::Float) => ValueRef::Number(raw_to_float(raw)),
                (_, Encoding::Integer) => ValueRef::Number(whole as f64),
            };
            if counts.len() <= FACET_VALUES_MAX {
                *counts.entry(Key::of(value)).or_default() += 1;
            }
        });
    }
    Ok(())
}

fn top(field: &str, counts: Counts, limit: usize) -> Facet {
    let distinct = counts.len() as u64;
    let mut values: Vec<(Key, u64)> = counts.into_iter().collect();
    let order = |a: &(Key, u64), b: &(Key, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0));
    if limit < values.len() {
        values.select_nth_unstable_by(limit, order);
        values.truncate(limit);
    }
    values.sort_unstable_by(order);
    let values = values
        .into_iter()
        .map(|(key, count)| FacetValue { value: key.into_value(), count })
        .collect();
    Facet { field: field.to_string(), values, distinct }
}
