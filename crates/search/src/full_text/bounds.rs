//! [`attribute_bounds`]: the two bounds of a range as terms of one type.
//!
//! tantivy's parser types each bound alone, and its range over a column fails when the two types
//! differ, as in `[1 TO 2.5]`.

use std::ops::Bound;

use tantivy::query_grammar::UserInputBound;
use tantivy::schema::Field;
use tantivy::time::OffsetDateTime;
use tantivy::time::format_description::well_known::Rfc3339;
use tantivy::{DateTime, Term};

/// The bounds of a range as terms of one type; `None` when they have none in common.
pub(super) fn attribute_bounds(
    field: Field,
    path: &str,
    texts: [Option<&str>; 2],
) -> Option<[Option<Term>; 2]> {
    if path.is_empty() {
        return None;
    }
    let base = || Term::from_field_json_path(field, path, true);
    let numbers =
        texts.map(|text| text.map(|text| text.parse().ok().filter(|n: &f64| n.is_finite())));
    if !numbers.contains(&Some(None)) {
        return Some(numbers.map(|number| {
            number.flatten().map(|number| {
                let mut term = base();
                term.append_type_and_fast_value(number);
                term
            })
        }));
    }
    let dates = texts.map(|text| text.map(date));
    if !dates.contains(&Some(None)) {
        return Some(dates.map(|date| {
            date.flatten().map(|date| {
                let mut term = base();
                term.append_type_and_fast_value(date);
                term
            })
        }));
    }
    let is_word = |at: usize| {
        numbers[at].is_none_or(|number| number.is_none())
            && dates[at].is_none_or(|date| date.is_none())
    };
    (is_word(0) && is_word(1)).then(|| {
        texts.map(|text| {
            text.map(|text| {
                let mut term = base();
                term.append_type_and_str(text);
                term
            })
        })
    })
}

/// The bound as tantivy takes it; without a term the range is open.
pub(super) fn as_bound(written: &UserInputBound, term: Option<Term>) -> Bound<Term> {
    match (written, term) {
        (UserInputBound::Exclusive(_), Some(term)) => Bound::Excluded(term),
        (_, Some(term)) => Bound::Included(term),
        (_, None) => Bound::Unbounded,
    }
}

/// A point in time by RFC 3339, or a day, which begins at midnight UTC.
fn date(text: &str) -> Option<DateTime> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let date = parse(text).or_else(|| parse(&format!("{text}T00:00:00Z")))?;
    let nanos = i64::try_from(date.unix_timestamp_nanos()).ok()?;
    Some(DateTime::from_timestamp_nanos(nanos))
}
