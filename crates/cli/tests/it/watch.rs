use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{mainstay, text, write};

#[test]
fn a_watched_folder_is_followed_until_the_program_is_ended() {
    let (tree, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(tree.path(), "a.md", "zebra\n");
    write(tree.path(), "b.md", "walrus\n");
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["index", text(tree.path()), "--data", text(data.path()), "--model", "static"])
        .arg("--watch")
        .env_remove("MODEL_PATH")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut wait_for = |part: &str| {
        lines.find(|line| line.contains(part)).unwrap_or_else(|| panic!("never said {part:?}"))
    };
    wait_for("2 indexed");
    wait_for("following changes");
    write(tree.path(), "new/c.md", "giraffe\n");
    wait_for("1 indexed");
    fs::remove_file(tree.path().join("b.md")).unwrap();
    wait_for("1 removed");
    // The hardest end there is; what was said to be indexed is there.
    child.kill().unwrap();
    child.wait().unwrap();

    let ids = |query: &str| {
        let data = text(data.path());
        let method = ["--method", "native", "--json"];
        let found = mainstay(&[&["search", query, "--data", data], &method[..]].concat());
        let results = found.json()["results"].as_array().unwrap().clone();
        results.iter().map(|hit| hit["id"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids("zebra"), ["a.md"]);
    assert_eq!(ids("giraffe"), ["new/c.md"]);
    assert!(ids("walrus").is_empty());
}
