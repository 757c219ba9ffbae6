use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mainstay_db::{Db, DbError, Method, SearchRequest};

use crate::{Fixture, document, found, put, settle};

#[test]
fn everything_is_there_after_a_restart() {
    let mut fixture = Fixture::new();
    put(
        &fixture.docs(),
        (0..50).map(|i| document(&format!("{i}"), &format!("zebra{i}"))).collect(),
    );
    fixture.docs().delete(&["7".into()]).unwrap();
    fixture.reopen();
    let docs = fixture.docs();
    settle(&docs, docs.durable_seq());
    assert_eq!(docs.status().documents, 49);
    for method in [Method::Bm25, Method::Tantivy, Method::Native] {
        assert_eq!(found(&docs, "zebra9", &[method])[0], "9", "{method}");
        assert!(!found(&docs, "zebra7", &[method]).contains(&"7".to_string()), "{method}");
    }
    assert!(docs.verify().unwrap().is_clean());
}

/// P1: what was acknowledged is in the log even when no view was ever made durable.
#[test]
fn a_copy_of_the_directory_taken_without_closing_holds_every_acknowledged_write() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    docs.put((0..20).map(|i| document(&format!("{i}"), "zebra")).collect()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_at_once(fixture.folder.path(), copy.path());
    let db = Db::open(copy.path(), fixture.options.clone()).unwrap();
    let docs = db.collection("docs").unwrap();
    // At once, before any view but the documents' has caught up: acknowledged is never "not found".
    assert_eq!(docs.ids().unwrap().len(), 20);
    settle(&docs, docs.durable_seq());
    assert!(docs.verify().unwrap().is_clean());
}

#[test]
fn a_damaged_view_is_rebuilt_from_the_log_while_the_others_serve() {
    for view in ["documents", "bm25", "tantivy", "native", "semantic"] {
        let mut fixture = Fixture::new();
        put(
            &fixture.docs(),
            (0..30).map(|i| document(&format!("{i}"), "zebra crossing")).collect(),
        );
        fixture.db.take().unwrap().close().unwrap();
        let folder = fixture.folder.path().join("collections/docs/views").join(format!("{view}-1"));
        let mut damaged = 0;
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let mut bytes = fs::read(entry.path()).unwrap();
            bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
            fs::write(entry.path(), bytes).unwrap();
            damaged += 1;
        }
        assert!(damaged > 0, "{view} has files");
        fixture.db = Some(Db::open(fixture.folder.path(), fixture.options.clone()).unwrap());
        let docs = fixture.docs();
        settle(&docs, docs.durable_seq());
        for method in Method::ALL {
            assert_eq!(found(&docs, "zebra", &[method]).len(), 10, "{view} {method}");
        }
        let report = docs.verify().unwrap();
        assert!(report.is_clean(), "{view}: {report:#?}");
    }
}

#[test]
fn compaction_drops_what_is_dead_and_a_rebuild_from_what_is_left_is_the_same() {
    let mut fixture = Fixture::new();
    let docs = fixture.docs();
    let text = "zebra crossing ".repeat(400);
    for round in 0..8 {
        put(
            &docs,
            (0..100).map(|i| document(&format!("{i}"), &format!("round{round} {text}"))).collect(),
        );
    }
    docs.delete(&(50..100).map(|i| format!("{i}")).collect::<Vec<_>>()).unwrap();
    docs.checkpoint().unwrap();
    let dropped = docs.compact().unwrap();
    assert!(dropped > 0, "something was dropped");
    drop(docs);
    fixture.reopen();
    let docs = fixture.docs();
    docs.rebuild_documents(&mut |_, _| {}).unwrap();
    for method in Method::ALL {
        docs.rebuild(method, &mut |_, _| {}).unwrap();
    }
    assert_eq!(docs.ids().unwrap().len(), 50);
    assert_eq!(found(&docs, "round7", &[Method::Native]).len(), 10);
    assert!(found(&docs, "round6", &[Method::Native]).is_empty());
    assert!(docs.verify().unwrap().is_clean(), "{:#?}", docs.verify());
}

