//! `cargo xtask ci`: everything that must hold before a change lands.

use crate::{audit, command, test, tidy};

/// Quick checks first, so that a slip is told early; the closing line counts the tests.
pub(crate) fn run() -> Result<(), String> {
    command::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    audit::run()?;
    command::run("cargo", &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    // Warnings of rustdoc (broken links among them) are errors here.
    command::run(
        "cargo",
        &[
            "--config",
            "build.rustdocflags=[\"--deny\", \"warnings\"]",
            "doc",
            "--workspace",
            "--no-deps",
        ],
    )?;
    test::run(&[])
}
