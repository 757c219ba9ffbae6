//! `cargo xtask release --measure`: a build that is guided by a profile beside one that is not. Both serve
//! this repository and answer the same requests in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::training::{self, Ask, Served};
use crate::{command, guided};

/// How long one of them answers before it is the other one's turn.
const TURN: Duration = Duration::from_secs(1);
/// Turns of each.
const ROUNDS: usize = 7;
/// Requests at a time.
const CALLERS: usize = 4;

/// Asks for something with a phrase; each caller counts on.
type Kind = fn(&Ask<'_>, &str, usize) -> Result<(), String>;

/// What is asked for.
const KINDS: &[(&str, Kind)] = &[
    ("hybrid search", |ask, phrase, _| ask.search(&json!({"query": phrase}))),
    ("`bm25` alone", |ask, phrase, _| ask.search(&json!({"query": phrase, "methods": ["bm25"]}))),
    ("`tantivy` alone", |ask, phrase, _| {
        ask.search(&json!({"query": phrase, "methods": ["tantivy"]}))
    }),
    ("`native` alone", |ask, phrase, _| {
        ask.search(&json!({"query": phrase, "methods": ["native"]}))
    }),
    ("`semantic` alone", |ask, phrase, _| {
        ask.search(&json!({"query": phrase, "methods": ["semantic"]}))
    }),
    ("a regular expression", |ask, phrase, _| {
        let pattern = phrase.replace(' ', "\\W+");
        ask.search(&json!({"query": pattern, "methods": ["native"], "regex": true}))
    }),
    ("a filter and a facet", |ask, phrase, _| {
        ask.search(&json!({"query": phrase, "filter": "path:docs/**", "facets": ["language"]}))
    }),
    ("a document", |ask, _, _| ask.page("/collections/default/documents/README.md").map(drop)),
    ("a document stored", |ask, phrase, number| {
        let id = format!("stored-{}", number % 64);
        let document = json!({"id": id, "body": phrase}).to_string();
        ask.put("/collections/default/documents", "application/json", &document)
    }),
];

/// Measures and prints a table.
pub(crate) fn run(guided: &Path) -> Result<(), String> {
    command::run("cargo", &["build", "--release", "--package", "mainstay"])?;
    let plain = guided::target_folder().join("release/mainstay");
    let programs = [("plain", plain.as_path()), ("guided", guided)];
    let (root, place) = (crate::root(), training::place("measured")?);
    let mut servers = Vec::new();
    for (name, program) in programs {
        let data = place.join(name);
        let paths = [root.to_string_lossy(), data.to_string_lossy()];
        let index = ["index", &paths[0], "--data", &paths[1], "--model", "static"];
        training::run_command(program, &index)?;
        servers.push(Served::start(program, &data, name, &[], None)?);
    }
    let parts = training::parts(&root, usize::MAX)?;
    let phrases = training::phrases(&parts, 64);
    println!("| {CALLERS} at a time, over HTTP | plain | guided by a profile | ratio |");
    println!("|---|---|---|---|");
    for (kind, ask) in KINDS {
        let (mut rates, mut ratios) = ([const { Vec::new() }; 2], Vec::new());
        for round in 0..ROUNDS {
            // Each comes first as often as the other.
            for turn in 0..2 {
                let side = (round + turn) % 2;
                rates[side].push(rate(&servers[side].url, *ask, &phrases)?);
            }
            ratios.push(rates[1][round] / rates[0][round]);
        }
        let [plain, guided] = rates.map(median);
        println!("| {kind} | {plain:.0}/s | {guided:.0}/s | {:.2} |", median(ratios));
    }
    servers.into_iter().try_for_each(Served::end)?;
    std::fs::remove_dir_all(&place).map_err(|e| format!("cannot remove {}: {e}", place.display()))
}

/// Answers a second.
fn rate(url: &str, ask: Kind, phrases: &[String]) -> Result<f64, String> {
    let begun = Instant::now();
    let call = |caller: usize| {
        let here = Ask::new(url);
        let mut answered = 0;
        while begun.elapsed() < TURN {
            let number = caller + answered * CALLERS;
            ask(&here, &phrases[number % phrases.len()], number)?;
            answered += 1;
        }
        Ok::<usize, String>(answered)
    };
    let call = &call;
    let answered = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..CALLERS).map(|caller| scope.spawn(move || call(caller))).collect();
        let joined = callers.into_iter().map(|caller| caller.join());
        joined
            .map(|it| it.unwrap_or_else(|_| Err("a caller failed".into())))
            .sum::<Result<usize, _>>()
    });
    Ok(answered? as f64 / begun.elapsed().as_secs_f64())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
