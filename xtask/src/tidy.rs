//! `cargo xtask tidy`: the rules of ARCHITECTURE.md and STYLE.md that a program can hold.

mod circles;
mod floors;
mod lengths;
mod sources;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// A source file of the workspace, read once for all rules.
pub(crate) struct Source {
    /// Path from the repository's root, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl Source {
    /// The text before the inline test module at the file's foot.
    pub(crate) fn without_tests(&self) -> &str {
        let cut = self.text.find("#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        &self.text[..cut]
    }

    /// Whether the file is a test, a benchmark or an example as a whole.
    pub(crate) fn is_test(&self) -> bool {
        ["/tests/", "/benches/", "/examples/"].iter().any(|part| self.path.contains(part))
            || self.path.starts_with("testing/")
            || self.path.starts_with("fuzz/")
            || self.path.starts_with("benches/")
            || self.path.ends_with("/tests.rs")
    }
}

/// Checks every rule and reports every fault.
pub(crate) fn run() -> Result<(), String> {
    let sources = sources()?;
    let mut faults = Vec::new();
    faults.extend(floors::check()?);
    faults.extend(circles::check(&sources));
    faults.extend(lengths::check(&sources));
    faults.extend(sources::check(&sources));
    faults.extend(words::check(&root())?);
    if faults.is_empty() {
        println!("tidy: {} source files hold every rule", sources.len());
        return Ok(());
    }
    faults.sort();
    Err(format!("{} faults\n  {}", faults.len(), faults.join("\n  ")))
}

fn sources() -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for folder in ["lib", "crates", "testing", "xtask", "benches", "fuzz"] {
        for path in files(&root().join(folder), "rs") {
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            sources.push(Source { path: relative(&path), text });
        }
    }
    Ok(sources)
}

/// All files below a folder with this extension, sorted; build folders are left out.
pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if path.is_dir() {
            if entry.file_name() != "target" && !hidden {
                found.extend(files(&path, extension));
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A path from the repository's root, with `/`.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}
