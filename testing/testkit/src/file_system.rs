//! What every [`FileSystem`] must do, the real one and the simulated one alike.

#![allow(clippy::unwrap_used)]

use std::path::Path;

pub use mainstay_storage::fs::{FileSystem, RealFs};
use mainstay_storage::fs::{Listed, LockError, read, write_atomic};
pub use mainstay_storage::sim::SimFs;

/// A check: a file system and an empty folder on it.
pub type Check = fn(&dyn FileSystem, &Path);

/// Every check with the rule it holds.
pub const CHECKS: &[(&str, Check)] = &[
    ("bytes_are_read_where_they_were_written", bytes_are_read_where_they_were_written),
    (
        "creating_an_existing_file_empties_it_and_opening_does_not",
        creating_an_existing_file_empties_it_and_opening_does_not,
    ),
    ("allocated_space_reads_as_zeros", allocated_space_reads_as_zeros),
    (
        "a_rename_replaces_and_a_removed_file_stays_readable_while_open",
        a_rename_replaces_and_a_removed_file_stays_readable_while_open,
    ),
    (
        "a_listing_is_sorted_and_tells_files_from_folders",
        a_listing_is_sorted_and_tells_files_from_folders,
    ),
    (
        "a_lock_is_held_once_and_given_back_when_dropped",
        a_lock_is_held_once_and_given_back_when_dropped,
    ),
    (
        "reading_a_file_beyond_the_bound_is_refused_with_the_figure",
        reading_a_file_beyond_the_bound_is_refused_with_the_figure,
    ),
    ("a_folder_is_renamed_with_all_that_is_in_it", a_folder_is_renamed_with_all_that_is_in_it),
];

/// Runs every check, each in a folder of its own below `home`.
pub fn check(fs: &dyn FileSystem, home: &Path) {
    for (rule, check) in CHECKS {
        let folder = home.join(rule);
        fs.create_dir_all(&folder).unwrap();
        println!("{rule}");
        check(fs, &folder);
    }
}

fn bytes_are_read_where_they_were_written(fs: &dyn FileSystem, dir: &Path) {
    let file = fs.create(&dir.join("a")).unwrap();
    file.write_all_at(b"hello", 3).unwrap();
    file.sync_data().unwrap();
    let mut buffer = [9; 8];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"\0\0\0hello");
    assert_eq!(file.len().unwrap(), 8);
    assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 0);
    assert!(file.read_exact_at(&mut buffer, 1).is_err());
}

fn creating_an_existing_file_empties_it_and_opening_does_not(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    fs.create(&path).unwrap().write_all_at(b"abc", 0).unwrap();
    assert_eq!(fs.open(&path).unwrap().len().unwrap(), 3);
    assert!(fs.create(&path).unwrap().is_empty().unwrap());
    let missing = fs.open(&dir.join("b")).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
}

fn allocated_space_reads_as_zeros(fs: &dyn FileSystem, dir: &Path) {
    let file = fs.create(&dir.join("a")).unwrap();
    file.write_all_at(b"old", 0).unwrap();
    file.allocate(3 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 3 << 20);
    let content = read(fs, &dir.join("a"), u64::MAX).unwrap();
    assert!(content.iter().all(|byte| *byte == 0));
    file.truncate(10).unwrap();
    assert_eq!(fs.len(&dir.join("a")).unwrap(), 10);
}

fn a_rename_replaces_and_a_removed_file_stays_readable_while_open(fs: &dyn FileSystem, dir: &Path) {
    write_atomic(fs, &dir.join("a"), b"first").unwrap();
    write_atomic(fs, &dir.join("b"), b"second").unwrap();
    let old = fs.open(&dir.join("a")).unwrap();
    let mapped = fs.map(&dir.join("a")).unwrap();
    fs.rename(&dir.join("b"), &dir.join("a")).unwrap();
    fs.sync_dir(dir).unwrap();
    assert_eq!(read(fs, &dir.join("a"), 100).unwrap(), b"second");
    assert!(!fs.exists(&dir.join("b")).unwrap());
    fs.remove_file(&dir.join("a")).unwrap();
    let mut buffer = [0; 5];
    old.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"first");
    assert_eq!(&mapped[..], b"first");
}

fn a_listing_is_sorted_and_tells_files_from_folders(fs: &dyn FileSystem, dir: &Path) {
    fs.create_dir_all(&dir.join("m/n")).unwrap();
    write_atomic(fs, &dir.join("z"), b"").unwrap();
    write_atomic(fs, &dir.join("a"), b"").unwrap();
    let listed = |name: &str, is_dir| Listed { name: name.to_owned(), is_dir };
    let expected = [listed("a", false), listed("m", true), listed("z", false)];
    assert_eq!(fs.list(dir).unwrap(), expected);
    fs.remove_dir_all(&dir.join("m")).unwrap();
    assert_eq!(fs.list(dir).unwrap().len(), 2);
    assert_eq!(&fs.map(&dir.join("a")).unwrap()[..], b"");
}

fn a_lock_is_held_once_and_given_back_when_dropped(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("LOCK");
    let held = fs.lock_exclusive(&path).unwrap();
    let error = fs.lock_exclusive(&path).unwrap_err();
    assert!(matches!(&error, LockError::Held { pid: Some(_), .. }), "{error}");
    assert!(error.to_string().contains("LOCK"), "{error}");
    drop(held);
    fs.lock_exclusive(&path).unwrap();
}

fn reading_a_file_beyond_the_bound_is_refused_with_the_figure(fs: &dyn FileSystem, dir: &Path) {
    write_atomic(fs, &dir.join("a"), &[0; 100]).unwrap();
    let error = read(fs, &dir.join("a"), 99).unwrap_err();
    assert!(error.to_string().contains("100 bytes, at most 99"), "{error}");
    assert!(fs.available_bytes(dir).unwrap() > 0);
}

fn a_folder_is_renamed_with_all_that_is_in_it(fs: &dyn FileSystem, dir: &Path) {
    fs.create_dir_all(&dir.join("new/inner")).unwrap();
    write_atomic(fs, &dir.join("new/a"), b"first").unwrap();
    write_atomic(fs, &dir.join("new/inner/b"), b"second").unwrap();
    for folder in ["new/inner", "new", ""] {
        fs.sync_dir(&dir.join(folder)).unwrap();
    }
    fs.rename(&dir.join("new"), &dir.join("named")).unwrap();
    fs.sync_dir(dir).unwrap();
    assert!(!fs.exists(&dir.join("new")).unwrap());
    assert_eq!(read(fs, &dir.join("named/a"), 100).unwrap(), b"first");
    assert_eq!(read(fs, &dir.join("named/inner/b"), 100).unwrap(), b"second");
    assert!(fs.open(&dir.join("new/a")).is_err());
}
