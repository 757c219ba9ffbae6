//! The same vectors into our scan, our graph and the peers: recall, time, size.
//!
//! `cargo run --release --manifest-path benches/vector/Cargo.toml -- [--quick] [--json] [--ours]
//! [--count N] [--data static|minilm|clustered]`
//!
//! Builds are timed in processor seconds, queries by the median, so that a busy machine disturbs
//! little. `--quick` takes 20,000 vectors of the static model and 200 queries. Searches use one thread.
//! Passages and questions are those of the collections in `../shared/datasets` beside the repository;
//! without them, vectors are drawn around centres.

mod data;
mod ours;
mod peers;

use std::path::Path;
use std::time::Instant;

use data::{Data, Model};

/// Hits asked for.
const LIMIT: usize = 10;
/// How often each query is asked.
const ROUNDS: usize = 3;

/// Something that answers.
trait Index {
    /// The numbers of the nearest vectors, best first.
    fn search(&self, query: &[f32], limit: usize) -> Vec<u32>;
}

/// A line of the table.
struct Row {
    data: &'static str,
    index: String,
    recall: f64,
    query_us: f64,
    builds_per_s: f64,
    bytes_per_vector: f64,
    note: String,
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1)?.parse::<usize>().ok()
    };
    let quick = has("--quick");
    let count = after("--count").unwrap_or(if quick { 20_000 } else { 100_000 });
    let queries = if quick { 200 } else { 1000 };
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let chosen = arguments.iter().position(|argument| argument == "--data");
    let chosen = chosen.and_then(|at| arguments.get(at + 1)).map(String::as_str);
    let mut sets = Vec::new();
    for (name, model) in [("static", Model::Static), ("minilm", Model::Minilm)] {
        if chosen.is_some_and(|chosen| chosen != name) || (quick && name == "minilm") {
            continue;
        }
        match data::texts(&shared, model, count, queries) {
            Ok(texts) => sets.push(texts),
            Err(error) => eprintln!("no texts under {name}: {error}"),
        }
    }
    if sets.is_empty() {
        sets.push(data::clustered(count, queries));
    }
    let mut rows = Vec::new();
    for data in &sets {
        let truth = truth(data, |_| true);
        rows.extend(ours::run(data, &truth));
        if !has("--ours") {
            rows.extend(peers::run(data, &truth));
        }
    }
    print(&rows, &sets, has("--json"));
}

/// The exact answers, in 32-bit floats.
fn truth(data: &Data, allowed: impl Fn(u32) -> bool + Sync) -> Vec<Vec<u32>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = data.queries.len().div_ceil(threads).max(1);
    let exact = |query: &Vec<f32>| {
        let mut scored: Vec<_> = (0..data.vectors.len() as u32)
            .filter(|&number| allowed(number))
            .map(|number| (dot(query, &data.vectors[number as usize]), number))
            .collect();
        let limit = LIMIT.min(scored.len());
        scored.select_nth_unstable_by(limit - 1, |a, b| b.0.total_cmp(&a.0));
        scored.truncate(limit);
        scored.into_iter().map(|(_, number)| number).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = data
            .queries
            .chunks(part)
            .map(|queries| scope.spawn(|| queries.iter().map(exact).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
    })
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum()
}

/// Seconds of processor time this process has used, all threads together: unlike wall time it does
/// not count what other programs on the machine do.
pub(crate) fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Asks every query in each round; the time is the median of the quickest of each.
fn measure(
    index: String,
    data: &Data,
    truth: &[Vec<u32>],
    searched: &dyn Index,
    build_s: f64,
    bytes: u64,
) -> Row {
    let mut times_us = vec![f64::MAX; data.queries.len()];
    let mut found = 0;
    // Rounds over all queries, so that none is asked while its rows are still in the caches.
    for round in 0..ROUNDS {
        for ((query, truth), time_us) in data.queries.iter().zip(truth).zip(&mut times_us) {
            let started = Instant::now();
            let answer = searched.search(query, LIMIT);
            *time_us = time_us.min(started.elapsed().as_secs_f64() * 1e6);
            if round == 0 {
                found += truth.iter().filter(|number| answer.contains(number)).count();
            }
        }
    }
    times_us.sort_unstable_by(f64::total_cmp);
    let query_us = times_us[times_us.len() / 2];
    let wanted: usize = truth.iter().map(Vec::len).sum();
    let count = data.vectors.len() as f64;
    let row = Row {
        data: data.name,
        index,
        recall: found as f64 / wanted as f64,
        query_us,
        builds_per_s: count / build_s,
        bytes_per_vector: bytes as f64 / count,
        note: String::new(),
    };
    eprintln!("{} {}: recall {:.4}, {:.0} µs", row.data, row.index, row.recall, row.query_us);
    row
}

fn print(rows: &[Row], sets: &[Data], json: bool) {
    if json {
        for row in rows {
            let value = serde_json::json!({
                "data": row.data, "index": row.index, "recall_at_10": row.recall,
                "query_us": row.query_us, "builds_per_s": row.builds_per_s,
                "bytes_per_vector": row.bytes_per_vector, "note": row.note,
            });
            println!("{value}");
        }
        return;
    }
    for data in sets {
        println!(
            "\n{}: {} vectors of {} dimensions\n",
            data.name,
            data.vectors.len(),
            data.dimension
        );
        println!(
            "| index | recall@10 | µs/query | vectors built per CPU-second | bytes/vector | |"
        );
        println!("|---|---|---|---|---|---|");
        for row in rows.iter().filter(|row| row.data == data.name) {
            println!(
                "| {} | {:.4} | {:.0} | {:.0} | {:.0} | {} |",
                row.index,
                row.recall,
                row.query_us,
                row.builds_per_s,
                row.bytes_per_vector,
                row.note
            );
        }
    }
}
