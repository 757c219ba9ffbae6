//! `cargo xtask bench NAME`: comparisons with peers, each in a workspace of its own under
//! `benches/`, so that the peers' dependencies stay out of the product's build.

use crate::command;

/// Name, workspace, arguments that choose the comparison, and what it measures.
const BENCHES: &[(&str, &str, &[&str], &str)] = &[
    ("bm25", "benches/search", &["bm25"], "bm25 beside tantivy on the same text"),
    ("native", "benches/native", &[], "native beside warm ripgrep on a source tree (--tree DIR)"),
    ("vector", "benches/vector", &[], "the vector index beside other graphs on the same vectors"),
    ("resilience", "benches/resilience", &[], "the resilience toolkit beside its peers"),
    ("product", "benches/product", &[], "the whole product: ingest, restart, hybrid search"),
    ("operations", "benches/operations", &[], "a server while its dependencies fail, and what watching costs"),
];

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
    let manifest = format!("{workspace}/Cargo.toml");
    let mut all = vec!["run", "--release", "--quiet", "--manifest-path", &manifest, "--"];
    all.extend_from_slice(choose);
    all.extend(arguments[1..].iter().map(String::as_str));
    command::run("cargo", &all)
}
