//! What mends itself leaves one entry in the audit trail (D5).

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_db::file_system::{Bytes, FileHandle, FileSystem, Listed, LockError, LockGuard};
use mainstay_db::{InjectedFault, Method, Options};
use mainstay_ops::handles::HandleConfig;
use mainstay_resilience::{BreakerConfig, OpenFor};
use mainstay_server::{Config, Host};
use serde_json::{Value, json};

use crate::incidents::opened;
use crate::operations::{audited, search, until};
use crate::{Running, indexed};

fn noted(server: &Running, action: &str) -> Vec<Value> {
    let found = until(|| json!(audited(server, action)), |events| events != &json!([]));
    found.as_array().unwrap().clone()
}

/// D5: a damaged view is made anew, and the trail says so once.
#[test]
fn d5_a_damaged_view_is_mended_with_one_entry() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let start = || {
        let host = Host::new(&HandleConfig::default(), None).unwrap();
        let db = opened(&host, folder.path(), &Options::default());
        if db.collections().is_empty() {
            db.create_collection("default", "static".parse().unwrap()).unwrap();
        }
        Running::start_over(Arc::clone(&folder), db, host, Config::default(), |_| {})
    };
    let server = start();
    indexed(&server);
    drop(server);
    // Locked until its views are written.
    let host = Host::new(&HandleConfig::default(), None).unwrap();
    drop(opened(&host, folder.path(), &Options::default()));
    let views = folder.path().join("collections/default/views");
    let bm25 = fs::read_dir(&views).unwrap().map(|entry| entry.unwrap().path());
    let is_bm25 = |name: &str| name.starts_with("bm25-");
    let bm25 = bm25.filter(|path| is_bm25(path.file_name().unwrap().to_str().unwrap()));
    for entry in bm25.flat_map(|folder| fs::read_dir(folder).unwrap()) {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(path, bytes).unwrap();
    }
    let server = start();
    let events = noted(&server, "view.mend");
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(
        (&events[0]["target"], &events[0]["who"]),
        (&json!("default/bm25"), &json!("system"))
    );
    assert_ne!(events[0]["why"], "", "what was damaged");
    let answer = until(|| search(&server), |answer| answer["complete"] == true);
    assert_eq!(answer["results"][0]["id"], "1");
}

/// D5, B2: a probe that hangs is given up, so that its breaker can close again, with one entry.
#[test]
fn d5_a_probe_that_hangs_is_given_up_with_one_entry() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let host = Host::new(&HandleConfig::default(), None).unwrap();
    let mut breaker = BreakerConfig::search_method();
    // Longer than the second between two looks at it.
    breaker.open_for = OpenFor::fixed(Duration::from_secs(3));
    breaker.probes.give_up_after = Duration::from_secs(3);
    let db = opened(&host, folder.path(), &Options { breaker, ..Options::default() });
    db.create_collection("default", "static".parse().unwrap()).unwrap();
    let mut config = Config::default();
    config.operations.probe_every = Duration::ZERO;
    let server = Running::start_over(folder, db, host, config, |_| {});
    indexed(&server);
    server.break_method(Method::Native, InjectedFault::Error);
    for _ in 0..5 {
        search(&server);
    }
    server.break_method(Method::Native, InjectedFault::Hang);
    let ask = &|timeout_ms: u32| {
        server.post("/search", &json!({"query": "zebra", "timeout_ms": timeout_ms})).status
    };
    let native = server.db.collection("default").unwrap().dependency(Method::Native).clone();
    // An active probe takes 2 s at most, so that none has to be given up; here a search is the probe. The
    // active one may come first: it opens the breaker again, and must not close it.
    native.probe_by(|| Err("a search shall find out".into()));
    let faults = native.faults();
    let struck = faults.struck();
    std::thread::scope(|scope| {
        // The search that is let through as a probe waits for longer than a probe may take.
        let probe = scope.spawn(move || {
            while faults.struck() == struck {
                ask(20_000);
            }
        });
        let probed = until(|| json!(faults.struck()), |now| now != &json!(struck));
        assert_eq!(probed, json!(struck + 1));
        let events = until(
            || {
                ask(1_000);
                json!(audited(&server, "breaker.probe"))
            },
            |events| events != &json!([]),
        );
        assert_eq!(events.as_array().unwrap().len(), 1, "{events:#}");
        let (target, who) = (&events[0]["target"], &events[0]["who"]);
        assert_eq!((target, who), (&json!("default/native"), &json!("system")));
        server.mend_method(Method::Native);
        probe.join().unwrap();
    });
    let native = "/admin/dependencies/default/native";
    until(
        || {
            ask(1_000);
            server.get(native).json()
        },
        |shown| shown["state"] == "closed",
    );
    let entries = audited(&server, "breaker.probe");
    assert_eq!(entries.len(), 1, "looking again is no other one: {entries:#?}");
}

/// A disk at which one thread panics when it makes a file: a fault of the program, not of the disk.
#[derive(Debug)]
struct Deadly {
    inner: Arc<dyn FileSystem>,
    thread: &'static str,
    deaths: AtomicUsize,
}

impl FileSystem for Deadly {
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let is_its = std::thread::current().name() == Some(self.thread);
        let one_less = |left: usize| left.checked_sub(1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        if is_its && self.deaths.fetch_update(set, fetch, one_less).is_ok() {
            panic!("injected: the thread {} dies", self.thread);
        }
        self.inner.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        self.inner.open(path)
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
        self.inner.len(path)
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

/// D5: the thread that drives a view panics for real, while it writes a checkpoint. The view goes on by
/// itself; metric and trail say so.
#[test]
fn d5_a_thread_that_dies_at_its_work_goes_on_with_its_entries() {
    let host = Host::new(&HandleConfig::default(), None).unwrap();
    let deaths = AtomicUsize::new(1);
    let disk = Deadly { inner: host.file_system(), thread: "bm25", deaths };
    let server = Running::start_on(Arc::new(disk), Config::default());
    indexed(&server);
    let entries = noted(&server, "worker.restart");
    let entry = &entries[0];
    assert_eq!((&entry["target"], &entry["who"]), (&json!("default"), &json!("system")));
    assert_eq!((&entry["before"], &entry["after"]), (&json!("dead"), &json!("begun anew")));
    let metrics = server.get("/metrics").body;
    for counted in [
        "mainstay_worker_restarts_total{worker=\"bm25\"} ",
        "mainstay_view_failures_total{view=\"bm25\"} ",
    ] {
        let count = metrics.lines().find_map(|line| line.strip_prefix(counted)).unwrap();
        assert!(count.parse::<f64>().unwrap() >= 1.0, "{counted}{count}");
    }
    let later = json!([{"id": "2", "body": "a second zebra"}]);
    let seq = server.put("/collections/default/documents", &later).json()["seq"].as_u64().unwrap();
    let docs = server.db.collection("default").unwrap();
    assert!(docs.wait_indexed(seq, &Method::ALL, Duration::from_secs(60)));
    assert_eq!(search(&server)["complete"], true);
}
