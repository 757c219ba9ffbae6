//! Filters, facets and sort orders against plain loops over the model.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{DocNumber, Document, Value};
use mainstay_search::documents::{Documents, DocumentsSnapshot, Filter, SortKey};
use proptest::prelude::*;

use crate::documents::{Model, Step, steps};

/// The values of a field, by the definition.
fn values(document: &Document, field: &str) -> Vec<Value> {
    let text = |text: &String| match text.is_empty() {
        true => Vec::new(),
        false => vec![Value::String(text.clone())],
    };
    match field {
        "id" => text(&document.id),
        "path" => text(&document.path),
        "language" => text(&document.language),
        "title" => text(&document.title),
        "tags" => document.tags.iter().map(|tag| Value::String(tag.clone())).collect(),
        "size" => vec![Value::Number(document.body.len() as f64)],
        "extension" => match document.path.rsplit('/').next().unwrap().rsplit_once('.') {
            Some((_, extension)) => vec![Value::String(extension.into())],
            None => Vec::new(),
        },
        "depth" if document.path.is_empty() => Vec::new(),
        "depth" => vec![Value::Number(document.path.split('/').count() as f64)],
        attribute => {
            let name = attribute.strip_prefix("attributes.").unwrap_or(attribute);
            document.attributes.get(name).cloned().into_iter().collect()
        }
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b),
        (Value::Date(a), Value::Date(b)) => Some(a.cmp(b)),
        (Value::Boolean(a), Value::Boolean(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::Date(_) => 1,
        Value::Boolean(_) => 2,
        Value::String(_) => 3,
    }
}

fn matches(document: &Document, filter: &Filter) -> bool {
    let equal = |field: &str, wanted: &Value| {
        values(document, field).iter().any(|value| order(value, wanted) == Some(Ordering::Equal))
    };
    match filter {
        Filter::All(filters) => filters.iter().all(|filter| matches(document, filter)),
        Filter::Any(filters) => filters.iter().any(|filter| matches(document, filter)),
        Filter::Not(filter) => !matches(document, filter),
        Filter::Equals { field, value } => equal(field, value),
        Filter::In { field, values } => values.iter().any(|value| equal(field, value)),
        Filter::Exists { field } => !values(document, field).is_empty(),
        Filter::Range { field, from, to } => values(document, field).iter().any(|value| {
            (match from {
                Bound::Included(end) => order(value, end).is_some_and(Ordering::is_ge),
                Bound::Excluded(end) => order(value, end).is_some_and(Ordering::is_gt),
                Bound::Unbounded => true,
            }) && (match to {
                Bound::Included(end) => order(value, end).is_some_and(Ordering::is_le),
                Bound::Excluded(end) => order(value, end).is_some_and(Ordering::is_lt),
                Bound::Unbounded => true,
            })
        }),
        Filter::Path { glob } => match glob.as_str() {
            "*.rs" => document.path.ends_with(".rs"),
            "a/**" => document.path.starts_with("a/"),
            "a/*" => document.path.strip_prefix("a/").is_some_and(|rest| !rest.contains('/')),
            "b.?" => document
                .path
                .rsplit('/')
                .next()
                .unwrap()
                .strip_prefix("b.")
                .is_some_and(|x| x.len() == 1),
            other => panic!("{other} is not one of the patterns of this test"),
        },
    }
}

const FIELDS: [&str; 11] = [
    "extension",
    "id",
    "path",
    "language",
    "title",
    "tags",
    "size",
    "depth",
    "p",
    "q",
    "attributes.language",
];

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop_oneof![
            Just("rust"),
            Just("d5"),
            Just("a"),
            Just("x"),
            Just(""),
            Just("a/b.rs"),
            Just("B")
        ]
        .prop_map(|text| Value::String(text.into())),
        (-4i32..8).prop_map(|n| Value::Number(f64::from(n) / 2.0)),
        Just(Value::Number(90_000.0)),
        (-2i64..3).prop_map(|day| Value::Date(day * 86_400_000)),
        any::<bool>().prop_map(Value::Boolean),
    ]
}

