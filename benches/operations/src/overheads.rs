//! What stands in front of a handler costs: admission, keys, levels, metrics, logs, traces, correlation.
//!
//! One process answers the same requests in turns: by the handlers alone, without anybody who receives
//! logs, traces and metrics; with everything on and a key and a rate; and with each trace recorded and
//! sent to a collector, which is in another process. Two processes that do the same differ by more than
//! what is measured, because each has built an index of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use mainstay_server::settings::Settings;
use tower::ServiceExt;

use crate::served::{self, Served, query};
use crate::{receiver, switch};

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

const KINDS: [Kind; 5] = [
    Kind { request: "document", at_once: 1, on_one: true, rounds: 300 },
    Kind { request: "search", at_once: 1, on_one: true, rounds: 90 },
    Kind { request: "document", at_once: 1, on_one: false, rounds: 300 },
    Kind { request: "search", at_once: 1, on_one: false, rounds: 90 },
    Kind { request: "search", at_once: 8, on_one: false, rounds: 90 },
];

/// What is on, in the order of its columns. The second shows by how much the first differs from itself.
const SIDES: [&str; 4] =
    ["nothing", "nothing, once more", "everything", "everything, every trace sent"];
/// The first side on which something is.
const EVERYTHING: usize = 2;
/// The side that records every trace.
const TRACED: usize = 3;

/// How long requests of a kind are answered before they are measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures and prints a table.
pub(crate) fn run(seconds: u64) -> Result<(), String> {
    let collector = receiver::start("application/x-protobuf", |_| Vec::new());
    let collector = collector.map_err(|error| error.to_string())?;
    println!(
        "| request | under way | processors | what is on | takes | more (quartiles) | CPU time | more (quartiles) |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    for processors in ["one", "all"] {
        let arguments = ["overheads-on", processors, &collector, &seconds.to_string()];
        let status = Command::new(&program).args(arguments).status();
        if !status.map_err(|error| error.to_string())?.success() {
            return Err(format!("the process on {processors} of the processors failed"));
        }
    }
    Ok(())
}

/// The rows of one process.
pub(crate) fn run_on(processors: &str, collector: &str, seconds: u64) -> Result<(), String> {
    let on_one = processors == "one";
    if on_one {
        keep_to_one_processor()?;
    }
    let sides = Sides::start(collector)?;
    for kind in KINDS.iter().filter(|kind| kind.on_one == on_one) {
        sides.measure(kind, seconds as f64)?;
    }
    Ok(())
}

/// Both ways through one server.
struct Sides {
    served: Served,
    runtime: tokio::runtime::Runtime,
    key: String,
    /// Without and with every trace recorded.
    settings: [Settings; 2],
}

/// What a request takes, and what CPU time the process needs for it, in microseconds.
type Means = (f64, f64);

impl Sides {
    fn start(collector: &str) -> Result<Self, String> {
        let settings = |ratio| {
            [
                ("admission.key_rates", "search = 1000000/s; read = 1000000/s"),
                ("telemetry.endpoint", collector),
                ("telemetry.protocol", "http/protobuf"),
                ("telemetry.sample_ratio", ratio),
            ]
        };
        let install: served::Receivers =
            |settings, pipelines| switch::install(settings, pipelines).map(Some);
        let served = served::start("static", &settings("0"), install)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let key = runtime.block_on(key(&served.routers[1]))?;
        let settings = [served::settings(&settings("0"))?, served::settings(&settings("1"))?];
        Ok(Self { served, runtime, key, settings })
    }

    fn measure(&self, kind: &Kind, seconds: f64) -> Result<(), String> {
        let Kind { request, at_once, on_one, rounds: count } = *kind;
        let begun = Instant::now();
        let mut warm = 0;
        while begun.elapsed() < WARM_UP {
            self.answers(false, kind, warm, 1);
            warm += 1;
        }
        // As many requests in each turn as take their share of the time.
        let each = begun.elapsed().as_secs_f64() / warm as f64;
        let turns = ((SIDES.len() + 1) * count) as f64;
        let per_turn = ((seconds / turns / each) as u64).max(1);
        let mut rounds = Vec::new();
        for round in 0..count {
            let first = round as u64 * 1_000_000;
            // What is remembered of a query is there for each side.
            self.side(0)?;
            self.answers(false, kind, first, per_turn);
            let mut means = [(0.0, 0.0); SIDES.len()];
            for turn in 0..SIDES.len() {
                // Forwards and backwards: what comes first differs.
                let side = if round % 2 == 0 { turn } else { SIDES.len() - 1 - turn };
                means[side] = self.turn(side, kind, first, per_turn)?;
            }
            rounds.push(means);
        }
        show(&format!("{request} | {at_once} | {}", if on_one { "1" } else { "all" }), &rounds);
        Ok(())
    }

    /// Switches to a side.
    fn side(&self, side: usize) -> Result<(), String> {
        let settings = &self.settings[usize::from(side == TRACED)];
        let telemetry = self.served.telemetry.as_ref().ok_or("nobody receives traces")?;
        telemetry.reconfigure(settings).map_err(|error| error.to_string())?;
        switch::set(side >= EVERYTHING);
        Ok(())
    }

    /// Answers so many requests on a side.
    fn turn(&self, side: usize, kind: &Kind, first: u64, count: u64) -> Result<Means, String> {
        self.side(side)?;
        let (begun, cpu) = (Instant::now(), cpu_time());
        self.answers(side >= EVERYTHING, kind, first, count);
        let wall = begun.elapsed().as_secs_f64();
        // Traces are sent later than they are recorded; what that takes belongs to this turn.
        if let (TRACED, Some(telemetry)) = (side, &self.served.telemetry)
            && !telemetry.flush(Duration::from_secs(10))
        {
            return Err("the spans could not be sent".into());
        }
        let count = (count * kind.at_once as u64) as f64;
        Ok((wall * 1e6 / count, (cpu_time() - cpu) * 1e6 / count))
    }

    /// So many requests one after the other, as often as are under way at a time.
    fn answers(&self, full: bool, kind: &Kind, first: u64, count: u64) {
        let router = &self.served.routers[usize::from(full)];
        let key = if full { self.key.as_str() } else { "" };
        self.runtime.block_on(async {
            if kind.at_once == 1 {
                return ask(router.clone(), kind.request, key.to_string(), first, count).await;
            }
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..kind.at_once as u64 {
                let first = first + task * 100_000;
                tasks.spawn(ask(router.clone(), kind.request, key.to_string(), first, count));
            }
            tasks.join_all().await;
        });
    }
}

/// Prints the rows of one kind of request.
fn show(kind: &str, rounds: &[[Means; SIDES.len()]]) {
    let quantile = |of: &dyn Fn(&[Means; SIDES.len()]) -> f64, share: f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[((all.len() - 1) as f64 * share) as usize]
    };
    for (side, name) in SIDES.iter().enumerate() {
        let takes = quantile(&|round| round[side].0, 0.5);
        let cpu = quantile(&|round| round[side].1, 0.5);
        print!("| {kind} | {name} | {takes:.1} µs |");
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

/// Requests one after the other.
async fn ask(router: Router, kind: &'static str, key: String, first: u64, count: u64) {
    for number in first..first + count {
        let answer = router.clone().oneshot(request(kind, &key, number)).await;
        assert!(answer.is_ok_and(|answer| answer.status() == 200), "every request is answered");
    }
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
