//! Documents: every path that they name in backticks exists, and each begins with one title.

use std::fs;
use std::path::Path;

/// Documents whose paths are checked; folders are read as a whole.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "STYLE.md",
    "CONTRIBUTING.md",
    "docs",
    "models",
    "lib/resilience",
];

/// First parts of a path that make a quoted word a path of this repository.
const ROOTS: &[&str] =
    &["crates/", "lib/", "testing/", "xtask/", "docs/", "benches/", "fuzz/", "models/", "api/"];

pub(super) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    for document in DOCUMENTS {
        let path = root.join(document);
        let files = if path.is_dir() { super::files(&path, "md") } else { vec![path] };
        for file in files {
            let name = super::relative(&file);
            let text = fs::read_to_string(&file).map_err(|e| format!("{name}: {e}"))?;
            if !text.starts_with("# ") {
                faults.push(format!("{name}: begins with no title"));
            }
            for quoted in text.split('`').skip(1).step_by(2) {
                let path = quoted.split([':', '#', ' ']).next().unwrap_or_default();
                let is_path = ROOTS.iter().any(|root| path.starts_with(root));
                if is_path && !path.contains(['*', '<', '{', '…']) && !root.join(path).exists() {
                    faults.push(format!("{name}: names {path}, which is not there"));
                }
            }
        }
    }
    Ok(faults)
}
