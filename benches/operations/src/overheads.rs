//! What stands in front of a handler costs: admission, keys, levels, metrics, logs, traces, correlation.
//!
//! One process answers the same requests in turns: by the handlers alone, without anybody who receives
//! logs, traces and metrics; behind the front, which nobody hears; with everything on, and a rate; with each
//! trace recorded and sent to a collector, which is in another process; and at last with a key. Two processes
//! that do the same differ by more than what is measured, because each has built an index of its own.

use std::cell::Cell;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use mainstay_server::Front;
use mainstay_server::settings::Settings;

use crate::served::{self, Corpus, Served};
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
}

const KINDS: [Kind; 5] = [
    Kind { request: "document", at_once: 1, on_one: true },
    Kind { request: "search", at_once: 1, on_one: true },
    Kind { request: "document", at_once: 1, on_one: false },
    Kind { request: "search", at_once: 1, on_one: false },
    Kind { request: "search", at_once: 8, on_one: false },
];

/// What is on.
struct Side {
    name: &'static str,
    /// What stands in front of the handlers.
    front: bool,
    /// Whether anybody receives logs, traces and metrics.
    received: bool,
    /// Whether every trace is recorded and sent.
    recorded: bool,
}

/// In the order of the rows. The second shows by how much the first differs from itself.
const SIDES: [Side; 6] = [
    Side { name: "nothing", front: false, received: false, recorded: false },
    Side { name: "nothing, once more", front: false, received: false, recorded: false },
    Side { name: "the front, received by nobody", front: true, received: false, recorded: false },
    Side { name: "everything", front: true, received: true, recorded: false },
    Side { name: "everything, every trace sent", front: true, received: true, recorded: true },
    Side { name: "everything, and a key", front: true, received: true, recorded: false },
];
const RECORDED: usize = 4;
/// From its key on, the server demands one.
const KEYED: usize = 5;

/// How long requests of a kind are answered before they are measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a side answers before it is another one's turn: so short that what the machine does otherwise
/// meets all of them alike.
const TURN: Duration = Duration::from_millis(8);
/// Requests at the begin of a turn that do not count.
const LEAD_IN: u64 = 5;
/// Requests whose traces are sent in one call: a search has five spans, and a busy server's call carries
/// 2,048 of them.
const REQUESTS_OF_A_CALL: u64 = 400;
/// The part of the time in which the side that sends traces is measured. It is beside the first one alone: the
/// spans of a call may wait for a second, and are to be sent in a turn of their own.
const SHARE_OF_RECORDED: f64 = 0.6;

/// Measures and prints a table.
pub(crate) fn run(seconds: u64) -> Result<(), String> {
    let collector = receiver::start("application/x-protobuf", |_| Vec::new());
    let collector = collector.map_err(|error| error.to_string())?;
    println!(
        "| request | under way | processors | what is on | takes | more (95 %) | CPU time | more (95 %) |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    for (processors, corpus) in [("one", "natural"), ("all", "natural"), ("all", "dense")] {
        let arguments = ["overheads-on", processors, corpus, &collector, &seconds.to_string()];
        let status = Command::new(&program).args(arguments).status();
        if !status.map_err(|error| error.to_string())?.success() {
            return Err(format!("the process on {processors} of the processors failed"));
        }
    }
    Ok(())
}

/// The rows of one process.
pub(crate) fn run_on(
    processors: &str,
    corpus: &str,
    collector: &str,
    seconds: u64,
) -> Result<(), String> {
    let on_one = processors == "one";
    if on_one {
        keep_to_one_processor()?;
    }
    let corpus = if corpus == "dense" { Corpus::Dense } else { Corpus::Natural };
    let mut sides = Sides::start(corpus, collector)?;
    // A document is read as quickly whatever it is of.
    let dense = corpus == Corpus::Dense;
    let kinds =
        || KINDS.iter().filter(|it| it.on_one == on_one && (!dense || it.request == "search"));
    for kind in kinds() {
        sides.measure(kind, seconds as f64)?;
    }
    sides.make_key()?;
    for kind in kinds().filter(|kind| kind.at_once == 1) {
        sides.measure_pair(kind, KEYED, seconds as f64 * SHARE_OF_RECORDED)?;
    }
    Ok(())
}

/// Both ways through one server.
struct Sides {
    served: Served,
    runtime: tokio::runtime::Runtime,
    corpus: Corpus,
    /// Empty as long as the server demands none.
    key: String,
    /// Without and with every trace recorded.
    settings: [Settings; 2],
    /// Which of them holds now.
    recorded: Cell<bool>,
}

/// What a request takes, and what CPU time the process needs for it, in microseconds.
type Means = (f64, f64);

impl Sides {
    fn start(corpus: Corpus, collector: &str) -> Result<Self, String> {
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
        let served = served::start(corpus, "static", &settings("0"), install)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let settings = [served::settings(&settings("0"))?, served::settings(&settings("1"))?];
        let recorded = Cell::new(false);
        Ok(Self { served, runtime, corpus, key: String::new(), settings, recorded })
    }

