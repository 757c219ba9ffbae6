use std::fs;

use crate::{mainstay, text, write};

#[test]
fn a_second_run_reads_only_what_changed_and_removes_what_is_gone() {
    let (tree, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(tree.path(), "src/a.rs", "fn zebra() {}\n");
    write(tree.path(), "src/b.rs", "fn walrus() {}\n");
    write(tree.path(), "notes.md", "# Notes\n\nabout a lynx\n");
    write(tree.path(), ".gitignore", "ignored.txt\n");
    write(tree.path(), ".ignore", "ignored.txt\n");
    write(tree.path(), "ignored.txt", "zebra");
    fs::write(tree.path().join("image.bin"), b"\x00\x01zebra\x00").unwrap();
    let run = || {
        let (tree, data) = (text(tree.path()), text(data.path()));
        mainstay(&["index", tree, "--data", data, "--model", "static"]).ok().err
    };
    let ids = |query: &str| {
        let found = mainstay(&[
            "search",
            query,
            "--data",
            text(data.path()),
            "--method",
            "native",
            "--json",
        ]);
        let results = found.json()["results"].as_array().unwrap().clone();
        results.iter().map(|hit| hit["id"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let first = run();
    assert!(first.contains("3 indexed"), "{first}");
    assert!(first.contains("1 binary"), "{first}");
    assert_eq!(ids("zebra"), ["src/a.rs"]);

    write(tree.path(), "src/a.rs", "fn giraffe() {}\n");
    fs::rename(tree.path().join("src/b.rs"), tree.path().join("src/c.rs")).unwrap();
    fs::remove_file(tree.path().join("notes.md")).unwrap();
    let second = run();
    assert!(second.contains("2 indexed"), "{second}");
    assert!(second.contains("1 renamed"), "{second}");
    assert!(ids("zebra").is_empty());
    assert_eq!(ids("giraffe"), ["src/a.rs"]);
    assert_eq!(ids("walrus"), ["src/c.rs"]);
    assert!(ids("lynx").is_empty());

    let verified = mainstay(&["verify", "--data", text(data.path()), "--json"]).ok().json();
    assert_eq!(verified[0]["clean"], true, "{verified:#}");
    assert_eq!(verified[0]["documents"], 2);
}

#[test]
fn ndjson_is_indexed_line_by_line_and_a_bad_line_is_reported() {
    let (tree, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lines = "{\"id\":\"1\",\"body\":\"zebra\",\"attributes\":{\"price\":2}}\nbroken\n{\"id\":\"2\",\"body\":\"walrus\"}\n";
    write(tree.path(), "docs.ndjson", lines);
    let path = tree.path().join("docs.ndjson");
    let run =
        mainstay(&["index", text(&path), "--data", text(data.path()), "--model", "static"]).ok();
    assert!(run.err.contains("2 indexed") && run.err.contains("docs.ndjson:2"), "{}", run.err);
    let found =
        mainstay(&["search", "zebra", "--data", text(data.path()), "-f", "price>1", "--json"]).ok();
    assert_eq!(found.json()["results"].as_array().unwrap().len(), 1);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_it() {
    let data = tempfile::tempdir().unwrap();
    let run = mainstay(&["index", "/nowhere/at/all", "--data", text(data.path())]);
    assert_eq!(run.code, 3);
    assert!(run.err.contains("/nowhere/at/all"), "{}", run.err);
}

#[test]
fn a_method_is_rebuilt_from_the_command_line() {
    let (tree, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(tree.path(), "a.txt", "zebra\n");
    let (tree, data) = (text(tree.path()), text(data.path()));
    mainstay(&["index", tree, "--data", data, "--model", "static"]).ok();
    for method in ["bm25", "tantivy", "native", "semantic"] {
        mainstay(&["rebuild", "--data", data, "--method", method]).ok();
        let journal = std::path::Path::new(data).join("state/audit.ndjson");
        let journal = std::fs::read_to_string(journal).unwrap();
        let entry: serde_json::Value =
            serde_json::from_str(journal.lines().last().unwrap()).unwrap();
        let noted = [&entry["action"], &entry["target"], &entry["who"], &entry["outcome"]];
        assert_eq!(noted, ["view.rebuild", &format!("default/{method}"), "command line", "done"]);
    }
    mainstay(&["verify", "--data", data]).ok();
}