#[test]
fn removals_go_with_the_documents_they_removed_and_nothing_comes_back() {
    let mut fixture = Fixture::new();
    let docs = fixture.docs();
    let text = "zebra crossing ".repeat(400);
    let batch = |name: &str, count: usize| {
        (0..count).map(|i| document(&format!("{name}{i}"), &format!("{name} {text}"))).collect()
    };
    put(&docs, batch("gone", 300));
    docs.delete(&(0..300).map(|i| format!("gone{i}")).collect::<Vec<_>>()).unwrap();
    docs.delete(&["never".to_string()]).unwrap();
    put(&docs, batch("back", 10));
    docs.delete(&(0..10).map(|i| format!("back{i}")).collect::<Vec<_>>()).unwrap();
    put(&docs, batch("back", 10));
    // So that what stands before is sealed.
    put(&docs, batch("filler", 400));
    docs.checkpoint().unwrap();
    let dead = 300 + 300 + 10 + 10;
    let dropped = docs.compact().unwrap();
    assert!((dead..=dead + 1).contains(&dropped), "{dropped} records went");
    assert_eq!(docs.compact().unwrap(), 0, "nothing is left to drop");
    drop(docs);
    fixture.reopen();
    let docs = fixture.docs();
    docs.rebuild_documents(&mut |_, _| {}).unwrap();
    for method in Method::ALL {
        docs.rebuild(method, &mut |_, _| {}).unwrap();
    }
    assert_eq!(docs.ids().unwrap().len(), 410);
    assert!(found(&docs, "gone", &[Method::Native]).is_empty());
    assert!(docs.verify().unwrap().is_clean(), "{:#?}", docs.verify());
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let fixture = Fixture::new();
    match Db::open(fixture.folder.path(), fixture.options.clone()) {
        Err(error @ DbError::Locked(_)) => {
            assert!(error.to_string().contains("stop it first"), "{error}");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_future_format_is_refused_with_both_versions() {
    let mut fixture = Fixture::new();
    fixture.db.take().unwrap().close().unwrap();
    fs::write(fixture.folder.path().join("mainstay.json"), r#"{"format_version":9}"#).unwrap();
    let error = Db::open(fixture.folder.path(), fixture.options.clone()).err().unwrap();
    assert!(matches!(error, DbError::FutureFormat { found: 9, supported: 1, .. }), "{error}");
}

#[test]
fn a_folder_that_is_no_data_directory_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.doc"), "precious").unwrap();
    let error = Db::open(folder.path(), Default::default()).err().unwrap();
    assert!(error.to_string().contains("no data directory"), "{error}");
}

#[test]
fn vectors_of_another_model_are_refused_and_a_rebuild_embeds_anew() {
    let mut fixture = Fixture::new();
    put(&fixture.docs(), vec![document("1", "a zebra"), document("2", "an engine")]);
    fixture.db.take().unwrap().close().unwrap();
    let path = fixture.folder.path().join("collections/docs/collection.json");
    let settings = fs::read_to_string(&path).unwrap();
    // As if an earlier version had made the vectors with another table.
    let hash = settings.split("\"sha256\": \"").nth(1).unwrap().split('"').next().unwrap();
    fs::write(&path, settings.replace(hash, &"0".repeat(64))).unwrap();
    fixture.db = Some(Db::open(fixture.folder.path(), fixture.options.clone()).unwrap());
    let docs = fixture.docs();
    let answer = docs.search(&SearchRequest::new("zebra")).unwrap();
    assert_eq!(answer.hits[0].document.id, "1");
    let semantic = answer.methods.iter().find(|r| r.method == Method::Semantic).unwrap();
    assert!(semantic.reason.contains("rebuild --method semantic"), "{}", semantic.reason);
    docs.rebuild(Method::Semantic, &mut |_, _| {}).unwrap();
    assert!(docs.search(&SearchRequest::new("zebra")).unwrap().complete);
}

/// A copy as of one moment, as the end of a process leaves a directory: taken anew where a file came,
/// went or grew meanwhile, which views do as they please.
fn copy_at_once(from: &Path, to: &Path) {
    for _ in 0..1_000 {
        let before = listing(from);
        fs::remove_dir_all(to).unwrap();
        if before.is_ok() && copy_folder(from, to).is_ok() && listing(from).ok() == before.ok() {
            return;
        }
    }
    panic!("{} never stood still", from.display());
}

/// The files below a folder, with how long they are and when they were written.
fn listing(folder: &Path) -> std::io::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() {
            files.extend(listing(&entry.path())?);
        } else {
            files.insert(entry.path(), (found.len(), found.modified()?));
        }
    }
    Ok(files)
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