    fn make_key(&mut self) -> Result<(), String> {
        self.key = self.runtime.block_on(key(&self.served.routes.1))?;
        Ok(())
    }

    fn measure(&self, kind: &Kind, seconds: f64) -> Result<(), String> {
        let each = self.warm_up(kind);
        let sides: Vec<usize> = (0..RECORDED).collect();
        let time = Duration::from_secs_f64(seconds * (1.0 - SHARE_OF_RECORDED));
        let rounds = self.rounds(kind, &sides, TURN.div_duration_f64(each), time)?;
        show(self.corpus, kind, &sides, &rounds);
        self.measure_pair(kind, RECORDED, seconds * SHARE_OF_RECORDED)
    }

    /// A side beside the first one.
    fn measure_pair(&self, kind: &Kind, side: usize, seconds: f64) -> Result<(), String> {
        let each = self.warm_up(kind);
        let time = Duration::from_secs_f64(seconds);
        let rounds = self.rounds(kind, &[0, side], TURN.div_duration_f64(each), time)?;
        show(self.corpus, kind, &[0, side], &rounds);
        Ok(())
    }

    /// Answers for a while, and says how long each answer takes.
    fn warm_up(&self, kind: &Kind) -> Duration {
        let (begun, mut answered) = (Instant::now(), 0);
        while begun.elapsed() < WARM_UP {
            self.answers(true, kind, answered, 1);
            answered += 1;
        }
        begun.elapsed().div_f64(answered as f64)
    }

    /// What each of these sides takes in each round, with so many requests a turn.
    fn rounds(
        &self,
        kind: &Kind,
        sides: &[usize],
        per_turn: f64,
        time: Duration,
    ) -> Result<Vec<Vec<Means>>, String> {
        let (begun, per_turn) = (Instant::now(), (per_turn as u64).max(1));
        let requests_of_a_turn = (LEAD_IN + per_turn) * kind.at_once as u64;
        let rounds_of_a_call = (REQUESTS_OF_A_CALL / requests_of_a_turn).max(1);
        let mut rounds = Vec::new();
        while begun.elapsed() < time {
            let sent = rounds.len();
            for round in sent..sent + rounds_of_a_call as usize {
                let first = round as u64 * 1_000_000;
                // What is remembered of a query is there for each side.
                self.switch(&SIDES[0])?;
                self.answers(false, kind, first, per_turn);
                let mut means = vec![(0.0, 0.0); sides.len()];
                for turn in 0..sides.len() {
                    // Each comes first as often as any other, forwards and backwards.
                    let turn = if round % 2 == 0 { turn } else { sides.len() - 1 - turn };
                    let at = (turn + round / 2) % sides.len();
                    means[at] = self.turn(&SIDES[sides[at]], kind, first, per_turn)?;
                }
                rounds.push(means);
            }
            // Traces are sent later than they are recorded; what that takes belongs to their requests.
            let requests = rounds_of_a_call * requests_of_a_turn;
            for (at, _) in sides.iter().enumerate().filter(|(_, side)| SIDES[**side].recorded) {
                let (wall, cpu) = taken(requests, || self.flush())?;
                for means in &mut rounds[sent..] {
                    means[at] = (means[at].0 + wall, means[at].1 + cpu);
                }
            }
        }
        Ok(rounds)
    }

    /// Switches to a side.
    fn switch(&self, side: &Side) -> Result<(), String> {
        if self.recorded.replace(side.recorded) != side.recorded {
            let settings = &self.settings[usize::from(side.recorded)];
            let telemetry = self.served.telemetry.as_ref().ok_or("nobody receives traces")?;
            telemetry.reconfigure(settings).map_err(|error| error.to_string())?;
        }
        switch::set(side.received);
        Ok(())
    }

    /// Answers so many requests on a side.
    fn turn(&self, side: &Side, kind: &Kind, first: u64, count: u64) -> Result<Means, String> {
        self.switch(side)?;
        // The first ones find the side before in the processor's caches.
        self.answers(side.front, kind, first, LEAD_IN);
        taken(count * kind.at_once as u64, || {
            self.answers(side.front, kind, first, count);
            Ok(())
        })
    }

    /// Sends the traces that wait.
    fn flush(&self) -> Result<(), String> {
        let sent =
            self.served.telemetry.as_ref().is_some_and(|it| it.flush(Duration::from_secs(10)));
        if sent { Ok(()) } else { Err("the spans could not be sent".into()) }
    }

    /// So many requests one after the other, as often as are under way at a time.
    fn answers(&self, behind_front: bool, kind: &Kind, first: u64, count: u64) {
        let (handlers, front) = self.served.routes.clone();
        match behind_front {
            true => {
                self.ask_all(kind, first, count, move |request| front.clone().answer(request));
            }
            false => {
                self.ask_all(kind, first, count, move |request| handlers.clone().answer(request));
            }
        }
    }

