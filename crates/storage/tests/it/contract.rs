//! What every file system must do, the real one and the simulated one alike.

use std::path::{Path, PathBuf};

use mainstay_storage::fs::{FileSystem, Listed, LockError, RealFs, read, write_atomic};
use mainstay_storage::sim::SimFs;

/// Runs one check against each implementation, in an empty folder.
fn on_each(check: impl Fn(&dyn FileSystem, &Path)) {
    let real = tempfile::tempdir().unwrap();
    check(&RealFs, real.path());
    let sim = SimFs::new(1);
    let dir = PathBuf::from("/folder");
    sim.create_dir_all(&dir).unwrap();
    check(&sim, &dir);
}

#[test]
fn bytes_are_read_where_they_were_written() {
    on_each(|fs, dir| {
        let file = fs.create(&dir.join("a")).unwrap();
        file.write_all_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        let mut buffer = [9; 8];
        file.read_exact_at(&mut buffer, 0).unwrap();
        assert_eq!(&buffer, b"\0\0\0hello");
        assert_eq!(file.len().unwrap(), 8);
        assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 0);
        assert!(file.read_exact_at(&mut buffer, 1).is_err());
    });
}

#[test]
fn creating_an_existing_file_empties_it_and_opening_does_not() {
    on_each(|fs, dir| {
        let path = dir.join("a");
        fs.create(&path).unwrap().write_all_at(b"abc", 0).unwrap();
        assert_eq!(fs.open(&path).unwrap().len().unwrap(), 3);
        assert!(fs.create(&path).unwrap().is_empty().unwrap());
        let missing = fs.open(&dir.join("b")).unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    });
}

#[test]
fn allocated_space_reads_as_zeros() {
    on_each(|fs, dir| {
        let file = fs.create(&dir.join("a")).unwrap();
        file.write_all_at(b"old", 0).unwrap();
        file.allocate(3 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 3 << 20);
        let content = read(fs, &dir.join("a"), u64::MAX).unwrap();
        assert!(content.iter().all(|byte| *byte == 0));
        file.truncate(10).unwrap();
        assert_eq!(fs.len(&dir.join("a")).unwrap(), 10);
    });
}

#[test]
fn a_rename_replaces_and_a_removed_file_stays_readable_while_open() {
    on_each(|fs, dir| {
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
    });
}

#[test]
fn a_listing_is_sorted_and_tells_files_from_folders() {
    on_each(|fs, dir| {
        fs.create_dir_all(&dir.join("m/n")).unwrap();
        write_atomic(fs, &dir.join("z"), b"").unwrap();
        write_atomic(fs, &dir.join("a"), b"").unwrap();
        let listed = |name: &str, is_dir| Listed { name: name.to_owned(), is_dir };
        let expected = [listed("a", false), listed("m", true), listed("z", false)];
        assert_eq!(fs.list(dir).unwrap(), expected);
        fs.remove_dir_all(&dir.join("m")).unwrap();
        assert_eq!(fs.list(dir).unwrap().len(), 2);
        assert_eq!(&fs.map(&dir.join("a")).unwrap()[..], b"");
    });
}

#[test]
fn a_lock_is_held_once_and_given_back_when_dropped() {
    on_each(|fs, dir| {
        let path = dir.join("LOCK");
        let held = fs.lock_exclusive(&path).unwrap();
        let error = fs.lock_exclusive(&path).unwrap_err();
        assert!(matches!(&error, LockError::Held { pid: Some(_), .. }), "{error}");
        assert!(error.to_string().contains("LOCK"), "{error}");
        drop(held);
        fs.lock_exclusive(&path).unwrap();
    });
}

#[test]
fn reading_a_file_beyond_the_bound_is_refused_with_the_figure() {
    on_each(|fs, dir| {
        write_atomic(fs, &dir.join("a"), &[0; 100]).unwrap();
        let error = read(fs, &dir.join("a"), 99).unwrap_err();
        assert!(error.to_string().contains("100 bytes, at most 99"), "{error}");
        assert!(fs.available_bytes(dir).unwrap() > 0);
    });
}