fn filters() -> impl Strategy<Value = Filter> {
    let field = || prop::sample::select(&FIELDS[..]).prop_map(str::to_string);
    let bound = |value: Value, kind: u8| match kind {
        0 => Bound::Included(value),
        1 => Bound::Excluded(value),
        _ => Bound::Unbounded,
    };
    let leaf = prop_oneof![
        (field(), any_value()).prop_map(|(field, value)| Filter::Equals { field, value }),
        (field(), prop::collection::vec(any_value(), 0..4))
            .prop_map(|(field, values)| Filter::In { field, values }),
        (field(), any_value(), 0u8..3, any_value(), 0u8..3).prop_map(move |(field, a, x, b, y)| {
            Filter::Range { field, from: bound(a, x), to: bound(b, y) }
        }),
        field().prop_map(|field| Filter::Exists { field }),
        prop::sample::select(&["*.rs", "a/**", "a/*", "b.?"][..])
            .prop_map(|glob| Filter::Path { glob: glob.into() }),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::All),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::Any),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

fn check_filter(model: &Model, snapshot: &DocumentsSnapshot, filter: &Filter) -> Option<Bitmap> {
    // A field that no document ever had and a range of the wrong type are errors, tested elsewhere.
    let found = snapshot.filter(filter).ok()?;
    let living = model.documents.values();
    let expected: Bitmap = living
        .filter(|(_, document)| matches(document, filter))
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>(), "{filter:?}");
    Some(found)
}

fn check_facet(model: &Model, snapshot: &DocumentsSnapshot, among: &Bitmap, field: &str) {
    let Ok(facets) = snapshot.facets(among, &[field], usize::MAX) else { return };
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (_, document) in model.documents.values().filter(|(number, _)| among.contains(*number)) {
        let mut seen: Vec<String> =
            values(document, field).iter().map(|value| format!("{value:?}")).collect();
        seen.sort();
        seen.dedup();
        seen.into_iter().for_each(|value| *expected.entry(value).or_default() += 1);
    }
    let found: BTreeMap<String, u64> =
        facets[0].values.iter().map(|v| (format!("{:?}", v.value), v.count)).collect();
    assert_eq!(found, expected, "{field}");
    assert_eq!(facets[0].distinct, expected.len() as u64);
    assert!(facets[0].values.windows(2).all(|pair| pair[0].count >= pair[1].count));
    let two = snapshot.facets(among, &[field], 2).unwrap();
    assert_eq!(two[0].values, facets[0].values.iter().take(2).cloned().collect::<Vec<_>>());
}

fn check_sort(model: &Model, snapshot: &DocumentsSnapshot, keys: &[SortKey], limit: usize) {
    let numbers: Vec<DocNumber> = snapshot.living().iter().collect();
    let Ok(found) = snapshot.sort(numbers.iter().rev().copied(), keys, limit) else { return };
    let whole = |a: &Value, b: &Value| order(a, b).unwrap_or_else(|| kind(a).cmp(&kind(b)));
    let first = |document: &Document, key: &SortKey| {
        let values = values(document, &key.field).into_iter();
        if key.descending { values.max_by(whole) } else { values.min_by(whole) }
    };
    let mut expected: Vec<_> = model.documents.values().collect();
    expected.sort_by(|a, b| {
        let by_keys = keys.iter().map(|key| match (first(&a.1, key), first(&b.1, key)) {
            (None, None) => Ordering::Equal,
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
            (Some(a), Some(b)) if key.descending => whole(&b, &a),
            (Some(a), Some(b)) => whole(&a, &b),
        });
        by_keys.into_iter().find(|order| order.is_ne()).unwrap_or(a.0.cmp(&b.0))
    });
    expected.truncate(limit);
    let numbers: Vec<_> = found.iter().map(|sorted| sorted.number).collect();
    assert_eq!(numbers, expected.iter().map(|pair| pair.0).collect::<Vec<_>>(), "{keys:?}");
    for (sorted, (_, document)) in found.iter().zip(&expected) {
        let values: Vec<_> = keys.iter().map(|key| first(document, key)).collect();
        assert_eq!(sorted.values, values);
    }
}

