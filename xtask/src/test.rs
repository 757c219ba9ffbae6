//! `cargo xtask test`: installs what the tests need and runs every test of the workspace.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::command;

/// Programs that tests compare with or run against, and the Debian packages that hold them.
const NEEDED: &[(&str, &str)] = &[
    ("rg", "ripgrep"),
    ("redis-server", "redis-server"),
    ("promtool", "prometheus"),
    ("prometheus", "prometheus"),
    ("initdb", "postgresql"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

/// What is tested: the workspace, and the toolkit's places for other crates' errors, which are behind
/// features that the workspace does not use.
const RUNS: &[&[&str]] =
    &[&["--workspace"], &["--package", "mainstay-resilience", "--all-features", "--lib"]];

/// What the long forms set: see the tests that read them.
const LONG_FORM: &[(&str, &str)] = &[
    ("MAINSTAY_SEEDS", "10000"),
    ("MAINSTAY_PATTERNS", "5000"),
    ("MAINSTAY_LONG", "1"),
    ("RESILIENCE_CASES", "1000000"),
];

/// Installs, runs, counts.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    install()?;
    let long = arguments.first().is_some_and(|argument| argument == "--long");
    let rest = arguments
        .iter()
        .position(|argument| argument == "--")
        .map_or(&[][..], |at| &arguments[at + 1..]);
    let mut counts = Counts { success: true, ..Counts::default() };
    for what in RUNS {
        cargo_test(what, rest, long, &mut counts)?;
    }
    counts.told.iter().for_each(|line| println!("{line}"));
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed > 0 || !counts.success {
        return Err("tests failed".into());
    }
    Ok(())
}

/// Installs the programs that are missing, with the system's package manager.
fn install() -> Result<(), String> {
    let missing: Vec<_> = NEEDED.iter().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if !command::exists("apt-get") {
        return Err(format!(
            "the tests need {}; install it and run this again",
            packages.join(", ")
        ));
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    let as_root = command::output("id", &["-u"])?.trim() == "0";
    let apt = |arguments: &[&str]| {
        if as_root {
            command::run("apt-get", arguments)
        } else {
            command::run("sudo", &[&["apt-get"], arguments].concat())
        }
    };
    apt(&["update"]).and_then(|()| apt(&arguments)).map_err(|e| {
        format!("{e}; the tests need {}: install it and run this again", packages.join(", "))
    })
}

/// Debian keeps the programs of PostgreSQL's server off the path, in a folder for each version.
fn is_there(program: &str) -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders = versions.map(|version| version.path().join("bin"));
    folders.any(|folder| folder.join(program).is_file()) || command::exists(program)
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// What tests have said of parts that they left out.
    told: Vec<String>,
    success: bool,
}

fn cargo_test(
    what: &[&str],
    rest: &[String],
    long: bool,
    counts: &mut Counts,
) -> Result<(), String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--no-fail-fast"]).args(what).args(rest);
    cargo.current_dir(crate::root()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if long {
        cargo.envs(LONG_FORM.iter().copied());
    }
    let mut child = cargo.spawn().map_err(|e| format!("cannot run cargo: {e}"))?;
    let errors = child.stderr.take().map(|stderr| std::thread::spawn(|| skipped_in(stderr)));
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| format!("cannot read what cargo prints: {e}"))?;
            println!("{line}");
            counts.add(&line);
        }
    }
    let status = child.wait().map_err(|e| format!("cannot wait for cargo: {e}"))?;
    counts.success &= status.success();
    let told = errors.and_then(|errors| errors.join().ok()).unwrap_or_default();
    counts.skipped += told.len() as u64;
    counts.told.extend(told);
    Ok(())
}

/// Passes on what comes; answers the lines by which tests say that they left something out. Such a line
/// may stand behind the name of another test.
fn skipped_in(stderr: impl std::io::Read) -> Vec<String> {
    let mut told = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        eprintln!("{line}");
        told.extend(line.find("SKIPPED ").map(|at| line[at..].to_string()));
    }
    told
}

impl Counts {
    /// Reads a line such as `test result: ok. 6 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let result = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for part in result.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_every_binary_are_added() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 6 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        counts.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured");
        counts.add("running 4 tests");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (8, 3, 1));
    }

    #[test]
    fn what_a_test_says_it_left_out_is_told_at_the_end() {
        let said =
            "   Compiling x\ntest a ... SKIPPED in part (O2): no control group\nwarning: y\n";
        assert_eq!(skipped_in(said.as_bytes()), ["SKIPPED in part (O2): no control group"]);
    }
}
