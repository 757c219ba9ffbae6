//! Criterion's estimates, and the rounds with two threads, as one table.

use crate::cases;
use crate::meter::Entry;
use crate::two_threads::{self, Spread};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One line of the table.
pub struct Row {
    case: String,
    library: &'static str,
    nanos: f64,
    /// The least and the most of several rounds, where there were rounds.
    range: Option<(f64, f64)>,
    allocations: f64,
    ratio: f64,
}

/// Where criterion keeps its results.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/criterion")
}

/// The name under which a pass is kept.
pub fn baseline(pass: usize) -> String {
    format!("pass-{pass}")
}

/// One row per library and case, in the order of the cases; ours first in each.
pub fn rows(passes: usize, rounds: usize) -> Vec<Row> {
    let mut best: HashMap<(String, String), f64> = HashMap::new();
    for pass in 0..passes {
        let mut found = Vec::new();
        collect(&home(), &baseline(pass), &mut found);
        for (case, library, nanos) in found {
            let best = best.entry((case, library)).or_insert(f64::INFINITY);
            *best = best.min(nanos);
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut ours = f64::NAN;
    let entries = cases::all();
    let mut spreads = pairs(&entries, rounds).into_iter();
    for entry in &entries {
        let (case, library) = (entry.group(), entry.library);
        let spread = if entry.threads > 1 { spreads.next() } else { None };
        let nanos = match spread {
            Some(spread) => spread.median,
            None => best.get(&(case.clone(), library.to_owned())).copied().unwrap_or(f64::NAN),
        };
        let range = spread.map(|spread| (spread.min, spread.max));
        if rows.last().is_none_or(|row| row.case != case) {
            ours = nanos;
        }
        let (allocations, ratio) = (entry.allocations(), nanos / ours);
        rows.push(Row { case, library, nanos, range, allocations, ratio });
    }
    rows
}

/// The spreads of the entries with two threads, in their order.
fn pairs(entries: &[Entry], rounds: usize) -> Vec<Spread> {
    let two: Vec<&Entry> = entries.iter().filter(|entry| entry.threads > 1).collect();
    two_threads::measure(&two, rounds)
}

/// Measures and prints the cases with two threads alone.
pub fn print_pairs(rounds: usize) {
    let entries = cases::all();
    let spreads = pairs(&entries, rounds);
    println!("{:<25} {:<34} {:>8} {:>8} {:>8}", "case", "library", "least", "median", "most");
    let two = entries.iter().filter(|entry| entry.threads > 1);
    for (entry, Spread { min, median, max }) in two.zip(spreads) {
        let (case, library) = (entry.group(), entry.library);
        println!("{case:<25} {library:<34} {min:>8.1} {median:>8.1} {max:>8.1}");
    }
    println!("ns per call; {rounds} rounds");
}

/// Every result of a pass below `folder`: case, library and the median of its calls.
fn collect(folder: &Path, baseline: &str, found: &mut Vec<(String, String, f64)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()) {
        if path.file_name().is_none_or(|name| name != baseline) {
            collect(&path, baseline, found);
            continue;
        }
        let read = |file: &str| -> Option<Value> {
            serde_json::from_str(&fs::read_to_string(path.join(file)).ok()?).ok()
        };
        let (Some(names), Some(estimates)) = (read("benchmark.json"), read("estimates.json"))
        else {
            continue;
        };
        let text = |key: &str| names[key].as_str().map(str::to_owned);
        let median = estimates["median"]["point_estimate"].as_f64();
        if let (Some(case), Some(library), Some(nanos)) =
            (text("group_id"), text("function_id"), median)
        {
            found.push((case, library, nanos));
        }
    }
}

pub fn print_table(rows: &[Row]) {
    println!(
        "{:<25} {:<34} {:>10} {:>12} {:>8}  {}",
        "case", "library", "ns/call", "allocs/call", "ratio", "least to most"
    );
    for row in rows {
        let range = row.range.map(|(least, most)| format!("{least:.1} to {most:.1}"));
        println!(
            "{:<25} {:<34} {:>10.1} {:>12.2} {:>8.2}  {}",
            row.case,
            row.library,
            row.nanos,
            row.allocations,
            row.ratio,
            range.unwrap_or_default()
        );
    }
    println!("ratio: to the first row of the case, which is ours");
}

pub fn print_json(rows: &[Row]) {
    let objects: Vec<String> = rows
        .iter()
        .map(|row| {
            let (least, most) = row.range.unwrap_or((row.nanos, row.nanos));
            format!(
                "{{\"case\":\"{}\",\"library\":\"{}\",\"ns_per_call\":{:.2},\
                 \"least\":{least:.2},\"most\":{most:.2},\
                 \"allocations_per_call\":{:.3},\"ratio_to_ours\":{:.3}}}",
                row.case, row.library, row.nanos, row.allocations, row.ratio
            )
        })
        .collect();
    println!("[{}]", objects.join(",\n "));
}
