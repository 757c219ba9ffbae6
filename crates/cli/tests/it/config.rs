use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{mainstay, text};

#[test]
fn a_reader_that_has_seen_enough_ends_the_program_without_a_word() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["config", "show"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(141));
    assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn settings_are_shown_with_their_origin_and_checked_with_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    fs::write(&file, "[server]\nsearches_max = 7\n").unwrap();
    let shown = mainstay(&[
        "config",
        "show",
        "--origin",
        "--config",
        text(&file),
        "--set",
        "server.writes_max=9",
    ]);
    let shown = shown.ok().out;
    for part in [
        "[server]",
        "searches_max = 7",
        "m.toml:2",
        "writes_max = 9",
        "# command line",
        "# default",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let json = mainstay(&["config", "show", "--json"]).ok().json();
    assert_eq!(json["server.listen"]["value"], "127.0.0.1:8080");
    assert_eq!(mainstay(&["config", "check", text(&file)]).ok().code, 0);
    // What is shown can be used as a file.
    fs::write(&file, &shown).unwrap();
    mainstay(&["config", "check", text(&file)]).ok();
    fs::write(&file, "[server]\nsearch_max = 7\nlisten = \"x\"\n").unwrap();
    let refused = mainstay(&["config", "check", text(&file)]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("did you mean server.searches_max?"), "{}", refused.err);
    assert!(refused.err.contains("m.toml:3"), "{}", refused.err);
    fs::write(&file, "[memory]\nwarn_percent = 90\n").unwrap();
    let refused = mainstay(&["config", "check", text(&file)]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("m.toml:2: memory.shrink_percent is 80"), "{}", refused.err);
    let missing = mainstay(&["config", "check", "/nowhere/m.toml"]);
    assert_eq!(missing.code, 2);
    assert!(
        missing.err.contains("/nowhere/m.toml: the settings cannot be read"),
        "{}",
        missing.err
    );
}

/// O6: all or nothing, with a diff.
#[test]
fn a_running_server_takes_over_what_can_change_and_refuses_the_rest_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    let settings = |text: &str| fs::write(&file, text).unwrap();
    settings("[server]\nlisten = \"127.0.0.1:0\"\nsearches_max = 7\n");
    let data = folder.path().join("data");
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["serve", "--data", text(&data), "--config", text(&file), "--model", "static"])
        .env_remove("MODEL_PATH")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut wait_for = |part: &str| {
        lines.find(|line| line.contains(part)).unwrap_or_else(|| panic!("never said {part:?}"))
    };
    wait_for("listening on");
    wait_for("try: ");
    let pid = child.id().to_string();
    let hangup = || assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());

    settings("[server]\nlisten = \"127.0.0.1:0\"\nsearches_max = 70\n");
    hangup();
    assert!(wait_for("reloaded").ends_with("server.searches_max is now 70 (was 7)"));
    hangup();
    wait_for("nothing has changed");
    settings("[server]\nlisten = \"127.0.0.1:1\"\nsearches_max = 71\n");
    hangup();
    let refused = wait_for("not reloaded, nothing was changed");
    assert!(refused.contains("server.listen needs a restart"), "{refused}");
    settings("[server\n");
    hangup();
    wait_for("not reloaded, nothing was changed");
    settings("[server]\nlisten = \"127.0.0.1:0\"\nsearches_max = 71\n");
    hangup();
    assert!(wait_for("reloaded").ends_with("server.searches_max is now 71 (was 70)"));

    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    wait_for("everything is durable");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
