//! `cargo xtask bench NAME`: comparisons with peers, each in a workspace of its own under
//! `benches/`, so that the peers' dependencies stay out of the product's build.

use std::process::{Command, Stdio};

use crate::{command, guided};

/// Name, workspace, arguments that choose the comparison, and what it measures.
const BENCHES: &[(&str, &str, &[&str], &str)] = &[
    ("bm25", "benches/search", &["bm25"], "bm25 beside tantivy on the same text"),
    ("native", "benches/native", &[], "native beside warm ripgrep on a source tree (--tree DIR)"),
    ("vector", "benches/vector", &[], "the vector index beside other graphs on the same vectors"),
    ("resilience", "benches/resilience", &[], "the resilience toolkit beside its peers"),
    ("product", "benches/product", &[], "the whole product: ingest, restart, hybrid search"),
    (
        "operations",
        "benches/operations",
        &[],
        "a server while its dependencies fail, and what watching costs",
    ),
];

/// What a benchmark does to train a build that is guided by a profile: its short form.
const TRAINING: &[(&str, guided::Target<'_>, &[&str])] = &[(
    "operations",
    guided::Target {
        manifest: "benches/operations/Cargo.toml",
        package: "operations-bench",
        program: "operations-bench",
    },
    &["overheads", "--seconds", "3"],
)];

/// Runs one comparison in release mode; further arguments go to it.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let Some(name) = arguments.first() else {
        for (name, _, _, about) in BENCHES {
            println!("{name:12} {about}");
        }
        return Ok(());
    };
    let Some((_, workspace, choose, _)) = BENCHES.iter().find(|(known, ..)| known == name) else {
        let known: Vec<_> = BENCHES.iter().map(|(known, ..)| *known).collect();
        return Err(format!("unknown benchmark \"{name}\"; known are {}", known.join(", ")));
    };
    if arguments.get(1).is_some_and(|argument| argument == "--guided") {
        return run_guided(name, choose, &arguments[2..]);
    }
    let manifest = format!("{workspace}/Cargo.toml");
    let mut all = vec!["run", "--release", "--quiet", "--manifest-path", &manifest, "--"];
    all.extend_from_slice(choose);
    all.extend(arguments[1..].iter().map(String::as_str));
    command::run("cargo", &all)
}

/// The same, built as `cargo xtask release` builds the product.
fn run_guided(name: &str, choose: &[&str], arguments: &[String]) -> Result<(), String> {
    let Some((_, target, training)) = TRAINING.iter().find(|(known, ..)| *known == name) else {
        let known: Vec<_> = TRAINING.iter().map(|(known, ..)| *known).collect();
        return Err(format!("--guided is for {}, not for {name}", known.join(", ")));
    };
    let program = guided::build(target, |program| {
        let mut trained = Command::new(program);
        trained.args(*training).current_dir(crate::root()).stdout(Stdio::null());
        let trained = trained.status();
        let trained = trained.map_err(|e| format!("cannot run {}: {e}", program.display()))?;
        trained.success().then_some(()).ok_or_else(|| format!("the training failed: {trained}"))
    })?;
    let mut all = choose.to_vec();
    all.extend(arguments.iter().map(String::as_str));
    command::run(&program.to_string_lossy(), &all)
}
