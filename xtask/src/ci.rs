//! `cargo xtask ci`: everything that must hold before a change lands.

use crate::{audit, command, guided, test, tidy, training};

/// Quick checks first, so that a slip is told early; the closing line counts the tests.
pub(crate) fn run() -> Result<(), String> {
    command::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    audit::run(&[])?;
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
    features_alone()?;
    models_compile()?;
    // Before the tests, whose counts are the last line, with the program that is built for them: what
    // guides a release still can be done.
    command::run("cargo", &["test", "--workspace", "--no-run", "--quiet"])?;
    training::run(&guided::target_folder().join("debug/mainstay"), &training::SHORT)?;
    test::run(&[])
}

/// The toolkit's models of interleavings, which only its long form runs, still compile.
fn models_compile() -> Result<(), String> {
    let flags = r#"build.rustflags=["--cfg", "resilience_loom"]"#;
    // A folder of their own: with other flags everything below them is compiled anew.
    let folder = crate::root().join("target/loom");
    let folder = folder.to_string_lossy();
    let check = ["--config", flags, "check", "--tests", "--package", "mainstay-resilience"];
    command::run("cargo", &[&check[..], &["--target-dir", &folder]].concat())
}

/// Features of the toolkit that bring little: each compiles with none of the others. Those for the
/// errors of other crates are compiled together, by the tests.
const FEATURES: &[&str] = &["", "serde", "tokio", "tower", "metrics", "tracing", "http", "testing"];

/// The toolkit alone, without a feature and with each; with its minimum version of the compiler too
/// where that is installed. (Clippy knows which part of the standard library is newer.)
fn features_alone() -> Result<(), String> {
    let check = ["check", "--package", "mainstay-resilience", "--lib", "--no-default-features"];
    for feature in FEATURES {
        command::run("cargo", &[&check[..], &["--features", feature]].concat())?;
    }
    let minimum = concat!("+", env!("CARGO_PKG_RUST_VERSION"), ".0");
    let installed = command::output("rustup", &["toolchain", "list"]).unwrap_or_default();
    if !installed.contains(&minimum[1..]) {
        println!("Rust {} is not installed: the toolkit is not compiled with it", &minimum[1..]);
        return Ok(());
    }
    let folder = crate::root().join("target/minimum");
    let folder = folder.to_string_lossy();
    let all = ["check", "--package", "mainstay-resilience", "--lib", "--all-features"];
    command::run("cargo", &[&[minimum], &all[..], &["--target-dir", &folder]].concat())
}
