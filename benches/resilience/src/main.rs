//! The toolkit beside its peers in one run: one row per library and case.
//!
//! `cargo run --release --manifest-path benches/resilience/Cargo.toml -- [--quick] [--json]`
//!
//! Every case is measured in rounds that take turns, so that a noisy machine disturbs all alike; a
//! row shows the median round. Two threads: both share one policy, and a call's time is the wall
//! time over the calls of one thread.

mod cases;
mod meter;

use meter::Row;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let json = std::env::args().any(|arg| arg == "--json");
    let mut groups = cases::all();
    let rows = meter::measure(&mut groups, if quick { 5 } else { 21 });
    if json { print_json(&rows) } else { print_table(&rows) }
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<22} {:<34} {:>10} {:>12} {:>8}",
        "case", "library", "ns/call", "allocs/call", "ratio"
    );
    for row in rows {
        println!(
            "{:<22} {:<34} {:>10.1} {:>12.2} {:>8.2}",
            row.case, row.library, row.nanos, row.allocations, row.ratio
        );
    }
    println!("ratio: to the first row of the case, which is ours");
}

fn print_json(rows: &[Row]) {
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
