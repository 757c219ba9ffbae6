//! The work by which a build of `mainstay` is guided: this repository is indexed, served, searched in every
//! way, written to, read, asked how it is, and recovered.
//!
//! What is done here often, the build makes quick at the cost of what is not. So each kind of request is
//! among it, and none stands for a benchmark.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

use crate::{command, guided};

/// How long the server may take to begin, to index, and to end: it counts each of its steps.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long one answer may take.
const ANSWER_MS: u64 = 30_000;
/// Callers at a time.
const CALLERS: usize = 4;
/// How much of it is done.
pub(crate) struct Amount {
    /// What is indexed, of this repository.
    folder: &'static str,
    /// Small documents at most.
    parts_max: usize,
    /// Phrases that are searched for, at most.
    phrases_max: usize,
}

/// What guides a build.
pub(crate) const ALL: Amount = Amount { folder: ".", parts_max: usize::MAX, phrases_max: 1_000 };
/// What shows that all of it can be done.
pub(crate) const SHORT: Amount = Amount { folder: "docs", parts_max: 1_000, phrases_max: 64 };

/// Words of a phrase.
const PHRASE_WORDS: usize = 3;
/// Small documents of one bulk write.
const BULK: usize = 200;
/// Words that are operators where only `tantivy` is asked.
const OPERATORS: [&str; 5] = ["AND", "OR", "NOT", "IN", "TO"];
/// What a program is told of its caller's environment: the rest of it may be settings.
const PASSED_ON: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"];

/// Has this program do it.
pub(crate) fn run(program: &Path, amount: &Amount) -> Result<(), String> {
    let place = place("training")?;
    let data = place.join("data");
    let parts = parts(&crate::root(), amount.parts_max)?;
    let phrases = phrases(&parts, amount.phrases_max);
    let folder = crate::root().join(amount.folder);
    let settings = [
        format!("telemetry.endpoint={}", collector()?),
        "telemetry.protocol=http/protobuf".into(),
        "telemetry.sample_ratio=0.2".into(),
        "admission.key_rates=search = 1000000/s; read = 1000000/s".into(),
    ];
    // Twice: the second time there is something to recover.
    for pass in ["begin", "recover"] {
        eprintln!("{pass}: {} documents written, {} phrases asked for", parts.len(), phrases.len());
        let server = Served::start(program, &data, pass, &settings, Some(&folder))?;
        let worked = work(&server.url, &parts, &phrases);
        worked.and(server.end())?;
    }
    commands(program, &data, &folder)?;
    std::fs::remove_dir_all(&place).map_err(|e| format!("cannot remove {}: {e}", place.display()))
}

/// A folder for data and logs that no other process uses; it stays where something fails.
pub(crate) fn place(name: &str) -> Result<PathBuf, String> {
    guided::emptied(&guided::folder().join(format!("{name}-{}", std::process::id())))
}

/// A program to be run without the settings that its caller's environment may have.
fn undisturbed(program: &Path) -> Command {
    let mut command = Command::new(program);
    let passed_on = PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.env_clear().envs(passed_on);
    command
}

/// Runs a command of the program to its end.
pub(crate) fn run_command(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let told = || format!("`{} {}`", program.display(), arguments.join(" "));
    let ended = undisturbed(program).args(arguments).stdout(Stdio::null()).status();
    let ended = ended.map_err(|e| format!("cannot run {}: {e}", told()))?;
    ended.success().then_some(()).ok_or_else(|| format!("{} failed: {ended}", told()))
}

/// A server of a data directory; killed when it is not ended.
pub(crate) struct Served {
    pub(crate) url: String,
    child: Child,
    log: PathBuf,
}

