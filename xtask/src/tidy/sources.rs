//! Rules about single source files: names, doors, leftovers.

use super::Source;

/// File names that say nothing about what is inside.
const VAGUE: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "shared", "core"];

/// Words in code, where they may stand, and why not elsewhere.
const DOORS: &[(&str, &[&str], &str)] = &[
    (
        "std::fs",
        &[
            "crates/storage/src/fs",
            "crates/cli/src/",
            "xtask/",
            "crates/embed/src/",
            // The kernel's figures in /proc and /sys: no disk behind them.
            "crates/ops/src/kernel_files.rs",
        ],
        "the disk is reached through storage::fs",
    ),
    (
        "tantivy::",
        &["crates/search/src/full_text/"],
        "only the tantivy view names the tantivy crate",
    ),
    (
        "sqlx::",
        &["crates/catalogue/", "lib/resilience/src/classify"],
        "databases are reached through the catalogue",
    ),
    ("todo!(", &[], "finish it"),
    ("unimplemented!(", &[], "finish it"),
    ("dbg!(", &[], "left over from debugging"),
];

/// Folders in which nothing may name HTTP or JSON wire types.
const BELOW_SERVER: &[&str] =
    &["crates/search/", "crates/storage/", "crates/ops/", "crates/catalogue/", "crates/db/"];
const WIRE: &[&str] = &["axum::", "hyper::", "utoipa::", "http::"];

/// Folders without async.
const SYNCHRONOUS: &[&str] =
    &["crates/search/", "crates/storage/", "crates/embed/", "crates/ops/", "crates/db/"];

/// What waits in line for requests: futures that need no runtime of their own.
const WAITING: &[&str] = &["crates/ops/src/admission"];

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        let stem = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        if VAGUE.contains(&stem) || stem.ends_with("_manager") {
            faults.push(format!("{}: the name says nothing; name its main noun", source.path));
        }
        if source.path.starts_with("xtask/") {
            continue;
        }
        let leftover = ["TODO", "FIXME", "XXX"].iter().find(|word| {
            source.text.lines().any(|line| line.contains("//") && line.contains(*word))
        });
        if let Some(word) = leftover {
            faults.push(format!("{}: {word} in a comment; do it or open an issue", source.path));
        }
        if !source.is_test() {
            faults.extend(doors(source));
        }
    }
    faults
}

fn doors(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let code: String = source
        .without_tests()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    for (word, places, reason) in DOORS {
        if code.contains(word) && !places.iter().any(|place| source.path.starts_with(place)) {
            faults.push(format!("{}: names {word}: {reason}", source.path));
        }
    }
    if BELOW_SERVER.iter().any(|folder| source.path.starts_with(folder)) {
        for word in WIRE.iter().filter(|word| code.contains(**word)) {
            faults.push(format!("{}: names {word}: wire types stay in server", source.path));
        }
    }
    let is_async = code.contains("async fn") || code.contains("tokio::");
    let within = |folders: &[&str]| folders.iter().any(|folder| source.path.starts_with(folder));
    if is_async && within(SYNCHRONOUS) && !within(WAITING) {
        faults.push(format!("{}: is async; floors below server are synchronous", source.path));
    }
    faults
}
