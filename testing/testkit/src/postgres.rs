//! A real PostgreSQL for tests: one server for a test binary, a database of its own for each test.
//!
//! It listens on loopback with passwords, keeps its data in a temporary folder, and ends with the
//! process that started it, however that one ends: a shell beside it waits for the closing of a pipe.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process, kill_process_group};

/// The user of every database.
pub const USER: &str = "mainstay";
/// Its password; looked for in logs by tests that say it must not be there.
pub const PASSWORD: &str = "hunter2-of-the-catalogue";
/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(60);
/// Lines of the log that are shown when something fails.
const LOG_LINES: usize = 30;
/// Runs the server, and ends it and its folder when standard input ends.
const SCRIPT: &str = r#"
"$0" -D "$1/data" -k "$1" -p "$2" -c listen_addresses=127.0.0.1 -c max_connections=300 \
  -c fsync=off -c full_page_writes=off -c shared_buffers=32MB </dev/null &
cat >/dev/null
kill -QUIT $! ; wait
rm -rf "$1"
"#;

/// A server. Clones share it.
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    owner: Option<(u32, u32)>,
    running: Mutex<Option<Running>>,
    log: Arc<Mutex<VecDeque<String>>>,
}

struct Running {
    shell: Child,
    group: Pid,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program of PostgreSQL: on the path, or where Debian keeps it.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

/// The user `postgres`: the server refuses to run as root.
fn owner() -> Option<(u32, u32)> {
    if !getuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("a system has a list of users");
    let fields = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&"postgres"));
    let fields = fields.expect("the package postgresql makes a user postgres: install it");
    Some((fields[2].parse().expect("a user has a number"), fields[3].parse().expect("a group has")))
}

impl Postgres {
    /// The server that all tests of this binary share.
    pub fn shared() -> &'static Postgres {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Postgres::start)
    }

    /// A server of its own, for tests that stop it.
    pub fn start() -> Postgres {
        let folder = tempfile::Builder::new().prefix("mainstay-postgres-").tempdir();
        let folder = folder.expect("a temporary folder can be made").keep();
        let owner = owner();
        if let Some((user, group)) = owner {
            chown(&folder, Some(user), Some(group)).expect("root may give folders away");
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a port is free").port();
        let server =
            Postgres { folder, port, owner, running: Mutex::default(), log: Arc::default() };
        server.create();
        server.run();
        server
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env("PGPASSWORD", PASSWORD).env("LC_ALL", "C");
        if let Some((user, group)) = self.owner {
            command.gid(group).uid(user);
        }
        command
    }

    fn create(&self) {
        // Through a file: another user may not open our standard input.
        let password = self.folder.join("password");
        std::fs::write(&password, PASSWORD).expect("a file can be written to the folder");
        let mut initdb = self.command(&program("initdb"));
        let created = initdb
            .args(["--auth=scram-sha-256", "--no-sync", "--username", USER])
            .args(["--encoding=UTF8", "--pwfile"])
            .arg(&password)
            .arg("--pgdata")
            .arg(self.folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .expect("initdb of the package postgresql is installed");
        assert!(created.success(), "initdb failed");
    }

    /// Starts a server that was killed, on the same port with the same data.
    pub fn run(&self) {
        let mut shell = self.command(Path::new("/bin/sh"));
        let mut shell = shell
            .arg("-c")
            .arg(SCRIPT)
            .arg(program("postgres"))
            .arg(&self.folder)
            .arg(self.port.to_string())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
        let stderr = shell.stderr.take().expect("it is piped");
        let (tell, told) = mpsc::channel();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("database system is ready to accept connections") {
                    let _ = tell.send(());
                }
                let mut log = lock(&log);
                log.push_back(line);
                while log.len() > LOG_LINES {
                    log.pop_front();
                }
            }
        });
        let group = Pid::from_child(&shell);
        *lock(&self.running) = Some(Running { shell, group });
        if told.recv_timeout(START_MAX).is_err() {
            panic!("PostgreSQL did not start:\n{}", self.log());
        }
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        lock(&self.log).iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// The server's processes: each backend leads a group of its own, so they are found by their
    /// parent.
    fn processes(&self) -> Vec<Pid> {
        let pid_file = std::fs::read_to_string(self.folder.join("data/postmaster.pid"));
        let first = pid_file.unwrap_or_default().lines().next().and_then(|pid| pid.parse().ok());
        let Some(postmaster): Option<i32> = first else { return Vec::new() };
        let parent_of = |pid: i32| -> Option<i32> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name in parentheses may hold anything.
            stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
        };
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        let ours = pids.filter(|pid| *pid == postmaster || parent_of(*pid) == Some(postmaster));
        ours.filter_map(Pid::from_raw).collect()
    }

    fn signal(&self, signal: Signal) {
        for process in self.processes() {
            // One that has just ended needs no signal.
            let _ = kill_process(process, signal);
        }
    }

    /// As a power failure does: all its processes at once.
    pub fn kill(&self) {
        let Some(mut running) = lock(&self.running).take() else { return };
        let processes = self.processes();
        let _ = kill_process_group(running.group, Signal::KILL);
        self.signal(Signal::KILL);
        for process in &processes {
            let _ = kill_process(*process, Signal::KILL);
        }
        let _ = running.shell.wait();
        let there = |pid: &Pid| Path::new(&format!("/proc/{}", pid.as_raw_pid())).exists();
        while processes.iter().any(there) {
            std::thread::yield_now();
        }
    }

    /// Lets all its processes hang: connections are accepted by the kernel and never answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The address of a new, empty database.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name, PASSWORD)
    }

    /// The address of a database with this password.
    pub fn url(&self, database: &str, password: &str) -> String {
        format!("postgres://{USER}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs SQL in a database and answers its rows, a line each with `|` between their values; panics
    /// with what the server says.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.command(&program("psql"));
        let output = psql
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
                "--username",
                USER,
            ])
            .args(["--host=127.0.0.1", "--port", &self.port.to_string()])
            .args(["--dbname", database, "--command", sql])
            .output()
            .expect("psql of the package postgresql is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