impl Served {
    /// With these settings; indexes a folder first if there is one.
    pub(crate) fn start(
        program: &Path,
        data: &Path,
        name: &str,
        settings: &[String],
        folder: Option<&Path>,
    ) -> Result<Self, String> {
        let told = |e: std::io::Error| format!("cannot start {}: {e}", program.display());
        let address = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let address = address.map_err(told)?;
        let log = data.with_file_name(format!("{name}.log"));
        let errors = std::fs::File::create(&log).map_err(told)?;
        let child = undisturbed(program)
            .args(["serve", "--listen", &address.to_string(), "--drain-s", "120"])
            .arg("--data")
            .arg(data)
            .args(folder.into_iter().flat_map(|it| [OsStr::new("--index"), it.as_os_str()]))
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(told)?;
        let mut server = Self { url: format!("http://{address}"), child, log };
        let ready = format!("{}/health/ready", server.url);
        let agent = agent();
        server.wait("begin to serve", |child| match child.try_wait() {
            Ok(None) => Ok(agent.get(&ready).call().is_ok_and(|it| it.status() == 200)),
            Ok(Some(status)) => Err(format!("the server ended: {status}")),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(server)
    }

    /// In the order in which a server ends by itself: only then it writes down what it counted.
    pub(crate) fn end(mut self) -> Result<(), String> {
        command::run("kill", &["-TERM", &self.child.id().to_string()])?;
        self.wait("end", |child| match child.try_wait() {
            Ok(ended) => ended.map_or(Ok(false), |status| match status.success() {
                true => Ok(true),
                false => Err(format!("the server failed: {status}")),
            }),
            Err(error) => Err(error.to_string()),
        })
    }

    fn wait(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Child) -> Result<bool, String>,
    ) -> Result<(), String> {
        let (begun, log) = (Instant::now(), self.log.display());
        while begun.elapsed() < PATIENCE {
            if is_so(&mut self.child).map_err(|e| format!("{e}; its log is {log}"))? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("the server did not {what} within {PATIENCE:?}; its log is {log}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Everything that is asked over HTTP.
fn work(url: &str, parts: &[Value], phrases: &[String]) -> Result<(), String> {
    let ask = Ask::new(url);
    let known = ask.get("/collections")?;
    if !known["collections"]
        .as_array()
        .is_some_and(|all| all.iter().any(|it| it["name"] == "parts"))
    {
        ask.post("/collections", &json!({"name": "parts", "model": "static"}))?;
    }
    for bulk in parts.chunks(BULK) {
        let lines: String = bulk.iter().map(|part| format!("{part}\n")).collect();
        ask.put("/collections/parts/documents", "application/x-ndjson", &lines)?;
    }
    std::thread::scope(|scope| {
        let call = |caller| {
            let own = phrases.iter().enumerate().skip(caller).step_by(CALLERS);
            move || {
                let (ask, mut own) = (Ask::new(url), own);
                own.try_for_each(|(number, phrase)| visit(&ask, number, phrase, parts))
            }
        };
        let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(call(caller))).collect();
        let mut joined = callers.into_iter().map(|caller| caller.join());
        joined.try_for_each(|it| it.unwrap_or_else(|_| Err("a caller failed".into())))
    })
}

/// What one caller does with one phrase.
fn visit(ask: &Ask<'_>, number: usize, phrase: &str, parts: &[Value]) -> Result<(), String> {
    let words: Vec<&str> = phrase.split(' ').collect();
    let (first, last) = (words[0], words[words.len() - 1]);
    // Mostly as people ask: everything, without a wish.
    for collection in ["default", "parts"] {
        ask.search(&json!({"query": phrase, "collection": collection}))?;
        ask.search(&json!({"query": last, "collection": collection, "lines": 0}))?;
    }
    for method in ["bm25", "tantivy", "native", "semantic"] {
        let collection = if number.is_multiple_of(2) { "default" } else { "parts" };
        ask.search(
            &json!({"query": phrase, "methods": [method], "collection": collection, "limit": 100}),
        )?;
    }
    let wish = match number % 8 {
        0 => json!({"query": format!("\"{phrase}\""), "methods": ["tantivy", "native"]}),
        1 => json!({"query": format!("{first} AND NOT {last}"), "methods": ["tantivy"]}),
        2 => {
            json!({"query": format!("{first}~1 OR {last}*"), "methods": ["tantivy"], "explain": true})
        }
        3 => json!({"query": format!("{first}\\W+\\w+"), "methods": ["native"], "regex": true}),
        4 => {
            json!({"query": phrase, "filter": "language:rust -path:vendor/**", "facets": ["language"]})
        }
        5 => json!({"query": "", "filter": "path:**/*.md", "sort": ["-path"], "limit": 50}),
        6 => json!({"query": last, "methods": ["native"], "word": true, "context_lines": 2}),
        _ => json!({"query": phrase, "fusion": "rrf", "body": true, "offset": 10}),
    };
    ask.search(&wish)?;
    let part = &parts[number % parts.len()];
    let path = format!("/collections/parts/documents/{}", part["id"].as_str().unwrap_or_default());
    ask.get(&path)?;
    ask.get(&path)?;
    if number.is_multiple_of(4) {
        ask.put("/collections/parts/documents", "application/json", &part.to_string())?;
    }
    if number.is_multiple_of(16) {
        ask.post("/collections/parts/documents/delete", &json!({"ids": [part["id"]]}))?;
        ask.put(&path, "application/json", &part.to_string())?;
        for page in [
            "/health",
            "/health/ready",
            "/metrics",
            "/admin/dependencies",
            "/admin/slo",
            "/collections/parts",
        ] {
            ask.page(page)?;
        }
    }
    Ok(())
}

/// What is done with the data directory itself.
fn commands(program: &Path, data: &Path, folder: &Path) -> Result<(), String> {
    let (data, folder) = (data.to_string_lossy(), folder.to_string_lossy());
    let each: [&[&str]; 7] = [
        &["index", &folder],
        &["verify"],
        &["rebuild", "--method", "bm25"],
        &["rebuild", "--method", "native"],
        &["search", "error budget"],
        &["search", "error\\W+budget", "-e"],
        &["search", "write-ahead log", "-m", "semantic", "--json"],
    ];
    each.into_iter()
        .try_for_each(|arguments| run_command(program, &[arguments, &["--data", &data]].concat()))
}

/// Asks one server; whatever is not answered as it should be is an error.
pub(crate) struct Ask<'a> {
    agent: Agent,
    url: &'a str,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(url: &'a str) -> Self {
        Self { agent: agent(), url }
    }

    pub(crate) fn search(&self, wish: &Value) -> Result<(), String> {
        let mut wish = wish.clone();
        wish["timeout_ms"] = ANSWER_MS.into();
        self.post("/search", &wish)
    }

    fn post(&self, path: &str, body: &Value) -> Result<(), String> {
        let sent = self.agent.post(format!("{}{path}", self.url)).send_json(body);
        self.read(path, sent).map(drop)
    }

    pub(crate) fn put(&self, path: &str, kind: &str, body: &str) -> Result<(), String> {
        let request = self.agent.put(format!("{}{path}", self.url)).header("content-type", kind);
        self.read(path, request.send(body)).map(drop)
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let text = self.page(path)?;
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))
    }

