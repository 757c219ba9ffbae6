//! [`Filter`]: which documents are wanted, by their fields; and its answer from the columns.
//!
//! A filter is checked and its names are looked up once ([`Check`]); then every segment answers with
//! one bit for each of its documents and the rows of the head are looked at one by one. A condition
//! holds for a document when one of its values meets it; values of another type never do.

use std::cmp::Ordering;
use std::ops::Bound;

use super::column::{Column, Encoding, Words, every, float_to_raw, ones};
use super::column_writer::{depth, extension};
use super::damage::Damage;
use super::dictionary::{BROKEN, Dictionary};
use super::field::{BuiltIn, Field, FieldType, Fields};
use super::path_glob::PathGlob;
use super::segment::Segment;
use crate::document::{Document, Value, ValueRef};
use crate::request::SearchError;

/// How deep conditions may stand in each other: they are walked by recursion.
pub const FILTER_DEPTH_MAX: usize = 64;
/// The most conditions and values in a filter: each may read a whole column (about 1 ms a million
/// documents).
pub const FILTER_PARTS_MAX: usize = 4096;

/// Which documents are wanted. Fields are the built-in `id`, `path`, `language`, `title`, `tags`,
/// `size` (bytes of the body), `depth` (parts of the path), `extension` and the attributes by name;
/// `attributes.NAME` is an attribute even when a built-in field has that name.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these; without any, every document.
    All(Vec<Filter>),
    /// At least one of these; without any, no document.
    Any(Vec<Filter>),
    /// The documents that do not meet this.
    Not(Box<Filter>),
    /// A value equal to this.
    Equals {
        /// The field.
        field: String,
        /// The value; text is compared byte for byte.
        value: Value,
    },
    /// A value equal to one of these.
    In {
        /// The field.
        field: String,
        /// The values.
        values: Vec<Value>,
    },
    /// A value between these. Text is ordered by its bytes.
    Range {
        /// The field.
        field: String,
        /// The lower bound.
        from: Bound<Value>,
        /// The upper bound, of the same type.
        to: Bound<Value>,
    },
    /// Any value. Empty text in a built-in field is none.
    Exists {
        /// The field.
        field: String,
    },
    /// A path that meets a pattern as in ignore files and `rg -g`.
    Path {
        /// The pattern, such as `src/**/*.rs`.
        glob: String,
    },
}

