//! What stands in front of a handler costs: admission, keys, levels, metrics, logs, traces, correlation.
//!
//! Three processes answer the same requests in turns: one the handlers alone, without anybody who
//! receives logs and traces; one with everything on and a key and a rate; and that one with each trace
//! recorded and sent to a collector, which is in the process that asks them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use tower::ServiceExt;

use crate::receiver;
use crate::served::{self, query};

/// What is asked, and how.
struct Kind {
    request: &'static str,
    /// Requests under way at a time: one shows what a request costs, eight what that does to the
    /// throughput.
    at_once: usize,
    /// All threads of a process on one processor. Where they have several, the scheduler decides how
    /// often a request wakes another one, and that varies by more than what is measured.
    on_one: bool,
    /// Rounds, so short that what the machine does otherwise meets all sides alike.
    rounds: usize,
}

const KINDS: [Kind; 4] = [
    Kind { request: "document", at_once: 1, on_one: true, rounds: 300 },
    Kind { request: "document", at_once: 1, on_one: false, rounds: 300 },
    Kind { request: "search", at_once: 1, on_one: false, rounds: 45 },
    Kind { request: "search", at_once: 8, on_one: false, rounds: 45 },
];

/// What is on in each of the processes, as it is asked for and as it is told.
const SIDES: [(&str, &str); 3] =
    [("bare", "nothing"), ("default", "everything"), ("traced", "everything, every trace sent")];

/// What each side answers before it is measured.
const WARM_UP_S: u64 = 1;

/// Measures and prints a table.
pub(crate) fn run(seconds: u64) -> Result<(), String> {
    let collector = receiver::start("application/x-protobuf", |_| Vec::new());
    let collector = collector.map_err(|error| error.to_string())?;
    println!(
        "| request | under way | processors | what is on | takes | more (quartiles) | CPU time | more (quartiles) |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for on_one in [true, false] {
        let mut sides = Vec::new();
        for (name, _) in SIDES {
            sides.push(Side::start(name, &collector, on_one)?);
        }
        for kind in KINDS.iter().filter(|kind| kind.on_one == on_one) {
            measure(kind, &mut sides, seconds)?;
        }
    }
    Ok(())
}

fn measure(kind: &Kind, sides: &mut [Side], seconds: u64) -> Result<(), String> {
    let Kind { request, at_once, on_one, rounds: count } = *kind;
    let slice = seconds as f64 / (SIDES.len() * count) as f64;
    let mut rounds = Vec::new();
    for side in &mut *sides {
        // Caches and memory as they are after a while, and nothing left of building the index.
        side.means(&format!("{request} {at_once} {WARM_UP_S} 0"))?;
    }
    for round in 0..count {
        let asked = format!("{request} {at_once} {slice} {}", round * 1_000_000);
        let mut means = [(0.0, 0.0); SIDES.len()];
        // Forwards and backwards, so that none is always the one that finds the caches warm.
        for turn in 0..SIDES.len() {
            let side = if round % 2 == 0 { turn } else { SIDES.len() - 1 - turn };
            means[side] = sides[side].means(&asked)?;
        }
        rounds.push(means);
    }
    let quantile = |of: &dyn Fn(&[(f64, f64); 3]) -> f64, share: f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[((all.len() - 1) as f64 * share) as usize]
    };
    let processors = if on_one { "1" } else { "all" };
    for (side, (_, name)) in SIDES.iter().enumerate() {
        let takes = quantile(&|round| round[side].0, 0.5);
        let cpu = quantile(&|round| round[side].1, 0.5);
        print!("| {request} | {at_once} | {processors} | {name} | {takes:.1} µs |");
        if side == 0 {
            println!(" | {cpu:.1} µs | |");
            continue;
        }
        // Round by round: what the machine does meanwhile then counts for both.
        let slower = |share| 100.0 * quantile(&|round| round[side].0 / round[0].0 - 1.0, share);
        let more = |share| quantile(&|round| round[side].1 - round[0].1, share);
        println!(
            " {:+.1} % ({:+.1} to {:+.1}) | {cpu:.1} µs | {:.1} µs ({:.1} to {:.1}) |",
            slower(0.5),
            slower(0.25),
            slower(0.75),
            more(0.5),
            more(0.25),
            more(0.75),
        );
    }
    Ok(())
}

/// One of the processes.
struct Side {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Side {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Side {
    fn start(name: &str, collector: &str, on_one: bool) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(["side", name, collector, if on_one { "one" } else { "all" }])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (Some(asks), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the other process has no pipes".into());
        };
        Ok(Self { child, asks, answers: BufReader::new(answers) })
    }

