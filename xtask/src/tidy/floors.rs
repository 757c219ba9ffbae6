//! Arrows between crates go down only, and ARCHITECTURE.md shows the table that holds.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::{command, root};

/// The workspace's own packages by folder, and the rows of the floors table.
pub(super) fn check() -> Result<Vec<String>, String> {
    let path = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let allowed = table(&text);
    let mut faults = Vec::new();
    let metadata =
        command::output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let metadata: Value =
        serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let folder_of: BTreeMap<&str, String> =
        packages.iter().filter_map(|p| Some((p["name"].as_str()?, folder(p)?))).collect();
    for package in packages {
        let Some(from) = folder(package) else { continue };
        if from == "xtask" || from.starts_with("testing/") {
            continue;
        }
        let Some(may) = allowed.get(&from) else {
            faults.push(format!("{from}: has no row in the floors table of ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default()
        {
            let Some(to) = dependency["name"].as_str().and_then(|name| folder_of.get(name)) else {
                continue;
            };
            let development = dependency["kind"] == "dev";
            let testkit = development && to.starts_with("testing/");
            // A crate's tests may use themselves and what stands on a lower floor.
            if !testkit && to != &from && !may.contains(to) {
                faults.push(format!("{from}: uses {to}, which the floors table does not allow"));
            }
        }
    }
    for from in allowed.keys() {
        if !folder_of.values().any(|folder| folder == from) && !root().join(from).exists() {
            faults.push(format!(
                "ARCHITECTURE.md: the floors table names {from}, which is not there"
            ));
        }
    }
    Ok(faults)
}

fn folder(package: &Value) -> Option<String> {
    let manifest = std::path::Path::new(package["manifest_path"].as_str()?);
    Some(super::relative(manifest.parent()?))
}

/// Rows `| floor | \`crate\` | holds | may use |`, where the last cell lists folders in backticks.
fn table(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [floor, name, _, may] = cells[..] else { continue };
        if floor.parse::<u32>().is_err() {
            continue;
        }
        for name in quoted(name) {
            rows.insert(name, quoted(may));
        }
    }
    rows
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_from_the_document() {
        let rows =
            table("| 2 | `crates/storage` | bytes | `lib/resilience` |\n| floor | x | y | z |");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows["crates/storage"], ["lib/resilience"]);
    }
}
