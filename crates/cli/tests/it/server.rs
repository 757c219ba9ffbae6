//! A server in a process of its own, as its users run it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{Ran, text};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A free port of loopback.
const LOOPBACK: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// The server; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
    said: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[], &[])
    }

    /// With further arguments and variables.
    pub(crate) fn start_with(data: &Path, more: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_on(data, &[&LOOPBACK, more].concat(), variables)
    }

    /// On an address that the arguments or variables say.
    pub(crate) fn start_on(data: &Path, more: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::begin(Command::new(env!("CARGO_BIN_EXE_mainstay")), data, more, variables)
    }

    /// Inside a control group from its first instruction on.
    pub(crate) fn start_in(group: &Path, data: &Path, more: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        shell.arg(group.join("cgroup.procs")).arg(env!("CARGO_BIN_EXE_mainstay"));
        Self::begin(shell, data, &[&LOOPBACK, more].concat(), &[])
    }

    fn begin(mut command: Command, data: &Path, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = command
            .args(["serve", "--data", text(data), "--model", "static"])
            .args(more)
            .env_remove("MODEL_PATH")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, heard) = (BufReader::new(child.stderr.take().unwrap()).lines(), said.clone());
        // Drained, so that the server never waits for its reader.
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| heard.lock().unwrap().push(line));
        });
        let mut server = Self { child, url: String::new(), said };
        let line = server.wait_for("listening on ");
        let address = line.split_once("://").unwrap().1.split_whitespace().next().unwrap();
        server.url = format!("http://{address}");
        server
    }

    /// Waits until the server has said this; answers the line.
    pub(crate) fn wait_for(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.said.lock().unwrap().clone();
            if let Some(line) = said.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "never said {part:?}: {said:#?}");
            std::thread::yield_now();
        }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// Its command line, as everybody on the machine can read it.
    pub(crate) fn command_line(&self) -> String {
        let path = format!("/proc/{}/cmdline", self.child.id());
        String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
    }

    /// Runs a command against the server.
    pub(crate) fn mainstay(&self, arguments: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(arguments)
            .env("MAINSTAY_URL", &self.url)
            .env_remove("MAINSTAY_DATA")
            .output();
        Ran::of(output.unwrap())
    }

    /// The same with an API key.
    pub(crate) fn mainstay_as(&self, key: &str, arguments: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(arguments)
            .env("MAINSTAY_URL", &self.url)
            .env("MAINSTAY_API_KEY", key)
            .env_remove("MAINSTAY_DATA")
            .output();
        Ran::of(output.unwrap())
    }

    /// Sends a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let (flag, pid) = (format!("-{name}"), self.child.id().to_string());
        assert!(Command::new("kill").args([flag, pid]).status().unwrap().success());
    }

    /// Waits for its end; answers its exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it did not end: {:#?}", self.said.lock().unwrap());
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that takes error statuses as answers.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .build()
        .new_agent()
}