    fn ask_all<F>(
        &self,
        kind: &Kind,
        first: u64,
        count: u64,
        answer: impl Fn(Request<Body>) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = Response> + Send + 'static,
    {
        let (corpus, key) = (self.corpus, &self.key);
        let ask = |first| ask(answer.clone(), corpus, kind.request, key.clone(), first, count);
        self.runtime.block_on(async {
            if kind.at_once == 1 {
                return ask(first).await;
            }
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..kind.at_once as u64 {
                tasks.spawn(ask(first + task * 100_000));
            }
            tasks.join_all().await;
        });
    }
}

/// Prints the rows of one kind of request. The first of the sides is what the others are compared with;
/// it has no row of its own beside the traces.
fn show(corpus: Corpus, kind: &Kind, sides: &[usize], rounds: &[Vec<Means>]) {
    let sorted = |of: &dyn Fn(&[Means]) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(|round| of(round)).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let median = |of: &dyn Fn(&[Means]) -> f64| sorted(of)[rounds.len() / 2];
    // The median, and where it lies with a probability of 95 %: by ranks, whatever the distribution.
    let interval = |of: &dyn Fn(&[Means]) -> f64| {
        let (all, half) = (sorted(of), rounds.len() as f64 / 2.0);
        let off = 0.98 * (rounds.len() as f64).sqrt();
        let at = |rank: f64| all[(rank.max(0.0) as usize).min(all.len() - 1)];
        (at(half), at(half - off), at(half + off))
    };
    let Kind { request, at_once, on_one } = kind;
    let processors = if *on_one { "1" } else { "all" };
    let request = if corpus == Corpus::Dense { "search, all match" } else { request };
    for (at, side) in sides.iter().enumerate() {
        if at == 0 && sides.len() == 2 {
            continue;
        }
        let (takes, cpu) = (median(&|round| round[at].0), median(&|round| round[at].1));
        let name = SIDES[*side].name;
        print!("| {request} | {at_once} | {processors} | {name} | {takes:.1} µs |");
        if at == 0 {
            println!(" | {cpu:.1} µs | |");
            continue;
        }
        // Round by round: what the machine does meanwhile then counts for both.
        let slower = interval(&|round| 100.0 * (round[at].0 / round[0].0 - 1.0));
        let more = interval(&|round| round[at].1 - round[0].1);
        println!(
            " {:+.1} % ({:+.1} to {:+.1}) | {cpu:.1} µs | {:.1} µs ({:.1} to {:.1}) |",
            slower.0, slower.1, slower.2, more.0, more.1, more.2,
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

/// What each of so many requests took of this.
fn taken(requests: u64, work: impl FnOnce() -> Result<(), String>) -> Result<Means, String> {
    let (begun, cpu) = (Instant::now(), cpu_time());
    work()?;
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_time() - cpu);
    Ok((wall * 1e6 / requests as f64, cpu * 1e6 / requests as f64))
}

/// What all threads of this process have used, in seconds.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn request(corpus: Corpus, kind: &str, key: &str, number: u64) -> Request<Body> {
    let search = serde_json::json!({"query": corpus.query(number), "lines": 0}).to_string();
    let (builder, body) = match kind {
        "document" => (Request::get("/collections/default/documents/1"), String::new()),
        _ => (Request::post("/search").header("content-type", "application/json"), search),
    };
    let builder = builder.header("host", "127.0.0.1");
    let builder = match key {
        "" => builder,
        key => builder.header("authorization", format!("Bearer {key}")),
    };
    builder.body(Body::from(body)).unwrap_or_default()
}

/// Requests one after the other. A key is sent on every side: reading it belongs to the front, writing it
/// to who asks.
async fn ask<F: Future<Output = Response>>(
    answer: impl Fn(Request<Body>) -> F,
    corpus: Corpus,
    kind: &'static str,
    key: String,
    first: u64,
    count: u64,
) {
    for number in first..first + count {
        let status = answer(request(corpus, kind, &key, number)).await.status();
        assert!(status == 200, "every request is answered: {status}");
    }
}

/// The first key of a server, with which it demands keys from then on.
async fn key(front: &Front) -> Result<String, String> {
    let wanted = serde_json::json!({"name": "bench", "scopes": ["admin", "read", "write"]});
    let request = Request::post("/admin/keys")
        .header("content-type", "application/json")
        .body(Body::from(wanted.to_string()))
        .map_err(|error| error.to_string())?;
    let answer = front.clone().answer(request).await;
    let body = axum::body::to_bytes(answer.into_body(), 65_536).await;
    let json: serde_json::Value = serde_json::from_slice(&body.map_err(|e| e.to_string())?)
        .map_err(|error| error.to_string())?;
    json["key"].as_str().map(str::to_owned).ok_or_else(|| format!("no key was made: {json}"))
}