/// A quick look at every field; called after every action of the model test.
pub(crate) fn check(model: &Model, snapshot: &DocumentsSnapshot) {
    for (at, field) in FIELDS.iter().enumerate() {
        let field = field.to_string();
        check_filter(model, snapshot, &Filter::Exists { field: field.clone() });
        check_facet(model, snapshot, snapshot.living(), &field);
        let keys = [
            SortKey { field, descending: at % 2 == 0 },
            SortKey { field: "size".into(), descending: false },
        ];
        check_sort(model, snapshot, &keys, 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn filters_facets_and_sorts_answer_what_loops_answer(
        batches in prop::collection::vec((steps(), any::<bool>()), 1..8),
        filters in prop::collection::vec(filters(), 1..12),
        keys in prop::collection::vec((prop::sample::select(&FIELDS[..]), any::<bool>()), 0..3),
        limit in 0usize..14,
    ) {
        let mut view = Documents::open(Arc::new(MemoryDirectory::new())).unwrap();
        let mut model = Model::default();
        for (steps, checkpoint) in &batches {
            model.apply(&mut view, steps);
            if *checkpoint {
                view.checkpoint().unwrap();
            }
        }
        let snapshot = view.snapshot();
        for filter in &filters {
            if let Some(found) = check_filter(&model, &snapshot, filter) {
                check_facet(&model, &snapshot, &found, "tags");
                check_facet(&model, &snapshot, &found, "p");
            }
        }
        let keys: Vec<_> = keys
            .into_iter()
            .map(|(field, descending)| SortKey { field: field.into(), descending })
            .collect();
        check_sort(&model, &snapshot, &keys, limit);
    }
}

fn shop() -> Documents {
    let mut view = Documents::open(Arc::new(MemoryDirectory::new())).unwrap();
    let goods = [
        ("hammer", 12.0, "2024-01-15T18:00:00Z", "src/hammer.rs"),
        ("nail", 0.1, "2024-01-16", "vendor/nail.rs"),
        ("saw", 30.0, "2023-06-01", "src/tools/saw.c"),
    ];
    let steps = goods.map(|(id, price, since, path)| {
        let since_ms = mainstay_search::documents::date::parse(since).unwrap().start_ms;
        Step::Put(Document {
            id: id.into(),
            path: path.into(),
            attributes: [
                ("price".to_string(), Value::Number(price)),
                ("since".to_string(), Value::Date(since_ms)),
            ]
            .into(),
            ..Document::default()
        })
    });
    Model::default().apply(&mut view, &steps);
    view
}

#[test]
fn the_text_form_finds_what_it_says() {
    let mut view = shop();
    for _ in 0..2 {
        let snapshot = view.snapshot();
        for (text, expected) in [
            ("", &["hammer", "nail", "saw"][..]),
            ("price>=12", &["hammer", "saw"]),
            ("price:0.1..12 -id:nail", &["hammer"]),
            ("since:2024-01-15", &["hammer"]),
            ("since<=2024-01-15", &["hammer", "saw"]),
            ("since>2024-01-15", &["nail"]),
            ("since:2023-01..2023-12", &["saw"]),
            ("-path:vendor/**", &["hammer", "saw"]),
            ("path:*.rs,*.h depth:2", &["hammer", "nail"]),
            ("extension:c", &["saw"]),
            ("depth>2 OR id:nail", &["nail", "saw"]),
            ("size<1 price!=30", &["hammer", "nail"]),
        ] {
            let found = snapshot.filter(&Filter::parse(text).unwrap()).unwrap();
            let mut ids: Vec<_> =
                found.iter().map(|n| snapshot.get(n).unwrap().unwrap().id).collect();
            ids.sort();
            assert_eq!(ids, expected, "{text}");
        }
        view.checkpoint().unwrap();
    }
}

#[test]
fn a_filter_that_cannot_be_meant_is_refused_with_help() {
    let snapshot = shop().snapshot();
    for (text, expected) in [
        (
            "prise>1",
            "unknown field \"prise\"; did you mean \"price\"?; \
             known are id, path, language, title, tags, size, depth, extension, price, since",
        ),
        (
            "since>2023",
            "field \"since\" has values of type date, not number; \
             write dates as 2024-01-31 or 2024-01-31T09:30:00Z",
        ),
        ("price<cheap", "field \"price\" has values of type number, not string"),
    ] {
        let error = snapshot.filter(&Filter::parse(text).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let nan = Filter::Equals { field: "price".into(), value: Value::Number(f64::NAN) };
    assert_eq!(
        snapshot.filter(&nan).unwrap_err().to_string(),
        "field \"price\" is compared with NaN"
    );
    let many = Filter::In { field: "id".into(), values: vec![Value::Boolean(true); 5000] };
    assert!(snapshot.filter(&many).unwrap_err().to_string().contains("more than 4096"));
    let deep = (0..100).fold(Filter::Any(Vec::new()), |inner, _| Filter::Not(Box::new(inner)));
    assert!(snapshot.filter(&deep).unwrap_err().to_string().contains("deeper than 64"));
    let key = SortKey { field: "id".into(), descending: false };
    assert!(snapshot.sort([], &vec![key; 9], 1).is_err());
    assert!(snapshot.facets(&Bitmap::new(), &["colour"], 1).is_err());
}