/// A filter whose names and bounds are checked.
pub(super) enum Check<'a> {
    All(Vec<Check<'a>>),
    Any(Vec<Check<'a>>),
    Not(Box<Check<'a>>),
    Value(Field<'a>, Test<'a>),
}

/// What a value must be.
pub(super) enum Test<'a> {
    OneOf(&'a [Value]),
    Between(FieldType, Bound<&'a Value>, Bound<&'a Value>),
    Present,
    Text(String),
    Path(PathGlob),
}

impl<'a> Check<'a> {
    pub(super) fn new(filter: &'a Filter, fields: &Fields) -> Result<Self, SearchError> {
        let mut parts = 0;
        Self::build(filter, fields, 1, &mut parts)
    }

    fn build(
        filter: &'a Filter,
        fields: &Fields,
        level: usize,
        parts: &mut usize,
    ) -> Result<Self, SearchError> {
        let bound = |message: String| Err(SearchError::Bound { message });
        if level > FILTER_DEPTH_MAX {
            return bound(format!("the filter is nested deeper than {FILTER_DEPTH_MAX} levels"));
        }
        *parts += if let Filter::In { values, .. } = filter { 1 + values.len() } else { 1 };
        if *parts > FILTER_PARTS_MAX {
            return bound(format!(
                "the filter has more than {FILTER_PARTS_MAX} conditions and values; split the query"
            ));
        }
        let mut all = |filters: &'a [Filter]| -> Result<Vec<Self>, SearchError> {
            filters.iter().map(|filter| Self::build(filter, fields, level + 1, parts)).collect()
        };
        Ok(match filter {
            Filter::All(filters) => Self::All(all(filters)?),
            Filter::Any(filters) => Self::Any(all(filters)?),
            Filter::Not(inner) => {
                Self::Not(Box::new(Self::build(inner, fields, level + 1, parts)?))
            }
            Filter::Equals { field, value } => {
                let values = std::slice::from_ref(value);
                Self::Value(fields.resolve(field)?, Test::one_of(field, values)?)
            }
            Filter::In { field, values } => {
                Self::Value(fields.resolve(field)?, Test::one_of(field, values)?)
            }
            Filter::Range { field, from, to } => {
                let resolved = fields.resolve(field)?;
                Self::Value(resolved, Test::between(field, resolved, from.as_ref(), to.as_ref())?)
            }
            Filter::Exists { field } => Self::Value(fields.resolve(field)?, Test::Present),
            Filter::Path { glob } => {
                let glob = PathGlob::new(glob)?;
                match glob.extension() {
                    Some(extension) => Self::Value(
                        Field::BuiltIn(BuiltIn::Extension),
                        Test::Text(extension.to_string()),
                    ),
                    None => Self::Value(Field::BuiltIn(BuiltIn::Path), Test::Path(glob)),
                }
            }
        })
    }

    /// Whether a row meets it.
    pub(super) fn matches(&self, document: &Document) -> bool {
        match self {
            Self::All(checks) => checks.iter().all(|check| check.matches(document)),
            Self::Any(checks) => checks.iter().any(|check| check.matches(document)),
            Self::Not(check) => !check.matches(document),
            Self::Value(field, test) => {
                any_value(document, *field, &mut |value| test.matches(value))
            }
        }
    }

    /// The ordinals of the segment that meet it.
    pub(super) fn select(&self, segment: &Segment) -> Result<Words, Damage> {
        let documents = segment.meta().documents;
        match self {
            Self::All(checks) => {
                let mut words = every(documents);
                for check in checks {
                    let with = check.select(segment)?;
                    words.iter_mut().zip(with).for_each(|(word, with)| *word &= with);
                }
                Ok(words)
            }
            Self::Any(checks) => {
                let mut words = vec![0; documents.div_ceil(64) as usize];
                for check in checks {
                    unite(&mut words, &check.select(segment)?);
                }
                Ok(words)
            }
            Self::Not(check) => {
                let without = check.select(segment)?;
                let all = every(documents);
                Ok(all.iter().zip(without).map(|(word, without)| word & !without).collect())
            }
            Self::Value(field, test) => test.select(segment, *field),
        }
    }
}

fn unite(words: &mut Words, with: &[u64]) {
    words.iter_mut().zip(with).for_each(|(word, with)| *word |= with);
}

/// Whether one of the values that a document has in a field passes.
pub(super) fn any_value(
    document: &Document,
    field: Field<'_>,
    test: &mut dyn FnMut(ValueRef<'_>) -> bool,
) -> bool {
    let mut text = |text: &str| !text.is_empty() && test(ValueRef::String(text));
    match field {
        Field::BuiltIn(BuiltIn::Id) => text(&document.id),
        Field::BuiltIn(BuiltIn::Path) => text(&document.path),
        Field::BuiltIn(BuiltIn::Language) => text(&document.language),
        Field::BuiltIn(BuiltIn::Title) => text(&document.title),
        Field::BuiltIn(BuiltIn::Extension) => text(extension(&document.path)),
        Field::BuiltIn(BuiltIn::Tags) => document.tags.iter().any(|tag| text(tag)),
        Field::BuiltIn(BuiltIn::Size) => test(ValueRef::Number(document.body.len() as f64)),
        Field::BuiltIn(BuiltIn::Depth) => {
            !document.path.is_empty() && test(ValueRef::Number(depth(&document.path) as f64))
        }
        Field::Attribute { name, .. } => match document.attributes.get(name) {
            None => false,
            Some(Value::String(text)) => test(ValueRef::String(text)),
            Some(Value::Number(number)) => test(ValueRef::Number(*number)),
            Some(Value::Date(at_ms)) => test(ValueRef::Date(*at_ms)),
            Some(Value::Boolean(truth)) => test(ValueRef::Boolean(*truth)),
        },
    }
}

/// The order of two values of one type.
pub(super) fn compare(left: ValueRef<'_>, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (ValueRef::String(left), Value::String(right)) => Some(left.cmp(right.as_str())),
        (ValueRef::Number(left), Value::Number(right)) => left.partial_cmp(right),
        (ValueRef::Date(left), Value::Date(right)) => Some(left.cmp(right)),
        (ValueRef::Boolean(left), Value::Boolean(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

impl<'a> Test<'a> {
    fn one_of(field: &str, values: &'a [Value]) -> Result<Self, SearchError> {
        match values.iter().find(|value| matches!(value, Value::Number(n) if n.is_nan())) {
            Some(_) => Err(SearchError::query(format!("field \"{field}\" is compared with NaN"))),
            None => Ok(Self::OneOf(values)),
        }
    }

    fn between(
        name: &str,
        field: Field<'_>,
        from: Bound<&'a Value>,
        to: Bound<&'a Value>,
    ) -> Result<Self, SearchError> {
        let value = |bound: Bound<&'a Value>| match bound {
            Bound::Included(value) | Bound::Excluded(value) => Some(value),
            Bound::Unbounded => None,
        };
        for end in [value(from), value(to)].into_iter().flatten() {
            Self::one_of(name, std::slice::from_ref(end))?;
        }
        let one = match (value(from).map(FieldType::of), value(to).map(FieldType::of)) {
            (None, None) => return Ok(Self::Present),
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) if one == other => one,
            (Some(one), Some(other)) => {
                return Err(SearchError::query(format!(
                    "the range of field \"{name}\" begins with a {one} and ends with a {other}"
                )));
            }
        };
        if !field.types().has(one) {
            let types: Vec<_> = field.types().iter().map(|one| one.to_string()).collect();
            let hint = if field.types().has(FieldType::Date) {
                "; write dates as 2024-01-31 or 2024-01-31T09:30:00Z"
            } else {
                ""
            };
            return Err(SearchError::query(format!(
                "field \"{name}\" has values of type {}, not {one}{hint}",
                types.join(" and ")
            )));
        }
        Ok(Self::Between(one, from, to))
    }

    fn matches(&self, value: ValueRef<'_>) -> bool {
        match self {
            Self::Present => true,
            Self::Text(wanted) => value == ValueRef::String(wanted),
            Self::OneOf(values) => {
                values.iter().any(|wanted| compare(value, wanted) == Some(Ordering::Equal))
            }
            Self::Between(_, from, to) => {
                let order = |end: &Value| compare(value, end);
                let above = match from {
                    Bound::Unbounded => FieldType::of_ref(&value) == self.range_type(value),
                    Bound::Included(end) => order(end).is_some_and(Ordering::is_ge),
                    Bound::Excluded(end) => order(end).is_some_and(Ordering::is_gt),
                };
                above
                    && match to {
                        Bound::Unbounded => true,
                        Bound::Included(end) => order(end).is_some_and(Ordering::is_le),
                        Bound::Excluded(end) => order(end).is_some_and(Ordering::is_lt),
                    }
            }
            Self::Path(glob) => {
                matches!(value, ValueRef::String(path) if glob.matches(path.as_bytes()))
            }
        }
    }

    fn range_type(&self, value: ValueRef<'_>) -> FieldType {
        match self {
            Self::Between(one, ..) => *one,
            _ => FieldType::of_ref(&value),
        }
    }

    fn select(&self, segment: &Segment, field: Field<'_>) -> Result<Words, Damage> {
        let mut words = vec![0; segment.meta().documents.div_ceil(64) as usize];
        for one in field.types().iter() {
            let wanted = match self {
                Self::OneOf(values) => values.iter().any(|value| FieldType::of(value) == one),
                Self::Between(range, ..) => *range == one,
                Self::Present => true,
                Self::Text(_) | Self::Path(_) => one == FieldType::String,
            };
            if wanted && let Some((column, dictionary)) = segment.column(field, one)? {
                let place = Place { segment, field, one, column, dictionary };
                place.select(self, &mut words)?;
            }
        }
        Ok(words)
    }
}

/// A column that a test looks into.
struct Place<'s, 'f> {
    segment: &'s Segment,
    field: Field<'f>,
    one: FieldType,
    column: Column<'s>,
    dictionary: Option<Dictionary<'s>>,
}

impl Place<'_, '_> {
    fn select(&self, test: &Test<'_>, words: &mut Words) -> Result<(), Damage> {
        match test {
            Test::Present => unite(words, &self.column.present()),
            Test::Between(_, from, to) => {
                if let Some((low, high)) = self.raw_range(*from, *to)? {
                    self.select_range(low, high, words)?;
                }
            }
            Test::OneOf([value]) => {
                let same = Bound::Included(value);
                if let Some((low, high)) = self.raw_range(same, same)? {
                    self.select_range(low, high, words)?;
                }
            }
            Test::OneOf(values) => self.select_values(values, words)?,
            Test::Text(wanted) => {
                if let Some(dictionary) = self.dictionary {
                    let found = dictionary.find(wanted.as_bytes());
                    if let Ok(rank) = found.ok_or_else(|| self.segment.damage(BROKEN))? {
                        self.select_range(u64::from(rank), u64::from(rank), words)?;
                    }
                }
            }
            Test::Path(glob) => self.select_paths(glob, words)?,
        }
        Ok(())
    }

    fn select_range(&self, low: u64, high: u64, words: &mut Words) -> Result<(), Damage> {
        if self.field != Field::BuiltIn(BuiltIn::Id) {
            unite(words, &self.column.select_range(low, high));
            return Ok(());
        }
        // Ids are unique: the ranks lead straight to the documents.
        for rank in low..=high {
            let ordinal = self.segment.ordinal_of_id(rank as u32)?;
            words[ordinal as usize / 64] |= 1 << (ordinal % 64);
        }
        Ok(())
    }

    fn select_values(&self, values: &[Value], words: &mut Words) -> Result<(), Damage> {
        let mut ranges = Vec::new();
        for value in values.iter().filter(|value| FieldType::of(value) == self.one) {
            ranges.extend(self.raw_range(Bound::Included(value), Bound::Included(value))?);
        }
        match self.dictionary {
            Some(dictionary) if ranges.len() > 1 => {
                let mut members = vec![0; dictionary.count().div_ceil(64) as usize];
                ranges
                    .iter()
                    .for_each(|(rank, _)| members[(rank / 64) as usize] |= 1 << (rank % 64));
                unite(words, &self.column.select_members(&members));
            }
            _ => {
                for (low, high) in ranges {
                    self.select_range(low, high, words)?;
                }
            }
        }
        Ok(())
    }

    fn select_paths(&self, glob: &PathGlob, words: &mut Words) -> Result<(), Damage> {
        let Some(dictionary) = self.dictionary else {
            return Ok(());
        };
        let broken = || self.segment.damage(BROKEN);
        let prefix = glob.prefix().as_bytes();
        let start = dictionary.lower_bound(prefix).ok_or_else(broken)?;
        // No UTF-8 text has the byte 0xff: this is behind every path with the prefix.
        let end = dictionary.lower_bound(&[prefix, &[0xff]].concat()).ok_or_else(broken)?;
        if start >= end {
            return Ok(());
        }
        if glob.is_prefix() {
            return self.select_range(u64::from(start), u64::from(end - 1), words);
        }
        let mut members = vec![0u64; end.div_ceil(64) as usize];
        let mut paths = dictionary.from(start).ok_or_else(broken)?;
        for rank in start..end {
            if glob.matches(paths.next().ok_or_else(broken)?) {
                members[(rank / 64) as usize] |= 1 << (rank % 64);
            }
        }
        unite(words, &self.column.select_members(&members));
        Ok(())
    }

    /// The raw values between two bounds, both included; `None` when there can be none.
    fn raw_range(
        &self,
        from: Bound<&Value>,
        to: Bound<&Value>,
    ) -> Result<Option<(u64, u64)>, Damage> {
        if let Some(dictionary) = self.dictionary {
            return self.rank_range(dictionary, from, to);
        }
        if self.column.encoding() == Encoding::Float {
            let low = match from {
                Bound::Included(Value::Number(value)) => float_to_raw(*value),
                Bound::Excluded(Value::Number(value)) => float_to_raw(*value) + 1,
                _ => 0,
            };
            let high = match to {
                Bound::Included(Value::Number(value)) => float_to_raw(*value),
                Bound::Excluded(Value::Number(value)) => float_to_raw(*value) - 1,
                _ => u64::MAX,
            };
            return Ok((low <= high).then_some((low, high)));
        }
        let low = match from {
            Bound::Included(value) => lowest_integer(value),
            Bound::Excluded(value) => above_integer(value),
            Bound::Unbounded => i64::MIN,
        };
        let high = match to {
            Bound::Included(value) => highest_integer(value),
            Bound::Excluded(value) => below_integer(value),
            Bound::Unbounded => i64::MAX,
        };
        let base = self.column.base();
        let low = low.max(base);
        Ok((low <= high).then(|| (low.wrapping_sub(base) as u64, high.wrapping_sub(base) as u64)))
    }

    fn rank_range(
        &self,
        dictionary: Dictionary<'_>,
        from: Bound<&Value>,
        to: Bound<&Value>,
    ) -> Result<Option<(u64, u64)>, Damage> {
        let broken = || self.segment.damage(BROKEN);
        let find = |value: &Value| match value {
            Value::String(text) => dictionary.find(text.as_bytes()).ok_or_else(broken),
            _ => Ok(Err(dictionary.count())),
        };
        let behind = |found: Result<u32, u32>| found.map_or_else(|rank| rank, |rank| rank + 1);
        let at = |found: Result<u32, u32>| found.unwrap_or_else(|rank| rank);
        let start = match from {
            Bound::Included(value) => at(find(value)?),
            Bound::Excluded(value) => behind(find(value)?),
            Bound::Unbounded => 0,
        };
        let end = match to {
            Bound::Included(value) => behind(find(value)?),
            Bound::Excluded(value) => at(find(value)?),
            Bound::Unbounded => dictionary.count(),
        };
        Ok((start < end).then(|| (u64::from(start), u64::from(end - 1))))
    }
}

// The bounds of a range over whole numbers. A cast from float to integer stops at the ends of `i64`.

fn lowest_integer(value: &Value) -> i64 {
    match value {
        Value::Number(number) => number.ceil() as i64,
        other => whole(other),
    }
}

fn above_integer(value: &Value) -> i64 {
    match value {
        Value::Number(number) => (number.floor() as i64).saturating_add(1),
        other => whole(other).saturating_add(1),
    }
}

fn highest_integer(value: &Value) -> i64 {
    match value {
        Value::Number(number) => number.floor() as i64,
        other => whole(other),
    }
}

fn below_integer(value: &Value) -> i64 {
    match value {
        Value::Number(number) => (number.ceil() as i64).saturating_sub(1),
        other => whole(other).saturating_sub(1),
    }
}

fn whole(value: &Value) -> i64 {
    match value {
        Value::Date(at_ms) => *at_ms,
        Value::Boolean(truth) => i64::from(*truth),
        _ => 0,
    }
}

/// Bits over all document numbers.
pub(super) struct Numbers(Words);

impl Numbers {
    pub(super) fn below(end: u32) -> Self {
        Self(vec![0; end.div_ceil(64) as usize])
    }

    pub(super) fn insert(&mut self, number: u32) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Adds the documents at these ordinals of a segment.
    pub(super) fn add(&mut self, segment: &Segment, ordinals: &[u64]) -> Result<(), Damage> {
        if !segment.meta().dense() {
            let numbers: Vec<u32> = segment.each_number()?.collect();
            ones(ordinals, |at| {
                if let Some(&number) = numbers.get(at as usize) {
                    self.insert(number);
                }
            });
            return Ok(());
        }
        let (start, shift) = (segment.meta().first as usize / 64, segment.meta().first % 64);
        for (at, &word) in ordinals.iter().enumerate() {
            let parts = u128::from(word) << shift;
            for (index, part) in
                [(start + at, parts as u64), (start + at + 1, (parts >> 64) as u64)]
            {
                if let Some(target) = self.0.get_mut(index) {
                    *target |= part;
                }
            }
        }
        Ok(())
    }

    /// The set in little-endian words, as long as chunks of a bitmap.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        const CHUNK_BYTES: usize = 8192;
        let mut bytes: Vec<u8> =
            Vec::with_capacity((self.0.len() * 8).next_multiple_of(CHUNK_BYTES));
        self.0.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(CHUNK_BYTES), 0);
        bytes
    }
}
