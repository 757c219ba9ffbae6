//! The toolkit beside its peers in one run: one row per library and case.
//!
//! `cargo run --release --manifest-path benches/resilience/Cargo.toml -- [--quick] [--json]`
//!
//! Criterion measures each case in several passes over all cases, so that a busy machine disturbs
//! all alike; a row shows the pass in which the median call was quickest. Two threads on one policy are
//! measured by `two_threads`, and a row shows the median with the least and the most; `--two-threads`
//! measures nothing else. With `--bench` the arguments are criterion's own, and its report is printed
//! instead.

mod cases;
mod meter;
mod report;
mod two_threads;

use criterion::Criterion;
use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    if has("--bench") {
        measure();
        return ExitCode::SUCCESS;
    }
    let (passes, measurement_seconds) = if has("--quick") { (2, "0.1") } else { (5, "0.4") };
    if has("--two-threads") {
        report::print_pairs(rounds(has("--quick")));
        return ExitCode::SUCCESS;
    }
    for pass in 0..passes {
        eprintln!("pass {} of {passes}", pass + 1);
        if let Err(error) = run_pass(pass, measurement_seconds) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let rows = report::rows(passes, rounds(has("--quick")));
    if has("--json") {
        report::print_json(&rows)
    } else {
        report::print_table(&rows)
    }
    ExitCode::SUCCESS
}

/// Rounds with two threads, each 10 ms for every library.
fn rounds(is_quick: bool) -> usize {
    if is_quick { 25 } else { 101 }
}

/// Hands every case of one thread to criterion.
fn measure() {
    let mut criterion = Criterion::default().configure_from_args();
    for entry in cases::all().iter().filter(|entry| entry.threads == 1) {
        let mut group = criterion.benchmark_group(entry.group());
        group.bench_function(entry.library, |bencher| {
            bencher.iter_custom(|calls| (entry.run)(calls))
        });
        group.finish();
    }
    criterion.final_summary();
}

/// One pass over all cases, in a process of its own, under its own baseline.
fn run_pass(pass: usize, measurement_seconds: &str) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let baseline = report::baseline(pass);
    let status = Command::new(program)
        .args(["--bench", "--noplot", "--quiet", "--sample-size", "10", "--nresamples", "1001"])
        .args(["--warm-up-time", "0.05", "--measurement-time", measurement_seconds])
        .args(["--save-baseline", &baseline])
        .env("CRITERION_HOME", report::home())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("criterion did not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("criterion failed: {status}")) }
}