    /// What a request takes and what CPU time the process needs for it, in microseconds.
    fn means(&mut self, asked: &str) -> Result<(f64, f64), String> {
        writeln!(self.asks, "{asked}").map_err(|error| error.to_string())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(|error| error.to_string())?;
        let means = answer
            .trim()
            .split_once(' ')
            .and_then(|(wall, cpu)| Some((wall.parse().ok()?, cpu.parse().ok()?)));
        means.ok_or_else(|| format!("a side said {answer:?} to {asked:?}"))
    }
}

/// Answers each line of standard input, `KIND AT_ONCE SECONDS SEED`, with what a request takes and what
/// CPU time the process needs for it, in microseconds.
pub(crate) fn side(name: &str, collector: &str, processors: &str) -> Result<(), String> {
    if processors == "one" {
        keep_to_one_processor()?;
    }
    let full = name != "bare";
    let rates = ("admission.key_rates", "search = 1000000/s; read = 1000000/s");
    let sent = [("telemetry.endpoint", collector), ("telemetry.protocol", "http/protobuf"), rates];
    let settings: &[_] = match name {
        "bare" => &[],
        "default" => &[rates],
        _ => &sent,
    };
    let served = served::start("static", settings, full)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let router = served.routers[usize::from(full)].clone();
    let key = match full {
        true => runtime.block_on(key(&router))?,
        false => String::new(),
    };
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let parts: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<f64>().ok());
        let (Some(kind), Some(at_once), Some(seconds), Some(seed)) =
            (parts.first(), number(1), number(2), number(3))
        else {
            return Err(format!("not understood: {line}"));
        };
        let (begun, cpu) = (Instant::now(), cpu_time());
        let until = begun + Duration::from_secs_f64(seconds);
        let counts = runtime.block_on(async {
            if at_once < 2.0 {
                return vec![
                    ask(router.clone(), kind.to_string(), key.clone(), until, seed as u64).await,
                ];
            }
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..at_once as u64 {
                let (router, kind, key) = (router.clone(), kind.to_string(), key.clone());
                tasks.spawn(ask(router, kind, key, until, seed as u64 + task * 100_000));
            }
            tasks.join_all().await
        });
        let count = counts.iter().sum::<u64>().max(1) as f64;
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_time() - cpu);
        println!("{} {}", wall * 1e6 / count, cpu * 1e6 / count);
    }
    Ok(())
}

/// For this thread and all that it starts: the last processor, because the first has the machine's own
/// work.
fn keep_to_one_processor() -> Result<(), String> {
    let all = rustix::thread::sched_getaffinity(None).map_err(|error| error.to_string())?;
    let last = (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu));
    let mut one = rustix::thread::CpuSet::new();
    one.set(last.unwrap_or(0));
    rustix::thread::sched_setaffinity(None, &one).map_err(|error| error.to_string())
}

/// What all threads of this process have used, in seconds.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn request(kind: &str, key: &str, number: u64) -> Request<Body> {
    let search = serde_json::json!({"query": query(number), "lines": 0}).to_string();
    let (builder, body) = match kind {
        "document" => (Request::get("/collections/default/documents/1"), String::new()),
        _ => (Request::post("/search").header("content-type", "application/json"), search),
    };
    let builder = match key {
        "" => builder,
        key => builder.header("authorization", format!("Bearer {key}")),
    };
    builder.body(Body::from(body)).unwrap_or_default()
}

/// Requests one after the other until then; how many.
async fn ask(router: Router, kind: String, key: String, until: Instant, seed: u64) -> u64 {
    let mut count = 0;
    while Instant::now() < until {
        let answer = router.clone().oneshot(request(&kind, &key, seed + count)).await;
        assert!(answer.is_ok_and(|answer| answer.status() == 200), "every request is answered");
        count += 1;
    }
    count
}

/// The first key of a server, with which it demands keys from then on.
async fn key(router: &Router) -> Result<String, String> {
    let wanted = serde_json::json!({"name": "bench", "scopes": ["admin", "read", "write"]});
    let request = Request::post("/admin/keys")
        .header("content-type", "application/json")
        .body(Body::from(wanted.to_string()))
        .map_err(|error| error.to_string())?;
    let answer = router.clone().oneshot(request).await.map_err(|error| error.to_string())?;
    let body = axum::body::to_bytes(answer.into_body(), 65_536).await;
    let json: serde_json::Value = serde_json::from_slice(&body.map_err(|e| e.to_string())?)
        .map_err(|error| error.to_string())?;
    json["key"].as_str().map(str::to_owned).ok_or_else(|| format!("no key was made: {json}"))
}
