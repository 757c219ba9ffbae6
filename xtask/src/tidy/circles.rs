//! No import circles between the files of a crate.
//!
//! A child may name its parent module's items and a parent its children's: that is one concept in
//! several files. A circle is between modules of which neither holds the other.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut crates: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        if let Some((folder, _)) = source.path.split_once("/src/") {
            crates.entry(folder).or_default().push(source);
        }
    }
    crates.into_iter().flat_map(|(folder, files)| circles(folder, &files)).collect()
}

/// Top-level modules that import each other in a loop.
fn circles(folder: &str, files: &[&Source]) -> Vec<String> {
    let names: BTreeSet<&str> = files.iter().filter_map(|file| module(file)).collect();
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in files {
        let Some(from) = module(file) else { continue };
        for line in file.without_tests().lines() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for part in line.split("crate::").skip(1) {
                let to: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if let Some(to) = names.get(to.as_str()).filter(|to| **to != from) {
                    arrows.entry(from).or_default().insert(to);
                }
            }
        }
    }
    let mut found = Vec::new();
    for start in arrows.keys() {
        if let Some(path) = path_back(start, &arrows) {
            // Each circle is told once, from its first name on.
            if path.iter().min() == Some(start) {
                found.push(format!(
                    "{folder}/src: modules import each other in a circle: {}",
                    path.join(" → ")
                ));
            }
        }
    }
    found
}

/// The top-level module that a file belongs to; the crate's root belongs to none.
fn module(file: &Source) -> Option<&str> {
    let (_, inside) = file.path.split_once("/src/")?;
    let first = inside.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&first)).then_some(first)
}

fn path_back<'a>(
    start: &'a str,
    arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::new();
    let mut stack = vec![vec![start]];
    while let Some(path) = stack.pop() {
        let last = path[path.len() - 1];
        for next in arrows.get(last).into_iter().flatten() {
            if *next == start {
                return Some(path);
            }
            if seen.insert(*next) {
                let mut longer = path.clone();
                longer.push(next);
                stack.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_circle_is_found_and_a_chain_is_not() {
        let chain = [source("c/src/a.rs", "use crate::b::B;"), source("c/src/b.rs", "struct B;")];
        assert!(check(&chain).is_empty());
        let circle =
            [source("c/src/a.rs", "use crate::b::B;"), source("c/src/b.rs", "use crate::a::A;")];
        assert_eq!(check(&circle).len(), 1);
    }
}
