//! Mainstay's search methods beside their peers, on the same text in the same run.
//!
//! `cargo run --release --manifest-path benches/search/Cargo.toml -- bm25 [--quick] [--json] [--tree DIR]`

mod bm25;
mod corpus;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let options: Vec<String> = arguments.collect();
    match name.as_str() {
        "bm25" => bm25::run(&bm25::Options {
            quick: options.iter().any(|option| option == "--quick"),
            json: options.iter().any(|option| option == "--json"),
            tree: options.iter().skip_while(|option| *option != "--tree").nth(1).map(Into::into),
            rounds: options
                .iter()
                .skip_while(|option| *option != "--rounds")
                .nth(1)
                .and_then(|rounds| rounds.parse().ok()),
            only: options.iter().skip_while(|option| *option != "--only").nth(1).cloned(),
        }),
        _ => {
            eprintln!(
                "usage: search-bench bm25 [--quick] [--json] [--tree DIR] [--rounds N] [--only CORPUS]"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
