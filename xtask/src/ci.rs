//! `cargo xtask ci`: everything that must hold before a change lands.

use crate::{audit, command, test, tidy};

/// Quick checks first, so that a slip is told early; the closing line counts the tests.
pub(crate) fn run() -> Result<(), String> {
    command::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    audit::run()?;
    command::run("cargo", &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    // Warnings of rustdoc (broken links among them) are errors. The published library is
    // documented as its users see it, the others with their private parts, as their readers do.
    let doc = |flags: &str, rest: &[&str]| {
        let flags = format!("build.rustdocflags=[{flags}]");
        command::run("cargo", &[&["--config", &flags, "doc", "--no-deps"], rest].concat())
    };
    doc(r#""--deny", "warnings""#, &["--package", "mainstay-resilience"])?;
    doc(
        r#""--deny", "warnings", "--allow", "rustdoc::private_intra_doc_links""#,
        &["--workspace", "--exclude", "mainstay-resilience", "--document-private-items"],
    )?;
    test::run(&[])
}
