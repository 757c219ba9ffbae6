//! `cargo xtask audit`: the licence of every dependency that ends up in the binary, and its known
//! vulnerabilities.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{advisories, command};

/// Licences under which linked code may come.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Checks licences and vulnerabilities, or makes the list of vulnerabilities anew.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    match arguments {
        [] => licences().and_then(|()| advisories::run()),
        [flag, folder] if flag == "--refresh" => advisories::refresh(folder),
        _ => Err("audit takes nothing, or --refresh and a clone of the advisory database".into()),
    }
}

fn licences() -> Result<(), String> {
    let metadata = command::output("cargo", &["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Value =
        serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let mut faults = BTreeSet::new();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        if !permitted(licence) {
            faults.insert(format!("{name} {}: licence \"{licence}\"", package["version"]));
        }
    }
    if !faults.is_empty() {
        let list: Vec<_> = faults.into_iter().collect();
        return Err(format!("licences that may not be linked:\n  {}", list.join("\n  ")));
    }
    println!("audit: the licences of {} packages are permissive", packages.len());
    Ok(())
}

/// Whether an SPDX expression leaves a way to use the code under allowed licences alone.
fn permitted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    split_top(&expression, " OR ").into_iter().any(|choice| {
        let parts = split_top(choice, " AND ");
        if parts.len() == 1 {
            let part = parts[0].trim();
            return match part.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
                Some(inner) => permitted(inner),
                None => ALLOWED.contains(&part),
            };
        }
        parts.into_iter().all(permitted)
    })
}

/// Splits at a word outside parentheses.
fn split_top<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0i32, 0);
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ if depth == 0 && text[at..].starts_with(word) => {
                parts.push(&text[begin..at]);
                at += word.len();
                begin = at;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&text[begin..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::permitted;

    #[test]
    fn an_expression_is_permitted_when_one_choice_is() {
        assert!(permitted("MIT OR Apache-2.0"));
        assert!(permitted("Unlicense/MIT"));
        assert!(permitted("(Apache-2.0 OR MIT) AND BSD-3-Clause"));
        assert!(permitted("MIT OR GPL-3.0"));
        assert!(!permitted("GPL-3.0"));
        assert!(!permitted("MIT AND AGPL-3.0"));
        assert!(!permitted("BUSL-1.1"));
        assert!(!permitted(""));
    }
}
