//! View files appear whole or not at all, whatever happens on the way.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use mainstay_storage::Directory;
use mainstay_storage::fs::{FileSystem, RealFs};
use mainstay_storage::sim::{CrashStyle, SimFs};

const FOLDER: &str = "/data/view";

fn directory(fs: &SimFs) -> std::io::Result<Directory> {
    Directory::open(Arc::new(fs.clone()), Path::new(FOLDER))
}

fn put(directory: &Directory, name: &str, content: &[u8]) -> std::io::Result<()> {
    let mut writer = directory.create(name)?;
    writer.write_all(content)?;
    writer.finish()
}

#[test]
fn a_finished_file_is_listed_mapped_and_removed() {
    let real = tempfile::tempdir().unwrap();
    let directory = Directory::open(Arc::new(RealFs), &real.path().join("view")).unwrap();
    let large: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
    put(&directory, "large", &large).unwrap();
    put(&directory, "empty", b"").unwrap();
    assert_eq!(directory.list().unwrap(), ["empty", "large"]);
    let mapped = directory.open_file("large").unwrap();
    assert_eq!(mapped, large);
    put(&directory, "large", b"replaced").unwrap();
    assert_eq!(mapped, large);
    assert_eq!(directory.open_file("large").unwrap(), "replaced");
    directory.remove("large").unwrap();
    directory.sync().unwrap();
    assert_eq!(directory.list().unwrap(), ["empty"]);
}

#[test]
fn an_unfinished_file_is_never_seen() {
    let fs = SimFs::new(2);
    let view = directory(&fs).unwrap();
    let mut writer = view.create("a").unwrap();
    writer.write_all(&[1; 300_000]).unwrap();
    assert_eq!(writer.bytes(), 300_000);
    assert_eq!(view.list().unwrap(), [""; 0]);
    drop(writer);
    assert_eq!(fs.files().len(), 0);
}

#[test]
fn names_that_are_paths_or_temporary_are_refused() {
    let fs = SimFs::new(3);
    let view = directory(&fs).unwrap();
    for name in ["", ".", "..", "a/b", "../a", "a.tmp", "a\0"] {
        assert!(view.create(name).is_err(), "{name:?}");
        assert!(view.open_file(name).is_err(), "{name:?}");
        assert!(view.remove(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_power_loss_at_any_call_leaves_the_old_file_or_the_new_one() {
    for seed in 0..200 {
        for at in 1..60 {
            let fs = SimFs::new(seed * 1000 + at);
            let view = directory(&fs).unwrap();
            put(&view, "a", b"old").unwrap();
            fs.cut_power_at(Some(fs.operations() + at));
            let new = vec![7; 200_000];
            let finished = put(&view, "a", &new).is_ok();
            let done = finished && !fs.is_off();
            fs.crash();
            let content = directory(&fs).unwrap().open_file("a").unwrap();
            let expected =
                if finished { content == new } else { content == new || content == "old" };
            assert!(expected, "seed {seed}, power lost at call {at}");
            assert_eq!(fs.files().len(), 1, "a temporary file stays");
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_crash_leaves_no_temporary_files_behind() {
    let fs = SimFs::new(4);
    let view = directory(&fs).unwrap();
    let mut writer = view.create("a").unwrap();
    writer.write_all(b"half").unwrap();
    std::mem::forget(writer);
    fs.sync_dir(Path::new(FOLDER)).unwrap();
    fs.crash_with(CrashStyle::KeepAll);
    assert_eq!(fs.files().len(), 1);
    directory(&fs).unwrap();
    assert_eq!(fs.files().len(), 0);
}
