//! The log with its threads.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use mainstay_storage::fs::{FileHandle, FileSystem, Listed, LockError, LockGuard, RealFs};
use mainstay_storage::log::{Log, LogError, LogOptions, Record};
use mainstay_storage::sim::{Failure, Faults, Operation, Rule, SimFs};

fn record(text: &str) -> Record {
    Record { kind: 7, payload: Bytes::copy_from_slice(text.as_bytes()) }
}

fn open(dir: &tempfile::TempDir) -> Log {
    Log::open(Arc::new(RealFs), &dir.path().join("log"), LogOptions::default()).unwrap().0
}

#[test]
fn appended_records_are_read_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let first = log.append(vec![record("a"), record("b")]).unwrap();
    assert_eq!((first.first_seq, first.last_seq), (1, 2));
    log.append(vec![record("c")]).unwrap();
    assert_eq!(log.wait_beyond(2, Duration::from_secs(1)), 3);
    drop(log);
    let log = open(&dir);
    let entries = log.read(1, u64::MAX).unwrap();
    let texts: Vec<&[u8]> = entries.iter().map(|entry| entry.payload.as_ref()).collect();
    assert_eq!(texts, [b"a", b"b", b"c"]);
    assert!(log.verify().unwrap().is_whole());
    assert_eq!(log.append(vec![record("d")]).unwrap().first_seq, 4);
}

#[test]
fn a_second_log_on_the_same_folder_is_refused_with_the_holders_pid() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(&dir);
    let second = Log::open(Arc::new(RealFs), &dir.path().join("log"), LogOptions::default());
    let error = second.unwrap_err();
    assert!(matches!(error, LogError::Locked(_)));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn segments_are_prepared_beside_the_commits_that_use_them() {
    let fs = SimFs::new(1);
    let options = || LogOptions { cache_bytes: 0, ..LogOptions::small() };
    let open = || Log::open(Arc::new(fs.clone()), Path::new("/log"), options()).unwrap();
    let (log, _) = open();
    let payload = "r".repeat(3000);
    for _ in 0..2000 {
        log.append(vec![record(&payload)]).unwrap();
    }
    assert_eq!(log.verify().unwrap().records, 2000);
    drop(log);
    let (log, recovery) = open();
    assert_eq!(recovery.damage, []);
    assert_eq!(recovery.unreadable, [""; 0]);
    assert_eq!(log.verify().unwrap().records, 2000);
}

#[test]
fn numbers_follow_the_order_of_submission() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let tickets: Vec<_> =
        (0..100).map(|i| log.submit(vec![record(&i.to_string())]).unwrap()).collect();
    for (ticket, seq) in tickets.into_iter().zip(1..) {
        assert_eq!(ticket.wait().unwrap().first_seq, seq);
    }
}

#[test]
fn a_full_queue_refuses_with_the_figures_after_its_deadline() {
    let fs = SlowSync::new();
    let options = LogOptions { queue_bytes_max: 2048, queue_wait_ms_max: 0, ..LogOptions::small() };
    let log = Log::open(Arc::new(fs.clone()), Path::new("/log"), options).unwrap().0;
    let held = fs.hold();
    let mut tickets = Vec::new();
    let error = loop {
        match log.submit(vec![record(&"r".repeat(300))]) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::QueueFull { queued_bytes_max: 2048, .. }), "{error}");
    assert!(error.to_string().contains("at most 2048 may"), "{error}");
    drop(held);
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    log.append(vec![record("after")]).unwrap();
}

#[test]
fn what_waits_while_a_sync_runs_is_committed_in_one_frame() {
    let fs = SlowSync::new();
    let log = Log::open(Arc::new(fs.clone()), Path::new("/log"), LogOptions::small()).unwrap().0;
    let held = fs.hold();
    let tickets: Vec<_> = (0..50).map(|_| log.submit(vec![record("r")]).unwrap()).collect();
    drop(held);
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    // The first frame may hold any number, the second what gathered behind it up to the group
    // limit (4 KiB, each append counted as a sector).
    assert!(log.verify().unwrap().frames < 20);
}

