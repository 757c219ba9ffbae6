//! Project automation: `cargo xtask test | tidy | audit | ci | bench | release`.

mod advisories;
mod audit;
mod bench;
mod ci;
mod command;
mod comparison;
mod guided;
mod release;
mod test;
mod tidy;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Project automation.

Usage: cargo xtask <COMMAND>

Commands:
  test [--long] [-- ARGS]           install what the tests need, then run them all
                                    (--long: the long forms; ARGS go to cargo test)
  tidy                              check the rules of ARCHITECTURE.md and STYLE.md
  audit [--refresh FOLDER]          check licences and known vulnerabilities of everything that is
                                    linked (--refresh: from a clone of rustsec/advisory-db)
  ci                                formatting, clippy, docs, tidy, audit, tests; what CI runs
  bench NAME [--guided] [ARGS]      run a comparison with peers; without NAME, list them
                                    (--guided: built as `release` builds)
  release [--out FILE] [--measure]  build `mainstay` guided by a profile of its own work: faster, in
                                    three to four times the time (--measure: beside one that is not)
  help                              print this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let outcome = match arguments.first().map(String::as_str) {
        Some("test") => test::run(rest),
        Some("tidy") => tidy::run(),
        Some("audit") => audit::run(rest),
        Some("ci") => ci::run(),
        Some("bench") => bench::run(rest),
        Some("release") => release::run(rest),
        None | Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(format!("unknown command \"{other}\"\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> PathBuf {
    // As cargo says it now: a target folder that clones share may hold the program of another one.
    let now = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = now.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    here.parent().map(PathBuf::from).unwrap_or(here)
}
