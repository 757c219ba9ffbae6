use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::{Ran, text, write};

/// A user who owns nothing, so that permissions hold also where tests run as root.
const NOBODY: u32 = 65_534;

fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs a copy of the program that everybody may execute.
fn mainstay_as_nobody(home: &Path, arguments: &[&str]) -> Ran {
    let program = home.join("mainstay");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_mainstay"), &program).unwrap();
        permit(&program, 0o755);
    }
    let mut command = Command::new(program);
    command.args(arguments).env_remove("MAINSTAY_DATA").env_remove("MODEL_PATH");
    if fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0) {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ran::of(command.output().unwrap())
}

#[test]
fn what_may_not_be_read_is_named_at_the_end_and_stops_nothing() {
    let home = tempfile::tempdir().unwrap();
    permit(home.path(), 0o777);
    let tree = home.path().join("tree");
    write(&tree, "a.md", "zebra\n");
    write(&tree, "secret.md", "walrus\n");
    write(&tree, "closed/b.md", "giraffe\n");
    permit(&tree, 0o755);
    permit(&tree.join("secret.md"), 0o000);
    permit(&tree.join("closed"), 0o000);
    let data = home.path().join("data");
    let indexed = mainstay_as_nobody(
        home.path(),
        &["index", text(&tree), "--data", text(&data), "--model", "static"],
    );
    permit(&tree.join("closed"), 0o755);
    assert_eq!(indexed.code, 0, "{}", indexed.err);
    assert!(
        indexed.err.contains("1 indexed") && indexed.err.contains("2 left out"),
        "{}",
        indexed.err
    );
    for name in ["secret.md", "closed"] {
        let line = indexed.err.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not named: {}", indexed.err));
        assert!(line.to_lowercase().contains("permission denied"), "{line}");
    }
    let found = mainstay_as_nobody(
        home.path(),
        &["search", "zebra", "--data", text(&data), "--method", "native", "--json"],
    );
    assert_eq!(found.ok().json()["results"][0]["id"], "a.md");
}

#[test]
fn a_folder_or_a_data_directory_that_may_not_be_opened_is_an_error_that_names_it() {
    let home = tempfile::tempdir().unwrap();
    permit(home.path(), 0o777);
    let (tree, data) = (home.path().join("tree"), home.path().join("data"));
    write(&tree, "a.md", "zebra\n");
    permit(&tree, 0o000);
    let run = |tree: &Path, data: &Path| {
        mainstay_as_nobody(
            home.path(),
            &["index", text(tree), "--data", text(data), "--model", "static"],
        )
    };
    let refused = run(&tree, &data);
    permit(&tree, 0o755);
    assert_ne!(refused.code, 0, "{}", refused.err);
    assert!(refused.err.contains(text(&tree)), "{}", refused.err);
    assert!(refused.err.to_lowercase().contains("permission denied"), "{}", refused.err);

    let closed = home.path().join("closed");
    fs::create_dir(&closed).unwrap();
    permit(&closed, 0o000);
    let refused = run(&tree, &closed.join("data"));
    assert_ne!(refused.code, 0, "{}", refused.err);
    assert!(refused.err.contains(text(&closed)), "{}", refused.err);
    assert!(refused.err.to_lowercase().contains("permission denied"), "{}", refused.err);
}