#[test]
fn closing_commits_what_waits_and_refuses_what_comes_later() {
    let fs = SimFs::new(9);
    let log = Log::open(Arc::new(fs.clone()), Path::new("/log"), LogOptions::small()).unwrap().0;
    let tickets: Vec<_> = (0..20).map(|_| log.submit(vec![record("r")]).unwrap()).collect();
    log.close().unwrap();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert!(matches!(log.append(vec![record("late")]), Err(LogError::Closed)));
    fs.crash();
    let options = LogOptions { durable_seq_min: 20, ..LogOptions::small() };
    let recovery = Log::open(Arc::new(fs), Path::new("/log"), options).unwrap().1;
    assert_eq!(recovery.durable_seq, 20);
    assert_eq!(recovery.copied_records, 0, "a clean end proves its last commit");
}

#[test]
fn a_reader_that_waits_is_woken_by_the_commit() {
    let fs = SimFs::new(10);
    let log = Log::open(Arc::new(fs), Path::new("/log"), LogOptions::small()).unwrap().0;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| log.wait_beyond(0, Duration::from_secs(60)));
        log.append(vec![record("r")]).unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
    assert_eq!(log.wait_beyond(1, Duration::ZERO), 1);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| log.wait_beyond(1, Duration::from_secs(600)));
        log.close().unwrap();
        assert_eq!(reader.join().unwrap(), 1, "closing wakes it too");
    });
}

#[test]
fn a_reader_that_lags_reads_the_disk_and_one_that_keeps_up_the_cache() {
    let fs = SimFs::new(11);
    let options = LogOptions { cache_bytes: 1000, ..LogOptions::small() };
    let log = Log::open(Arc::new(fs.clone()), Path::new("/log"), options).unwrap().0;
    for count in 0..100 {
        log.append(vec![record(&count.to_string())]).unwrap();
    }
    let lagging = log.read(1, u64::MAX).unwrap();
    assert_eq!(lagging.len(), 100);
    let rule = Rule { on: Some(Operation::Read), skip: 0, times: u64::MAX, failure: Failure::Io };
    fs.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    assert_eq!(log.read(100, u64::MAX).unwrap(), lagging[99..], "no disk is needed");
    assert!(matches!(log.read(1, u64::MAX), Err(LogError::Io { .. })));
    assert!(matches!(log.read(0, 1), Err(LogError::BeforeFirst { .. })));
    assert_eq!(log.read(101, 1).unwrap(), []);
}

/// A simulated disk whose syncs wait while a test holds them.
#[derive(Clone, Debug)]
struct SlowSync {
    inner: SimFs,
    gate: Arc<Mutex<()>>,
}

impl SlowSync {
    fn new() -> Self {
        Self { inner: SimFs::new(12), gate: Arc::default() }
    }

    fn hold(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap()
    }

    fn wrap(&self, file: Box<dyn FileHandle>) -> Box<dyn FileHandle> {
        Box::new(SlowFile { inner: file, gate: Arc::clone(&self.gate) })
    }
}

#[derive(Debug)]
struct SlowFile {
    inner: Box<dyn FileHandle>,
    gate: Arc<Mutex<()>>,
}

impl FileHandle for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(data, offset)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.inner.allocate(bytes)
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.inner.truncate(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn sync_data(&self) -> io::Result<()> {
        drop(self.gate.lock().unwrap());
        self.inner.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }
    fn drop_cache(&self) -> io::Result<()> {
        self.inner.drop_cache()
    }
}

impl FileSystem for SlowSync {
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        Ok(self.wrap(self.inner.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        Ok(self.wrap(self.inner.open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.inner.list(dir)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        FileSystem::len(&self.inner, path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn map(&self, path: &Path) -> io::Result<Bytes> {
        self.inner.map(path)
    }
    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockError> {
        self.inner.lock_exclusive(path)
    }
    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.available_bytes(path)
    }
}