    pub(crate) fn page(&self, path: &str) -> Result<String, String> {
        self.read(path, self.agent.get(format!("{}{path}", self.url)).call())
    }

    fn read(
        &self,
        path: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<String, String> {
        let mut answer = answer.map_err(|e| format!("{path}: {e}"))?;
        let text = answer.body_mut().read_to_string().map_err(|e| format!("{path}: {e}"))?;
        match answer.status().is_success() {
            true => Ok(text),
            false => Err(format!("{path}: {} {text}", answer.status())),
        }
    }
}

fn agent() -> Agent {
    let timeout = Some(Duration::from_millis(2 * ANSWER_MS));
    let config =
        Agent::config_builder().timeout_global(timeout).http_status_as_error(false).proxy(None);
    config.build().new_agent()
}

/// Takes spans and forgets them; answers its address. Its threads end with this process.
fn collector() -> Result<String, String> {
    let told = |e: std::io::Error| format!("cannot listen: {e}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(told)?;
    let address = listener.local_addr().map_err(told)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || take_spans(&stream));
        }
    });
    Ok(format!("http://{address}"))
}

/// Answers whatever comes on a connection, until nothing does.
fn take_spans(stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.by_ref().take(1 << 16).read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        let mut writer = stream;
        writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

/// Paragraphs of this repository's texts and sources, as small documents.
pub(crate) fn parts(root: &Path, at_most: usize) -> Result<Vec<Value>, String> {
    let files = command::output("git", &["ls-files", "*.md", "*.rs"])?;
    let mut parts = Vec::new();
    for file in files.lines() {
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        let paragraphs =
            text.split("\n\n").filter(|it| it.split_whitespace().count() > PHRASE_WORDS);
        let language = if file.ends_with(".rs") { "rust" } else { "en" };
        for (number, body) in paragraphs.enumerate() {
            let id = format!("{}-{number}", file.replace('/', "."));
            parts.push(json!({
                "id": id, "body": body, "path": file, "language": language,
                "attributes": {"paragraph": number},
            }));
        }
    }
    let step = parts.len().div_ceil(at_most).max(1);
    let parts: Vec<Value> = parts.into_iter().step_by(step).collect();
    if parts.is_empty() {
        return Err(format!("there are no texts under {}", root.display()));
    }
    Ok(parts)
}

/// Words that follow each other, of paragraphs here and there.
pub(crate) fn phrases(parts: &[Value], at_most: usize) -> Vec<String> {
    let mut phrases = BTreeSet::new();
    let step = parts.len().div_ceil(at_most).max(1);
    for part in parts.iter().step_by(step) {
        let body = part["body"].as_str().unwrap_or_default();
        let words = body.split(|c: char| !c.is_alphanumeric());
        let words = words.filter(|word| word.len() > 2 && !OPERATORS.contains(word));
        let words: Vec<&str> = words.skip(phrases.len() % 4).take(PHRASE_WORDS).collect();
        if words.len() == PHRASE_WORDS {
            phrases.insert(words.join(" "));
        }
    }
    phrases.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn this_repository_has_enough_to_be_trained_with() {
        for amount in [ALL, SHORT] {
            let parts = parts(&crate::root(), amount.parts_max).unwrap();
            let phrases = phrases(&parts, amount.phrases_max);
            let counts = (parts.len(), phrases.len());
            assert!(counts.0 > amount.parts_max.min(2_000) / 2, "{counts:?}");
            assert!(
                (amount.phrases_max / 3..=amount.phrases_max).contains(&counts.1),
                "{counts:?}"
            );
            assert!(phrases.iter().all(|phrase| phrase.split(' ').count() == PHRASE_WORDS));
            let operators = |phrase: &String| phrase.split(' ').any(|it| OPERATORS.contains(&it));
            assert!(!phrases.iter().any(operators), "they would be read as such");
            assert!(parts.iter().all(|it| it["id"].as_str().is_some_and(|id| id.len() <= 512)));
        }
    }

    #[test]
    fn the_collector_answers_each_request_of_a_connection() {
        let agent = agent();
        let url = format!("{}/v1/traces", collector().unwrap());
        for bytes in [0, 10, 100_000] {
            assert_eq!(agent.post(&url).send(&vec![7; bytes][..]).unwrap().status(), 200);
        }
    }
}
