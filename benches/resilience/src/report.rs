//! Criterion's estimates as one table.

use crate::cases;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One line of the table.
pub struct Row {
    case: String,
    library: &'static str,
    nanos: f64,
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
pub fn rows(passes: usize) -> Vec<Row> {
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
    for entry in cases::all() {
        let (case, library) = (entry.group(), entry.library);
        let nanos = best.get(&(case.clone(), library.to_owned())).copied().unwrap_or(f64::NAN);
        if rows.last().is_none_or(|row| row.case != case) {
            ours = nanos;
        }
        let (allocations, ratio) = (entry.allocations(), nanos / ours);
        rows.push(Row { case, library, nanos, allocations, ratio });
    }
    rows
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
        "{:<25} {:<34} {:>10} {:>12} {:>8}",
        "case", "library", "ns/call", "allocs/call", "ratio"
    );
    for row in rows {
        println!(
            "{:<25} {:<34} {:>10.1} {:>12.2} {:>8.2}",
            row.case, row.library, row.nanos, row.allocations, row.ratio
        );
    }
    println!("ratio: to the first row of the case, which is ours");
}

pub fn print_json(rows: &[Row]) {
    let objects: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "{{\"case\":\"{}\",\"library\":\"{}\",\"ns_per_call\":{:.2},\
                 \"allocations_per_call\":{:.3},\"ratio_to_ours\":{:.3}}}",
                row.case, row.library, row.nanos, row.allocations, row.ratio
            )
        })
        .collect();
    println!("[{}]", objects.join(",\n "));
}
