//! Damaged files: an error or the right answer, never a wrong one, never a panic.

use std::ops::ControlFlow;
use std::sync::Arc;

use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::directory::{Directory, write_file};
use mainstay_search::document::{Document, Value};
use mainstay_search::documents::{Documents, Filter, SortKey};
use mainstay_search::request::{SearchError, Texts};
use mainstay_search::view::ViewError;

use crate::documents::{Model, Step};

/// A view of two segments: one without gaps and compressible, one with gaps.
fn small_view() -> (MemoryDirectory, Model) {
    let directory = MemoryDirectory::new();
    let mut view = Documents::open(Arc::new(directory.clone())).unwrap();
    let mut model = Model::default();
    let put = |id: u32, body: String| {
        Step::Put(Document {
            id: format!("d{id}"),
            title: format!("title {id}"),
            body,
            path: format!("a/{id}.rs"),
            language: "rust".into(),
            tags: vec!["x".into(), format!("t{id}")],
            attributes: [
                ("price".to_string(), Value::Number(f64::from(id) + 0.5)),
                ("since".to_string(), Value::Date(i64::from(id) * 1000)),
            ]
            .into(),
        })
    };
    model.apply(&mut view, &[put(1, "again and ".repeat(30)), put(2, "xyz".into())]);
    model.apply(&mut view, &[put(6, "six".into()), put(0, "zero".into())]);
    view.checkpoint().unwrap();
    model.apply(&mut view, &[put(3, "three".into()), put(4, "four".into()), put(5, "five".into())]);
    model.apply(&mut view, &[Step::Delete("d4".into()), Step::Delete("d1".into())]);
    view.checkpoint().unwrap();
    (directory, model)
}

/// Everything that can be asked, as text.
fn ask(directory: &MemoryDirectory) -> Result<Vec<String>, ViewError> {
    let view = Documents::open(Arc::new(directory.clone()))?;
    let snapshot = view.snapshot();
    let wrap = |error: SearchError| ViewError::Failed(Box::new(error));
    let mut answers = vec![format!("{} {}", snapshot.through(), snapshot.count())];
    let living: Vec<_> = snapshot.living().iter().collect();
    answers.push(format!("{living:?} {:?}", snapshot.fields()));
    for id in 0..7 {
        answers.push(format!("{:?}", snapshot.get_by_id(&format!("d{id}")).map_err(wrap)?));
    }
    answers.push(format!("{:?}", snapshot.list(None, 10).map_err(wrap)?));
    let visit = &mut |number, text: mainstay_search::request::Text<'_>| {
        answers.push(format!("{number} {text:?}"));
        ControlFlow::Continue(())
    };
    snapshot.visit(&living, visit).map_err(wrap)?;
    for text in ["price>2 price<5", "tags:t3", "path:a/*", "since>1970", "language:rust", "id:d5"] {
        let text = text.replace("1970", "1970-01-01T00:00:03Z");
        let found = snapshot.filter(&Filter::parse(&text).unwrap()).map_err(wrap)?;
        answers.push(format!("{text} {:?}", found.iter().collect::<Vec<_>>()));
    }
    let fields = ["tags", "price", "depth", "size", "title"];
    answers.push(format!("{:?}", snapshot.facets(snapshot.living(), &fields, 9).map_err(wrap)?));
    for field in ["title", "price", "since"] {
        let order = [SortKey { field: field.into(), descending: true }];
        answers.push(format!("{:?}", snapshot.sort(living.clone(), &order, 9).map_err(wrap)?));
    }
    answers.push(format!("{:?}", view.numbers()?.iter().collect::<Vec<_>>()));
    Ok(answers)
}

#[test]
fn every_flipped_byte_is_an_error_or_harmless() {
    let (directory, _) = small_view();
    let expected = ask(&directory).unwrap();
    for name in directory.list().unwrap() {
        let sound = directory.open(&name).unwrap().to_vec();
        let (mut found, mut harmless) = (0, 0);
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x41;
            write_file(&directory, &name, &damaged).unwrap();
            match ask(&directory) {
                Err(_) => found += 1,
                Ok(answers) => {
                    assert_eq!(answers, expected, "byte {at} of {name}");
                    harmless += 1;
                }
            }
        }
        write_file(&directory, &name, &sound).unwrap();
        // Padding between sections, and blocks of the dead, may be damaged without harm.
        assert!(harmless < found / 4, "{name}: {harmless} of {} flips went unseen", sound.len());
    }
    assert_eq!(ask(&directory).unwrap(), expected);
}

#[test]
fn every_cut_and_every_strange_length_is_an_error() {
    let (directory, _) = small_view();
    for name in directory.list().unwrap() {
        let sound = directory.open(&name).unwrap().to_vec();
        for length in 0..sound.len() {
            write_file(&directory, &name, &sound[..length]).unwrap();
            assert!(ask(&directory).is_err(), "{name} cut to {length} bytes");
        }
        write_file(&directory, &name, &[sound.clone(), vec![0; 8]].concat()).unwrap();
        assert!(ask(&directory).is_err(), "{name} with eight bytes more");
        write_file(&directory, &name, &sound).unwrap();
    }
}

#[test]
fn verify_finds_damage_that_no_question_has_touched() {
    let (directory, _) = small_view();
    let sound = directory.open("segment-1").unwrap().to_vec();
    let mut damaged = sound.clone();
    damaged[40] ^= 1; // inside the first text block
    write_file(&directory, "segment-1", &damaged).unwrap();
    let view = Documents::open(Arc::new(directory)).unwrap();
    let error = view.snapshot().verify().unwrap_err().to_string();
    assert_eq!(
        error,
        "index file segment-1 is damaged: the text block at byte 16 fails its checksum; rebuild the view"
    );
}

#[test]
fn a_missing_or_exchanged_segment_is_named() {
    let (directory, _) = small_view();
    let second = directory.open("segment-2").unwrap();
    write_file(&directory, "segment-1", &second).unwrap();
    let error = ask(&directory).unwrap_err().to_string();
    assert!(error.starts_with("file segment-1 is damaged: it is not the segment"), "{error}");
    directory.remove("segment-1").unwrap();
    let error = ask(&directory).unwrap_err().to_string();
    assert!(error.starts_with("file segment-1 is damaged: it is missing"), "{error}");
}

#[test]
fn a_future_format_is_refused_by_its_number() {
    let (directory, _) = small_view();
    let mut manifest = directory.open("manifest").unwrap().to_vec();
    manifest[8] = 7;
    let body = manifest.len() - 8;
    let checksum = xxhash_rust::xxh3::xxh3_64(&manifest[..body]);
    manifest[body..].copy_from_slice(&checksum.to_le_bytes());
    write_file(&directory, "manifest", &manifest).unwrap();
    let error = ask(&directory).unwrap_err();
    assert!(matches!(error, ViewError::FutureFormat { found: 7, supported: 1, .. }), "{error}");
}

#[test]
fn leftovers_of_a_crash_are_removed_and_do_no_harm() {
    let (directory, model) = small_view();
    write_file(&directory, "segment-99", b"half a merge").unwrap();
    let view = Documents::open(Arc::new(directory.clone())).unwrap();
    model.check(&view.snapshot());
    assert!(!directory.list().unwrap().contains(&"segment-99".to_string()));
}
